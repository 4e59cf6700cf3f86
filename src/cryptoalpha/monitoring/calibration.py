"""Do probabilities mean what they say? Calibration error, reliability curve and Brier score, to be taken on out-of-fold predictions.

Sources: Brier (1950); Naeini, Cooper & Hauskrecht (2015), with bins of equal mass instead of equal width; Kull et al. (2019) for the
error by class; Wilson (1927).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.monitoring.accuracy import wilson_interval
from cryptoalpha.monitoring.daily import Floats, as_floats
from cryptoalpha.monitoring.ratios import NAN


def expected_calibration_error(confidence: ArrayLike, correct: ArrayLike, *, bins: int = 15) -> float:
    """Mean gap between how sure a predictor was and how often it was right, weighted by bin: `Σ n_b / n · |acc_b − conf_b|`.

    Args:
        confidence: probability given to the predicted class, `[n]`, 0–1.
        correct: whether it came true, `[n]`, 0 or 1.
        bins: bins of equal mass (as equal as n allows; equal confidences stay together).

    Returns:
        0 for a perfectly calibrated predictor, at most 1; NaN if empty.

    Raises:
        DataError: for shapes that differ or values outside 0–1.
    """
    p, hit = _pairs(confidence, correct, bins)
    n = p.size
    if n == 0:
        return NAN
    gap = np.bincount(bins_of_equal_mass(p, bins), weights=hit - p, minlength=bins)
    return float(np.sum(np.abs(gap))) / n


def classwise_calibration_error(probabilities: ArrayLike, outcomes: ArrayLike, *, bins: int = 15) -> float:
    """Mean over the classes of the calibration error of each class's own probability, `[n, K]` and `[n]` as in `brier_score`.

    The plain error judges only the class that was predicted; a size is cut from the probabilities of all. NaN if empty.
    """
    table, happened = _classes(probabilities, outcomes)
    if table.shape[0] == 0:
        return NAN
    each = [expected_calibration_error(table[:, k], happened[:, k], bins=bins) for k in range(table.shape[1])]
    return float(np.mean(each))


@dataclass(frozen=True, eq=False)
class ReliabilityCurve:
    """How often a predictor was right, by how sure it was. Shapes `[B]`, bins that hold something, least sure first."""

    confidence: Floats
    """Mean confidence in each bin."""
    accuracy: Floats
    """Share that came true."""
    low: Floats
    high: Floats
    """Wilson interval of the accuracy; it takes the outcomes of a bin as independent."""
    count: NDArray[np.int64]
    lower: Floats
    upper: Floats
    """Smallest and largest confidence in each bin."""

    @property
    def expected_error(self) -> float:
        """The expected calibration error of these bins: `Σ n_b / n · |acc_b − conf_b|`; NaN without bins."""
        n = int(self.count.sum())
        return float(np.sum(self.count * np.abs(self.accuracy - self.confidence))) / n if n else NAN

    @property
    def consistent(self) -> NDArray[np.bool_]:
        """Where the mean confidence lies within the interval: the bins that calibration cannot be denied."""
        return (self.low <= self.confidence) & (self.confidence <= self.high)


def reliability_curve(confidence: ArrayLike, correct: ArrayLike, *, bins: int = 15, level: float = 0.95) -> ReliabilityCurve:
    """The bins of `expected_calibration_error` one by one, each with the interval of its accuracy.

    Args:
        confidence, correct, bins: as there; `correct` must be 0 or 1.
        level: probability mass of the intervals.

    Raises:
        DataError: for shapes that differ, confidence outside 0–1 or outcomes other than 0 and 1.
    """
    p, hit = _pairs(confidence, correct, bins)
    if bool(np.any((hit != 0.0) & (hit != 1.0))):
        raise DataError("correct must be 0 or 1 to be counted")
    held, place = np.unique(bins_of_equal_mass(p, bins), return_inverse=True)
    count = np.bincount(place, minlength=held.size)
    hits = np.bincount(place, weights=hit, minlength=held.size)
    lower, upper = np.full(held.size, np.inf), np.full(held.size, -np.inf)
    np.minimum.at(lower, place, p)
    np.maximum.at(upper, place, p)
    bounds = [wilson_interval(int(h), int(n), level=level) for h, n in zip(hits, count, strict=True)]
    low, high = np.array(bounds, dtype=np.float64).reshape(-1, 2).T
    mean = np.clip(np.bincount(place, weights=p, minlength=held.size) / count, lower, upper)  # a mean lies within, rounding or not
    return ReliabilityCurve(mean, hits / count, low, high, count.astype(np.int64), lower, upper)


def bins_of_equal_mass(p: Floats, bins: int) -> NDArray[np.int64]:
    """The bin of each of the values, both `[n]`: 0 for the smallest, `bins` − 1 for the largest; equal values stay together."""
    _, inverse, counts = np.unique(p, return_inverse=True, return_counts=True)
    centre = np.cumsum(counts) - counts / 2.0  # a bin holds whole levels, so ties cannot fall on two sides by their order
    return np.asarray(np.minimum((centre * bins / max(p.size, 1)).astype(np.int64), bins - 1)[inverse], np.int64)


def brier_score(probabilities: ArrayLike, outcomes: ArrayLike) -> float:
    """Mean squared error of probabilities, summed over classes: `mean Σ_k (p_k − y_k)²`; NaN if empty.

    Args:
        probabilities: `[n, K]`, rows sum to 1; or `[n]`, the probability of outcome 1 of two (then the sum over both classes).
        outcomes: `[n]`, the class that came true.

    Raises:
        DataError: for rows that do not sum to 1, classes that do not exist, or lengths that differ.
    """
    table, happened = _classes(probabilities, outcomes)
    return float(np.mean(np.sum((table - happened) ** 2, axis=1))) if table.shape[0] else NAN


def _classes(probabilities: ArrayLike, outcomes: ArrayLike) -> tuple[Floats, Floats]:
    """Probabilities and what happened (one-hot), both `[n, K]`."""
    p = _probabilities(probabilities, "probabilities")
    table = np.stack((1.0 - p, p), axis=1) if p.ndim == 1 else p
    classes = np.asarray(outcomes)
    if table.ndim != 2 or classes.shape != table.shape[:1]:
        raise DataError(f"probabilities {p.shape} and outcomes {classes.shape}: expected [n, K] or [n], and [n]")
    if table.shape[0] == 0:
        return table, table
    if not np.allclose(table.sum(axis=1), 1.0, atol=1e-6):
        raise DataError("probabilities of a row do not sum to 1", hint="apply the softmax first")
    known: NDArray[np.int64] = classes.astype(np.int64)
    if bool(np.any(known != classes)) or known.min() < 0 or known.max() >= table.shape[1]:
        raise DataError(f"outcomes must be classes 0 to {table.shape[1] - 1}")
    return table, np.asarray(np.eye(table.shape[1])[known], dtype=np.float64)


def _pairs(confidence: ArrayLike, correct: ArrayLike, bins: int) -> tuple[Floats, Floats]:
    p, hit = _probabilities(confidence, "confidence"), _probabilities(correct, "correct")
    if p.ndim != 1 or p.shape != hit.shape:
        raise DataError(f"confidence {p.shape} and correct {hit.shape}: expected two series of one length")
    if bins < 1:
        raise ConfigError(f"bins is {bins}, expected at least 1")
    return p, hit


def _probabilities(values: ArrayLike, name: str) -> Floats:
    array = as_floats(values, name=name)
    if not bool(np.all((array >= 0.0) & (array <= 1.0))):  # NaN fails both
        raise DataError(f"{name} must lie between 0 and 1 and not be NaN")
    return array
