"""The registry's book, one SQLite file (`synchronous=FULL`): which versions there are, who is champion and was, and what was said of them.

    version      one row per version, with its document; kept with `removed_at` when its files are gone, for the sake of its descendants
    pointer      one row per change of a champion, never changed: the newest of a line is its champion
    pin          who needs a version's files now (a rollout), so that they are not collected
    judgement    reports on a version, in the order in which they came, never changed
    holdout      who looked at which held-out stretch of which data, when, and how often

A row of `version` is written after its folder lies in its place, and goes before the folder does: what the book names is there.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.lifecycle.registry.version import Version
from cryptoalpha.store.sqlite import Schema, open_database, sqlite_errors

NAME = "registry.sqlite"
SHORTEST_PREFIX = 4

SCHEMA = Schema(
    name="registry of models",
    application_id=0x6361_7267,  # "carg"
    version=1,
    statements=(
        "CREATE TABLE version (id TEXT PRIMARY KEY, line TEXT NOT NULL, parent TEXT, created_at INTEGER NOT NULL, document TEXT NOT NULL, "
        "removed_at INTEGER)",
        "CREATE INDEX of_line ON version (line, created_at)",
        "CREATE TABLE pointer (number INTEGER PRIMARY KEY, line TEXT NOT NULL, version TEXT NOT NULL REFERENCES version, was TEXT, "
        "below INTEGER, at INTEGER NOT NULL, cause TEXT NOT NULL, reason TEXT NOT NULL)",
        "CREATE INDEX champion ON pointer (line, number)",
        "CREATE TABLE pin (version TEXT NOT NULL REFERENCES version, by TEXT NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (version, by))",
        "CREATE TABLE judgement (number INTEGER PRIMARY KEY, version TEXT NOT NULL REFERENCES version, passed INTEGER NOT NULL, "
        "at INTEGER NOT NULL, content TEXT NOT NULL)",
        "CREATE TABLE holdout (number INTEGER PRIMARY KEY, data TEXT NOT NULL, since INTEGER NOT NULL, until INTEGER NOT NULL, "
        "by TEXT NOT NULL, first_at INTEGER NOT NULL, times INTEGER NOT NULL, UNIQUE (data, since, until, by))",
    ),
)


@contextmanager
def book(root: Path, *, write: bool = False) -> Iterator[sqlite3.Connection]:
    """The book, open for one question or one transaction (`write`: all of the block is kept, or nothing of it).

    Who only asks makes none: a book that is not there is empty.

    Raises:
        StoreError: if it cannot be read or written, or is no such book.
    """
    path = root / NAME
    asked = write or path.is_file()
    connection = open_database(path if asked else None, SCHEMA, durable=True, read_only=asked and not write)
    try:
        with sqlite_errors(path, SCHEMA.name):
            if not write:
                yield connection
                return
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")
    finally:
        connection.close()


def find(connection: sqlite3.Connection, wanted: str, *, removed: bool = False) -> str:
    """The id that begins so.

    Args:
        removed: whether a version whose files were collected may be meant.

    Raises:
        ConfigError: if there is none, or more than one.
    """
    plain = wanted.strip().lower()
    hint = "`cryptoalpha models list` prints them"
    if len(plain) < SHORTEST_PREFIX or not all(letter in "0123456789abcdef" for letter in plain):
        raise ConfigError(f"{wanted!r} is no id of a version", hint=f"an id, or its first {SHORTEST_PREFIX} characters or more; {hint}")
    rows = connection.execute("SELECT id, removed_at FROM version WHERE substr(id, 1, ?) = ?", (len(plain), plain)).fetchall()
    kept = [identity for identity, gone in rows if removed or gone is None]
    if len(kept) == 1:
        return str(kept[0])
    if kept:
        raise ConfigError(f"{len(kept)} versions begin with {wanted}", hint="give more characters of the id")
    if rows:
        raise ConfigError(f"the files of version {wanted} were collected", hint="register the model again")
    raise ConfigError(f"there is no version {wanted}", hint=hint)


def read_version(connection: sqlite3.Connection, identity: str, versions: Path) -> Version:
    """A version as the book knows it, whatever became of its files."""
    (document, removed_at) = connection.execute("SELECT document, removed_at FROM version WHERE id = ?", (identity,)).fetchone()
    return Version.read(document, versions / identity, removed_at=removed_at)
