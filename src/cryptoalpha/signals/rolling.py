"""Causal windows over one series with gaps: the kernels under every price feature.

A series is `[n]` on a regular grid; NaN marks a row without a value. Every function here keeps three promises:

- Row t depends on the rows of its window alone (at most `window` rows ending at t), in an order fixed by their place in the window. So
  appending rows changes no earlier value, and cutting the front changes none whose window is still whole, bit for bit.
- A row without a value has no result. A window counts if at least `MINIMUM_SHARE` of it (of its weight, where weights are given) carries
  values, and is then computed over those; rows before the start count as absent.
- No result is infinite.

Exponential averages are cut off after `CUTOFF_HALF_LIVES` half-lives (0.4 % of the weight) and renormalised: that is what gives them a
bounded memory, hence the first promise. Sums run over eight lanes so that the compiler can keep them in vector registers.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from numba import njit

Floats = npt.NDArray[np.float64]

MINIMUM_SHARE = 0.8
"""Share of a window that must carry values (0–1). An outage of a fifth of a window leaves statistics usable; a longer one misleads."""

CUTOFF_HALF_LIVES = 8
"""Half-lives after which an exponential average forgets: 2⁻⁸ of the weight is dropped, and warm-up stays bounded."""

_LANES = 8
_TOLERANCE = 1.0 - 1e-12
_PERFECT_FIT = 1e-12


def half_life_weights(half_life: float) -> Floats:
    """Weights 2^(−i/half_life), newest first, over `CUTOFF_HALF_LIVES` half-lives, scaled to sum to one."""
    return _half_life_weights(half_life).copy()


@lru_cache(maxsize=256)
def _half_life_weights(half_life: float) -> Floats:
    """A live bar asks for the same dozen some hundred times."""
    ages = range(math.ceil(CUTOFF_HALF_LIVES * half_life))
    weights = np.array([0.5 ** (age / half_life) for age in ages])
    return weights / math.fsum(weights)


def span_weights(span: float) -> Floats:
    """Weights of the exponential average usually called EMA `span`: α = 2 / (span + 1)."""
    return half_life_weights(math.log(2.0) / math.log((span + 1.0) / (span - 1.0)))


def wilder_weights(period: float) -> Floats:
    """Weights of Wilder's smoothing: α = 1 / period."""
    return half_life_weights(math.log(2.0) / math.log(period / (period - 1.0)))


def flat_weights(window: int) -> Floats:
    """Equal weights: with them `weighted_mean` is the plain rolling mean."""
    return np.full(window, 1.0 / window)


def slope_of_sum_weights(window: int) -> Floats:
    """Weights on the last increments that give the least-squares slope of their running sum over `window` points, scaled to sum to one.

    The slope of y over time is Σ (j − j̄) yⱼ / Σ (j − j̄)²; with yⱼ the sum of increments up to j, increment i enters with
    Σ_{j ≥ i} (j − j̄), which is i (window − i) / 2. The oldest point of the window contributes no increment.
    """
    place = np.arange(window - 1, 0, -1, dtype=np.float64)
    weights = place * (window - place)
    return np.asarray(weights / weights.sum(), np.float64)


@njit(cache=True)
def _dot(weights: Floats, values: Floats, start: int) -> float:
    """Sum of weights × values[start:], over fixed lanes."""
    w = weights.size
    whole = w - w % _LANES
    a = b = c = d = e = f = g = h = 0.0
    for j in range(0, whole, _LANES):
        i = start + j
        a += weights[j] * values[i]
        b += weights[j + 1] * values[i + 1]
        c += weights[j + 2] * values[i + 2]
        d += weights[j + 3] * values[i + 3]
        e += weights[j + 4] * values[i + 4]
        f += weights[j + 5] * values[i + 5]
        g += weights[j + 6] * values[i + 6]
        h += weights[j + 7] * values[i + 7]
    for j in range(whole, w):
        a += weights[j] * values[start + j]
    return ((a + b) + (c + d)) + ((e + f) + (g + h))


