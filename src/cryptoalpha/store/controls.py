"""Kill and resume across processes: what people ask of a run, kept in the run's own journal file.

Any process may ask, at any time, whether the run's engine works, hangs or is stopped: `request_control` takes no lock of the store and
waits a few seconds at most. The engine takes what was asked at two places of a step (`Journal.controls`, `Journal.turn`) and notes where,
so that a replay takes it at the same places again. What is asked is committed with `synchronous=FULL` before anybody acts on it.

A kill that cannot be written because the database stays locked (its writer was stopped in the middle of a transaction) goes into a file
beside the journal (`store.kill_files`); the engine moves it into the table at its next step.

What a kill promises: once it is asked for no row is written that holds an order which enters. An entry that was sent before may be filled
until its cancel arrives, as at any venue: in the bar of the step that is under way, not in a later one, because a step takes what was asked
immediately before it hands its bar to the broker. There is one more row in which an entry may be written: that whose commit was under way
when a kill came as a file; the next step cancels it before a bar can fill it.

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

import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cryptoalpha.core.errors import ConfigError, RiskHaltError, StoreError
from cryptoalpha.core.time import iso
from cryptoalpha.store.journal_reader import SCHEMA
from cryptoalpha.store.kill_files import KillFile, leave_kill_file, one_line, read_kill_files
from cryptoalpha.store.sqlite import open_database, sqlite_errors

Kind = Literal["kill", "resume"]
Mode = Literal["armed", "requested", "tripping", "tripped"]

PATIENCE_SECONDS = 3.0
"""How long a request waits for another process's transaction; one takes a few milliseconds."""
OWN = "risk"
"""Author of the kills that the run's own limits set off."""

TABLE = (
    "CREATE TABLE IF NOT EXISTS control (id INTEGER PRIMARY KEY, at INTEGER NOT NULL, kind TEXT NOT NULL, author TEXT NOT NULL,"
    " reason TEXT NOT NULL, flatten INTEGER NOT NULL, taken_row INTEGER, early INTEGER, settled_row INTEGER, token TEXT UNIQUE)"
)
STANDING = "kind = 'kill' AND id > (SELECT coalesce(max(id), 0) FROM control WHERE kind = 'resume')"
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

    def as_dict(self) -> dict[str, object]:
        return {"id": self.id, "at": iso(self.at), "kind": self.kind, "by": self.by, "reason": self.reason, "flatten": self.flatten}


@dataclass(frozen=True)
class ControlState:
    """Whether a run is killed. The fields after `mode` speak of the first kill that stands, `flatten` of all of them, `latest` of the last.

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
    latest: Control | None = None
    """The last kill where more than one stands: what came to be known, or was asked for, since the first."""

    @property
    def stands(self) -> bool:
        """Whether entries are forbidden."""
        return self.mode != "armed"

    @property
    def why(self) -> str:
        """`by NAME: REASON`, of the first kill and of the last."""
        last = self.latest
        if last is None or (last.by, last.reason) == (self.by, self.reason):
            return f"by {self.by}: {self.reason}"
        return f"by {self.by}: {self.reason}; {self.kills} kills stand, the last by {last.by} at {iso(last.at)}: {last.reason}"

    def as_dict(self) -> dict[str, object]:
        return {
            "mode": self.mode,
            "at": None if self.at is None else iso(self.at),
            "by": self.by,
            "reason": self.reason,
            "flatten": self.flatten,
            "taken_row": self.taken_row,
            "kills": self.kills,
            "latest": self.latest.as_dict() if self.latest else None,
        }


ARMED = ControlState("armed")


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
        by, reason: who and why; what cannot be printed in one line is written as its escape, so that nobody's text can look like another's.
        at: now, UTC ns.
        flatten: of a kill: close everything as well.
        patience_seconds: how long to wait while another process writes. After that a kill goes into a file beside the journal.

    Raises:
        StoreError: if the journal is not there, is unreadable or (for a resume) stays locked.
        ConfigError: for a resume where nothing is killed.
        RiskHaltError: for a resume while a kill is not carried out yet.
    """
    deadline = time.monotonic() + patience_seconds
    asked = Control(0, at, kind, one_line(by), one_line(reason), flatten)
    while True:
        try:
            return _request(path, asked)
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
                leave_kill_file(path, at=at, by=asked.by, reason=asked.reason, flatten=flatten)
                return asked


def control_state(path: Path) -> ControlState:
    """Whether the run of this journal is killed; reads only, works beside the engine.

    Raises:
        StoreError: if the journal cannot be read. Nothing may be traded on it then.
    """
    files = read_kill_files(path)  # first: the engine writes to the table before it removes them
    connection = open_database(path, SCHEMA, read_only=True)
    try:
        with sqlite_errors(path, "journal"):
            connection.execute("BEGIN")  # one moment for all that is read
            return _state(connection, files)
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
            connection.execute(TABLE)
            if asked.kind == "resume":
                _demand_tripped(_state(connection, read_kill_files(path)))
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


def _state(connection: sqlite3.Connection, files: Sequence[KillFile]) -> ControlState:
    kills: list[tuple[int, str, str, int, int | None, int | None]] = []
    known: set[str] = set()
    if connection.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'control'").fetchone()[0]:
        kills = connection.execute(
            f"SELECT at, author, reason, flatten, taken_row, settled_row FROM control WHERE {STANDING} ORDER BY id"
        ).fetchall()
        known = {token for (token,) in connection.execute("SELECT token FROM control WHERE token IS NOT NULL")}
    kills += [(file.at, file.by, file.reason, file.flatten, None, None) for file in files if file.token not in known]
    if not kills:
        return ARMED
    mode: Mode = "tripped"
    if any(settled is None for *_, settled in kills):
        mode = "requested" if all(taken is None for *_, taken, _ in kills) else "tripping"
    at, by, reason, _, taken_row, _ = kills[0]
    latest = Control(0, kills[-1][0], "kill", kills[-1][1], kills[-1][2], bool(kills[-1][3])) if len(kills) > 1 else None
    return ControlState(mode, at, by, reason, any(kill[3] for kill in kills), taken_row, len(kills), latest)


def _is_busy(error: StoreError) -> bool:
    cause = error.__cause__
    return isinstance(cause, sqlite3.OperationalError) and cause.sqlite_errorcode & 0xFF in _BUSY
