"""The champion's returns: has its Sharpe ratio fallen from what was expected to none?

A one-sided CUSUM of daily returns over their running volatility, k half the expected daily Sharpe ratio, h for the stated run length in
closed form. From 2 to 0 it takes about 200 days at two years between false alarms; looking every hour would take as long. No reference is
needed: the expected Sharpe ratio is one, and 90 days could not estimate it anyway (its standard error would be 2).
"""

from __future__ import annotations

from collections import deque
from math import sqrt
from typing import Self

import numpy as np

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.time import DAY
from cryptoalpha.core.values import Alarm
from cryptoalpha.monitoring.drift.config import DriftConfig
from cryptoalpha.monitoring.drift.cusum import Cusum, cusum_threshold
from cryptoalpha.monitoring.drift.detector import State, checked_value
from cryptoalpha.monitoring.ratios import NAN, sharpe_ratio
from cryptoalpha.monitoring.significance import probabilistic_sharpe_ratio

WINDOW = 365
"""Days of the rolling Sharpe ratio."""
WARM_UP = 20
"""Days whose squares start the running volatility."""
DECAY = 0.94
CLIP = 4.0
DAYS_PER_YEAR = 365.0


class ReturnsWatch:
    """Watches daily returns; with an expected Sharpe ratio of 0 it only keeps the rolling figures."""

    def __init__(self, config: DriftConfig) -> None:
        self.config = config
        self._returns: deque[float] = deque(maxlen=WINDOW)
        self._seen = 0
        self._variance = 0.0
        self._latest: int | None = None
        self._silent_until: int | None = None
        daily = config.expected_sharpe / sqrt(DAYS_PER_YEAR)
        self._expected = daily
        self._cusum: Cusum | None = None
        if daily > 0.0:
            threshold = cusum_threshold(daily / 2.0, config.champion_run_length_days)
            self._cusum = Cusum(slack=daily / 2.0, threshold=threshold, side="down")

    @property
    def rolling_sharpe(self) -> float:
        """Annual Sharpe ratio of the last year; NaN before 60 days."""
        return sharpe_ratio(np.array(self._returns), periods_per_year=DAYS_PER_YEAR) if len(self._returns) >= 60 else NAN

    @property
    def probability_of_skill(self) -> float:
        """Probability that the true Sharpe ratio is positive, by the last year; NaN before 60 days."""
        return probabilistic_sharpe_ratio(np.array(self._returns)) if len(self._returns) >= 60 else NAN

    def update(self, at: int, value: float) -> Alarm | None:
        """Take the return of the day that ended at `at` (UTC ns); a second value of one day is passed over.

        Raises:
            DataError: for NaN or infinity.
        """
        r = checked_value(value, "the watch over returns")
        if self._latest is not None and at < self._latest + DAY:
            return None
        self._latest = at
        self._returns.append(r)
        self._seen += 1
        before = self._variance
        if self._seen <= WARM_UP:
            self._variance += (r * r - before) / self._seen
            return None
        self._variance = DECAY * before + (1.0 - DECAY) * r * r
        if self._cusum is None or before <= 0.0:  # nothing was traded yet
            return None
        if self._silent_until is not None:
            if at < self._silent_until:
                return None
            self._silent_until = None
        z = min(max(r / sqrt(before), -CLIP), CLIP) - self._expected
        if not self._cusum.update(z):
            return None
        alarm = self._alarm(at, self._cusum)
        self._cusum.restart()
        self._silent_until = at + round(self.config.cooldown_days * DAY)
        return alarm

    def _alarm(self, at: int, cusum: Cusum) -> Alarm:
        return Alarm(
            happened_at=at,
            known_at=at,
            detector="cusum",
            subject="returns",
            tier="champion",
            statistic=cusum.statistic,
            threshold=cusum.threshold,
            run_length=self.config.champion_run_length_days,
            message=f"returns look like a Sharpe ratio of 0, not of {self.config.expected_sharpe:g}; over the last {len(self._returns)} "
            f"days it is {self.rolling_sharpe:.2f}, positive with probability {self.probability_of_skill:.2f}",
        )

    def state(self) -> State:
        """All but the settings."""
        return {
            "returns": list(self._returns),
            "seen": self._seen,
            "variance": self._variance,
            "latest": self._latest,
            "silent_until": self._silent_until,
            "cusum": None if self._cusum is None else self._cusum.state(),
        }

    @classmethod
    def from_state(cls, config: DriftConfig, state: State) -> Self:
        """The watch that gave this state.

        Raises:
            ConfigError: where the state has other entries.
        """
        made = cls(config)
        if set(state) != set(made.state()):
            raise ConfigError("the kept state of the watch over returns has other entries", hint="start it anew")
        made._returns.extend(float(value) for value in state["returns"])
        made._seen, made._variance = int(state["seen"]), float(state["variance"])
        made._latest, made._silent_until = state["latest"], state["silent_until"]
        made._cusum = None if state["cusum"] is None else Cusum.from_state(state["cusum"])
        return made
