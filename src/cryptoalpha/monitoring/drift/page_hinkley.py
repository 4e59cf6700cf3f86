"""Page–Hinkley: a CUSUM about the running mean, for a series whose normal level is not known beforehand.

`S = max(0, S ± (x − mean of all so far) − δ)`. The running mean follows a slow drift, so it finds what is sudden against the time since the
start. It is in the unit of the series: standardise first, or the threshold means something else for each series.

Source: Page (1954), Hinkley (1971); equals river's `PageHinkley` with forgetting switched off (alpha = 1).
"""

from __future__ import annotations

from typing import Self

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.monitoring.daily import Floats, checked_returns
from cryptoalpha.monitoring.drift.cusum import Side
from cryptoalpha.monitoring.drift.detector import State, checked_positive, checked_value


class PageHinkley:
    """One- or two-sided Page–Hinkley test.

    Args:
        slack: δ, in the unit of the series; half the shift to be found.
        threshold: λ, same unit.
        side: as in `Cusum`.
        least: values before the first possible alarm; the running mean of a few says nothing.

    Raises:
        ConfigError: for a slack, threshold or least that is not positive, or a side that does not exist.
        DataError: from `update`, for NaN or infinity.
    """

    def __init__(self, *, slack: float, threshold: float, side: Side = "both", least: int = 30) -> None:
        if side not in ("up", "down", "both") or least < 1:
            raise ConfigError(f"side {side!r}, least {least}: expected up, down or both, and at least 1")
        self.slack = checked_positive(slack, "slack")
        self.threshold = checked_positive(threshold, "threshold")
        self.side: Side = side
        self.least = least
        self._count = 0
        self._mean = 0.0
        self._high = 0.0
        self._low = 0.0

    @property
    def statistic(self) -> float:
        """The larger of the sums on the sides looked at; 0 before `least` values."""
        return max(self._high, self._low) if self._count >= self.least else 0.0

    def update(self, value: float) -> bool:
        """Take one value; whether the sum now exceeds the threshold."""
        x = checked_value(value, "PageHinkley")
        self._count += 1
        self._mean += (x - self._mean) / float(self._count)
        deviation = x - self._mean
        if self.side != "down":
            self._high = max(0.0, self._high + deviation - self.slack)
        if self.side != "up":
            self._low = max(0.0, self._low - deviation - self.slack)
        return self.statistic > self.threshold

    def statistics(self, values: Floats) -> Floats:
        """As `Detector.statistics`."""
        from cryptoalpha.monitoring.drift.kernels import page_hinkley_statistics

        x = checked_returns(values, name="values")
        found: Floats = page_hinkley_statistics(x, self.slack, self.side != "down", self.side != "up", self.least)
        return found

    def restart(self) -> None:
        """Forget the sums and the mean."""
        self._count = 0
        self._mean = self._high = self._low = 0.0

    def state(self) -> State:
        """As `Detector.state`."""
        settings = {"slack": self.slack, "threshold": self.threshold, "side": self.side, "least": self.least}
        return {**settings, "count": self._count, "mean": self._mean, "high": self._high, "low": self._low}

    @classmethod
    def from_state(cls, state: State) -> Self:
        """As `Detector.from_state`."""
        made = cls(slack=state["slack"], threshold=state["threshold"], side=state["side"], least=state["least"])
        made._count, made._mean = int(state["count"]), float(state["mean"])
        made._high, made._low = float(state["high"]), float(state["low"])
        return made
