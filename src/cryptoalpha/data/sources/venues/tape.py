"""Which trades of an instrument have come, and which are missing.

Where a venue counts its trades by one, a number left out is a hole that can be asked for; elsewhere only repeats can be told, among the
newest so many. Numbers run on over a restart: the newest and the holes are part of the source's position.
"""

from __future__ import annotations

from collections import deque

MOST_REMEMBERED = 20_000
_MOST_HOLES = 1_000


class Tape:
    """The trades of one instrument.

    Args:
        is_counted: whether numbers go up by one.
        last: the newest number that came before a restart; −1: none.
        holes: (first, last) numbers that were missing then.
    """

    def __init__(self, *, is_counted: bool, last: int = -1, holes: tuple[tuple[int, int], ...] = (), last_time: int = 0) -> None:
        self.is_counted, self.last, self.last_time = is_counted, last, last_time
        self.holes = [*holes]
        self.given_up = 0
        """Numbers that the venue could not give back."""
        self._recent: set[str] = set()
        self._order: deque[str] = deque()

    def take(self, native: str, number: str, moment: int) -> bool:
        """Note a trade; whether it is new."""
        self.last_time = max(self.last_time, moment)
        if not (self.is_counted and number.isascii() and number.isdecimal()):
            return self._take_named(native)
        count = int(number)
        if count > self.last:
            if self.last >= 0 and count > self.last + 1:
                self.holes.append((self.last + 1, count - 1))
                if len(self.holes) > _MOST_HOLES:
                    self.give_up(*self.holes[0])
            self.last = count
            return True
        for place, (first, last) in enumerate(self.holes):
            if first <= count <= last:
                self.holes[place : place + 1] = [part for part in ((first, count - 1), (count + 1, last)) if part[0] <= part[1]]
                return True
        return False

    def give_up(self, first: int, last: int) -> None:
        """Nobody can give these back."""
        kept: list[tuple[int, int]] = []
        for low, high in self.holes:
            if high < first or low > last:
                kept.append((low, high))
                continue
            self.given_up += min(high, last) - max(low, first) + 1
            kept += [part for part in ((low, first - 1), (last + 1, high)) if part[0] <= part[1]]
        self.holes = kept

    def _take_named(self, native: str) -> bool:
        if native in self._recent:
            return False
        self._recent.add(native)
        self._order.append(native)
        if len(self._order) > MOST_REMEMBERED:
            self._recent.discard(self._order.popleft())
        return True
