"""Scenarios of the next day, made of days that are over: what they look like but for the present volatility.

* From the past: each day divided by the volatility that was expected of it, times the present one (filtered historical simulation:
  Barone-Adesi, Giannopoulos & Vosper, 1999). Rows are days, so what fell together falls together. An instrument with too short a past, or a
  hole in it, takes the common move of the others.
* From the normal law with the correlation of those days, its columns exact, reordered after Iman & Conover (1982).

Pure functions of arrays, without LAPACK or matrix products where the last bits matter: threads change them.
"""

from __future__ import annotations

import math
from functools import cache
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cryptoalpha.core.seeds import stream
from cryptoalpha.core.time import DAYS_PER_YEAR
from cryptoalpha.risk.config import TailConfig

Floats = NDArray[np.float64]

NORMAL_POINTS = 2_000
"""Scenarios of method `normal`."""

NAN = math.nan


class Shape(NamedTuple):
    """Scenarios but for the present volatility: `scaled [S, A]` in units of it, `fixed [S, A]` as fractions where not NaN."""

    scaled: Floats
    fixed: Floats | None
    own_volatility: Floats

    def returns(self, yearly: Floats) -> Floats:
        """Simple returns of the next day, `[S, A]`, none below −1, given the annual volatility that the market expects, `[A]`.

        The larger of it and the instrument's own counts; a column whose volatility nobody knows is NaN.
        """
        found = self.scaled * np.fmax(self.own_volatility, yearly / math.sqrt(DAYS_PER_YEAR))
        if self.fixed is not None:
            found = np.where(np.isnan(self.fixed), found, self.fixed)
        return np.maximum(found, -1.0, out=found)


def shape_of_law(correlation: Floats, own_volatility: Floats) -> Shape:
    """Of the normal law with this correlation `[A, A]`."""
    return Shape(_normal_scores(correlation), None, own_volatility)


def shape_of_past(config: TailConfig, every: Floats, scores: Floats, returns: Floats, own_volatility: Floats) -> Shape:
    """Of past days; of one with nothing to go by, the normal grid for all at once.

    Args:
        every: standardised days of all instruments ever seen, `[T, K]`, from which the common move is taken.
        scores: those of the columns asked for, `[T, A]`, NaN where unknown.
        returns: their returns, which count as they were with method `historical`.
        own_volatility: daily, `[A]`.
    """
    able = (~np.isnan(every)).sum(axis=0) >= config.least_days
    rows = (~np.isnan(every[:, able])).any(axis=1)
    if not rows.any():
        return Shape(np.repeat(_normal_grid(config.history_days)[:, None], scores.shape[1], axis=1), None, own_volatility)
    market = _market(every[rows][:, able])
    scores = scores[rows]
    own = ~np.isnan(scores) & ((~np.isnan(scores)).sum(axis=0) >= config.least_days)
    scaled = np.where(own, scores, market[:, None])
    return Shape(scaled, np.where(own, returns[rows], NAN) if config.method == "historical" else None, own_volatility)


def _market(scores: Floats) -> Floats:
    """The common move of each day, `[T]`: the mean of what is known, in units of its own root mean square."""
    mean: Floats = np.nanmean(scores, axis=1)
    size = math.sqrt(float(np.mean(np.square(mean))))
    return mean / size if size > 0.0 else mean


def pairwise_correlation(scores: Floats, least: int) -> Floats:
    """Over the days `[T, A]` that both of a pair have, `[A, A]`; 1 where they have fewer than `least`."""
    known = ~np.isnan(scores)
    k, x = known.astype(np.float64), np.where(known, scores, 0.0)
    # einsum, not a matrix product: its last bits do not depend on threads
    count = np.einsum("ti,tj->ij", k, k)
    n = np.maximum(count, 1.0)
    total, squares = np.einsum("ti,tj->ij", x, k), np.einsum("ti,tj->ij", x * x, k)
    covariance = np.einsum("ti,tj->ij", x, x) - total * total.T / n
    variance = squares - total * total / n
    scale = np.sqrt(np.maximum(variance, 0.0) * np.maximum(variance.T, 0.0))
    defined = (count >= least) & (scale > 0.0)
    result: Floats = np.clip(np.where(defined, covariance / np.where(defined, scale, 1.0), 1.0), -1.0, 1.0)
    np.fill_diagonal(result, 1.0)
    return result


@cache
def _normal_grid(points: int) -> Floats:
    """Equally likely points of the standard normal law, scaled to unit variance, `[points]`. Shared: not to be changed."""
    law = NormalDist()
    grid = np.array([law.inv_cdf((i + 0.5) / points) for i in range(points)])
    size = math.sqrt(float(np.mean(grid * grid)))
    return grid / size if size > 0.0 else grid


def _normal_scores(correlation: Floats) -> Floats:
    """Correlated normal scores `[NORMAL_POINTS, A]`: every column is the normal grid, in the order of correlated draws.

    Source: Iman & Conover (1982) for the reordering.
    """
    draws = stream(0, "market_memory", "normal").standard_normal((NORMAL_POINTS, len(correlation)))
    moved = np.einsum("sk,ik->si", draws, _lower_root(correlation))
    order = np.argsort(np.argsort(moved, axis=0, kind="stable"), axis=0, kind="stable")
    scores: Floats = _normal_grid(NORMAL_POINTS)[order]
    return scores


def _lower_root(correlation: Floats) -> Floats:
    """Cholesky's triangle, also of a matrix that is not quite positive: what would be the root of a negative number is left out."""
    size = len(correlation)
    root = np.zeros((size, size))
    for j in range(size):  # not LAPACK: the last bits must not depend on threads
        rest = correlation[j:, j] - (root[j:, :j] * root[j, :j]).sum(axis=1)
        if rest[0] > 1e-12:
            root[j:, j] = rest / math.sqrt(rest[0])
    return root
