"""What a signal model may look at: the bars of one window, what was known beside them, and measures that several models share.

A frame ends with the newest bar a model may know and begins early enough for every window (`SignalModel.reach`). Everything in it is lazy:
a book without the feature ridge never computes a feature.

Slow measures (averages over days) live on the slow grid: every bar of an hour or longer, the last of each hour for shorter bars. A 64-day
average of one-minute closes costs 3,600 times more than one of hourly closes and says the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from numba import njit

from cryptoalpha.core.time import DAY, HOUR
from cryptoalpha.signals.chain_features import chain_features
from cryptoalpha.signals.price_bars import HALF_LIFE, LONGEST_GAP, AssetBars, asset_bars
from cryptoalpha.signals.price_features import MEMORY_BARS, price_features
from cryptoalpha.signals.rolling import CUTOFF_HALF_LIVES, half_life_weights, last_before, logarithm, weighted_mean
from cryptoalpha.store.panel import Panel
from cryptoalpha.store.tables import Dataset, Floats

SHARED_ROWS = 128
"""Rows before `Frame.first` whose features are computed with those from it on, whoever asks."""

SLOW_VOLATILITY_DAYS = 10.0
"""Half-life in days of the volatility that returns over weeks are measured in. The feature σ (32 bars) follows each storm; over weeks it
would turn every storm into a weak trend."""


@njit(cache=True)
def squash(x: Floats) -> Floats:
    """tanh of every element, one at a time: `np.tanh` may differ in the last bit between its vector and its scalar code. `[n]` → `[n]`."""
    out = np.empty_like(x)
    for i in range(x.size):
        out[i] = math.tanh(x[i])
    return out


def squash_all(x: Floats) -> Floats:
    """`squash` for an array of any shape."""
    return squash(np.ascontiguousarray(x).ravel()).reshape(x.shape)


@njit(cache=True)
def _last_in_bucket(x: Floats, ends: npt.NDArray[np.int64], step: int) -> Floats:
    """The last finite value among the `step` rows that end at each of `ends`. `[T]`, `[m]` → `[m]`."""
    out = np.full(ends.size, np.nan)
    for k in range(ends.size):
        for t in range(ends[k], max(-1, ends[k] - step), -1):
            if np.isfinite(x[t]):
                out[k] = x[t]
                break
    return out


def rows_in(days: float, interval: int) -> int:
    """Bars in so many days, at least one."""
    return max(1, round(days * DAY / interval))


def slow_step(interval: int) -> int:
    """Bars per row of the slow grid."""
    return max(1, HOUR // interval)


def slow_reach(days: float, interval: int) -> int:
    """Bars before t on which a slow window of so many days can depend, the gap a return may span included."""
    return rows_in(days, interval) + (LONGEST_GAP + 2) * slow_step(interval)


@dataclass(frozen=True, eq=False)
class Frame:
    """One window of bars for signal models. Axes: `T` rows of the panel (warm-up included), `A` instruments.

    Rows before `first` are warm-up: models may leave them NaN. `dataset` is there for as-of joins at `panel.known_at` only. Frames with the
    same `history` show the same past, to the last bit (`signals.history`): what was computed of a bar holds in all of them. None: unknown.
    """

    panel: Panel
    dataset: Dataset
    first: int = 0
    history: object | None = None

    def beginning(self, first: int) -> Frame:
        """The same window for one who looks at rows from `first` on; what does not depend on it is computed once for both."""
        other = Frame(self.panel, self.dataset, first, self.history)
        other.__dict__.update({name: getattr(self, name) for name in ("bars", "slow_rows", "slow_log_close", "slow_unit_return")})
        return other

    @property
    def shape(self) -> tuple[int, int]:
        """(T, A)."""
        return len(self.panel), len(self.panel.instruments)

    @cached_property
    def assets(self) -> tuple[str, ...]:
        """The base asset of each instrument."""
        rules = self.dataset.rules
        return tuple(rules[name].base if name in rules else name.split("/")[0] for name in self.panel.instruments)

    @cached_property
    def bars(self) -> tuple[AssetBars, ...]:
        """The usable bars of each instrument."""
        return tuple(asset_bars(self.panel, a) for a in range(len(self.panel.instruments)))

    @cached_property
    def usable(self) -> npt.NDArray[np.bool_]:
        """Where an instrument has a bar to have an opinion about. `[T, A]`."""
        return np.stack([np.isfinite(bars.close) for bars in self.bars], axis=1)

    @cached_property
    def sigma(self) -> Floats:
        """Volatility per bar, half-life 32 bars; equals `ewma_volatility`. `[T, A]`."""
        return np.stack([bars.sigma for bars in self.bars], axis=1)

    @cached_property
    def price(self) -> Floats:
        """The price features. `[T, A, 50]`."""
        return self.price_from(0)

    @cached_property
    def chain(self) -> Floats:
        """The on-chain features. `[T, A, 30]`."""
        return self.chain_from(0)

    def sigma_from(self, row: int) -> Floats:
        """Volatility per bar of the rows from `row` on: those of `sigma`. `[T − row, A]`."""

        def compute(begin: int) -> Floats:
            return np.stack([bars.volatility(HALF_LIFE, begin)[begin:] for bars in self.bars], axis=1)

        return self._rows_from("sigma", row, compute)

    def price_from(self, row: int) -> Floats:
        """The price features of the rows from `row` on. `[T − row, A, 50]`.

        They are computed in a window that begins `MEMORY_BARS` before, which gives the same to the last bit.
        """

        def compute(begin: int) -> Floats:
            start = max(0, begin - MEMORY_BARS)
            return price_features(self.panel.rows(start, len(self.panel)), begin - start)[begin - start :]

        return self._rows_from("price", row, compute)

    def chain_from(self, row: int) -> Floats:
        """The on-chain features of the rows from `row` on. `[T − row, A, 30]`."""
        return self._rows_from("chain", row, lambda begin: chain_features(self.panel.rows(begin, len(self.panel)), self.dataset))

    def cut(self, reach: int) -> Frame:
        """The same frame without most of the warm-up of a model that looks back `reach` rows; itself where little would be saved.

        A live bar is one row after thousands, which only the farthest-seeing source needs. Features known already stay known.
        """
        start = self.first - reach
        if 2 * start < len(self.panel):
            return self
        if reach in self._cuts:
            return self._cuts[reach]
        shorter = self._cuts[reach] = Frame(self.panel.rows(start, len(self.panel)), self.dataset, reach, self.history)
        for name, (begin, values) in self._known_rows.items():
            skipped = max(0, start - begin)
            shorter._known_rows[name] = (begin + skipped - start, values[skipped:])
        return shorter

    @cached_property
    def _cuts(self) -> dict[int, Frame]:
        """Cut frames by their reach: sources that look back as far share what they compute."""
        return {}

    @cached_property
    def _known_rows(self) -> dict[str, tuple[int, Floats]]:
        """Features computed so far, and from which row on."""
        return {}

    def _rows_from(self, name: str, row: int, compute: Callable[[int], Floats]) -> Floats:
        """Rows from `row` on; asked for again with a later row, nothing is computed."""
        # Sources ask from a few dozen rows before the first on, each from another one: computed once for all of them.
        begin = max(0, min(row, self.first - SHARED_ROWS))
        if name not in self._known_rows or self._known_rows[name][0] > begin:
            self._known_rows[name] = (begin, compute(begin))
        known_from, values = self._known_rows[name]
        return values[row - known_from :]

    # ── the slow grid ────────────────────────────────────────────────────────────────────────────────────────────────────────────

    @cached_property
    def slow_interval(self) -> int:
        """Nanoseconds between rows of the slow grid."""
        return slow_step(self.panel.interval) * self.panel.interval

    @cached_property
    def slow_rows(self) -> npt.NDArray[np.int64]:
        """The panel row at which each row of the slow grid becomes known. `[S]`."""
        return np.flatnonzero((self.panel.open_time + self.panel.interval) % self.slow_interval == 0)

    @cached_property
    def slow_log_close(self) -> tuple[Floats, ...]:
        """ln of the last close of each row of the slow grid, per instrument. `[S]` each."""
        step = slow_step(self.panel.interval)
        return tuple(logarithm(_last_in_bucket(bars.close, self.slow_rows, step)) for bars in self.bars)

    @cached_property
    def slow_unit_return(self) -> tuple[Floats, ...]:
        """Log return to each row of the slow grid, with the variance of one row. `[S]` each."""
        returns = []
        for close in self.slow_log_close:
            before, age = last_before(close, 1, LONGEST_GAP)
            returns.append(np.asarray((close - before) / np.sqrt(age), np.float64))
        return tuple(returns)

    @cached_property
    def slow_first(self) -> int:
        """The first row of the slow grid that rows from `first` on can see; averages before it are nobody's."""
        return max(0, int(np.searchsorted(self.slow_rows, self.first)) - 1)

    def slow_mean(self, column: Floats, weights: Floats) -> Floats:
        """`weighted_mean` from `slow_first` on, NaN before: warm-up rows are looked at, not averaged. `[S]`, `[w]` → `[S]`."""
        begin = max(0, self.slow_first - len(weights))
        out = np.full(column.size, np.nan)
        out[begin:] = weighted_mean(column[begin:], weights, self.slow_first - begin)
        return out

    def slow_volatility(self, half_life_days: float) -> tuple[Floats, ...]:
        """Exponential volatility per row of the slow grid. `[S]` each; NaN where the price stood still or history is short."""
        weights = half_life_weights(half_life_days * DAY / self.slow_interval)
        sigmas = [np.sqrt(self.slow_mean(unit * unit, weights)) for unit in self.slow_unit_return]
        return tuple(np.where(sigma > 0.0, sigma, np.nan) for sigma in sigmas)

    @cached_property
    def slow_sigma(self) -> tuple[Floats, ...]:
        """The volatility that returns over weeks are measured in. `[S]` each."""
        return self.slow_volatility(SLOW_VOLATILITY_DAYS)

    def slow_coverage(self, days: float) -> tuple[Floats, ...]:
        """Share of the last days' slow rows that have a close, 0 to 1. `[S]` each."""
        window = max(1, round(days * DAY / self.slow_interval))
        shares = []
        for close in self.slow_log_close:
            count = np.concatenate((np.zeros(window, np.int64), np.cumsum(np.isfinite(close))))  # whole numbers: exact from any start
            shares.append((count[window:] - count[:-window]) / window)
        return tuple(shares)

    def from_slow(self, columns: tuple[Floats, ...]) -> Floats:
        """Spread columns of the slow grid over the panel: at each row the newest one known. `[S]` each → `[T, A]`; NaN before the first."""
        if len(self.slow_rows) == len(self.panel):
            return np.stack(columns, axis=1)
        place = np.searchsorted(self.slow_rows, np.arange(len(self.panel)), side="right") - 1
        padded = [np.concatenate(([np.nan], column)) for column in columns]
        return np.stack([column[place + 1] for column in padded], axis=1)


SLOW_VOLATILITY_MEMORY_DAYS = CUTOFF_HALF_LIVES * SLOW_VOLATILITY_DAYS
"""Days after which `slow_sigma` forgets."""
