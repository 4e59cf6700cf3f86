"""Momentum: what rose over the look-back goes on rising, what fell goes on falling.

Value = tanh z, z = return over the look-back in units of its volatility. Confidence = share of the look-back that has bars × strength: a
move of many volatilities is more evidence than a small one.

Source: Liu & Tsyvinski (2021), "Risks and returns of cryptocurrency"; Moskowitz, Ooi & Pedersen (2012), "Time series momentum".
"""

from __future__ import annotations

import numpy as np

from cryptoalpha.core.time import DAY
from cryptoalpha.signals.frame import SLOW_VOLATILITY_MEMORY_DAYS, Frame, slow_reach, squash_all
from cryptoalpha.signals.model import Opinions, opinions
from cryptoalpha.signals.price_bars import LONGEST_GAP
from cryptoalpha.signals.rolling import last_before


class Momentum:
    """The sign and strength of one look-back's return.

    Args:
        source: name of the source.
        look_back_days: days of return.
        horizon_days: days the opinion looks ahead.
        typical_ic: believed correlation with the return ahead, for the expected move.
    """

    type = "price"

    def __init__(self, source: str, *, look_back_days: float, horizon_days: float, typical_ic: float) -> None:
        self.source = source
        self.horizon = round(horizon_days * DAY)
        self._days = look_back_days
        self._ic = typical_ic

    def reach(self, interval: int) -> int:
        return slow_reach(max(self._days, SLOW_VOLATILITY_MEMORY_DAYS), interval)

    def compute(self, frame: Frame) -> Opinions:
        window = max(1, round(self._days * DAY / frame.slow_interval))
        strength = []
        for close, sigma in zip(frame.slow_log_close, frame.slow_sigma, strict=True):
            before, age = last_before(close, window, LONGEST_GAP)
            strength.append((close - before) / (sigma * np.sqrt(age)))
        value = squash_all(frame.from_slow(tuple(strength)))
        confidence = frame.from_slow(frame.slow_coverage(self._days)) * np.abs(value)
        return opinions(frame, value, confidence, self._ic * value)
