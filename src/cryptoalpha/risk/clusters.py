"""Which instruments count as one bet: clusters of correlated instruments.

Two instruments whose returns correlate by more than a threshold are linked, and whatever hangs together through links is one cluster
(single linkage, cut at the threshold). Deterministic: labels count from 0 in the order of each cluster's first member, so a renamed or
reordered book gives the same groups.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cryptoalpha.core.errors import ConfigError, DataError


def clusters(correlation: ArrayLike, threshold: float) -> NDArray[np.int64]:
    """Cluster label of each instrument, `[A]`.

    Args:
        correlation: `[A, A]`. NaN counts as linked: what is not known to be apart is not counted as apart. The sign is ignored, because a
            long position in one and a short one in its mirror image are one bet.
        threshold: correlation above which two are linked, 0–1; at 1 everybody is alone (copies of one series included).

    Raises:
        DataError: for a matrix that is not square.
        ConfigError: for a threshold outside 0–1.
    """
    rho = np.asarray(correlation, dtype=np.float64)
    if rho.ndim != 2 or rho.shape[0] != rho.shape[1]:
        raise DataError(f"correlation has shape {rho.shape}, expected [assets, assets]")
    if not 0.0 <= threshold <= 1.0:
        raise ConfigError(f"threshold is {threshold}, expected 0 to 1")
    linked = ~(np.abs(rho) <= threshold)
    linked |= linked.T
    np.fill_diagonal(linked, True)
    n = len(rho)
    first = np.arange(n)  # the lowest member known to be in the cluster of each
    while True:
        lower = np.where(linked, first[None, :], n).min(axis=1, initial=n) if n else first
        lower = lower[lower]
        if np.array_equal(lower, first):
            break
        first = lower
    return np.asarray(np.unique(first, return_inverse=True)[1], dtype=np.int64)
