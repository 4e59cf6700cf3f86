"""The 50 price features of every asset and bar, and the volatility that labels and sizes are measured in.

`price_features(panel)[t]` uses bars up to and including row t, so it is known at `panel.known_at[t]`. It is a function of the last
`WARMUP_BARS` rows alone: computed from any start at least that far back it is the same to the last bit, and appending rows changes nothing.

Gap rule (see `rolling` and `price_bars`): all features of an absent bar are NaN; a window is computed over the bars it has if at least 80 %
of it is there, and NaN otherwise. NaN reads "masked"; nothing is infinite; nothing is filled in or clipped.
"""

from __future__ import annotations

import numpy as np

from cryptoalpha.signals import price_cross, price_oscillators, price_trend, price_volume
from cryptoalpha.signals.features import FeatureSpec
from cryptoalpha.signals.price_bars import HALF_LIFE, asset_bars
from cryptoalpha.store.panel import Panel
from cryptoalpha.store.tables import Floats

PRICE_FEATURES: tuple[FeatureSpec, ...] = (*price_trend.SPECS, *price_oscillators.SPECS, *price_volume.SPECS, *price_cross.SPECS)
"""The 50 price features in the order of the last axis of `price_features`."""

WARMUP_BARS = 2_048
"""Rows before t after which feature t no longer depends on where the panel starts. The longest memory is that of `log_volatility_128`:
1,024 rows of weights and 49 a return may reach back; the rest is margin, so that a window can be lengthened without moving it."""

MEMORY_BARS = 1_152
"""Rows before t on which a feature of row t can depend, without the margin but for some eighty: what a live bar is computed from."""

SIGMA_HALF_LIFE = HALF_LIFE
"""Half-life in bars of `ewma_volatility`."""


def price_features(panel: Panel, first: int = 0) -> Floats:
    """All 50 features. Shapes: bars `[T, A]` → `[T, A, 50]`; NaN where masked, never infinite.

    Args:
        first: rows before it are warm-up, looked at and left NaN: of a live bar one row is asked.
    """
    book = tuple(asset_bars(panel, a, first) for a in range(len(panel.instruments)))
    values = np.full((len(panel), len(book), len(PRICE_FEATURES)), np.nan)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):  # absurd bars overflow here and are masked below
        cross = price_cross.cross_columns(book)
        calendar = price_cross.calendar_columns(panel.open_time)
        for a, bars in enumerate(book):
            columns = (*price_trend.columns(bars), *price_oscillators.columns(bars), *price_volume.columns(bars), *cross[a], *calendar)
            values[:, a] = np.stack(columns, axis=1)
            values[~np.isfinite(bars.close), a] = np.nan
    values[~np.isfinite(values)] = np.nan
    values[:first] = np.nan
    return values


def ewma_volatility(panel: Panel) -> Floats:
    """σ per bar of every asset: the exponential volatility of half-life 32, bar t included. Shapes: bars `[T, A]` → `[T, A]`.

    NaN at absent bars, where the price stood still for the whole window, and until 80 % of the weight has returns (74 of them).
    """
    return np.stack([asset_bars(panel, a).sigma for a in range(len(panel.instruments))], axis=1)
