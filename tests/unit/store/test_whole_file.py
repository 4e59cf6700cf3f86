"""A file is replaced whole or not at all, whatever interrupts the writing."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from cryptoalpha.core.errors import StoreError
from cryptoalpha.store.whole_file import replacing, write_whole


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    write_whole(tmp_path / "x", "one")
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    with pytest.raises(StoreError):
        write_whole(tmp_path / "folder", "two")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "x"]
    assert (tmp_path / "x").read_text() == "one"


def test_a_place_that_cannot_be_written_is_a_store_error(tmp_path: Path) -> None:
    write_whole(tmp_path / "new" / "file", b"")
    with pytest.raises(StoreError, match="cannot write"):
        write_whole(tmp_path / "new" / "file" / "x.html", "x")


def fail_half_way(path: Path) -> None:
    with replacing(path) as file:
        file.write(b"ne")
        raise KeyboardInterrupt


def test_what_was_there_stays_when_the_writer_fails_half_way(tmp_path: Path) -> None:
    write_whole(tmp_path / "x", "old")
    with pytest.raises(KeyboardInterrupt):
        fail_half_way(tmp_path / "x")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("x", "old")]


def test_two_writers_of_one_file_do_not_mix(tmp_path: Path) -> None:
    with replacing(tmp_path / "x") as file:
        file.write(b"first")
        with pytest.raises(StoreError, match="another process is writing it"):
            write_whole(tmp_path / "x", "second")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("x", "first")]


def test_a_draft_that_was_put_in_place_between_opening_and_locking_is_left_alone(tmp_path: Path, monkeypatch) -> None:
    lock = fcntl.flock

    def late(file, how: int) -> None:
        (tmp_path / ".x.part").write_text("the other writer's")
        (tmp_path / ".x.part").replace(tmp_path / "x")
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(StoreError, match="another process is writing it"):
        write_whole(tmp_path / "x", "ours")
    assert (tmp_path / "x").read_text() == "the other writer's"


def test_the_draft_of_a_killed_writer_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / ".x.part").write_text("half of something long")
    write_whole(tmp_path / "x", "whole")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("x", "whole")]
