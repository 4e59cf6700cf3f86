"""What everyone can know of the mispricing from past prices: a Kalman filter whose gains are known before the first price.

The price less the impact of past auctions is y = f + e: a fundamental that walks and noise that fades, e' = φe + ε. Seen is the sum alone.
The filter's estimate ê of the noise, given all prices so far, moves as

    ê' = φ·ê + K·ν,    y' = y + (φ − 1)·ê + ν,    ν ~ N(0, S)

with gains K and variances S that depend on the auction's number alone. So (ê, number) is all a planner needs: what it does not know is an
innovation ν with mean 0, and a plan built on it claims nothing for knowing the future.

Source: Kalman (1960), "A new approach to linear filtering and prediction problems".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryptoalpha.decisions.league.config import LeagueMarketConfig

ROUNDING = 1.0 / 12.0
"""Variance that rounding to whole ticks adds to a price."""


@dataclass(frozen=True, eq=False)
class PublicFilter:
    """Gains and innovations by auction. Shapes: gain, innovation_sd `[steps + 1]`; entry 0 is the first price, which is seen against
    `first`, what is believed of the noise before any price."""

    persistence: float
    first: float
    gain: NDArray[np.float64]
    innovation_sd: NDArray[np.float64]

    @classmethod
    def of(cls, config: LeagueMarketConfig) -> PublicFilter:
        """The filter of a market with these settings."""
        phi = config.mispricing_persistence
        stationary = config.mispricing_volatility**2
        noise = np.diag([config.fundamental_volatility**2, (1.0 - phi**2) * stationary])
        move, see = np.diag([1.0, phi]), np.ones(2)
        covariance = np.diag([0.0, stationary if config.mispricing_start is None else 0.0])
        gains, spreads = [], []
        for _ in range(config.steps + 1):
            variance = float(see @ covariance @ see) + ROUNDING
            gain = covariance @ see / variance
            gains.append(gain[1])
            spreads.append(variance**0.5)
            covariance = move @ (covariance - np.outer(gain, see @ covariance)) @ move + noise
        return cls(phi, config.mispricing_start or 0.0, np.array(gains), np.array(spreads))

    def begin(self, seen: NDArray[np.float64]) -> NDArray[np.float64]:
        """ê after the first prices, `[B]` in ticks above the published start of the fundamental."""
        return np.asarray(self.first + self.gain[0] * (seen - self.first))

    def follow(
        self, estimate: NDArray[np.float64], before: NDArray[np.float64], seen: NDArray[np.float64], number: int
    ) -> NDArray[np.float64]:
        """ê after price number `number` ≥ 1: the one before was `before`, this one is `seen` (both without impact), `[B]`."""
        surprise = seen - (before + (self.persistence - 1.0) * estimate)
        return np.asarray(self.persistence * estimate + self.gain[number] * surprise)
