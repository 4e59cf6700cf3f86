"""What the forecaster is judged by, and the moment each of it became known.

A decision at the close of bar t is filled at the open of bar t+1; over a horizon of h bars everything runs from that open to the open h
bars later and is known when the bar of the last open is known (`signals.labels`). Volatility and correlation are those of the steps from
open to open in between. An outage inside a horizon is bridged: the step across it counts once, which keeps the variance right; with less
than 80 % of the opens there is no label.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit

from cryptoalpha.core.time import DAY
from cryptoalpha.signals.config import ForecastConfig
from cryptoalpha.signals.forecast.pairs import Floats32, trailing_correlation
from cryptoalpha.signals.labels import NEVER, forward_return
from cryptoalpha.signals.price_bars import LONGEST_GAP
from cryptoalpha.signals.rolling import MINIMUM_SHARE, last_before, logarithm
from cryptoalpha.store.panel import Panel
from cryptoalpha.store.tables import Floats, Times

_TOLERANCE = 1.0 - 1e-12


@dataclass(frozen=True, eq=False)
class ForecastLabels:
    """Labels of every row; NaN where unknowable. Axes: `T` rows of the panel, `N` assets, `H` horizons.

    Shapes: `move` and `volatility` `[T, N, H]` in units of σ_t √h; `known_at` `[T, H]` of both; `correlation` `[T, N, N]`, NaN on the
    diagonal, and its `correlation_known_at` `[T]`. A label may be used at a moment s only if its `known_at` ≤ s.
    """

    move: Floats32
    volatility: Floats32
    known_at: Times
    correlation: Floats32
    correlation_known_at: Times

    @property
    def all_known_at(self) -> Times:
        """When the last label of each row is known. `[T]`; `signals.labels.NEVER` where one never is."""
        return np.asarray(np.maximum(self.known_at.max(axis=1), self.correlation_known_at), np.int64)


def correlation_horizon(config: ForecastConfig, interval: int) -> int:
    """Bars over which the realised correlation is taken: the longest horizon or a day, whichever is more."""
    return max(config.horizon_bars[-1], round(DAY / interval))


def forecast_labels(panel: Panel, sigma: Floats, config: ForecastConfig) -> ForecastLabels:
    """All labels of a panel. Shapes: σ `[T, N]` per bar."""
    rows, assets = panel.open.shape
    horizons = config.horizon_bars
    log_open = np.stack([logarithm(np.where(panel.present[:, a], panel.open[:, a], np.nan)) for a in range(assets)], axis=1)
    move, volatility = (np.full((rows, assets, len(horizons)), np.nan, np.float32) for _ in range(2))
    known_at = np.full((rows, len(horizons)), NEVER, np.int64)
    with np.errstate(over="ignore"):
        for h, bars in enumerate(horizons):
            returns = forward_return(panel, bars, sigma)
            known_at[:, h] = returns.known_at
            move[:, :, h] = returns.value
            for a in range(assets):
                realised = realised_volatility(np.ascontiguousarray(log_open[:, a]), bars)
                volatility[:, a, h] = np.where(np.isfinite(returns.value[:, a]), realised / (sigma[:, a] * math.sqrt(bars)), np.nan)
    correlation, correlation_known_at = _correlation(panel, log_open, correlation_horizon(config, panel.interval))
    for label in (move, volatility):
        label[~np.isfinite(label)] = np.nan
    return ForecastLabels(move, volatility, known_at, correlation, correlation_known_at)


@njit(cache=True)
def realised_volatility(log_open: Floats, bars: int) -> Floats:
    """Root of the sum of squared steps from open t+1 to open t+1+`bars`. `[T]` → `[T]`.

    NaN where the first or the last open is missing, or more than a fifth of the others.
    """
    n = log_open.size
    out = np.full(n, np.nan)
    for t in range(n - 1 - bars):
        last, count, total = log_open[t + 1], 1, 0.0
        if not (np.isfinite(last) and np.isfinite(log_open[t + 1 + bars])):
            continue
        for j in range(t + 2, t + 2 + bars):
            if np.isfinite(log_open[j]):
                step = log_open[j] - last
                total += step * step
                last = log_open[j]
                count += 1
        if count >= MINIMUM_SHARE * (bars + 1) * _TOLERANCE:
            out[t] = math.sqrt(total)
    return out


def _correlation(panel: Panel, log_open: Floats, bars: int) -> tuple[Floats32, Times]:
    """Correlation of the steps that end at opens t+2 … t+1+`bars`, and when it is known. `[T, N]` → `[T, N, N]`, `[T]`."""
    rows, assets = log_open.shape
    steps = np.full((rows, assets), np.nan)
    for a in range(assets):
        before, age = last_before(np.ascontiguousarray(log_open[:, a]), 1, LONGEST_GAP)
        steps[:, a] = (log_open[:, a] - before) / np.sqrt(age)
    correlation = np.full((rows, assets, assets), np.nan, np.float32)
    known_at = np.full(rows, NEVER, np.int64)
    ends = rows - 1 - bars
    if ends > 0:
        correlation[:ends] = trailing_correlation(steps, bars)[1 + bars :]
        known_at[:ends] = panel.known_at[1 + bars :]
    return correlation, known_at
