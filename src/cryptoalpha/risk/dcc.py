"""Dynamic conditional correlation: how correlation itself moves, in two steps.

First each asset's returns are divided by its own volatility; then `Q_t = (1 − a − b) S + a z_{t−1} z_{t−1}ᵀ + b Q_{t−1}` follows the
products of what is left, and `R_t = Q_t` scaled to ones on its diagonal is the correlation expected for row t, known after row t − 1.
`a` and `b` are those of a grid with the highest likelihood.

Source: Engle (2002), "Dynamic conditional correlation". Departures: volatility is exponentially weighted instead of a GARCH fitted to each
asset (any other goes in through `standardised`), and the grid stands for the optimiser, so equal data give equal parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.risk.covariance import DAILY_DECAY, checked_decay, checked_rows
from cryptoalpha.risk.matrices import Floats

REACTIONS = (0.0, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12)
PERSISTENCES = (0.0, 0.5, 0.8, 0.9, 0.94, 0.96, 0.98, 0.99)
"""Grid of `fit_dcc`; only pairs with a + b < 1 are tried."""
RIDGE = 1e-6
"""Share of the identity in S, so that copies of one asset leave R_t invertible."""


@dataclass(frozen=True)
class DccFit:
    """Parameters, the long-run correlation-like target `S [A, A]`, and the log likelihood of the correlations alone: `−½ Σ (ln|R_t| +
    z' R_t⁻¹ z − z'z)`."""

    a: float
    b: float
    target: Floats
    log_likelihood: float


def standardise(returns: ArrayLike, *, decay: float = DAILY_DECAY) -> Floats:
    """Each return divided by its asset's volatility as known before it, `[T, A]` → `[T − 1, A]`.

    Variance is exponentially weighted about zero, its first rows equally (as in `EwmaCovariance`). The first row has nothing before it
    and is lost. A return that follows nothing but zeros counts as one deviation.

    Raises:
        DataError: for NaN, infinity or fewer than two rows.
    """
    x, decay = checked_rows(returns), checked_decay(decay)
    if len(x) < 2:
        raise DataError("one row of returns has no volatility before it: at least two are needed")
    z = np.empty((len(x) - 1, x.shape[1]))
    variance = np.zeros(x.shape[1])
    for t, row in enumerate(x):
        if t:
            z[t - 1] = scaled(row, variance)
        weight = max(1.0 / (t + 1), 1.0 - decay)
        variance = (1.0 - weight) * variance + weight * row * row
    return z


def scaled(row: Floats, variance: Floats) -> Floats:
    """`row / sqrt(variance)`; the sign alone where there was no variance yet."""
    known = variance > 0.0
    return np.where(known, row / np.sqrt(np.where(known, variance, 1.0)), np.sign(row))


def long_run_target(standardised: ArrayLike) -> Floats:
    """`S`: mean product of the standardised rows, with a trace of the identity so that it can be inverted, `[A, A]`."""
    z = checked_rows(standardised)
    s = z.T @ z / len(z)
    s = (1.0 - RIDGE) * s
    s.flat[:: len(s) + 1] += RIDGE
    return s


def dcc_correlation(standardised: ArrayLike, a: float, b: float, *, target: ArrayLike | None = None) -> Floats:
    """`R_t` for each row and for the one after the last, `[T, A]` → `[T + 1, A, A]`; `R_0` is the target's.

    Raises:
        DataError: for NaN, infinity or no rows.
        ConfigError: unless a, b ≥ 0 and a + b < 1.
    """
    z = checked_rows(standardised)
    _check(a, b)
    s = long_run_target(z) if target is None else np.asarray(target, dtype=np.float64)
    q = s.copy()
    out = np.empty((len(z) + 1, *s.shape))
    for t in range(len(z) + 1):
        if t:
            q = advanced(q, z[t - 1], a, b, s)
        out[t] = as_correlation(q)
    return out


def advanced(q: Floats, row: Floats, a: float, b: float, target: Floats) -> Floats:
    """`Q` after one more row."""
    return np.asarray((1.0 - a - b) * target + a * (row[:, None] * row[None, :]) + b * q)


def as_correlation(q: Floats) -> Floats:
    """`Q` scaled to ones on its diagonal; leading axes are kept."""
    sd = np.sqrt(np.diagonal(q, axis1=-2, axis2=-1))
    r = q / (sd[..., :, None] * sd[..., None, :])
    n = np.arange(q.shape[-1])
    r[..., n, n] = 1.0
    return np.asarray(r)


def dcc_log_likelihood(standardised: ArrayLike, a: float, b: float, *, target: ArrayLike | None = None) -> float:
    """`DccFit.log_likelihood` at these parameters.

    Raises:
        DataError, ConfigError: as `dcc_correlation`.
    """
    z = checked_rows(standardised)
    _check(a, b)
    s = long_run_target(z) if target is None else np.asarray(target, dtype=np.float64)
    return float(_likelihoods(z, np.array([a]), np.array([b]), s)[0])


def fit_dcc(
    standardised: ArrayLike,
    *,
    reactions: tuple[float, ...] = REACTIONS,
    persistences: tuple[float, ...] = PERSISTENCES,
    target: ArrayLike | None = None,
) -> DccFit:
    """The pair of the grid with the highest likelihood; of equals, the first.

    Args:
        standardised: returns over their volatility, `[T, A]`.
        reactions: values of a.
        persistences: values of b. Without a reaction b says nothing, so with a = 0 only the first is tried.
        target: S; None = the mean product of the rows.

    Raises:
        DataError: for NaN, infinity or no rows.
        ConfigError: if the grid holds no pair with a, b ≥ 0 and a + b < 1.
    """
    z = checked_rows(standardised)
    s = long_run_target(z) if target is None else np.asarray(target, dtype=np.float64)
    pairs = [(a, b) for a in reactions for b in persistences if a >= 0.0 and b >= 0.0 and a + b < 1.0 and (a > 0.0 or b == persistences[0])]
    if not pairs:
        raise ConfigError("no pair of the grid has a, b of 0 or more and a + b below 1")
    a, b = np.array(pairs).T
    found = _likelihoods(z, a, b, s)
    best = int(np.argmax(found))
    return DccFit(float(a[best]), float(b[best]), s, float(found[best]))


def _likelihoods(z: Floats, a: Floats, b: Floats, s: Floats) -> Floats:
    """Log likelihood of every pair `[G]`, all pairs a step of time together."""
    a, b = a[:, None, None], b[:, None, None]
    lasting = (1.0 - a - b) * s
    q = np.broadcast_to(s, lasting.shape).copy()  # [G, A, A]
    total = np.zeros(len(a))
    for row in z:
        r = as_correlation(q)
        # one factorisation gives determinant and solution: |L| from its diagonal, z' R⁻¹ z as the length of L⁻¹ z
        lower = np.linalg.cholesky(r)
        half = np.linalg.solve(lower, np.broadcast_to(row[:, None], (len(a), len(row), 1)))[..., 0]
        log_determinant = 2.0 * np.sum(np.log(np.diagonal(lower, axis1=1, axis2=2)), axis=1)
        total -= 0.5 * (log_determinant + np.sum(half * half, axis=1) - float(np.sum(row * row)))
        q = lasting + a * (row[:, None] * row[None, :]) + b * q
    return total


def _check(a: float, b: float) -> None:
    if not (a >= 0.0 and b >= 0.0 and a + b < 1.0):
        raise ConfigError(f"a is {a} and b is {b}: expected 0 or more and a sum below 1, else correlation wanders off")
