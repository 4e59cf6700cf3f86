"""Did the forecasts of value at risk and expected shortfall come true?

A hit is a loss larger than the value at risk forecast for its period, the forecast made before it. Too many hits fail, and so do too few:
a model that is never exceeded asks for capital it does not need. Losses are positive.

Sources: Kupiec (1995); Christoffersen (1998); Acerbi & Szekely (2014), "Backtesting expected shortfall", test 2; the pinball loss is the
consistent score of a quantile (Gneiting, 2011).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.core.seeds import stream
from cryptoalpha.monitoring.bootstrap import Interval, rows_interval
from cryptoalpha.monitoring.daily import checked_returns
from cryptoalpha.risk.tail.losses import Floats, checked_level

Booleans = NDArray[np.bool_]

SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class ForecastTest:
    """A statistic and how likely one as large is if the forecasts are right; NaN exactly where `reason` says why."""

    statistic: float
    p_value: float
    reason: str | None = None

    def accepts(self, significance: float = SIGNIFICANCE) -> bool:
        """Whether the forecasts stand; False where the test could not be made."""
        return self.p_value >= significance


def kupiec_pof(hits: int, observations: int, level: float) -> ForecastTest:
    """Is the share of hits what the level promises? Likelihood ratio of `1 − level` against `hits / observations`, χ² with one degree.

    Raises:
        ConfigError: for a level outside (0, 1), hits outside 0–observations, or parts of either.
    """
    expected = 1.0 - checked_level(level)
    if not float(hits).is_integer() or not float(observations).is_integer():
        raise ConfigError(f"{hits} hits in {observations} observations, expected whole numbers")
    if not 0 <= hits <= observations:
        raise ConfigError(f"{hits} hits in {observations} observations, expected 0 to {observations}")
    if observations == 0:
        return _undefined("no observations")
    seen = hits / observations
    ratio = -2.0 * (_log_likelihood(observations - hits, hits, expected) - _log_likelihood(observations - hits, hits, seen))
    return _ratio_test(ratio, 1)


def christoffersen_independence(hits: ArrayLike) -> ForecastTest:
    """Do hits come alone? Likelihood ratio of one chance for every day against one after a hit and one after none, χ² with one degree.

    Args:
        hits: `[n]` of booleans, oldest first.
    """
    h = _checked_hits(hits)
    if h.size < 2:
        return _undefined(f"{h.size} observations have no neighbours")
    return _independence(*transitions(h))


def conditional_coverage(hits: ArrayLike, level: float) -> ForecastTest:
    """Both at once: the sum of the two statistics, χ² with two degrees."""
    h = _checked_hits(hits)
    return coverage_of(kupiec_pof(int(h.sum()), h.size, level), christoffersen_independence(h))


def coverage_of(pof: ForecastTest, independence: ForecastTest) -> ForecastTest:
    """Conditional coverage from its two parts."""
    reason = pof.reason or independence.reason
    return _undefined(reason) if reason else _ratio_test(pof.statistic + independence.statistic, 2)


def independence_of(after_none: tuple[int, int], after_hit: tuple[int, int]) -> ForecastTest:
    """Christoffersen's test from counts: (calm, hit) days after a calm day, and after a hit."""
    if sum(after_none) + sum(after_hit) < 1:
        return _undefined("1 observation has no neighbours")
    return _independence(*after_none, *after_hit)


def transitions(hits: Booleans) -> tuple[int, int, int, int]:
    """Counts n00, n01, n10, n11 of a day's state (1 = hit) after the state of the day before."""
    before, after = hits[:-1], hits[1:]
    n11 = int(np.sum(before & after))
    n10, n01 = int(np.sum(before)) - n11, int(np.sum(after)) - n11
    return before.size - n11 - n10 - n01, n01, n10, n11


