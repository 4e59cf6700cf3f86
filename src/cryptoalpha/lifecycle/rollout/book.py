"""The book of rollouts: where each stands and everything it went through, in one SQLite file with `synchronous=FULL`.

A transition has two commits: what is intended, before the split is written, and that it happened, after. Who finds an intention looks at
the split to see whether it was carried out. A lease says which controller may act; every write checks it in its own transaction, so one
that slept through the end of its lease changes nothing here (and the split's compare-and-set stops it there).

    rollout     one per rollout: its state, and the intention if one is open (JSON)
    transition  every intention with its reason and evidence, and when it was settled
    lease       one per rollout: who acts, until when
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import msgspec

from cryptoalpha.core.errors import ConfigError, DataMissingError, StoreLockedError
from cryptoalpha.core.time import iso
from cryptoalpha.lifecycle.rollout.state import Intent, RolloutState
from cryptoalpha.store.sqlite import Schema, open_database, sqlite_errors

SCHEMA = Schema(
    "book of rollouts",
    0x43524F4C,
    1,
    (
        "CREATE TABLE rollout (id INTEGER PRIMARY KEY, name TEXT NOT NULL, over INTEGER NOT NULL, state TEXT NOT NULL, intent TEXT)",
        "CREATE UNIQUE INDEX one_open_rollout ON rollout (name) WHERE over = 0",
        "CREATE TABLE transition (id INTEGER PRIMARY KEY, rollout INTEGER NOT NULL REFERENCES rollout (id), decided_at INTEGER NOT NULL,"
        " before TEXT NOT NULL, stage TEXT NOT NULL, step INTEGER NOT NULL, reason TEXT NOT NULL, evidence TEXT NOT NULL,"
        " settled_at INTEGER)",
        "CREATE TABLE lease (rollout INTEGER PRIMARY KEY REFERENCES rollout (id), holder TEXT NOT NULL, until INTEGER NOT NULL)",
    ),
)
_state = msgspec.json.Decoder(RolloutState).decode
_intent = msgspec.json.Decoder(Intent).decode


class Transition(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a rollout's story. Times UTC ns; `settled_at` is None while it is not known to have happened."""

    decided_at: int
    before: str
    stage: str
    step: int
    reason: str
    evidence: dict[str, float]
    settled_at: int | None


