"""Champions: who is, who was, and how one takes over, as one compare-and-set in one transaction.

Promotions lie on a stack: a promotion puts a version on top, a rollback takes it off again, so that two rollbacks lead two champions back.
Every change is a row of its own, which nobody changes later. Doing a change twice is harmless: whoever was stopped before hearing that it
was done may ask again.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from enum import Enum
from typing import Final

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.time import iso
from cryptoalpha.lifecycle.registry.version import SHOWN


class Whoever(Enum):
    """Stands for any champion, or none."""

    ANY = "any"


ANY: Final = Whoever.ANY
Expected = str | None | Whoever
"""Who must be champion for a change to happen: an id, None for nobody, or `ANY`."""


@dataclass(frozen=True)
class Pointer:
    """One change: `version` took over from `was` at `at` (UTC ns). `cause`: promote | rollback; `below`: the change a rollback leads to."""

    number: int
    line: str
    version: str
    was: str | None
    below: int | None
    at: int
    cause: str
    reason: str

    def as_dict(self) -> dict[str, object]:
        """For `--json`."""
        return {"version": self.version, "was": self.was, "at": iso(self.at), "cause": self.cause, "reason": self.reason}


_FIELDS = "number, line, version, was, below, at, cause, reason"


def newest(connection: sqlite3.Connection, line: str) -> Pointer | None:
    """Who is champion."""
    row = connection.execute(f"SELECT {_FIELDS} FROM pointer WHERE line = ? ORDER BY number DESC LIMIT 1", (line,)).fetchone()
    return Pointer(*row) if row else None


def all_of(connection: sqlite3.Connection, line: str) -> tuple[Pointer, ...]:
    """Every change of a line, oldest first."""
    rows = connection.execute(f"SELECT {_FIELDS} FROM pointer WHERE line = ? ORDER BY number", (line,)).fetchall()
    return tuple(Pointer(*row) for row in rows)


def below(connection: sqlite3.Connection, pointer: Pointer) -> Pointer | None:
    """The change that a rollback of this one leads to."""
    row = connection.execute(f"SELECT {_FIELDS} FROM pointer WHERE number = ?", (pointer.below,)).fetchone()
    return Pointer(*row) if row else None


def put(connection: sqlite3.Connection, line: str, identity: str, *, expected: Expected, at: int, reason: str) -> None:
    """Inside a transaction: make a version champion; nothing happens if it is.

    Raises:
        ConfigError: if somebody else is champion than was expected, naming who.
    """
    top = newest(connection, line)
    if top is not None and top.version == identity:
        return
    _demand(top, line, expected)
    _write(connection, line, identity, top, top.number if top else None, at, "promote", reason)


def take_off(connection: sqlite3.Connection, line: str, *, expected: Expected, at: int, reason: str) -> None:
    """Inside a transaction: make the champion before this one champion again.

    With `expected`, nothing happens if that version was taken off just before.

    Raises:
        ConfigError: if there is no champion, none before it, or another than was expected.
    """
    top = newest(connection, line)
    if top is not None and top.cause == "rollback" and top.was == expected:
        return
    _demand(top, line, expected)
    under = below(connection, top) if top else None
    if top is None or under is None:
        who = f"{top.version[:SHOWN]} is the first champion of {line}" if top else f"{line} has no champion"
        raise ConfigError(f"{who}: there is none to go back to", hint="promote the version that shall be champion: models promote")
    _write(connection, line, under.version, top, under.below, at, "rollback", reason)


def _demand(top: Pointer | None, line: str, expected: Expected) -> None:
    if expected is ANY or (top.version if top else None) == expected:
        return
    wanted = expected[:SHOWN] if isinstance(expected, str) else "nobody"
    hint = "compare with the champion there is now, and try again"
    if top is None:
        raise ConfigError(f"{line} has no champion, expected was {wanted}", hint=hint)
    raise ConfigError(
        f"the champion of {line} is {top.version[:SHOWN]} since {iso(top.at)} ({top.cause}: {top.reason}), expected was {wanted}", hint=hint
    )


def _write(
    connection: sqlite3.Connection, line: str, identity: str, top: Pointer | None, under: int | None, at: int, cause: str, reason: str
) -> None:
    connection.execute(
        "INSERT INTO pointer (line, version, was, below, at, cause, reason) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (line, identity, top.version if top else None, under, at, cause, reason),
    )
