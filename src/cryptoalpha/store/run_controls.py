"""What the one process that writes a journal does with the controls of its run (`store.controls`): take them, note where, obey them.

They are taken at two places of a step: before its bar reaches the broker, and in the transaction that writes its row. While a kill stands
that transaction refuses a row with an order that enters, whoever let it through. A kill that came as a file after the transaction had
looked is such a case: the row is not written, the engine ends with `RiskHaltError`, and takes the kill when it is started again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryptoalpha.core.errors import RiskHaltError
from cryptoalpha.core.time import iso
from cryptoalpha.core.values import Order, Travelling
from cryptoalpha.store.controls import OWN, STANDING, TABLE, Control
from cryptoalpha.store.kill_files import KillFile, kill_files, one_line, read_kill_files
from cryptoalpha.store.sqlite import sqlite_errors

_COLUMNS = "id, at, kind, author, reason, flatten"


class RunControls:
    """What the one process that writes a journal does with the controls of its run.

    Args:
        connection: the journal's own; what is written goes into the caller's transaction.
        path: the journal.
        stored: rows the journal holds; controls taken in them come back while they are replayed.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path, stored: int) -> None:
        self._connection, self._path = connection, path
        self._replayed: dict[tuple[int, bool], list[Control]] = {}
        self._early: tuple[Control, ...] = ()
        self._late: tuple[Control, ...] = ()
        self._trips: list[Control] = []
        self._settled = False
        self._absorbed: list[KillFile] = []
        with sqlite_errors(path, "journal"):
            connection.execute(TABLE)
            taken = connection.execute(
                f"SELECT taken_row, early, {_COLUMNS} FROM control WHERE early IS NOT NULL AND taken_row <= ? ORDER BY id", (stored,)
            ).fetchall()
        for row, early, *columns in taken:
            self._replayed.setdefault((row, bool(early)), []).append(_control(columns))

    def replayed(self, row: int, *, early: bool) -> tuple[Control, ...]:
        """What a stored row took at that place."""
        return tuple(self._replayed.get((row, early), ()))

    def take_early(self) -> tuple[Control, ...]:
        """What waits now, files included; noted as taken when the row is written."""
        if kill_files(self._path):
            with sqlite_errors(self._path, "journal"), _transaction(self._connection):
                self._absorb()
            self._remove_absorbed()
        with sqlite_errors(self._path, "journal"):
            self._early = self._waiting()
        return self._early

    def take_late(self) -> tuple[Control, ...]:
        """What came since `take_early`; inside the transaction that writes the row."""
        self._absorb()
        seen = {control.id for control in self._early}
        self._late = tuple(control for control in self._waiting() if control.id not in seen)
        return self._late

    def trip(self, at: int, reason: str, *, flatten: bool) -> None:
        """The run's own limits tripped the switch; written with the row."""
        self._trips.append(Control(0, at, "kill", OWN, one_line(reason.removeprefix(f"by {OWN}: ")), flatten))  # the author stands apart

    def settle(self) -> None:
        """The row in the making says that every kill it knows of is carried out."""
        self._settled = True

    def write(self, row: int, values: Sequence[Travelling]) -> None:
        """Note what this row took, inside its transaction.

        Args:
            values: orders of the row, at least.

        Raises:
            RiskHaltError: if a kill stands and there is an order that does not only reduce a position.
        """
        execute = self._connection.execute
        for control in (*self._early, *self._late):
            execute("UPDATE control SET taken_row = ?, early = ? WHERE id = ?", (row, control in self._early, control.id))
        for trip in self._trips:
            execute(
                "INSERT INTO control (at, kind, author, reason, flatten, taken_row) VALUES (?, 'kill', ?, ?, ?, ?)",
                (trip.at, trip.by, trip.reason, trip.flatten, row),
            )
        if self._settled:
            execute("UPDATE control SET settled_row = ? WHERE kind = 'kill' AND settled_row IS NULL AND taken_row IS NOT NULL", (row,))
        entry = next((value for value in values if isinstance(value, Order) and not value.reduce_only), None)
        if entry is None:
            return
        standing = execute(f"SELECT author, at, reason FROM control WHERE {STANDING} ORDER BY id").fetchone()
        hint = "the journal takes only orders that reduce a position until a person resumes the run"
        if standing is None:
            hint = "start `cryptoalpha trade` again: its first new step takes the kill, cancels what is pending and closes what it asks for"
            late = [file for file in read_kill_files(self._path) if not self._knows(file.token)]  # left while this transaction was open
            standing = (late[0].by, late[0].at, late[0].reason) if late else None
        if standing is not None:
            author, at, reason = standing
            raise RiskHaltError(
                f"order {entry.client_id} would enter {entry.instrument} while the run is killed by {author} since {iso(at)}: {reason}",
                hint=hint,
            )

    def written(self) -> None:
        """The row is on the disk."""
        self._remove_absorbed()
        self.forget()

    def forget(self) -> None:
        """The row is not written: nothing of it was taken."""
        self._early = self._late = ()
        self._trips.clear()
        self._absorbed.clear()
        self._settled = False

    def _knows(self, token: str) -> bool:
        return self._connection.execute("SELECT 1 FROM control WHERE token = ?", (token,)).fetchone() is not None

    def _waiting(self) -> tuple[Control, ...]:
        found = self._connection.execute(f"SELECT {_COLUMNS} FROM control WHERE taken_row IS NULL ORDER BY id").fetchall()
        return tuple(map(_control, found))

    def _absorb(self) -> None:
        """Move files that stand for a kill into the table, inside a transaction; they are removed once it is committed."""
        for file in read_kill_files(self._path):
            self._connection.execute(
                "INSERT OR IGNORE INTO control (at, kind, author, reason, flatten, token) VALUES (?, 'kill', ?, ?, ?, ?)",
                (file.at, file.by, file.reason, file.flatten, file.token),
            )
            self._absorbed.append(file)

    def _remove_absorbed(self) -> None:
        for file in self._absorbed:
            file.remove()
        self._absorbed.clear()


def _control(columns: Sequence[Any]) -> Control:
    """A control from the columns that `_COLUMNS` names."""
    number, at, kind, by, reason, flatten = columns
    return Control(number, at, kind, by, reason, bool(flatten))


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
