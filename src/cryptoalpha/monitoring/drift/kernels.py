"""Compiled twins of the detectors' `update`, for simulation: the same operations in the same order, so the same bits.

Each kernel takes a series `[n]` and returns the statistic after each value, from a fresh start. Importing this module imports numba (a
second), so detectors do it on first use.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from cryptoalpha.monitoring.daily import Floats


@njit(cache=True)
def cusum_statistics(values: Floats, slack: float, up: bool, down: bool) -> Floats:
    """Twin of `Cusum.update`."""
    out = np.empty(values.size)
    high = 0.0
    low = 0.0
    for i in range(values.size):
        if up:
            high = max(0.0, high + values[i] - slack)
        if down:
            low = max(0.0, low - values[i] - slack)
        out[i] = max(high, low)
    return out


@njit(cache=True)
def page_hinkley_statistics(values: Floats, slack: float, up: bool, down: bool, least: int) -> Floats:
    """Twin of `PageHinkley.update`."""
    out = np.empty(values.size)
    mean = 0.0
    high = 0.0
    low = 0.0
    for i in range(values.size):
        mean += (values[i] - mean) / (i + 1.0)
        deviation = values[i] - mean
        if up:
            high = max(0.0, high + deviation - slack)
        if down:
            low = max(0.0, low - deviation - slack)
        out[i] = max(high, low) if i + 1 >= least else 0.0
    return out


@njit(cache=True)
def e_statistics(values: Floats, expected: Floats, bet: float, below: bool) -> Floats:
    """Twin of `EDetector.update`."""
    out = np.empty(values.size)
    wealth = 0.0
    for i in range(values.size):
        gap = expected[i] - values[i] if below else values[i] - expected[i]
        wealth = (wealth + 1.0) * (1.0 + bet * gap)
        out[i] = wealth
    return out


@njit(cache=True)
def adwin_statistics(values: Floats, clock: int, most: int, least: int, grace: int) -> Floats:
    """Twin of `Adwin.update`. Rows of buckets: row `r` holds up to `most` + 1 buckets of 2^r values, oldest first."""
    out = np.empty(values.size)
    totals = np.zeros((64, most + 1))
    spreads = np.zeros((64, most + 1))
    filled = np.zeros(64, dtype=np.int64)
    rows = 1
    total = 0.0
    spread = 0.0
    found = 0.0
    for i in range(values.size):
        value = values[i]
        width = i + 1.0
        if i > 0:
            gap = value - total / (width - 1.0)
            spread += (width - 1.0) * gap * gap / width
        total += value
        totals[0, filled[0]] = value
        spreads[0, filled[0]] = 0.0
        filled[0] += 1
        row = 0
        while filled[row] == most + 1:  # merge the two oldest into one of twice the size
            size = 2.0**row
            gap = totals[row, 0] / size - totals[row, 1] / size
            merged = spreads[row, 0] + spreads[row, 1] + size * size * gap * gap / (size + size)
            if row + 1 == rows:
                rows += 1
            totals[row + 1, filled[row + 1]] = totals[row, 0] + totals[row, 1]
            spreads[row + 1, filled[row + 1]] = merged
            filled[row + 1] += 1
            for k in range(2, most + 1):
                totals[row, k - 2] = totals[row, k]
                spreads[row, k - 2] = spreads[row, k]
            filled[row] -= 2
            row += 1
        if (i + 1) % clock == 0 and width > grace:
            found = 0.0
            before = 0.0
            before_total = 0.0
            for back in range(rows):
                row = rows - 1 - back
                size = 2.0**row
                for k in range(filled[row]):
                    before += size
                    before_total += totals[row, k]
                    after = width - before
                    if before >= least and after >= least:
                        gap = abs(before_total / before - (total - before_total) / after)
                        m = 1.0 / (before - least + 1.0) + 1.0 / (after - least + 1.0)
                        noise = 2.0 * m * (spread / width)
                        root = (math.sqrt(noise + 8.0 / 3.0 * m * gap) - math.sqrt(noise)) / (4.0 / 3.0 * m)
                        found = max(found, root * root - math.log(2.0 * math.log(width)))
        out[i] = found
    return out


@njit(cache=True)
def whitened(
    values: Floats, slope: float, centre: float, usual: float, reaction: float, memory: float, variance: float, clip: float
) -> Floats:
    """Twin of `Baseline.update`: `[n]` values → `[n − 1]` standardised surprises, before their own mean and spread are taken out."""
    out = np.empty(max(values.size - 1, 0))
    for i in range(1, values.size):
        surprise = values[i] - centre - slope * (values[i - 1] - centre)
        z = surprise / math.sqrt(variance)
        out[i - 1] = min(max(z, -clip), clip)
        variance = (1.0 - reaction - memory) * usual + reaction * (surprise * surprise) + memory * variance
    return out


@njit(cache=True)
def volatility_misfit(surprises: Floats, usual: float, reaction: float, memory: float) -> float:
    """Mean of ln v + s² / v, the Gaussian likelihood of a running variance: the smaller the better it foresees the surprises `[n]`."""
    variance = usual
    total = 0.0
    for i in range(surprises.size):
        square = surprises[i] * surprises[i]
        total += math.log(variance) + square / variance
        variance = (1.0 - reaction - memory) * usual + reaction * square + memory * variance
    return total / surprises.size


@njit(cache=True)
def running_variance(surprises: Floats, usual: float, reaction: float, memory: float) -> float:
    """Twin of `Baseline.update`: the running variance after surprises `[n]`."""
    variance = usual
    for i in range(surprises.size):
        variance = (1.0 - reaction - memory) * usual + reaction * (surprises[i] * surprises[i]) + memory * variance
    return variance
