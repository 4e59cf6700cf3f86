"""Equity marked at 00:00 UTC: the one sampling behind every headline measure.

A Sharpe ratio depends on how equity is sampled (closed trades, minutes and days give different numbers for the same trades), so the house
samples once, here: marked-to-market equity at each 00:00 UTC, initial equity first, full days only, idle days counted as zero returns.

Pure functions of NumPy arrays; no clock, no I/O. Returns are fractions.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cryptoalpha.core.errors import DataError
from cryptoalpha.core.time import DAY, SECOND

Floats = NDArray[np.float64]
Times = NDArray[np.int64]

SAMPLING = "marked-to-market equity at 00:00 UTC, net of all costs, full days only, idle days counted"
"""How daily returns are taken; printed wherever a measure of them is printed."""


def as_floats(values: ArrayLike, *, name: str = "returns") -> Floats:
    """A float64 array.

    Raises:
        DataError: for what is no array of numbers: text, rows of different lengths.
    """
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError(f"{name} are no array of numbers", hint="pass numbers, not text, in rows of one length") from None


def checked_returns(returns: ArrayLike, *, name: str = "returns") -> Floats:
    """A one-dimensional float64 array without NaN or infinity.

    Raises:
        DataError: if it is not one-dimensional, is no array of numbers or holds a value that is not finite.
    """
    array = as_floats(returns, name=name)
    if array.ndim != 1:
        raise DataError(f"{name} has shape {array.shape}, expected one dimension", hint="pass one series at a time")
    finite = np.isfinite(array)
    if not finite.all():
        place = int(np.argmin(finite))
        raise DataError(
            f"{name}[{place}] is {array[place]}, expected a finite number",
            hint="a missing return is not a zero return: repair the gap upstream (store.bar_gate) or drop the period from every series",
        )
    return array


@dataclass(frozen=True, eq=False)
class DailyReturns:
    """Daily returns of one equity curve.

    Shapes: `days [n]` (00:00 UTC at which each day begins, ns), `returns [n]`, `equity [n + 1]` (initial equity first, then each
    day's closing mark).
    """

    days: Times
    returns: Floats
    equity: Floats

    def __len__(self) -> int:
        return len(self.returns)


def daily_returns(times_ns: ArrayLike, equity: ArrayLike, initial: float, *, start: int | None = None) -> DailyReturns:
    """Sample an equity curve at every 00:00 UTC and return its daily returns.

    Args:
        times_ns: when each mark was taken (close of its bar), UTC ns, strictly increasing. Do not repeat the initial equity as a mark.
        equity: marked-to-market equity at those times, positive.
        initial: equity before the first bar, positive. It stands at the 00:00 UTC that begins the first day.
        start: when trading began, if the marks cannot tell; otherwise the day that contains the first mark (a mark at exactly 00:00
            closes the day before it).

    The last day counts only if a mark lies at or after its end; a day without marks has return zero.

    Raises:
        DataError: if times and equity disagree in length, times do not increase, or equity is not positive and finite.
    """
    times = np.asarray(times_ns, dtype=np.int64)
    marks = checked_returns(equity, name="equity")
    if times.shape != marks.shape:
        raise DataError(f"{times.size} times but {marks.size} equity marks, expected one mark per time")
    if times.size and bool(np.any(np.diff(times) <= 0)):
        raise DataError("times of equity marks do not increase", hint="sort the marks and drop duplicates")
    if not (np.isfinite(initial) and initial > 0.0):
        raise DataError(f"initial equity is {initial}, expected a positive amount")
    if bool(np.any(marks <= 0.0)):
        place = int(np.argmax(marks <= 0.0))
        raise DataError(f"equity[{place}] is {marks[place]}: returns are undefined once equity is gone")
    if times.size == 0:
        return DailyReturns(np.empty(0, np.int64), np.empty(0), np.array([float(initial)]))
    first = (int(times[0]) - 1) // DAY * DAY if start is None else start // DAY * DAY
    last = int(times[-1]) // DAY * DAY
    midnights = first + DAY * np.arange(1, (last - first) // DAY + 1, dtype=np.int64)  # arange of large steps loses its last one
    latest = np.searchsorted(times, midnights, side="right") - 1
    sampled = np.concatenate(([float(initial)], np.where(latest >= 0, marks[latest], initial)))
    return DailyReturns(midnights - DAY, sampled[1:] / sampled[:-1] - 1.0, sampled)


@dataclass(frozen=True)
class MonthReturn:
    """Compounded return of the days of one calendar month that lie in the series; `days` says how many there were."""

    year: int
    month: int
    value: float
    days: int


def monthly_returns(daily: DailyReturns) -> list[MonthReturn]:
    """Compound daily returns by calendar month (UTC), oldest first."""
    months: dict[tuple[int, int], tuple[float, int]] = {}
    for day, value in zip(daily.days.tolist(), daily.returns.tolist(), strict=True):
        moment = datetime.fromtimestamp(day // SECOND, UTC)
        growth, count = months.get((moment.year, moment.month), (1.0, 0))
        months[moment.year, moment.month] = (growth * (1.0 + value), count + 1)
    return [MonthReturn(year, month, growth - 1.0, count) for (year, month), (growth, count) in months.items()]
