"""Price features 24–38: oscillators, the shape of the candle, and distance to recent extremes, of one asset.

All are unchanged when prices are multiplied by a constant. Where a window or a bar has no movement at all, each reads its neutral value,
named in its formula. TP is the typical price (high + low + close) / 3; ATR is Wilder's average true range over 14 bars.

Sources: Wilder (1978) for RSI and ATR; Lane (1984) for %K; Lambert (1980) for CCI; Bollinger (1992) for %B; Quong & Soudack (1989) for MFI.
"""

from __future__ import annotations

import numpy as np

from cryptoalpha.signals.features import FeatureSpec
from cryptoalpha.signals.price_bars import LONGEST_GAP, AssetBars
from cryptoalpha.signals.rolling import (
    flat_weights,
    last_before,
    logarithm,
    mean_absolute_deviation,
    mean_and_deviation,
    ratio,
    rolling_maximum,
    weighted_mean,
    wilder_weights,
)
from cryptoalpha.store.tables import Floats

_OHLC = ("ohlc",)

OSCILLATORS = (
    FeatureSpec("rsi_14", "oscillators", "100 · Wilder 14 of rises / (of rises + of falls); 50 when flat", "0 to 100", _OHLC),
    FeatureSpec("stochastic_k_14", "oscillators", "100 (close − low₁₄) / (high₁₄ − low₁₄); 50 when flat", "0 to 100", _OHLC),
    FeatureSpec("cci_20", "oscillators", "(TP − mean₂₀ TP) / (0.015 · mean₂₀ |TP − mean|); 0 when flat", "index", _OHLC),
    FeatureSpec("percent_b_20", "oscillators", "½ + (close − mean₂₀) / (4 · deviation₂₀); ½ when flat", "fraction of the band", _OHLC),
    FeatureSpec(
        "money_flow_14",
        "oscillators",
        "100 Σ₁₄ TP·volume over rising TP / over rising and falling TP; 50 when none",
        "0 to 100",
        ("ohlc", "volume"),
    ),
)

CANDLE = (
    FeatureSpec("log_atr_14", "candle", "ln(ATR / close)", "ln(fraction)", _OHLC),
    FeatureSpec("range_to_atr", "candle", "(high − low) / ATR", "ATR", _OHLC),
    FeatureSpec("body", "candle", "(close − open) / (high − low); 0 without range", "−1 to 1", _OHLC),
    FeatureSpec("upper_wick", "candle", "(high − max(open, close)) / (high − low); 0 without range", "fraction", _OHLC),
    FeatureSpec("lower_wick", "candle", "(min(open, close) − low) / (high − low); 0 without range", "fraction", _OHLC),
    FeatureSpec("gap", "candle", "ln(open / last close) / (σ √rows since)", "standard deviations", _OHLC),
)

LEVELS = tuple(
    spec
    for window in (64, 512)
    for spec in (
        FeatureSpec(f"high_distance_{window}", "levels", f"(highest high of {window} bars − close) / ATR", "ATR", _OHLC),
        FeatureSpec(f"low_distance_{window}", "levels", f"(close − lowest low of {window} bars) / ATR", "ATR", _OHLC),
    )
)

SPECS = (*OSCILLATORS, *CANDLE, *LEVELS)


def columns(bars: AssetBars) -> tuple[Floats, ...]:
    """The features of `SPECS`, in order, `[T]` each."""
    return (*_oscillators(bars), *_candle(bars), *_levels(bars))


def _oscillators(bars: AssetBars) -> tuple[Floats, ...]:
    change = bars.close - bars.previous_close
    rises, falls = (weighted_mean(np.maximum(sign * change, 0.0), wilder_weights(14)) for sign in (1.0, -1.0))
    rsi = ratio(100.0 * rises, rises + falls, flat=50.0)

    lowest = -rolling_maximum(-bars.low, 14)
    stochastic = ratio(100.0 * (bars.close - lowest), rolling_maximum(bars.high, 14) - lowest, flat=50.0)

    spread, distance = mean_absolute_deviation(bars.typical, 20)
    cci = ratio(distance, 0.015 * spread, flat=0.0)

    mean, deviation = mean_and_deviation(bars.close, 20)
    percent_b = 0.5 + ratio(bars.close - mean, 4.0 * deviation, flat=0.0)

    turn = bars.typical - last_before(bars.typical, 1, LONGEST_GAP)[0]
    flow = bars.typical * bars.volume
    inward, outward = (weighted_mean(np.where(sign * turn > 0.0, flow, 0.0 * turn * flow), flat_weights(14)) for sign in (1.0, -1.0))
    money_flow = ratio(100.0 * inward, inward + outward, flat=50.0)
    return rsi, stochastic, cci, percent_b, money_flow


def _candle(bars: AssetBars) -> tuple[Floats, ...]:
    top, bottom, span = np.maximum(bars.open, bars.close), np.minimum(bars.open, bars.close), bars.high - bars.low
    return (
        logarithm(bars.atr / bars.close),
        bars.in_atr(span),
        ratio(bars.close - bars.open, span, flat=0.0),
        ratio(bars.high - top, span, flat=0.0),
        ratio(bottom - bars.low, span, flat=0.0),
        ratio(logarithm(bars.open / bars.previous_close), bars.sigma * np.sqrt(bars.rows_since_close)),
    )


def _levels(bars: AssetBars) -> tuple[Floats, ...]:
    distances = []
    for window in (64, 512):
        distances += [rolling_maximum(bars.high, window) - bars.close, bars.close + rolling_maximum(-bars.low, window)]
    return tuple(bars.in_atr(distance) for distance in distances)
