"""What asks for retraining. A cause is written down here; whether and when a campaign answers it is decided elsewhere.

    schedule   the champion is as old as `lifecycle.retrain.every_days`
    drift      a detector of the tier that proposes retraining (`monitoring.drift`)
    accuracy   the alert on live accuracy
    hand       a person (`cryptoalpha retrain`)
    gate       a retrained candidate failed its judgement: settings are searched anew (`tune`)

The same cause about the same subject is one row as long as nobody answered it: it counts how often it came. Anybody may propose, from any
process and any number of times; nothing is started by it.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.lifecycle.retrain.book import book

Cause = Literal["schedule", "drift", "accuracy", "hand", "gate"]
LONGEST_DETAIL = 2_000
"""Characters kept of what a trigger says of itself."""


@dataclass(frozen=True)
class Trigger:
    """One reason to retrain. Times are UTC ns; `campaign` is the number of the one that answered, None while it waits."""

    number: int
    cause: str
    subject: str
    detail: str
    first_at: int
    last_at: int
    times: int
    campaign: int | None


def propose(path: Path, cause: Cause, at: int, detail: str = "", *, subject: str = "") -> Trigger:
    """Write down that something asks for retraining, and return it as it now waits.

    Args:
        path: the book (`HOME/lifecycle/retrain.sqlite`); made if it is not there.
        at: when it was noticed, UTC ns.
        detail: in words, what was found; the newest words are kept.
        subject: what it is about (the alarm's subject, the alert's name): another subject is another trigger.

    Raises:
        ConfigError: if there is no such cause.
        StoreError: if the book cannot be written.
    """
    if cause not in get_args(Cause):
        raise ConfigError(f"nothing asks for retraining by the name of {cause!r}", hint=f"there are: {', '.join(get_args(Cause))}")
    with book(path, write=True) as connection:
        note(connection, cause, at, detail, subject)
        (found,) = _rows(connection, "campaign IS NULL AND cause = ? AND subject = ?", (cause, subject))
        return found


def note(connection: sqlite3.Connection, cause: str, at: int, detail: str, subject: str) -> None:
    """Inside a transaction: one more of this cause and subject."""
    connection.execute(
        "INSERT INTO trigger (cause, subject, detail, first_at, last_at, times) VALUES (?, ?, ?, ?, ?, 1) "
        "ON CONFLICT (cause, subject) WHERE campaign IS NULL DO UPDATE SET times = times + 1, detail = excluded.detail, "
        "first_at = min(first_at, excluded.first_at), last_at = max(last_at, excluded.last_at)",
        (cause, subject, detail[:LONGEST_DETAIL], at, at),
    )


def waiting(path: Path) -> tuple[Trigger, ...]:
    """Triggers that no campaign has answered, the oldest first; none where there is no book."""
    return _read(path, "campaign IS NULL")


def heard(path: Path, cause: Cause, subject: str, at: int) -> bool:
    """Whether the book was told of this cause and subject at `at` or later, answered or not."""
    return any(one.last_at >= at for one in _read(path, "cause = ? AND subject = ?", (cause, subject)))


def answered(path: Path, campaign: int) -> tuple[Trigger, ...]:
    """Triggers that this campaign answers."""
    return _read(path, "campaign = ?", (campaign,))


def take(connection: sqlite3.Connection, campaign: int, causes: tuple[str, ...]) -> int:
    """Inside a transaction: the campaign answers all that waits with one of these causes. Returns how many."""
    marks = ", ".join("?" * len(causes))
    done = connection.execute(f"UPDATE trigger SET campaign = ? WHERE campaign IS NULL AND cause IN ({marks})", (campaign, *causes))
    return done.rowcount


def _read(path: Path, where: str, values: tuple[object, ...] = ()) -> tuple[Trigger, ...]:
    if not path.is_file():
        return ()
    with book(path, read_only=True) as connection:
        return _rows(connection, where, values)


def _rows(connection: sqlite3.Connection, where: str, values: tuple[object, ...]) -> tuple[Trigger, ...]:
    columns = "number, cause, subject, detail, first_at, last_at, times, campaign"
    found = connection.execute(f"SELECT {columns} FROM trigger WHERE {where} ORDER BY first_at, number", values).fetchall()
    return tuple(Trigger(*row) for row in found)
