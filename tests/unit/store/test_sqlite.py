"""Opening a database beside whoever is just making it."""

from __future__ import annotations

import sqlite3
import threading
import time
from pathlib import Path

import pytest

from cryptoalpha.core.errors import StoreError
from cryptoalpha.store.sqlite import Schema, open_database

SCHEMA = Schema("notebook", 4711, 1, ("CREATE TABLE note (text TEXT)",))


def unborn(path: Path) -> None:
    """A file as a maker has it before its first commit."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()


def test_a_reader_waits_for_a_file_that_is_being_made(tmp_path: Path):
    path = tmp_path / "notes.sqlite"
    unborn(path)
    maker = threading.Timer(0.1, lambda: open_database(path, SCHEMA).close())
    maker.start()
    begun = time.monotonic()
    reader = open_database(path, SCHEMA, read_only=True)
    assert time.monotonic() - begun >= 0.05
    assert reader.execute("SELECT count(*) FROM note").fetchone() == (0,)
    reader.close()
    maker.join()


def test_a_file_that_never_becomes_one_of_ours_is_refused(tmp_path: Path):
    path = tmp_path / "notes.sqlite"
    unborn(path)
    with pytest.raises(StoreError, match="is not a cryptoalpha notebook"):
        open_database(path, SCHEMA, read_only=True)


def test_many_who_make_one_file_at_once_all_get_it(tmp_path: Path):
    """Each sees an empty file first; one makes it, the others find it made when their turn comes."""
    for attempt in range(100):  # three of a hundred failed before who was sent away came again
        path, start, problems = tmp_path / f"new{attempt}.sqlite", threading.Barrier(8), []

        def make(path: Path = path, start: threading.Barrier = start, problems: list[StoreError] = problems) -> None:
            start.wait()
            try:
                open_database(path, SCHEMA).close()
            except StoreError as error:
                problems.append(error)

        threads = [threading.Thread(target=make) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert problems == []
