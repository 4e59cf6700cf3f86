"""`train forecaster` is killed for good (SIGKILL) at several moments: never half a model, and what is left ends with the same bits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

COMMAND = [
    sys.executable, "-m", "cryptoalpha.app.cli", "train", "forecaster", "--simulated", "--preset", "custom", "--folds", "2", "--json",
    *(f"--set={name}" for name in (
        "data.simulated.assets=5", "data.simulated.bars=1440", "signals.forecast.horizon_bars=[1, 6]", "lifecycle.train.test_days=6",
        "lifecycle.train.train_days=24", "lifecycle.train.epochs=2", "lifecycle.train.evolve_generations=3", "learn.evolution.population=8",
        "learn.fit.checkpoint_seconds=0.001", "lifecycle.train.processes=2",
        "nets.evoformer.sequence_width=8", "nets.evoformer.pair_width=4",
        "nets.evoformer.head_width=4", "nets.evoformer.heads=2", "nets.evoformer.pair_heads=1", "nets.evoformer.pair_head_width=4",
        "nets.evoformer.outer_width=2", "nets.evoformer.blocks=1",
    )),
]  # fmt: skip


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def train(out: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CRYPTOALPHA_HOME": str(out.parent / "home")}
    with said(out).open("wb") as errors:
        return subprocess.Popen([*COMMAND, "--out", str(out)], stdout=subprocess.DEVNULL, stderr=errors, env=environment)


def said(out: Path) -> Path:
    """What the last training of `out` said on stderr."""
    return out.with_name(f"{out.name}.stderr")


def wait_for(found, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while not found() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)


@pytest.mark.slow
def test_killed_for_good_it_leaves_no_half_model_and_goes_on(tmp_path):
    whole = train(tmp_path / "whole")
    assert whole.wait(300) == 0, said(tmp_path / "whole").read_text()
    out, place = tmp_path / "killed", tmp_path / "killed.partial"
    moments = (
        lambda: (place / "fit_00.checkpoint").exists(),
        lambda: any(place.glob("result_*.safetensors")),
        lambda: (place / "model" / "report.html").exists() or out.exists(),
    )
    for moment in moments:
        process = train(out)
        wait_for(moment, process)
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        if out.exists():
            assert contents(out).keys() == contents(tmp_path / "whole").keys()  # it was quicker than the signal
        time.sleep(1.0)  # its workers end by themselves when it is gone
    last = train(out)
    assert last.wait(300) == 0, said(out).read_text()
    assert contents(out) == contents(tmp_path / "whole")
    assert not place.exists()


@pytest.mark.slow
def test_ctrl_c_says_interrupted_and_leaves_a_checkpoint(tmp_path):
    out = tmp_path / "stopped"
    process = train(out)
    wait_for(lambda: any((tmp_path / "stopped.partial").glob("fit_*.checkpoint")), process)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert "Traceback" not in said(out).read_text()
    assert not out.exists()
    assert any((tmp_path / "stopped.partial").glob("fit_*.checkpoint"))
