"""Readings as series on the clock of what was known: z-scores, changes and ratios that never look past a row's `known_at`.

A series is a list of moments at which it changed and its value from then on. Windows and lags are measured in time on that clock, not in
rows, so daily, hourly and irregular readings mean the same thing. A late revision of an older day never replaces a newer day's reading.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numba import njit

from cryptoalpha.core.time import DAY
from cryptoalpha.signals.rolling import MINIMUM_SHARE, logarithm
from cryptoalpha.store.as_of import as_of_value
from cryptoalpha.store.tables import Floats, ReadingTable, Times

MAX_AGE = 3 * DAY
"""How long a reading stands for the present: a daily source may miss two days before its features are masked."""

WINDOW_DAYS = 90
"""Days of history of a z-score: a quarter, long enough to span market moods, short enough to follow growth."""


@dataclass(frozen=True, eq=False)
class Series:
    """Values and the moments they became known, strictly ascending. Shapes: both `[n]`; NaN where a value is missing."""

    known_at: Times
    value: Floats

    def with_value(self, value: Floats) -> Series:
        """The same clock with other values."""
        return Series(self.known_at, value)

    def log(self) -> Series:
        """Natural logarithm; missing where not positive."""
        return self.with_value(logarithm(self.value))

    def log_of_count(self) -> Series:
        """ln(1 + x), for counts that may be 0."""
        return self.with_value(logarithm(1.0 + self.value))

    def change(self, days: int) -> Series:
        """Value less the one that stood `days` days before; missing where that one was older than `MAX_AGE` already."""
        before = as_of_value(self.known_at, self.value, self.known_at - days * DAY, max_age=MAX_AGE)
        return self.with_value(self.value - before)

    def z(self) -> Series:
        """Distance from the mean of the last 90 days in standard deviations.

        The window is (known_at − 90 days, known_at], this row included. Missing unless readings on at least 80 % of its days are there, and
        where they do not vary.
        """
        return self.with_value(z_over_time(self.known_at, self.value, WINDOW_DAYS * DAY, WINDOW_DAYS))

    def mean(self, days: int) -> Series:
        """Mean of the readings of the last `days` days; missing unless at least 80 % of the days are there."""
        return self.with_value(mean_over_time(self.known_at, self.value, days * DAY, days))

    def at(self, moments: Times) -> Floats:
        """What was known at each moment; NaN where nothing was, or nothing newer than `MAX_AGE`."""
        return as_of_value(self.known_at, self.value, moments, max_age=MAX_AGE)


EMPTY = Series(np.empty(0, np.int64), np.empty(0))


def series(table: ReadingTable) -> Series:
    """The readings of one metric in the order they became known, one per moment, without late revisions of days already passed.

    Infinite values count as missing.
    """
    known_at, happened_at = np.asarray(table.known_at, np.int64), np.asarray(table.happened_at, np.int64)
    if not len(known_at):
        return EMPTY
    current = happened_at >= np.maximum.accumulate(happened_at)
    known_at, value = known_at[current], np.where(np.isfinite(table.value), table.value, np.nan)[current]
    last = np.append(known_at[1:] != known_at[:-1], True)  # of readings known at one moment the last one counts
    return Series(known_at[last], np.asarray(value[last], np.float64))


def combine(formula: Callable[..., Floats], *parts: Series) -> Series:
    """A formula of several series on the union of their clocks, each as it was known then; missing where one is older than `MAX_AGE`.

    Results that are not finite are missing.
    """
    if any(not len(part.known_at) for part in parts):
        return EMPTY
    clock = np.unique(np.concatenate([part.known_at for part in parts]))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        value = formula(*(part.at(clock) for part in parts))
    return Series(clock, np.where(np.isfinite(value), value, np.nan))


def either(first: Series, second: Series) -> Series:
    """The first series where it has a current value, the second elsewhere, decided anew at every moment of their clocks."""
    clock = np.unique(np.concatenate([first.known_at, second.known_at]))
    preferred = first.at(clock)
    return Series(clock, np.where(np.isfinite(preferred), preferred, second.at(clock)))


@njit(cache=True)
def mean_over_time(known_at: Times, x: Floats, span: int, days: int) -> Floats:
    """Mean of the values known in (known_at − span, known_at]; NaN unless they fall on at least 80 % of `days` days. `[n]` → `[n]`."""
    n = x.size
    out = np.full(n, np.nan)
    first = 0
    for i in range(n):
        while known_at[first] <= known_at[i] - span:
            first += 1
        if not np.isfinite(x[i]):
            continue
        total, count, seen, last_day = 0.0, 0, 0, -1
        for j in range(first, i + 1):
            if np.isfinite(x[j]):
                total += x[j] - x[i]
                count += 1
                day = (known_at[i] - known_at[j]) // 86_400_000_000_000
                if day != last_day:
                    seen += 1
                    last_day = day
        if seen >= MINIMUM_SHARE * days * (1.0 - 1e-12):
            out[i] = x[i] + total / count
    return out


@njit(cache=True)
def z_over_time(known_at: Times, x: Floats, span: int, days: int) -> Floats:
    """Standard score (n − 1) against the values known in (known_at − span, known_at]. `[n]` → `[n]`.

    NaN where `mean_over_time` is, and where the window is constant.
    """
    n = x.size
    out = np.full(n, np.nan)
    mean = mean_over_time(known_at, x, span, days)
    first = 0
    for i in range(n):
        while known_at[first] <= known_at[i] - span:
            first += 1
        if not np.isfinite(mean[i]):
            continue
        square, count = 0.0, 0
        for j in range(first, i + 1):
            if np.isfinite(x[j]):
                square += (x[j] - mean[i]) ** 2
                count += 1
        if count >= 2 and square > 0.0:
            out[i] = (x[i] - mean[i]) / math.sqrt(square / (count - 1))
    return out
