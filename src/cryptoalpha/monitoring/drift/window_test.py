"""PSI or Kolmogorov–Smirnov as a streaming detector: every window of m values is held against the reference, no value twice.

The statistic is the PSI ÷ (1/n + 1/m), or the distance × √(n m / (n + m)), so that thresholds are of one size for all lengths; between
windows it is the last one's. `calibrate_threshold` finds the threshold; on independent values that of the PSI agrees with χ².
"""

from __future__ import annotations

from math import sqrt
from typing import Literal, Self

import numpy as np

from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.monitoring.daily import Floats, checked_returns
from cryptoalpha.monitoring.drift.detector import State, checked_positive, checked_value
from cryptoalpha.monitoring.drift.two_samples import Bins, ks_statistic


class WindowTest:
    """Two-sample test of each window against a fixed reference.

    Args:
        reference: `[n]`, best whitened.
        test: `psi` or `ks`.
        window: m.
        threshold: of the scaled statistic.

    Raises:
        ConfigError: for a test that does not exist, or a window or threshold that is not positive.
        DataError: for a reference that is empty or not finite.
    """

    def __init__(self, *, reference: Floats, test: Literal["psi", "ks"], window: int, threshold: float = 1.0) -> None:
        if test not in ("psi", "ks") or window < 1:
            raise ConfigError(f"test {test!r}, window {window}: expected psi or ks, and at least 1")
        self._reference = np.sort(checked_returns(reference, name="reference"))
        if self._reference.size == 0:
            raise DataError("an empty reference says nothing", hint="give it the values that count as normal")
        self._bins = Bins.of(self._reference)
        self.test: Literal["psi", "ks"] = test
        self.window = window
        self.threshold = checked_positive(threshold, "threshold")
        self._values: list[float] = []
        self._found = 0.0

    @property
    def statistic(self) -> float:
        """Of the last whole window."""
        return self._found

    def update(self, value: float) -> bool:
        """Take one value; whether it completes a window that lies too far from the reference."""
        self._values.append(checked_value(value, "WindowTest"))
        if len(self._values) < self.window:
            return False
        self._found = self._distance(np.array(self._values))
        self._values = []
        return self._found > self.threshold

    def _distance(self, sample: Floats) -> float:
        n, m = self._reference.size, sample.size
        if self.test == "ks":
            return ks_statistic(self._reference, sample) * sqrt(n * m / (n + m))
        return self._bins.index(sample) / (1.0 / n + 1.0 / m)

    def statistics(self, values: Floats) -> Floats:
        """As `Detector.statistics`."""
        x = checked_returns(values, name="values")
        whole = x.size // self.window
        found = [self._distance(x[i * self.window : (i + 1) * self.window]) for i in range(whole)]
        out = np.zeros(x.size)
        for i, distance in enumerate(found):
            out[(i + 1) * self.window - 1 : (i + 2) * self.window - 1] = distance
        return out

    def restart(self) -> None:
        """Begin a new window."""
        self._values = []
        self._found = 0.0

    def state(self) -> State:
        """As `Detector.state`."""
        settings = {"reference": self._reference.tolist(), "test": self.test, "window": self.window, "threshold": self.threshold}
        return {**settings, "values": list(self._values), "found": self._found}

    @classmethod
    def from_state(cls, state: State) -> Self:
        """As `Detector.from_state`."""
        settings = {name: state[name] for name in ("test", "window", "threshold")}
        made = cls(reference=np.array(state["reference"], dtype=np.float64), **settings)
        made._values, made._found = [float(value) for value in state["values"]], float(state["found"])
        return made
