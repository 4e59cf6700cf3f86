"""Could luck have done this? Probabilistic and deflated Sharpe ratio, the best of many worthless trials, the track record needed.

Sharpe ratios in this file are per period (not annualised) unless a name says otherwise; skewness and kurtosis are the biased sample
moments, and kurtosis is not excess (3 for a normal). Probabilities are of the true Sharpe lying above the benchmark.

Sources: Bailey & López de Prado (2012), "The Sharpe ratio efficient frontier"; (2014), "The deflated Sharpe ratio".
"""

from __future__ import annotations

from dataclasses import dataclass
from math import e, sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.monitoring.daily import checked_returns
from cryptoalpha.monitoring.ratios import NAN, deviation

EULER_GAMMA = 0.5772156649015329

_NORMAL = NormalDist()


@dataclass(frozen=True)
class SharpeMoments:
    """What the significance of a Sharpe ratio depends on."""

    sharpe: float
    """Per period."""
    observations: int
    skewness: float = 0.0
    kurtosis: float = 3.0

    @property
    def variance(self) -> float:
        """Variance of `sharpe` times (observations − 1): 1 − g₃ sr + (g₄ − 1)/4 sr²; NaN where not positive."""
        value = 1.0 - self.skewness * self.sharpe + (self.kurtosis - 1.0) / 4.0 * self.sharpe**2
        return value if value > 0.0 else NAN


def sharpe_moments(returns: ArrayLike) -> SharpeMoments:
    """Per-period Sharpe ratio, length, skewness and kurtosis of a return series; NaN moments where it does not vary."""
    r = checked_returns(returns)
    spread = deviation(r)
    if not spread > 0.0:
        return SharpeMoments(NAN, r.size, NAN, NAN)
    z = (r - r.mean()) / r.std()
    return SharpeMoments(float(r.mean()) / spread, r.size, float(np.mean(z**3)), float(np.mean(z**4)))


def probabilistic_sharpe_ratio(returns: ArrayLike | SharpeMoments, *, benchmark: float = 0.0) -> float:
    """Probability that the true Sharpe ratio lies above `benchmark` (per period); NaN where the Sharpe ratio is undefined."""
    m = returns if isinstance(returns, SharpeMoments) else sharpe_moments(returns)
    z = (m.sharpe - benchmark) * sqrt(max(m.observations - 1, 0)) / sqrt(m.variance)
    return NAN if z != z else _NORMAL.cdf(z)


def expected_max_sharpe(trials: int, *, spread: float = 1.0) -> float:
    """Sharpe ratio that the best of `trials` worthless, independent trials reaches on average.

    Args:
        trials: how many were ever tried, failed ones too.
        spread: standard deviation of the Sharpe ratio across trials, in the unit wanted back: `1 / sqrt(years)` gives the annual
            Sharpe of worthless trials.

    Returns:
        `spread · ((1 − γ) Φ⁻¹(1 − 1/N) + γ Φ⁻¹(1 − 1/(N e)))`; 0 for one trial, which selects nothing.

    Raises:
        ConfigError: for fewer than one trial or a negative spread.
    """
    if trials < 1 or spread < 0.0:
        raise ConfigError(f"trials {trials}, spread {spread}: expected at least one trial and a spread of at least 0")
    if trials == 1:
        return 0.0
    best = (1.0 - EULER_GAMMA) * _NORMAL.inv_cdf(1.0 - 1.0 / trials) + EULER_GAMMA * _NORMAL.inv_cdf(1.0 - 1.0 / (trials * e))
    return spread * best


def deflated_sharpe_ratio(returns: ArrayLike | SharpeMoments, *, trials: int | ArrayLike, spread: float | None = None) -> float:
    """Probability that the true Sharpe ratio exceeds what the best of all trials would have reached by luck.

    Args:
        returns: the chosen series, or its moments.
        trials: how many were ever tried, or the per-period Sharpe ratios of all of them (the chosen one included).
        spread: standard deviation (ddof 1) of the trials' per-period Sharpe ratios; taken from `trials` if those are given. Known
            neither way, it is `1 / sqrt(n − 1)`, the spread of worthless independent trials of this length.

    Returns:
        A probability; at least .95 is asked for promotion. One trial deflates nothing: it is the probabilistic Sharpe ratio.

    Raises:
        ConfigError: for fewer than one trial, or a single number of trials that is not whole.
        DataError: for Sharpe ratios of trials that are not finite.
    """
    m = returns if isinstance(returns, SharpeMoments) else sharpe_moments(returns)
    if isinstance(trials, int | np.integer):
        count = int(trials)
        width = spread if spread is not None else (1.0 / sqrt(m.observations - 1) if m.observations > 1 else NAN)
    else:
        if np.ndim(trials) == 0:
            raise ConfigError(f"trials is {trials!r}, expected a whole number, or the ratio of each", hint="pass a list for one ratio")
        sharpes = checked_returns(trials, name="trials")
        count = sharpes.size
        width = spread if spread is not None else (deviation(sharpes) if count > 1 else 0.0)
    if m.observations < 2:
        return NAN
    return probabilistic_sharpe_ratio(m, benchmark=expected_max_sharpe(count, spread=width))


def min_track_record_length(returns: ArrayLike | SharpeMoments, *, benchmark: float = 0.0, probability: float = 0.95) -> float:
    """Periods needed before the Sharpe ratio lies above `benchmark` with this probability; NaN where it does not exceed it."""
    m = returns if isinstance(returns, SharpeMoments) else sharpe_moments(returns)
    if not m.sharpe > benchmark:
        return NAN
    return 1.0 + m.variance * (_NORMAL.inv_cdf(probability) / (m.sharpe - benchmark)) ** 2
