"""Ray Tune runs the real search in a network of its own: the same journal, the same counts, the winner deflated like any other."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from cryptoalpha.lifecycle.tune.ledger import TrialLedger

sys.path.insert(0, str(Path(__file__).parent))
from test_ray import isolated, needed

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SCRIPT = """
import json, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from cryptoalpha.learn.config import RuntimeConfig
from cryptoalpha.lifecycle.tune.journal import Place
from cryptoalpha.lifecycle.tune.search import tune
import line_search
if __name__ == "__main__":
    home = Path({home!r})
    search = line_search.search(home / "diary", diverges_above=0.95)
    place = Place(home, "line")
    runtime = RuntimeConfig(backend="ray", cpus=2)
    found = tune(search, place, home / "trials.sqlite", trials=10, processes=2, ray=runtime)
    again = tune(search, place, home / "trials.sqlite", trials=10, processes=2, ray=runtime)
    print(json.dumps([found.as_dict(), again.as_dict()]))
"""


def test_a_search_on_ray_counts_prunes_and_deflates_like_one_on_processes(tmp_path: Path) -> None:
    needed("ray", "ray.tune", "optuna")
    tests = str(Path(__file__).resolve().parents[1] / "unit" / "lifecycle" / "tune")
    script = tmp_path / "search.py"
    script.write_text(SCRIPT.format(tests=tests, home=str(tmp_path)))
    keep = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    with tempfile.TemporaryDirectory(prefix="x", dir="/tmp") as temporary:
        changed = {"HOME": str(tmp_path), "TMPDIR": temporary, "OMP_NUM_THREADS": "1", "PYTHONPATH": tests}
        done = subprocess.run(
            isolated(f"{shlex.quote(sys.executable)} {shlex.quote(str(script))}"),
            env={**keep, **changed}, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found, again = json.loads(done.stdout.splitlines()[-1])
    assert [row["state"] for row in found["trials"] if row["state"] not in ("judged", "given up", "failed")] == []
    assert len(found["trials"]) == 10
    assert found["trials"][0]["params"] == {"x": 0.9}
    assert {row["folds"] for row in found["trials"] if row["state"] == "judged"} == {3}
    best = found["best"]
    assert best["value"] == pytest.approx((best["params"]["x"] - 0.3) ** 2 + 1.0)
    assert found["deflated"]["trials"] == 10
    assert again["trials"] == found["trials"]
    looks = TrialLedger(tmp_path / "trials.sqlite", now=lambda: 0).looks("d", 0, 1)
    assert looks.trials == 10
    assert looks.states.get("running", 0) == 0
