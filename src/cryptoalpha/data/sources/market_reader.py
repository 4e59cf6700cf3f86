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
from cryptoalpha.core.time import MINUTE, SECOND
from cryptoalpha.core.values import Bar, ChainReading
from cryptoalpha.data.bus.envelope import Envelope, sealed
from cryptoalpha.data.sources.contract import Health
from cryptoalpha.data.sources.venues.books import OrderBook
from cryptoalpha.data.sources.venues.catalogue import venue_named
from cryptoalpha.data.sources.venues.reading import Change, Reading, decoded, digest
from cryptoalpha.data.sources.venues.tape import LONGEST_HOLE, Hole, Tape

MARKET: Final = "market"
READINGS: Final = "readings"
_CROSSED_PATIENCE: Final = 100
"""Changes a book may stay crossed before it is not believed any more: venues write the two sides of one trade in two messages."""

_STRETCH: Final = 5 * MINUTE


class _Kept(msgspec.Struct):
    """Where one instrument stands."""

    last: int = -1
    last_time: int = 0
    holes: list[tuple[int, int, int]] = []


class _Position(msgspec.Struct):
    tapes: dict[str, _Kept] = {}
    bars: dict[str, _Kept] = {}
    settled: dict[str, int] = {}


class _Answer(msgspec.Struct):
    """An answer over REST, with what it was asked about: so it is recorded, and read again."""

    answer: str
    subject: str
    data: msgspec.Raw


_POSITION = msgspec.json.Decoder(_Position)
_ANSWER = msgspec.json.Decoder(_Answer)
_RAW = msgspec.json.Decoder(msgspec.Raw)
_ANSWERED: Final = b'{"answer":'


def answered(kind: str, subject: str, data: bytes) -> bytes:
    """An answer over REST as `MarketReader.read` takes it.

    Raises:
        DataError: if it is no JSON.
    """
    body = decoded(_RAW, data, f"answer about {kind} of {subject}")
    return msgspec.json.encode(_Answer(kind, subject, body))


