"""A campaign is killed for good (SIGKILL) before and after every commit of its book and inside every step: it ends as if it never was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cryptoalpha.lifecycle.retrain.campaign import campaigns
from cryptoalpha.lifecycle.retrain.triggers import answered, waiting

CAMPAIGN = '''
"""A campaign of files, in which the process kills itself at the POINT-th place it comes by."""
import os, signal, sys
from contextlib import contextmanager
from pathlib import Path

from cryptoalpha.lifecycle.retrain import campaign as campaign_module, triggers as trigger_module
from cryptoalpha.lifecycle.retrain.config import RetrainConfig
from cryptoalpha.lifecycle.retrain.runner import CampaignRunner
from cryptoalpha.lifecycle.retrain.step import Outcome
from cryptoalpha.lifecycle.retrain.triggers import propose
from cryptoalpha.store.whole_file import write_whole

home, point = Path(sys.argv[1]), int(sys.argv[2])
passed = 0

def place():
    global passed
    passed += 1
    if passed == point:
        os.kill(os.getpid(), signal.SIGKILL)

book = campaign_module.book

@contextmanager
def killed_around(path, *, write=False, read_only=False):
    if write:
        place()                       # nothing of the transaction is there
    with book(path, write=write, read_only=read_only) as connection:
        yield connection
        if write:
            place()                   # all of it is written, nothing is committed
    if write:
        place()                       # it is committed, and nobody was told

campaign_module.book = trigger_module.book = killed_around

class FileStep:
    def __init__(self, name):
        self.name = name

    def __call__(self, work):
        place()
        made = sorted(work.results)
        write_whole(home / f"{self.name}.txt", f"{self.name} after {made}")
        place()
        if self.name == "gates" and work.kind == "retrain":
            return Outcome("refused", "too little")
        if self.name == "canary" and not (home / "waited").exists():
            write_whole(home / "waited", "")
            return Outcome("wait", "at 5 %", again_at=0)
        return Outcome("done", "well", {"after": made})

names = ("regime", "forecaster", "register", "gates", "canary", "promote")
steps = [FileStep(name) for name in names]
path = home / "retrain.sqlite"
if not (home / "proposed").exists():
    propose(path, "drift", 5, "an edge died")
    write_whole(home / "proposed", "")
runner = CampaignRunner(
    path, {"retrain": steps, "tune": [FileStep("tune"), *steps]}, plan=lambda kind, cause, at: {"kind": kind},
    config=RetrainConfig(retry_minutes=0, cooldown_days=1e6), now=lambda: 7,
)
while runner.run().did != "nothing":
    pass
print(passed)
'''


def run(script: Path, home: Path, point: int) -> subprocess.CompletedProcess[str]:
    home.mkdir(exist_ok=True)
    return subprocess.run([sys.executable, str(script), str(home), str(point)], capture_output=True, text=True, timeout=120, check=False)


def story(home: Path) -> dict[str, object]:
    """All that is left of it, but how often a step was begun, and how often an alarm was heard by whoever was killed on telling."""
    path = home / "retrain.sqlite"
    told = [{**one.as_dict(), "steps": [(s.name, s.verdict, s.words, s.result, s.failed) for s in one.steps]} for one in campaigns(path)]
    files = {file.name: file.read_text() for file in sorted(home.glob("*.txt"))}
    reasons = {one.number: [(t.cause, t.subject, t.detail) for t in answered(path, one.number)] for one in campaigns(path)}
    return {"campaigns": told, "files": files, "reasons": reasons, "waiting": waiting(path)}


@pytest.fixture
def script(tmp_path):
    file = tmp_path / "campaign.py"
    file.write_text(CAMPAIGN)
    return file


@pytest.mark.slow
def test_killed_at_any_place_it_ends_as_if_it_never_was(script, tmp_path):
    whole = run(script, tmp_path / "whole", 0)
    assert whole.returncode == 0, whole.stderr
    places, expected = int(whole.stdout), story(tmp_path / "whole")
    assert [(one["kind"], one["outcome"]) for one in expected["campaigns"]] == [("tune", "promoted"), ("retrain", "refused")]
    assert expected["reasons"] == {1: [("drift", "", "an edge died")], 2: [("gate", "campaign 1", "too little")]}
    assert places > 80  # 11 steps of two campaigns, each begun and ended
    for point in range(1, places + 1):
        home = tmp_path / f"killed_{point}"
        assert run(script, home, point).returncode == -signal.SIGKILL
        done = run(script, home, 0)
        assert done.returncode == 0, done.stderr
        assert story(home) == expected, f"killed at place {point}"
        assert not list(home.glob(".*.part"))


@pytest.mark.slow
def test_killed_again_and_again_it_still_ends(script, tmp_path):
    home, expected = tmp_path / "often", None
    for point in (3, 5, 4, 7, 6, 9, 5, 8, 4, 11, 6, 13):
        assert run(script, home, point).returncode in (-signal.SIGKILL, 0)
    assert run(script, home, 0).returncode == 0
    run(script, tmp_path / "whole", 0)
    expected = story(tmp_path / "whole")
    assert story(home) == expected


WORKER = """
import os, sys, time
from pathlib import Path
from cryptoalpha.lifecycle.retrain.child import serve
from cryptoalpha.lifecycle.retrain.step import Outcome

