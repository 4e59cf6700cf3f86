"""Compiled kernels behind `rolling`; `rolling_plain` is their NumPy twin, the same numbers to the last bit.

The window slides by Welford's update over blocks of places. Each block starts from a two-pass computation of its first window and counts
its values from that window's mean, so an error lives for one block at most and a level of 1e4 under the returns costs no digits. Where
the sum of squares has fallen `FALL`-fold below its peak within the block (a huge value left the window and took the digits with it), the
window is computed anew on the spot. fastmath is off and nothing runs in parallel.

Source: Welford (1962); Chan, Golub & LeVeque (1983).
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from cryptoalpha.monitoring.daily import Floats
from cryptoalpha.monitoring.ratios import FLOOR, NOISE
from cryptoalpha.monitoring.rolling_plain import FALL

COMPILED_WITH = (0.0001, 1e-150, 1.7763568394002505e-15)
"""FALL, FLOOR and NOISE. Numba's cache looks at this file alone: one that changes there must change here too, or old code runs."""


@njit(cache=True, error_model="numpy")
def fresh(x: Floats, end: int, window: int, level: float) -> tuple[float, float, float]:
    """Mean and sum of squares of `x − level` over the window that ends at `end`, and the largest |x| in it."""
    total = 0.0
    for i in range(end - window + 1, end + 1):
        total += x[i] - level
    mean = total / window
    squares, largest = 0.0, 0.0
    for i in range(end - window + 1, end + 1):
        away = (x[i] - level) - mean
        squares += away * away
        largest = max(largest, abs(x[i]))
    return mean, squares, largest


@njit(cache=True, error_model="numpy")
def slide(x: Floats, first: int, last: int, window: int, level: float, mean: Floats, squares: Floats, largest: Floats) -> int:
    """Moments of the windows that end at `first` … `last` − 1; returns where it stopped because the digits ran out, else `last`."""
    m, q, big = fresh(x, first, window, level)
    mean[0], squares[0], largest[0] = m, q, big
    peak, share = q, 1.0 / window
    entering, leaving = x[first + 1 : last], x[first + 1 - window : last - window]
    for k in range(last - first - 1):
        new, old = entering[k] - level, leaving[k] - level
        change, before = new - old, m
        m += change * share
        q += ((new - m) + (old - before)) * change
        peak, big = max(peak, q), max(big, abs(entering[k]))
        if q < FALL * peak:
            return first + 1 + k
        mean[k + 1], squares[k + 1], largest[k + 1] = m, q, big
    return last


@njit(cache=True, error_model="numpy")
def slide_block(x: Floats, first: int, last: int, window: int, mean: Floats, squares: Floats, largest: Floats) -> float:
    """Moments of one block of windows, written from place 0 on; returns the level that `mean` is counted from."""
    level, _, _ = fresh(x, first, window, 0.0)
    at = first
    while at < last:
        k = at - first
        at = slide(x, at, last, window, level, mean[k:], squares[k:], largest[k:])
    return level


@njit(cache=True, error_model="numpy")
def slide_downside(x: Floats, first: int, last: int, window: int, threshold: float, downside: Floats) -> None:
    """Sum of squared shortfalls below the threshold over the windows that end at `first` … `last` − 1; exactly 0 without one."""
    total, peak, count = 0.0, 0.0, 0
    for end in range(first, last):
        if end > first:
            new, old = max(threshold - x[end], 0.0), max(threshold - x[end - window], 0.0)
            total += new * new - old * old
            count += int(new > 0.0) - int(old > 0.0)
            peak = max(peak, total)
        if end == first or total < FALL * peak:
            total, count = 0.0, 0
            for i in range(end - window + 1, end + 1):
                short = max(threshold - x[i], 0.0)
                total += short * short
                count += int(short > 0.0)
            peak = total
        if count == 0:
            total, peak = 0.0, 0.0
        downside[end - first] = total


