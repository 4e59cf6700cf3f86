"""Do two samples come from one distribution? Population stability index and Kolmogorov–Smirnov test, both with their null.

The PSI's customary lines (.1, .25) ignore how many values there are: at 100 values "> .1" fires 40 % of the time on nothing. Under the
null PSI ÷ (1/n + 1/m) follows χ² with one degree of freedom less than bins; that is the p-value here. Dependent series have fewer
independent values than values: pass whitened ones (`Baseline`), or their effective number.

Sources: Yurdakul & Naranjo (2020) for the PSI's law; Hodges (1958) for the exact two-sample test, Stephens (1970) for the approximate one.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, inf, sqrt

import numpy as np
from numpy.typing import ArrayLike

from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.monitoring.daily import Floats, checked_returns
from cryptoalpha.monitoring.drift.chi_square import chi_square_tail
from cryptoalpha.monitoring.ratios import deviation

EXACT = 5_000
"""Values of both samples together up to which the exact law of Kolmogorov–Smirnov is counted out, a step for each: 0.15 s at most. Beyond,
the limit law is within .02."""


@dataclass(frozen=True)
class Shift:
    """How far two samples lie apart, and how often they would by chance."""

    statistic: float
    p_value: float


def psi(reference: ArrayLike, sample: ArrayLike, *, bins: int = 10, effective: tuple[float, float] | None = None) -> Shift:
    """Population stability index `Σ (a − e) ln(a / e)` over quantile bins of the reference.

    Args:
        reference, sample: `[n]` and `[m]`.
        bins: bins of equal mass in the reference; fewer where its values repeat.
        effective: independent values in both, where those are fewer than n and m.

    Returns:
        The index and its p-value; both NaN where the reference has one bin only.

    Raises:
        DataError: for an empty sample, NaN or infinity.
        ConfigError: for fewer than two bins or effective sizes that are not positive.
    """
    if not isinstance(bins, int | np.integer) or bins < 2:
        raise ConfigError(f"bins is {bins}, expected a whole number of at least 2", hint="10 is customary")
    e, a = _two(reference, sample)
    table = Bins.of(e, bins)
    n, m = _sizes(effective, e, a)
    if table.expected.size < 2:
        return Shift(float("nan"), float("nan"))
    index = table.index(a)
    return Shift(index, chi_square_tail(index / (1.0 / n + 1.0 / m), table.expected.size - 1))


@dataclass(frozen=True)
class Bins:
    """Quantile bins of a reference, and the share of it in each."""

    edges: Floats
    expected: Floats

    @classmethod
    def of(cls, reference: Floats, bins: int = 10) -> Bins:
        """At most so many bins; equal values stay together, so repeated quantiles make fewer."""
        edges = np.unique(np.quantile(reference, np.arange(1, bins) / bins))
        edges = edges[edges < reference.max()]
        share = np.bincount(np.searchsorted(edges, reference, side="left"), minlength=edges.size + 1) / reference.size
        return cls(edges, np.maximum(share, 0.5 / reference.size))

    def index(self, sample: Floats) -> float:
        """Population stability index of a sample `[m]`."""
        share = np.bincount(np.searchsorted(self.edges, sample, side="left"), minlength=self.edges.size + 1) / sample.size
        actual = np.maximum(share, 0.5 / sample.size)
        return float(np.sum((actual - self.expected) * np.log(actual / self.expected)))


def ks_statistic(ordered: Floats, sample: Floats) -> float:
    """Largest distance between the two distribution functions; the first sample sorted.

    Between two values of the sample only the first function moves, and in one direction: looking at both sides of each is enough.
    """
    other = np.sort(sample)
    after = np.searchsorted(other, other, side="right") / other.size - np.searchsorted(ordered, other, side="right") / ordered.size
    before = np.searchsorted(ordered, other, side="left") / ordered.size - np.searchsorted(other, other, side="left") / other.size
    return float(max(np.max(np.abs(after)), np.max(np.abs(before))))


def ks_test(reference: ArrayLike, sample: ArrayLike, *, effective: tuple[float, float] | None = None) -> Shift:
    """Two-sided Kolmogorov–Smirnov test of `[n]` against `[m]`.

    Returns:
        The largest distance and its p-value: exact (for distributions without ties, else cautious) where that is cheap (`EXACT`), Stephens'
        form of the limit law beyond or where `effective` sizes are given.

    Raises:
        DataError: for an empty sample, NaN or infinity.
        ConfigError: for effective sizes that are not positive.
    """
    x, y = _two(reference, sample)
    distance = ks_statistic(np.sort(x), y)
    if effective is None and x.size + y.size <= EXACT:
        return Shift(distance, _exact_tail(distance, x.size, y.size))
    n, m = _sizes(effective, x, y)
    root = sqrt(n * m / (n + m))
    return Shift(distance, kolmogorov_tail((root + 0.12 + 0.11 / root) * distance))


def kolmogorov_tail(x: float) -> float:
    """P(K > x) of Kolmogorov's limit law: `2 Σ (−1)^{k−1} e^{−2 k² x²}`."""
    if x < 0.2:  # 1 − 1e-12 there, and the series alternates for long
        return 1.0
    total = sum((-1.0) ** (k - 1) * exp(-2.0 * k * k * x * x) for k in range(1, int(5.0 / x) + 2))  # the next is below e⁻⁵⁰
    return min(max(2.0 * total, 0.0), 1.0)


def _exact_tail(distance: float, n: int, m: int) -> float:
    """P(D ≥ distance): draw the n + m values in random order and add up what crosses the line first, step by step."""
    if n < m:
        n, m = m, n
    total = n + m
    inside = np.zeros(m + 1)  # probability of having drawn j of the smaller sample and never crossed
    inside[0] = 1.0
    j = np.arange(m + 1)
    crossed = 0.0
    for step in range(total):
        i = step - j
        other = np.clip((n - i) / (total - step), 0.0, 1.0) * inside
        mine = np.clip((m - j) / (total - step), 0.0, 1.0) * inside
        inside = other
        inside[1:] += mine[:-1]
        i = step + 1 - j
        gone = (np.abs(i / n - j / m) >= distance - 1e-12) & (i >= 0) & (i <= n)
        crossed += float(inside[gone].sum())
        inside[gone] = 0.0
    return min(crossed, 1.0)


def effective_size(values: ArrayLike) -> float:
    """Independent values that the mean of this series is worth: `n (1 − φ) / (1 + φ)`, φ its first autocorrelation, at most n."""
    x = checked_returns(values, name="values")
    if x.size < 3 or deviation(x) == 0.0:
        return float(x.size)
    d = x - x.mean()
    phi = max(float((d[1:] * d[:-1]).sum() / (d * d).sum()), 0.0)
    return x.size * (1.0 - phi) / (1.0 + phi)


def _sizes(effective: tuple[float, float] | None, x: Floats, y: Floats) -> tuple[float, float]:
    """Independent values in both samples."""
    n, m = effective if effective is not None else (float(x.size), float(y.size))
    if not (0.0 < n < inf and 0.0 < m < inf):
        raise ConfigError(f"effective sizes are {n} and {m}, expected positive numbers")
    return n, m


def _two(reference: ArrayLike, sample: ArrayLike) -> tuple[Floats, Floats]:
    x, y = checked_returns(reference, name="reference"), checked_returns(sample, name="sample")
    if x.size == 0 or y.size == 0:
        raise DataError(f"samples of {x.size} and {y.size} values cannot be compared")
    return x, y
