"""A small gradient training for processes that train together; one of them dies, or fails, on purpose."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cryptoalpha.core.errors import ModelError
from cryptoalpha.learn.config import FitConfig
from cryptoalpha.learn.fit import TensorSamples, World, fit

# 203 samples: 26 steps per epoch, the last of 3 samples
CONFIG = FitConfig(learning_rate=0.02, batch=8, epochs=2, checkpoint_seconds=1e-9, patience=5)


def train(folder: str, world: World) -> dict[str, Any]:
    """Weights, losses and where it went on. With a file `die` or `fail` in the folder, rank 1 does so in its 40th step."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(203, 5, generator=generator)
    y = torch.tanh(x @ torch.randn(5, 1, generator=generator))
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(5, 24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, 1))
    home, steps = Path(folder), 0
    with (home / f"began {world.rank}").open("a") as began:
        began.write("x")

    def loss(model: nn.Module, batch: Any) -> torch.Tensor:
        nonlocal steps
        steps += 1
        if steps == 40 and world.rank == 1 and (home / "die").exists():
            (home / "die").unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        if steps == 40 and world.rank == 1 and (home / "fail").exists():
            raise ModelError("a bad batch", hint="look at it")
        mean: torch.Tensor = ((model(batch[0]) - batch[1]) ** 2).mean()
        return mean

    report = fit(model, loss, TensorSamples(x, y), config=CONFIG, seed=9, checkpoint=home / "run.fit", world=world)
    weights = {name: value.numpy().tobytes().hex() for name, value in model.state_dict().items()}
    return {"weights": weights, "losses": report.losses.tolist(), "resumed at": report.resumed_at}
