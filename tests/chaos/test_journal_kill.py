"""A journal whose writer is killed: no acknowledged row is lost, and the file opens again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cryptoalpha.core.values import Decision
from cryptoalpha.store.journal import Journal
from cryptoalpha.store.journal_reader import JournalReader

WRITER = """
import sys
from pathlib import Path
from cryptoalpha.core.values import Decision
from cryptoalpha.store.journal import Journal

def decision(at):
    return Decision(
        happened_at=at, known_at=at, instrument="BTC/USDT", agent="a", target_weight=at / 7, confidence=0.5, reason="r" * (at % 3000)
    )

with Journal(Path(sys.argv[1]), durable=True, header={"run": "k"}) as journal:
    print("ready", flush=True)
    at = 0
    while True:
        print(journal.append(at, [decision(at)]), flush=True)  # printed only after the commit: the acknowledgement
        at += 1
"""


def decision(at: int) -> Decision:
    return Decision(
        happened_at=at, known_at=at, instrument="BTC/USDT", agent="a", target_weight=at / 7, confidence=0.5, reason="r" * (at % 3000)
    )


def run_and_kill(path: Path, after_seconds: float) -> int:
    """Start the writer, kill it that long after it is ready; the last row it acknowledged."""
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(after_seconds)
    os.kill(process.pid, signal.SIGKILL)
    acknowledged = [int(line) for line in process.stdout.read().split("\n") if line]
    process.wait()
    process.stdout.close()
    return acknowledged[-1] if acknowledged else 0


@pytest.mark.parametrize("after_seconds", [0.013, 0.047, 0.101, 0.173])
def test_no_acknowledged_row_is_lost_to_kill_9(tmp_path, after_seconds):
    path = tmp_path / "journal.sqlite"
    acknowledged = run_and_kill(path, after_seconds)
    acknowledged = max(acknowledged, run_and_kill(path, after_seconds))  # the second run replays, appends, and is killed as well
    with JournalReader(path) as reader:
        rows = [(row, at, values) for row, at, values in reader.rows()]
    assert len(rows) >= acknowledged
    assert rows == [(at + 1, at, [decision(at)]) for at in range(len(rows))]
    with Journal(path, durable=True, header={"run": "k"}) as journal:
        for at in range(len(rows) + 3):
            journal.append(at, [decision(at)])
        digest = journal.digest()
    with Journal(None, durable=False, header={"run": "k"}) as never_killed:
        for at in range(len(rows) + 3):
            never_killed.append(at, [decision(at)])
        assert never_killed.digest() == digest
