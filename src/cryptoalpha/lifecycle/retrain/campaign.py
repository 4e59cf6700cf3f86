"""A campaign as the book has it, and the few ways in which it may change. Each is one transaction.

    opened ── step begun ── step ended (done) ── next step … ── closed: promoted
                  │  └──── step waits, failed: again at …
                  └─────── closed: refused | failed

Of a killed process nothing is left but a step that was begun and not ended: it is begun again.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from cryptoalpha.core.errors import StoreError
from cryptoalpha.lifecycle.retrain.book import book
from cryptoalpha.lifecycle.retrain.step import Kind, Outcome, Result
from cryptoalpha.lifecycle.retrain.triggers import note, take

Ending = Literal["promoted", "refused", "failed"]


@dataclass(frozen=True)
class StepRow:
    """One step. `begun`: how often since it last said that it waits; `failed`: how often it raised; `again_at`: when it may be asked."""

    name: str
    begun_at: int | None
    begun: int
    failed: int
    again_at: int | None
    ended_at: int | None
    verdict: str | None
    words: str
    result: Result

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("name", "begun", "failed", "again_at", "ended_at", "verdict", "words", "result")}


@dataclass(frozen=True)
class Campaign:
    """One campaign with its steps in order. Times are UTC ns; `ended_at` and `outcome` are None while it goes on."""

    number: int
    kind: str
    cause: str
    begun_at: int
    plan: Result
    ended_at: int | None
    outcome: str | None
    words: str
    steps: tuple[StepRow, ...]

    @property
    def next_step(self) -> StepRow | None:
        """The first step that is not done; None when all are."""
        return next((step for step in self.steps if step.ended_at is None), None)

    @property
    def results(self) -> dict[str, Result]:
        """What the finished steps came to, by name."""
        return {step.name: step.result for step in self.steps if step.ended_at is not None}

    def as_dict(self) -> dict[str, Any]:
        named = ("number", "kind", "cause", "begun_at", "plan", "ended_at", "outcome", "words")
        return {**{name: getattr(self, name) for name in named}, "steps": [step.as_dict() for step in self.steps]}


def campaigns(path: Path, *, last: int | None = None) -> tuple[Campaign, ...]:
    """Those in the book, the newest first, at most `last`; none where there is no book."""
    if not path.is_file():
        return ()
    with book(path, read_only=True) as connection:
        found = connection.execute("SELECT number FROM campaign ORDER BY number DESC LIMIT ?", (-1 if last is None else last,)).fetchall()
        return tuple(_read(connection, number) for (number,) in found)


def open_campaign(path: Path) -> Campaign | None:
    """The one that is not over."""
    if not path.is_file():
        return None
    with book(path, read_only=True) as connection:
        return _open(connection)


def begin_campaign(
    path: Path, kind: Kind, cause: str, at: int, plan: Result, steps: Sequence[str], *, answers: tuple[str, ...]
) -> Campaign:
    """Open a campaign that answers all that waits with these causes; the one that is open already if there is one.

    Raises:
        StoreError: if the book cannot be written.
    """
    with book(path, write=True) as connection:
        standing = _open(connection)
        if standing is not None:
            return standing
        row = (kind, cause, at, json.dumps(plan, sort_keys=True))
        number = int(connection.execute("INSERT INTO campaign (kind, cause, begun_at, plan) VALUES (?, ?, ?, ?)", row).lastrowid or 0)
        connection.executemany(
            "INSERT INTO step (campaign, place, name) VALUES (?, ?, ?)", [(number, place, name) for place, name in enumerate(steps)]
        )
        take(connection, number, answers)
        return _read(connection, number)


def begin_step(path: Path, campaign: int, name: str, at: int) -> None:
    """It is about to be done."""
    _change(path, campaign, name, "begun_at = coalesce(begun_at, ?), begun = begun + 1, again_at = NULL", (at,))


def end_step(path: Path, campaign: int, name: str, at: int, outcome: Outcome, *, asks: str = "") -> None:
    """It is done, must be asked again, or refuses the candidate; the latter ends the campaign with it.

    Args:
        asks: a cause to propose together with it (kept both or not at all); none by default.
    """
    if outcome.verdict == "wait":  # beginnings are counted since it last answered
        waiting = (outcome.again_at, outcome.words, _json(outcome.result))
        _change(path, campaign, name, "begun = 0, again_at = ?, words = ?, result = ?", waiting)
        return
    with book(path, write=True) as connection:
        values = (at, outcome.verdict, outcome.words, _json(outcome.result))
        _update(connection, campaign, name, "ended_at = ?, verdict = ?, words = ?, result = ?, again_at = NULL", values)
        if outcome.verdict == "refused":
            _close(connection, campaign, at, "refused", f"{name}: {outcome.words}")
            if asks:
                note(connection, asks, at, outcome.words, f"campaign {campaign}")


def fail_step(path: Path, campaign: int, name: str, words: str, *, again_at: int) -> int:
    """It raised; returns how often by now."""
    with book(path, write=True) as connection:
        _update(connection, campaign, name, "failed = failed + 1, again_at = ?, words = ?", (again_at, words))
        (failed,) = connection.execute("SELECT failed FROM step WHERE campaign = ? AND name = ?", (campaign, name)).fetchone()
        return int(failed)


def close_campaign(path: Path, campaign: int, at: int, outcome: Ending, words: str) -> None:
    """It is over. A second time changes nothing."""
    with book(path, write=True) as connection:
        _close(connection, campaign, at, outcome, words)


def _close(connection: sqlite3.Connection, campaign: int, at: int, outcome: Ending, words: str) -> None:
    connection.execute(
        "UPDATE campaign SET ended_at = ?, outcome = ?, words = ? WHERE number = ? AND ended_at IS NULL", (at, outcome, words, campaign)
    )


def _change(path: Path, campaign: int, name: str, assignments: str, values: tuple[object, ...]) -> None:
    with book(path, write=True) as connection:
        _update(connection, campaign, name, assignments, values)


def _update(connection: sqlite3.Connection, campaign: int, name: str, assignments: str, values: tuple[object, ...]) -> None:
    done = connection.execute(
        f"UPDATE step SET {assignments} WHERE campaign = ? AND name = ? AND ended_at IS NULL "
        "AND (SELECT ended_at FROM campaign WHERE number = step.campaign) IS NULL",
        (*values, campaign, name),
    )
    if done.rowcount != 1:
        raise StoreError(
            f"step {name} of campaign {campaign} is over or is none of its steps",
            hint="another process ran the campaign meanwhile; `cryptoalpha retrain --status` says where it stands",
        )


def _open(connection: sqlite3.Connection) -> Campaign | None:
    found = connection.execute("SELECT number FROM campaign WHERE ended_at IS NULL ORDER BY number LIMIT 1").fetchone()
    return None if found is None else _read(connection, int(found[0]))


def _read(connection: sqlite3.Connection, number: int) -> Campaign:
    columns = "name, begun_at, begun, failed, again_at, ended_at, verdict, words, result"
    rows = connection.execute(f"SELECT {columns} FROM step WHERE campaign = ? ORDER BY place", (number,)).fetchall()
    named = columns.split(", ")
    steps = tuple(StepRow(**{**dict(zip(named, row, strict=True)), "result": _parsed(row[-1])}) for row in rows)
    columns = "number, kind, cause, begun_at, plan, ended_at, outcome, words"
    found = connection.execute(f"SELECT {columns} FROM campaign WHERE number = ?", (number,)).fetchone()
    fields = dict(zip(columns.split(", "), found, strict=True))
    return Campaign(**{**fields, "plan": _parsed(fields["plan"])}, steps=steps)


def _json(result: Result) -> str:
    return json.dumps(result, sort_keys=True)


def _parsed(text: str) -> Result:
    return cast(Result, json.loads(text))