@njit(cache=True, error_model="numpy")
def volatility(x: Floats, window: int, scale: float, block: int, out: Floats) -> bool:
    """Standard deviation of each window times `scale`, 0 where it is rounding. False if x is not finite."""
    mean, squares, largest = np.empty(block), np.empty(block), np.empty(block)
    fine, share = True, 1.0 / (window - 1)
    for first in range(window - 1, len(x), block):
        last = min(first + block, len(x))
        slide_block(x, first, last, window, mean, squares, largest)
        fine = fine and math.isfinite(squares[last - first - 1])
        rows = out[first:last]
        for k in range(last - first):
            deviation = math.sqrt(squares[k] * share)
            rows[k] = deviation * scale if deviation > max(NOISE * largest[k], FLOOR) else 0.0
    return fine


@njit(cache=True, error_model="numpy")
def sharpe(x: Floats, window: int, rf: float, scale: float, block: int, out: Floats) -> bool:
    """Mean excess over deviation of each window times `scale`, NaN without deviation. False if x is not finite."""
    mean, squares, largest = np.empty(block), np.empty(block), np.empty(block)
    fine, share, slack = True, 1.0 / (window - 1), abs(rf)
    for first in range(window - 1, len(x), block):
        last = min(first + block, len(x))
        level = slide_block(x, first, last, window, mean, squares, largest) - rf
        fine = fine and math.isfinite(squares[last - first - 1])
        rows = out[first:last]
        for k in range(last - first):
            deviation = math.sqrt(squares[k] * share)
            noise = max(NOISE * (largest[k] + slack), FLOOR)
            rows[k] = (level + mean[k]) / deviation * scale if deviation > noise else np.nan
    return fine


@njit(cache=True, error_model="numpy")
def sortino(x: Floats, window: int, mar: float, scale: float, block: int, out: Floats) -> bool:
    """Mean above `mar` over the downside deviation of each window times `scale`, NaN without a shortfall. False if x is not finite."""
    mean, squares, largest, downside = np.empty(block), np.empty(block), np.empty(block), np.empty(block)
    fine, share = True, 1.0 / window
    for first in range(window - 1, len(x), block):
        last = min(first + block, len(x))
        level = slide_block(x, first, last, window, mean, squares, largest) - mar
        slide_downside(x, first, last, window, mar, downside)
        fine = fine and math.isfinite(squares[last - first - 1])
        rows = out[first:last]
        for k in range(last - first):
            deviation = math.sqrt(downside[k] * share)
            noise = max(NOISE * largest[k], FLOOR)
            rows[k] = (level + mean[k]) / deviation * scale if deviation > noise else np.nan
    return fine


@njit(cache=True, error_model="numpy")
def drawdown(x: Floats, window: int, out: Floats) -> None:
    """Deepest drawdown of each window: the end of one stretch of `window` returns joined with the beginning of the next.

    Depths are joined as in `streaming`: the deeper of the two parts, or from the first part's peak to the second part's trough.
    """
    n = len(x)
    ended, deepest = np.ones(window + 1), np.zeros(window + 1)  # of the stretch before: wealth over peak, and depth, from each place on
    for start in range(0, n, window):
        wealth, peak, trough, depth = 1.0, 1.0, 1.0, 0.0
        stop = min(start + window, n)
        for t in range(start, stop):
            wealth *= 1.0 + x[t]
            peak, trough = max(peak, wealth), min(trough, wealth)
            depth = max(depth, 1.0 - wealth / peak)
            if t >= window - 1:
                k = t - start + 1  # the window begins at place k of the stretch before
                out[t] = max(depth, deepest[k], 1.0 - ended[k] * trough)
        if stop - start < window:
            break
        wealth, peak, trough, depth = 1.0, 1.0, 1.0, 0.0
        ended[window], deepest[window] = 1.0, 0.0
        for k in range(window - 1, -1, -1):
            growth = 1.0 + x[start + k]
            wealth *= growth
            peak, trough = max(1.0, growth * peak), min(1.0, growth * trough)
            depth = max(depth, 1.0 - trough)
            ended[k], deepest[k] = wealth / peak, depth
