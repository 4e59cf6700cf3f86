"""Merton's portfolio: how much of a lognormal asset to hold for the fastest growth. The answer is known: μ/σ².

With log utility the best share of wealth is (μ − r)/σ², here 0.0008/0.02² = 2.0 with r = 0: twice one's wealth, on borrowed money. The
grid runs from −1 to 3 in steps of 0.2, so a planner must find position index 15. One step is one bar; there are no costs, so that looking
further ahead changes nothing.

Source: Merton 1969, "Lifetime portfolio selection under uncertainty: the continuous-time case".
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cryptoalpha.learn.problems.random_walk import normal_quantile
from cryptoalpha.learn.search.contract import Booleans, Draws, Floats, Gains

Array = NDArray[np.float64]

RUIN = -1e3
"""Log growth booked when a position loses more than everything; no return near the expected one comes close."""


class Merton:
    """Market model with a state that never changes (`[n, 1]`), log growth as reward.

    Args:
        quadrature: outcomes are the nodes of a Gauss-Hermite rule with its weights, as many as the tree branches, whatever the uniforms;
            else lognormal returns at their quantiles, equally likely.

    Implements `contract.MarketModel`.
    """

    drift = 0.0008
    deviation = 0.02
    best = 2.0
    """μ/σ²."""
    discount = 0.99
    allowed: Booleans | None = None

    def __init__(self, *, quadrature: bool = False) -> None:
        self.quadrature = quadrature
        self.positions = np.round(np.arange(-1.0, 3.1, 0.2), 1)
        self.no_costs = np.zeros((1, len(self.positions), len(self.positions)))

    def draw(self, states: Floats, uniforms: Floats) -> Draws:
        """Simple returns exp((μ − σ²/2) + σz) − 1, whose mean is e^μ − 1."""
        count = uniforms.shape[1]
        if self.quadrature:
            nodes, masses = np.polynomial.hermite_e.hermegauss(count)
            normal, weights = np.tile(nodes, (len(states), 1)), np.tile(masses / masses.sum(), (len(states), 1))
        else:
            normal, weights = normal_quantile(uniforms), np.full(uniforms.shape, 1.0 / count)
        returns = np.expm1(self.drift - self.deviation**2 / 2.0 + self.deviation * normal)
        following = np.zeros((len(states), count, states.shape[1]), dtype=np.float32)
        return Draws(following, returns, np.full(len(states), np.expm1(self.drift)), weights)

    def gains(self, states: Floats, returns: Floats) -> Gains:
        """log(1 + a·r); a position that loses everything is ruined."""
        growth = returns[:, :, None] * self.positions
        alive = growth > -1.0
        return Gains(np.where(alive, np.log1p(np.where(alive, growth, 0.0)), RUIN), alive)

    def costs(self, states: Floats) -> Array:
        """None: `[1, 21, 21]` zeros."""
        return self.no_costs

    def values(self, states: Floats) -> Array:
        """Zero: with independent returns the future does not depend on what is held now."""
        return np.zeros((len(states), len(self.positions)))

    def logits(self, states: Floats) -> None:
        """No opinion."""
        return
