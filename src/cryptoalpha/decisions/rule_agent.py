"""The rule agent: hold what the fused direction says, sized so that the book has the wanted volatility.

`w_a = direction_a · σ* / (σ_a · √(N (1 + (N − 1) ρ)))`: at full conviction in all N instruments, with correlation ρ between them, the
book's annualised volatility is σ*. Directions are averaged over time first, because costs punish haste. The agent knows no limits; `risk`
cuts what it wants.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

from cryptoalpha.core.values import Decision, FusedSignal, MarketState, PortfolioState, Signal
from cryptoalpha.decisions.config import AgentConfig


class Agent(Protocol):
    """Turns fused signals into wanted positions."""

    name: str

    def decide(
        self,
        at: int,
        fused: Sequence[FusedSignal],
        *,
        fused_events: Sequence[int],
        portfolio: PortfolioState,
        states: Sequence[MarketState],
        signals: Sequence[Signal],
    ) -> list[Decision]: ...


class RuleAgent:
    """Volatility-targeted positions from fused directions.

    Args:
        config: targets and bands.
        book_size: N, the number of instruments the target is shared among.
    """

    name = "rule"

    def __init__(self, config: AgentConfig, *, book_size: int) -> None:
        self._config = config
        self._keep = 0.5 ** (1.0 / config.smoothing_half_life_bars) if config.smoothing_half_life_bars > 0.0 else 0.0
        self._smoothed: dict[str, float] = {}
        self._share = config.target_volatility / math.sqrt(book_size * (1.0 + (book_size - 1) * config.assumed_correlation))

    def decide(
        self,
        at: int,
        fused: Sequence[FusedSignal],
        *,
        fused_events: Sequence[int],
        portfolio: PortfolioState,
        states: Sequence[MarketState],
        signals: Sequence[Signal],
    ) -> list[Decision]:
        decisions = []
        for signal, event in zip(fused, fused_events, strict=True):
            weight, reason = self._wanted(signal)
            decisions.append(
                Decision(
                    happened_at=at,
                    known_at=at,
                    instrument=signal.instrument,
                    agent=self.name,
                    target_weight=weight,
                    confidence=signal.confidence,
                    reason=reason,
                    fused=event,
                )
            )
        return decisions

    def _wanted(self, signal: FusedSignal) -> tuple[float, str]:
        before = self._smoothed.get(signal.instrument, 0.0)
        direction = self._smoothed[signal.instrument] = self._keep * before + (1.0 - self._keep) * signal.direction
        if not signal.volatility > 0.0:  # also refuses NaN
            return 0.0, "volatility unknown"
        if abs(direction) < self._config.dead_band:
            return 0.0, "no opinion"
        if direction < 0.0 and self._config.long_only:
            return 0.0, "long only"
        return direction * self._share / signal.volatility, "direction at target volatility"
