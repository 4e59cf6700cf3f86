"""Limits on single orders, whatever their reason: how large, how many, and at what price. They concern entries only.

The closing half of an order that turns a position round belongs to an entry, and is given up with it; the next review asks anew.
"""

from __future__ import annotations

import math
from collections import deque
from decimal import Decimal

from cryptoalpha.core.time import HOUR
from cryptoalpha.risk.book import Book
from cryptoalpha.risk.config import RiskConfig
from cryptoalpha.risk.rounding import round_to_lot


def max_notional(book: Book, config: RiskConfig) -> list[float]:
    """One order enlarges a position by at most `orders.max_notional`, quote currency; closing the other side first does not count."""
    largest = config.orders.max_notional
    if largest is None:
        return [math.inf] * len(book.proposals)
    return [math.inf if p.is_reducing else p.kept + largest / book.equity for p in book.proposals]


class EntryRate:
    """Counts entries of the last hour. With None as `most` there is no limit, and nothing is counted."""

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


def worst_price(price: float, collar: float | None, tick: Decimal, *, is_buy: bool) -> Decimal | None:
    """The worst price an entry decided on at `price` may be filled at: `price · (1 ± collar)`, on the venue's grid.

    Rounded towards the price decided on, but at least one tick away from it. None without a collar, and where a sale may cost everything.
    """
    if collar is None:
        return None
    at, away = Decimal(repr(price)), Decimal(repr(price * collar))
    nearest = round_to_lot(at, tick)
    if is_buy:
        return max(round_to_lot(at + away, tick), nearest + tick)
    least = round_to_lot(at - away, tick)
    least = min(least if least >= at - away else least + tick, nearest - tick)
    return least if least > 0 else None
