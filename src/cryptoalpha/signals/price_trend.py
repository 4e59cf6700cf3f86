"""Price features 1–23: returns, volatility and trend of one asset.

All are unchanged when prices are multiplied by a constant. σ is the exponential volatility of half-life 32 at the same bar, this bar's
return included; EMA k is the exponential average of ln close with α = 2 / (k + 1).

Sources: Parkinson (1980); Garman & Klass (1980); Wilder (1978) for ADX; Kaufman (1995) for the efficiency ratio; Appel (1979) for MACD.
"""

from __future__ import annotations

import math

import numpy as np

from cryptoalpha.signals.features import FeatureSpec
from cryptoalpha.signals.price_bars import LONGEST_GAP, AssetBars
from cryptoalpha.signals.rolling import (
    flat_weights,
    last_before,
    logarithm,
    mean_and_deviation,
    ratio,
    slope_t,
    span_weights,
    weighted_mean,
    wilder_weights,
)
from cryptoalpha.store.tables import Floats

LAGS = (1, 2, 4, 8, 16, 32, 64, 128)

_OHLC = ("ohlc",)

RETURNS = tuple(
    FeatureSpec(f"return_{k}", "returns", f"ln(close / close {k} bars before) / (σ √{k})", "standard deviations", _OHLC) for k in LAGS
)

VOLATILITY = (
    *(
        FeatureSpec(f"log_volatility_{h}", "volatility", f"ln of exponential volatility, half-life {h}", "ln(per bar)", _OHLC)
        for h in (8, 32, 128)
    ),
    FeatureSpec("log_parkinson_32", "volatility", "½ ln mean₃₂[ln(high/low)² / (4 ln 2)]", "ln(per bar)", _OHLC),
    FeatureSpec("log_garman_klass_32", "volatility", "½ ln mean₃₂[½ ln(high/low)² − (2 ln 2 − 1) ln(close/open)²]", "ln(per bar)", _OHLC),
    FeatureSpec("downside_share_64", "volatility", "Σ₆₄ r² over falling bars / Σ₆₄ r²", "fraction", _OHLC),
    FeatureSpec("volatility_of_volatility_64", "volatility", "standard deviation over 64 bars of log_volatility_8", "ln units", _OHLC),
)

TREND = (
    *(FeatureSpec(f"ema_distance_{k}", "trend", f"(ln close − EMA {k}) / (σ √{k})", "standard deviations", _OHLC) for k in (8, 32, 128)),
    FeatureSpec("macd_histogram", "trend", "(MACD − EMA 9 of MACD) / σ, MACD = EMA 12 − EMA 26 of ln close", "standard deviations", _OHLC),
    FeatureSpec("adx_14", "trend", "Wilder 14 of 100 |DI⁺ − DI⁻| / (DI⁺ + DI⁻); 0 where nothing moves", "0 to 100", _OHLC),
    *(
        FeatureSpec(f"slope_t_{k}", "trend", f"t of the least-squares slope of ln close over {k} bars; 0 when flat", "t value", _OHLC)
        for k in (32, 128)
    ),
    FeatureSpec("efficiency_32", "trend", "|Σ₃₂ steps| / Σ₃₂ |steps| of ln close; 0 when flat", "fraction", _OHLC),
)

SPECS = (*RETURNS, *VOLATILITY, *TREND)


def columns(bars: AssetBars) -> tuple[Floats, ...]:
    """The features of `SPECS`, in order, `[T]` each."""
    return (*_returns(bars), *_volatility(bars), *_trend(bars))


def scaled_return(bars: AssetBars, lag: int) -> Floats:
    """Log return over `lag` bars, per √(rows it truly spans): longer than `lag` where the close `lag` bars ago is missing."""
    before, age = last_before(bars.log_close, lag, LONGEST_GAP)
    return np.asarray((bars.log_close - before) / np.sqrt(age), np.float64)


def _returns(bars: AssetBars) -> tuple[Floats, ...]:
    return tuple(ratio(scaled_return(bars, lag), bars.sigma) for lag in LAGS)


def _volatility(bars: AssetBars) -> tuple[Floats, ...]:
    logs = [logarithm(bars.volatility(8, max(0, bars.first - 64))), logarithm(bars.sigma), logarithm(bars.volatility(128, bars.first))]
    span, body = logarithm(bars.high / bars.low), logarithm(bars.close / bars.open)
    window = flat_weights(32)
    parkinson = weighted_mean(span * span / (4.0 * math.log(2.0)), window)
    garman_klass = weighted_mean(0.5 * span * span - (2.0 * math.log(2.0) - 1.0) * body * body, window)
    square = bars.unit_return * bars.unit_return
    falling = np.where(bars.unit_return < 0.0, square, 0.0 * square)
    downside = ratio(weighted_mean(falling, flat_weights(64)), weighted_mean(square, flat_weights(64)))
    return (*logs, 0.5 * logarithm(parkinson), 0.5 * logarithm(garman_klass), downside, mean_and_deviation(logs[0], 64, bars.first)[1])


def _trend(bars: AssetBars) -> tuple[Floats, ...]:
    log_close = bars.log_close
    distances = [ratio(log_close - weighted_mean(log_close, span_weights(k), bars.first), bars.sigma * math.sqrt(k)) for k in (8, 32, 128)]
    macd = weighted_mean(log_close, span_weights(12)) - weighted_mean(log_close, span_weights(26))
    histogram = ratio(macd - weighted_mean(macd, span_weights(9)), bars.sigma)
    path = weighted_mean(np.abs(bars.step), flat_weights(32))
    efficiency = ratio(np.abs(weighted_mean(bars.step, flat_weights(32))), path, flat=0.0)
    return (*distances, histogram, _adx(bars), slope_t(log_close, 32, bars.first), slope_t(log_close, 128, bars.first), efficiency)


def _adx(bars: AssetBars) -> Floats:
    """Wilder's average directional index: how one-sided the moves of highs and lows are, whatever their direction."""
    up = bars.high - last_before(bars.high, 1, LONGEST_GAP)[0]
    down = last_before(bars.low, 1, LONGEST_GAP)[0] - bars.low
    plus = np.where((up > down) & (up > 0.0), up, 0.0 * up)
    minus = np.where((down > up) & (down > 0.0), down, 0.0 * down)
    wilder = wilder_weights(14)
    # DI± = smoothed DM± / smoothed true range: the true range cancels in their ratio
    rise, fall = weighted_mean(plus, wilder), weighted_mean(minus, wilder)
    return weighted_mean(ratio(100.0 * np.abs(rise - fall), rise + fall, flat=0.0), wilder)
