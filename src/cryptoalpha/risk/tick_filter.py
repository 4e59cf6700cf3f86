"""Bars that are missing and prices that are not believed, told per bar and instrument at the price of one comparison.

A move from the last believed price is not believed if it is larger than `jump`, or further from the median of past moves than `score`
robust standard deviations (1.4826 × median absolute deviation; Hampel, 1974). Median and deviation are of the last 120 moves,
taken anew every 240 bars and whenever a move is in doubt. Where more than half of the moves are equal the mean absolute deviation stands
in; with fewer than 30 moves only `jump` counts.

A price that is not believed waits for the next bar: if that one agrees with it, the market really moved, and both are believed from then
on; if that one is back where the market was, the price was an error. An instrument without a bar for 3 intervals is stale until one comes;
a move over a gap may be larger by the root of its length.

A move of `jump` or more is beyond what markets do in a bar: meanwhile its price is in `quarantined`, and nothing is to be counted at it.
Smaller moves in doubt are what real crashes look like: they are only told.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

WINDOW, LEAST, ANEW = 120, 30, 240
STALE_INTERVALS = 3
NORMAL_MAD, NORMAL_MEAN_DEVIATION = 1.4826, 1.2533
"""Standard deviations of a normal law per median and per mean absolute deviation."""

OK = ("", "a bar that is believed")
NOTHING: dict[int, tuple[str, str]] = {}


class TickFilter:
    """See the module header.

    Args:
        score: robust standard deviations beyond which a move is not believed.
        jump: move beyond which it is not believed in any case, fraction.
    """

    def __init__(self, score: float, jump: float) -> None:
        self.score, self.jump = score, jump
        self._instruments: Sequence[str] = ()
        self._rows: list[_Row] = []
        self._known: dict[str, _Row] = {}
        self._bars: list[Sequence[float]] = []
        self._due = WINDOW
        self.quarantined: dict[str, tuple[float, float]] = {}
        """Price in doubt by `jump`, and the last one that was believed, by instrument."""

    def observe(self, instruments: Sequence[str], close: Sequence[float]) -> dict[int, tuple[str, str]]:
        """Take in the closes of one bar, NaN where absent.

        Returns:
            By place: (`bad_tick` or `stale_feed`, why), or (`""`, why) where an instrument that was either is neither any more.
        """
        if instruments is not self._instruments:
            self._meet(instruments)
        odd = NOTHING
        for row in self._rows:  # `zip` costs more than the comparison
            if not row.low < close[row.place] < row.high:  # also for NaN
                odd = self._look(row, close[row.place], odd)
        bars = self._bars
        bars.append(close)
        if len(bars) > self._due:
            self._take_anew()
        return odd

    def _meet(self, instruments: Sequence[str]) -> None:
        """Other instruments than before: what is known of each stays, moves are collected anew."""
        if self._bars:
            for row in self._rows:
                row.last = self._last(row)
                row.is_pinned, row.low = True, math.inf
        self._rows = [self._known.setdefault(name, _Row(name, self.jump)) for name in instruments]
        for place, row in enumerate(self._rows):
            row.place = place
        self._instruments, self._bars, self._due = instruments, [], WINDOW

    def _take_anew(self) -> None:
        for row in self._rows:
            row.reach = self._bounds(row)
            if row.low < math.inf:
                row.center(self._last(row))
        del self._bars[: -WINDOW - 1]
        self._due = WINDOW + ANEW

    def _last(self, row: _Row) -> float:
        """The last price that was believed."""
        return row.last if row.is_pinned else self._bars[-1][row.place]

    def _look(self, row: _Row, price: float, odd: dict[int, tuple[str, str]]) -> dict[int, tuple[str, str]]:
        """The long way: the first bar, a missing one, a price that has drifted, or a move in doubt."""
        said = self._said(row, price)
        if said is OK:
            self.quarantined.pop(row.name, None)
        return odd if said is None else {**odd, row.place: said}

    def _said(self, row: _Row, price: float) -> tuple[str, str] | None:
        last = self._last(row)
        if not 0.0 < price < math.inf:
            row.pin(last)
            row.missing += 1
            if row.missing == STALE_INTERVALS:
                row.is_odd = True
                return "stale_feed", f"no bar for {STALE_INTERVALS} intervals"
            return None
        span, row.missing = math.sqrt(1.0 + row.missing), 0
        move = price / last - 1.0
        if last != last or row.reach[0] * span < move < row.reach[1] * span:
            return row.believe(price)
        row.reach = low, high = self._bounds(row)
        low, high = max(-self.jump, low * span), min(self.jump, high * span)
        doubted = price / row.doubted - 1.0
        if low < move < high or low < doubted < high:
            return row.believe(price)
        row.pin(last)
        row.doubted, row.is_odd = price, True
        if abs(move) >= self.jump:
            self.quarantined[row.name] = price, last
        else:
            self.quarantined.pop(row.name, None)
        return "bad_tick", f"a move of {move:+.2%} is beyond {low:+.2%} … {high:+.2%}: the price is not believed until the next bar agrees"

    def _bounds(self, row: _Row) -> tuple[float, float]:
        """Smallest and largest move that is believed from one bar to the next."""
        prices = [bar[row.place] for bar in self._bars[-WINDOW - 1 :]]
        ratios = [now / before for before, now in pairwise(prices) if before > 0.0 and now > 0.0]
        if len(ratios) < LEAST:
            return -self.jump, self.jump
        middle = _middle(ratios)
        away = [abs(ratio - middle) for ratio in ratios]
        scale = _middle(away) * NORMAL_MAD or sum(away) / len(away) * NORMAL_MEAN_DEVIATION
        reach = self.score * scale if scale > 0.0 else self.jump
        return max(-self.jump, middle - 1.0 - reach), min(self.jump, middle - 1.0 + reach)


def _middle(values: list[float]) -> float:
    """The upper median: cheaper than the mean of the two in the middle, and as robust."""
    return sorted(values)[len(values) // 2]


class _Row:
    """One instrument. A price between `low` and `high` is nearer to the last one than any move that could be in doubt; while the row is
    pinned, nothing is."""

    __slots__ = ("doubted", "high", "is_odd", "is_pinned", "last", "low", "missing", "name", "place", "reach")

    def __init__(self, name: str, jump: float) -> None:
        self.name = name
        self.place = self.missing = 0
        self.last = self.doubted = math.nan
        self.reach = -jump, jump
        self.low, self.high = math.inf, math.inf
        self.is_pinned, self.is_odd = True, False

    def pin(self, last: float) -> None:
        """Stay at the last believed price: this bar has none."""
        self.last, self.is_pinned, self.low = last, True, math.inf

    def believe(self, price: float) -> tuple[str, str] | None:
        self.doubted, self.is_pinned = math.nan, False
        self.center(price)
        was, self.is_odd = self.is_odd, False
        return OK if was else None

    def center(self, price: float) -> None:
        """Two prices inside differ by less than the reach: each lies within 0.4 of it from the middle."""
        self.low, self.high = price * (1.0 + 0.4 * self.reach[0]), price * (1.0 + 0.4 * self.reach[1])
