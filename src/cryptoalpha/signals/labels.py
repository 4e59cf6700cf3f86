"""What a forecast is judged by: the return that could have been had, and the moment it became known.

A decision at the close of bar t is filled at the open of bar t+1, so the label runs from that open to the open h bars later. It is known
when the bar whose open ends it is known: that open is not in anybody's data before.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cryptoalpha.signals.rolling import logarithm
from cryptoalpha.store.panel import Panel
from cryptoalpha.store.tables import Floats, Times

NEVER = np.iinfo(np.int64).max
"""`known_at` of a label whose end lies beyond the panel."""


@dataclass(frozen=True, eq=False)
class Labels:
    """Forward returns. `value` `[T, A]` in units of volatility over the horizon, NaN where an open is missing; `known_at` `[T]`."""

    value: Floats
    known_at: Times


def forward_return(panel: Panel, horizon_bars: int, sigma: Floats) -> Labels:
    """ln(open[t+1+h] / open[t+1]) / (σ_t √h). Shapes: σ `[T, A]` per bar → `[T, A]`.

    A label may be used at a moment s only if `known_at` ≤ s.
    """
    rows, assets = panel.open.shape
    value, known_at = np.full((rows, assets), np.nan), np.full(rows, NEVER, np.int64)
    ends = rows - 1 - horizon_bars
    if ends > 0:
        for a in range(assets):
            log_open = logarithm(np.where(panel.present[:, a], panel.open[:, a], np.nan))
            value[:ends, a] = (log_open[1 + horizon_bars :] - log_open[1 : 1 + ends]) / (sigma[:ends, a] * np.sqrt(horizon_bars))
        value[~np.isfinite(value)] = np.nan
        known_at[:ends] = panel.known_at[1 + horizon_bars :]
    return Labels(value, known_at)
