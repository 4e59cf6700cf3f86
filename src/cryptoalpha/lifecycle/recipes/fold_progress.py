"""How far the training of a fold is: begun once, told while it runs, judged when it has ended. Shared by the recipes of all networks."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from cryptoalpha.learn.fit import FitInterrupted, FitProgress, FitReport
from cryptoalpha.lifecycle.recipes.folds import Fold
from cryptoalpha.lifecycle.recipes.workshop import UNITS, Workshop

FLAT = 1e-3
"""Share by which a look must lower the best validation loss to count as a fall."""

FLAT_LOOKS = 2
"""Flat looks in a row after which training has converged."""

AFTER_FIT = 800
"""Units of progress (of `workshop.UNITS`) at which the gradients are done."""


def result_file(shop: Workshop, fold: Fold) -> Path:
    """Where a fold's result lies once it is done."""
    return shop.place / f"result_{fold.number:02d}.safetensors"


def train_once(shop: Workshop, fold: Fold, train: Callable[[], None]) -> None:
    """Train a fold whose result does not lie in the workshop yet, on one thread.

    In a worker process a signal ends it with its checkpoint written: the parent was interrupted, too, and says so.

    Raises:
        FitInterrupted: after Ctrl-C, in this process.
    """
    if result_file(shop, fold).exists():
        shop.tell(fold.number, UNITS, "done")
        return
    torch.set_num_threads(1)
    try:
        train()
    except FitInterrupted:
        if multiprocessing.parent_process() is not None:
            sys.exit(130)
        raise


def converged(validations: npt.NDArray[np.float64]) -> bool:
    """Whether the last two looks lowered the best validation loss by less than a thousandth each."""
    best, flat = np.inf, 0
    for value in validations:
        flat = 0 if not np.isfinite(best) or value < best - FLAT * abs(best) else flat + 1
        best = min(best, float(value))
    return flat >= FLAT_LOOKS


def teller(shop: Workshop, number: int) -> Callable[[FitProgress], None]:
    """Tells the workshop where the gradients of fold `number` stand, whenever that is another unit than before."""
    told = [-1]

    def tell(at: FitProgress) -> None:
        done = 1 + (AFTER_FIT - 1) * at.step // at.steps
        if done > told[0]:
            told[0] = done
            shop.tell(number, done, f"step {at.step} of {at.steps}, loss {at.loss:.3f}, validation {at.validation:.4f}")

    return tell


def windows_seen(report: FitReport, samples: int, batch: int) -> int:
    """Windows that gradients have seen, passes counted."""
    per_epoch = -(-samples // batch)
    return report.steps // per_epoch * samples + report.steps % per_epoch * min(batch, samples)
