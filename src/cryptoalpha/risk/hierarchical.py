"""Hierarchical risk parity: weights from a tree of correlated assets, without inverting anything.

Assets are ordered by clustering the distance `d = sqrt((1 − ρ) / 2)` itself; then the ordered row is halved again and again, each half
getting weight in inverse proportion to its variance under inverse-variance weights.

Source: López de Prado (2016), "Building diversified portfolios that outperform out of sample". Departure: the paper clusters the Euclidean
distance between columns of d; here, as in PyPortfolioOpt and riskfolio-lib, d is clustered itself. skfolio's default differs again: Ward
linkage and optimally ordered leaves.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from cryptoalpha.risk.linkage import LinkageName, leaf_order, merges
from cryptoalpha.risk.matrices import Floats, checked_square, checked_variances, correlation_of


def hrp(covariance: ArrayLike, *, linkage: LinkageName = "single") -> Floats:
    """Weights `[A]`, positive, summing to 1.

    Args:
        covariance: `[A, A]`.
        linkage: how the distance between clusters is taken: of their nearest members (`single`), or by the variance that joining them
            adds (`ward`).

    Raises:
        DataError: for a matrix with NaN, asymmetry or an asset without variance.
        ConfigError: for a linkage that is not known.
    """
    c = checked_square(covariance)
    variances = checked_variances(c)
    order = np.array(leaf_order(merges(correlation_distance(correlation_of(c)), linkage)))
    sorted_c, sorted_v = c[np.ix_(order, order)], variances[order]
    weights = np.ones(len(c))
    halves = [(0, len(c))]
    while halves:
        start, end = halves.pop()
        if end - start < 2:
            continue
        middle = start + (end - start) // 2
        left, right = _variance(sorted_c, sorted_v, start, middle), _variance(sorted_c, sorted_v, middle, end)
        share = right / (left + right) if left + right > 0.0 else 0.5
        weights[start:middle] *= share
        weights[middle:end] *= 1.0 - share
        halves += [(start, middle), (middle, end)]
    result = np.empty(len(c))
    result[order] = weights
    return result


def correlation_distance(correlation: Floats) -> Floats:
    """`sqrt((1 − ρ) / 2)`: 0 for copies, 1 for mirror images, `[A, A]`."""
    return np.asarray(np.sqrt(np.clip((1.0 - correlation) / 2.0, 0.0, 1.0)))


def _variance(c: Floats, variances: Floats, start: int, end: int) -> float:
    """Variance of assets start … end − 1 under inverse-variance weights."""
    w = 1.0 / variances[start:end]
    w = w / w.sum()
    return max(float(np.sum(c[start:end, start:end] * w[:, None] * w[None, :])), 0.0)
