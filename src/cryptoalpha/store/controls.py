"""Kill and resume across processes: what people ask of a run, kept in the run's own journal file.

Any process may ask, at any time, whether the run's engine works, hangs or is stopped: `request_control` takes no lock of the store and
waits a few seconds at most. The engine takes what was asked at two places of a step (`Journal.controls`, `Journal.turn`) and notes where,
so that a replay takes it at the same places again. What is asked is committed with `synchronous=FULL` before anybody acts on it.

A kill that cannot be written because the database stays locked (its writer was stopped in the middle of a transaction) goes into a file
beside the journal, `journal.sqlite.kill-…`; the engine moves it into the table at its next step. One row whose commit was under way may
then still appear, with an entry that the next step cancels before a bar can fill it. Any file of such a name is a kill, whatever is in
it, so `touch journal.sqlite.kill` does as well.

    id           order in which controls hold; a kill stands until a resume of a higher id
    at           when it was asked for, UTC ns, by the clock of who asked
    kind         kill | resume; author, reason: who and why (`risk`: a limit of the run itself); flatten: close everything
    taken_row    journal row of the step that took it; NULL until then
    early        1: taken before the bar reached the broker, 0: in the turn, NULL: the run's own
    settled_row  journal row by which a kill was carried out
    token        file it came in

Old journals have no such table; it is made when somebody writes, and readers take its absence for "nothing was ever asked".
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from cryptoalpha.core.errors import ConfigError, RiskHaltError, StoreError
from cryptoalpha.core.time import iso
from cryptoalpha.core.values import Order, Travelling
from cryptoalpha.store.journal_reader import SCHEMA
from cryptoalpha.store.sqlite import open_database, sqlite_errors
from cryptoalpha.store.whole_file import write_whole

Kind = Literal["kill", "resume"]
Mode = Literal["armed", "requested", "tripping", "tripped"]

PATIENCE_SECONDS = 3.0
"""How long a request waits for another process's transaction; one takes a few milliseconds."""
OWN = "risk"
"""Author of the kills that the run's own limits set off."""

_TABLE = (
    "CREATE TABLE IF NOT EXISTS control (id INTEGER PRIMARY KEY, at INTEGER NOT NULL, kind TEXT NOT NULL, author TEXT NOT NULL,"
    " reason TEXT NOT NULL, flatten INTEGER NOT NULL, taken_row INTEGER, early INTEGER, settled_row INTEGER, token TEXT UNIQUE)"
)
_COLUMNS = "id, at, kind, author, reason, flatten"
_STANDING = "kind = 'kill' AND id > (SELECT coalesce(max(id), 0) FROM control WHERE kind = 'resume')"
_RETRY_SECONDS = 0.001
_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})


@dataclass(frozen=True)
class Control:
    """One thing asked of a run. `id` is 0 while it waits in a file."""

    id: int
    at: int
    kind: Kind
    by: str
    reason: str
    flatten: bool


@dataclass(frozen=True)
class ControlState:
    """Whether a run is killed. The fields after `mode` speak of the first kill that stands; `flatten` of all of them.

    `requested`: no step has taken a kill yet; `tripping`: taken, cancels or closings are not confirmed; `tripped`: all carried out.
    """

    mode: Mode
    at: int | None = None
    by: str = ""
    reason: str = ""
    flatten: bool = False
    taken_row: int | None = None
    kills: int = 0
    """How many kills stand."""

    @property
    def stands(self) -> bool:
        """Whether entries are forbidden."""
        return self.mode != "armed"


ARMED = ControlState("armed")


class _FlagFile(msgspec.Struct):
    """What is in a file that stands for a kill."""

    at: int
    by: str
    reason: str
    flatten: bool


def request_control(
    path: Path,
    kind: Kind,
    *,
    by: str,
    reason: str,
    at: int,
    flatten: bool = False,
    patience_seconds: float = PATIENCE_SECONDS,
) -> Control:
    """Ask a run to stop entering, or to go on. Returns once that will survive a power cut.

    Args:
        path: the run's journal.
        at: now, UTC ns.
        flatten: of a kill: close everything as well.
        patience_seconds: how long to wait while another process writes. After that a kill goes into a file beside the journal.

    Raises:
        StoreError: if the journal is not there, is unreadable or (for a resume) stays locked.
        ConfigError: for a resume where nothing is killed.
        RiskHaltError: for a resume while a kill is not carried out yet.
    """
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            return _request(path, Control(0, at, kind, by, reason, flatten))
        except StoreError as error:
            if not _is_busy(error):
                raise
            if time.monotonic() < deadline:
                time.sleep(_RETRY_SECONDS)
            elif kind == "resume":
                raise StoreError(
                    f"the journal {path} was locked by another process for {patience_seconds:g} s: nothing was changed",
                    hint="find out why its engine hangs, end it, then ask again",
                ) from error
            else:
                return _leave_flag(path, Control(0, at, kind, by, reason, flatten))


def control_state(path: Path) -> ControlState:
    """Whether the run of this journal is killed; reads only, works beside the engine.

    Raises:
        StoreError: if the journal cannot be read. Nothing may be traded on it then.
    """
    flags = _read_flags(path)  # first: the engine writes to the table before it removes them
    connection = open_database(path, SCHEMA, read_only=True)
    try:
        with sqlite_errors(path, "journal"):
            connection.execute("BEGIN")  # one moment for all that is read
            return _state(connection, flags)
    finally:
        connection.close()


