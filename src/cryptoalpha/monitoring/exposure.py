"""How much of the equity is at work, and how fast it is moved around. Weights are signed fractions of equity, shape `[T, A]`."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from cryptoalpha.core.errors import DataError
from cryptoalpha.monitoring.daily import Floats
from cryptoalpha.monitoring.ratios import NAN, checked_periods


def _matrix(values: ArrayLike, name: str) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2:
        raise DataError(f"{name} has shape {array.shape}, expected [periods, assets]")
    if not np.isfinite(array).all():
        raise DataError(f"{name} holds NaN or infinity", hint="an asset that is not held has weight 0; one without a price has return 0")
    return array


def gross_exposure(weights: ArrayLike) -> Floats:
    """Sum of absolute weights per period, `[T]`."""
    return np.asarray(np.abs(_matrix(weights, "weights")).sum(axis=1), dtype=np.float64)


def net_exposure(weights: ArrayLike) -> Floats:
    """Sum of signed weights per period, `[T]`."""
    return np.asarray(_matrix(weights, "weights").sum(axis=1), dtype=np.float64)


def drifted_weights(weights: ArrayLike, returns: ArrayLike) -> Floats:
    """What weights set at the start of each period become by its end, if nothing is traded: `w (1 + r) / (1 + Σ w r)`, `[T, A]`."""
    w, r = _matrix(weights, "weights"), _matrix(returns, "returns")
    if w.shape != r.shape:
        raise DataError(f"weights {w.shape} and returns {r.shape} differ in shape")
    growth = 1.0 + (w * r).sum(axis=1)
    if bool(np.any(growth <= 0.0)):
        raise DataError(f"equity is gone in period {int(np.argmax(growth <= 0.0))}: weights are undefined after it")
    return np.asarray(w * (1.0 + r) / growth[:, None], dtype=np.float64)


def turnover(weights: ArrayLike, returns: ArrayLike, *, periods_per_year: float, from_cash: bool = True) -> float:
    """Share of the book traded per year: the mean of `½ Σ |w_t − w_drifted|` times periods per year.

    Args:
        weights: weights set at the start of each period, `[T, A]`.
        returns: asset returns over that period, `[T, A]`; price drift is no trading.
        periods_per_year: 365 for daily rows.
        from_cash: also count the purchase of the first row.

    Cash is what the weights leave of 1 and takes part in the sum, so going from cash to fully invested is a turnover of 1, not ½.
    NaN if empty.
    """
    change = _trades(weights, returns, from_cash)
    if change.shape[0] == 0:
        return NAN
    moved = 0.5 * (np.abs(change).sum(axis=1) + np.abs(change.sum(axis=1)))
    return float(moved.mean()) * checked_periods(periods_per_year)


def turnover_by_asset(weights: ArrayLike, returns: ArrayLike, *, periods_per_year: float, from_cash: bool = True) -> Floats:
    """The part each asset has in `turnover`, `[A + 1]`, cash last; they sum to it. NaN if empty."""
    change = _trades(weights, returns, from_cash)
    if change.shape[0] == 0:
        return np.full(change.shape[1] + 1, NAN)
    moved = 0.5 * np.abs(np.column_stack((change, change.sum(axis=1))))
    return np.asarray(moved.mean(axis=0) * checked_periods(periods_per_year), dtype=np.float64)


def _trades(weights: ArrayLike, returns: ArrayLike, from_cash: bool) -> Floats:
    """Signed change of each weight by trading, `[T, A]`."""
    w = _matrix(weights, "weights")
    if w.shape[0] == 0:
        return w
    change = w - np.vstack((np.zeros((1, w.shape[1])), drifted_weights(w, returns)[:-1]))
    if not from_cash:
        change[0] = 0.0
    return change
