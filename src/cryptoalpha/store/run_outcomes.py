"""What the one process that writes a journal does with the inbox of its run (`store.order_ledger`): take it, and note in which row.

Outcomes are taken once per row, before the row's bar is looked at, and marked with the row in the transaction that writes it. A row that
was not written took nothing: its outcomes wait for the next one. A replay is given what the stored row took, in the same order.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from cryptoalpha.core.values import Travelling
from cryptoalpha.store.order_ledger import INBOX, decode_outcome
from cryptoalpha.store.sqlite import sqlite_errors


class RunOutcomes:
    """What the one process that writes a journal does with the inbox of its run.

    Args:
        connection: the journal's own; what is written goes into the caller's transaction.
        path: the journal.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection, self._path = connection, path
        self._is_ready = False
        self._taken: list[tuple[int, Travelling]] | None = None  # number and value; None: the row in the making has not asked

    def replayed(self, row: int) -> tuple[Travelling, ...]:
        """What a stored row took."""
        return tuple(value for _, value in self._select("taken_row = ?", row))

    def take(self) -> tuple[Travelling, ...]:
        """What waits now; noted as taken when the row is written. Asked again before that, the same."""
        if self._taken is None:
            self._taken = self._select("taken_row IS NULL")
        return tuple(value for _, value in self._taken)

    def waits(self) -> bool:
        """Whether something waits that `take` has not given out yet. Takes nothing."""
        self._prepare()
        with sqlite_errors(self._path, "journal"):
            found = self._connection.execute("SELECT count(*) FROM venue_event WHERE taken_row IS NULL").fetchone()[0]
        return int(found) > len(self._taken or ())

    def write(self, row: int) -> None:
        """Note what this row took, inside its transaction."""
        if self._taken:
            self._connection.executemany("UPDATE venue_event SET taken_row = ? WHERE id = ?", [(row, number) for number, _ in self._taken])

    def forget(self) -> None:
        """The row is on the disk, or is not written: the next one asks anew."""
        self._taken = None

    def _prepare(self) -> None:
        """Make the tables; not before somebody asks: only runs at a venue have an inbox."""
        if self._is_ready:
            return
        with sqlite_errors(self._path, "journal"):
            for statement in INBOX:
                self._connection.execute(statement)
        self._is_ready = True

    def _select(self, where: str, *arguments: int) -> list[tuple[int, Travelling]]:
        self._prepare()
        with sqlite_errors(self._path, "journal"):
            found = self._connection.execute(f"SELECT id, body FROM venue_event WHERE {where} ORDER BY id", arguments).fetchall()
        return [(number, decode_outcome(body)) for number, body in found]
