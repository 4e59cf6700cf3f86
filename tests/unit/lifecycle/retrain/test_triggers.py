"""What asks for retraining waits in the book until a campaign answers it, each cause and subject once."""

from __future__ import annotations

import subprocess
import sys

import pytest

from cryptoalpha.core.errors import ConfigError, StoreError
from cryptoalpha.core.time import HOUR
from cryptoalpha.lifecycle.retrain.book import book
from cryptoalpha.lifecycle.retrain.triggers import answered, propose, take, waiting


def test_the_same_cause_about_the_same_subject_waits_once_and_is_counted(tmp_path):
    path = tmp_path / "lifecycle" / "retrain.sqlite"
    propose(path, "drift", 2 * HOUR, "first words", subject="calibration:BTC")
    found = propose(path, "drift", 5 * HOUR, "later words", subject="calibration:BTC")
    late = propose(path, "drift", 1 * HOUR, "heard late", subject="calibration:BTC")
    assert (found.number, found.times, found.first_at, found.last_at, found.detail) == (1, 2, 2 * HOUR, 5 * HOUR, "later words")
    assert (late.times, late.first_at, late.last_at) == (3, 1 * HOUR, 5 * HOUR)
    assert waiting(path) == (late,)


def test_other_subjects_and_other_causes_are_others(tmp_path):
    path = tmp_path / "retrain.sqlite"
    for cause, subject in (("drift", "a"), ("drift", "b"), ("accuracy", "a"), ("hand", "")):
        propose(path, cause, HOUR, subject=subject)
    assert [(one.cause, one.subject, one.times) for one in waiting(path)] == [
        ("drift", "a", 1), ("drift", "b", 1), ("accuracy", "a", 1), ("hand", "", 1),
    ]  # fmt: skip


def test_what_was_answered_waits_no_more_and_comes_anew(tmp_path):
    path = tmp_path / "retrain.sqlite"
    first = propose(path, "drift", HOUR, subject="a")
    propose(path, "gate", HOUR)
    with book(path, write=True) as connection:
        connection.execute("INSERT INTO campaign (kind, cause, begun_at, plan) VALUES ('retrain', 'drift', 7, '{}')")
        assert take(connection, 1, ("drift", "hand")) == 1
    assert [one.cause for one in waiting(path)] == ["gate"]
    assert [(one.number, one.campaign) for one in answered(path, 1)] == [(first.number, 1)]
    again = propose(path, "drift", 2 * HOUR, subject="a")
    assert again.number != first.number
    assert again.times == 1


def test_no_book_means_that_nothing_waits_and_none_is_made_by_asking(tmp_path):
    assert waiting(tmp_path / "retrain.sqlite") == ()
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_cause_is_refused_and_writes_nothing(tmp_path):
    with pytest.raises(ConfigError, match="'whim'"):
        propose(tmp_path / "retrain.sqlite", "whim", HOUR)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_book_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "retrain.sqlite"
    path.write_bytes(b"these are my notes, not a database" * 40)
    before = path.read_bytes()
    with pytest.raises(StoreError):
        propose(path, "drift", HOUR)
    assert path.read_bytes() == before


PROPOSER = """
import sys
from pathlib import Path
from cryptoalpha.lifecycle.retrain.triggers import propose
for k in range(25):
    propose(Path(sys.argv[1]), "drift", k, subject="shared")
"""


def test_many_processes_propose_at_once_and_every_one_is_counted(tmp_path):
    path = tmp_path / "retrain.sqlite"
    workers = [subprocess.Popen([sys.executable, "-c", PROPOSER, str(path)]) for _ in range(3)]
    assert [worker.wait(60) for worker in workers] == [0, 0, 0]
    (found,) = waiting(path)
    assert (found.times, found.first_at, found.last_at) == (75, 0, 24)
