"""What a covariance matrix must be before anything is computed from it.

Symmetric, finite, with positive variances and no direction of negative variance. Rounding is forgiven, everything else is refused with the
numbers that show it; `covariance.nearest_psd` repairs what a caller knows to be an estimate.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cryptoalpha.core.errors import DataError
from cryptoalpha.monitoring.daily import as_floats

Floats = NDArray[np.float64]
ROUNDING = 1e-10
"""Asymmetry, and negative eigenvalue, taken for rounding; relative to the largest entry."""


def checked_square(matrix: ArrayLike, *, name: str = "covariance") -> Floats:
    """A finite, symmetric float64 matrix `[A, A]` with A ≥ 1; tiny asymmetries are averaged out.

    Raises:
        DataError: for another shape, NaN, infinity or asymmetry.
    """
    c = np.ascontiguousarray(as_floats(matrix, name=name))
    if c.ndim != 2 or c.shape[0] != c.shape[1] or c.shape[0] == 0:
        raise DataError(f"{name} has shape {c.shape}, expected [assets, assets] with at least one asset")
    if not np.isfinite(c).all():
        raise DataError(f"{name} holds NaN or infinity", hint="leave out assets without history, or give them an assumed correlation")
    if np.array_equal(c, c.T):
        return c
    asymmetry = float(np.max(np.abs(c - c.T)))
    if asymmetry > ROUNDING * float(np.max(np.abs(c))):
        raise DataError(f"{name} is not symmetric: two entries that should be equal differ by {asymmetry:.3g}")
    return np.asarray((c + c.T) / 2.0)


def checked_variances(c: Floats, *, name: str = "covariance") -> Floats:
    """The diagonal, all positive.

    Raises:
        DataError: naming the first asset without variance.
    """
    variances = np.diagonal(c).copy()
    if not bool(np.all(variances > 0.0)):
        place = int(np.argmin(variances > 0.0))
        raise DataError(
            f"{name}[{place}, {place}] is {variances[place]:.6g}, expected a positive variance",
            hint="an asset whose price never moves has no risk to share: leave it out",
        )
    return variances


def refuse_indefinite(c: Floats, *, name: str = "covariance") -> None:
    """Refuse a matrix under which some portfolio would have a negative variance.

    A Cholesky factorisation of the correlation, lifted by the rounding allowed, decides (a tenth of the price of the eigenvalues).

    Raises:
        DataError: with the smallest eigenvalue.
    """
    sd = np.sqrt(np.diagonal(c))
    unit = c / (sd[:, None] * sd[None, :])
    lifted = unit + len(c) * ROUNDING * np.eye(len(c))
    try:
        np.linalg.cholesky(lifted)
    except np.linalg.LinAlgError:
        lowest = float(np.linalg.eigvalsh(unit)[0])
        raise DataError(
            f"{name} is not positive semi-definite: its correlation has the eigenvalue {lowest:.3g}",
            hint="repair an estimate with risk.covariance.nearest_psd; estimates of one set of rows never need it",
        ) from None


def correlation_of(covariance: ArrayLike) -> Floats:
    """`C_ij / sqrt(C_ii C_jj)`, `[A, A]`, with an exact diagonal of 1 and entries within −1 … 1.

    Raises:
        DataError: as `checked_square` and `checked_variances`.
    """
    c = checked_square(covariance)
    sd = np.sqrt(checked_variances(c))
    rho: Floats = np.clip(c / (sd[:, None] * sd[None, :]), -1.0, 1.0)
    np.fill_diagonal(rho, 1.0)
    return rho
