"""Risk parity: the long-only weights under which each asset carries its budgeted share of the risk.

`w_i (C w)_i / w'Cw = b_i`, by cyclical coordinate descent: each sweep solves each asset's own quadratic with the others held. The result
is the only one, whatever the start, and is checked before it is given: every relative error of a risk contribution is at most 1e-10.

The descent is written once and runs as it stands for small books, compiled for large ones; both give the same bits (nothing in it is
reordered, and no BLAS is called), so results do not depend on the number of threads.

Departure: every sweep starts from x'Cx = 1, where the answer lies, which saves a third of the sweeps and more.

Sources: Griveau-Billion, Richard & Roncalli (2013), "A fast algorithm for computing high-dimensional risk parity portfolios"; Spinu (2013).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.risk.matrices import Floats, checked_square, checked_variances, refuse_indefinite

TOLERANCE = 1e-10
"""Largest relative error of a risk contribution, and the relative step at which the descent stops."""
REFRESH = 20
"""Sweeps after which `C x`, kept up to date by differences, is computed anew."""
SWEEPS = 2_000
"""Sweeps after which it is given up. Assets that share a market need about ten, many that hedge each other a hundred."""
COMPILED_FROM = 96
"""Assets from which the compiled descent is used; below, loading the compiler would cost more than it saves."""


def risk_parity(covariance: ArrayLike, budget: ArrayLike | None = None, *, is_psd: bool = False) -> Floats:
    """Weights `[A]`, positive, summing to 1, with the budgeted shares of risk.

    Args:
        covariance: `[A, A]`. Its scale does not matter.
        budget: share of risk of each asset (> 0, summing to 1), `[A]`; none = equal shares.
        is_psd: the caller vouches that no portfolio has a negative variance, as none has under an estimate from one set of rows
            (`ledoit_wolf`, `ewma_covariance`). Saves the test, which beyond a few hundred assets takes longer than the answer.

    Raises:
        DataError: for a matrix that is no covariance (NaN, asymmetric, not positive semi-definite), an asset without variance, or assets
            that hedge each other so well that no long-only weights share the risk.
        ConfigError: for a budget of another length, with a share of 0 or less, or not summing to 1.
    """
    c = checked_square(covariance)
    sd = np.sqrt(checked_variances(c))
    b = _budget(budget, len(c))
    if not is_psd:
        refuse_indefinite(c)
    x, error = _descend(c)(c, b, 1.0 / sd, TOLERANCE, SWEEPS)
    if not error <= TOLERANCE:
        raise DataError(
            f"no long-only weights share the risk as asked: after {SWEEPS} sweeps a contribution is {error:.2g} off",
            hint="some of the assets cancel each other: leave one of each mirrored pair out, or shrink the covariance (ledoit_wolf)",
        )
    return np.asarray(x / np.sum(x))


def risk_contributions(weights: ArrayLike, covariance: ArrayLike) -> Floats:
    """Share of the book's variance that each position carries, `w_i (C w)_i / w'Cw`, `[A]`; sums to 1. NaN where there is no risk."""
    w, c = np.asarray(weights, dtype=np.float64), checked_square(covariance)
    if w.shape != (len(c),):
        raise DataError(f"weights of shape {w.shape} for a covariance of {len(c)} assets")
    part = w * np.sum(c * w[None, :], axis=1)
    total = float(np.sum(part))
    return np.asarray(part / total) if total > 0.0 else np.full(len(c), np.nan)


def descend(c: Floats, budget: Floats, start: Floats, tolerance: float, limit: int) -> tuple[Floats, float]:
    """Cyclical coordinate descent: unnormalised weights `[A]` and the largest relative error of a contribution (infinite if none was
    found). `c [A, A]`, `budget [A]`, `start [A]` > 0."""
    n = len(c)
    x = start.copy()
    cx = np.zeros(n)
    error = np.inf
    for sweep in range(limit):
        if sweep % REFRESH == 0:
            cx[:] = 0.0
            for j in range(n):
                cx += x[j] * c[j]
        square = np.cumsum(x * cx)[-1]  # in order, unlike a sum, so that both ways of running it agree
        if not square > 0.0:
            break
        x /= np.sqrt(square)  # the answer has x'Cx = 1; starting each sweep there saves sweeps
        cx /= np.sqrt(square)
        square = 1.0
        largest = 0.0
        for i in range(n):
            own = c[i, i]
            rest = cx[i] - own * x[i]
            share = budget[i] * np.sqrt(max(square, 0.0))
            root = np.sqrt(rest * rest + 4.0 * own * share)
            # the positive root, written so that nothing cancels
            new = (root - rest) / (2.0 * own) if rest <= 0.0 else 2.0 * share / (root + rest)
            if not new > 0.0:
                return x, np.inf
            change = new - x[i]
            largest = max(largest, abs(change) / new)
            square += change * (2.0 * cx[i] + own * change)
            cx += change * c[i]
            x[i] = new
        if largest <= tolerance:
            cx[:] = 0.0
            for j in range(n):
                cx += x[j] * c[j]
            error = np.max(np.abs(x * cx / np.cumsum(x * cx)[-1] / budget - 1.0))
            if error <= tolerance:
                break
    return x, error


def _descend(c: Floats) -> Callable[..., tuple[Floats, float]]:
    if len(c) < COMPILED_FROM:
        return descend
    from cryptoalpha.risk.parity_compiled import descend_compiled  # a second to load

    compiled: Callable[..., tuple[Floats, float]] = descend_compiled
    return compiled


def _budget(budget: ArrayLike | None, n: int) -> Floats:
    if budget is None:
        return np.full(n, 1.0 / n)
    b = np.asarray(budget, dtype=np.float64)
    if b.shape != (n,):
        raise ConfigError(f"budget has shape {b.shape}, expected one share for each of {n} assets")
    if not bool(np.all(b > 0.0)) or not abs(float(b.sum()) - 1.0) <= 1e-9:
        raise ConfigError(
            f"budget runs from {b.min():.6g} to {b.max():.6g} and sums to {b.sum():.9g}, expected positive shares that sum to 1",
            hint="an asset that may carry no risk is left out instead",
        )
    return np.asarray(b / b.sum())
