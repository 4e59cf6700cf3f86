"""What moving the market costs: half the spread, and a square-root impact.

`price = reference · (1 ± (half_spread + impact))` with `impact = k · σ_day · sqrt(quantity / ADV)`: σ_day is the daily volatility, ADV
the average daily volume in base units, both running estimates from bars that closed before the fill. Where volume is unknown a fixed
slippage stands in.

The formula is written once and compiled once more for the vectorised path, so that both charge the same.

Source: the square-root law, e.g. Almgren, Thum, Hauptmann & Li (2005), "Direct estimation of equity market impact".
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from cryptoalpha.core.time import DAY

MINIMUM_RETURNS = 24
"""Returns that must have been seen before the estimates are trusted; below that the fixed slippage applies."""


def impact_fraction(coefficient: float, daily_volatility: float, daily_volume: float, quantity: float) -> float:
    """Price impact of trading `quantity`, as a fraction of price (square-root law)."""
    return coefficient * daily_volatility * math.sqrt(quantity / daily_volume)


def decay_per_bar(half_life_days: float, interval: int) -> float:
    """Weight of the newest bar in an exponential average with this half-life; `interval` in ns."""
    return float(1.0 - 0.5 ** (interval / (half_life_days * DAY)))


class Liquidity:
    """Running daily volatility and volume of each instrument.

    Means of all bars until enough have been seen, exponential afterwards: weight `max(1/n, decay)`. A gap breaks the chain of returns.
    Updates are O(instruments) and use only the bar given, so the estimates at any bar do not depend on later ones.

    Args:
        instruments: how many.
        decay: weight of the newest bar (see `decay_per_bar`).
        interval: bar length, ns.
    """

    def __init__(self, instruments: int, decay: float, interval: int) -> None:
        self._decay = decay
        self._bars_per_day = DAY / interval
        self._close = [math.nan] * instruments
        self._returns = [0] * instruments
        self._variance = [0.0] * instruments
        self._volumes = [0] * instruments
        self._volume = [0.0] * instruments

    def update(self, close: Sequence[float], volume: Sequence[float]) -> None:
        """Take in one closed bar of every instrument; NaN where absent."""
        decay = self._decay
        for i, price in enumerate(close):
            before = self._close[i]
            self._close[i] = price
            change = price / before - 1.0
            if change == change:  # both bars exist
                self._returns[i] = n = self._returns[i] + 1
                weight = 1.0 / n
                if weight < decay:
                    weight = decay
                self._variance[i] += weight * (change * change - self._variance[i])
            traded = volume[i]
            if traded == traded:
                self._volumes[i] = n = self._volumes[i] + 1
                weight = 1.0 / n
                if weight < decay:
                    weight = decay
                self._volume[i] += weight * (traded - self._volume[i])

    def daily(self, instrument: int) -> tuple[float, float] | None:
        """Daily volatility and volume (base units) as estimated now, or None where too little is known."""
        daily_volume = self._volume[instrument] * self._bars_per_day
        if self._returns[instrument] < MINIMUM_RETURNS or not daily_volume > 0.0:
            return None
        return math.sqrt(self._variance[instrument] * self._bars_per_day), daily_volume

    def impact(self, instrument: int, coefficient: float, quantity: float) -> float | None:
        """Impact of trading `quantity` now, or None where too little is known."""
        known = self.daily(instrument)
        return None if known is None else impact_fraction(coefficient, *known, quantity)
