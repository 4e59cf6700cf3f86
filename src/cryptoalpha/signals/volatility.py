"""Volatility state: markets that leave their usual calm are shunned, calm ones are held.

Value = −tanh(ln(σ_fast / σ_slow) / full strength): negative when volatility spikes above its usual level, positive when it lies below.
Confidence = share of the slow half-life that has bars.

Source: Moreira & Muir (2017), "Volatility-managed portfolios": expected return per unit of risk falls when volatility rises.
"""

from __future__ import annotations

from cryptoalpha.core.time import DAY
from cryptoalpha.signals.frame import Frame, slow_reach, squash_all
from cryptoalpha.signals.model import Opinions, opinions
from cryptoalpha.signals.rolling import CUTOFF_HALF_LIVES, logarithm, ratio


class VolatilityState:
    """Calm against storm.

    Args:
        fast_half_life_days, slow_half_life_days: half-lives of the volatility now and of the usual one.
        full_strength: log ratio at which the value is tanh 1.
        horizon_days: days the opinion looks ahead.
        typical_ic: believed correlation with the return ahead, for the expected move.
    """

    source = "volatility"
    type = "volatility"

    def __init__(
        self, *, fast_half_life_days: float, slow_half_life_days: float, full_strength: float, horizon_days: float, typical_ic: float
    ) -> None:
        self.horizon = round(horizon_days * DAY)
        self._fast, self._slow = fast_half_life_days, slow_half_life_days
        self._full_strength = full_strength
        self._ic = typical_ic

    def reach(self, interval: int) -> int:
        return slow_reach(CUTOFF_HALF_LIVES * max(self._fast, self._slow), interval)

    def compute(self, frame: Frame) -> Opinions:
        pairs = zip(frame.slow_volatility(self._fast), frame.slow_volatility(self._slow), strict=True)
        spread = tuple(logarithm(ratio(fast, slow)) for fast, slow in pairs)
        value = -squash_all(frame.from_slow(spread) / self._full_strength)
        return opinions(frame, value, frame.from_slow(frame.slow_coverage(self._slow)), self._ic * value)
