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


def chi_square_quantile(tail: float, freedom: int) -> float:
    """The x beyond which `tail` of the law lies.

    Raises:
        ConfigError: for a tail outside (0, 1).
    """
    if not 0.0 < tail < 1.0:
        raise ConfigError(f"tail is {tail}, expected a probability between 0 and 1")
    low, high = 0.0, float(freedom)
    while chi_square_tail(high, freedom) > tail:
        high *= 2.0
    for _ in range(200):
        middle = (low + high) / 2.0
        low, high = (middle, high) if chi_square_tail(middle, freedom) > tail else (low, middle)
    return (low + high) / 2.0
