"""The book of retraining, one SQLite file: who asked for it, which campaigns there were, and every step of each with how it ended.

    trigger     one row per reason that waits or was answered: cause, subject, when first and last, how often, by which campaign
    campaign    one row per campaign: kind (retrain | tune), what began it, its plan, how it ended and in which words
    step        one row per step of a campaign: how often begun, how often failed, when it ended, what came of it (JSON)

Everything is committed with `synchronous=FULL`: a step is written as begun before it is done and as ended after it, so that one killed
between the two finds it begun and does it again. Steps must therefore stand being done twice; all of ours do.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptoalpha.store.sqlite import Schema, open_database, sqlite_errors

BOOK = Path("lifecycle") / "retrain.sqlite"
"""Where the book lies in the store's home."""

SCHEMA = Schema(
    name="book of retraining",
    application_id=0x6361_7274,  # "cart"
    version=1,
    statements=(
        "CREATE TABLE campaign (number INTEGER PRIMARY KEY, kind TEXT NOT NULL, cause TEXT NOT NULL, begun_at INTEGER NOT NULL, "
        "plan TEXT NOT NULL, ended_at INTEGER, outcome TEXT, words TEXT NOT NULL DEFAULT '')",
        "CREATE TABLE trigger (number INTEGER PRIMARY KEY, cause TEXT NOT NULL, subject TEXT NOT NULL, detail TEXT NOT NULL, "
        "first_at INTEGER NOT NULL, last_at INTEGER NOT NULL, times INTEGER NOT NULL, campaign INTEGER REFERENCES campaign)",
        "CREATE UNIQUE INDEX waiting ON trigger (cause, subject) WHERE campaign IS NULL",
        "CREATE TABLE step (campaign INTEGER NOT NULL REFERENCES campaign, place INTEGER NOT NULL, name TEXT NOT NULL, begun_at INTEGER, "
        "begun INTEGER NOT NULL DEFAULT 0, failed INTEGER NOT NULL DEFAULT 0, again_at INTEGER, ended_at INTEGER, verdict TEXT, "
        "words TEXT NOT NULL DEFAULT '', result TEXT NOT NULL DEFAULT '{}', PRIMARY KEY (campaign, place)) WITHOUT ROWID",
    ),
)


@contextmanager
def book(path: Path, *, write: bool = False, read_only: bool = False) -> Iterator[sqlite3.Connection]:
    """The book, open for one question or one transaction (`write`: all of the block is kept, or nothing of it).

    Raises:
        StoreError: if it cannot be read or written, or is no such book.
    """
    connection = open_database(path, SCHEMA, durable=True, read_only=read_only)
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
