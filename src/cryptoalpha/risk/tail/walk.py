"""Forecasts of tail risk made day by day along a return series, each from the days before it, beside what came.

A forecast for day t uses returns before t only (parameters, volatilities and order statistics alike): the same prefix gives the same
forecasts, and a poisoned future changes none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.monitoring.daily import checked_returns
from cryptoalpha.risk.tail.backtests import (
    Booleans,
    ForecastTest,
    christoffersen_independence,
    coverage_of,
    kupiec_pof,
    pinball_losses,
)
from cryptoalpha.risk.tail.estimate import METHODS, Method
from cryptoalpha.risk.tail.garch import GarchFit, fit_garch
from cryptoalpha.risk.tail.laws import cornish_fisher_tail, moments, normal_factors, why_not_monotone
from cryptoalpha.risk.tail.losses import Floats, checked_level, tails_of_rows
from cryptoalpha.risk.tail.volatility import DECAY, START, ewma_variances

PORTABLE: tuple[Method, ...] = ("historical", "normal", "cornish_fisher", "ewma", "filtered")
"""Methods that need no extra."""


@dataclass(frozen=True, eq=False)
class WalkForecasts:
    """One method's forecasts for days `first`, `first + 1`, … of a series, and what came.

    Shapes: `losses`, `value_at_risk`, `expected_shortfall` and `hits`, all `[n]`. A forecast that the method refused to make is NaN, counts
    in `refused` and in no test.
    """

    method: str
    level: float
    first: int
    losses: Floats
    value_at_risk: Floats
    expected_shortfall: Floats

    @property
    def hits(self) -> Booleans:
        """Whether the loss was larger than the value at risk; False where there is no forecast."""
        return np.asarray(self.losses > self.value_at_risk)

    @property
    def made(self) -> Booleans:
        """Whether there is a forecast."""
        return ~np.isnan(self.value_at_risk)

    @property
    def refused(self) -> int:
        return int(np.sum(~self.made))

    @property
    def exceedances(self) -> int:
        """How many losses were larger than the value at risk."""
        return int(np.sum(self.hits))

    def between(self, begin: int, end: int) -> WalkForecasts:
        """Forecasts for days `begin` to `end − 1` of the series only."""
        part = slice(max(begin - self.first, 0), max(end - self.first, 0))
        return WalkForecasts(
            self.method,
            self.level,
            max(begin, self.first),
            self.losses[part],
            self.value_at_risk[part],
            self.expected_shortfall[part],
        )

    def kupiec(self) -> ForecastTest:
        return kupiec_pof(self.exceedances, int(np.sum(self.made)), self.level)

    def independence(self) -> ForecastTest:
        return christoffersen_independence(self.hits[self.made])

    def coverage(self) -> ForecastTest:
        return coverage_of(self.kupiec(), self.independence())

    def mean_pinball(self) -> float:
        """Mean pinball loss of the forecasts made; NaN if there is none."""
        made = self.made
        return float(np.mean(pinball_losses(self.losses[made], self.value_at_risk[made], self.level))) if made.any() else math.nan


def walk_forecasts(
    returns: ArrayLike,
    *,
    level: float = 0.99,
    methods: Sequence[Method] = PORTABLE,
    window: int = 500,
    refit_every: int = 20,
    fit_window: int = 1_000,
    decay: float = DECAY,
) -> dict[str, WalkForecasts]:
    """One-day forecasts for days `window`, `window + 1`, … of a series, by method.

    Args:
        returns: `[n]`, simple daily returns, oldest first.
        level: confidence.
        methods: of `estimate.METHODS`.
        window: past days that `historical`, `normal`, `cornish_fisher` and `filtered` draw from.
        refit_every: days between fits of `garch`; in between its variance follows the days, its parameters stay.
        fit_window: past days a fit sees at most.
        decay: of `ewma` and `filtered`, whose volatility has seen the whole past.

    Raises:
        DataError: for NaN or infinite returns.
        ConfigError: for an unknown method, a level outside (0, 1), a window shorter than 20, or `garch` without SciPy.
    """
    checked_level(level)
    r = checked_returns(returns)
    if not all(isinstance(days, int | np.integer) for days in (window, refit_every, fit_window)) or (
        window < START or refit_every < 1 or fit_window < window
    ):
        raise ConfigError(
            f"window {window}, refit_every {refit_every}, fit_window {fit_window}",
            hint=f"whole days: a window has {START} at least, a fit sees no fewer, and refits lie a day apart at least",
        )
    found: dict[str, WalkForecasts] = {}
    losses = -r[window:]
    for method in methods:
        if method not in METHODS:
            raise ConfigError(f"no method of value at risk is called {method!r}", hint=f"known: {', '.join(METHODS)}")
        if len(losses) == 0:
            var, es = np.empty(0), np.empty(0)
        elif method in ("garch", "garch_t"):
            var, es = _garch(r, method, level, window, refit_every, fit_window)
        elif method in ("ewma", "filtered"):
            var, es = _rescaled(r, method, level, window, decay)
        else:
            var, es = _windowed(sliding_window_view(r, window)[:-1], method, level)
        found[method] = WalkForecasts(method, level, window, losses, var, es)
    return found


def _windowed(past: Floats, method: Method, level: float) -> tuple[Floats, Floats]:
    """From the last `window` days as they were, `past [n, window]`."""
    if method == "historical":
        return tails_of_rows(-past, level)
    mean, spread, skew, kurtosis = moments(past)
    if method == "normal":
        var_factor, es_factor = normal_factors(level)
        return spread * var_factor - mean, spread * es_factor - mean
    var, es = np.full(len(past), math.nan), np.full(len(past), math.nan)
    for day, (m, d, s, k) in enumerate(zip(mean.tolist(), spread.tolist(), skew.tolist(), kurtosis.tolist(), strict=True)):
        if why_not_monotone(s, k) is None:
            var[day], es[day] = cornish_fisher_tail(m, d, s, k, level)
    return var, es


def _rescaled(r: Floats, method: Method, level: float, window: int, decay: float) -> tuple[Floats, Floats]:
    """Through the volatility expected of each day from all days before it."""
    spread = np.sqrt(ewma_variances(r, decay))
    expected = spread[window:-1]
    if method == "ewma":
        var_factor, es_factor = normal_factors(level)
        return expected * var_factor, expected * es_factor
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = np.where(spread[:-1] > 0.0, r / spread[:-1], math.nan)
    var, es = tails_of_rows(-sliding_window_view(scores, window)[:-1], level)
    return expected * var, expected * es


def _garch(r: Floats, method: Method, level: float, window: int, refit_every: int, fit_window: int) -> tuple[Floats, Floats]:
    var, es = np.full(len(r) - window, math.nan), np.full(len(r) - window, math.nan)
    fit: GarchFit | None = None
    for begin in range(window, len(r), refit_every):
        end, origin = min(begin + refit_every, len(r)), max(0, begin - fit_window)
        fit = fit_garch(r[origin:begin], shocks="normal" if method == "garch" else "student", start=fit)
        if fit.reason is not None:
            continue
        # the last day's return is not passed on: h[t] needs only the days before t
        spread = np.sqrt(fit.variances(r[origin : end - 1])[begin - origin :])
        var_factor, es_factor = fit.factors(level)
        var[begin - window : end - window] = spread * var_factor - fit.mean
        es[begin - window : end - window] = spread * es_factor - fit.mean
    return var, es
