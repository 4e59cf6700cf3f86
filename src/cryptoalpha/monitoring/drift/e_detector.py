"""E-detector: watches outcomes between 0 and 1 for a mean that is worse than promised, with a run length that needs no model.

`M = (M + 1)(1 + λ (p₀ − x))`: a gambler who bets against the promise and is given one coin each time. If the mean of each
outcome, given all before it, is at least p₀, then M − t is a supermartingale, so M reaches A after A outcomes on average **or later**,
whatever else the outcomes do. The promise may change from one outcome to the next (a claimed probability), if it was made before.

It does not hold for overlapping labels: feed one label per horizon.

Source: Shin, Ramdas & Rinaldo (2023), "E-detectors".
"""

from __future__ import annotations

from typing import Literal, Self

import numpy as np

from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.monitoring.daily import Floats, checked_returns
from cryptoalpha.monitoring.drift.detector import State, checked_positive, checked_value


class EDetector:
    """E-detector for outcomes in [0, 1].

    Args:
        expected: p₀, the promised mean, 0–1.
        run_length: A, the threshold and the least mean number of outcomes between false alarms.
        bet: λ, 0–1.
        worse: `below` for hits (the promise is a mean of at least p₀), `above` for losses such as Brier scores (at most p₀).

    Raises:
        ConfigError: for settings outside their ranges.
        DataError: from `update`, for an outcome or promise outside 0–1.
    """

    def __init__(self, *, expected: float, run_length: float, bet: float = 0.2, worse: Literal["below", "above"] = "below") -> None:
        if not 0.0 <= expected <= 1.0 or not 0.0 < bet <= 1.0 or worse not in ("below", "above"):
            raise ConfigError(f"expected {expected}, bet {bet}, worse {worse!r}: expected 0–1, 0–1 and below or above")
        self.expected = float(expected)
        self.threshold = checked_positive(run_length, "run_length")
        self.bet = float(bet)
        self.worse: Literal["below", "above"] = worse
        self._wealth = 0.0

    @property
    def statistic(self) -> float:
        """M."""
        return self._wealth

    def update(self, value: float, expected: float | None = None) -> bool:
        """Take one outcome, and what was promised of it unless it is the same for all; whether M has reached A."""
        x = checked_value(value, "EDetector")
        p = self.expected if expected is None else checked_value(expected, "EDetector")
        if not (0.0 <= x <= 1.0 and 0.0 <= p <= 1.0):
            raise DataError(f"EDetector got outcome {x} and promise {p}, expected both between 0 and 1")
        gap = p - x if self.worse == "below" else x - p
        self._wealth = (self._wealth + 1.0) * (1.0 + self.bet * gap)
        return self._wealth >= self.threshold

    def statistics(self, values: Floats) -> Floats:
        """As `Detector.statistics`."""
        from cryptoalpha.monitoring.drift.kernels import e_statistics

        x = checked_returns(values, name="values")
        found: Floats = e_statistics(x, np.full(x.size, self.expected), self.bet, self.worse == "below")
        return found

    def restart(self) -> None:
        """M to zero."""
        self._wealth = 0.0

    def state(self) -> State:
        """As `Detector.state`."""
        return {"expected": self.expected, "run_length": self.threshold, "bet": self.bet, "worse": self.worse, "wealth": self._wealth}

    @classmethod
    def from_state(cls, state: State) -> Self:
        """As `Detector.from_state`."""
        made = cls(expected=state["expected"], run_length=state["run_length"], bet=state["bet"], worse=state["worse"])
        made._wealth = float(state["wealth"])
        return made
