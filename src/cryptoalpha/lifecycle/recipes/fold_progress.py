"""How far the training of a fold is: told while it runs, and judged once it has ended. Shared by the recipes of all networks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from cryptoalpha.learn.fit import FitProgress, FitReport
from cryptoalpha.lifecycle.recipes.workshop import Workshop

FLAT = 1e-3
"""Share by which a look must lower the best validation loss to count as a fall."""

FLAT_LOOKS = 2
"""Flat looks in a row after which training has converged."""

AFTER_FIT = 800
"""Units of progress (of `workshop.UNITS`) at which the gradients are done."""


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
