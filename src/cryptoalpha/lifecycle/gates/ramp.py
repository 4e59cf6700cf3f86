"""The capital ramp: how much of the book a new champion decides over, step by step.

    ramp = CapitalRamp(home / "lifecycle" / "ramp.sqlite", config, now=clock.now)
    ramp.begin("loop", version.id, equity=100_000.0)
    share = ramp.observe("loop", Health(decisions=24, mismatches=0, faults=(), equity=99_120.0)).share

Only health and parity move it up: a stretch without a fault in which every decision was the one that its replay takes. A fault takes it
one step back and the stretch begins anew. Profit is never looked at; a loss of `stop_loss` since the ramp began ends it at a share of zero
until a person begins it again. The gate that let the version through rested on years; the days of a ramp say nothing about its edge (a
Sharpe ratio of 1 needs 2.71 years), and a rule that waited for profit would only promote luck.

Each change is one transaction in SQLite (`synchronous=FULL`): killed at any moment, the old or the new step stands.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Literal

from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.core.time import DAY
from cryptoalpha.lifecycle.gates.config import RampConfig
from cryptoalpha.store.sqlite import Schema, open_database, sqlite_errors

State = Literal["ramping", "full", "stopped"]

SCHEMA = Schema(
    name="capital ramp",
    application_id=0x63617270,
    version=1,
    statements=(
        "CREATE TABLE change (number INTEGER PRIMARY KEY, line TEXT NOT NULL, version TEXT NOT NULL, at INTEGER NOT NULL, "
        "state TEXT NOT NULL, step INTEGER NOT NULL, step_since INTEGER NOT NULL, clean_since INTEGER NOT NULL, "
        "decisions INTEGER NOT NULL, equity REAL NOT NULL, reason TEXT NOT NULL)",
        "CREATE INDEX newest ON change (line, number)",
    ),
)
_COLUMNS = "line, version, at, state, step, step_since, clean_since, decisions, equity, reason"


@dataclass(frozen=True)
class Health:
    """What was seen of the champion since the last look."""

    decisions: int
    """Decisions it took."""
    mismatches: int
    """Of these, how many its replay takes otherwise."""
    faults: tuple[str, ...]
    """What failed, in words: an answer that never came or cannot be used, a missed budget, an order of unknown fate."""
    equity: float
    """Of the book now. It can stop the ramp and never moves it on."""


@dataclass(frozen=True)
class RampStatus:
    """Where a ramp stands. Times UTC ns."""

    line: str
    version: str
    at: int
    state: State
    step: int
    step_since: int
    clean_since: int
    """Since when nothing failed."""
    decisions: int
    """Taken on this step since then."""
    equity: float
    """When the ramp began."""
    reason: str
    share: float
    """Of the capital (0–1)."""


class CapitalRamp:
    """The ramps of all lines in one file, which several processes may use.

    Raises:
        StoreError: from every call, if the file cannot be written.
    """

    def __init__(self, path: Path, config: RampConfig, *, now: Callable[[], int]) -> None:
        self.path, self._config, self._now = path, config, now

    def begin(self, line: str, version: str, *, equity: float) -> RampStatus:
        """Put a version on the first step. One that is on its way goes on; one that was stopped begins again, and so does another version.

        Raises:
            ConfigError: if equity is not positive.
        """
        if not (isfinite(equity) and equity > 0.0):
            raise ConfigError(f"a ramp cannot begin with an equity of {equity}", hint="give the book's equity in quote currency")
        with self._open() as connection:
            old = self._newest(connection, line)
            if old is not None and old.version == version and old.state != "stopped":
                return old
            now = self._now()
            new = RampStatus(line, version, now, "ramping", 0, now, now, 0, equity, "begun", 0.0)
            return self._write(connection, new)

    def observe(self, line: str, health: Health) -> RampStatus:
        """Take in what was seen: stop, step back, stay, or step on by one.

        Raises:
            ConfigError: if no ramp of this line was begun.
            DataError: for counts that cannot be, or an equity that is no number.
        """
        if not 0 <= health.mismatches <= health.decisions or not isfinite(health.equity):
            raise DataError(f"health of {line} cannot be: {health}", hint="counts from 0, mismatches among the decisions, a finite equity")
        with self._open() as connection:
            old = self._newest(connection, line)
            if old is None:
                raise ConfigError(f"no ramp of line {line!r} was begun", hint="begin it when a version becomes champion")
            new = self._next(old, health)
            return old if new == old else self._write(connection, new)

    def status(self, line: str) -> RampStatus | None:
        """Where the ramp of a line stands; None if there never was one."""
        with self._open() as connection:
            return self._newest(connection, line)

    def history(self, line: str) -> tuple[RampStatus, ...]:
        """Every change, oldest first."""
        with self._open() as connection:
            rows = connection.execute(f"SELECT {_COLUMNS} FROM change WHERE line = ? ORDER BY number", (line,)).fetchall()
        return tuple(self._of(row) for row in rows)

    def _next(self, old: RampStatus, health: Health) -> RampStatus:
        config, now = self._config, self._now()
        if old.state == "stopped":
            return old
        floor = old.equity * (1.0 - config.stop_loss)
        if health.equity <= floor:
            words = f"equity {health.equity:.2f} is at or below {floor:.2f}, a loss of {config.stop_loss:.0%} since the ramp began"
            return replace(old, at=now, state="stopped", reason=words)
        if health.faults or health.mismatches:
            words = health.faults[0] if health.faults else f"{health.mismatches} of {health.decisions} decisions differ from their replay"
            back = max(old.step - 1, 0)
            return replace(
                old, at=now, state="ramping", step=back, step_since=now, clean_since=now, decisions=0, reason=f"step back: {words}"
            )  # fmt: skip
        decisions = old.decisions + health.decisions
        steady = now - max(old.step_since, old.clean_since) >= config.healthy_days * DAY
        if old.state == "full" or not steady or decisions < config.least_decisions:
            return replace(old, at=now, decisions=decisions) if health.decisions else old
        last = old.step + 1 >= len(config.steps) - 1
        words = f"{config.healthy_days:g} healthy days and {decisions} decisions like their replay"
        return replace(
            old, at=now, state="full" if last else "ramping", step=min(old.step + 1, len(config.steps) - 1), step_since=now, decisions=0,
            reason=words,
        )  # fmt: skip

    def _write(self, connection: sqlite3.Connection, new: RampStatus) -> RampStatus:
        row = (
            new.line, new.version, new.at, new.state, new.step, new.step_since, new.clean_since, new.decisions, new.equity, new.reason,
        )  # fmt: skip
        connection.execute(f"INSERT INTO change ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        return self._of(row)

    def _newest(self, connection: sqlite3.Connection, line: str) -> RampStatus | None:
        row = connection.execute(f"SELECT {_COLUMNS} FROM change WHERE line = ? ORDER BY number DESC LIMIT 1", (line,)).fetchone()
        return None if row is None else self._of(row)

    def _of(self, row: tuple[str, str, int, State, int, int, int, int, float, str]) -> RampStatus:
        steps = self._config.steps  # fewer of them than when the row was written: the last one
        share = 0.0 if row[3] == "stopped" else steps[min(row[4], len(steps) - 1)]
        return RampStatus(*row, share=share)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """One transaction, alone from its first look on."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = open_database(self.path, SCHEMA, durable=True)
        try:
            with sqlite_errors(self.path, SCHEMA.name):
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield connection
                except BaseException:
                    connection.execute("ROLLBACK")
                    raise
                connection.execute("COMMIT")
        finally:
            connection.close()
