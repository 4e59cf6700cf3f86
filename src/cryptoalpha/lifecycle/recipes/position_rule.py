"""What a forecast would have earned under one plain rule, after costs: the goal that has no gradient, and a line of the table.

Every bar a share 1/h of the book is put at tanh(expected move / `TYPICAL_MOVE`), in equal volatility, and held for the h bars that the
forecast is about: the holding is the mean of the last h stakes. Decided at the close of bar t, filled at the open of t + 1. Costs are taker
fee and half spread on what is traded; impact, funding and the borrowing of what is sold short are left out, as size is unknown. It is a
yardstick for forecasts on one scale, not a strategy: the backtest of the engine counts everything.

Source of the overlapping stakes: Jegadeesh & Titman (1993).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cryptoalpha.core.time import DAY, DAYS_PER_YEAR
from cryptoalpha.lifecycle.recipes.predictions import Floats
from cryptoalpha.monitoring.ratios import sharpe_ratio

TARGET_VOLATILITY = 0.01
"""Volatility of one asset's full stake, per bar; it scales returns and costs alike, so that a Sharpe ratio does not depend on it."""


TYPICAL_MOVE = 0.1
"""Expected move (volatilities) at which three quarters of a full stake are taken: twice what a forecast with an IC of .05 expects, so that
stakes are all but proportional to what is expected."""


@dataclass(frozen=True, eq=False)
class Stretch:
    """Consecutive bars on which the rule is played. `[T]` and `[T, N]`."""

    known_at: npt.NDArray[np.int64]
    sigma: Floats
    """Volatility per bar, known at the bar."""
    step: Floats
    """Simple return from the open after the bar to the next one; NaN where there is none."""
    hold_bars: int
    cost: float
    """Fraction of what is traded."""

    def rows(self, chosen: npt.NDArray[np.int64]) -> Stretch:
        """Only some bars."""
        return Stretch(self.known_at[chosen], self.sigma[chosen], self.step[chosen], self.hold_bars, self.cost)


def net_returns(expected: Floats, stretch: Stretch) -> Floats:
    """Return of each bar after costs `[T]`.

    Args:
        expected: expected move in volatilities `[T, N]`; NaN = no stake.
    """
    there = np.isfinite(expected) & np.isfinite(stretch.sigma) & (stretch.sigma > 0.0)
    stake = np.where(
        there, np.tanh(np.where(there, expected, 0.0) / TYPICAL_MOVE) * TARGET_VOLATILITY / np.where(there, stretch.sigma, 1.0), 0.0
    )
    summed = np.cumsum(np.concatenate((np.zeros((1, stake.shape[1])), stake)), axis=0)
    begin = np.maximum(np.arange(1, len(stake) + 1) - stretch.hold_bars, 0)
    holding = (summed[1:] - summed[begin]) / (stretch.hold_bars * stake.shape[1])
    traded = np.abs(np.diff(holding, axis=0, prepend=np.zeros((1, stake.shape[1])))).sum(axis=1)
    earned = (holding * np.where(np.isfinite(stretch.step), stretch.step, 0.0)).sum(axis=1)
    return np.asarray(earned - stretch.cost * traded, np.float64)


def daily(returns: Floats, known_at: npt.NDArray[np.int64]) -> Floats:
    """Returns of bars added up by UTC day; days without a bar in between are 0."""
    day = (known_at - 1) // DAY
    return np.asarray(np.bincount((day - day[0]).astype(np.int64), weights=returns), np.float64)


def net_sharpe(expected: Floats, stretch: Stretch) -> float:
    """Annual Sharpe ratio of the rule's daily returns after costs; NaN where they do not vary."""
    return float(sharpe_ratio(daily(net_returns(expected, stretch), stretch.known_at), periods_per_year=float(DAYS_PER_YEAR)))
