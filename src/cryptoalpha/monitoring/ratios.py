"""Reward and reward per risk of a return series: CAGR, volatility, Sharpe, Sortino, Omega, win rate, profit factor.

Pure functions of NumPy arrays; no clock, no I/O. `returns` are simple returns per period (fractions), `periods_per_year` is always
explicit (crypto: daily 365, hourly 8760, never 252), standard deviations use ddof 1. What is undefined is NaN, never infinity;
`undefined.explain_undefined` says why. NaN or infinity in the input is refused.

Sources: Sharpe (1994); Lo (2002), "The statistics of Sharpe ratios"; Sortino & Price (1994); Keating & Shadwick (2002).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.monitoring.daily import Floats, as_floats, checked_returns

NAN = float("nan")

NOISE = 8.0 * float(np.finfo(np.float64).eps)
"""Differences up to this share of the largest value are rounding."""

FLOOR = 1e-150
"""Differences up to this vanish when squared."""


def checked_periods(periods_per_year: float) -> float:
    """`periods_per_year` itself.

    Raises:
        ConfigError: if it is not positive and finite.
    """
    if not 0.0 < periods_per_year < float("inf"):
        raise ConfigError(
            f"periods_per_year is {periods_per_year}, expected a positive number", hint="daily crypto returns: 365; hourly: 8760"
        )
    return float(periods_per_year)


def rounding_noise(values: Floats) -> float:
    """Differences no larger than this carry no information; the floor keeps squares from vanishing below the smallest float."""
    return max(NOISE * float(np.max(np.abs(values))), FLOOR)


def shortfalls(returns: Floats, threshold: float) -> Floats:
    """How far each return lies below the threshold, as a positive number; 0 where it does not or only by rounding."""
    below = np.maximum(threshold - returns, 0.0)
    return np.where(below > rounding_noise(returns), below, 0.0)


def deviation(values: Floats) -> float:
    """Standard deviation with ddof 1; exactly 0 where the values differ by no more than rounding; NaN for fewer than two, and where
    squares overflow."""
    if values.size < 2:
        return NAN
    with np.errstate(over="ignore", invalid="ignore"):
        spread = float(np.std(values, ddof=1))
    if not np.isfinite(spread):
        return NAN
    return 0.0 if spread <= rounding_noise(values) else spread


def annual_volatility(returns: ArrayLike, *, periods_per_year: float) -> float:
    """Standard deviation of the returns per year, a fraction; NaN for fewer than two returns and where squares overflow."""
    return deviation(checked_returns(returns)) * float(np.sqrt(checked_periods(periods_per_year)))


def cagr(returns: ArrayLike, *, periods_per_year: float) -> float:
    """Compound growth per year, `prod(1 + r) ** (ppy / n) - 1`; −1 where everything was lost, NaN if empty or wealth fell below zero."""
    r = checked_returns(returns)
    growth = float(np.prod(1.0 + r)) if r.size else NAN
    if not growth >= 0.0 or bool(np.any(r < -1.0)):
        return NAN
    with np.errstate(over="ignore"):
        annual = float(np.float64(growth) ** (checked_periods(periods_per_year) / r.size)) - 1.0
    return annual if np.isfinite(annual) else NAN


def sharpe_ratio(
    returns: ArrayLike,
    *,
    periods_per_year: float,
    rf: float | ArrayLike = 0.0,
    autocorr_adjust: bool = False,
    minimum: int = 2,
) -> float:
    """Mean excess return over its standard deviation, per year.

    Args:
        returns: simple returns per period.
        periods_per_year: 365 for daily crypto returns.
        rf: risk-free return per period, one number or one per return.
        autocorr_adjust: scale by Lo's q / sqrt(q + 2 Σ (q − k) ρ_k) instead of sqrt(q). Sample autocorrelations are used up to lag
            4 (n / 100)^(2/9); those beyond are taken as zero, since a full set of q − 1 sample autocorrelations is mostly noise.
        minimum: fewer returns than this give NaN. The house's headline Sharpe asks for 30 (`comparison`).

    Returns:
        The ratio; NaN for too few returns or no volatility.

    Raises:
        DataError: for returns or rates that are not finite, or rates of another length.

    Source: Lo (2002), eq. 20.
    """
    r = checked_returns(returns)
    periods = checked_periods(periods_per_year)
    free = as_floats(rf, name="rf")
    if free.shape not in ((), r.shape) or not np.isfinite(free).all():
        raise DataError(f"rf of shape {free.shape} for {r.size} returns, expected one finite number or one per return")
    excess = r - free
    spread = deviation(excess)
    if r.size < minimum or not spread > 0.0:
        return NAN
    ratio = float(np.mean(excess)) / spread
    if not autocorr_adjust:
        return ratio * float(np.sqrt(periods))
    lags = min(r.size - 1, int(4.0 * (r.size / 100.0) ** (2.0 / 9.0)))
    return ratio * autocorrelation_scale(autocorrelations(excess, lags), round(periods))


def autocorrelations(values: ArrayLike, lags: int) -> Floats:
    """Sample autocorrelations at lags 1..`lags` (biased, so the set is positive definite)."""
    x = checked_returns(values, name="values")
    x = x - np.mean(x)
    total = float(np.sum(x * x))  # not `@`: its last bit depends on how many threads the linear algebra has
    return np.array([float(np.sum(x[k:] * x[:-k])) / total for k in range(1, lags + 1)])


def autocorrelation_scale(correlations: ArrayLike, periods: int) -> float:
    """Lo's factor from a one-period to a `periods`-period Sharpe ratio; `correlations[k - 1]` is ρ_k, zero beyond the last.

    NaN where the implied variance of the sum is not positive.
    """
    rho = checked_returns(correlations, name="correlations")[: max(periods - 1, 0)]
    k = np.arange(1, rho.size + 1)
    variance = periods + 2.0 * float(np.sum((periods - k) * rho))
    return periods / float(np.sqrt(variance)) if variance > 0.0 else NAN


def sortino_ratio(returns: ArrayLike, *, periods_per_year: float, mar: float = 0.0) -> float:
    """Mean return above `mar` (per period) over the downside deviation, per year.

    The denominator is the root mean square of the shortfalls over ALL periods (Sortino & Price 1994), not the standard deviation of
    the negative returns: that one is zero for equal losses. NaN without a shortfall.
    """
    r = checked_returns(returns)
    periods = checked_periods(periods_per_year)
    if r.size == 0:
        return NAN
    downside = float(np.sqrt(np.mean(shortfalls(r, mar) ** 2)))
    return (float(np.mean(r)) - mar) / downside * float(np.sqrt(periods)) if downside > 0.0 else NAN


def omega_ratio(returns: ArrayLike, *, threshold: float = 0.0) -> float:
    """Sum of what lies above the threshold (per period) over the sum of what lies below; NaN if nothing lies below."""
    r = checked_returns(returns)
    below = float(np.sum(shortfalls(r, threshold))) if r.size else 0.0
    return float(np.sum(np.maximum(r - threshold, 0.0))) / below if below > 0.0 else NAN


def profit_factor(returns: ArrayLike) -> float:
    """Sum of gains over sum of losses; NaN without a loss."""
    return omega_ratio(returns)


def win_rate(returns: ArrayLike) -> float:
    """Share of periods with a gain; a period without a move is no win and stays in the denominator. NaN if empty."""
    r = checked_returns(returns)
    return float(np.mean(r > 0.0)) if r.size else NAN
