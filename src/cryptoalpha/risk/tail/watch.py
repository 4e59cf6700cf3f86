"""Value at risk of every instrument by several methods, forecast at each midnight from what the gate remembers and judged at the next.

Runs beside the gate on its `MarketMemory`: one comparison per bar, some microseconds per instrument and midnight. Forecasts and hits equal
those of `walk.walk_forecasts` with a window of `history_days`, once so many days are known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from cryptoalpha.risk.market_memory import MarketMemory
from cryptoalpha.risk.tail.laws import moments, normal_factors, normal_tail
from cryptoalpha.risk.tail.losses import checked_level, tail_of_losses
from cryptoalpha.risk.tail.monitor import TailMonitor, TailVerdict


class TailWatch:
    """See the module header.

    Args:
        memory: what the gate remembers; this only reads it.
        level: confidence.
        window: last days that verdicts look at.
    """

    def __init__(self, memory: MarketMemory, *, level: float = 0.99, window: int = 365) -> None:
        self._memory, self.level, self.window = memory, checked_level(level), window
        self._seen = 0
        self._monitors: dict[str, TailMonitor] = {}

    def look(self) -> dict[str, dict[str, bool]]:
        """Call once a bar, after the memory has it. At a midnight: whether each value at risk was exceeded, by instrument and method."""
        if self._memory.last_midnight == self._seen:
            return {}
        self._seen, returns = self._memory.last_day()
        outcomes = {}
        for name, simple_return in returns.items():
            monitor = self._monitors.get(name)
            if monitor is None:
                monitor = self._monitors[name] = TailMonitor(self.level, self.window)
            if outcome := monitor.realise(self._seen, simple_return):
                outcomes[name] = outcome
            monitor.expect(self._seen, self._forecasts(name))
        return outcomes

    def verdicts(self) -> dict[str, list[TailVerdict]]:
        """How each method did, by instrument, over the last `window` days."""
        return {name: verdicts for name, monitor in self._monitors.items() if (verdicts := monitor.verdicts())}

    def state(self) -> dict[str, Any]:
        """All of it but the memory, as plain values for JSON."""
        return {
            "level": self.level,
            "window": self.window,
            "seen": self._seen,
            "monitors": {name: monitor.state() for name, monitor in self._monitors.items()},
        }

    @classmethod
    def from_state(cls, memory: MarketMemory, state: Mapping[str, Any]) -> TailWatch:
        """The watch that gave this state, on a memory that has seen the same bars."""
        watch = cls(memory, level=state["level"], window=state["window"])
        watch._seen = state["seen"]
        watch._monitors = {name: TailMonitor.from_state(told) for name, told in state["monitors"].items()}
        return watch

    def _forecasts(self, name: str) -> dict[str, float]:
        """Value at risk of the next day by method; none while too few days are known."""
        returns = self._memory.daily_returns(name)
        if len(returns) < max(self._memory.config.least_days, 2):
            return {}
        mean, spread, _, _ = moments(returns)
        found = {
            "historical": tail_of_losses(-returns, self.level)[0],
            "normal": normal_tail(float(mean), float(spread), self.level)[0],
        }
        expected = self._memory.daily_volatility(name)
        if not math.isnan(expected):
            found["ewma"] = expected * normal_factors(self.level)[0]
            found["filtered"] = expected * tail_of_losses(-self._memory.daily_scores(name), self.level)[0]
        return found
