"""How many bets a book really holds.

`hhi` and `effective_number` look at sizes alone; `effective_bets` at the independent directions that the risk lies in, so ten coins that
move as one count as one.

Source: Meucci (2009), "Managing diversification" (principal portfolios, entropy of their risk shares).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from cryptoalpha.core.errors import DataError
from cryptoalpha.risk.exposure import checked_weights
from cryptoalpha.risk.matrices import checked_square


def hhi(weights: ArrayLike) -> float:
    """Herfindahl–Hirschman index: sum of squared shares of gross exposure, 1/A (equal sizes) to 1 (one position). NaN for an empty book."""
    w = np.abs(checked_weights(weights))
    largest = float(w.max(initial=0.0))
    if largest == 0.0:
        return math.nan
    w = w / largest  # so that squares of tiny positions do not vanish
    return float(np.sum(w * w) / np.sum(w) ** 2)


def effective_number(weights: ArrayLike) -> float:
    """1 / `hhi`: the number of equal positions that would be as concentrated. 0 for an empty book."""
    index = hhi(weights)
    return 0.0 if math.isnan(index) else 1.0 / index


def effective_bets(weights: ArrayLike, covariance: ArrayLike) -> float:
    """Effective number of bets: `exp(−Σ p ln p)` over the shares `p_k = (e_k · w)² λ_k / w'Cw` of risk in each principal direction.

    Args:
        weights: `[A]`, signed.
        covariance: `[A, A]`, positive semi-definite.

    Returns:
        1 … A; NaN where the book has no risk. Equal eigenvalues leave the directions, and so the number, to convention.

    Raises:
        DataError: for shapes that do not fit or a matrix that is no covariance.
    """
    w, c = checked_weights(weights), checked_square(covariance)
    if len(w) != len(c):
        raise DataError(f"{len(w)} weights for a covariance of {len(c)} assets")
    values, vectors = np.linalg.eigh(c)
    values = np.maximum(values, 0.0)
    risk = np.sum(vectors * w[:, None], axis=0) ** 2 * values
    total = float(risk.sum())
    if not total > 0.0:
        return math.nan
    p = risk[risk > 0.0] / total
    return float(math.exp(-float(np.sum(p * np.log(p)))))
