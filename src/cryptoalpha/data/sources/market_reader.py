"""From a venue's raw messages to envelopes: parser, books, repeats, holes. A live socket and a replay of a recording use this alike.

Every message is counted by its kind, also those that carry nothing for us. A trade that came before is told by its number and not passed
on; a quote or a candle that is older than the newest one likewise. A book is passed on only while it is known to be right.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

import msgspec

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.streamed import Book, Streamed, Trade
from cryptoalpha.core.time import SECOND
from cryptoalpha.core.values import Bar, ChainReading
from cryptoalpha.data.bus.envelope import Envelope, sealed
from cryptoalpha.data.sources.contract import Health
from cryptoalpha.data.sources.venues.books import OrderBook
from cryptoalpha.data.sources.venues.catalogue import venue_named
from cryptoalpha.data.sources.venues.reading import Change, Reading, digest
from cryptoalpha.data.sources.venues.tape import Tape

MARKET: Final = "market"
READINGS: Final = "readings"
_CROSSED_PATIENCE: Final = 100
"""Changes a book may stay crossed before it is not believed any more: venues write the two sides of one trade in two messages."""


class _Kept(msgspec.Struct):
    """Where one instrument stands."""

    last: int = -1
    last_time: int = 0
    holes: list[tuple[int, int]] = []


class _Position(msgspec.Struct):
    tapes: dict[str, _Kept] = {}
    bars: dict[str, int] = {}
    settled: dict[str, int] = {}


_POSITION = msgspec.json.Decoder(_Position)


class MarketReader:
    """Reads one venue.

    Args:
        venue: ccxt's id of a venue in the catalogue.
        levels: levels of each side that a `Book` shows.
        subject: the symbol of messages that name none (a recorded REST snapshot).
        depth: levels of each side that were subscribed, where the venue keeps no more up to date; 0: all.
        position: of the source before a restart; empty: none.
        health: told of messages, repeats and lag.

    Raises:
        ConfigError: if the venue is unknown, or the position none of ours.
    """

    def __init__(
        self, venue: str, *, levels: int = 10, subject: str = "", depth: int = 0, position: str = "", health: Health | None = None
    ) -> None:
        self.venue = venue_named(venue)
        self.reader = self.venue.reader()
        self.health = health if health is not None else Health()
        self.counts: Counter[str] = Counter()
        self.books: dict[str, OrderBook] = {}
        self.gaps: set[str] = set()
        """Instruments whose book waits for a whole one."""
        self.lost_messages = 0
        """That the connection numbered and did not bring."""
        self.least_lag: float | None = None
        """Smallest lag seen, seconds: what the venue's clock runs ahead of ours, less the way the message took."""
        self._levels, self._subject, self._depth = levels, subject, depth
        kept = _position(position)
        self.tapes = {name: self._tape(kept) for name, kept in kept.tapes.items()}
        self._bars, self.settled = dict(kept.bars), dict(kept.settled)
        self._quotes: dict[str, int] = {}
        self._rates: dict[str, float] = {}
        self._crossed: Counter[str] = Counter()
        self._number = -1

    @property
    def position(self) -> str:
        """Where every instrument stands, for a restart."""
        tapes = {name: _Kept(tape.last, tape.last_time, tape.holes) for name, tape in self.tapes.items()}
        return msgspec.json.encode(_Position(tapes, self._bars, self.settled)).decode()

    def read(self, raw: bytes, received_at: int, subject: str = "") -> list[Envelope]:
        """What a raw message says, in envelopes; empty where that is nothing new.

        Raises:
            DataError: if it is malformed.
        """
        return self.take(self.reader.parse(raw, received_at, subject or self._subject), received_at)

    def take(self, reading: Reading, received_at: int, *, is_backfill: bool = False) -> list[Envelope]:
        """What a reading says. An answer over REST that fills holes says nothing of lag."""
        self.counts[reading.kind] += 1
        health = self.health
        health.messages += 1
        health.last_message = max(health.last_message, received_at)
        if reading.published and not is_backfill:
            health.last_event = max(health.last_event, reading.published)
            lag = (received_at - reading.published) / SECOND
            health.lag_seconds = lag
            self.least_lag = lag if self.least_lag is None else min(lag, self.least_lag)
        if reading.number >= 0:
            self._numbered(reading.number)
        told = [self._sealed(native, value) for native, value in reading.values if self._is_new(native, value)]
        for change in reading.changes:
            book = self._apply(change, received_at)
            if book is not None:
                native = book.sequence if book.sequence >= 0 else f"{change.happened_at}:{digest(change.bids, change.asks)}"
                told.append(self._sealed(f"book:{book.instrument}:{native}", book))
        return told

    def tape(self, instrument: str) -> Tape:
        """The trades of an instrument."""
        if instrument not in self.tapes:
            self.tapes[instrument] = self._tape(_Kept())
        return self.tapes[instrument]

    def forget_books(self, instruments: tuple[str, ...] = ()) -> None:
        """A connection was lost: books wait for a whole one (none named: all of them)."""
        for name, book in self.books.items():
            if not instruments or name in instruments:
                book.forget()
                self.gaps.add(name)

    def reconnected(self) -> None:
        """A new connection counts its messages anew."""
        self._number = -1

    def _sealed(self, native: str, value: Streamed) -> Envelope:
        if isinstance(value, ChainReading):
            return sealed(value, topic=READINGS, key=value.asset, source=self.venue.name, native_id=native)
        instrument = getattr(value, "instrument", "")
        return sealed(value, topic=MARKET, key=f"{self.venue.name}:{instrument}", source=self.venue.name, native_id=native)

    def _tape(self, kept: _Kept) -> Tape:
        return Tape(is_counted=self.venue.counts_trades, last=kept.last, holes=tuple(kept.holes), last_time=kept.last_time)

    def _is_new(self, native: str, value: Streamed) -> bool:
        is_new = True
        if isinstance(value, Trade):
            is_new = self.tape(value.instrument).take(native, value.trade_id, value.happened_at)
        elif isinstance(value, Book):
            if value.sequence >= 0:
                is_new = value.sequence > self._quotes.get(value.instrument, -1)
                self._quotes[value.instrument] = max(value.sequence, self._quotes.get(value.instrument, -1))
        elif isinstance(value, Bar):
            key = f"{value.instrument}|{value.interval}"
            is_new = value.happened_at > self._bars.get(key, -1)
            self._bars[key] = max(value.happened_at, self._bars.get(key, -1))
        elif isinstance(value, ChainReading) and value.metric == "funding_rate":
            is_new = value.happened_at > self.settled.get(value.asset, -1)
            self.settled[value.asset] = max(value.happened_at, self.settled.get(value.asset, -1))
        elif isinstance(value, ChainReading):
            is_new = self._rates.get(native.rpartition(":")[0]) != value.value
            self._rates[native.rpartition(":")[0]] = value.value
            return is_new  # an expected rate that stays as it was is no repeat of the publisher's
        if not is_new:
            self.health.repeats += 1
        return is_new

    def last_bar(self, instrument: str, interval: int) -> int:
        """Open of the newest bar that came; −1: none."""
        return self._bars.get(f"{instrument}|{interval}", -1)

    def _apply(self, change: Change, received_at: int) -> Book | None:
        name = change.instrument
        book = self.books.get(name)
        if book is None:
            book = self.books[name] = OrderBook(self.venue.rule, depth=self._depth)
        outcome = book.apply(change)
        if outcome == "old":
            self.health.repeats += 1
            return None
        if outcome != "applied":
            self.gaps.add(name)
            return None
        self.gaps.discard(name)
        if book.is_crossed:
            self._crossed[name] += 1
            if self._crossed[name] >= _CROSSED_PATIENCE:
                self._crossed[name] = 0
                book.gaps += 1
                book.forget()
                self.gaps.add(name)
            return None
        self._crossed[name] = 0
        return Book(
            happened_at=change.happened_at,
            known_at=received_at,
            instrument=name,
            venue=self.venue.name,
            bids=book.bids.best(self._levels),
            asks=book.asks.best(self._levels),
            sequence=book.sequence,
        )

    def _numbered(self, number: int) -> None:
        if self.venue.counts_messages and self._number >= 0 and number > self._number + 1:
            self.lost_messages += number - self._number - 1
            self.forget_books()
        self._number = number


def _position(text: str) -> _Position:
    if not text:
        return _Position()
    try:
        return _POSITION.decode(text)
    except msgspec.MsgspecError as error:
        raise ConfigError(f"position {text[:60]!r} is none of a market: {error}", hint="forget the kept position of this source") from None
