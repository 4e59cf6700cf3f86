"""Where a book stands: exposure by instrument, side and cluster, portfolio heat, and how long it takes to leave.

Weights are signed fractions of equity, one per instrument, `[A]`. Every total is of absolute sizes unless its name says net: a hedge is no
credit here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.monitoring.daily import as_floats

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class SideExposure:
    """Totals of a book, fractions of equity. `long` and `short` are positive sizes."""

    gross: float
    net: float
    long: float
    short: float


def checked_weights(weights: ArrayLike, *, name: str = "weights") -> Floats:
    """Finite float64 `[A]`.

    Raises:
        DataError: for another shape, NaN or infinity.
    """
    w = as_floats(weights, name=name)
    if w.ndim != 1 or not np.isfinite(w).all():
        raise DataError(f"{name} of shape {w.shape} must be one finite number per instrument")
    return w


def side_exposure(weights: ArrayLike) -> SideExposure:
    """Gross, net, long and short."""
    w = checked_weights(weights)
    long, short = float(w[w > 0.0].sum()), float(-w[w < 0.0].sum())
    return SideExposure(long + short, long - short, long, short + 0.0)


def cluster_exposure(weights: ArrayLike, labels: ArrayLike) -> Floats:
    """Sum of position sizes in each cluster, `[K]`, from labels 0 … K − 1 as `clusters` gives them.

    Raises:
        DataError: if there is not one label per weight, or one is negative.
    """
    w, label = checked_weights(weights), np.asarray(labels, dtype=np.int64)
    if label.shape != w.shape or bool(np.any(label < 0)):
        raise DataError(f"{label.shape} labels for {w.shape} weights: expected one label of 0 or more each")
    return np.bincount(label, weights=np.abs(w)).astype(np.float64)


def portfolio_heat(weights: ArrayLike, stop_distances: ArrayLike) -> float:
    """What is lost if every position reaches its stop: `Σ |w| · |price − stop| / price`, fraction of equity.

    Args:
        weights: `[A]`.
        stop_distances: from price to stop as a fraction of price (≥ 0), `[A]`. NaN, no stop known, counts as the whole position of a long
            and is infinite for a short, which nothing limits.

    Raises:
        DataError: for other shapes or a negative distance.
    """
    w, stop = checked_weights(weights), as_floats(stop_distances, name="stop_distances")
    if stop.shape != w.shape or bool(np.any(stop < 0.0)):
        raise DataError(f"{stop.shape} stop distances for {w.shape} weights: expected one of 0 or more each")
    unknown = np.isnan(stop)
    stop = np.where(unknown, np.where(w < 0.0, math.inf, 1.0), stop)
    held = w != 0.0
    return float(np.sum(np.abs(w[held]) * stop[held]))


def liquidity_days(values: ArrayLike, daily_values: ArrayLike, *, participation: float = 0.05) -> Floats:
    """Days it takes to trade each position away at a share of what is traded: `|value| / (participation · daily value)`, `[A]`.

    Args:
        values: position values (signed), quote currency, `[A]`.
        daily_values: what is traded per day, quote currency, `[A]`.
        participation: share of it one may be (0–1].

    NaN where the daily value is unknown, infinite where nothing is traded, 0 where nothing is held.

    Raises:
        ConfigError: for a participation outside (0, 1].
        DataError: for shapes that differ or negative daily values.
    """
    if not 0.0 < participation <= 1.0:
        raise ConfigError(f"participation is {participation}, expected more than 0 and at most 1")
    held, traded = np.abs(checked_weights(values, name="values")), as_floats(daily_values, name="daily_values")
    if held.shape != traded.shape or bool(np.any(traded < 0.0)):
        raise DataError(f"{traded.shape} daily values for {held.shape} positions: expected one of 0 or more each")
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(held == 0.0, 0.0, held / (participation * traded))
