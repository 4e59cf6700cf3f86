"""The registry is killed (SIGKILL) at every step of registering, promoting, rolling back and collecting: old or new, never half."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "processes" / "registry_kills.py"


def run(what: str, folder: Path):
    done = subprocess.run([sys.executable, str(SCRIPT), what, str(folder)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.lengthy
def test_killed_at_any_step_it_is_the_old_registry_or_the_new_one_and_doing_it_again_ends_the_same(tmp_path):
    kills = run("kill", tmp_path)
    assert set(kills) == {"register", "promote", "rollback", "gc"}
    assert kills["register"] >= 30
    assert min(kills.values()) >= 10  # fewer would mean that the steps are no longer seen


def test_of_promotions_that_expect_the_same_champion_one_wins(tmp_path):
    assert run("race", tmp_path) == [1] * 10
