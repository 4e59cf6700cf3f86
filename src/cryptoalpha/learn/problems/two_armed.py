"""The two-armed regime problem: the world is in one of two regimes, and one of two actions fits each.

Features are standard normal but for the first, which is shifted by −2 or +2 with the regime; acting as the regime wants earns +½, else −½,
both under noise of standard deviation 1. Choosing by the sign of the first feature is best (Bayes) and right Φ(2) = .977 of the time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryptoalpha.core.seeds import stream

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class TwoArmed:
    """The world. Args: its random stream comes from `stream(seed, "two-armed", …)`."""

    seed: int
    features: int = 8
    shift: float = 2.0
    edge: float = 0.5
    noise: float = 1.0

    @property
    def optimum(self) -> float:
        """Share of right choices of the best policy: Φ(shift)."""
        return 0.5 * (1.0 + math.erf(self.shift / math.sqrt(2.0)))

    def draw(self, count: int, random: np.random.Generator) -> tuple[Floats, Integers]:
        """Features `[count, features]` and regimes `[count]` (0 or 1)."""
        regimes = random.integers(2, size=count)
        features = random.normal(size=(count, self.features))
        features[:, 0] += self.shift * (2 * regimes - 1)
        return features, regimes

    def rewards(self, regimes: Integers, actions: Integers, random: np.random.Generator) -> Floats:
        """What the actions earned, `[count]`."""
        return np.where(regimes == actions, self.edge, -self.edge) + random.normal(scale=self.noise, size=len(regimes))

    def share_right(self, choose: Callable[[Floats], Integers], count: int = 20_000) -> float:
        """Share of right choices on fresh draws."""
        features, regimes = self.draw(count, stream(self.seed, "two-armed", "judge"))
        return float((choose(features) == regimes).mean())
