"""Trend: where the price stands against its own averages of several speeds.

Value = mean over the spans k of tanh z_k, with z_k = (ln close − EMA_k of ln close) / (σ √k / 2): the distance in units of the deviation
it has under a random walk (√(k/4) bars of volatility, since the average looks back k/2 bars). A speed without history is left out.
Confidence = share of the longest span that has bars × how far the speeds agree.

Source: Baz et al. (2015), "Dissecting investment strategies in the cross section and time series"; several speeds instead of a choice.
"""

from __future__ import annotations

import numpy as np

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.time import DAY
from cryptoalpha.signals.frame import SLOW_VOLATILITY_MEMORY_DAYS, Frame, slow_reach, squash_all
from cryptoalpha.signals.model import Opinions, opinions
from cryptoalpha.signals.rolling import CUTOFF_HALF_LIVES, span_weights
from cryptoalpha.store.tables import Floats

_LN2_HALVES = 0.35
"""Half-life of an EMA over its span: ln 2 / 2 = 0.347, rounded up."""


class Trend:
    """Multi-speed trend.

    Args:
        span_days: spans of the averages in days, ascending or not.
        horizon_days: days the opinion looks ahead.
        typical_ic: believed correlation with the return ahead, for the expected move.

    Raises:
        ConfigError: if no span is given.
    """

    source = "trend"
    type = "price"

    def __init__(self, *, span_days: tuple[float, ...], horizon_days: float, typical_ic: float) -> None:
        if not span_days:
            raise ConfigError("trend needs at least one span", hint="set signals.trend.span_days, or leave trend out of signals.sources")
        self.horizon = round(horizon_days * DAY)
        self._spans = span_days
        self._ic = typical_ic

    def reach(self, interval: int) -> int:
        memory = CUTOFF_HALF_LIVES * _LN2_HALVES * max(self._spans)
        return slow_reach(max(memory, SLOW_VOLATILITY_MEMORY_DAYS), interval)

    def compute(self, frame: Frame) -> Opinions:
        total, strength, count = (np.zeros(frame.shape) for _ in range(3))
        for span in self._spans:
            speed = squash_all(frame.from_slow(self._distance(frame, max(2.0, span * DAY / frame.slow_interval))))
            known = np.isfinite(speed)
            total += np.where(known, speed, 0.0)
            strength += np.where(known, np.abs(speed), 0.0)
            count += known
        value = np.where(count > 0, total / np.maximum(count, 1.0), np.nan)
        agreement = np.abs(total) / np.where(strength > 0.0, strength, 1.0)
        coverage = frame.from_slow(frame.slow_coverage(max(self._spans)))
        return opinions(frame, value, coverage * agreement * count / len(self._spans), self._ic * value)

    @staticmethod
    def _distance(frame: Frame, span: float) -> tuple[Floats, ...]:
        """ln close less its average over `span` slow rows, in units of its random-walk deviation. `[S]` each."""
        weights = span_weights(span)
        return tuple(
            (close - frame.slow_mean(close, weights)) / (sigma * (0.5 * span**0.5))
            for close, sigma in zip(frame.slow_log_close, frame.slow_sigma, strict=True)
        )
