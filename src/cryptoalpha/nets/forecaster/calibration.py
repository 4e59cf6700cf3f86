"""Confidence that means what it says: one temperature, fitted on validation bars after training.

Source: Guo et al. (2017), "On calibration of modern neural networks".
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from cryptoalpha.core.errors import DataError

COLDEST, HOTTEST = 0.05, 20.0
"""Temperatures that are tried. A call that is never wrong would ask for 0, one that says nothing for ∞."""

_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0


def calibrate_temperature(logits: ArrayLike, hits: ArrayLike) -> float:
    """Temperature T, .05 to 20, at which sigmoid(logits / T) has the least cross-entropy against what happened.

    The loss is convex in 1/T, so it has one valley, which golden-section search over ln T finds to 1e-6. Where not a finite pair is
    given, 1.

    Args:
        logits: confidence at temperature 1, any shape.
        hits: 1 or True where the call was right, same shape; NaN where it is not known.

    Raises:
        DataError: if the shapes differ.
    """
    x, y = np.asarray(logits, dtype=np.float64), np.asarray(hits, dtype=np.float64)
    if x.shape != y.shape:
        raise DataError(f"{x.shape} logits for {y.shape} hits")
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    if not x.size:
        return 1.0
    low, high = math.log(COLDEST), math.log(HOTTEST)
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = cross_entropy_at(x, y, math.exp(left)), cross_entropy_at(x, y, math.exp(right))
    while high - low > 1e-6:
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = cross_entropy_at(x, y, math.exp(left))
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = cross_entropy_at(x, y, math.exp(right))
    return math.exp((low + high) / 2.0)


def cross_entropy_at(logits: ArrayLike, hits: ArrayLike, temperature: float) -> float:
    """Mean cross-entropy of sigmoid(logits / temperature) against hits (0 or 1)."""
    x = np.asarray(logits, dtype=np.float64) / temperature
    return float(np.mean(np.logaddexp(0.0, x) - np.asarray(hits, dtype=np.float64) * x))
