"""The correlation matrix that the pair head expects, as risk can use it: symmetric, positive definite, ones on its diagonal."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cryptoalpha.core.errors import ModelError

EIGENVALUE_FLOOR = 1e-4
"""Least eigenvalue before the diagonal is brought back to 1. The means of bins, taken pair by pair, need not fit together."""


def bin_centres(bins: int) -> NDArray[np.float64]:
    """Middles of bins of equal width over [−1, 1]."""
    return np.asarray((np.arange(bins) + 0.5) * (2.0 / bins) - 1.0)


def expected_correlation(logits: ArrayLike) -> NDArray[np.float64]:
    """Mean of the bins for each pair, then the nearest thing to it that is a correlation matrix: eigenvalues clipped from below, rows and
    columns scaled to a diagonal of 1.

    Args:
        logits: `[…, N, N, bins]`, as `Forecast.correlation` answers.

    Returns:
        `[…, N, N]` float64.

    Raises:
        ModelError: if a logit is not finite or the axes do not fit.
    """
    x = np.asarray(logits, dtype=np.float64)
    if x.ndim < 3 or x.shape[-2] != x.shape[-3] or not np.isfinite(x).all():
        raise ModelError(f"correlation logits of shape {x.shape} must be finite and [.., N, N, bins]")
    weights = np.exp(x - x.max(axis=-1, keepdims=True))
    mean = (weights * bin_centres(x.shape[-1])).sum(axis=-1) / weights.sum(axis=-1)
    mean = (mean + np.swapaxes(mean, -1, -2)) / 2.0
    place = np.arange(mean.shape[-1])
    mean[..., place, place] = 1.0
    values, vectors = np.linalg.eigh(mean)
    clipped = (vectors * np.maximum(values, EIGENVALUE_FLOOR)[..., None, :]) @ np.swapaxes(vectors, -1, -2)
    scale = 1.0 / np.sqrt(clipped[..., place, place])
    matrix = clipped * scale[..., :, None] * scale[..., None, :]
    matrix = (matrix + np.swapaxes(matrix, -1, -2)) / 2.0
    matrix[..., place, place] = 1.0
    return np.asarray(matrix)
