"""One asset's bars made ready for features: gaps marked, wicks bounded, returns, volatility and average true range.

Gap rule: a bar that is absent, or has a price that is not a positive number, is NaN in every column. A return reaches back to the last
close at most `LONGEST_GAP` rows before its normal place and is divided by √(rows spanned), so that one across an outage has the variance of
one bar; beyond that reach there is no return.

Bad prints: a high or low further than `WICK_BOUND` volatilities of the bar before beyond the body is set back to that bound. The bar gate
may have repaired such bars already; features must not depend on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cryptoalpha.signals.rolling import half_life_weights, last_before, logarithm, ratio, weighted_mean, wilder_weights
from cryptoalpha.store.panel import Panel
from cryptoalpha.store.tables import Floats

HALF_LIFE = 32
"""Half-life in bars of σ, the volatility that returns and distances are measured in."""

LONGEST_GAP = 48
"""Rows without a bar that a return may reach across: two days of hourly bars, more than the longest outage in our records (33)."""

WICK_BOUND = 10.0
"""Volatilities a wick may extend beyond the body: real crashes stay inside, prints such as a low of 0.0001 do not."""

UNKNOWN_WICK = 1.0
"""Bound of a wick relative to the body (1 = half to double the price) while volatility is not known yet."""


@dataclass(frozen=True, eq=False)
class AssetBars:
    """Columns of one asset, `[T]` each; NaN where there is no bar. What several features share is computed once.

    Rows before `first` are warm-up: windows that no other window looks at leave them NaN.
    """

    open: Floats
    raw_high: Floats
    raw_low: Floats
    close: Floats
    volume: Floats
    taker_buy_volume: Floats
    first: int = 0

    @cached_property
    def log_close(self) -> Floats:
        """ln close."""
        return logarithm(self.close)

    @cached_property
    def previous_close(self) -> Floats:
        """The last close before this bar."""
        return last_before(self.close, 1, LONGEST_GAP)[0]

    @cached_property
    def step(self) -> Floats:
        """ln(close / last close), whatever time lies between."""
        return self.log_close - last_before(self.log_close, 1, LONGEST_GAP)[0]

    @cached_property
    def rows_since_close(self) -> Floats:
        """Rows between this bar and the last close: 1 without a gap."""
        return last_before(self.close, 1, LONGEST_GAP)[1]

    @cached_property
    def unit_return(self) -> Floats:
        """Log return with the variance of one bar: the step over √(rows it spans)."""
        return np.asarray(self.step / np.sqrt(self.rows_since_close), np.float64)

    def volatility(self, half_life: float, first: int = 0) -> Floats:
        """σ per bar: root of the exponential mean of squared unit returns, this bar included. NaN where the price stood still, and in
        rows before `first`."""
        sigma = np.sqrt(weighted_mean(self.unit_return * self.unit_return, half_life_weights(half_life), first))
        return np.where(sigma > 0.0, sigma, np.nan)

    @cached_property
    def sigma(self) -> Floats:
        """The volatility that distances are measured in."""
        return self.volatility(HALF_LIFE)

    @cached_property
    def high(self) -> Floats:
        """High, bounded."""
        return self._bounded[0]

    @cached_property
    def low(self) -> Floats:
        """Low, bounded."""
        return self._bounded[1]

    @cached_property
    def _bounded(self) -> tuple[Floats, Floats]:
        return self.bounded(0)

    def bounded(self, first: int) -> tuple[Floats, Floats]:
        """High and low of the rows from `first` on, NaN before: within the largest believable wick relative to the body's edge, from what
        the bar before knew."""
        sigma = self.sigma if first == 0 else self.volatility(HALF_LIFE, max(0, first - 1 - LONGEST_GAP))
        before = last_before(sigma, 1, LONGEST_GAP)[0][first:]
        wick = np.where(np.isfinite(before), WICK_BOUND * before, UNKNOWN_WICK)
        top, bottom = (edge(self.open[first:], self.close[first:]) for edge in (np.maximum, np.minimum))
        high, low = np.full(self.close.size, np.nan), np.full(self.close.size, np.nan)
        high[first:] = np.clip(self.raw_high[first:], top, top * (1.0 + wick))
        low[first:] = np.clip(self.raw_low[first:], bottom / (1.0 + wick), bottom)
        return high, low

    @cached_property
    def typical(self) -> Floats:
        """(high + low + close) / 3."""
        return np.asarray((self.high + self.low + self.close) / 3.0, np.float64)

    @cached_property
    def true_range(self) -> Floats:
        """The bar's range, extended to the last close where one is in reach."""
        before = self.previous_close
        with_gap = np.fmax(self.high, before) - np.fmin(self.low, before)
        return np.where(np.isfinite(self.close), with_gap, np.nan)

    @cached_property
    def atr(self) -> Floats:
        """Average true range: Wilder's mean over 14 bars, price units. NaN where it is 0."""
        mean = weighted_mean(self.true_range, wilder_weights(14))
        return np.where(mean > 0.0, mean, np.nan)

    def in_atr(self, distance: Floats) -> Floats:
        """A price distance in average true ranges."""
        return ratio(distance, self.atr)


def asset_bars(panel: Panel, asset: int, first: int = 0) -> AssetBars:
    """The columns of one asset of a panel, unusable bars blanked; rows before `first` are warm-up."""
    open_, high, low, close = (np.array(column[:, asset]) for column in (panel.open, panel.high, panel.low, panel.close))
    usable = panel.present[:, asset].copy()
    for column in (open_, high, low, close):
        usable &= np.isfinite(column) & (column > 0.0)
    volume, taker = np.array(panel.volume[:, asset]), np.array(panel.taker_buy_volume[:, asset])
    volume[~(np.isfinite(volume) & (volume >= 0.0))] = np.nan
    taker[~(np.isfinite(taker) & (taker >= 0.0))] = np.nan
    for column in (open_, high, low, close, volume, taker):
        column[~usable] = np.nan
    return AssetBars(open_, high, low, close, volume, taker, first)
