"""Does what is said come true, label by label? A sequential test of directional accuracy against a promise, for a loop at work.

One label at a time: what the book said at one moment is judged by where the market stands one horizon later, and the next label begins
there, so labels do not overlap. Over the book directions are weighed by themselves, the label is a hit where `Σ direction · return > 0`:
instruments move together and are no labels of their own. Where nothing was said or nothing moved there is none, nor one across a gap.

The test is an e-detector: while each label's chance of a hit, given all before it, is at least the promise, a false alarm comes after
`run_length` labels on average or later, however often one looks. It begins anew after each alarm.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.monitoring.drift.e_detector import EDetector

WINDOW = 168
"""Newest labels of which the share of hits is told: a week of hours."""


class AccuracyWatch:
    """Judges directions by prices.

    Args:
        promise: least chance of a hit that is fine, 0–1.
        run_length: mean number of labels between false alarms, at least.
        horizon: time from what is said to its label, ns.
        bet: stake of the e-detector.

    Raises:
        ConfigError: for a horizon that is not positive, or what `EDetector` refuses.
    """

    def __init__(self, *, promise: float, run_length: float, horizon: int, bet: float = 0.2) -> None:
        if horizon <= 0:
            raise ConfigError(f"accuracy over a horizon of {horizon} ns: expected a positive time")
        self._detector = EDetector(expected=promise, run_length=run_length, bet=bet)
        self.promise, self.horizon = promise, horizon
        self.labels = self.hits = 0
        self.raised_at: int | None = None
        """When accuracy was last found below the promise, ns."""
        self._newest: deque[bool] = deque(maxlen=WINDOW)
        self._said: dict[str, tuple[float, float]] = {}
        self._said_at = 0

    @property
    def rate(self) -> float | None:
        """Share of hits of the newest labels; None before the first."""
        return sum(self._newest) / len(self._newest) if self._newest else None

    @property
    def evidence(self) -> float:
        """What speaks against the promise, as a share of what is needed to say so."""
        return self._detector.statistic / self._detector.threshold

    def take(self, at: int, directions: Mapping[str, float], prices: Mapping[str, float]) -> bool | None:
        """What is said at `at`, and where the market stands. Returns whether what was said a horizon ago came true; None of no label."""
        if self._said and at < self._said_at + self.horizon:
            return None
        hit = self._label(prices) if self._said and at < self._said_at + 2 * self.horizon else None
        self._said = {name: (value, prices[name]) for name, value in directions.items() if value != 0.0 and prices.get(name, 0.0) > 0.0}
        self._said_at = at
        if hit is not None:
            self._judge(at, hit)
        return hit

    def _label(self, prices: Mapping[str, float]) -> bool | None:
        gain = sum(value * (prices[name] / before - 1.0) for name, (value, before) in self._said.items() if prices.get(name, 0.0) > 0.0)
        return gain > 0.0 if gain != 0.0 else None

    def _judge(self, at: int, hit: bool) -> None:
        self.labels += 1
        self.hits += hit
        self._newest.append(hit)
        if self._detector.update(float(hit)):
            self.raised_at = at
            self._detector.restart()
