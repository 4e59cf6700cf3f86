"""How the store opens SQLite: one place for pragmas, schema versions and the translation of its errors.

Files are in WAL mode, so readers never wait for the writer. `durable` means `synchronous=FULL`: a commit that returned survives a power
cut; otherwise `NORMAL`: the file stays sound and only the newest commits may be lost.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptoalpha.core.errors import StoreError

_BIRTH_SECONDS = 1.0
"""How long a reader waits for a file to become what it will be, which takes its maker one commit."""


@dataclass(frozen=True)
class Schema:
    """What a file must be: `application_id` marks it as ours, `version` is refused when it differs, `statements` create it."""

    name: str
    application_id: int
    version: int
    statements: tuple[str, ...]


@contextmanager
def sqlite_errors(path: Path | None, name: str) -> Iterator[None]:
    """Turn SQLite's errors into `StoreError`s that name the file and the way out."""
    try:
        yield
    except sqlite3.IntegrityError as error:
        raise StoreError(f"{name} {path}: {error}", hint="another process wrote to it; only one may hold the store") from error
    except sqlite3.OperationalError as error:
        raise StoreError(
            f"{name} {path} cannot be used: {error}", hint="check that the disk has space and the folder is writable"
        ) from error
    except sqlite3.DatabaseError as error:
        raise StoreError(f"{name} {path} is corrupt: {error}", hint="move it away and run again, or restore it from a backup") from error


def open_database(
    path: Path | None, schema: Schema, *, durable: bool = False, read_only: bool = False, patience_seconds: float = 5.0
) -> sqlite3.Connection:
    """Open or create the file; `None` keeps it in memory. While another process writes, statements wait as long as `patience_seconds`.

    Raises:
        StoreError: if it cannot be written, is not an SQLite file, belongs to something else or has another schema version.
    """
    if read_only and (path is None or not path.is_file()):
        raise StoreError(f"no {schema.name} at {path}", hint="check the path; `cryptoalpha status` lists what the store holds")
    deadline = time.monotonic() + patience_seconds
    with sqlite_errors(path, schema.name):
        while True:
            try:
                return _open(path, schema, durable=durable, read_only=read_only, patience_seconds=patience_seconds)
            except sqlite3.OperationalError as error:
                # Who turns a file to WAL, and who closes it last, hold it alone for a moment, and SQLite sends others away without waiting.
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
                    raise
                time.sleep(0.01)


def _open(path: Path | None, schema: Schema, *, durable: bool, read_only: bool, patience_seconds: float) -> sqlite3.Connection:
    try:
        connection = _connect(path, read_only=read_only)
    except OSError as error:
        raise StoreError(f"{schema.name} {path} cannot be created: {error.strerror}", hint="choose a writable folder") from error
    try:
        connection.execute(f"PRAGMA busy_timeout = {round(1000 * patience_seconds)}")
        if not read_only:
            # takes effect in a new file only: bulk rows are written a third faster in 16 KiB pages, single commits touch less in 4 KiB
            connection.execute(f"PRAGMA page_size = {4096 if durable else 16384}")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        _agree(connection, path, schema, read_only=read_only)
    except (sqlite3.Error, StoreError):
        connection.close()
        raise
    return connection


def _connect(path: Path | None, *, read_only: bool) -> sqlite3.Connection:
    if path is None:
        return sqlite3.connect(":memory:", isolation_level=None)
    if read_only:
        return sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None)
    path.parent.mkdir(parents=True, exist_ok=True)
    return sqlite3.connect(path, isolation_level=None)


def _agree(connection: sqlite3.Connection, path: Path | None, schema: Schema, *, read_only: bool) -> None:
    """Create the schema in an empty file, refuse a foreign or differently versioned one."""
    application, version, tables = _marks(connection)
    deadline = time.monotonic() + _BIRTH_SECONDS
    while read_only and tables == 0 and application == 0 and time.monotonic() < deadline:  # its maker has not committed its first page yet
        time.sleep(0.01)
        application, version, tables = _marks(connection)
    if tables == 0 and application == 0 and not read_only:
        connection.execute("BEGIN IMMEDIATE")
        application, version, tables = _read_marks(connection)  # another process may have made it while this one waited
        if tables == 0 and application == 0:
            for statement in schema.statements:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {schema.application_id}")
            connection.execute(f"PRAGMA user_version = {schema.version}")
            application, version = schema.application_id, schema.version
        connection.execute("COMMIT")
    if application != schema.application_id:
        raise StoreError(f"{path} is not a cryptoalpha {schema.name}", hint="choose another path; the file was left as it is")
    if version != schema.version:
        raise StoreError(
            f"{schema.name} {path} has schema {version}, this version of cryptoalpha reads schema {schema.version}",
            hint="open it with the version that wrote it, or start a new one",
        )


def _marks(connection: sqlite3.Connection) -> tuple[int, int, int]:
    """Application, version and number of tables, all of one moment."""
    connection.execute("BEGIN")
    try:
        return _read_marks(connection)
    finally:
        connection.execute("ROLLBACK")


def _read_marks(connection: sqlite3.Connection) -> tuple[int, int, int]:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return application, version, tables
