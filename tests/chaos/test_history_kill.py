"""Writing a partition is killed before and after every step; nothing is ever half-written, and the next write finishes the job."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from cryptoalpha.core.errors import DataMissingError
from cryptoalpha.core.time import HOUR, parse_time
from cryptoalpha.store.history import History
from cryptoalpha.store.home import Home
from cryptoalpha.store.tables import BarTable

START = parse_time("2022-01-03")

WRITER = """
import os, signal, sys
from pathlib import Path
from cryptoalpha.store import partition
from cryptoalpha.store.history import History
from cryptoalpha.store.home import Home
from cryptoalpha.store.manifest import Manifest
from cryptoalpha.store import history as module
import numpy as np
from cryptoalpha.store.tables import BarTable

root, n, fatal, start = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])

def deadly(owner, name):
    real = getattr(owner, name)
    def step(*arguments, **named):
        if fatal == f"before {name}":
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*arguments, **named)
        if fatal == f"after {name}":
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    setattr(owner, name, step)

for owner, name in ((module, "write_temporary"), (partition, "sync"), (partition, "file_sha256"), (Manifest, "intend"),
                    (partition.os, "replace"), (module, "put_in_place"), (Manifest, "settle")):
    deadly(owner, name)
place = np.arange(float(n))
History(Home(root)).write_bars("v", BarTable("BTC/USDT", 3600 * 10**9, start + 3600 * 10**9 * np.arange(n), 100 + place,
                                             101 + place, 99 + place, 100 + place, place), origin="test")
"""

STEPS = [
    f"{when} {step}"
    for step in ("write_temporary", "sync", "file_sha256", "intend", "replace", "put_in_place", "settle")
    for when in ("before", "after")
]
AFTER_THE_RENAME = {"after replace", "after put_in_place", "before settle", "after settle"}


def bars(n: int) -> BarTable:
    place = np.arange(float(n))
    return BarTable("BTC/USDT", HOUR, START + HOUR * np.arange(n), 100 + place, 101 + place, 99 + place, 100 + place, place)


def write_and_die(root: Path, n: int, fatal: str) -> None:
    died = subprocess.run([sys.executable, "-c", WRITER, str(root), str(n), fatal, str(START)], check=False, capture_output=True, text=True)
    assert died.returncode == -signal.SIGKILL, died.stderr


@pytest.mark.parametrize("fatal", STEPS)
def test_a_month_killed_while_growing_is_the_old_one_or_the_new_one(tmp_path, fatal):
    with History(Home(tmp_path)) as history:
        history.write_bars("v", bars(10), origin="test")
    write_and_die(tmp_path, 20, fatal)
    with History(Home(tmp_path)) as history:
        found = history.load(interval=HOUR).bars["BTC/USDT"]  # readable before anybody repaired anything
        assert_array_equal(found.close, bars(20 if fatal in AFTER_THE_RENAME else 10).close)
        history.write_bars("v", bars(20), origin="test")
        assert_array_equal(history.load(interval=HOUR).bars["BTC/USDT"].close, bars(20).close)
        assert history.verify() == []


@pytest.mark.parametrize("fatal", ["after write_temporary", "after intend", "after replace", "after settle"])
def test_a_first_write_that_was_killed_leaves_nothing_or_all(tmp_path, fatal):
    write_and_die(tmp_path, 20, fatal)
    with History(Home(tmp_path)) as history:
        if fatal == "after settle":
            assert len(history.load(interval=HOUR).bars["BTC/USDT"]) == 20
        else:
            with pytest.raises(DataMissingError):
                history.load(interval=HOUR)
        history.write_bars("v", bars(20), origin="test")
        assert_array_equal(history.load(interval=HOUR).bars["BTC/USDT"].close, bars(20).close)
        assert history.verify() == []
