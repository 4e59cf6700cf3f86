"""Tail forecasts judged as they come true: hits by method, and whether the last ones still pass.

Forecasts are told before the loss they are for; each day that comes true costs a few additions. After any number of days the verdicts equal
those of `backtests` on the same days, and a monitor restored from its state goes on as if it had never stopped.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from cryptoalpha.core.errors import ConfigError, DataError, LookAheadError
from cryptoalpha.core.time import iso
from cryptoalpha.risk.tail.backtests import ForecastTest, coverage_of, independence_of, kupiec_pof, transitions
from cryptoalpha.risk.tail.losses import checked_level


@dataclass(frozen=True)
class TailVerdict:
    """How one method's value at risk did over the last days."""

    method: str
    observations: int
    hits: int
    expected_hits: float
    kupiec: ForecastTest
    independence: ForecastTest
    coverage: ForecastTest
    all_observations: int
    """Since the monitor began."""
    all_hits: int


class TailMonitor:
    """See the module header.

    Args:
        level: confidence of the forecasts.
        window: last days that verdicts look at. 365: at 99 % one to seven hits pass.
    """

    def __init__(self, level: float = 0.99, window: int = 365) -> None:
        if not isinstance(window, int | np.integer) or window < 2:
            raise ConfigError(f"window is {window}, expected a whole number of days, 2 at least")
        self.level, self.window = checked_level(level), window
        self._told_at: int | None = None
        self._forecasts: dict[str, float] = {}
        self._recent: dict[str, deque[bool]] = {}
        self._counts: dict[str, tuple[int, int]] = {}

    def expect(self, at: int, value_at_risk: Mapping[str, float]) -> None:
        """Tell the value at risk of the next day by method (positive losses; NaN = none), known at `at` (UTC ns). The latest counts."""
        self._told_at, self._forecasts = at, {method: float(var) for method, var in value_at_risk.items()}

    def realise(self, at: int, simple_return: float) -> dict[str, bool]:
        """What came, known at `at`: whether each method's value at risk was exceeded. Methods that forecast nothing are left out.

        Raises:
            LookAheadError: if the forecast was told no earlier than its outcome.
            DataError: if the return is not finite.
        """
        if not math.isfinite(simple_return):
            raise DataError(f"the realised return is {simple_return}, expected a finite number")
        if self._told_at is None:
            return {}
        if self._told_at >= at:
            raise LookAheadError(f"a value at risk told at {iso(self._told_at)} cannot forecast what was known at {iso(at)}")
        loss = -simple_return
        outcome = {method: bool(loss > var) for method, var in self._forecasts.items() if var == var}
        for method, hit in outcome.items():
            self._recent.setdefault(method, deque(maxlen=self.window)).append(hit)
            observations, hits = self._counts.get(method, (0, 0))
            self._counts[method] = (observations + 1, hits + hit)
        self._told_at, self._forecasts = None, {}  # a forecast is judged once
        return outcome

    def verdicts(self) -> list[TailVerdict]:
        """One per method that was judged, in the order of their first outcome."""
        return [self._verdict(method, np.array(recent, dtype=np.bool_)) for method, recent in self._recent.items()]

    def _verdict(self, method: str, hits: np.ndarray[Any, np.dtype[np.bool_]]) -> TailVerdict:
        n00, n01, n10, n11 = transitions(hits)
        pof = kupiec_pof(int(hits.sum()), hits.size, self.level)
        independence = independence_of((n00, n01), (n10, n11))
        observations, all_hits = self._counts[method]
        return TailVerdict(
            method,
            hits.size,
            int(hits.sum()),
            hits.size * (1.0 - self.level),
            pof,
            independence,
            coverage_of(pof, independence),
            observations,
            all_hits,
        )

    def state(self) -> dict[str, Any]:
        """All of it as plain values for JSON."""
        return {
            "level": self.level,
            "window": self.window,
            "told_at": self._told_at,
            "forecasts": {method: None if var != var else var for method, var in self._forecasts.items()},
            "methods": {
                method: {"recent": "".join("1" if hit else "0" for hit in recent), "observations": n, "hits": hits}
                for (method, recent), (n, hits) in zip(self._recent.items(), self._counts.values(), strict=True)
            },
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> TailMonitor:
        """The monitor that gave this state."""
        monitor = cls(state["level"], state["window"])
        monitor._told_at = state["told_at"]
        monitor._forecasts = {method: math.nan if var is None else var for method, var in state["forecasts"].items()}
        for method, told in state["methods"].items():
            monitor._recent[method] = deque((mark == "1" for mark in told["recent"]), maxlen=monitor.window)
            monitor._counts[method] = (told["observations"], told["hits"])
        return monitor
