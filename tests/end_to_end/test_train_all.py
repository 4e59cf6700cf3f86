"""`train all` in miniature, then a backtest with the configuration it wrote: every model it trained is asked and everything decides."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cryptoalpha.app.train_all import STEPS

MARKET = {"data.simulated.bars": 6_400, "data.simulated.assets": 2}
TRAINING = {
    "lifecycle.train.train_days": 75, "lifecycle.train.test_days": 45, "lifecycle.train.epochs": 1,
    "lifecycle.train.evolve_generations": 1, "lifecycle.train.stride_bars": 2, "lifecycle.train.processes": 1, "fusion.warmup_days": 20,
}  # fmt: skip
TRUNK = {
    "sequence_width": 16, "pair_width": 8, "head_width": 8, "heads": 2, "pair_heads": 2, "pair_head_width": 4, "outer_width": 4,
    "blocks": 1,
}  # fmt: skip
GENOME = {"window_bars": 24, "width": 16, "heads": 2, "layers": 1, "pair_width": 8, "pair_heads": 2, "pair_head_width": 4, "outer_width": 4}
SIZES = {f"nets.evoformer.{name}": size for name, size in TRUNK.items()} | {f"nets.genome.{name}": size for name, size in GENOME.items()}


def ran(place: Path, *words: str, **settings: object) -> str:
    told = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    environment = {**os.environ, "CRYPTOALPHA_HOME": str(place / "home"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "cryptoalpha", *words, "--simulated", *told]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_what_train_all_wrote_switches_everything_on(tmp_path: Path) -> None:
    out = tmp_path / "models"
    options = ("--folds", "1", "--earlier", "1", "--preset", "custom", "--out", str(out))
    trained = ran(tmp_path, "train", "all", *options, **MARKET, **TRAINING, **SIZES)
    assert all(f"{step}: trained" in trained for step in STEPS)
    assert (out / "cryptoalpha.yaml").is_file()
    days = ("--since", "2022-09-10", "--until", "2022-09-13")
    told = ran(tmp_path, "backtest", "--config", str(out / "cryptoalpha.yaml"), *days, **MARKET)
    assert "72 bars" in told
    assert "in charge: " in told
    assert "regimes, mean belief: bear" in told
    assert all(f"+ {stage} " in told for stage in ("fusion", "agent", "council", "risk"))
    assert all(member in told for member in ("bootstrap", "garch", "quantiles", "rule"))
