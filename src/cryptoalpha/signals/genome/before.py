"""Statistics of the rows before a row: what a token compares its bar with.

A series is `[n]` on a regular grid; NaN marks a row without a value. What row t is compared with are the rows t − window … t − 1, never row
t itself; a result is NaN unless `MINIMUM_SHARE` of them carry values. Rows before the start count as absent, and sums run in a fixed order,
so a row is the same to the last bit wherever the series begins, as long as its window is whole. Rows before `first` are looked at, not
answered.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from cryptoalpha.signals.rolling import MINIMUM_SHARE
from cryptoalpha.store.tables import Floats, Times

MAD_TO_DEVIATION = 1.4826
"""Median distance from the median → standard deviation, for normal data."""

_TOLERANCE = 1.0 - 1e-12


@njit(cache=True)
def _place(values: Floats, size: int, x: float) -> int:
    """How many of the first `size` values, ascending, lie below x."""
    low, high = 0, size
    while low < high:
        middle = (low + high) // 2
        if values[middle] < x:
            low = middle + 1
        else:
            high = middle
    return low


@njit(cache=True)
def _slide(values: Floats, size: int, x: Floats, t: int, window: int) -> int:
    """Bring the sorted values of rows t − 1 − window … t − 2 to those of row t: one leaves, one enters. The new size."""
    if t - 1 - window >= 0 and np.isfinite(x[t - 1 - window]):
        place = _place(values, size, x[t - 1 - window])
        for k in range(place, size - 1):
            values[k] = values[k + 1]
        size -= 1
    if t >= 1 and np.isfinite(x[t - 1]):
        place = _place(values, size, x[t - 1])
        for k in range(size, place, -1):
            values[k] = values[k - 1]
        values[place] = x[t - 1]
        size += 1
    return size


@njit(cache=True)
def _median(values: Floats, size: int) -> float:
    """Median of the first `size` values, ascending."""
    return float(0.5 * (values[(size - 1) // 2] + values[size // 2]))


@njit(cache=True)
def robust_z(here: Floats, x: Floats, window: int, least_scale: float, first: int = 0) -> Floats:
    """Distance of `here` from the median of the rows of `x` before it, in 1.4826 median distances of those rows. `[n]`, `[n]` → `[n]`.

    The scale is `least_scale` at least. Where it is 0, a value equal to the median is 0 and any other infinitely far.
    """
    n = x.size
    out = np.full(n, np.nan)
    values, distances = np.empty(window + 1), np.empty(window + 1)
    size = 0
    begin = max(0, first - window)  # rows before it are in no window that is asked for
    x = x[begin:]
    for t in range(begin, n):
        size = _slide(values, size, x, t - begin, window)
        if t < first or np.isnan(here[t]) or size < MINIMUM_SHARE * window * _TOLERANCE:
            continue
        median = _median(values, size)
        for k in range(size):
            distances[k] = abs(values[k] - median)
        ordered = np.sort(distances[:size])
        scale = max(MAD_TO_DEVIATION * _median(ordered, size), least_scale)
        if scale > 0.0:
            out[t] = (here[t] - median) / scale
        elif here[t] == median:
            out[t] = 0.0
        else:
            out[t] = math.copysign(np.inf, here[t] - median)
    return out


@njit(cache=True)
def percentile(x: Floats, window: int, percent: int, first: int = 0) -> Floats:
    """The smallest value of the rows before that at least `percent` of a hundred of them do not exceed. `[n]` → `[n]`.

    A value that occurred, not one between two: nothing is rounded.
    """
    n = x.size
    out = np.full(n, np.nan)
    values = np.empty(window + 1)
    size = 0
    begin = max(0, first - window)  # rows before it are in no window that is asked for
    x = x[begin:]
    for t in range(n - begin):
        size = _slide(values, size, x, t, window)
        if begin + t < first:
            continue
        if size >= MINIMUM_SHARE * window * _TOLERANCE and size > 0:
            out[begin + t] = values[max(0, (percent * size + 99) // 100 - 1)]
    return out


@njit(cache=True)
def highest(x: Floats, window: int, first: int = 0) -> Floats:
    """Largest value of the rows before. `[n]` → `[n]`. The smallest is −highest(−x)."""
    n = x.size
    out = np.full(n, np.nan)
    for t in range(first, n):
        count, top = 0, -np.inf
        for j in range(max(0, t - window), t):
            if np.isfinite(x[j]):
                count += 1
                top = max(top, x[j])
        if count >= MINIMUM_SHARE * window * _TOLERANCE and count > 0:
            out[t] = top
    return out


@njit(cache=True)
def mean_between(known_at: Times, x: Floats, begins: Times, ends: Times) -> Floats:
    """Mean of the values that became known in (begin, end] of each row, oldest first. `[m]`, `[m]`, `[n]`, `[n]` → `[n]`; NaN if none."""
    out = np.full(ends.size, np.nan)
    for t in range(ends.size):
        first = np.searchsorted(known_at, begins[t], side="right")
        total, count = 0.0, 0
        for i in range(first, known_at.size):
            if known_at[i] > ends[t]:
                break
            total += x[i]
            count += 1
        if count > 0:
            out[t] = total / count
    return out
