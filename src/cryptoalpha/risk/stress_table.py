"""All stresses on one book: those that can be told from the data at hand, and why the others cannot."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cryptoalpha.core.errors import ConfigError, DataError, DataMissingError
from cryptoalpha.monitoring.daily import as_floats
from cryptoalpha.risk.covariance import ledoit_wolf
from cryptoalpha.risk.crises import CRISES, Crisis
from cryptoalpha.risk.exposure import checked_weights
from cryptoalpha.risk.matrices import Floats
from cryptoalpha.risk.stress import StressResult, correlation_shock, exchange_outage, historical, liquidity_drought, worst_gap

Places = NDArray[np.intp]
GAP = 0.2
"""Size of the jump, fraction. 0.2: a little more than Bitcoin lost in its worst hour of 2017 to 2023, 18 % on 12 March 2020."""
LEAST_DAYS = 60
"""Complete days from which volatility and correlation are taken at least."""


@dataclass(frozen=True, eq=False)
class StressTable:
    """What was found, in the order of the stresses, and what could not be told: (name, reason)."""

    results: tuple[StressResult, ...]
    missing: tuple[tuple[str, str], ...]

    @property
    def worst(self) -> StressResult | None:
        """The stress that costs most; None if none could be told."""
        return min(self.results, key=lambda result: result.total, default=None)


def stress_test(
    weights: ArrayLike,
    daily_returns: ArrayLike,
    days: ArrayLike,
    *,
    equity: float,
    daily_values: ArrayLike | None = None,
    bar_returns: ArrayLike | None = None,
    outage_bars: int = 24,
    crises: tuple[Crisis, ...] = CRISES,
) -> StressTable:
    """Every stress of `risk.stress` at its default severity.

    Args:
        weights: signed fractions of equity, `[A]`.
        daily_returns: simple, `[T, A]`, NaN where an instrument was not listed.
        days: 00:00 UTC at which each begins, ns, `[T]`.
        equity: quote currency (> 0).
        daily_values: traded per day, quote currency, `[A]`; None = the liquidity drought cannot be told.
        bar_returns: simple returns of the bars an outage is counted in, `[T', A]`; rows in which a held instrument is NaN are left out.
            None = the outage cannot be told.
        outage_bars: length of the outage.
        crises: those to replay.

    Raises:
        DataError: for shapes that do not fit.
        ConfigError: for numbers out of range.
    """
    w, rows = checked_weights(weights), as_floats(daily_returns, name="daily_returns")
    if rows.ndim != 2 or rows.shape != (np.size(days), len(w)):
        raise DataError(f"daily returns {rows.shape} for {np.size(days)} days and {len(w)} weights, expected a row per day")
    if not 0.0 < equity < math.inf or outage_bars < 1:
        raise ConfigError(f"equity {equity} and outage_bars {outage_bars}: expected a positive amount, and at least 1")
    traded = None if daily_values is None else as_floats(daily_values, name="daily_values")
    bars = None if bar_returns is None else as_floats(bar_returns, name="bar_returns")
    if (traded is not None and traded.shape != w.shape) or (bars is not None and (bars.ndim != 2 or bars.shape[1] != len(w))):
        shapes = " and ".join(f"{name} {x.shape}" for name, x in (("daily values", traded), ("returns of bars", bars)) if x is not None)
        raise DataError(f"{shapes} for {len(w)} weights, expected [A] and [T, A]")
    results: list[StressResult] = []
    missing: list[tuple[str, str]] = []
    for crisis in crises:
        try:
            results.append(historical(w, rows, days, crisis))
        except DataError as unknown:
            missing.append((crisis.name, str(unknown)))
    held = np.flatnonzero(w)
    stresses: tuple[tuple[str, Callable[[], StressResult]], ...] = (
        ("correlation", lambda: correlation_shock(w[held], _covariance(rows[:, held]))),
        ("liquidity", lambda: _drought(w[held], rows[:, held], traded, held, equity)),
        ("outage", lambda: _outage(w[held], bars, held, outage_bars)),
    )
    for name, stress in stresses if len(held) else ():
        try:
            results.append(_spread(stress(), held, len(w)))
        except DataError as unknown:
            missing.append((name, str(unknown)))
    results.append(worst_gap(w, GAP))
    return StressTable(tuple(results), tuple(missing))


def _covariance(rows: Floats) -> Floats:
    known = rows[np.isfinite(rows).all(axis=1)]
    if len(known) < LEAST_DAYS:
        raise DataMissingError(f"{len(known)} days on which all that is held has returns, {LEAST_DAYS} are needed")
    return ledoit_wolf(known).covariance


def _drought(weights: Floats, rows: Floats, traded: Floats | None, held: Places, equity: float) -> StressResult:
    if traded is None:
        raise DataMissingError("what is traded per day was not given")
    return liquidity_drought(weights, traded[held], np.sqrt(np.diagonal(_covariance(rows))), equity=equity)


def _outage(weights: Floats, bars: Floats | None, held: Places, length: int) -> StressResult:
    if bars is None:
        raise DataMissingError("returns of bars were not given")
    rows = bars[:, held]
    return exchange_outage(weights, rows[np.isfinite(rows).all(axis=1)], length)


def _spread(result: StressResult, held: Places, assets: int) -> StressResult:
    """The same result with zeros for what is not held."""
    by_position = np.zeros(assets)
    by_position[held] = result.by_position
    return StressResult(result.name, by_position, result.what)
