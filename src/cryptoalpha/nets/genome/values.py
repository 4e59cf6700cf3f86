"""What goes into the market genome, what it answers, and what it is taught with.

Axes: `B` windows (one market each), `S` time frames (the base bar first), `N` base bars of one window (oldest first), `K` levels on a side,
`V` = 16 tokens. Every answer at column n is made of columns up to n only.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class GenomeInputs(NamedTuple):
    """One batch of windows."""

    tokens: Tensor
    """Which tokens the newest closed bar of each time frame carries, `[B, S, N, V]` bool."""
    missing: Tensor
    """Tokens whose source was missing, `[B, S, N, V]` bool; such a token is off in `tokens`."""
    hidden: Tensor
    """Columns whose tokens are hidden for masked-token training, `[B, N]` bool; all False otherwise."""
    pair: Tensor
    """What is known of two bars, taken at the later one: prices within half an ATR, same hour of the week, `[B, N, N, F]` float."""
    present: Tensor
    """Whether the time frame has a closed bar at the column, `[B, S, N]` bool."""


class GenomeReading(NamedTuple):
    """The answers at every column."""

    supports: Tensor
    """Distances of the supports below the price in ATR, rising, above 0, `[B, N, K]`."""
    resistances: Tensor
    """Distances of the resistances above the price in ATR, rising, above 0, `[B, N, K]`."""
    hold: Tensor
    """Logit that each level holds, supports first, `[B, N, 2K]`."""
    trend: Tensor
    """Logits of up, down, sideways over the horizon, `[B, N, 3]`."""
    movement: Tensor
    """Logits of up, down, sideways over the next bar, `[B, N, 3]`."""
    tokens: Tensor
    """Logits of the tokens of each cell (masked-token training), `[B, S, N, V]`."""
    distance: Tensor
    """Logits of the bins of |ln p(j+h) − ln p(i)| / σ_i for i ≤ j (distance training), `[B, N, N, bins]`."""


class ColumnAnswers(NamedTuple):
    """The answers at one column of each window: as in `GenomeReading`, without its axis N."""

    supports: Tensor
    resistances: Tensor
    hold: Tensor
    trend: Tensor
    movement: Tensor


class GenomeTargets(NamedTuple):
    """What happened; NaN (or −1 for classes) where it is not known. Only `supervised` columns count."""

    below: Tensor
    """How far the low went below the price over the horizon, in ATR, never below 0, `[B, N]`."""
    above: Tensor
    """How far the high went above it, `[B, N]`."""
    close_below: Tensor
    """How far the lowest close went below the price over the horizon, in ATR, `[B, N]`: a level holds if no close lies beyond it."""
    close_above: Tensor
    """How far the highest close went above it, `[B, N]`."""
    trend: Tensor
    """Class over the horizon, `[B, N]` int64, −1 where unknown."""
    movement: Tensor
    """Class over the next bar, `[B, N]` int64, −1 where unknown."""
    distance: Tensor
    """Bin of the distance, `[B, N, N]` int64, −1 where unknown or i > j."""
    tokens: Tensor
    """The tokens before any was hidden, `[B, S, N, V]` bool."""
    supervised: Tensor
    """`[B, N]` bool."""