@njit(cache=True)
def weighted_mean(x: Floats, weights: Floats, first: int = 0) -> Floats:
    """Mean of the last rows under non-negative `weights`, newest first: exponential, Wilder, flat or any other. `[n]`, `[w]` → `[n]`.

    Rows before `first` are looked at and not averaged: NaN. A live bar asks for one row of a window of thousands.
    """
    n, w = x.size, weights.size
    out = np.full(n, np.nan)
    oldest_first = weights[::-1].copy()
    value = np.zeros(n + w - 1)  # rows before the start lie in front as absent ones
    there = np.zeros(n + w - 1)
    begin = max(0, first - w + 1)  # rows before it are in no window that is asked for
    for t in range(begin, n):
        if np.isfinite(x[t]):
            value[w - 1 + t] = x[t]
            there[w - 1 + t] = 1.0
    total = _dot(oldest_first, np.ones(w), 0)
    count = 0
    for t in range(begin, n):
        if there[w - 1 + t] > 0.0:
            count += 1
        if t > 0 and there[t - 1] > 0.0:
            count -= 1
        if t < first or there[w - 1 + t] == 0.0:
            continue
        weight = total if count == w else _dot(oldest_first, there, t)
        if weight >= MINIMUM_SHARE * total * _TOLERANCE:
            out[t] = _dot(oldest_first, value, t) / weight
    return out


@njit(cache=True)
def mean_and_deviation(x: Floats, window: int, first: int = 0) -> tuple[Floats, Floats]:
    """Rolling mean and standard deviation (n − 1). `[n]` → `[n]`, `[n]`; a constant window has a deviation of exactly 0.

    Values enter as differences from the newest one, which keeps constant windows exact and large offsets harmless. Rows
    before `first`: NaN.
    """
    n = x.size
    mean, deviation = np.full(n, np.nan), np.full(n, np.nan)
    for t in range(max(0, first), n):
        if not np.isfinite(x[t]):
            continue
        here, count, total, square = x[t], 0, 0.0, 0.0
        for j in range(max(0, t - window + 1), t + 1):
            if np.isfinite(x[j]):
                d = x[j] - here
                count += 1
                total += d
                square += d * d
        if count >= 2 and count >= MINIMUM_SHARE * window * _TOLERANCE:
            mean[t] = here + total / count
            deviation[t] = math.sqrt(max(0.0, square - total * total / count) / (count - 1))
    return mean, deviation


@njit(cache=True)
def mean_absolute_deviation(x: Floats, window: int) -> tuple[Floats, Floats]:
    """Rolling mean distance from the mean, and the newest value's signed distance. `[n]` → `[n]`, `[n]`."""
    n = x.size
    spread, distance = np.full(n, np.nan), np.full(n, np.nan)
    for t in range(n):
        if not np.isfinite(x[t]):
            continue
        first, here, count, total = max(0, t - window + 1), x[t], 0, 0.0
        for j in range(first, t + 1):
            if np.isfinite(x[j]):
                count += 1
                total += x[j] - here
        if count < MINIMUM_SHARE * window * _TOLERANCE:
            continue
        centre, off = total / count, 0.0
        for j in range(first, t + 1):
            if np.isfinite(x[j]):
                off += abs(x[j] - here - centre)
        spread[t] = off / count
        distance[t] = -centre
    return spread, distance


@njit(cache=True)
def rolling_maximum(x: Floats, window: int) -> Floats:
    """Largest value of each window. `[n]` → `[n]`. The minimum of x is −maximum(−x)."""
    n = x.size
    out = np.full(n, np.nan)
    queue = np.empty(n, np.int64)  # rows whose value no later row has reached, values descending
    head = tail = count = 0
    for t in range(n):
        if t >= window and np.isfinite(x[t - window]):
            count -= 1
        if head < tail and queue[head] <= t - window:
            head += 1
        if not np.isfinite(x[t]):
            continue
        count += 1
        while head < tail and x[queue[tail - 1]] <= x[t]:
            tail -= 1
        queue[tail] = t
        tail += 1
        if count >= MINIMUM_SHARE * window * _TOLERANCE:
            out[t] = x[queue[head]]
    return out


