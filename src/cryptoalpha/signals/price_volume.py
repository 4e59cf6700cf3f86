"""Price features 39–44: volume of one asset.

All are unchanged when prices, or volumes, are multiplied by a constant. A bar of zero volume counts as absent where a logarithm or a
division by volume is taken, and as zero elsewhere.

Sources: Granville (1963) for on-balance volume; Amihud (2002) for illiquidity. Departure: illiquidity is taken per typical turnover of the
same asset, not per unit of quote currency, so that it neither drifts with the price level nor ranks assets by size.
"""

from __future__ import annotations

import numpy as np

from cryptoalpha.signals.features import FeatureSpec
from cryptoalpha.signals.price_bars import AssetBars
from cryptoalpha.signals.rolling import (
    flat_weights,
    logarithm,
    mean_and_deviation,
    ratio,
    slope_of_sum_weights,
    weighted_mean,
)
from cryptoalpha.store.tables import Floats

_BOTH = ("ohlc", "volume")

SPECS = (
    *(
        FeatureSpec(f"log_volume_z_{w}", "volume", f"(ln volume − mean over {w} bars) / deviation over {w}", "standard deviations", _BOTH)
        for w in (64, 512)
    ),
    FeatureSpec(
        "obv_slope_32", "volume", "least-squares slope over 32 bars of Σ sign(r)·volume / mean₃₂ volume", "mean volumes per bar", _BOTH
    ),
    FeatureSpec("vwap_distance_64", "volume", "(close − Σ₆₄ TP·volume / Σ₆₄ volume) / ATR", "ATR", _BOTH),
    FeatureSpec(
        "taker_imbalance_32",
        "volume",
        "Σ₃₂ (2 · taker buys − volume) / Σ₃₂ volume",
        "−1 to 1",
        ("volume", "taker_buy_volume"),
    ),
    FeatureSpec("log_amihud_64", "volume", "ln(mean₆₄[|r| / turnover] · mean₅₁₂ turnover), turnover = close·volume", "ln(per bar)", _BOTH),
)


def columns(bars: AssetBars) -> tuple[Floats, ...]:
    """The features of `SPECS`, in order, `[T]` each."""
    volume, traded = bars.volume, np.where(bars.volume > 0.0, bars.volume, np.nan)
    log_volume = logarithm(traded)
    scores = []
    for window in (64, 512):
        mean, deviation = mean_and_deviation(log_volume, window, bars.first)
        scores.append(ratio(log_volume - mean, deviation))

    signed = np.sign(bars.step) * volume
    on_balance = ratio(weighted_mean(signed, slope_of_sum_weights(32)), weighted_mean(volume, flat_weights(32)))

    vwap = ratio(weighted_mean(bars.typical * volume, flat_weights(64)), weighted_mean(volume, flat_weights(64)))

    # volume only where taker volume is known, so that both sums run over the same bars
    known = np.where(np.isfinite(bars.taker_buy_volume), volume, np.nan)
    imbalance = ratio(weighted_mean(2.0 * bars.taker_buy_volume - known, flat_weights(32)), weighted_mean(known, flat_weights(32)))

    turnover = bars.close * traded
    illiquidity = weighted_mean(ratio(np.abs(bars.unit_return), turnover), flat_weights(64))
    amihud = logarithm(illiquidity * weighted_mean(turnover, flat_weights(512), bars.first))
    return (*scores, on_balance, bars.in_atr(bars.close - vwap), imbalance, amihud)