class MarketReader:
    """Reads one venue.

    Args:
        venue: ccxt's id of a venue in the catalogue.
        levels: levels of each side that a `Book` shows.
        subject: the symbol of messages that name none (a recorded REST snapshot).
        depth: levels of each side that were subscribed, where the venue keeps no more up to date; 0: all.
        position: of the source before a restart; empty: none.
        most_missed: trades of an instrument that are worth asking for after an interruption; of more, the newest.
        health: told of messages, repeats and lag.

    Raises:
        ConfigError: if the venue is unknown, or the position none of ours.
    """

    def __init__(
        self,
        venue: str,
        *,
        levels: int = 10,
        subject: str = "",
        depth: int = 0,
        position: str = "",
        most_missed: int = LONGEST_HOLE,
        health: Health | None = None,
    ) -> None:
        self.venue = venue_named(venue)
        self.reader = self.venue.reader()
        self.health = health if health is not None else Health()
        self.counts: Counter[str] = Counter()
        self.books: dict[str, OrderBook] = {}
        self.gaps: set[str] = set()
        """Instruments whose book waits for a whole one."""
        self.broken: set[str] = set()
        """Those of them that were known before: something is missing, and no whole one is on its way."""
        self.refusals: dict[str, str] = {}
        """What the venue refused last, by connection."""
        self.asks_reconnect: set[str] = set()
        """Connections that the venue is about to close, and asked us to open anew."""
        self.lost_messages = 0
        """That the connection numbered and did not bring."""
        self._lags: list[tuple[int, float]] = []
        self._levels, self._subject, self._depth, self._most_missed = levels, subject, depth, most_missed
        kept = _position(position)
        counted = self.venue.counts_trades
        self.tapes = {name: _tape(one, is_counted=counted, longest=most_missed) for name, one in kept.tapes.items()}
        self.bars = {name: _tape(one, is_counted=True, longest=most_missed) for name, one in kept.bars.items()}
        """Candles by `instrument|interval`, numbered by their opens in intervals since 1970."""
        self._settled = dict(kept.settled)
        self._quotes: dict[str, tuple[int, int]] = {}
        self._rates: dict[str, float] = {}
        self._forming: dict[str, tuple[str, Bar]] = {}
        self._crossed: Counter[str] = Counter()
        self._numbers: dict[str, int] = {}

    @property
    def position(self) -> str:
        """Where every instrument stands, for a restart."""
        tapes, bars = (
            {name: _Kept(tape.last, tape.last_time, [(*hole,) for hole in tape.holes]) for name, tape in kept.items()}
            for kept in (self.tapes, self.bars)
        )
        return msgspec.json.encode(_Position(tapes, bars, self._settled)).decode()

    @property
    def least_lag(self) -> float | None:
        """Smallest lag of the last minutes, seconds: the way of the fastest message, less what the venue's clock runs ahead of ours."""
        return min((lag for _, lag in self._lags), default=None)

    def read(self, raw: bytes, received_at: int, subject: str = "", connection: str = "") -> list[Envelope]:
        """What a raw message says, in envelopes; empty where that is nothing new.

        Args:
            subject: the venue's symbol, where the message names none.
            connection: it came over, by a name of the caller's; connections are numbered, refused and closed one by one.

        Raises:
            DataError: if it is malformed.
        """
        if raw.startswith(_ANSWERED):
            told = decoded(_ANSWER, raw, f"answer of {self.venue.name}")
            reading = self.reader.answer(told.answer, bytes(told.data), received_at, told.subject)
            return self._take(reading, received_at, connection, is_live=False)
        return self._take(self.reader.parse(raw, received_at, subject or self._subject), received_at, connection)

    def _take(self, reading: Reading, received_at: int, connection: str, *, is_live: bool = True) -> list[Envelope]:
        """What a reading says. An answer about the past says nothing of lag."""
        self.counts[reading.kind] += 1
        health = self.health
        health.last_message = max(health.last_message, received_at)
        if reading.published and is_live:
            health.last_event = max(health.last_event, reading.published)
            lag = (received_at - reading.published) / SECOND
            health.lag_seconds = lag
            self._note_lag(received_at, lag)
        if reading.number >= 0:
            self._numbered(reading.number, connection)
        if reading.kind == "refused":
            self.refusals[connection] = reading.text
        elif reading.kind == "reconnect":
            self.asks_reconnect.add(connection)
        moments = reading.moments or [value.happened_at for _, value in reading.values]
        told = [
            self._sealed(native, value)
            for (native, value), moment in zip(reading.values, moments, strict=True)
            if self._is_new(native, value, moment)
        ]
        for name, bar in reading.forming:
            told += self._closed(name, bar, received_at)
        for change in reading.changes:
            book = self._apply(change, received_at)
            if book is not None:
                native = book.sequence if book.sequence >= 0 else f"{change.happened_at}:{digest(change.bids, change.asks)}"
                told.append(self._sealed(f"book:{book.instrument}:{native}", book))
        health.messages += len(told)
        return told

    def tape(self, instrument: str) -> Tape:
        """The trades of an instrument."""
        if instrument not in self.tapes:
            self.tapes[instrument] = Tape(is_counted=self.venue.counts_trades, longest=self._most_missed)
        return self.tapes[instrument]

    def opened(self, connection: str, books: tuple[str, ...] = ()) -> None:
        """A connection was opened: what it numbers begins anew, and the books that come over it wait for whole ones."""
        self._numbers.pop(connection, None)
        self.refusals.pop(connection, None)
        self.asks_reconnect.discard(connection)
        for name in books:
            if name in self.books:
                self.books[name].forget()
            self.gaps.add(name)
            self.broken.discard(name)

    def _sealed(self, native: str, value: Streamed) -> Envelope:
        if isinstance(value, ChainReading):
            return sealed(value, topic=READINGS, key=value.asset, source=self.venue.name, native_id=native)
        instrument = getattr(value, "instrument", "")
        return sealed(value, topic=MARKET, key=f"{self.venue.name}:{instrument}", source=self.venue.name, native_id=native)

    def _is_new(self, native: str, value: Streamed, moment: int) -> bool:
        is_new = True
        if isinstance(value, Trade):
            is_new = self.tape(value.instrument).take(native, value.trade_id, moment)
        elif isinstance(value, Book):
            number, since = self._quotes.get(value.instrument, (-1, 0))
            # venues begin to count anew after maintenance: a quote that is younger by a second is believed whatever its number
            if value.sequence >= 0 and (is_new := value.sequence > number or moment > since + SECOND):
                self._quotes[value.instrument] = value.sequence, moment
        elif isinstance(value, Bar):
            tape = self.bars.setdefault(f"{value.instrument}|{value.interval}", Tape(is_counted=True))
            is_new = tape.take(native, str(value.happened_at // value.interval), value.happened_at)
        elif isinstance(value, ChainReading) and value.metric == "funding_rate":
            is_new = value.happened_at > self._settled.get(value.asset, -1)
            self._settled[value.asset] = max(value.happened_at, self._settled.get(value.asset, -1))
        elif isinstance(value, ChainReading):
            is_new = self._rates.get(native.rpartition(":")[0]) != value.value
            self._rates[native.rpartition(":")[0]] = value.value
            return is_new  # an expected rate that stays as it was is no repeat of the publisher's
        if not is_new:
            self.health.repeats += 1
        return is_new

    def _note_lag(self, received_at: int, lag: float) -> None:
        """Keep the least lag of this stretch of time and of the one before: clocks are set now and then."""
        stretch = received_at // _STRETCH
        if not self._lags or self._lags[-1][0] != stretch:
            self._lags = [*self._lags[-1:], (stretch, lag)]
        elif lag < self._lags[-1][1]:
            self._lags[-1] = (stretch, lag)

    def _closed(self, native: str, bar: Bar, received_at: int) -> list[Envelope]:
        """The candle before, if this one is the next: nothing is added to it any more."""
        key = f"{bar.instrument}|{bar.interval}"
        _, before = self._forming.get(key, (native, bar))
        if bar.happened_at < before.happened_at:
            return []
        (name, closed), self._forming[key] = self._forming.get(key, (native, bar)), (native, bar)
        if closed.happened_at == bar.happened_at:
            return []
        closed = msgspec.structs.replace(closed, known_at=max(closed.happened_at + closed.interval, received_at))
        is_history = key not in self.bars and closed.happened_at + 2 * closed.interval < received_at  # sent along with the first message
        return [] if is_history or not self._is_new(name, closed, closed.happened_at) else [self._sealed(name, closed)]

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
            if outcome == "gap":
                self.broken.add(name)
            return None
        self.gaps.discard(name)
        self.broken.discard(name)
        if book.is_crossed:
            self._crossed[name] += 1
            if self._crossed[name] >= _CROSSED_PATIENCE:
                self._crossed[name] = 0
                book.gaps += 1
                self._distrust(name)
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

    def _distrust(self, name: str) -> None:
        self.books[name].forget()
        self.gaps.add(name)
        self.broken.add(name)

    def _numbered(self, number: int, connection: str) -> None:
        before = self._numbers.get(connection, -1)
        if self.venue.counts_messages and before >= 0 and number > before + 1:
            self.lost_messages += number - before - 1
            for name in self.books:
                self._distrust(name)
        self._numbers[connection] = number


def _tape(kept: _Kept, *, is_counted: bool, longest: int) -> Tape:
    holes = tuple(Hole(*hole) for hole in kept.holes)
    return Tape(is_counted=is_counted, last=kept.last, last_time=kept.last_time, holes=holes, longest=longest)


def _position(text: str) -> _Position:
    if not text:
        return _Position()
    try:
        return _POSITION.decode(text)
    except msgspec.MsgspecError as error:
        raise ConfigError(f"position {text[:60]!r} is none of a market: {error}", hint="forget the kept position of this source") from None
