"""CUSUM: the quickest way to find a shift of known size in a standardised series, and how long it takes to be wrong.

`S = max(0, S ± z − k)`, alarm when S exceeds h. `k` is half the shift one wants to find, in standard deviations. The mean run length to an
alarm, with a shift or without, has a closed form that is good to a few percent on independent normal values; on anything else simulate
(`calibrate_threshold`).

Sources: Page (1954); Siegmund (1985), "Sequential Analysis", for the correction b = h + 1.166.
"""

from __future__ import annotations

from math import exp, inf, isfinite
from typing import Literal, Self

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.monitoring.daily import Floats, checked_returns
from cryptoalpha.monitoring.drift.detector import State, checked_positive, checked_value

Side = Literal["up", "down", "both"]
OVERSHOOT = 1.166
"""How far beyond both ends a normal random walk lands on average: 2 × 0.583."""
LONGEST = 690.0
"""Logarithm of the longest run that is computed, a little below that of the largest number."""


class Cusum:
    """One- or two-sided CUSUM of a standardised series.

    Args:
        slack: k, standard deviations; half the shift to be found.
        threshold: h, standard deviations.
        side: whether a mean that rises (`up`), falls (`down`) or either is looked for.

    Raises:
        ConfigError: for a slack or threshold that is not positive, or a side that does not exist.
        DataError: from `update`, for NaN or infinity.
    """

    def __init__(self, *, slack: float, threshold: float, side: Side = "both") -> None:
        if side not in ("up", "down", "both"):
            raise ConfigError(f"side is {side!r}, expected up, down or both")
        self.slack = checked_positive(slack, "slack")
        self.threshold = checked_positive(threshold, "threshold")
        self.side: Side = side
        self._high = 0.0
        self._low = 0.0

    @property
    def statistic(self) -> float:
        """The larger of the sums on the sides looked at."""
        return max(self._high, self._low)

    @property
    def is_above(self) -> bool:
        """Whether the evidence is for a mean that rose."""
        return self._high >= self._low

    def update(self, value: float) -> bool:
        """Take one standardised value; whether the sum now exceeds the threshold."""
        z = checked_value(value, "Cusum")
        if self.side != "down":
            self._high = max(0.0, self._high + z - self.slack)
        if self.side != "up":
            self._low = max(0.0, self._low - z - self.slack)
        return self.statistic > self.threshold

    def statistics(self, values: Floats) -> Floats:
        """As `Detector.statistics`."""
        from cryptoalpha.monitoring.drift.kernels import cusum_statistics

        found: Floats = cusum_statistics(checked_returns(values, name="values"), self.slack, self.side != "down", self.side != "up")
        return found

    def restart(self) -> None:
        """Both sums to zero."""
        self._high = self._low = 0.0

    def state(self) -> State:
        """As `Detector.state`."""
        return {"slack": self.slack, "threshold": self.threshold, "side": self.side, "high": self._high, "low": self._low}

    @classmethod
    def from_state(cls, state: State) -> Self:
        """As `Detector.from_state`."""
        made = cls(slack=state["slack"], threshold=state["threshold"], side=state["side"])
        made._high, made._low = float(state["high"]), float(state["low"])
        return made


def cusum_run_length(slack: float, threshold: float, *, shift: float = 0.0) -> float:
    """Mean observations until a one-sided CUSUM alarms on independent normal values whose mean is `shift`, in the direction looked at.

    `(e^{−2Δb} + 2Δb − 1) / (2Δ²)` with Δ = shift − slack and b = threshold + 1.166; b² where Δ is 0. A two-sided one takes half as long
    when nothing shifts. Infinite where it is too long to represent.

    Raises:
        ConfigError: for a slack that is not positive, a negative threshold, or a shift that is not finite.
    """
    checked_positive(slack, "slack")
    if not 0.0 <= threshold < inf or not isfinite(shift):
        raise ConfigError(f"threshold {threshold} and shift {shift}: expected 0 or more, and a finite number")
    drift, b = shift - slack, threshold + OVERSHOOT
    if abs(drift * b) < 1e-6:
        return b * b
    if -2.0 * drift * b > LONGEST:
        return inf
    return (exp(-2.0 * drift * b) + 2.0 * drift * b - 1.0) / (2.0 * drift * drift)


def cusum_threshold(slack: float, run_length: float, *, side: Side = "up") -> float:
    """The threshold h at which false alarms come every `run_length` observations on average (independent normal values).

    Raises:
        ConfigError: for a run length that even a threshold of 0 exceeds, or a slack that is not positive.
    """
    k = checked_positive(slack, "slack")
    wanted = checked_positive(run_length, "run_length") * (2.0 if side == "both" else 1.0)
    low, high = 0.0, 1.0
    if cusum_run_length(k, low) > wanted:
        raise ConfigError(f"run_length is {run_length}, shorter than a CUSUM with slack {k} can be", hint="ask for a longer one")
    while cusum_run_length(k, high) < wanted:
        high *= 2.0
    for _ in range(200):
        middle = (low + high) / 2.0
        low, high = (middle, high) if cusum_run_length(k, middle) < wanted else (low, middle)
    return (low + high) / 2.0
