"""Where a reading stands among its own past: the kernel under the funding and mood signals.

Windows are in time, not in rows, because readings come at irregular moments; each row looks at what became known in its window only.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from cryptoalpha.store.tables import Floats, Times

MINIMUM_READINGS = 30
"""Readings without which there is no usual level to compare with."""

MINIMUM_SHARE = 0.5
"""Share of the history window that readings must span: a usual level needs more than its last week."""


@njit(cache=True)
def trailing_mean(known_at: Times, value: Floats, window: int) -> Floats:
    """Mean of the readings that became known in (k − window, k], at each reading. `[n]` → `[n]`; NaN readings are left out."""
    n = known_at.size
    out = np.full(n, np.nan)
    first = 0
    for i in range(n):
        while known_at[first] <= known_at[i] - window:
            first += 1
        total, count = 0.0, 0
        for j in range(first, i + 1):
            if np.isfinite(value[j]):
                total += value[j]
                count += 1
        if count > 0:
            out[i] = total / count
    return out


@njit(cache=True)
def trailing_standing(known_at: Times, value: Floats, window: int) -> tuple[Floats, Floats]:
    """z of each reading among those of (k − window, k], and the share of the window its past spans. `[n]` → `[n]`, `[n]`.

    NaN where fewer than `MINIMUM_READINGS` or less than `MINIMUM_SHARE` of the window are known, or nothing ever changed.
    """
    n = known_at.size
    z, share = np.full(n, np.nan), np.full(n, np.nan)
    first = 0
    for i in range(n):
        while known_at[first] <= known_at[i] - window:
            first += 1
        if not np.isfinite(value[i]):
            continue
        total, square, count, oldest = 0.0, 0.0, 0, known_at[i]
        for j in range(i, first - 1, -1):
            if np.isfinite(value[j]):
                d = value[j] - value[i]
                total += d
                square += d * d
                count += 1
                oldest = known_at[j]
        spanned = (known_at[i] - oldest) / window
        if count < MINIMUM_READINGS or spanned < MINIMUM_SHARE:
            continue
        variance = (square - total * total / count) / (count - 1)
        if variance > 0.0:
            z[i] = -(total / count) / math.sqrt(variance)
            share[i] = min(1.0, spanned)
    return z, share
