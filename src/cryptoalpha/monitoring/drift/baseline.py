"""What is normal: a series turned into standardised surprises, so that one detector fits all.

Three things make a threshold mean something else for each series, and each is taken out: its dependence (a first-order autoregression),
its changing volatility (that of a small GARCH, known before the value), its level and scale. Whitening costs nothing that was
there: a shift of δ standard deviations in an AR(φ) series becomes one of δ √((1 − φ) / (1 + φ)) in its surprises, which is exactly the
share of independent observations it had.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from cryptoalpha.core.errors import DataError
from cryptoalpha.monitoring.daily import Floats, checked_returns
from cryptoalpha.monitoring.drift.detector import Detector, State, checked_value
from cryptoalpha.monitoring.ratios import deviation

VOLATILITIES = ((0.0, 0.0), *((reaction, total - reaction) for reaction in (0.02, 0.05, 0.1, 0.2) for total in (0.9, 0.97, 0.99, 0.999)))
"""Reaction and memory of the running variance that a reference chooses from by likelihood; the first is constant volatility."""
LEAST = 30
"""Values below which nothing is called normal."""


@dataclass(slots=True)
class Baseline:
    """How a series was in its reference, and where it stands now. `update` turns the next value into a standardised surprise."""

    slope: float
    """φ of the autoregression."""
    centre: float
    usual: float
    """Long-run variance of surprises."""
    reaction: float
    """Weight of the latest squared surprise in the running variance; 0 keeps it constant."""
    memory: float
    """Weight of the running variance in the next; the rest is the long-run one's."""
    clip: float
    """Standard deviations beyond which a surprise counts as just that: one bad print is not a drift."""
    mean: float
    spread: float
    """Of the clipped surprises in the reference, taken out of each."""
    variance: float
    """Running variance of surprises, now."""
    last: float
    """The latest value."""
    observations: int
    """Length of the reference."""

    @classmethod
    def fit(cls, reference: ArrayLike, *, clip: float = 4.0) -> Self:
        """Learn from a reference `[n]` what is normal.

        Raises:
            DataError: for fewer than 30 values, NaN or infinity, or a series that does not vary.
        """
        from cryptoalpha.monitoring.drift.kernels import volatility_misfit, whitened

        x = checked_returns(reference, name="reference")
        if x.size < LEAST or deviation(x) == 0.0:
            raise DataError(f"{x.size} values, spread {deviation(x) if x.size > 1 else 0.0:g}: expected {LEAST} or more that vary")
        centre = float(x.mean())
        d = x - centre
        slope = float((d[1:] * d[:-1]).sum() / (d * d).sum())
        slope = min(max(slope + (1.0 + 3.0 * slope) / x.size, -0.999), 0.999)  # short series understate it by so much (Kendall 1954)
        surprises = d[1:] - slope * d[:-1]
        usual = float((surprises * surprises).mean())
        if not usual > 0.0:
            raise DataError("the reference is a straight decay without surprises: nothing can be told from it")
        reaction, memory = min(VOLATILITIES, key=lambda pair: float(volatility_misfit(surprises, usual, *pair)))
        z = whitened(x, slope, centre, usual, reaction, memory, usual, clip)
        made = cls(slope, centre, usual, reaction, memory, clip, 0.0, 1.0, usual, float(x[0]), x.size)
        for value in x[1:]:
            made.update(float(value))
        made.mean, made.spread = float(z.mean()), deviation(z)
        return made

    def update(self, value: float) -> float:
        """The standardised surprise of the next value."""
        x = checked_value(value, "Baseline")
        surprise = x - self.centre - self.slope * (self.last - self.centre)
        z = min(max(surprise / sqrt(self.variance), -self.clip), self.clip)
        rest = (1.0 - self.reaction - self.memory) * self.usual
        self.variance = rest + self.reaction * (surprise * surprise) + self.memory * self.variance
        self.last = x
        return (z - self.mean) / self.spread

    def surprises(self, values: ArrayLike) -> Floats:
        """The standardised surprises of the next values, `[n]` → `[n]`; the object does not change."""
        x = np.concatenate(([self.last], checked_returns(values, name="values")))
        return self._whitened(x, self.variance)

    def of_reference(self, reference: ArrayLike) -> Floats:
        """The standardised surprises of the reference it was fitted to, `[n]` → `[n − 1]`."""
        x = checked_returns(reference, name="reference")
        return self._whitened(x, self.usual)

    def _whitened(self, x: Floats, variance: float) -> Floats:
        from cryptoalpha.monitoring.drift.kernels import whitened

        z = whitened(x, self.slope, self.centre, self.usual, self.reaction, self.memory, variance, self.clip)
        found: Floats = (z - self.mean) / self.spread
        return found

    def state(self) -> State:
        """Plain numbers."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_state(cls, state: State) -> Self:
        """The baseline that gave this state."""
        return cls(**state)


class Standardised:
    """A detector that takes mean and spread out of each value before it looks, as they were in a reference.

    With it a simulated run can have a simulated reference too, and the threshold pays for not knowing the mean exactly.
    """

    def __init__(self, inner: Detector, reference: Floats) -> None:
        self.inner = inner
        self.mean = float(reference.mean()) if reference.size else 0.0
        self.spread = deviation(reference) if reference.size > 1 else 1.0

    @property
    def threshold(self) -> float:
        """Of the inner detector."""
        return self.inner.threshold

    def statistics(self, values: Floats) -> Floats:
        """As `Detector.statistics`."""
        return self.inner.statistics((values - self.mean) / self.spread)
