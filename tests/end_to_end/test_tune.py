"""`tune forecaster` on a small made-up market: the real verb, the real training, killed for good and gone on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cryptoalpha.app.settings import load_settings
from cryptoalpha.core.time import DAY, parse_time
from cryptoalpha.lifecycle.tune.ledger import TrialLedger

SIZES = (
    "data.simulated.assets=5", "data.simulated.bars=1440", "signals.forecast.horizon_bars=[1, 6]", "learn.evolution.population=8",
    "lifecycle.tune.test_days=6", "lifecycle.tune.train_days=24", "lifecycle.tune.folds=2", "lifecycle.tune.generations=2",
    "lifecycle.tune.startup_trials=3", "lifecycle.tune.unpruned_trials=2", "lifecycle.train.checks_per_epoch=1",
    "nets.evoformer.sequence_width=8", "nets.evoformer.pair_width=4", "nets.evoformer.head_width=4", "nets.evoformer.heads=2",
    "nets.evoformer.pair_heads=1", "nets.evoformer.pair_head_width=4", "nets.evoformer.outer_width=2", "nets.evoformer.blocks=1",
    "lifecycle.train.test_days=6", "lifecycle.train.train_days=24", "lifecycle.train.epochs=1", "lifecycle.train.evolve_generations=2",
    "lifecycle.gates.holdout_days=6",
)  # fmt: skip
COMMAND = [
    sys.executable, "-m", "cryptoalpha.app.cli", "tune", "forecaster", "--simulated", "--preset", "custom", "--json",
    *(f"--set={name}" for name in SIZES),
]  # fmt: skip


def start(home: Path, *more: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CRYPTOALPHA_HOME": str(home)}
    home.mkdir(exist_ok=True)
    with (home / "out").open("wb") as out, (home / "errors").open("wb") as errors:
        return subprocess.Popen([*COMMAND, *more], stdout=out, stderr=errors, env=environment)


def found(home: Path, process: subprocess.Popen[bytes]) -> dict:
    assert process.wait(300) == 0, (home / "errors").read_text()
    return json.loads((home / "out").read_text())["result"]


@pytest.mark.slow
def test_the_winner_is_named_deflated_written_down_and_enters_as_a_challenger(tmp_path: Path) -> None:
    result = found(tmp_path, start(tmp_path, "--trials", "4", "--processes", "1", "--challenger"))
    assert result["counts"]["judged"] + result["counts"]["given up"] == 4
    best = result["best"]
    judged = [row for row in result["trials"] if row["state"] == "judged"]
    assert best["value"] == min(row["value"] for row in judged)
    assert result["deflated"]["trials"] == 4
    assert 0.0 <= result["deflated"]["probability"] <= 1.0
    assert set(result["holdout"]["winner"]) >= {"value", "loss", "rank_ic"}
    config = load_settings(Path(result["config"]))
    params = best["params"]
    assert config.nets.preset == "custom"
    assert config.nets.evoformer.sequence_width == params["heads"] * params["head_width"]
    assert config.nets.evoformer.row_dropout == params["dropout"]
    assert (config.lifecycle.train.batch, config.lifecycle.train.learning_rate) == (params["batch"], params["learning_rate"])
    assert config.learn.evolution.sigma == params["sigma"]
    version = json.loads((tmp_path / "models" / "registry" / "versions" / result["challenger"] / "version.json").read_text())
    assert version["config"]["lifecycle"]["train"]["batch"] == params["batch"]
    assert version["metrics"]["tune_value"] == best["value"]
    assert "<svg" in Path(result["page"]).read_text()
    since, until = parse_time(result["judged"]["since"]), parse_time(result["judged"]["until"])
    assert round((until - since) / DAY) == 12
    unseen = result["holdout"]["until"]  # of 60 days of bars the newest 6 are the gates'; ends are a nanosecond later
    assert until <= unseen == parse_time("2022-01-01") + 54 * DAY + 1
    sources = TrialLedger(tmp_path / "trials.sqlite", now=lambda: 0).looks(None, since, until).sources
    assert sources["tune"] == 4


@pytest.mark.slow
def test_killed_for_good_a_search_goes_on_and_no_trial_is_lost_or_done_twice(tmp_path: Path) -> None:
    journal = tmp_path / "lifecycle" / "studies" / "forecaster.journal"

    def ended_trials() -> int:
        text = journal.read_text(errors="replace") if journal.exists() else ""
        return sum('"op_code":6' in entry and '"state":0' not in entry for entry in text.splitlines())

    for moment in (1, 2, 3):
        process = start(tmp_path, "--trials", "6", "--processes", "2")
        deadline = time.monotonic() + 120
        while ended_trials() < moment and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    result = found(tmp_path, start(tmp_path, "--trials", "6", "--processes", "2"))
    counts = result["counts"]
    assert counts["judged"] + counts["given up"] == 6
    assert counts["running"] == 0
    again = [row for row in result["trials"] if row["state"] == "begun again"]
    assert again, "three kills in the middle of trials leave some to begin again"
    points = [tuple(row["params"].values()) for row in result["trials"] if row["state"] != "begun again"]
    for row in again:
        if len(row["params"]) == 6:
            assert tuple(row["params"].values()) in points
