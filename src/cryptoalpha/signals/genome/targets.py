"""What the market genome is taught with: how far prices went, where they ended, and the moment each of that was known.

Everything is counted from the close p of bar t, over the h bars after it, in ATR or σ as they stood at the close of t:

- excursions: how far the (bounded) lows went below p and the highs above it, never below 0; the same of the closes alone, by which a level
  holds or not: a level pierced by a wick that closes back inside has held;
- trend: up, down or sideways, sideways being |ln(close[t+h] / p)| ≤ .43 σ √h, thirds if returns were normal; movement: the same of one bar;
- distance of bars i ≤ j: |ln close[j+h] − ln p_i| / σ_i, in `distance_bins` classes. Never the distance at the same time, which the contact
  flag already tells.

An excursion needs 80 % of its bars, a class its last one. A target is known when bar t + h is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit

from cryptoalpha.signals.genome.arrays import GenomeArrays
from cryptoalpha.signals.labels import NEVER
from cryptoalpha.signals.rolling import MINIMUM_SHARE
from cryptoalpha.store.tables import Floats, Times

SIDEWAYS = 0.43
"""Moves within this many volatilities are sideways: thirds of a normal distribution."""

UP, DOWN, FLAT, UNKNOWN = 0, 1, 2, -1
"""Classes of trend and movement."""

NEAREST_EDGE, FARTHEST_EDGE = 0.5, 32.0
"""First and last edge of the bins of distance, in σ of one bar: half a bar's move, and three times that of a hundred bars."""


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What followed each row.

    Excursions `[T, A]` in ATR, NaN where unknown; classes `[T, A]` int64; `ahead` `[T, A]` ln close h bars later; `known_at` `[T]` when all
    of a row's outcomes were known, `NEVER` beyond the end.
    """

    horizon: int
    below: Floats
    above: Floats
    close_below: Floats
    close_above: Floats
    trend: npt.NDArray[np.int64]
    movement: npt.NDArray[np.int64]
    ahead: Floats
    known_at: Times


@njit(cache=True)
def _highest_ahead(x: Floats, horizon: int) -> Floats:
    """Largest of the next `horizon` values; NaN unless `MINIMUM_SHARE` of them are there. `[n]` → `[n]`."""
    n = x.size
    out = np.full(n, np.nan)
    for t in range(n - horizon):
        count, top = 0, -np.inf
        for j in range(t + 1, t + 1 + horizon):
            if np.isfinite(x[j]):
                count += 1
                top = max(top, x[j])
        if count > 0 and count >= MINIMUM_SHARE * horizon * (1.0 - 1e-12):
            out[t] = top
    return out


def _later(x: Floats, bars: int) -> Floats:
    """The value so many rows later. `[n]` → `[n]`; NaN beyond the end."""
    return np.concatenate((x[bars:], np.full(min(bars, len(x)), np.nan)))


def classes(move: Floats, usual: Floats) -> npt.NDArray[np.int64]:
    """Up, down or sideways; −1 where either is missing. Any shape."""
    known = np.isfinite(move) & np.isfinite(usual)
    with np.errstate(invalid="ignore"):
        called = np.where(move > SIDEWAYS * usual, UP, np.where(move < -SIDEWAYS * usual, DOWN, FLAT))
    return np.where(known, called, UNKNOWN).astype(np.int64)


def outcomes(arrays: GenomeArrays, horizon: int) -> Outcomes:
    """The outcomes of every row, `horizon` bars ahead."""
    shape = arrays.close.shape
    parts = {name: np.full(shape, np.nan) for name in ("below", "above", "close_below", "close_above", "ahead", "next")}
    with np.errstate(invalid="ignore"):
        for a in range(shape[1]):
            price, atr = arrays.close[:, a], arrays.atr[:, a]
            sides = {
                "below": (-np.ascontiguousarray(arrays.low[:, a]), -price),
                "above": (np.ascontiguousarray(arrays.high[:, a]), price),
                "close_below": (-np.ascontiguousarray(price), -price),
                "close_above": (np.ascontiguousarray(price), price),
            }
            for name, (path, start) in sides.items():
                parts[name][:, a] = np.maximum(0.0, (_highest_ahead(path, horizon) - start) / atr)
            parts["ahead"][:, a] = _later(arrays.log_close[:, a], horizon)
            parts["next"][:, a] = _later(arrays.log_close[:, a], 1)
    known_at = np.full(shape[0], NEVER, np.int64)
    known_at[: max(0, shape[0] - horizon)] = arrays.known_at[horizon:]
    ahead, after = parts["ahead"], parts.pop("next")
    return Outcomes(
        horizon=horizon,
        trend=classes(ahead - arrays.log_close, arrays.sigma * math.sqrt(horizon)),
        movement=classes(after - arrays.log_close, arrays.sigma),
        known_at=known_at,
        **parts,
    )


def distance_edges(bins: int) -> Floats:
    """Inner edges of the bins of distance, evenly spaced in logarithm. `[bins − 1]`."""
    steps = max(1, bins - 2)
    return np.array([NEAREST_EDGE * (FARTHEST_EDGE / NEAREST_EDGE) ** (k / steps) for k in range(bins - 1)])


def distance_classes(log_price: Floats, sigma: Floats, ahead: Floats, bins: int) -> npt.NDArray[np.int64]:
    """Bin of |ahead_j − ln p_i| / σ_i for i ≤ j. `[N]` each → `[N, N]`; −1 where unknown or i > j."""
    with np.errstate(invalid="ignore"):
        distance = np.abs(ahead[None, :] - log_price[:, None]) / sigma[:, None]
    place = np.arange(len(log_price))
    known = np.isfinite(distance) & (place[:, None] <= place[None, :])
    return np.where(known, np.searchsorted(distance_edges(bins), np.where(known, distance, 0.0), side="right"), UNKNOWN).astype(np.int64)
