"""Where the store lies, and that only one process writes it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cryptoalpha.core.errors import ConfigError, StoreError, StoreLockedError
from cryptoalpha.store.home import Home
from cryptoalpha.store.lock import StoreLock

HOLDER = """
import sys, time
from pathlib import Path
from cryptoalpha.store.home import Home
from cryptoalpha.store.lock import StoreLock
with StoreLock(Home(Path(sys.argv[1]))):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """A second process that holds the lock of the store in `tmp_path`."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_the_environment_names_the_home_else_the_platform_does(monkeypatch, tmp_path):
    monkeypatch.setenv("CRYPTOALPHA_HOME", str(tmp_path / "mine"))
    assert Home.default() == Home(tmp_path / "mine")
    monkeypatch.delenv("CRYPTOALPHA_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert Home.default().root.name == "cryptoalpha"


def test_places_in_the_home():
    home = Home(Path("/x"))
    assert (home.lock, home.manifest, home.journal) == (Path("/x/lock"), Path("/x/manifest.sqlite"), Path("/x/journal.sqlite"))
    assert home.run("2026-01-02_a.b") == Path("/x/runs/2026-01-02_a.b")
    for bad in ("", "../up", "a/b", ".hidden"):
        with pytest.raises(ConfigError, match="not a run id"):
            home.run(bad)


def test_a_home_that_cannot_be_written_says_what_to_do(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written") as caught:
        Home(tmp_path / "file" / "store").prepare()
    assert "CRYPTOALPHA_HOME" in caught.value.hint
    assert caught.value.exit_code == 3


def test_a_second_process_is_refused_and_told_who_holds_the_store(tmp_path, holder):
    with pytest.raises(StoreLockedError, match=f"in use by process {holder.pid}\n→") as caught:
        StoreLock(Home(tmp_path)).acquire()
    assert caught.value.hint


def test_kill_9_releases_the_lock(tmp_path, holder):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with StoreLock(Home(tmp_path)) as lock:
        assert lock.is_held
        assert Home(tmp_path).lock.read_text() == f"{os.getpid()}\n"


def test_release_lets_the_next_one_in_and_acquire_twice_is_once(tmp_path):
    first, second = StoreLock(Home(tmp_path)), StoreLock(Home(tmp_path))
    first.acquire()
    first.acquire()
    with pytest.raises(StoreLockedError):
        second.acquire()
    first.release()
    first.release()
    with second:
        assert second.is_held
    assert not second.is_held


def test_a_forked_child_does_not_keep_the_store_shut(tmp_path):
    script = """
import os, sys, time
from pathlib import Path
from cryptoalpha.store.home import Home
from cryptoalpha.store.lock import StoreLock
lock = StoreLock(Home(Path(sys.argv[1])))
lock.acquire()
child = os.fork()
if child == 0:
    print("child", flush=True)
    sys.stdin.read()  # an orphaned worker: stays until the test lets go
    os._exit(0)
os._exit(0)
"""
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "child\n"
        process.wait()
        with StoreLock(Home(tmp_path)) as lock:
            assert lock.is_held


def test_a_lock_that_cannot_be_opened_is_named(tmp_path):
    (tmp_path / "lock").mkdir()
    with pytest.raises(StoreError, match="cannot be opened"):
        StoreLock(Home(tmp_path)).acquire()
