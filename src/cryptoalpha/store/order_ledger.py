"""The order ledger: what became of each order that a run sent to a venue, kept in the run's own journal file.

The intent is not kept here: it is the journal's row that holds the `Order`, committed before anything is sent. An order of the journal
whose record here has not ended (or that has none) is unfinished, and must be asked for after a restart.

One `write` is one transaction with `synchronous=FULL`: the states of orders, their trades, what the engine must be told (the *inbox*) and
how far the venue's books were read stand or fall together. A trade has its id once per instrument, whatever arrives how often; what is not
new is neither stored nor told. The engine takes the inbox with the row it writes (`store.run_outcomes`), so a replay is told the same
things at the same places.

    order_record  one per order that was looked after; `ended` is final, `filled` never decreases
    venue_fill    trades of our orders in the order they were booked; UNIQUE (instrument, trade_id)
    venue_event   the inbox: values as msgpack; `once` names a cause that is told at most once; taken_row is NULL until the engine's row
    foreign_item  orders and trades of other hands on the account, as JSON
    cursor        how far something was read, and what was found at the start

Old journals have no such tables; they are made by the first ledger, and readers take their absence for "nothing was ever sent".
A ledger belongs to the thread that opened it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from cryptoalpha.core.errors import StoreError
from cryptoalpha.core.values import Adjustment, Fill, Order, Travelling
from cryptoalpha.store.journal_reader import SCHEMA, JournalReader
from cryptoalpha.store.sqlite import open_database, sqlite_errors

PATIENCE_SECONDS = 30.0
"""How long a write waits for the engine's transaction, which lasts as long as one decision."""

INBOX = (
    "CREATE TABLE IF NOT EXISTS venue_event (id INTEGER PRIMARY KEY, at INTEGER NOT NULL, body BLOB NOT NULL, once TEXT UNIQUE,"
    " taken_row INTEGER)",
    "CREATE INDEX IF NOT EXISTS venue_event_by_row ON venue_event (taken_row)",
)
TABLES = (
    "CREATE TABLE IF NOT EXISTS order_record (client_id TEXT PRIMARY KEY, instrument TEXT NOT NULL, state TEXT NOT NULL,"
    " ended INTEGER NOT NULL, venue_id TEXT NOT NULL, quantity TEXT NOT NULL, filled TEXT NOT NULL, sent_at INTEGER NOT NULL,"
    " changed_at INTEGER NOT NULL, since INTEGER NOT NULL, detail TEXT NOT NULL) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS order_record_by_venue_id ON order_record (instrument, venue_id)",
    "CREATE TABLE IF NOT EXISTS venue_fill (id INTEGER PRIMARY KEY, instrument TEXT NOT NULL, trade_id TEXT NOT NULL,"
    " client_id TEXT NOT NULL, venue_id TEXT NOT NULL, flag TEXT NOT NULL, body BLOB NOT NULL, UNIQUE (instrument, trade_id))",
    "CREATE INDEX IF NOT EXISTS venue_fill_by_client ON venue_fill (client_id)",
    *INBOX,
    "CREATE TABLE IF NOT EXISTS foreign_item (id TEXT PRIMARY KEY, at INTEGER NOT NULL, body TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS cursor (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
)
_COLUMNS = "client_id, instrument, state, ended, venue_id, quantity, filled, sent_at, changed_at, since, detail"
_encode = msgspec.msgpack.Encoder().encode
_value = msgspec.msgpack.Decoder(Travelling)


class OrderRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one order. Times are UTC ns by our clock."""

    client_id: str
    instrument: str
    state: str
    """One of `execution.orders.states`."""
    ended: bool
    """Whether that state is final."""
    venue_id: str = ""
    """The venue's id; empty until an answer named it."""
    quantity: Decimal
    """What was sent, or is about to be: the order's quantity less what was cut off before it left."""
    filled: Decimal = Decimal(0)
    """Cumulative; the larger of what the venue says and what its trades add up to."""
    sent_at: int = 0
    """When the request last left, 0 if it never did."""
    changed_at: int
    since: int
    """When the present state began."""
    detail: str = ""
    """Why it is in this state, for people."""


