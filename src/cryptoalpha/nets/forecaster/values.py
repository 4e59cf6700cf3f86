"""What goes into the forecaster, what it answers, and what it is taught with.

Axes: `B` blocks of bars, `S` bars of one block (oldest first), `N` assets, `H` horizons, `Q` quantiles, `D` channels of a text vector,
`F` pair features. Moves are log returns in units of the volatility expected over the horizon, σ_t √h, known at the bar.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class ForecastInputs(NamedTuple):
    """One batch of blocks. What was not observed is 0 and marked False (its content never counts, whatever it is)."""

    price: Tensor
    """Scaled price features, `[B, S, N, 50]` float."""
    price_seen: Tensor
    """`[B, S, N, 50]` bool."""
    chain: Tensor
    """Scaled on-chain features, `[B, S, N, 30]` float."""
    chain_seen: Tensor
    """`[B, S, N, 30]` bool."""
    text: Tensor
    """Mean of the vectors of the texts known of the last day, weighed by age and relevance, `[B, S, N, D]` float."""
    text_weight: Tensor
    """Sum of those weights, `[B, S, N]` float; 0 where there was no text."""
    pair: Tensor
    """What is known of two assets (trailing correlations, betas, lagged correlations), scaled, `[B, S, N, N, F]` float."""
    pair_seen: Tensor
    """`[B, S, N, N, F]` bool."""
    present: Tensor
    """Whether the asset has a bar, `[B, S, N]` bool."""


class Forecast(NamedTuple):
    """The answers at every bar, each made of that bar and earlier ones of its block only."""

    direction: Tensor
    """Logits of up, down, sideways, `[B, S, N, H, 3]`."""
    volatility: Tensor
    """Volatility over the horizon in units of σ_t √h, above 0, `[B, S, N, H]`."""
    sentiment: Tensor
    """Logits of very negative … very positive, read from the text alone, `[B, S, N, 5]`."""
    confidence: Tensor
    """Logit that the call of direction is right, `[B, S, N, H]`; its inputs are detached."""
    location: Tensor
    """Expected move, `[B, S, N, H]`."""
    quantiles: Tensor
    """Quantiles of the move, rising by construction, `[B, S, N, H, Q]`."""
    correlation: Tensor
    """Logits of the bins of the correlation ahead, symmetric in the assets, `[B, S, N, N, bins]`."""


class ForecastTargets(NamedTuple):
    """What happened; NaN where it is not known. Only `supervised` bars count (a block's first bars are there to be looked back at)."""

    move: Tensor
    """`[B, S, N, H]`."""
    volatility: Tensor
    """Realised volatility over the horizon in units of σ_t √h, `[B, S, N, H]`."""
    correlation: Tensor
    """Realised correlation over the longest horizon or a day, whichever is more, `[B, S, N, N]`."""
    supervised: Tensor
    """`[B, S]` bool."""