def es_backtest(
    losses: ArrayLike,
    value_at_risk: ArrayLike,
    expected_shortfall: ArrayLike,
    *,
    level: float,
    simulate: Callable[[np.random.Generator], Floats],
    resamples: int = 2_000,
    seed: int = 0,
) -> ForecastTest:
    """Were losses beyond the value at risk as large as forecast? `Z = 1 − Σ_hits (L / ES) / (n (1 − level))`: mean 0, negative where the
    expected shortfall was too small.

    Args:
        losses, value_at_risk, expected_shortfall: `[n]`, the forecasts of each period made before it.
        simulate: draws losses `[n]` from the law that the model forecast for each period: the null comes from the model itself, since the
            critical value depends on its tails.
        resamples: how many null series are drawn.
        seed: of the draws.

    The p-value is one-sided: the share of null statistics as small as the one seen.

    Raises:
        DataError: if lengths disagree, something is not finite, or an expected shortfall is not positive.
    """
    checked_level(level)
    seen = checked_returns(losses, name="losses")
    var = checked_returns(value_at_risk, name="value_at_risk")
    es = checked_returns(expected_shortfall, name="expected_shortfall")
    if not seen.shape == var.shape == es.shape or bool(np.any(es <= 0.0)):
        raise DataError(
            f"{seen.size} losses, {var.size} values at risk and {es.size} expected shortfalls, expected equally many, shortfalls positive"
        )
    if seen.size == 0:
        return _undefined("no observations")
    statistic = _acerbi_szekely(seen, var, es, level)
    rng = stream(seed, "risk", "tail", "es_backtest")
    below = sum(_acerbi_szekely(simulate(rng), var, es, level) <= statistic for _ in range(resamples))
    return ForecastTest(statistic, (1 + below) / (1 + resamples))


def pinball_losses(losses: ArrayLike, value_at_risk: ArrayLike, level: float) -> Floats:
    """Score of each forecast, lower is better: `level · (L − VaR)` above it, `(1 − level) · (VaR − L)` below, `[n]`."""
    checked_level(level)
    miss = checked_returns(losses, name="losses") - checked_returns(value_at_risk, name="value_at_risk")
    return np.where(miss > 0.0, level * miss, (level - 1.0) * miss)


def compare_pinball(
    losses: ArrayLike, value_at_risk: ArrayLike, other: ArrayLike, *, level: float, seed: int = 0, resamples: int = 2_000
) -> Interval:
    """Mean pinball loss of one method less another's, with a stationary block bootstrap interval; negative where the first is better.

    Raises:
        DataError: as `monitoring.bootstrap.rows_interval`.
    """
    difference = pinball_losses(losses, value_at_risk, level) - pinball_losses(losses, other, level)
    return rows_interval(difference, lambda rows: np.mean(rows, axis=1), seed=seed, name="pinball", resamples=resamples)


def _acerbi_szekely(losses: Floats, var: Floats, es: Floats, level: float) -> float:
    return 1.0 - float(np.sum(np.where(losses > var, losses / es, 0.0))) / (losses.size * (1.0 - level))


def _independence(n00: int, n01: int, n10: int, n11: int) -> ForecastTest:
    def share(hits: int, calm: int) -> float:
        return hits / (hits + calm) if hits + calm else 0.0

    together = _log_likelihood(n00 + n10, n01 + n11, share(n01 + n11, n00 + n10))
    apart = _log_likelihood(n00, n01, share(n01, n00)) + _log_likelihood(n10, n11, share(n11, n10))
    return _ratio_test(-2.0 * (together - apart), 1)


def _log_likelihood(calm: int, hits: int, chance: float) -> float:
    """`calm ln(1 − chance) + hits ln(chance)` with 0 ln 0 = 0."""
    return (calm * math.log1p(-chance) if calm else 0.0) + (hits * math.log(chance) if hits else 0.0)


def _ratio_test(statistic: float, degrees: int) -> ForecastTest:
    statistic = max(statistic, 0.0)  # rounding
    tail = math.erfc(math.sqrt(statistic / 2.0)) if degrees == 1 else math.exp(-statistic / 2.0)
    return ForecastTest(statistic, tail)


def _checked_hits(hits: ArrayLike) -> Booleans:
    h = np.asarray(hits)
    if h.ndim != 1 or h.dtype != np.bool_:
        raise DataError(f"hits have shape {h.shape} and type {h.dtype}, expected booleans `[n]`", hint="pass `losses > value_at_risk`")
    return h


def _undefined(reason: str) -> ForecastTest:
    return ForecastTest(math.nan, math.nan, reason)
