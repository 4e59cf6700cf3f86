"""The book of alerts: which stand, and what was done about them. One SQLite file, committed with `synchronous=FULL`.

    standing    alerts that fire now: since when, when last told
    deed        what was decided: kind (scale | relax | retrain), for which alert and which of its episodes, the target, how it ended

A deed is written as begun before it is done and as ended after it. One killed between the two is found begun and done again with the same
target; so deeds must stand being done twice, and they do: a number of replicas is set, not added to, and a proposal is one row however
often it comes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from cryptoalpha.lifecycle.alerts.notices import Notice
from cryptoalpha.store.sqlite import Schema, open_database, sqlite_errors

BOOK = Path("lifecycle") / "alerts.sqlite"
"""Where the book lies in the store's home."""

SCHEMA = Schema(
    name="book of alerts",
    application_id=0x6361_616C,  # "caal"
    version=1,
    statements=(
        "CREATE TABLE standing (fingerprint TEXT PRIMARY KEY, alert TEXT NOT NULL, labels TEXT NOT NULL, begun_at INTEGER NOT NULL, "
        "seen_at INTEGER NOT NULL) WITHOUT ROWID",
        "CREATE TABLE deed (number INTEGER PRIMARY KEY, kind TEXT NOT NULL, alert TEXT NOT NULL, fingerprint TEXT NOT NULL, "
        "begun_at INTEGER NOT NULL, at INTEGER NOT NULL, target INTEGER, state TEXT NOT NULL, words TEXT NOT NULL, ended_at INTEGER)",
        "CREATE INDEX deeds_of_kind ON deed (kind, at)",
    ),
)
LONGEST_WORDS = 2_000

Kind = Literal["scale", "relax", "retrain"]
State = Literal["begun", "done", "failed"]


@dataclass(frozen=True)
class Deed:
    """Something done about an alert. `begun_at` is when the alert began, `at` when this was decided, both UTC ns; `target` are replicas."""

    number: int
    kind: str
    alert: str
    fingerprint: str
    begun_at: int
    at: int
    target: int | None
    state: str
    words: str


class AlertBook:
    """Open on one file; every call is a transaction, so several processes may use it. Raises `StoreError` if it cannot."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def hear(self, notice: Notice, at: int) -> None:
        """Note that an alert fires, or that it is over."""
        with self.transaction() as connection:
            if notice.state == "resolved":
                connection.execute("DELETE FROM standing WHERE fingerprint = ?", (notice.fingerprint,))
                return
            labels = msgspec.json.encode(dict(sorted(notice.labels.items()))).decode()
            connection.execute(
                "INSERT INTO standing VALUES (?, ?, ?, ?, ?) ON CONFLICT (fingerprint) DO UPDATE SET begun_at = excluded.begun_at, "
                "seen_at = max(seen_at, excluded.seen_at)",
                (notice.fingerprint, notice.alert, labels, notice.begun_at, at),
            )

    def standing(self, since: int = 0) -> tuple[str, ...]:
        """Names of the alerts that stand and were told at or after `since`, one for each fingerprint."""
        with self.transaction() as connection:
            return tuple(row[0] for row in connection.execute("SELECT alert FROM standing WHERE seen_at >= ? ORDER BY alert", (since,)))

    def newest(self, connection: sqlite3.Connection, kinds: tuple[Kind, ...], alert: str | None = None) -> Deed | None:
        """The last deed of these kinds that did not fail; with `alert`, about that alert."""
        found = _deeds(
            connection,
            f"kind IN ({', '.join('?' * len(kinds))}) AND state != 'failed' AND (? IS NULL OR alert = ?) ORDER BY number DESC LIMIT 1",
            (*kinds, alert, alert),
        )
        return found[0] if found else None

    def begin(self, connection: sqlite3.Connection, kind: Kind, notice: Notice, at: int, target: int | None, words: str) -> Deed:
        """Write down what is about to be done; inside `transaction`, with what it was decided on."""
        done = connection.execute(
            "INSERT INTO deed (kind, alert, fingerprint, begun_at, at, target, state, words) VALUES (?, ?, ?, ?, ?, ?, 'begun', ?)",
            (kind, notice.alert, notice.fingerprint, notice.begun_at, at, target, words[:LONGEST_WORDS]),
        )
        assert done.lastrowid is not None
        return Deed(done.lastrowid, kind, notice.alert, notice.fingerprint, notice.begun_at, at, target, "begun", words[:LONGEST_WORDS])

    def end(self, deed: Deed, state: State, at: int, words: str) -> Deed:
        """Write down how it ended."""
        with self.transaction() as connection:
            connection.execute(
                "UPDATE deed SET state = ?, words = ?, ended_at = ? WHERE number = ?", (state, words[:LONGEST_WORDS], at, deed.number)
            )
            (found,) = _deeds(connection, "number = ?", (deed.number,))
            return found

    def unfinished(self) -> tuple[Deed, ...]:
        """Deeds that were begun and neither done nor failed, the oldest first."""
        with self.transaction() as connection:
            return _deeds(connection, "state = 'begun' ORDER BY number", ())

    def deeds(self) -> tuple[Deed, ...]:
        """All deeds, the oldest first."""
        with self.transaction() as connection:
            return _deeds(connection, "true ORDER BY number", ())

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All of the block is kept, or nothing of it; others wait."""
        connection = open_database(self._path, SCHEMA, durable=True)
        try:
            with sqlite_errors(self._path, SCHEMA.name):
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield connection
                except BaseException:
                    connection.execute("ROLLBACK")
                    raise
                connection.execute("COMMIT")
        finally:
            connection.close()


def _deeds(connection: sqlite3.Connection, where: str, values: tuple[object, ...]) -> tuple[Deed, ...]:
    columns = "number, kind, alert, fingerprint, begun_at, at, target, state, words"
    return tuple(Deed(*row) for row in connection.execute(f"SELECT {columns} FROM deed WHERE {where}", values))
