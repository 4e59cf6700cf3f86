"""What a planner knows of one instrument, as a row of numbers, and how opinions become a drift.

A row has the market's moving numbers first (drift, volatility, regime, confidence) and then what stays as it is while a plan looks ahead:
the unit of the position, costs, the shape of the forecast. Rows are float32 `[WIDTH]`; a drift of exactly zero stays exactly zero.

An expected move m (in volatilities over the horizon of h bars) is spread over the horizon so that it decays with the persistence φ:
`d · (1 + φ + … + φ^(h−1)) = m √h`, hence `d = m √h (1 − φ) / (1 − φ^h)`, d in volatilities of one bar.

Departure: the move is taken for that of the simple return. The half variance that lies between the mean of a log return and that of a
simple one is no evidence, and a planner that took it for some would buy every market that nobody has an opinion on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cryptoalpha.core.values import REGIMES

Array = NDArray[np.float64]
Row = NDArray[np.float32]

DRIFT = 0
"""Expected simple return of the next bar in units of its volatility."""
LOG_VOLATILITY = 1
"""Logarithm of the volatility of one bar."""
REGIME = slice(2, 2 + len(REGIMES))
"""Belief over `REGIMES`; zeros where nobody has one."""
CONFIDENCE = 2 + len(REGIMES)
MOVING = CONFIDENCE + 1
"""Columns before this one may change from node to node."""
HOME = MOVING
"""Logarithm of the volatility that this instrument returns to."""
UNIT = MOVING + 1
"""Weight of a full position, fraction of equity."""
COST_RATE = MOVING + 2
"""Fee, spread and slippage per unit traded, fraction of notional."""
IMPACT = MOVING + 3
"""Impact i of a trade of weight w: costs i · w^1.5 of equity."""
CARRY = MOVING + 4
"""What holding a long position of weight one pays per bar, fraction of equity (funding); negative: earns."""
LEVELS = np.array([0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95])
"""Levels of the quantiles in a row: those of the forecaster's default."""
SHAPE = slice(MOVING + 5, MOVING + 5 + len(LEVELS))
"""Quantiles of the next return less their mean, in volatilities; zeros where there are none."""
WIDTH = MOVING + 5 + len(LEVELS)


def drift_per_bar(move: float, horizon_bars: float, persistence: float) -> float:
    """Drift of the next bar, in volatilities of one bar, that adds up to the move over the horizon while it decays."""
    h = max(horizon_bars, 1.0)
    gap = 1.0 - persistence
    spread = h if gap * h < 1e-9 else -math.expm1(h * math.log(persistence)) / gap if persistence > 0.0 else 1.0
    return float(move * math.sqrt(h) / spread)


def forecast_shape(quantiles: Sequence[float] | None) -> Array:
    """Quantiles at `LEVELS` less their mean `[7]`; zeros where there are none.

    Quantiles at other numbers of levels are taken to be spread over the same range evenly in probability between 5 % and 95 %, which
    is what any reader without their levels can say; a signal carries none.
    """
    if quantiles is None or len(quantiles) < 3 or not all(math.isfinite(value) for value in quantiles):
        return np.zeros(len(LEVELS))
    said = np.maximum.accumulate(np.asarray(quantiles, dtype=np.float64))
    if len(said) != len(LEVELS):
        said = np.interp(LEVELS, np.linspace(LEVELS[0], LEVELS[-1], len(said)), said)
    width = float(said[-1] - said[0])
    return said - tailed_mean(said) if width > 0.0 else np.zeros(len(LEVELS))


def tailed_mean(quantiles: Array) -> float:
    """Mean of the law that `inverse_law` draws from: trapezoids between the levels, exponential tails beyond them."""
    between = float(np.sum((quantiles[1:] + quantiles[:-1]) / 2.0 * np.diff(LEVELS)))
    low, high = tail_scales(quantiles[None, :])
    return between + float(LEVELS[0] * (quantiles[0] - low[0])) + float((1.0 - LEVELS[-1]) * (quantiles[-1] + high[0]))


def tail_scales(quantiles: Array) -> tuple[Array, Array]:
    """Mean excess of both tails `[n]` of quantiles `[n, 7]`: exponential, through the last two levels of each side."""
    ratio_low, ratio_high = math.log(LEVELS[1] / LEVELS[0]), math.log((1.0 - LEVELS[-2]) / (1.0 - LEVELS[-1]))
    return (quantiles[:, 1] - quantiles[:, 0]) / ratio_low, (quantiles[:, -1] - quantiles[:, -2]) / ratio_high


def inverse_law(quantiles: Array, uniforms: Array) -> Array:
    """Values `[n, m]` at `uniforms` `[n, m]` of laws given by quantiles `[n, 7]`: straight between the levels, exponential beyond."""
    place = np.clip(np.searchsorted(LEVELS, uniforms, side="right") - 1, 0, len(LEVELS) - 2)
    rows = np.arange(len(quantiles))[:, None]
    left, right = quantiles[rows, place], quantiles[rows, place + 1]
    share = np.clip((uniforms - LEVELS[place]) / (LEVELS[place + 1] - LEVELS[place]), 0.0, 1.0)
    low, high = tail_scales(quantiles)
    below = low[:, None] * np.log(np.minimum(uniforms / LEVELS[0], 1.0))
    above = high[:, None] * np.log(np.minimum((1.0 - uniforms) / (1.0 - LEVELS[-1]), 1.0))
    values: Array = left + share * (right - left) + below - above
    return values
