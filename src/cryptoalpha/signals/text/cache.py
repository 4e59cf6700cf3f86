"""Vectors of texts that were read before, on disk beside the store and in memory.

A row is found by the encoder's name, its revision, what was answered (a vector, or the tone by which head) and the SHA-1 of the text,
so an answer of other weights is never taken for one of these. The file is SQLite in WAL mode: several processes read and write it, and
one that is killed leaves it sound. It is a cache: it holds a bounded number of rows, the oldest leave first, and a disk that refuses to
write costs time, not answers.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from cryptoalpha.core.errors import ConfigError, ModelError, StoreError
from cryptoalpha.signals.text.encoder import EncoderId, PolarEncoder, TextEncoder, Vectors
from cryptoalpha.store.sqlite import Schema, open_database, sqlite_errors
from cryptoalpha.store.tables import Floats

FILE = "text_vectors.sqlite"
ROWS_KEPT = 200_000
"""Rows on disk at most: 0.3 GB of vectors 384 wide, four years of the news there is."""

ROWS_IN_MEMORY = 20_000
"""Rows in memory at most: 30 MB of vectors 384 wide."""

_AT_ONCE = 500
"""Texts looked up in one statement, and kept in one transaction: a lock is held for milliseconds."""

_SCHEMA = Schema(
    name="text cache",
    application_id=0x63617478,
    version=1,
    statements=(
        "CREATE TABLE answers (id INTEGER PRIMARY KEY AUTOINCREMENT, reader TEXT NOT NULL, text BLOB NOT NULL, "
        "answer BLOB NOT NULL, UNIQUE (reader, text))",
    ),
)


class AnswerCache:
    """Float32 rows by reader and text.

    Args:
        path: the file; None keeps rows in memory only.
        rows_kept, rows_in_memory: bounds.

    Raises:
        StoreError: if the file is no cache of this project, or cannot be opened.
        ConfigError: for bounds below 1.
    """

    def __init__(self, path: Path | None, *, rows_kept: int = ROWS_KEPT, rows_in_memory: int = ROWS_IN_MEMORY) -> None:
        if rows_kept < 1 or rows_in_memory < 1:
            raise ConfigError(f"a text cache needs room for at least one row, got {rows_kept} and {rows_in_memory}")
        self._path, self._rows_kept, self._rows_in_memory = path, rows_kept, rows_in_memory
        self._memory: OrderedDict[tuple[str, bytes], Vectors] = OrderedDict()
        self._connection: sqlite3.Connection | None = None
        self._process = 0
        self.computed = self.unkept = 0
        """Texts that had to be read anew, and those of them that the disk would not take."""
        self._database()

    def answers(self, reader: str, width: int, texts: Sequence[str], compute: Callable[[Sequence[str]], Vectors]) -> Vectors:
        """The answers to `n` texts, float32 `[n, width]`; `compute` is asked once for those not known, each once.

        Raises:
            ModelError: if `compute` answers another shape, or a kept row is of another width.
        """
        keys = [hashlib.sha1(text.encode("utf-8", "surrogatepass"), usedforsecurity=False).digest() for text in texts]
        known: dict[bytes, Vectors] = {}
        for key in dict.fromkeys(keys):
            row = self._memory.get((reader, key))
            if row is not None:
                self._memory.move_to_end((reader, key))
                known[key] = row
        self._look_up(reader, [key for key in dict.fromkeys(keys) if key not in known], known, width)
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        if missing:
            fresh = np.ascontiguousarray(compute(list(missing.values())), np.float32)
            if fresh.shape != (len(missing), width):
                raise ModelError(f"{reader} answered {fresh.shape} for {len(missing)} texts, expected {(len(missing), width)}")
            self.computed += len(missing)
            known.update(zip(missing, fresh, strict=True))
            self._keep(reader, list(missing), fresh)
        self._remember(reader, known)
        return np.stack([known[key] for key in keys]) if keys else np.zeros((0, width), np.float32)

    def close(self) -> None:
        """Close the file; a later question opens it again."""
        if self._connection is not None and self._process == os.getpid():
            self._connection.close()
        self._connection = None

    def _database(self) -> sqlite3.Connection | None:
        """This process's connection: one that was open before a fork belongs to the parent."""
        if self._path is None:
            return None
        if self._connection is None or self._process != os.getpid():
            self._connection, self._process = open_database(self._path, _SCHEMA), os.getpid()
        return self._connection

    def _look_up(self, reader: str, keys: list[bytes], known: dict[bytes, Vectors], width: int) -> None:
        database = self._database() if keys else None
        if database is None:
            return
        with sqlite_errors(self._path, _SCHEMA.name):
            for first in range(0, len(keys), _AT_ONCE):
                some = keys[first : first + _AT_ONCE]
                marks = ",".join("?" * len(some))
                query = f"SELECT text, answer FROM answers WHERE reader = ? AND text IN ({marks})"
                for key, answer in database.execute(query, (reader, *some)):
                    if len(answer) != 4 * width:
                        raise ModelError(
                            f"{self._path} holds an answer {len(answer) // 4} wide of {reader}, which is {width} wide",
                            hint="two encoders share a name and revision; delete the file, it is only a cache",
                        )
                    known[key] = np.frombuffer(answer, "<f4").astype(np.float32)

    def _keep(self, reader: str, keys: list[bytes], rows: Vectors) -> None:
        """Write, best effort: another writer's lock or a full disk must not stop a decision."""
        database = self._database()
        if database is None:
            return
        for first in range(0, len(keys), _AT_ONCE):
            some = slice(first, first + _AT_ONCE)
            content = [(reader, key, row.astype("<f4").tobytes()) for key, row in zip(keys[some], rows[some], strict=True)]
            try:
                with sqlite_errors(self._path, _SCHEMA.name):
                    self._write(database, content)
            except StoreError:
                self.unkept += len(content)

    def _write(self, database: sqlite3.Connection, content: list[tuple[str, bytes, bytes]]) -> None:
        database.execute("BEGIN IMMEDIATE")
        try:
            database.executemany("INSERT OR IGNORE INTO answers (reader, text, answer) VALUES (?, ?, ?)", content)
            (rows,) = database.execute("SELECT count(*) FROM answers").fetchone()
            if rows > self._rows_kept:
                oldest = "DELETE FROM answers WHERE id IN (SELECT id FROM answers ORDER BY id LIMIT ?)"
                database.execute(oldest, (rows - self._rows_kept,))
            database.execute("COMMIT")
        except BaseException:
            if database.in_transaction:
                database.execute("ROLLBACK")
            raise

    def _remember(self, reader: str, known: dict[bytes, Vectors]) -> None:
        for key, row in known.items():
            self._memory[(reader, key)] = row
        while len(self._memory) > self._rows_in_memory:
            self._memory.popitem(last=False)


class CachedEncoder:
    """An encoder that reads no text twice. Satisfies `TextEncoder`, and `PolarEncoder` where the encoder within does."""

    def __init__(self, encoder: TextEncoder, cache: AnswerCache) -> None:
        self.within, self.cache = encoder, cache
        self._id = EncoderId.of(encoder)

    @property
    def name(self) -> str:
        return self._id.name

    @property
    def revision(self) -> str:
        return self._id.revision

    @property
    def width(self) -> int:
        return self._id.width

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Vectors float32 `[n, width]`."""
        return self.cache.answers(f"{self.name}@{self.revision}", self.width, texts, self.within.encode)

    def polarity(self, texts: Sequence[str]) -> Floats:
        """Expected polarity `[n]` by the encoder's own classes (kept as float32).

        Raises:
            ModelError: if it has none.
        """
        within = self.within
        if not isinstance(within, PolarEncoder):
            raise ModelError(f"{self.name} has no opinion of its own", hint="train a head: `cryptoalpha train sentiment`")

        def asked(some: Sequence[str]) -> Vectors:
            return within.polarity(some).astype(np.float32)[:, None]

        return self.cache.answers(f"{self.name}@{self.revision} polarity", 1, texts, asked)[:, 0].astype(np.float64)
