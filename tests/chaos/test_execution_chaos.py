"""A slice of the chaos suite (`make chaos` runs hundreds), and the proof that its checker catches order paths that are broken.

Each runs in a process of its own, started fresh: lives are forked, and what is forked must have no threads.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cryptoalpha.app.chaos.mutants import MUTANTS


def chaos(*arguments: str) -> tuple[int, Any]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "cryptoalpha.app.chaos", "--json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.mark.lengthy
def test_a_slice_of_schedules_holds_every_promise_and_a_second_start_finds_it_done(tmp_path: Path):
    slice_ = ("--schedules", "2", "--first", "205", "--workers", "1", "--label", "slice", "--keep", str(tmp_path))
    code, found = chaos(*slice_)
    assert found["violations"] == []
    assert code == 0
    assert found["schedules"] == 2
    assert found["kills"] >= 1
    assert found["fills"] >= 4
    verdicts = (tmp_path / "verdicts.jsonl").read_text(encoding="utf-8")
    assert chaos(*slice_)[1] == found
    assert (tmp_path / "verdicts.jsonl").read_text(encoding="utf-8") == verdicts


@pytest.mark.slow
@pytest.mark.parametrize("mutant", sorted(MUTANTS))
def test_a_broken_order_path_is_caught_within_a_dozen_schedules(mutant: str):
    code, found = chaos("--break", mutant, "--schedules", "12", "--first", "60")
    assert code == 0
    assert found["tried"] <= 12
    assert found["violations"]