@njit(cache=True)
def slope_t(x: Floats, window: int, first: int = 0) -> Floats:
    """t statistic of the least-squares slope of x on time. `[n]` → `[n]`.

    A constant window has t = 0. A perfect line would be infinite: the residual is taken to be at least 1e-12 of the variance. Rows before
    `first`: NaN.
    """
    n = x.size
    out = np.full(n, np.nan)
    for t in range(max(0, first), n):
        if not np.isfinite(x[t]):
            continue
        here, count = x[t], 0
        s_k = s_kk = s_y = s_yy = s_ky = 0.0
        for j in range(max(0, t - window + 1), t + 1):
            if np.isfinite(x[j]):
                k, y = float(j - t), x[j] - here
                count += 1
                s_k += k
                s_kk += k * k
                s_y += y
                s_yy += y * y
                s_ky += k * y
        if count < 3 or count < MINIMUM_SHARE * window * _TOLERANCE:
            continue
        c_kk, c_yy, c_ky = s_kk - s_k * s_k / count, s_yy - s_y * s_y / count, s_ky - s_k * s_y / count
        if c_yy <= 0.0:
            out[t] = 0.0
            continue
        residual = max(c_yy - c_ky * c_ky / c_kk, _PERFECT_FIT * c_yy)
        out[t] = c_ky / c_kk / math.sqrt(residual / (count - 2) / c_kk)
    return out


@njit(cache=True)
def beta_and_correlation(y: Floats, x: Floats, window: int, first: int = 0) -> tuple[Floats, Floats]:
    """Least-squares slope of y on x, and their correlation, over rows where both have values. `[n]`, `[n]` → `[n]`, `[n]`.

    NaN where x (or for the correlation, y) does not vary, and in rows before `first`.
    """
    n = x.size
    beta, correlation = np.full(n, np.nan), np.full(n, np.nan)
    for t in range(max(0, first), n):
        if not (np.isfinite(x[t]) and np.isfinite(y[t])):
            continue
        count = 0
        s_x = s_y = s_xx = s_yy = s_xy = 0.0
        for j in range(max(0, t - window + 1), t + 1):
            if np.isfinite(x[j]) and np.isfinite(y[j]):
                u, v = x[j] - x[t], y[j] - y[t]
                count += 1
                s_x += u
                s_y += v
                s_xx += u * u
                s_yy += v * v
                s_xy += u * v
        if count < 3 or count < MINIMUM_SHARE * window * _TOLERANCE:
            continue
        c_xx, c_yy, c_xy = s_xx - s_x * s_x / count, s_yy - s_y * s_y / count, s_xy - s_x * s_y / count
        if c_xx > 0.0:
            beta[t] = c_xy / c_xx
            if c_yy > 0.0:
                correlation[t] = min(1.0, max(-1.0, c_xy / math.sqrt(c_xx * c_yy)))
    return beta, correlation


@njit(cache=True)
def last_before(x: Floats, lag: int, reach: int) -> tuple[Floats, Floats]:
    """The newest value at least `lag` and at most `lag + reach` rows old, and how many rows old it is. `[n]` → `[n]`, `[n]`.

    On a series without gaps this is x[t − lag] and `lag`; after a gap it is the last value before it.
    """
    n = x.size
    value, age = np.full(n, np.nan), np.full(n, np.nan)
    newest = -1
    for t in range(lag, n):
        if np.isfinite(x[t - lag]):
            newest = t - lag
        if newest >= 0 and t - newest <= lag + reach:
            value[t] = x[newest]
            age[t] = t - newest
    return value, age


@njit(cache=True)
def logarithm(x: Floats) -> Floats:
    """Natural logarithm; NaN where x is not positive. `[n]` → `[n]`.

    Not `np.log`: its vector and its scalar code may differ in the last bit, and which one runs depends on the length of the array.
    """
    out = np.full(x.size, np.nan)
    for t in range(x.size):
        if x[t] > 0.0 and x[t] < np.inf:
            out[t] = math.log(x[t])
    return out


def ratio(above: Floats, below: Floats, *, flat: float = math.nan) -> Floats:
    """above / below for a non-negative `below`: `flat` where `below` is 0, NaN where either is missing or the quotient overflows."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        quotient = above / below
    result = np.where(below > 0.0, quotient, np.where((below == 0.0) & np.isfinite(above), flat, np.nan))
    result[~np.isfinite(result)] = np.nan
    return np.asarray(result, np.float64)
