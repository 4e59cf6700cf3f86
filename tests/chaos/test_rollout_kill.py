"""The canary controller is killed for good (SIGKILL) before and after each call of its book and of the split: the next one goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "processes" / "roll_out.py"
STEPS = [["step", "step", number, True] for number in range(1, 5)]
PROMOTED = [["idle", "shadow", -1, True], ["shadow", "step", 0, True], *STEPS, ["step", "bake", 4, True], ["bake", "promoted", 4, True]]
ROLLED_BACK = [["idle", "shadow", -1, True], ["shadow", "rolled_back", -1, True]]
POINTS = (
    "book.begin",
    "book.lease",
    "book.intend",
    "book.settle",
    "book.keep",
    "split.ensure",
    "split.write",
    "split.read",
    "split.finish",
)
ONLY_ONCE = ("book.begin", "split.ensure", "split.finish")


def run(folder: Path, mode: str, point: str = "book.settle", side: str = "before", count: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), str(folder), mode, point, side, str(count)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def checked(done: subprocess.CompletedProcess[str], mode: str) -> None:
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["stage"] == ("promoted" if mode == "good" else "rolled_back")
    assert found["story"] == (PROMOTED if mode == "good" else ROLLED_BACK)
    assert (found["split"]["stable"], found["split"]["canary"]) == ("new" if mode == "good" else "old", "")
    assert found["split"]["weights"] == {"stable": 1.0}
    assert found["rollouts"] == 1


@pytest.mark.parametrize("mode", ["good", "bad"])
def test_without_a_kill_the_story_is_whole(tmp_path, mode):
    checked(run(tmp_path, mode), mode)


@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("point", POINTS)
@pytest.mark.slow
def test_killed_at_any_call_the_next_one_ends_with_the_same_story(tmp_path, point, side):
    for count in (1,) if point in ONLY_ONCE else (1, 2, 5):
        folder = tmp_path / str(count)
        folder.mkdir()
        killed = run(folder, "good", point, side, count)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        checked(run(folder, "good"), "good")


@pytest.mark.parametrize(
    ("point", "count"), [("book.intend", 1), ("book.settle", 2), ("split.write", 2), ("split.finish", 1)], ids=lambda value: str(value)
)
@pytest.mark.parametrize("side", ["before", "after"])
def test_killed_while_it_rolls_back_the_next_one_rolls_back(tmp_path, point, count, side):
    killed = run(tmp_path, "bad", point, side, count)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    checked(run(tmp_path, "bad"), "bad")


@pytest.mark.slow
def test_killed_over_and_over_it_still_arrives(tmp_path):
    kills = 0
    for count in range(200):
        point = ("book.intend", "split.write", "book.settle")[count // 2 % 3]
        done = run(tmp_path, "good", point, ("before", "after")[count % 2], 1)
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        kills += 1
    checked(done, "good")
    assert kills >= 20
