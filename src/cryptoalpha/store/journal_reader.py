"""Reading a journal: every value of a run, in order, by row, by event id or by the id of an order or fill.

A reader opens the file read-only and works beside an active writer; it sees whole rows that were committed, never half of one.

Rows count from 1. A row holds the values of one engine step, encoded as a msgpack list; bodies over 1 KiB are zlib streams (their first
byte is 0x78, which no msgpack list starts with). The digest is sha256 over row, time, length and uncompressed body of every row, so
neither compression nor the size of commits changes it.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar, get_args

import msgspec

from cryptoalpha.core.errors import ConfigError, StoreError
from cryptoalpha.core.values import Fill, Order, Travelling, event_id, format_event_id, split_event_id
from cryptoalpha.store.sqlite import Schema, open_database, sqlite_errors

SCHEMA = Schema(
    name="journal",
    application_id=0x6361_6A31,  # "caj1"
    version=1,
    statements=(
        "CREATE TABLE header (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
        "CREATE TABLE step (row INTEGER PRIMARY KEY, at INTEGER NOT NULL, body BLOB NOT NULL)",
        # `ident` is an order's client id or a fill's trade id; `scope` is the fill's instrument (venues number trades per instrument)
        "CREATE TABLE ident (kind TEXT, ident TEXT, scope TEXT, client_id TEXT NOT NULL, event INTEGER NOT NULL,"
        " PRIMARY KEY (kind, ident, scope)) WITHOUT ROWID",
        "CREATE INDEX ident_by_client ON ident (client_id)",
    ),
)

Kind = TypeVar("Kind", bound=Travelling)
TRAVELLING: tuple[type[Travelling], ...] = get_args(Travelling)
_DECODER = msgspec.msgpack.Decoder(list[Travelling])
_FRAME = struct.Struct("<qqI")
_READ_AHEAD = 4096


def frame(rows: Iterable[tuple[int, int, bytes]]) -> bytes:
    """What the digest is taken over."""
    pack = _FRAME.pack
    return b"".join([part for row, at, body in rows for part in (pack(row, at, len(body)), body)])


class JournalReader:
    """A journal opened for reading.

    Args:
        path: the journal's file.

    Raises:
        StoreError: if there is none, it is corrupt, or another version wrote it.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._connection = open_database(path, SCHEMA, read_only=True)
        self._prepare()

    def _prepare(self) -> None:
        self._hash = hashlib.sha256()
        self._hashed = 0  # rows the running hash covers

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def __len__(self) -> int:
        with sqlite_errors(self._path, "journal"):
            return int(self._connection.execute("SELECT coalesce(max(row), 0) FROM step").fetchone()[0])

    @property
    def header(self) -> dict[str, str]:
        """What the run was started with: run id, configuration hash, data fingerprint, seed, code version."""
        with sqlite_errors(self._path, "journal"):
            return dict(self._connection.execute("SELECT key, value FROM header ORDER BY key").fetchall())

    def raw(self, start: int = 1, stop: int | None = None) -> Iterator[tuple[int, int, bytes]]:
        """Row, time and uncompressed body of rows `start` (inclusive) to `stop` (exclusive; all if None), oldest first.

        Raises:
            StoreError: if a row is missing or unreadable.
        """
        self._settle()
        expected, end = max(start, 1), len(self) + 1 if stop is None else min(stop, len(self) + 1)
        while expected < end:
            with sqlite_errors(self._path, "journal"):
                block = self._connection.execute(
                    "SELECT row, at, body FROM step WHERE row >= ? AND row < ? ORDER BY row LIMIT ?", (expected, end, _READ_AHEAD)
                ).fetchall()
            for row, at, body in block:
                if row != expected:
                    break
                yield row, at, self._plain(row, body)
                expected += 1
            if not block or block[-1][0] != expected - 1:
                raise self._damaged(expected, "the row is missing")

    def rows(self, start: int = 1, stop: int | None = None) -> Iterator[tuple[int, int, list[Travelling]]]:
        """Row, time and values of rows `start` (inclusive) to `stop` (exclusive; all if None), oldest first."""
        for row, at, body in self.raw(start, stop):
            yield row, at, self._decode(row, body)

    def read(self, row: int) -> tuple[int, list[Travelling]]:
        """Time and values of one row.

        Raises:
            StoreError: if the journal has no such row.
        """
        self._settle()
        with sqlite_errors(self._path, "journal"):
            found = self._connection.execute("SELECT at, body FROM step WHERE row = ?", (row,)).fetchone()
        if found is None:
            raise StoreError(f"the journal {self._path} has no row {row}: it holds 1 to {len(self)}")
        return int(found[0]), self._decode(row, self._plain(row, found[1]))

    def get(self, event: int) -> Travelling:
        """The value with this event id.

        Raises:
            StoreError: if the journal has no such event.
        """
        row, index = split_event_id(event)
        _, values = self.read(row)
        if index >= len(values):
            raise StoreError(f"the journal {self._path} has no event {format_event_id(event)}: row {row} holds {len(values)} values")
        return values[index]

    def find(self, kind: type[Kind], *, client_id: str | None = None, trade_id: str | None = None) -> Iterator[tuple[int, Kind]]:
        """Event id and value of everything of one kind, newest first.

        `client_id` narrows to an order or to the fills of an order, `trade_id` to a fill; both use an index, all else reads the journal
        from its end.

        Raises:
            ConfigError: if values of this kind carry no such id.
        """
        if (client_id is not None and kind not in (Order, Fill)) or (trade_id is not None and kind is not Fill):
            raise ConfigError(f"a {kind.__name__} has no such id: only orders and fills have a client id, only fills a trade id")
        self._settle()
        if client_id is None and trade_id is None:
            yield from self._scan(kind)
            return
        with sqlite_errors(self._path, "journal"):
            found = self._connection.execute(
                "SELECT event FROM ident WHERE kind = ? AND (? IS NULL OR client_id = ?) AND (? IS NULL OR ident = ?) ORDER BY event DESC",
                (kind.__name__, client_id, client_id, trade_id, trade_id),
            ).fetchall()
        for (event,) in found:
            value = self.get(event)
            if isinstance(value, kind):
                yield event, value

    def digest(self) -> str:
        """sha256 over every row, in order; equal for equal runs, whatever the size of commits."""
        self._settle()
        block: list[tuple[int, int, bytes]] = []
        for item in self.raw(self._hashed + 1):
            block.append(item)
            if len(block) == _READ_AHEAD:
                self._absorb(block)
                block = []
        self._absorb(block)
        return self._hash.hexdigest()

    def _absorb(self, rows: list[tuple[int, int, bytes]]) -> None:
        self._hash.update(frame(rows))
        self._hashed += len(rows)

    def _settle(self) -> None:
        """Make everything appended readable; nothing to do for a reader."""

    def _scan(self, kind: type[Kind]) -> Iterator[tuple[int, Kind]]:
        for row in range(len(self), 0, -1):
            _, values = self.read(row)
            for index in range(len(values) - 1, -1, -1):
                value = values[index]
                if isinstance(value, kind):
                    yield event_id(row, index), value

    def _plain(self, row: int, body: bytes) -> bytes:
        if body[:1] != b"\x78":
            return body
        try:
            return zlib.decompress(body)
        except zlib.error as error:
            raise self._damaged(row, str(error)) from error

    def _decode(self, row: int, body: bytes) -> list[Travelling]:
        try:
            return _DECODER.decode(body)
        except msgspec.DecodeError as error:
            raise self._damaged(row, str(error)) from error

    def _damaged(self, row: int, why: str) -> StoreError:
        return StoreError(
            f"row {row} of the journal {self._path} is damaged: {why}",
            hint="keep the file for analysis, restore it from a backup, or start a new run",
        )
