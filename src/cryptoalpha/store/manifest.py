"""The manifest: which partitions the history holds, their hashes, and what each venue allows per instrument.

SQLite in WAL mode with `synchronous=FULL`. A partition is first `pending`, then `current`; the hash it had before is remembered, so that a
journal's reference to it can still be explained after newer bars were added.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from cryptoalpha.core.errors import StoreError
from cryptoalpha.core.values import InstrumentRules
from cryptoalpha.store.partition import Partition, Series
from cryptoalpha.store.sqlite import Schema, open_database, sqlite_errors

SCHEMA = Schema(
    name="manifest",
    application_id=0x6361_6D31,  # "cam1"
    version=1,
    statements=(
        "CREATE TABLE partition (state TEXT, path TEXT, kind TEXT NOT NULL, source TEXT NOT NULL, subject TEXT NOT NULL,"
        " metric TEXT NOT NULL, interval INTEGER NOT NULL, sha256 TEXT NOT NULL, rows INTEGER NOT NULL, first INTEGER NOT NULL,"
        " last INTEGER NOT NULL, origin TEXT NOT NULL, simulated INTEGER NOT NULL, written_by TEXT NOT NULL,"
        " PRIMARY KEY (state, path)) WITHOUT ROWID",
        "CREATE TABLE former (sha256 TEXT PRIMARY KEY, path TEXT NOT NULL) WITHOUT ROWID",
        "CREATE TABLE rules (venue TEXT, instrument TEXT, body BLOB NOT NULL, PRIMARY KEY (venue, instrument)) WITHOUT ROWID",
    ),
)
_FIELDS = "path, kind, source, subject, metric, interval, sha256, rows, first, last, origin, simulated, written_by"
_RULES = msgspec.json.Decoder(InstrumentRules)


class Manifest:
    """The manifest of one store.

    Args:
        path: `manifest.sqlite` of the store; created if absent.

    Raises:
        StoreError: if it cannot be written or is corrupt.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = open_database(path, SCHEMA, durable=True)

    def close(self) -> None:
        self._connection.close()

    def current(self) -> list[Partition]:
        """All partitions in place, by path."""
        return self._partitions("current")

    def pending(self) -> list[Partition]:
        """Partitions whose writer was interrupted, or is at work."""
        return self._partitions("pending")

    def intend(self, partition: Partition) -> None:
        """Note what is about to be put in place."""
        self._change([("INSERT OR REPLACE INTO partition VALUES ('pending', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", _row(partition))])

    def settle(self, path: str) -> None:
        """The pending file is in place: make it the current one."""
        self._change(
            [
                ("INSERT OR REPLACE INTO former SELECT sha256, path FROM partition WHERE state = 'current' AND path = ?", (path,)),
                ("DELETE FROM partition WHERE state = 'current' AND path = ?", (path,)),
                ("UPDATE partition SET state = 'current' WHERE state = 'pending' AND path = ?", (path,)),
            ]
        )

    def forget_intent(self, path: str) -> None:
        """The pending file never came to its place."""
        self._change([("DELETE FROM partition WHERE state = 'pending' AND path = ?", (path,))])

    def locate(self, short_hash: str) -> tuple[str, bool] | None:
        """Path of the partition with this hash (16 hex digits or more), and whether the file still has it; None if unknown."""
        with sqlite_errors(self._path, "manifest"):
            row = self._connection.execute(
                "SELECT path, 1 FROM partition WHERE state = 'current' AND sha256 GLOB ? || '*'"
                " UNION ALL SELECT path, 0 FROM former WHERE sha256 GLOB ? || '*' LIMIT 1",
                (short_hash, short_hash),
            ).fetchone()
        return None if row is None else (row[0], bool(row[1]))

    def put_rules(self, rules: Iterable[InstrumentRules]) -> None:
        """Remember what venues allow; newer rules replace older ones."""
        rows = [(rule.venue, rule.instrument, msgspec.json.encode(rule)) for rule in rules]
        self._change([("INSERT OR REPLACE INTO rules VALUES (?, ?, ?)", row) for row in rows])

    def rules(self, venue: str) -> dict[str, InstrumentRules]:
        """What one venue allows, by instrument."""
        with sqlite_errors(self._path, "manifest"):
            found = self._connection.execute("SELECT instrument, body FROM rules WHERE venue = ? ORDER BY instrument", (venue,)).fetchall()
        try:
            return {instrument: _RULES.decode(body) for instrument, body in found}
        except msgspec.DecodeError as error:
            raise StoreError(
                f"{self._path}: the rules of {venue} are damaged: {error}", hint="`cryptoalpha data fetch` renews them"
            ) from error

    def _partitions(self, state: str) -> list[Partition]:
        with sqlite_errors(self._path, "manifest"):
            rows = self._connection.execute(f"SELECT {_FIELDS} FROM partition WHERE state = ? ORDER BY path", (state,)).fetchall()
        return [_partition(row) for row in rows]

    def _change(self, statements: list[tuple[str, tuple[Any, ...]]]) -> None:
        with sqlite_errors(self._path, "manifest"):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                for statement, values in statements:
                    self._connection.execute(statement, values)
                self._connection.execute("COMMIT")
            except sqlite3.Error:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise


def _row(partition: Partition) -> tuple[Any, ...]:
    series = partition.series
    return (
        partition.path,
        series.kind,
        series.source,
        series.subject,
        series.metric,
        series.interval,
        partition.sha256,
        partition.rows,
        partition.first,
        partition.last,
        partition.origin,
        int(partition.simulated),
        partition.written_by,
    )


def _partition(row: tuple[Any, ...]) -> Partition:
    path, kind, source, subject, metric, interval, sha256, rows, first, last, origin, simulated, written_by = row
    series = Series(kind, source, subject, metric, interval)
    return Partition(series, path, sha256, rows, first, last, origin, bool(simulated), written_by)