def _request(path: Path, asked: Control) -> Control:
    """One attempt at writing it; waits for nobody."""
    if not path.is_file():
        raise StoreError(f"no journal at {path}", hint="`cryptoalpha status` lists the runs of the store")
    connection = open_database(path, SCHEMA, durable=True, patience_seconds=0.0)
    try:
        with sqlite_errors(path, "journal"):
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(_TABLE)
            if asked.kind == "resume":
                _demand_tripped(_state(connection, _read_flags(path)))
            row = (asked.at, asked.kind, asked.by, asked.reason, asked.flatten)
            made = connection.execute("INSERT INTO control (at, kind, author, reason, flatten) VALUES (?, ?, ?, ?, ?)", row)
            connection.execute("COMMIT")
        return Control(int(made.lastrowid or 0), asked.at, asked.kind, asked.by, asked.reason, asked.flatten)
    finally:
        connection.close()  # what was not committed is rolled back


def _demand_tripped(state: ControlState) -> None:
    if not state.stands:
        raise ConfigError("there is nothing to resume: the run is not killed", hint="`cryptoalpha status` shows which runs are")
    if state.mode != "tripped":
        waiting = "no step of the run has taken it yet" if state.mode == "requested" else "cancels or closings are not confirmed yet"
        raise RiskHaltError(
            f"the kill by {state.by} is not carried out: {waiting}",
            hint="let `cryptoalpha trade` run until it says that the kill switch is tripped, then resume",
        )


def _state(connection: sqlite3.Connection, flags: Sequence[tuple[str, Control]]) -> ControlState:
    kills: list[tuple[int, str, str, int, int | None, int | None]] = []
    known: set[str] = set()
    if connection.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'control'").fetchone()[0]:
        kills = connection.execute(
            f"SELECT at, author, reason, flatten, taken_row, settled_row FROM control WHERE {_STANDING} ORDER BY id"
        ).fetchall()
        known = {token for (token,) in connection.execute("SELECT token FROM control WHERE token IS NOT NULL")}
    kills += [(kill.at, kill.by, kill.reason, kill.flatten, None, None) for token, kill in flags if token not in known]
    if not kills:
        return ARMED
    mode: Mode = "tripped"
    if any(settled is None for *_, settled in kills):
        mode = "requested" if all(taken is None for *_, taken, _ in kills) else "tripping"
    at, by, reason, _, taken_row, _ = kills[0]
    return ControlState(mode, at, by, reason, any(kill[3] for kill in kills), taken_row, len(kills))


def _is_busy(error: StoreError) -> bool:
    cause = error.__cause__
    return isinstance(cause, sqlite3.OperationalError) and cause.sqlite_errorcode & 0xFF in _BUSY


# ── files that stand for a kill ───────────────────────────────────────────────────────────────────────────────────────────────────


def _leave_flag(path: Path, kill: Control) -> Control:
    place = path.with_name(f"{path.name}.kill-{kill.at}-{os.getpid()}")
    write_whole(place, msgspec.json.encode(_FlagFile(kill.at, kill.by, kill.reason, kill.flatten)))
    return kill


def _flags(path: Path) -> list[Path]:
    """Files beside the journal that stand for a kill, oldest name first."""
    start = f"{path.name}.kill"
    with suppress(FileNotFoundError):
        return sorted(found for found in path.parent.iterdir() if found.name.startswith(start))
    return []


def _read_flags(path: Path) -> list[tuple[str, Control]]:
    return [found for found in map(_read_flag, _flags(path)) if found is not None]


def _read_flag(flag: Path) -> tuple[str, Control] | None:
    """Its token, by which it is taken once however often it is found, and what it asks; None if it is gone by now."""
    try:
        about, content = flag.stat(), flag.read_bytes()
    except FileNotFoundError:
        return None
    except OSError:  # somebody put it there, that is enough
        return flag.name, Control(0, 0, "kill", "file", f"a file {flag.name} lies beside the journal", False)
    token = f"{flag.name}:{about.st_ino}:{about.st_mtime_ns}"
    try:
        said = msgspec.json.decode(content, type=_FlagFile)
    except msgspec.DecodeError:
        return token, Control(0, about.st_mtime_ns, "kill", "file", f"a file {flag.name} lies beside the journal", False)
    return token, Control(0, said.at, "kill", said.by, said.reason, said.flatten)


# ── the writer's side ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


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
        self._absorbed: list[Path] = []
        with sqlite_errors(path, "journal"):
            connection.execute(_TABLE)
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
        if _flags(self._path):
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
        self._trips.append(Control(0, at, "kill", OWN, reason, flatten))

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
        standing = execute(f"SELECT author, at, reason FROM control WHERE {_STANDING} ORDER BY id").fetchone()
        if standing is None:
            late = [kill for token, kill in _read_flags(self._path) if not self._knows(token)]  # left while this transaction was open
            standing = (late[0].by, late[0].at, late[0].reason) if late else None
        if standing is not None:
            author, at, reason = standing
            raise RiskHaltError(
                f"order {entry.client_id} would enter {entry.instrument} while the run is killed by {author} since {iso(at)}: {reason}",
                hint="the journal takes only orders that reduce a position until a person resumes the run",
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
        for flag in _flags(self._path):
            found = _read_flag(flag)
            if found is None:
                continue
            token, kill = found
            self._connection.execute(
                "INSERT OR IGNORE INTO control (at, kind, author, reason, flatten, token) VALUES (?, 'kill', ?, ?, ?, ?)",
                (kill.at, kill.by, kill.reason, kill.flatten, token),
            )
            self._absorbed.append(flag)

    def _remove_absorbed(self) -> None:
        for flag in self._absorbed:
            with suppress(OSError):  # its token is in the table: it is not taken twice
                flag.unlink()
        self._absorbed.clear()


def _control(columns: Sequence[object]) -> Control:
    number, at, kind, by, reason, flatten = columns
    return Control(number, at, kind, by, reason, bool(flatten))  # type: ignore[arg-type]  # the table's own columns


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
