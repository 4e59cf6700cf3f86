"""Value at risk and expected shortfall of a law given by its moments: normal, Cornish–Fisher, Student t.

Pure functions of numbers. Losses are positive. `mean` and `deviation` are per horizon, `kurtosis` is in excess of the normal law's.

Sources: Cornish & Fisher (1938); Maillard (2012), "A user's guide to the Cornish Fisher expansion", for where it may be used.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from cryptoalpha.risk.tail.losses import Floats, checked_level

NORMAL = NormalDist()


def normal_factors(level: float) -> tuple[float, float]:
    """VaR and ES of the standard normal law: 2.326348 and 2.665214 at 99 %."""
    z = NORMAL.inv_cdf(checked_level(level))
    return z, NORMAL.pdf(z) / (1.0 - level)


def normal_tail(mean: float, deviation: float, level: float) -> tuple[float, float]:
    """VaR and ES of a normal law of returns."""
    var, es = normal_factors(level)
    return -mean + deviation * var, -mean + deviation * es


def cornish_fisher_tail(mean: float, deviation: float, skew: float, kurtosis: float, level: float) -> tuple[float, float]:
    """VaR and ES of the Cornish–Fisher expansion, whether it is a law or not: ask `why_not_monotone` first."""
    q = NORMAL.inv_cdf(1.0 - checked_level(level))
    s, k = skew, kurtosis
    quantile = q + (q * q - 1.0) * s / 6.0 + (q**3 - 3.0 * q) * k / 24.0 - (2.0 * q**3 - 5.0 * q) * s * s / 36.0
    stretch = 1.0 + s * q / 6.0 + k * (q * q - 1.0) / 24.0 - s * s * (2.0 * q * q - 1.0) / 36.0
    return -(mean + deviation * quantile), -mean + deviation * NORMAL.pdf(q) / (1.0 - level) * stretch


def why_not_monotone(skew: float, kurtosis: float) -> str | None:
    """Why the expansion is not a quantile function for these moments, or None where it is.

    Its slope `A q² + s/3 q + C` with `A = k/8 − s²/6` and `C = 1 − k/8 + 5 s²/36` must not be negative for any q: else a higher confidence
    would give a smaller loss.
    """
    s, k = skew, kurtosis
    bend, slope, level = k / 8.0 - s * s / 6.0, s / 3.0, 1.0 - k / 8.0 + 5.0 * s * s / 36.0
    if bend == 0.0 and slope == 0.0:
        return None if level > 0.0 else _refusal(s, k)
    if bend > 0.0 and slope * slope <= 4.0 * bend * level:
        return None
    return _refusal(s, k)


def _refusal(skew: float, kurtosis: float) -> str:
    return f"the expansion is not monotone at skew {skew:.4g} and excess kurtosis {kurtosis:.4g}: quantiles would cross"


def moments(returns: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Mean, standard deviation (ddof 1), biased skew and biased excess kurtosis along the last axis; skew and kurtosis NaN where nothing
    varies."""
    n = returns.shape[-1]
    mean = np.mean(returns, axis=-1, keepdims=True)
    away = returns - mean
    square = away * away
    second = np.mean(square, axis=-1)
    second = np.where(second > 0.0, second, math.nan)
    third, fourth = np.mean(square * away, axis=-1), np.mean(square * square, axis=-1)
    spread = np.sqrt(np.nan_to_num(second) * n / max(n - 1, 1))
    return mean[..., 0], spread, third / second**1.5, fourth / second**2 - 3.0