class RolloutBook:
    """Rollouts of one store.

    Args:
        path: `HOME/lifecycle/rollout.sqlite`; None keeps the book in memory (simulations).

    Raises:
        StoreError: if the file cannot be used.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._rows = open_database(path, SCHEMA, durable=True)

    def begin(self, name: str, stable: str, canary: str, first: Intent, *, now: int) -> RolloutState:
        """Write down a new rollout and its first intention.

        Raises:
            ConfigError: if one of that name is under way.
        """
        with self._transaction() as rows:
            open_one = rows.execute("SELECT id FROM rollout WHERE name = ? AND over = 0", (name,)).fetchone()
            if open_one is not None:
                raise ConfigError(f"rollout {open_one[0]} of {name} is under way", hint="wait for its end, or abort it")
            (last,) = rows.execute("SELECT COALESCE(MAX(id), 0) FROM rollout").fetchone()
            state = RolloutState(id=last + 1, name=name, stable=stable, canary=canary, started_at=now, entered_at=now)
            rows.execute("INSERT INTO rollout VALUES (?, ?, 0, ?, ?)", (state.id, name, _text(state), _text(first)))
            self._note(rows, state, first)
        return state

    def read(self, rollout: int) -> tuple[RolloutState, Intent | None]:
        """Where a rollout stands.

        Raises:
            DataMissingError: if there is none of that number.
        """
        with sqlite_errors(self._path, SCHEMA.name):
            row = self._rows.execute("SELECT state, intent FROM rollout WHERE id = ?", (rollout,)).fetchone()
        if row is None:
            raise DataMissingError(f"no rollout {rollout} in {self._path}", hint="`deploy canary --status` lists them")
        return _state(row[0]), _intent(row[1]) if row[1] is not None else None

    def newest(self, name: str) -> RolloutState | None:
        """The last rollout of that name, over or not."""
        with sqlite_errors(self._path, SCHEMA.name):
            row = self._rows.execute("SELECT state FROM rollout WHERE name = ? ORDER BY id DESC LIMIT 1", (name,)).fetchone()
        return _state(row[0]) if row else None

    def story(self, rollout: int) -> tuple[Transition, ...]:
        """All transitions of a rollout, in order."""
        columns = "decided_at, before, stage, step, reason, evidence, settled_at"
        with sqlite_errors(self._path, SCHEMA.name):
            rows = self._rows.execute(f"SELECT {columns} FROM transition WHERE rollout = ? ORDER BY id", (rollout,)).fetchall()
        return tuple(
            Transition(
                decided_at=row[0], before=row[1], stage=row[2], step=row[3], reason=row[4], evidence=msgspec.json.decode(row[5]),
                settled_at=row[6],
            )
            for row in rows
        )  # fmt: skip

    def lease(self, rollout: int, holder: str, *, now: int, until: int) -> None:
        """Take or renew the right to act.

        Raises:
            StoreLockedError: if another controller has it and has not let it lapse.
        """
        with self._transaction() as rows:
            row = rows.execute("SELECT holder, until FROM lease WHERE rollout = ?", (rollout,)).fetchone()
            if row is not None and row[0] != holder and row[1] > now:
                raise StoreLockedError(
                    f"rollout {rollout} is in the hands of controller {row[0]} until {iso(row[1])}", hint="one controller acts at a time"
                )
            rows.execute("INSERT OR REPLACE INTO lease VALUES (?, ?, ?)", (rollout, holder, until))

    def seize(self, name: str, holder: str, order: Callable[[RolloutState], Intent], *, until: int) -> RolloutState:
        """A person's order: whoever acts now has the lease no longer, and what is ordered takes the place of what is open, in one
        transaction. A controller that was under way finds that out at its next `check`.

        Args:
            order: from the newest rollout of that name to what is intended; what it raises leaves everything as it was.

        Raises:
            DataMissingError: if there never was a rollout of that name.
        """
        with self._transaction() as rows:
            row = rows.execute("SELECT state FROM rollout WHERE name = ? ORDER BY id DESC LIMIT 1", (name,)).fetchone()
            if row is None:
                raise DataMissingError(f"nothing of the name {name} was ever rolled out", hint="begin with `deploy canary --canary ID`")
            state = _state(row[0])
            intent = order(state)
            rows.execute("INSERT OR REPLACE INTO lease VALUES (?, ?, ?)", (state.id, holder, until))
            self._open(rows, state, intent)
        return state

    def check(self, rollout: int, holder: str) -> None:
        """Whether this holder may act; asked right before the back end is changed.

        Raises:
            StoreLockedError: if not.
        """
        with sqlite_errors(self._path, SCHEMA.name):
            self._check(self._rows, rollout, holder)

    def release(self, rollout: int, holder: str) -> None:
        """Give the right to act back, if it is this holder's."""
        with self._transaction() as rows:
            rows.execute("DELETE FROM lease WHERE rollout = ? AND holder = ?", (rollout, holder))

    def intend(self, state: RolloutState, intent: Intent, *, holder: str) -> None:
        """Write down a transition before it is carried out. It takes the place of one that is open."""
        with self._transaction() as rows:
            self._check(rows, state.id, holder)
            self._open(rows, state, intent)

    def settle(self, state: RolloutState, *, holder: str, now: int) -> None:
        """The open transition has happened: this is the state it led to."""
        with self._transaction() as rows:
            self._check(rows, state.id, holder)
            rows.execute("UPDATE rollout SET state = ?, intent = NULL, over = ? WHERE id = ?", (_text(state), state.is_over, state.id))
            rows.execute("UPDATE transition SET settled_at = ? WHERE rollout = ? AND settled_at IS NULL", (now, state.id))

    def keep(self, state: RolloutState, *, holder: str) -> None:
        """What a look changed without a transition."""
        with self._transaction() as rows:
            self._check(rows, state.id, holder)
            rows.execute("UPDATE rollout SET state = ? WHERE id = ?", (_text(state), state.id))

    def close(self) -> None:
        self._rows.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *ended: object) -> None:
        self.close()

    def _check(self, rows: sqlite3.Connection, rollout: int, holder: str) -> None:
        row = rows.execute("SELECT holder FROM lease WHERE rollout = ?", (rollout,)).fetchone()
        if row is None or row[0] != holder:
            other = row[0] if row else "nobody"
            raise StoreLockedError(
                f"rollout {rollout} is in the hands of {other} now", hint="it was away too long, or a person gave an order; run it again"
            )

    def _open(self, rows: sqlite3.Connection, state: RolloutState, intent: Intent) -> None:
        rows.execute("UPDATE rollout SET intent = ? WHERE id = ?", (_text(intent), state.id))
        rows.execute("DELETE FROM transition WHERE rollout = ? AND settled_at IS NULL", (state.id,))
        self._note(rows, state, intent)

    @staticmethod
    def _note(rows: sqlite3.Connection, state: RolloutState, intent: Intent) -> None:
        rows.execute(
            "INSERT INTO transition (rollout, decided_at, before, stage, step, reason, evidence) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (state.id, intent.decided_at, state.stage, intent.stage, intent.step, intent.reason, _text(intent.evidence)),
        )

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with sqlite_errors(self._path, SCHEMA.name):
            self._rows.execute("BEGIN IMMEDIATE")
            try:
                yield self._rows
            except BaseException:
                self._rows.execute("ROLLBACK")
                raise
            self._rows.execute("COMMIT")


def _text(value: object) -> str:
    return msgspec.json.encode(value).decode()
