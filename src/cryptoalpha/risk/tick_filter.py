"""Bars that are missing and prices that are not believed, told per bar and instrument at the price of two comparisons.

A move from the last believed price is not believed if it is larger than `jump`, or further from the median of past moves than `score`
robust standard deviations (1.4826 × median absolute deviation; Hampel, 1974). Median and deviation come from blocks of 120 moves, and from
the last 120 whenever a move is in doubt. Where more than half of the moves are equal the mean absolute deviation stands in; with fewer than
30 moves only `jump` counts.

A price that is not believed waits for the next bar: if that one agrees with it, the market really moved, and both are believed from then
on; if that one is back where the market was, the price was an error. An instrument without a bar for 3 intervals is stale until one comes;
a move over a gap may be larger by the root of its length.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

WINDOW, LEAST = 120, 30
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
        self._left = WINDOW

    def observe(self, instruments: Sequence[str], close: Sequence[float]) -> dict[int, tuple[str, str]]:
        """Take in the closes of one bar, NaN where absent.

        Returns:
            By place: (`bad_tick` or `stale_feed`, why), or (`""`, why) where an instrument that was either is neither any more.
        """
        if instruments is not self._instruments:
            self._rows = [self._known.setdefault(name, _Row(self.jump)) for name in instruments]
            self._instruments = instruments
        self._left -= 1
        if self._left == 0:
            self._new_block()
        odd: dict[int, tuple[str, str]] | None = None
        for row, price in zip(self._rows, close, strict=True):
            ratio = price / row.last
            if row.low < ratio < row.high:  # also False for NaN
                row.last = price
                row.ratios.append(ratio)
            else:
                said = self._look(row, price)
                if said is not None:
                    odd = odd or {}
                    odd[self._rows.index(row)] = said
        return NOTHING if odd is None else odd

    def _new_block(self) -> None:
        self._left = WINDOW
        for row in self._rows:
            if row.low < math.inf:
                row.settle(self._bounds(row, 1.0))

    def _look(self, row: _Row, price: float) -> tuple[str, str] | None:
        """The long way: the first bar, a missing one, a full block, or a move in doubt."""
        if not 0.0 < price < math.inf:
            row.missing += 1
            row.low = math.inf  # the next bar takes the long way
            if row.missing == STALE_INTERVALS:
                row.is_odd = True
                return "stale_feed", f"no bar for {STALE_INTERVALS} intervals"
            return None
        span, row.missing = math.sqrt(1.0 + row.missing), 0
        if row.last != row.last:
            return self._believe(row, price, math.nan)
        low, high = self._bounds(row, span)
        move = price / row.last - 1.0
        if low < move < high:
            return self._believe(row, price, move / span)
        if row.doubted == row.doubted and low < price / row.doubted - 1.0 < high:
            return self._believe(row, price, price / row.doubted - 1.0)
        row.doubted, row.is_odd, row.low = price, True, math.inf
        return "bad_tick", f"a move of {move:+.2%} is beyond {low:+.2%} … {high:+.2%}: the price is not believed until the next bar agrees"

    def _believe(self, row: _Row, price: float, move: float) -> tuple[str, str] | None:
        row.last, row.doubted = price, math.nan
        if move == move:
            row.ratios.append(1.0 + move)
        row.settle(self._bounds(row, 1.0))
        was, row.is_odd = row.is_odd, False
        return OK if was else None

    def _bounds(self, row: _Row, span: float) -> tuple[float, float]:
        """Smallest and largest move that is believed."""
        ratios = (row.before + row.ratios)[-WINDOW:]
        if len(ratios) < LEAST:
            return -self.jump, self.jump
        middle = _middle(ratios)
        away = [abs(ratio - middle) for ratio in ratios]
        scale = _middle(away) * NORMAL_MAD or sum(away) / len(away) * NORMAL_MEAN_DEVIATION
        reach = self.score * scale * span if scale > 0.0 else self.jump
        return max(-self.jump, middle - 1.0 - reach), min(self.jump, middle - 1.0 + reach)


def _middle(values: list[float]) -> float:
    """The upper median: cheaper than the mean of the two in the middle, and as robust."""
    return sorted(values)[len(values) // 2]


class _Row:
    """One instrument."""

    __slots__ = ("before", "doubted", "high", "is_odd", "last", "low", "missing", "ratios")

    def __init__(self, jump: float) -> None:
        self.last = self.doubted = math.nan
        self.low, self.high = 1.0 - jump, 1.0 + jump
        self.ratios: list[float] = []
        self.before: list[float] = []
        self.missing = 0
        self.is_odd = False

    def settle(self, bounds: tuple[float, float]) -> None:
        self.low, self.high = 1.0 + bounds[0], 1.0 + bounds[1]
        self.before, self.ratios = (self.before + self.ratios)[-WINDOW:], []
