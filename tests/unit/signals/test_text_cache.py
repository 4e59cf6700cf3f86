"""Kept vectors: found again, bounded, never mixed, sound after a kill, shared between processes."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pytest

from cryptoalpha.core.errors import ConfigError, ModelError, StoreError
from cryptoalpha.signals.text.cache import AnswerCache, CachedEncoder
from cryptoalpha.signals.text.lexicon_encoder import LexiconEncoder

WRITER = """
import sys, numpy as np
from pathlib import Path
from cryptoalpha.signals.text.cache import AnswerCache
path, first, last = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
cache = AnswerCache(path)
print("ready", flush=True)
for i in range(first, last):
    cache.answers("r", 4, [f"text {i}"], lambda texts: np.array([[int(t.split()[1])] * 4 for t in texts], np.float32))
print("done", cache.unkept, flush=True)
"""


def numbered(texts):
    return np.array([[float(text.split()[1])] * 4 for text in texts], np.float32)


def refused(_texts):
    raise AssertionError("computed again")


class Counting(LexiconEncoder):
    """The lexicon encoder, counting the texts it reads."""

    asked = 0

    def encode(self, texts):
        self.asked += len(texts)
        return super().encode(texts)


def test_a_text_is_read_once_in_memory_and_across_processes_of_the_file(tmp_path):
    encoder = Counting()
    cached = CachedEncoder(encoder, AnswerCache(tmp_path / "c.sqlite"))
    first = cached.encode(["a rise", "a fall", "a rise"])
    assert encoder.asked == 2
    np.testing.assert_array_equal(first[0], first[2])
    cached.encode(["a fall"])
    assert encoder.asked == 2
    again = Counting()
    np.testing.assert_array_equal(CachedEncoder(again, AnswerCache(tmp_path / "c.sqlite")).encode(["a rise", "a fall", "a rise"]), first)
    assert again.asked == 0


def test_polarity_is_kept_apart_from_vectors(tmp_path):
    cached = CachedEncoder(LexiconEncoder(), AnswerCache(tmp_path / "c.sqlite"))
    cached.encode(["bitcoin surges"])
    expected = LexiconEncoder().polarity(["bitcoin surges"])
    np.testing.assert_allclose(cached.polarity(["bitcoin surges"]), expected, atol=1e-7)
    assert cached.cache.computed == 2


def test_readers_do_not_see_each_others_answers(tmp_path):
    cache = AnswerCache(tmp_path / "c.sqlite")
    one = cache.answers("e@1", 1, ["x"], lambda _: np.array([[1.0]], np.float32))
    two = cache.answers("e@2", 1, ["x"], lambda _: np.array([[2.0]], np.float32))
    assert (one[0, 0], two[0, 0]) == (1.0, 2.0)


def test_two_encoders_that_share_a_name_and_revision_are_refused(tmp_path):
    AnswerCache(tmp_path / "c.sqlite").answers("r", 4, ["text 1"], numbered)
    with pytest.raises(ModelError, match="4 wide of r, which is 8 wide"):
        AnswerCache(tmp_path / "c.sqlite").answers("r", 8, ["text 1"], refused)


def test_an_encoder_that_answers_another_shape_is_refused():
    with pytest.raises(ModelError, match="expected"):
        AnswerCache(None).answers("r", 3, ["text 1"], numbered)


def test_the_oldest_rows_leave_first(tmp_path):
    cache = AnswerCache(tmp_path / "c.sqlite", rows_kept=10)
    for i in range(25):
        cache.answers("r", 4, [f"text {i}"], numbered)
    fresh = AnswerCache(tmp_path / "c.sqlite", rows_kept=10)
    np.testing.assert_array_equal(fresh.answers("r", 4, [f"text {i}" for i in range(15, 25)], refused)[:, 0], np.arange(15.0, 25.0))
    fresh.answers("r", 4, ["text 14"], numbered)
    assert fresh.computed == 1
    with sqlite3.connect(tmp_path / "c.sqlite") as database:
        assert database.execute("SELECT count(*) FROM answers").fetchone() == (10,)


def test_memory_is_bounded_too():
    cache = AnswerCache(None, rows_in_memory=5)
    cache.answers("r", 4, [f"text {i}" for i in range(20)], numbered)
    assert len(cache._memory) == 5
    cache.answers("r", 4, ["text 19"], refused)


def test_room_for_nothing_is_refused():
    with pytest.raises(ConfigError):
        AnswerCache(None, rows_kept=0)


def test_a_writer_that_is_killed_leaves_a_sound_file(tmp_path):
    path = tmp_path / "c.sqlite"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path), "0", "1000000"], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "ready\n"
    deadline = time.monotonic() + 30.0
    while time.monotonic() < deadline and _rows(path) < 50:
        time.sleep(0.02)
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    with sqlite3.connect(path) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    kept = _rows(path)
    assert kept >= 50
    cache = AnswerCache(path)
    texts = [f"text {i}" for i in range(kept)]
    np.testing.assert_array_equal(cache.answers("r", 4, texts, refused), numbered(texts))


def _rows(path) -> int:
    with sqlite3.connect(path) as database:
        return int(database.execute("SELECT count(*) FROM answers").fetchone()[0])


def test_several_processes_write_and_read_one_file(tmp_path):
    path = tmp_path / "c.sqlite"
    AnswerCache(path).close()
    spans = [("0", "150"), ("100", "250"), ("0", "250")]
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), *span], stdout=subprocess.PIPE, text=True) for span in spans]
    for writer in writers:
        said, _ = writer.communicate(timeout=120)
        assert writer.returncode == 0
        assert said == "ready\ndone 0\n"
    texts = [f"text {i}" for i in range(250)]
    np.testing.assert_array_equal(AnswerCache(path).answers("r", 4, texts, refused), numbered(texts))
    assert _rows(path) == 250


def test_a_lock_held_by_another_costs_the_row_not_the_answer(tmp_path):
    path = tmp_path / "c.sqlite"
    cache = AnswerCache(path)
    cache._connection.execute("PRAGMA busy_timeout = 10")
    with sqlite3.connect(path, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        assert cache.answers("r", 4, ["text 7"], numbered)[0, 0] == 7.0
        other.execute("ROLLBACK")
    assert cache.unkept == 1
    cache.answers("r", 4, ["text 8"], numbered)
    assert cache.unkept == 1
    assert _rows(path) == 1


def test_a_file_that_is_something_else_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "c.sqlite"
    path.write_bytes(b"somebody's notes" * 100)
    with pytest.raises(StoreError):
        AnswerCache(path)
    assert path.read_bytes() == b"somebody's notes" * 100
