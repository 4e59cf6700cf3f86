"""Order books kept from a whole book and the changes after it, by each venue's own rule of what follows what.

A change that does not follow makes the book unknown until the next whole one: nothing is shown of a book that may be wrong. Changes that
came before the whole book they belong after wait for it. Rules differ in what a venue numbers:

- `counted`: a message holds the changes first to last; it follows if it begins where the one before ended (Binance spot, Bybit, Kraken
  futures). An overlap is harmless, because an amount replaces the one before.
- `chained`: a message names the last change of the one before (Binance futures, OKX).
- `timed`: only the moment is known; what is older than the whole book is in there already (Bitstamp).
- `checked`: no number, but a checksum of the ten best levels (Kraken).
- `trusted`: nothing; the connection is the only promise (Coinbase, whose connection counts its messages instead).

Sources: Binance, "How to manage a local order book correctly"; OKX, "Order book channel"; Kraken, "Book checksum"; Bybit and Bitstamp,
documentation of their order book channels.
"""

from __future__ import annotations

import zlib
from bisect import bisect_left, insort
from collections import deque
from typing import Literal

from cryptoalpha.data.sources.venues.reading import Change, Level

Rule = Literal["counted", "chained", "timed", "checked", "trusted"]
Outcome = Literal["applied", "old", "waiting", "gap"]
_MOST_WAITING = 5_000
_CHECKED_LEVELS = 10


class Side:
    """One side of a book; best first."""

    def __init__(self, *, bids: bool) -> None:
        self._sign = -1.0 if bids else 1.0
        self._keys: list[float] = []  # price times sign, ascending: the best is first
        self._amounts: dict[float, float] = {}
        self._texts: dict[float, tuple[str, str]] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def clear(self) -> None:
        self._keys.clear()
        self._amounts.clear()
        self._texts.clear()

    def put(self, levels: tuple[Level, ...], texts: tuple[tuple[str, str], ...] | None) -> None:
        """Set what rests at prices; an amount of 0 removes the level."""
        for place, (price, amount) in enumerate(levels):
            key = price * self._sign
            if amount > 0.0:
                if key not in self._amounts:
                    insort(self._keys, key)
                self._amounts[key] = amount
                if texts is not None:
                    self._texts[key] = texts[place]
            elif self._amounts.pop(key, None) is not None:
                del self._keys[bisect_left(self._keys, key)]
                self._texts.pop(key, None)

    def cut(self, depth: int) -> None:
        """Forget what lies beyond the depth that was subscribed: the venue no longer says when it changes."""
        for key in self._keys[depth:]:
            del self._amounts[key]
            self._texts.pop(key, None)
        del self._keys[depth:]

    def best(self, count: int) -> tuple[Level, ...]:
        return tuple((key * self._sign, self._amounts[key]) for key in self._keys[:count])

    def digits(self) -> str:
        """Prices and amounts of the ten best levels as their venue writes them, without points and leading zeros."""
        shown = (self._texts.get(key, ("", "")) for key in self._keys[:_CHECKED_LEVELS])
        return "".join(text.replace(".", "").lstrip("0") for pair in shown for text in pair)


class OrderBook:
    """The book of one instrument at one venue.

    Args:
        rule: what follows what.
        depth: levels of each side that the venue keeps us told about; 0: all.
    """

    def __init__(self, rule: Rule, *, depth: int = 0) -> None:
        self._rule, self._depth = rule, depth
        self.bids, self.asks = Side(bids=True), Side(bids=False)
        self.is_known = False
        self.sequence = -1
        """The venue's number of this state; −1 where it gives none."""
        self.checks = 0
        """Checksums that agreed."""
        self.gaps = 0
        """How often a change did not follow, or a checksum disagreed."""
        self._is_fresh = False
        self._waiting: deque[Change] = deque(maxlen=_MOST_WAITING)

    @property
    def is_crossed(self) -> bool:
        """Whether somebody bids as much as another asks: what a book under maintenance may show for a moment."""
        return bool(len(self.bids) and len(self.asks) and self.bids.best(1)[0][0] >= self.asks.best(1)[0][0])

    @property
    def has_waiting(self) -> bool:
        """Whether changes wait for a whole book to begin from."""
        return bool(self._waiting)

    def forget(self) -> None:
        """The connection was lost, or the book is not believed: wait for a whole one."""
        self.is_known = False
        self._waiting.clear()

    def apply(self, change: Change) -> Outcome:
        """Take a change or a whole book.

        Returns:
            `applied`: the book is as the venue says it is. `old`: it was in there already. `waiting`: kept until a whole book comes.
            `gap`: something is missing; the book is unknown until a whole one comes.
        """
        if change.whole:
            return self._begin(change)
        if not self.is_known:
            if self._rule not in ("trusted", "checked"):  # there a whole book comes over the same connection: what came before is in it
                self._waiting.append(change)
            return "waiting"
        verdict = self._follows(change)
        if verdict == "applied":
            return self._put(change)
        if verdict == "gap":
            self.gaps += 1
            self.forget()
            self._waiting.append(change)  # the next whole book may be older than this
        return verdict

    def _begin(self, whole: Change) -> Outcome:
        self.bids.clear()
        self.asks.clear()
        self.is_known = self._is_fresh = True
        waiting = list(self._waiting)
        self._waiting.clear()
        outcome = self._put(whole)
        for change in waiting:
            if outcome == "gap":
                self._waiting.append(change)
            elif (verdict := self._follows(change)) == "applied":
                outcome = self._put(change)
            elif verdict == "gap":
                self.gaps += 1
                self.forget()
                self._waiting.append(change)
                outcome = "gap"
        return outcome

    def _follows(self, change: Change) -> Outcome:
        """Whether a change is the next one."""
        at = self.sequence
        if self._rule in ("checked", "trusted") or at < 0 or change.last < 0:
            return "applied"
        if self._rule == "timed":
            return "applied" if change.last > at else "old"
        if self._rule == "chained":
            if change.before == at and change.last != at:
                return "applied"
            if change.last <= at:
                return "old"
            reaches_back = change.first <= at + 1 or 0 <= change.before <= at
            return "applied" if self._is_fresh and reaches_back else "gap"  # the first after a whole book may begin before it
        if change.last <= at:
            return "old"
        return "applied" if change.first <= at + 1 else "gap"

    def _put(self, change: Change) -> Outcome:
        bids, asks = change.texts if change.texts is not None else (None, None)
        self.bids.put(change.bids, bids)
        self.asks.put(change.asks, asks)
        depth = change.depth or self._depth
        if depth:
            self.bids.cut(depth)
            self.asks.cut(depth)
        self.sequence = change.last
        if not change.whole:
            self._is_fresh = False
        if change.checksum >= 0 and change.texts is not None:
            if zlib.crc32((self.asks.digits() + self.bids.digits()).encode()) == change.checksum:
                self.checks += 1
            elif self.checks:  # one that never agreed says something of how digits are written, not of the book
                self.gaps += 1
                self.forget()
                return "gap"
        return "applied"
