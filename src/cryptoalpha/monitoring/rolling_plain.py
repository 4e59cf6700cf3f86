"""The NumPy twin of `rolling_kernels`: the same steps on the same numbers, all blocks of a series side by side.

It exists to check the kernels a second way and to say in plain array operations what they compute; `rolling` explains the measures.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cryptoalpha.monitoring.daily import Floats
from cryptoalpha.monitoring.ratios import FLOOR, NOISE

FALL = 1e-4
"""Share of its peak below which a sliding sum of squares is computed anew: at least nine digits are left wherever it is kept.
Compiled into the kernels: after changing it, touch `rolling_kernels.py`, whose compiled code on disk is known by that file alone."""

BLOCK = 8192
"""Places per block, at least; four windows if that is more, so that starting afresh costs at most half a window's work per window."""

Places = NDArray[np.int64]


def block_of(window: int) -> int:
    """Places per block for this window."""
    return max(BLOCK, 4 * window)


def _windows(x: Floats, ends: Places, window: int) -> Floats:
    return np.asarray(x[ends[:, None] - window + 1 + np.arange(window)], dtype=np.float64)  # [ends, window]


def _sums(values: Floats) -> Floats:
    """Row sums, added from left to right as a loop would."""
    return np.asarray(np.add.accumulate(values, axis=1)[:, -1], dtype=np.float64)


def fresh(x: Floats, ends: Places, window: int, level: Floats) -> tuple[Floats, Floats, Floats]:
    """Mean and sum of squares of `x − level` over the windows that end there, and the largest |x| in each."""
    values = _windows(x, ends, window)
    away = values - level[:, None]
    mean = _sums(away) / window
    return mean, _sums((away - mean[:, None]) ** 2), np.max(np.abs(values), axis=1)


def slide(x: Floats, window: int, block: int) -> tuple[Floats, Floats, Floats]:
    """Mean, sum of squares and largest |x| of every full window, each `[n − window + 1]`, means in two parts `[2, …]`: level and rest."""
    first = np.arange(window - 1, x.size, block)
    level = fresh(x, first, window, np.zeros(first.size))[0]
    m, q, big = fresh(x, first, window, level)
    peak, share = q.copy(), 1.0 / window
    mean, squares, largest = (np.empty(x.size - window + 1) for _ in range(3))
    for k in range(min(block, x.size - window + 1)):
        ends = first[first + k < x.size] + k
        n = ends.size
        if k:
            new, old = x[ends] - level[:n], x[ends - window] - level[:n]
            change, before = new - old, m[:n]
            m = before + change * share
            q = q[:n] + ((new - m) + (old - before)) * change
            peak, big = np.maximum(peak[:n], q), np.maximum(big[:n], np.abs(x[ends]))
            spent = np.flatnonzero(q < FALL * peak)
            if spent.size:
                m[spent], q[spent], big[spent] = fresh(x, ends[spent], window, level[spent])
                peak[spent] = q[spent]
        mean[ends - window + 1], squares[ends - window + 1], largest[ends - window + 1] = m[:n], q[:n], big[:n]
    return np.stack((np.repeat(level, block)[: mean.size], mean)), squares, largest


def downside(x: Floats, window: int, threshold: float, block: int) -> Floats:
    """Sum of squared shortfalls below the threshold over every full window; exactly 0 without one."""
    short = np.maximum(threshold - x, 0.0)
    first = np.arange(window - 1, x.size, block)
    out = np.empty(x.size - window + 1)
    total = peak = np.zeros(first.size)
    below = np.concatenate(([0], np.cumsum(short > 0.0)))
    for k in range(min(block, out.size)):
        ends = first[first + k < x.size] + k
        n = ends.size
        if k:
            new, old = short[ends], short[ends - window]
            total = total[:n] + (new * new - old * old)
        peak = np.maximum(peak[:n], total)
        spent = np.flatnonzero(total < FALL * peak) if k else np.arange(n)
        total[spent] = _sums(_windows(short, ends[spent], window) ** 2)
        peak[spent] = total[spent]
        nothing = below[ends + 1] == below[ends + 1 - window]
        total[nothing] = peak[nothing] = 0.0
        out[ends - window + 1] = total
    return out


def sharpe(x: Floats, window: int, rf: float, scale: float, block: int, out: Floats) -> None:
    """As `rolling_kernels.sharpe`."""
    (level, mean), squares, largest = slide(x, window, block)
    deviation = np.sqrt(squares * (1.0 / (window - 1)))
    noise = np.maximum(NOISE * (largest + abs(rf)), FLOOR)
    with np.errstate(divide="ignore", invalid="ignore"):
        out[window - 1 :] = np.where(deviation > noise, ((level - rf) + mean) / deviation * scale, np.nan)


def volatility(x: Floats, window: int, scale: float, block: int, out: Floats) -> None:
    """As `rolling_kernels.volatility`."""
    _, squares, largest = slide(x, window, block)
    deviation = np.sqrt(squares * (1.0 / (window - 1)))
    out[window - 1 :] = np.where(deviation > np.maximum(NOISE * largest, FLOOR), deviation * scale, 0.0)


def sortino(x: Floats, window: int, mar: float, scale: float, block: int, out: Floats) -> None:
    """As `rolling_kernels.sortino`."""
    (level, mean), _, largest = slide(x, window, block)
    deviation = np.sqrt(downside(x, window, mar, block) * (1.0 / window))
    noise = np.maximum(NOISE * largest, FLOOR)
    with np.errstate(divide="ignore", invalid="ignore"):
        out[window - 1 :] = np.where(deviation > noise, ((level - mar) + mean) / deviation * scale, np.nan)


def drawdown(x: Floats, window: int, out: Floats) -> None:
    """As `rolling_kernels.drawdown`: rows are stretches of `window` returns, each window the end of one and the beginning of the next."""
    rows = -(-x.size // window)
    growth = np.ones((rows + 1, window))
    growth[1:].reshape(-1)[: x.size] = 1.0 + x  # a first row without moves stands for what was before the start
    wealth = np.cumprod(growth, axis=1)
    peak = np.maximum.accumulate(np.maximum(wealth, 1.0), axis=1)
    trough = np.minimum.accumulate(np.minimum(wealth, 1.0), axis=1)
    depth = np.maximum.accumulate(np.maximum(1.0 - wealth / peak, 0.0), axis=1)
    ended, deepest = np.ones((rows + 1, window + 1)), np.zeros((rows + 1, window + 1))
    total, high, low, deep = np.ones(rows + 1), np.ones(rows + 1), np.ones(rows + 1), np.zeros(rows + 1)
    for k in range(window - 1, -1, -1):
        total = total * growth[:, k]
        high, low = np.maximum(1.0, growth[:, k] * high), np.minimum(1.0, growth[:, k] * low)
        deep = np.maximum(deep, 1.0 - low)
        ended[:, k], deepest[:, k] = total / high, deep
    joined = np.maximum(np.maximum(depth[1:], deepest[:-1, 1:]), 1.0 - ended[:-1, 1:] * trough[1:])
    out[window - 1 :] = joined.reshape(-1)[window - 1 : x.size]