def do(name, work):
    (work.folder / "pids").open("a").write(f"{os.getpid()}\\n")
    held = bytearray(int(work.plan["bytes"]))
    held[::4096] = b"x" * len(held[::4096])
    deadline = time.monotonic() + work.plan["seconds"]
    while time.monotonic() < deadline:
        time.sleep(0.05)
    return Outcome("done", "slept", {"nice": os.nice(0), "results": dict(work.results)})

serve(do, sys.argv[1:], nice=7)
"""

PARENT = """
import json, sys
from pathlib import Path
from cryptoalpha.lifecycle.retrain.child import ChildStep
from cryptoalpha.lifecycle.retrain.config import RetrainConfig
from cryptoalpha.lifecycle.retrain.runner import CampaignRunner
from cryptoalpha.lifecycle.retrain.triggers import propose
from cryptoalpha.lifecycle.retrain.campaign import open_campaign

home, plan, limits = Path(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3])
path = home / "retrain.sqlite"
config = RetrainConfig(retry_minutes=0, attempts=1, **limits)
step = ChildStep("train", [sys.executable, str(home / "worker.py")], config)
if open_campaign(path) is None:
    propose(path, "hand", 1)
runner = CampaignRunner(path, {"retrain": [step], "tune": []}, plan=lambda *_: plan, config=config, now=lambda: 7)
print(runner.run().words)
"""


def parent(home: Path, plan: dict[str, float], **limits: float) -> subprocess.Popen[str]:
    home.mkdir(exist_ok=True)
    (home / "worker.py").write_text(WORKER)
    (home / "parent.py").write_text(PARENT)
    command = [sys.executable, str(home / "parent.py"), str(home), json.dumps(plan), json.dumps(limits)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def pids(home: Path) -> list[int]:
    file = home / "campaigns" / "0001" / "pids"
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def until(found, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not found() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert found()


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the system has no /proc")


def test_a_steps_process_is_niced_and_answers_through_its_file(tmp_path):
    process = parent(tmp_path, {"bytes": 0, "seconds": 0})
    out, errors = process.communicate(timeout=60)
    assert "promoted" in out, errors
    (campaign,) = campaigns(tmp_path / "retrain.sqlite")
    assert campaign.steps[0].result == {"nice": min(os.nice(0) + 7, 19), "results": {}}


@needs_proc
def test_when_the_runner_is_killed_its_child_goes_too_and_the_next_runner_does_the_step(tmp_path):
    first = parent(tmp_path, {"bytes": 0, "seconds": 3})
    until(lambda: pids(tmp_path))
    first.kill()
    first.communicate(timeout=30)
    second = parent(tmp_path, {"bytes": 0, "seconds": 3})  # at once: the orphan still holds the flight
    out, errors = second.communicate(timeout=60)
    assert "promoted" in out, errors
    one, other = pids(tmp_path)
    assert one != other
    assert is_gone(one)
    (campaign,) = campaigns(tmp_path / "retrain.sqlite")
    assert (campaign.outcome, campaign.steps[0].begun, campaign.steps[0].failed) == ("promoted", 2, 0)


@needs_proc
def test_a_killed_child_is_a_failed_step(tmp_path):
    process = parent(tmp_path, {"bytes": 0, "seconds": 30})
    until(lambda: pids(tmp_path))
    os.kill(pids(tmp_path)[0], signal.SIGKILL)
    out, errors = process.communicate(timeout=60)
    assert "failed: train failed 1 times" in out, errors
    assert "signal 9" in out


@needs_proc
def test_a_child_that_takes_too_much_memory_is_ended(tmp_path):
    process = parent(tmp_path, {"bytes": 600_000_000, "seconds": 30}, memory_gigabytes=0.3)
    out, errors = process.communicate(timeout=60)
    assert "more than lifecycle.retrain.memory_gigabytes, 0.3" in out, errors
    assert all(map(is_gone, pids(tmp_path)))


@needs_proc
def test_a_child_that_takes_too_long_is_ended(tmp_path):
    process = parent(tmp_path, {"bytes": 0, "seconds": 60}, step_hours=2 / 3600)
    out, errors = process.communicate(timeout=60)
    assert "longer than lifecycle.retrain.step_hours" in out, errors
    assert all(map(is_gone, pids(tmp_path)))
