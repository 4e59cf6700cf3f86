"""Ranks instead of fitness values: an outlier moves an update no more than any best member does, and the scale of the goal does not matter.

Source: Wierstra et al. (2014), "Natural evolution strategies" (fitness shaping); Salimans et al. (2017), arXiv 1703.03864 (centred ranks).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def centred_ranks(fitness: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks of all values, spread evenly over [−½, ½], in the shape of `fitness`; equal values share the mean of their ranks.

    A single value has rank 0. Infinite values are ranked like others; NaN must have been refused before.
    """
    flat = fitness.reshape(-1)
    if flat.size < 2:
        return np.zeros_like(fitness, dtype=np.float64)
    _, group, size = np.unique(flat, return_inverse=True, return_counts=True)
    twice = 2 * np.cumsum(size) - size - flat.size  # twice the mean rank less its centre: whole numbers, so that ranks mirror exactly
    return (twice[group] / (2.0 * (flat.size - 1))).reshape(fitness.shape)
