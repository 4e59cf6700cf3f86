"""What was said of versions: reports, in the order in which they came, and looks at holdouts, counted for ever.

The newest report on a version decides whether it may be promoted. A holdout may be looked at once: what is chosen by it no longer judges
honestly. Two holdouts of the same data are one where they share more than half of the shorter one, so that a holdout that moves on with the
days is a new one only when most of it is. Who looks again at what it has seen (a judge who was stopped and goes on) is not counted twice.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.lifecycle.registry.version import canonical

SAME = "2 * (min(until, ?) - max(since, ?)) > min(until - since, ? - ?)"
"""Whether a row's holdout is the one from `since` to `until`; takes until, since, until, since."""


@dataclass(frozen=True)
class Judgement:
    """One report on a version. `at` is UTC ns; `content` what the judge said, JSON values."""

    number: int
    version: str
    passed: bool
    at: int
    content: Mapping[str, Any]


def write_judgement(connection: sqlite3.Connection, identity: str, content: Mapping[str, Any], at: int) -> Judgement:
    """Append a report; one that says the very same as the newest is that one.

    Raises:
        ConfigError: if it does not say whether the version passed, or is of another version.
    """
    passed, about = content.get("passed"), content.get("candidate", identity)
    if not isinstance(passed, bool):
        raise ConfigError("a report must say whether the version passed", hint="'passed': true or false")
    if about != identity:
        raise ConfigError(f"the report is about {about}, not about version {identity}", hint="attach it to the version it is about")
    text = canonical(dict(content))
    before = read_judgements(connection, identity)
    if before and canonical(dict(before[-1].content)) == text:
        return before[-1]
    done = connection.execute("INSERT INTO judgement (version, passed, at, content) VALUES (?, ?, ?, ?)", (identity, int(passed), at, text))
    return Judgement(int(done.lastrowid or 0), identity, passed, at, json.loads(text))


def read_judgements(connection: sqlite3.Connection, identity: str) -> tuple[Judgement, ...]:
    """All reports on a version, oldest first."""
    rows = connection.execute("SELECT number, passed, at, content FROM judgement WHERE version = ? ORDER BY number", (identity,)).fetchall()
    return tuple(Judgement(number, identity, bool(passed), at, json.loads(content)) for number, passed, at, content in rows)


@dataclass(frozen=True)
class Look:
    """A look at a holdout; times are UTC ns. `by` is the version that was looked at."""

    by: str
    since: int
    until: int
    first_at: int


def look_taken(connection: sqlite3.Connection, data: str, since: int, until: int) -> Look | None:
    """The newest look at a holdout that is this one, if there is any."""
    row = connection.execute(
        f"SELECT by, since, until, first_at FROM holdout WHERE data = ? AND {SAME} ORDER BY until DESC, number DESC LIMIT 1",
        (data, until, since, until, since),
    ).fetchone()
    return Look(*row) if row else None


def count_look(connection: sqlite3.Connection, data: str, since: int, until: int, *, by: str, at: int) -> int:
    """Write down a look at a holdout, and say the how manieth it is of that holdout.

    Raises:
        ConfigError: if the holdout is empty.
    """
    if since >= until:
        raise ConfigError(f"a holdout from {since} to {until} is empty", hint="give its first moment and its end, UTC ns")
    connection.execute(
        "INSERT INTO holdout (data, since, until, by, first_at, times) VALUES (?, ?, ?, ?, ?, 1) "
        "ON CONFLICT (data, since, until, by) DO UPDATE SET times = times + 1",
        (data, since, until, by, at),
    )
    looks = connection.execute(
        f"SELECT by, min(number) FROM holdout WHERE data = ? AND {SAME} GROUP BY by ORDER BY 2",
        (data, until, since, until, since),
    ).fetchall()
    return 1 + [who for who, _ in looks].index(by)
