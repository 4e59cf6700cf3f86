"""What training says while it runs, and what it says at the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class FitProgress:
    """Where training stands."""

    step: int
    """Steps done."""

    steps: int
    """Steps at most; early stopping may end before."""

    epoch: int
    """Epochs completed."""

    loss: float
    """Loss of the last step."""

    validation: float
    """Last value on validation samples; NaN before the first."""

    steps_per_second: float
    """Since training began or resumed in this process."""

    seconds_left: float
    """Until the last step at that pace."""


Progress = Callable[[FitProgress], None]
"""Told where training stands, in the process of rank 0 only."""


@dataclass(frozen=True, eq=False)
class FitReport:
    """What came of a training run. The model holds the weights of `best_step`."""

    losses: NDArray[np.float64]
    """Mean loss of the batch of each step, before the step: `[steps]`."""

    validations: NDArray[np.float64]
    """Value on validation samples at each check: `[checks]`; empty without validation."""

    best_step: int
    """Steps after which the weights in the model were reached: those of the best validation, else the last."""

    stopped: Literal["epochs", "patience"]
    """Why training ended."""

    resumed_at: int
    """Steps that a checkpoint had already done; 0 for a run that began here."""

    checkpoint: Path | None
    """Where the finished run lies."""

    @property
    def steps(self) -> int:
        """Steps done, over all interruptions."""
        return len(self.losses)


class FitInterrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM ended training between two steps; the checkpoint, if there is one, holds everything up to there."""

    def __init__(self, step: int, checkpoint: Path | None) -> None:
        kept = f"resume from {checkpoint}" if checkpoint else "no checkpoint was asked for, so nothing is kept"
        super().__init__(f"training was interrupted after step {step}: {kept}")
        self.step, self.checkpoint = step, checkpoint
