"""Reading a journal: every value of a run, in order, by row, by event id or by the id of an order or fill.

A reader opens the file read-only and works beside an active writer; it sees whole rows that were committed, never half of one.

Rows count from 1. A row holds the values of one engine step: a frame of row, time, length and the values as a msgpack list. The file
keeps frames in blocks, one SQLite row each: as many as were committed together, in a durable journal one. The digest is sha256 over all
frames, uncompressed, so neither compression nor the size of blocks changes it.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
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
    version=2,
    statements=(
        "CREATE TABLE header (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
        # rows `first` to `last` without a gap; `body` is their frames, where `packed` is 1 as a zlib stream
        "CREATE TABLE block (first INTEGER PRIMARY KEY, last INTEGER NOT NULL, packed INTEGER NOT NULL, body BLOB NOT NULL)",
        # `ident` is an order's client id or a fill's trade id; `scope` is the fill's instrument (venues number trades per instrument)
        "CREATE TABLE ident (kind TEXT, ident TEXT, scope TEXT, client_id TEXT NOT NULL, event INTEGER NOT NULL,"
        " PRIMARY KEY (kind, ident, scope)) WITHOUT ROWID",
        "CREATE INDEX ident_by_client ON ident (client_id)",
    ),
)

Kind = TypeVar("Kind", bound=Travelling)
TRAVELLING: tuple[type[Travelling], ...] = get_args(Travelling)
_DECODER = msgspec.msgpack.Decoder(list[Travelling])
FRAME = struct.Struct("<qqI")
"""What stands before a row's values: row, time, bytes that follow."""
_READ_AHEAD = 16  # blocks


@dataclass(frozen=True)
class _Block:
    """Rows `first` to `last`, and where each begins and ends in `frames` with its time."""

    first: int
    last: int
    frames: bytes
    places: tuple[tuple[int, int, int], ...]

    def row(self, row: int) -> tuple[int, bytes]:
        at, start, stop = self.places[row - self.first]
        return at, self.frames[start:stop]


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
        self._hashed = 0  # rows the running hash covers: always whole blocks
        self._block: _Block | None = None  # the one read last: rows are mostly asked for together

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def __len__(self) -> int:
        with sqlite_errors(self._path, "journal"):
            return int(
                self._connection.execute(
                    "SELECT coalesce(max(last), 0) FROM (SELECT last FROM block ORDER BY first DESC LIMIT 1)"
                ).fetchone()[0]
            )

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
        begin, end = max(start, 1), len(self) + 1 if stop is None else min(stop, len(self) + 1)
        for first, last, frames in self._blocks(begin, end):
            block = self._index(first, last, frames)
            for row in range(max(first, begin), min(last + 1, end)):
                yield (row, *block.row(row))

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
        at, body = self._row(row)
        return at, self._decode(row, body)

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
        for _, last, frames in self._blocks(self._hashed + 1, len(self) + 1):
            self._absorb(last, frames)
        return self._hash.hexdigest()

    def _absorb(self, last: int, frames: bytes) -> None:
        self._hash.update(frames)
        self._hashed = last

    def _settle(self) -> None:
        """Make everything appended readable; nothing to do for a reader."""

    def _scan(self, kind: type[Kind]) -> Iterator[tuple[int, Kind]]:
        for row in range(len(self), 0, -1):
            _, values = self.read(row)
            for index in range(len(values) - 1, -1, -1):
                value = values[index]
                if isinstance(value, kind):
                    yield event_id(row, index), value

    def _blocks(self, start: int, stop: int) -> Iterator[tuple[int, int, bytes]]:
        """First row, last row and frames of the blocks that hold rows `start` (inclusive) to `stop` (exclusive).

        Raises:
            StoreError: if rows are missing or unreadable.
        """
        expected = start
        while expected < stop:
            with sqlite_errors(self._path, "journal"):
                found = self._connection.execute(
                    "SELECT first, last, packed, body FROM block WHERE last >= ? AND first < ?"
                    " AND first >= (SELECT coalesce(max(first), 1) FROM block WHERE first <= ?) ORDER BY first LIMIT ?",
                    (expected, stop, expected, _READ_AHEAD),
                ).fetchall()
            for first, last, packed, body in found:
                if first > expected or (first < expected and expected != start):
                    raise self._damaged(min(first, expected), "the row is missing" if first > expected else "the row is there twice")
                yield first, last, self._unpack(first, last, body) if packed else body
                expected = last + 1
            if not found:
                raise self._damaged(expected, "the row is missing")

    def _row(self, row: int) -> tuple[int, bytes]:
        """Time and encoded values of a committed row."""
        if self._block is None or not self._block.first <= row <= self._block.last:
            if not 1 <= row <= (stored := JournalReader.__len__(self)):
                raise StoreError(f"the journal {self._path} has no row {row}: it holds 1 to {stored}")
            self._block = self._index(*next(self._blocks(row, row + 1)))
        return self._block.row(row)

    def _index(self, first: int, last: int, frames: bytes) -> _Block:
        """Find the rows in a block.

        Raises:
            StoreError: if they are not the rows it should hold.
        """
        places, start = [], 0
        try:
            for expected in range(first, last + 1):
                row, at, size = FRAME.unpack_from(frames, start)
                if row != expected:
                    raise self._damaged(expected, f"it says it is row {row}")
                start += FRAME.size + size
                places.append((at, start - size, start))
        except struct.error as error:
            raise self._damaged(first + len(places), str(error)) from error
        if start != len(frames):
            raise self._damaged(last, f"its block has {len(frames)} bytes, its rows {start}")
        return _Block(first, last, frames, tuple(places))

    def _unpack(self, first: int, last: int, body: bytes) -> bytes:
        try:
            return zlib.decompress(body)
        except zlib.error as error:
            raise self._damaged(first, f"its block, rows {first} to {last}: {error}") from error

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