class Booking(msgspec.Struct, frozen=True, kw_only=True):
    """A trade of one of our orders."""

    fill: Fill
    venue_id: str = ""
    """The venue's id of the order."""
    flag: str = ""
    """`late`, `over` …: why a person should look at it; empty where nothing is odd."""
    is_silent: bool = False
    """Kept, but not told to the engine, which was told of it by other words: a correction that it replaces."""
    number: int = 0
    """Place in the order of booking, from 1; 0 before it is booked."""


class ForeignItem(msgspec.Struct, frozen=True, kw_only=True):
    """An order or trade of another hand on the account. `body` is JSON."""

    id: str
    at: int
    body: str


class Written(msgspec.Struct, frozen=True):
    """What of a `write` was new."""

    fills: tuple[Booking, ...]
    outcomes: tuple[Travelling, ...]
    """Told to the engine, the new fills first."""
    foreign: tuple[str, ...]
    """Ids not seen before."""


class LedgerSummary(msgspec.Struct, frozen=True, kw_only=True):
    """The ledger at a glance."""

    states: Mapping[str, int]
    """Orders by state; `intent`: in the journal, and nothing is recorded of them."""
    unknown: tuple[OrderRecord, ...]
    """Orders of unknown fate, the oldest first."""
    flagged: int
    """Trades booked with a flag."""
    waiting: int
    """Values that the engine has not taken."""
    foreign: int


Once = tuple[str, Travelling]
"""A value with the name of its cause: told at most once."""


