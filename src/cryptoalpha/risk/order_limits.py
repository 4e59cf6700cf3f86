"""Limits on single orders, whatever their reason: how large, how many, and at what price. They concern entries only."""

from __future__ import annotations

import math
from collections import deque

from cryptoalpha.core.time import HOUR
from cryptoalpha.risk.book import Book
from cryptoalpha.risk.config import RiskConfig


def max_notional(book: Book, config: RiskConfig) -> list[float]:
    """One order enlarges a position by at most `orders.max_notional`, quote currency; closing the other side first does not count."""
    largest = config.orders.max_notional
    if largest is None:
        return [math.inf] * len(book.proposals)
    return [math.inf if p.is_reducing else p.kept + largest / book.equity for p in book.proposals]


class EntryRate:
    """Counts entries of the last hour. None as `most` counts without a limit."""

    def __init__(self, most: int | None) -> None:
        self.most = most
        self._times: deque[int] = deque()

    def used(self, at: int) -> int:
        """Entries in the hour before `at`."""
        while self._times and self._times[0] <= at - HOUR:
            self._times.popleft()
        return len(self._times)

    def is_spent(self, at: int) -> bool:
        """Whether another entry would be one too many."""
        return self.most is not None and self.used(at) >= self.most

    def count(self, at: int) -> None:
        """An entry was ordered."""
        if self.most is not None:
            self._times.append(at)


def outside_collar(price: float, last: float, collar: float | None) -> bool:
    """Whether `price` is further from the last known one than the collar allows. An unknown last price forbids nothing."""
    return collar is not None and last == last and not abs(price / last - 1.0) <= collar
