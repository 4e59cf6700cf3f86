"""Tokens 0–9: what the bars of one asset say about themselves.

r is the log return from the last close over √(rows it spans); σ its exponential volatility of half-life 32 and ATR Wilder's 14-bar mean of
the true range, both as they stood before bar i; zW is the robust standard score among the W bars before. CLV = (2 close − high − low) /
(high − low), 0 where high = low; F = Σ24 CLV·volume / Σ24 volume; R24 = ln(close / close 24 bars before); flat = |R24| < σ √24.

Here a token is 1, 0, or NaN where an input is missing.

Bars of a day or longer remember a quarter as much (`SHORT`): 512 days would be more history than most assets have.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cryptoalpha.core.time import DAY
from cryptoalpha.signals.genome.before import highest, percentile, robust_z
from cryptoalpha.signals.price_bars import LONGEST_GAP, AssetBars
from cryptoalpha.signals.rolling import flat_weights, last_before, logarithm, ratio, rolling_maximum, weighted_mean
from cryptoalpha.store.tables import Floats


@dataclass(frozen=True, slots=True)
class Memory:
    """How far back the tokens of one bar length look.

    `history` rows of past values for percentiles, `slow` the half-life of the usual volatility, `reach` rows before i on which a token of
    bar i can depend, once highs and lows are bounded.
    """

    history: int
    slow: int
    reach: int


LONG = Memory(history=512, slow=128, reach=1152)
"""Of bars shorter than a day. The reach: 8 · 128 rows of volatility, and twice the gap that a last value may lie across."""

SHORT = Memory(history=128, slow=32, reach=576)
"""Of bars of a day or longer."""


def memory_of(interval: int) -> Memory:
    """The memory of bars of `interval` ns."""
    return SHORT if interval >= DAY else LONG


def holds(claim: Floats | np.ndarray[tuple[int], np.dtype[np.bool_]], *inputs: Floats) -> Floats:
    """1 where a claim is true, 0 where it is not, NaN where an input is missing. `[n]` each → `[n]`."""
    known = np.logical_and.reduce([~np.isnan(values) for values in inputs])
    return np.where(known, claim.astype(np.float64), np.nan)


@dataclass(frozen=True, eq=False)
class PriceEvidence:
    """What the price tokens are made of, `[n]` each; NaN where missing. Nobody asks for tokens of rows before `first`."""

    bars: AssetBars
    memory: Memory
    first: int = 0

    @cached_property
    def sigma_before(self) -> Floats:
        """σ as it stood before the bar."""
        return last_before(self.bars.sigma, 1, LONGEST_GAP)[0]

    @cached_property
    def volume_z(self) -> Floats:
        """z96 of ln volume: of bars that traded, and −∞ for one that did not."""
        traded = logarithm(self.bars.volume)
        return robust_z(np.where(self.bars.volume == 0.0, -np.inf, traded), traded, 96, 0.0, self.first)

    @cached_property
    def day_move(self) -> tuple[Floats, Floats]:
        """R24 and σ √(rows it spans)."""
        before, age = last_before(self.bars.log_close, 24, LONGEST_GAP)
        return self.bars.log_close - before, self.sigma_before * np.sqrt(age)

    @cached_property
    def pressure(self) -> Floats:
        """F: where in their ranges the last 24 bars closed, weighed by volume, −1 to 1."""
        bars = self.bars
        span = bars.high - bars.low
        location = ratio(2.0 * bars.close - bars.high - bars.low, span, flat=0.0)
        volume = np.where(np.isfinite(location), bars.volume, np.nan)
        begin = max(0, self.first - self.memory.history)
        return ratio(weighted_mean(location * volume, flat_weights(24), begin), weighted_mean(volume, flat_weights(24), begin))


def price_tokens(evidence: PriceEvidence) -> tuple[Floats, ...]:
    """Tokens 0 to 9, `[n]` each: 1 on, 0 off, NaN where an input is missing."""
    bars, memory = evidence.bars, evidence.memory
    r, sigma = bars.unit_return, evidence.sigma_before
    first = evidence.first
    usual_volatility = bars.volatility(memory.slow, max(0, first - LONGEST_GAP - 1))
    fast, slow = bars.volatility(8.0, first), last_before(usual_volatility, 1, LONGEST_GAP)[0]
    top, bottom = rolling_maximum(bars.high, 24), -rolling_maximum(-bars.low, 24)
    width = (logarithm(top) - logarithm(bottom)) / (sigma * np.sqrt(24.0))
    narrow = percentile(width, memory.history, 20, first)
    atr = last_before(bars.atr, 1, LONGEST_GAP)[0]
    ceiling, floor = highest(bars.high, 64, first) + 0.25 * atr, -highest(-bars.low, 64, first) - 0.25 * atr
    move, usual = evidence.day_move
    flat, pressure = np.abs(move) < usual, evidence.pressure
    bought, sold = percentile(pressure, memory.history, 90, first), percentile(pressure, memory.history, 10, first)
    z = evidence.volume_z
    return (
        holds(r > 0.5 * sigma, r, sigma),
        holds(r < -0.5 * sigma, r, sigma),
        holds(z > 1.0, z),
        holds(z < -1.0, z),
        holds(fast > 2.0 * slow, fast, slow),
        holds(width < narrow, width, narrow),
        holds(bars.close > ceiling, bars.close, ceiling),
        holds(bars.close < floor, bars.close, floor),
        holds((pressure > bought) & flat, pressure, bought, move, usual),
        holds((pressure < sold) & flat, pressure, sold, move, usual),
    )