class OrderLedger:
    """The ledger opened for writing; belongs to the thread that opens it.

    Args:
        path: the run's journal, which must exist.

    Raises:
        StoreError: if the journal is not there, cannot be written or is corrupt.
    """

    def __init__(self, path: Path, *, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._path = path
        with ExitStack() as opened:
            self._journal = opened.enter_context(JournalReader(path))
            self._connection = open_database(path, SCHEMA, durable=True, patience_seconds=patience_seconds)
            opened.callback(self._connection.close)
            with self._transaction():
                for statement in TABLES:
                    self._connection.execute(statement)
            self._opened = opened.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._opened.close()

    def write(
        self,
        *,
        at: int,
        records: Iterable[OrderRecord] = (),
        fills: Iterable[Booking] = (),
        outcomes: Iterable[Travelling | Once] = (),
        cursors: Mapping[str, str] | None = None,
        foreign: Iterable[ForeignItem] = (),
    ) -> Written:
        """Write one step, all of it or nothing; returns once it would survive a power cut.

        Args:
            at: now, UTC ns.
            fills: told to the engine as well, before `outcomes`, unless silent; those booked already are passed over.
            outcomes: what else to tell the engine. A pair `(cause, value)`, and an `Adjustment` with its `source`, at most once.

        Raises:
            StoreError: if the disk refuses, an ended order would change its state, or `filled` would decrease.
        """
        with self._transaction():
            for record in records:
                self._record(record)
            booked = tuple(booking for booking in map(self._book, fills) if booking is not None)
            told: list[Travelling] = [booking.fill for booking in booked if not booking.is_silent and self._tell(at, booking.fill, None)]
            for outcome in outcomes:
                cause, value = outcome if isinstance(outcome, tuple) else (_cause(outcome), outcome)
                if self._tell(at, value, cause):
                    told.append(value)
            for key, text in (cursors or {}).items():
                self._connection.execute("INSERT OR REPLACE INTO cursor VALUES (?, ?)", (key, text))
            strangers = tuple(item.id for item in foreign if self._see(item))
        return Written(booked, tuple(told), strangers)

    def unfinished(self) -> list[tuple[int, Order, OrderRecord | None]]:
        """Orders of the journal that have not ended, oldest first, each with its event id and what is known of it."""
        with sqlite_errors(self._path, "journal"):
            found = self._connection.execute(
                "SELECT event, ident FROM ident WHERE kind = 'Order' AND NOT EXISTS"
                " (SELECT 1 FROM order_record WHERE client_id = ident AND ended) ORDER BY event"
            ).fetchall()
        return [(event, self._order_at(event), self.record(client_id)) for event, client_id in found]

    def order(self, client_id: str) -> tuple[int, Order] | None:
        """Event id and order of a client id, ended or not; None where this run's journal has no such order: it is another's."""
        with sqlite_errors(self._path, "journal"):
            found = self._connection.execute("SELECT event FROM ident WHERE kind = 'Order' AND ident = ? AND scope = ''", (client_id,))
            row = found.fetchone()
        return None if row is None else (row[0], self._order_at(row[0]))

    def record(self, client_id: str) -> OrderRecord | None:
        return next(iter(self._records("client_id = ?", client_id)), None)

    def record_of(self, instrument: str, venue_id: str) -> OrderRecord | None:
        """By the venue's id of the order, for trades that do not carry ours."""
        return next(iter(self._records("instrument = ? AND venue_id = ? AND venue_id <> ''", instrument, venue_id)), None)

    def records(self, state: str | None = None) -> list[OrderRecord]:
        """All records, or those in one state; longest in their state first."""
        return self._records("? IS NULL OR state = ?", state, state)

    def fills(self, *, client_id: str | None = None, instrument: str | None = None, after: int = 0) -> list[Booking]:
        """Trades booked after number `after`, in that order; of one order or one instrument where named."""
        with sqlite_errors(self._path, "journal"):
            found = self._connection.execute(
                "SELECT id, venue_id, flag, body FROM venue_fill"
                " WHERE id > ? AND (? IS NULL OR client_id = ?) AND (? IS NULL OR instrument = ?) ORDER BY id",
                (after, client_id, client_id, instrument, instrument),
            ).fetchall()
        return [Booking(fill=_fill(body), venue_id=venue_id, flag=flag, number=number) for number, venue_id, flag, body in found]

    def has_fill(self, instrument: str, trade_id: str) -> bool:
        with sqlite_errors(self._path, "journal"):
            found = self._connection.execute("SELECT 1 FROM venue_fill WHERE instrument = ? AND trade_id = ?", (instrument, trade_id))
            return found.fetchone() is not None

    def told(self, *, after: int = 0) -> list[tuple[int, Travelling]]:
        """Number and value of everything the engine was or will be told after number `after`, in that order."""
        with sqlite_errors(self._path, "journal"):
            found = self._connection.execute("SELECT id, body FROM venue_event WHERE id > ? ORDER BY id", (after,)).fetchall()
        return [(number, decode_outcome(body)) for number, body in found]

    def cursor(self, key: str) -> str | None:
        with sqlite_errors(self._path, "journal"):
            found = self._connection.execute("SELECT value FROM cursor WHERE key = ?", (key,)).fetchone()
        return None if found is None else str(found[0])

    def foreign(self) -> list[ForeignItem]:
        """What others did on the account, by time."""
        with sqlite_errors(self._path, "journal"):
            found = self._connection.execute("SELECT id, at, body FROM foreign_item ORDER BY at, id").fetchall()
        return [ForeignItem(id=name, at=at, body=body) for name, at, body in found]

    def summary(self) -> LedgerSummary:
        with sqlite_errors(self._path, "journal"):
            return _summary(self._connection)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            with sqlite_errors(self._path, "journal"):
                self._connection.execute("BEGIN IMMEDIATE")
                yield
                self._connection.execute("COMMIT")
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def _record(self, record: OrderRecord) -> None:
        earlier = self.record(record.client_id)
        if earlier is not None and (record.filled < earlier.filled or (earlier.ended and record.state != earlier.state)):
            raise StoreError(
                f"order {record.client_id} is {earlier.state} with {earlier.filled} filled: it cannot become {record.state} with "
                f"{record.filled}",
                hint="an ended order keeps its state and no trade is undone; this is a fault of the program, keep the journal",
            )
        self._connection.execute(f"INSERT OR REPLACE INTO order_record ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", _row(record))

    def _book(self, booking: Booking) -> Booking | None:
        """Store a trade; None where it is there already."""
        fill = booking.fill
        made = self._connection.execute(
            "INSERT OR IGNORE INTO venue_fill (instrument, trade_id, client_id, venue_id, flag, body) VALUES (?, ?, ?, ?, ?, ?)",
            (fill.instrument, fill.trade_id, fill.client_id, booking.venue_id, booking.flag, _encode(fill)),
        )
        return msgspec.structs.replace(booking, number=int(made.lastrowid or 0)) if made.rowcount else None

    def _tell(self, at: int, value: Travelling, cause: str | None) -> bool:
        """Put a value into the inbox, unless its cause has put one there before."""
        made = self._connection.execute("INSERT OR IGNORE INTO venue_event (at, body, once) VALUES (?, ?, ?)", (at, _encode(value), cause))
        return bool(made.rowcount)

    def _see(self, item: ForeignItem) -> bool:
        """Keep the newest of it; True where it was never seen."""
        known = self._connection.execute("SELECT 1 FROM foreign_item WHERE id = ?", (item.id,)).fetchone()
        self._connection.execute("INSERT OR REPLACE INTO foreign_item VALUES (?, ?, ?)", (item.id, item.at, item.body))
        return known is None

    def _records(self, where: str, *arguments: str | None) -> list[OrderRecord]:
        with sqlite_errors(self._path, "journal"):
            return read_records(self._connection, where, arguments)

    def _order_at(self, event: int) -> Order:
        value = self._journal.get(event)
        if not isinstance(value, Order):
            raise StoreError(f"the journal {self._path} names an order where it holds {value}", hint="the file is damaged; keep it")
        return value


def read_summary(path: Path) -> LedgerSummary | None:
    """The ledger of a journal at a glance, read beside its writer; None where nothing was ever sent to a venue.

    Raises:
        StoreError: if the journal cannot be read.
    """
    connection = open_database(path, SCHEMA, read_only=True)
    try:
        with sqlite_errors(path, "journal"):
            connection.execute("BEGIN")  # one moment for all that is read
            made = connection.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'order_record'").fetchone()[0]
            return _summary(connection) if made else None
    finally:
        connection.close()


def decode_outcome(body: bytes) -> Travelling:
    """A value of the inbox.

    Raises:
        StoreError: if it is damaged.
    """
    try:
        value: Travelling = _value.decode(body)
        return value
    except msgspec.DecodeError as error:
        raise StoreError(f"a value in the order ledger is damaged: {error}", hint="keep the journal for analysis") from error


def _fill(body: bytes) -> Fill:
    value = decode_outcome(body)
    if not isinstance(value, Fill):
        raise StoreError(f"the order ledger holds {value} where a trade should be", hint="keep the journal for analysis")
    return value


def _cause(value: Travelling) -> str | None:
    return f"adjustment {value.source}" if isinstance(value, Adjustment) else None


def _row(record: OrderRecord) -> tuple[Any, ...]:
    return (
        record.client_id,
        record.instrument,
        record.state,
        record.ended,
        record.venue_id,
        str(record.quantity),
        str(record.filled),
        record.sent_at,
        record.changed_at,
        record.since,
        record.detail,
    )


def read_records(connection: sqlite3.Connection, where: str, arguments: Sequence[str | None]) -> list[OrderRecord]:
    """Records that an SQL condition chooses, longest in their state first."""
    found = connection.execute(f"SELECT {_COLUMNS} FROM order_record WHERE {where} ORDER BY since, client_id", arguments).fetchall()
    return [
        OrderRecord(
            client_id=client_id,
            instrument=instrument,
            state=state,
            ended=bool(ended),
            venue_id=venue_id,
            quantity=Decimal(quantity),
            filled=Decimal(filled),
            sent_at=sent_at,
            changed_at=changed_at,
            since=since,
            detail=detail,
        )
        for client_id, instrument, state, ended, venue_id, quantity, filled, sent_at, changed_at, since, detail in found
    ]


def _summary(connection: sqlite3.Connection) -> LedgerSummary:
    def count(query: str) -> int:
        return int(connection.execute(query).fetchone()[0])

    states = dict(connection.execute("SELECT state, count(*) FROM order_record GROUP BY state ORDER BY state").fetchall())
    bare = count("SELECT count(*) FROM ident WHERE kind = 'Order' AND ident NOT IN (SELECT client_id FROM order_record)")
    if bare:
        states["intent"] = states.get("intent", 0) + bare
    return LedgerSummary(
        states=states,
        unknown=tuple(read_records(connection, "state = 'unknown'", ())),
        flagged=count("SELECT count(*) FROM venue_fill WHERE flag <> ''"),
        waiting=count("SELECT count(*) FROM venue_event WHERE taken_row IS NULL"),
        foreign=count("SELECT count(*) FROM foreign_item"),
    )
