"""Confidence intervals for measures of dependent returns: the stationary block bootstrap.

Blocks of random (geometric) length keep the autocorrelation and the volatility clusters of the series; wrapping around its end keeps every
return equally likely. Intervals are percentiles of the resampled measure. Resampling is seeded by name and repeats to the last bit.

Sources: Politis & Romano (1994), "The stationary bootstrap"; Politis & White (2004) with the correction of Patton, Politis & White (2009)
for the block length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.core.seeds import stream
from cryptoalpha.monitoring.daily import Floats, checked_returns
from cryptoalpha.monitoring.ratios import NAN, autocorrelations, checked_periods, deviation, rounding_noise, sharpe_ratio

RESAMPLES = 2_000
LEVEL = 0.95
_CELLS_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Interval:
    """A measure with its bootstrap confidence interval."""

    estimate: float
    low: float
    high: float
    level: float
    block_length: float
    """Mean length of the resampled blocks, periods."""
    resamples: int
    """Resamples in which the measure was defined."""
    share_below_zero: float
    """Share of them in which it was at or below zero: a one-sided p-value for "the measure is positive"."""


def block_length(returns: ArrayLike) -> float:
    """Mean block length (periods, at least 1) for the stationary bootstrap, by the rule of Politis & White.

    The longer of what the returns and their squares ask for, since volatility clusters live in the squares; at most
    min(3 √n, n / 3).
    """
    r = checked_returns(returns)
    return max(_automatic_length(r), _automatic_length((r - r.mean()) ** 2)) if r.size >= 4 else 1.0


def _automatic_length(x: Floats) -> float:
    n = x.size
    if deviation(x) == 0.0:
        return 1.0
    quiet_run = max(5, int(np.sqrt(np.log10(n))))
    longest = min(int(np.ceil(np.sqrt(n))) + quiet_run, n - 1)
    rho = autocorrelations(x, longest)
    loud = np.abs(rho) > 2.0 * np.sqrt(np.log10(n) / n)
    # the first lag after which `quiet_run` correlations in a row are negligible
    m = next((k for k in range(longest) if not loud[k : k + quiet_run].any()), longest)
    window = min(2 * max(m, 1), longest)
    k = np.arange(1, window + 1)
    weights = np.clip(2.0 * (1.0 - k / window), 0.0, 1.0)  # flat top: 1 up to half the window, then down to 0
    spectrum = 1.0 + 2.0 * float(np.sum(weights * rho[:window]))
    bend = 2.0 * float(np.sum(weights * k * rho[:window]))
    if spectrum <= 0.0:
        return 1.0
    optimal = (bend / spectrum) ** 2  # 2 G² / D with D = 2 g(0)²
    return float(np.clip(np.cbrt(optimal * n), 1.0, max(1.0, min(3.0 * np.sqrt(n), n / 3.0))))


def resample_indices(
    length: int, resamples: int, mean_block: float, rng: np.random.Generator, *, drawn: int | None = None
) -> NDArray[np.int32]:
    """Places to draw from a series of `length`, shape `[resamples, drawn]`: runs of consecutive places, wrapping around.

    A new run starts at each place with probability `1 / mean_block`. `drawn` is `length` unless given.
    """
    width = length if drawn is None else drawn
    place = np.arange(width, dtype=np.int32)
    starts = rng.random((resamples, width), dtype=np.float32) < 1.0 / mean_block
    starts[:, :1] = True
    origin = rng.integers(0, length, (resamples, width), dtype=np.int32)
    opened = np.maximum.accumulate(np.where(starts, place, 0), axis=1)
    found = np.take_along_axis(origin, opened, axis=1) + (place - opened)
    if width > length:
        return np.asarray(found % length, dtype=np.int32)
    return np.asarray(np.where(found >= length, found - length, found), dtype=np.int32)


def bootstrap_interval(
    returns: ArrayLike,
    measure: Callable[[Floats], float],
    *,
    seed: int = 0,
    name: str = "measure",
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    mean_block: float | None = None,
) -> Interval:
    """Interval of any measure of one return series.

    Args:
        returns: `[n]`.
        measure: takes a resampled series `[n]`; NaN where undefined there.
        seed, name: the random stream.
        resamples: how many series are drawn.
        level: probability mass between the bounds.
        mean_block: mean block length; `block_length(returns)` unless given.

    Raises:
        DataError: for fewer than two returns.
        ConfigError: for a level outside (0, 1) or no resamples.
    """
    r = _checked(returns, resamples, level)
    mean_block = block_length(r) if mean_block is None else mean_block
    draws = [measure(r[row]) for block in _draws(r.size, resamples, mean_block, seed, name) for row in block]
    return interval_of(measure(r), np.array(draws), level, mean_block)


def rows_interval(
    returns: ArrayLike,
    measure: Callable[[Floats], Floats],
    *,
    seed: int = 0,
    name: str = "measure",
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    mean_block: float | None = None,
) -> Interval:
    """As `bootstrap_interval`, for a measure that takes many series at once, `[k, n]` → `[k]`: no Python loop over resamples."""
    r = _checked(returns, resamples, level)
    mean_block = block_length(r) if mean_block is None else mean_block
    draws = [measure(r[block]) for block in _draws(r.size, resamples, mean_block, seed, name)]
    return interval_of(float(measure(r[None, :])[0]), np.concatenate(draws), level, mean_block)


def sharpe_interval(
    returns: ArrayLike,
    *,
    periods_per_year: float,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    mean_block: float | None = None,
) -> Interval:
    """Interval of the annual Sharpe ratio."""
    return rows_interval(
        returns,
        lambda rows: _sharpe_rows(rows, periods_per_year),
        seed=seed,
        name="sharpe",
        resamples=resamples,
        level=level,
        mean_block=mean_block,
    )


def growth_interval(
    returns: ArrayLike, *, periods_per_year: float, seed: int = 0, resamples: int = RESAMPLES, level: float = LEVEL
) -> Interval:
    """Interval of the compound growth per year."""
    years = np.asarray(returns).size / checked_periods(periods_per_year)

    def per_year(rows: Floats) -> Floats:
        wealth = np.prod(1.0 + rows, axis=1)
        wealth[(rows < -1.0).any(axis=1)] = NAN
        return np.asarray(wealth ** (1.0 / years) - 1.0, dtype=np.float64)

    return rows_interval(returns, per_year, seed=seed, name="growth", resamples=resamples, level=level)


def drawdown_interval(returns: ArrayLike, *, seed: int = 0, resamples: int = RESAMPLES, level: float = LEVEL) -> Interval:
    """Interval of the deepest drawdown, a positive fraction. The realised depth is one draw, not a bound on what comes."""

    def depth(rows: Floats) -> Floats:
        wealth = np.cumprod(np.concatenate((np.ones((rows.shape[0], 1)), 1.0 + rows), axis=1), axis=1)
        return np.asarray(np.max(1.0 - wealth / np.maximum.accumulate(wealth, axis=1), axis=1), dtype=np.float64)

    return rows_interval(returns, depth, seed=seed, name="drawdown", resamples=resamples, level=level)


def sharpe_difference(
    first: ArrayLike,
    second: ArrayLike,
    *,
    periods_per_year: float,
    seed: int = 0,
    name: str = "difference",
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    mean_block: float | None = None,
) -> Interval:
    """Interval of the annual Sharpe ratio of `first` minus that of `second`, over the same periods.

    Both are resampled at the same places, so that what moves both alike cancels: far narrower than two separate intervals suggest.

    Raises:
        DataError: if the series differ in length.
    """
    a, b = _checked(first, resamples, level), _checked(second, resamples, level)
    if a.size != b.size:
        raise DataError(f"series of {a.size} and {b.size} returns cannot be paired", hint="cut both to the same days first")
    mean_block = max(block_length(a), block_length(b)) if mean_block is None else mean_block
    draws = [
        _sharpe_rows(a[block], periods_per_year) - _sharpe_rows(b[block], periods_per_year)
        for block in _draws(a.size, resamples, mean_block, seed, name)
    ]
    estimate = sharpe_ratio(a, periods_per_year=periods_per_year) - sharpe_ratio(b, periods_per_year=periods_per_year)
    return interval_of(estimate, np.concatenate(draws), level, mean_block)


def _checked(returns: ArrayLike, resamples: int, level: float) -> Floats:
    if not 0.0 < level < 1.0 or resamples < 1:
        raise ConfigError(f"level {level}, resamples {resamples}: expected a level between 0 and 1 and at least one resample")
    r = checked_returns(returns)
    if r.size < 2:
        raise DataError(f"{r.size} returns cannot be resampled, expected at least two")
    return r


def _draws(length: int, resamples: int, mean_block: float, seed: int, name: str) -> Iterator[NDArray[np.int32]]:
    """Index blocks, small enough that hourly years fit in memory; the stream, hence the result, depends on the sizes only."""
    rng = stream(seed, "monitoring", "bootstrap", name)
    step = max(1, _CELLS_AT_ONCE // length)
    for start in range(0, resamples, step):
        yield resample_indices(length, min(step, resamples - start), mean_block, rng)


def _sharpe_rows(rows: Floats, periods_per_year: float) -> Floats:
    """Annual Sharpe ratio of each row, NaN where a row does not vary."""
    mean = rows.mean(axis=1)
    spread = np.sqrt(np.sum((rows - mean[:, None]) ** 2, axis=1) / (rows.shape[1] - 1))
    spread[spread <= rounding_noise(rows)] = NAN
    return np.asarray(mean / spread * np.sqrt(checked_periods(periods_per_year)), dtype=np.float64)


def interval_of(estimate: float, draws: Floats, level: float, mean_block: float) -> Interval:
    """Percentiles of the resampled measure `[resamples]`, NaN where it was undefined; bounds are NaN where it never was defined."""
    defined = draws[np.isfinite(draws)]
    if not np.isfinite(estimate) or defined.size == 0:
        return Interval(estimate, NAN, NAN, level, mean_block, defined.size, NAN)
    low, high = np.quantile(defined, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return Interval(estimate, float(low), float(high), level, mean_block, defined.size, float(np.mean(defined <= 0.0)))
