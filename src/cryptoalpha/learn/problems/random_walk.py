"""A market that cannot be beaten: a driftless walk with trading costs. Whoever claims money on it looks into the future.

Returns are independent with mean 0, so every trade loses its cost and the best plan from flat is to stay flat, worth exactly 0. A tree of
drawn scenarios whose means are left as drawn finds "opportunities" in its own noise; this problem is where that shows.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from cryptoalpha.learn.search.contract import Booleans, Draws, Floats, Gains

Array = NDArray[np.float64]


def normal_quantile(uniforms: Floats) -> Array:
    """The standard normal value below which a share `uniforms` of all values lies."""
    quantiles: Array = torch.special.ndtri(torch.from_numpy(np.ascontiguousarray(uniforms, dtype=np.float64))).numpy()
    return quantiles


class RandomWalk:
    """Market model `[n, 1]` (sum of returns so far) with seven positions from −1 to 1.

    Args:
        deviation: standard deviation of a return; with `lognormal` that of its logarithm.
        lognormal: returns are exp(σz − σ²/2) − 1, mean 0 like the normal ones, but skewed.
        trade_cost: paid per unit of position changed.

    Implements `contract.MarketModel`.
    """

    discount = 1.0
    allowed: Booleans | None = None

    def __init__(self, deviation: float = 1.0, *, lognormal: bool = False, trade_cost: float = 0.3) -> None:
        self.deviation = deviation
        self.lognormal = lognormal
        self.positions = np.linspace(-1.0, 1.0, 7)
        self.flat = 3
        self.trade_costs = trade_cost * np.abs(self.positions[None, :] - self.positions[:, None])[None]

    def draw(self, states: Floats, uniforms: Floats) -> Draws:
        """Returns at their quantiles, equally likely, expected 0."""
        returns = self.deviation * normal_quantile(uniforms)
        if self.lognormal:
            returns = np.expm1(returns - self.deviation**2 / 2.0)
        following = (states[:, None, :] + returns[:, :, None]).astype(np.float32)
        return Draws(following, returns, np.zeros(len(states)), np.full(uniforms.shape, 1.0 / uniforms.shape[1]))

    def gains(self, states: Floats, returns: Floats) -> Gains:
        """Position times return."""
        return Gains(returns[:, :, None] * self.positions)

    def costs(self, states: Floats) -> Array:
        """Proportional to the trade: `[1, 7, 7]`."""
        return self.trade_costs

    def values(self, states: Floats) -> Array:
        """Nothing is to be expected of a martingale."""
        return np.zeros((len(states), len(self.positions)))

    def logits(self, states: Floats) -> None:
        """No opinion."""
        return
