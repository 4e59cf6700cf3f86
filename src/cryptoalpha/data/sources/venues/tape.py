"""What of a numbered series has come, and what is missing: an instrument's trades, or its candles.

Where a venue counts its trades by one, a number left out is a hole that can be asked for; elsewhere only repeats can be told, among the
newest so many. Numbers run on over a restart: the newest and the holes are part of the source's position.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

MOST_REMEMBERED = 20_000
LONGEST_HOLE = 200_000
_MOST_HOLES = 1_000
_OVERTAKEN = 100


class Hole(NamedTuple):
    """Numbers that did not come."""

    first: int
    last: int
    since: int
    """When the one before the first happened, UTC ns."""


class Tape:
    """The trades of one instrument, or its candles by number of intervals.

    Args:
        is_counted: whether numbers go up by one.
        last: the newest number that came before a restart; −1: none.
        last_time: when that happened, UTC ns.
        holes: what was missing then.
        longest: numbers of a hole that are worth asking for; of a longer one the newest.
    """

    def __init__(
        self, *, is_counted: bool, last: int = -1, last_time: int = 0, holes: tuple[Hole, ...] = (), longest: int = LONGEST_HOLE
    ) -> None:
        self.is_counted, self.last, self.last_time, self._longest = is_counted, last, last_time, longest
        self.holes = list(holes)
        self._first = -1
        """The oldest number since we began to listen; −1: began before a restart."""
        self.lost = 0
        """Numbers that nobody can give back."""
        self._recent: set[str] = set()
        self._order: deque[str] = deque()

    def take(self, native: str, number: str, moment: int) -> bool:
        """Note one; whether it is new."""
        if not (self.is_counted and number.isascii() and number.isdecimal()):
            self.last_time = max(self.last_time, moment)
            return self._take_named(native)
        count = int(number)
        if count > self.last:
            if self.last >= 0 and count > self.last + 1:
                begin = max(self.last + 1, count - self._longest)
                self.lost += begin - self.last - 1
                self.holes.append(Hole(begin, count - 1, self.last_time))
                if len(self.holes) > _MOST_HOLES:
                    self.give_up(self.holes[0])
            if self.last < 0:
                self._first = count
            self.last, self.last_time = count, max(self.last_time, moment)
            return True
        if 0 < self._first - count <= _OVERTAKEN:  # the very first to come had overtaken others
            if count + 1 < self._first:
                self.holes.append(Hole(count + 1, self._first - 1, moment))
            self._first = count
            return True
        for place, hole in enumerate(self.holes):
            if hole.first <= count <= hole.last:
                left = (Hole(hole.first, count - 1, hole.since), Hole(count + 1, hole.last, max(moment, hole.since)))
                self.holes[place : place + 1] = [part for part in left if part.first <= part.last]
                return True
        return False

    def give_up(self, hole: Hole) -> None:
        """Nobody can give these back."""
        if hole in self.holes:
            self.holes.remove(hole)
            self.lost += hole.last - hole.first + 1

    def _take_named(self, native: str) -> bool:
        if native in self._recent:
            return False
        self._recent.add(native)
        self._order.append(native)
        if len(self._order) > MOST_REMEMBERED:
            self._recent.discard(self._order.popleft())
        return True
