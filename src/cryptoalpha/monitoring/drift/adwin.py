"""ADWIN: a window that grows while its older and younger parts agree, kept in a logarithmic number of buckets.

Every `clock` values all cuts between buckets are tried: the parts disagree when their means differ by more than
`√(2 m v d) + ⅔ m d`, d = ln(2 ln n / δ), m = 1/n₀ + 1/n₁, v the variance of the window. Solved for δ, that makes one number per cut: the
statistic here is the largest `−ln δ` at which a cut would still be made, so the threshold is −ln δ and the larger the surer.

Like river's `ADWIN`, same buckets, same cuts, same defaults, except that the caller decides about the restart after an alarm (river always
does). In the unit of the series the ⅔ m d term assumes values of a size near 1: standardise first.

Source: Bifet & Gavaldà (2007), "Learning from time-changing data with adaptive windowing".
"""

from __future__ import annotations

from math import log, sqrt
from typing import Self

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.monitoring.daily import Floats, checked_returns
from cryptoalpha.monitoring.drift.detector import State, checked_positive, checked_value

Bucket = tuple[float, float]
"""Sum of its values, and the sum of their squared deviations from their mean."""


class Adwin:
    """Adaptive window.

    Args:
        threshold: −ln δ; 6.21 is river's δ of 0.002.
        clock: values between looks.
        buckets: buckets of one size before two are merged.
        least: values in either part of a cut.
        grace: values before the first look.

    Raises:
        ConfigError: for a threshold or count that is not positive.
        DataError: from `update`, for NaN or infinity.
    """

    def __init__(self, *, threshold: float = -log(0.002), clock: int = 32, buckets: int = 5, least: int = 5, grace: int = 10) -> None:
        if min(clock, least, grace) < 1 or buckets < 2:
            raise ConfigError(f"clock {clock}, buckets {buckets}, least {least}, grace {grace}: expected at least 1, buckets at least 2")
        self.threshold = checked_positive(threshold, "threshold")
        self.clock, self.buckets, self.least, self.grace = clock, buckets, least, grace
        self._rows: list[list[Bucket]] = [[]]
        self._width = 0
        self._total = self._spread = self._found = 0.0

    @property
    def statistic(self) -> float:
        """The largest −ln δ of the last look, at least 0."""
        return self._found

    @property
    def width(self) -> int:
        """Values in the window."""
        return self._width

    @property
    def mean(self) -> float:
        """Mean of the window, 0 where it is empty."""
        return self._total / self._width if self._width else 0.0

    def update(self, value: float) -> bool:
        """Take one value; whether the last look found a cut."""
        x = checked_value(value, "Adwin")
        self._width += 1
        width = float(self._width)
        if self._width > 1:
            gap = x - self._total / (width - 1.0)
            self._spread += (width - 1.0) * gap * gap / width
        self._total += x
        self._rows[0].append((x, 0.0))
        self._merge()
        if self._width % self.clock == 0 and width > self.grace:
            self._found = self._look()
        return self._found > self.threshold

    def _merge(self) -> None:
        row = 0
        while len(self._rows[row]) == self.buckets + 1:
            (a, va), (b, vb) = self._rows[row][:2]
            del self._rows[row][:2]
            size = 2.0**row
            gap = a / size - b / size
            if row + 1 == len(self._rows):
                self._rows.append([])
            self._rows[row + 1].append((a + b, va + vb + size * size * gap * gap / (size + size)))
            row += 1

    def _look(self) -> float:
        """The largest −ln δ over all cuts."""
        found = before = before_total = 0.0
        width = float(self._width)
        for row in reversed(range(len(self._rows))):
            for total, _ in self._rows[row]:
                before += 2.0**row
                before_total += total
                after = width - before
                if before >= self.least and after >= self.least:
                    gap = abs(before_total / before - (self._total - before_total) / after)
                    m = 1.0 / (before - self.least + 1.0) + 1.0 / (after - self.least + 1.0)
                    noise = 2.0 * m * (self._spread / width)
                    root = (sqrt(noise + 8.0 / 3.0 * m * gap) - sqrt(noise)) / (4.0 / 3.0 * m)
                    found = max(found, root * root - log(2.0 * log(width)))
        return found

    def statistics(self, values: Floats) -> Floats:
        """As `Detector.statistics`."""
        from cryptoalpha.monitoring.drift.kernels import adwin_statistics

        x = checked_returns(values, name="values")
        found: Floats = adwin_statistics(x, self.clock, self.buckets, self.least, self.grace)
        return found

    def restart(self) -> None:
        """An empty window."""
        self._rows = [[]]
        self._width = 0
        self._total = self._spread = self._found = 0.0

    def state(self) -> State:
        """As `Detector.state`."""
        settings = {"threshold": self.threshold, "clock": self.clock, "buckets": self.buckets, "least": self.least, "grace": self.grace}
        rows = [[list(bucket) for bucket in row] for row in self._rows]
        return {**settings, "rows": rows, "width": self._width, "total": self._total, "spread": self._spread, "found": self._found}

    @classmethod
    def from_state(cls, state: State) -> Self:
        """As `Detector.from_state`."""
        made = cls(**{name: state[name] for name in ("threshold", "clock", "buckets", "least", "grace")})
        made._rows = [[(float(total), float(spread)) for total, spread in row] for row in state["rows"]]
        made._width = int(state["width"])
        made._total, made._spread, made._found = float(state["total"]), float(state["spread"]), float(state["found"])
        return made
