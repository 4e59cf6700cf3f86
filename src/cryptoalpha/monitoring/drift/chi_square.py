"""The upper tail of the χ² law for whole degrees of freedom, in closed form; no SciPy at run time."""

from __future__ import annotations

from math import erfc, exp, lgamma, log, sqrt

from cryptoalpha.core.errors import ConfigError


def chi_square_tail(x: float, freedom: int) -> float:
    """P(χ² > x) with `freedom` ≥ 1 degrees of freedom.

    Raises:
        ConfigError: for fewer than one degree of freedom.
    """
    if freedom < 1:
        raise ConfigError(f"{freedom} degrees of freedom, expected at least 1")
    if x <= 0.0:
        return 1.0
    half = x / 2.0
    if freedom % 2:  # erfc, and half-integer steps of the incomplete gamma function
        total, power = erfc(sqrt(half)), 0.5
    else:
        total, power = exp(-half), 1.0
    while power < freedom / 2.0 - 0.25:
        total += exp(power * log(half) - half - lgamma(power + 1.0))
        power += 1.0
    return min(total, 1.0)
