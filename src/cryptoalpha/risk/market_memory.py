"""What the gate remembers of the market: daily returns, their volatility, how instruments move together, and what is traded in a day.

Fed with every closed bar, it keeps them and works them off together, at the latest when their day is over: the close of a day is the last
price known at or before 00:00 UTC. Everything is computed from bars already observed, in order, so one pass over the same bars always gives
the same numbers, whenever somebody asks, and bars to come change none.

* Volatility: `v' = λ v + (1 − λ) r²` from the mean of the first 20 squares (RiskMetrics, 1996).
* Scenarios of the next day are made of the days remembered (`risk.market_scenarios`).
* A day on which nothing was heard of an instrument has no return; the next return spans g days and counts as `r / √g`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.time import DAY
from cryptoalpha.risk.config import TailConfig
from cryptoalpha.risk.market_scenarios import Shape, pairwise_correlation, shape_of_law, shape_of_past

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

START_DAYS = 20
"""Days whose mean square starts the volatility."""

VALUE_DAYS = 30
"""Days over which the traded value is taken."""

KEPT_BARS = 1440
"""Bars kept before they are worked off together."""

NAN = math.nan


class MarketMemory:
    """See the module header.

    Args:
        config: method, days remembered and the decay of the volatility.
    """

    def __init__(self, config: TailConfig) -> None:
        self.config = config
        self._place: dict[str, int] = {}
        self._instruments: Sequence[str] = ()
        self._places = np.empty(0, np.int64)
        self._interval = 0
        # bars not worked off yet, and the moment until which another of the same kind may join them
        self._closes: list[Sequence[float]] = []
        self._volumes: list[Sequence[float]] = []
        self._room_until = 0
        # the day that is running: last prices stay, the rest begins anew at midnight
        self._at, self._day, self._ended = 0, 0, 0
        self._last = np.empty(0)
        self._value = np.empty(0)
        self._fresh = np.empty(0, np.bool_)
        # the days that are over
        self._returns = _Days(config.history_days)
        self._scores = _Days(config.history_days)  # returns / the volatility expected of their day
        self._values = _Days(VALUE_DAYS)
        self._close = np.empty(0)
        self._close_day = np.empty(0, np.int64)
        self._variance = np.empty(0)
        self._first: list[list[tuple[int, float]]] = []  # (row, return) until there are enough to start the variance
        self._rows = 0
        self._shapes: dict[tuple[str, ...], Shape] = {}
        self._correlations: dict[tuple[str, ...], Floats] = {}
        self._daily_values: dict[str, float] = {}

    def observe(self, at: int, interval: int, instruments: Sequence[str], close: Sequence[float], volume: Sequence[float]) -> None:
        """Take in one closed bar of the market. A price that is NaN, infinite or not positive counts as absent.

        Args:
            at: when the bar was known, UTC ns, not before the last one.
            interval: its length, ns.
            instruments: names, of which new ones may come at any time.
            close: last prices, one per instrument. Kept for a while, as `volume` is: not to be changed any more.
            volume: traded in the bar, base units.
        """
        if at > self._room_until or instruments is not self._instruments or interval != self._interval:
            self._begin(at, interval, instruments)
        self._at = at
        self._closes.append(close)
        self._volumes.append(volume)

    def last_price(self, name: str) -> float:
        """The last close known; NaN before the first."""
        place = self._place.get(name)
        if place is None:
            return NAN
        if self._closes and name in self._instruments:
            column = self._instruments.index(name)
            for close in reversed(self._closes):
                if 0.0 < close[column] < math.inf:
                    return close[column]
        return float(self._last[place])

    def daily_volatility(self, name: str) -> float:
        """Standard deviation expected of the next day's return; NaN before `START_DAYS` returns are known."""
        self._settle()
        place = self._place.get(name)
        return NAN if place is None else math.sqrt(self._variance[place])

    def days(self, name: str) -> int:
        """Daily returns remembered of it."""
        return len(self.daily_returns(name))

    def daily_returns(self, name: str) -> Floats:
        """Its remembered daily returns, oldest first, `[n]`."""
        return self._remembered(self._returns, name)

    def daily_scores(self, name: str) -> Floats:
        """The same, each in units of the volatility that was expected of its day; none before `START_DAYS` returns are known."""
        return self._remembered(self._scores, name)

    @property
    def last_midnight(self) -> int:
        """The one that ended the last day with a bar, UTC ns; 0 before the first."""
        self._settle()
        return self._ended * DAY

    def last_day(self) -> tuple[int, dict[str, float]]:
        """The last midnight, and the returns of the day that it ended."""
        midnight = self.last_midnight
        latest = self._returns.window[-1].tolist() if midnight else [NAN] * len(self._place)
        return midnight, {name: latest[place] for name, place in self._place.items() if latest[place] == latest[place]}

    def daily_value(self, names: Sequence[str]) -> Floats:
        """What is traded in a day, quote units: the median of the last `VALUE_DAYS` days, `[A]`; NaN where no full day is known."""
        self._settle()
        return np.array([self._daily_value(name) for name in names], dtype=np.float64)

    def correlation(self, names: Sequence[str]) -> Floats:
        """Correlation of standardised daily returns, `[A, A]`, over the days that both of a pair have.

        A pair with fewer than `least_days` common days counts as 1: what is not known to be apart is taken to move together. Pairs of
        unlike length need not make a positive semi-definite matrix.
        """
        self._settle()
        key = tuple(names)
        found = self._correlations.get(key)
        if found is None:
            found = self._correlations[key] = pairwise_correlation(
                _columns(self._scores.window, self._place, key), max(self.config.least_days, 2)
            )
        return found.copy()

    def scenarios(self, names: Sequence[str], volatility: Mapping[str, float]) -> Floats:
        """Possible simple returns of the next day, `[S, A]`: every row is equally likely and holds one day of all instruments.

        Args:
            names: the columns.
            volatility: annual volatility that the market state expects of each. The larger of it and the memory's own counts. (With
                method `historical` only an instrument without own past is scaled.)

        An instrument with fewer than `least_days` days borrows the shape of the others' common move; with nobody to borrow from, all move
        together along a normal law. A column whose volatility nobody knows is NaN; no return is below −1.
        """
        self._settle()
        key = tuple(names)
        shape = self._shapes.get(key)
        if shape is None:
            shape = self._shapes[key] = self._shape(key)
        return shape.returns(np.array([volatility.get(name, NAN) for name in names], dtype=np.float64))

    # inside

    def _place_of(self, name: str) -> int:
        place = self._place.get(name)
        if place is None:
            place = self._place[name] = len(self._place)
            self._last = np.append(self._last, NAN)
            self._value = np.append(self._value, 0.0)
            self._fresh = np.append(self._fresh, False)
            self._first.append([])
            self._close = np.append(self._close, NAN)
            self._close_day = np.append(self._close_day, 0)
            self._variance = np.append(self._variance, NAN)
            for days in (self._returns, self._scores, self._values):
                days.widen()
        return place

    def _begin(self, at: int, interval: int, instruments: Sequence[str]) -> None:
        """Before a bar of another day, of other instruments or length, or of enough others: make room."""
        if at > self._day * DAY:
            self._end_day()
            self._day = -(-at // DAY)
        self._work_off()
        if instruments is not self._instruments:
            self._places = np.array([self._place_of(name) for name in instruments], np.int64)
            self._instruments = instruments
        self._interval = interval
        self._room_until = min(self._day * DAY, at + KEPT_BARS * interval)

    def _work_off(self) -> None:
        """Take the bars that were kept into the day that is running, in their order."""
        if not self._closes:
            return
        places, days = self._places, self._interval // DAY or 1  # what a bar of several days traded is spread over them
        price, units = _kept(self._closes, len(places)), _kept(self._volumes, len(places))
        self._closes, self._volumes = [], []
        self._value[places], self._last[places], heard = _taken_in(price, units, days, self._value[places], self._last[places])
        self._fresh[places] |= heard

    def _settle(self) -> None:
        """End the running day if its midnight has come."""
        if self._at >= self._day * DAY:
            self._end_day()

    def _end_day(self) -> None:
        """Take the running day into the past. Nothing happens for a day without a bar."""
        self._work_off()
        if not self._fresh.any():
            return
        fresh, price = self._fresh, self._last
        known = fresh & ~np.isnan(self._close)
        span = np.maximum(self._day - self._close_day, 1)
        change = np.where(known, (price / self._close - 1.0) / np.sqrt(span), NAN)
        self._returns.append(change)
        self._values.append(np.where(known, self._value, NAN))
        self._scores.append(change / np.sqrt(self._variance))
        self._rows += 1
        decay = self.config.decay
        started = known & ~np.isnan(self._variance)
        self._variance = np.where(started, decay * self._variance + (1.0 - decay) * np.square(change), self._variance)
        for place in np.flatnonzero(known & ~started):
            self._start(int(place), float(change[place]))
        self._close, self._close_day = np.where(fresh, price, self._close), np.where(fresh, self._day, self._close_day)
        self._value, self._fresh = np.zeros(len(self._value)), np.zeros(len(self._fresh), np.bool_)
        self._shapes.clear()
        self._correlations.clear()
        self._daily_values.clear()
        self._ended = self._day
        self._day += 1  # a late bar of the day that is over belongs to the next one

    def _start(self, place: int, change: float) -> None:
        """Collect an instrument's first returns; with enough of them its volatility begins, and their scores are told after the fact."""
        first = self._first[place]
        first.append((self._rows - 1, change))
        if len(first) < START_DAYS:
            return
        variance = sum(r * r for _, r in first) / START_DAYS
        if variance == 0.0:  # a price that never moved says nothing yet
            del first[0]
            return
        for row, r in first:
            self._scores.set(row - self._rows, place, r / math.sqrt(variance))
            variance = self.config.decay * variance + (1.0 - self.config.decay) * r * r
        self._variance[place] = variance
        first.clear()

    def _remembered(self, days: _Days, name: str) -> Floats:
        self._settle()
        column = _columns(days.window, self._place, (name,))[:, 0]
        return column[~np.isnan(column)]

    def _daily_value(self, name: str) -> float:
        """Computed once a day: the gate asks for every entry."""
        value = self._daily_values.get(name)
        if value is None:
            known = self._remembered(self._values, name)
            value = self._daily_values[name] = float(np.median(known)) if known.size else NAN
        return value

    def _shape(self, names: tuple[str, ...]) -> Shape:
        """What scenarios are made of until the next day."""
        own_volatility = np.array([self.daily_volatility(name) for name in names])
        if self.config.method == "normal":
            return shape_of_law(self.correlation(names), own_volatility)
        every = self._scores.window
        scores, returns = (_columns(days.window, self._place, names) for days in (self._scores, self._returns))
        return shape_of_past(self.config, every, scores, returns, own_volatility)


class _Days:
    """The last `count` rows of a matrix that grows at the bottom, and to the right; NaN where nothing is known."""

    def __init__(self, count: int) -> None:
        self._count, self._end = count, 0
        self._cells = np.full((2 * count, 0), NAN)

    @property
    def window(self) -> Floats:
        """`[T, A]`, oldest first, a view."""
        return self._cells[max(0, self._end - self._count) : self._end]

    def widen(self) -> None:
        self._cells = np.column_stack([self._cells, np.full(len(self._cells), NAN)])

    def append(self, row: Floats) -> None:
        if self._end == len(self._cells):
            self._cells[: self._count] = self._cells[self._count :]
            self._end = self._count
        self._cells[self._end] = row
        self._end += 1

    def set(self, back: int, place: int, value: float) -> None:
        """Write into a row counted from the end (−1 is the last), if it is still remembered."""
        if -back <= min(self._end, self._count):
            self._cells[self._end + back, place] = value


def _kept(rows: Sequence[Sequence[float]], width: int) -> Floats:
    """Bars as a matrix `[T, A]`, several times faster than `np.array`."""
    if (lengths := set(map(len, rows))) != {width}:
        raise ConfigError(f"bars of {width} instruments hold {sorted(lengths)} prices or volumes")
    return np.fromiter(chain.from_iterable(rows), np.float64, len(rows) * width).reshape(len(rows), width)


def _taken_in(price: Floats, units: Floats, days: int, value: Floats, last: Floats) -> tuple[Floats, Floats, Bools]:
    """Traded value and last price after some bars `[T, A]`, and of whom anything was heard, each `[A]`."""
    seen = (price > 0.0) & (price < math.inf)
    with np.errstate(invalid="ignore", over="ignore"):
        traded = np.where(seen, price * units / days, 0.0)
    # running sums: added up one after the other, so that it does not matter how many bars are worked off together
    value = np.cumsum(np.vstack([value, traded]), axis=0)[-1]
    heard: Bools = np.any(seen, axis=0)
    latest = len(seen) - 1 - seen[::-1].argmax(axis=0)
    last = np.where(heard, price[latest, np.arange(len(last))], last)
    return value, last, heard


def _columns(window: Floats, place: Mapping[str, int], names: tuple[str, ...]) -> Floats:
    """`[T, A]`, NaN for a name never seen."""
    chosen = np.full((len(window), len(names)), NAN)
    for column, name in enumerate(names):
        if name in place:
            chosen[:, column] = window[:, place[name]]
    return chosen
