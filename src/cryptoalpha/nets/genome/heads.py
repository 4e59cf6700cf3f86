"""What the market genome answers of a column: levels in order, whether they hold, trend, next movement.

The last layers begin with zero weights, so that an untrained genome answers what it was told is usual (`start_from`) at every bar, and
training can only add to that. Until then the levels stand where a random walk would put them.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import torch
from torch import Tensor, nn
from torch.nn import functional

BARS_RANGE = math.sqrt(8.0 / math.pi)
"""Expected range of a bar of a Brownian motion in standard deviations of its return, (8/π)^½ (Feller 1951): what an ATR is to a σ."""

LEAST_STEP = 1e-3
"""Distance between two levels at least, ATR: a softplus that underflows to 0 would put two levels on one price."""

MOST = 4.0
"""Log odds beyond which a usual answer is not believed at the start: one in 55."""


def level_probabilities(levels: int) -> tuple[float, ...]:
    """The quantiles of the later excursion that `levels` levels stand for: .1 .3 .5 .7 .9 for five."""
    return tuple((k + 0.5) / levels for k in range(levels))


def random_walk_levels(levels: int, horizon: int) -> Tensor:
    """Quantiles, in ATR, of how far a random walk strays to one side within `horizon` bars (the reflection principle), `[K]`."""
    spread = math.sqrt(horizon) / BARS_RANGE
    return torch.tensor([spread * NormalDist().inv_cdf((1.0 + p) / 2.0) for p in level_probabilities(levels)])


MOST_TOKENS = 8.0
"""The same for tokens, some of which a year sees once: one in three thousand."""


class LevelHead(nn.Module):
    """Distances of K levels on one side of the price, in ATR: a running sum of softplus, hence above 0 and rising.

    Args:
        width: channels C.
        levels: K.
        horizon: bars, for where the levels begin.

    Shapes:
        columns `[B, N, C]` → `[B, N, K]`.
    """

    def __init__(self, width: int, levels: int, horizon: int) -> None:
        super().__init__()
        self.steps = quiet_linear(width, levels)
        self.start_from(random_walk_levels(levels, horizon))

    def forward(self, columns: Tensor) -> Tensor:
        steps = functional.softplus(self.steps(columns)) + LEAST_STEP
        return steps.cumsum(-1)

    @torch.no_grad()
    def start_from(self, distances: Tensor) -> None:
        """Answer these distances (ATR, rising) where nothing is learned."""
        steps = torch.diff(distances, prepend=distances.new_zeros(1)).clamp(min=2.0 * LEAST_STEP) - LEAST_STEP
        self.steps.bias.copy_(torch.log(torch.expm1(steps)))  # the inverse of softplus


def quiet_linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer that answers 0 until it has learned something (AlphaFold's "final" initialisation)."""
    layer = nn.Linear(inputs, outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def log_odds(rates: Tensor, most: float = MOST) -> Tensor:
    """ln(r / (1 − r)), cut at ±`most`."""
    return torch.logit(rates.double()).clamp(-most, most).to(torch.get_default_dtype())
