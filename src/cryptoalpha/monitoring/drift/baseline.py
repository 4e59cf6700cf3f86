"""What is normal: a series turned into standardised surprises, so that one detector fits all.

Three things make a threshold mean something else for each series, and each is taken out: its dependence (a first-order autoregression),
its changing volatility (an exponentially weighted one, known before the value), its level and scale. Whitening costs nothing that was
there: a shift of δ standard deviations in an AR(φ) series becomes one of δ √((1 − φ) / (1 + φ)) in its surprises, which is exactly the
share of independent observations it had.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Self

from numpy.typing import ArrayLike

from cryptoalpha.core.errors import DataError
from cryptoalpha.monitoring.daily import Floats, checked_returns
from cryptoalpha.monitoring.drift.detector import Detector, State, checked_value
from cryptoalpha.monitoring.ratios import deviation

LEAST = 30
"""Values below which nothing is called normal."""


@dataclass(slots=True)
class Baseline:
    """How a series was in its reference, and where it stands now. `update` turns the next value into a standardised surprise."""

    slope: float
    """φ of the autoregression."""
    centre: float
    decay: float
    """Weight of the past in the running variance of surprises; 1 keeps it constant."""
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
    def fit(cls, reference: ArrayLike, *, decay: float = 0.97, clip: float = 4.0) -> Self:
        """Learn from a reference `[n]` what is normal.

        Raises:
            DataError: for fewer than 30 values, NaN or infinity, or a series that does not vary.
        """
        from cryptoalpha.monitoring.drift.kernels import whitened

        x = checked_returns(reference, name="reference")
        if x.size < LEAST or deviation(x) == 0.0:
            raise DataError(f"{x.size} values, spread {deviation(x) if x.size > 1 else 0.0:g}: expected {LEAST} or more that vary")
        centre = float(x.mean())
        d = x - centre
        slope = min(max(float((d[1:] * d[:-1]).sum() / (d * d).sum()), -0.999), 0.999)
        surprises = d[1:] - slope * d[:-1]
        variance = float((surprises * surprises).mean())
        if not variance > 0.0:
            raise DataError("the reference is a straight decay without surprises: nothing can be told from it")
        z = whitened(x, slope, centre, decay, variance, clip)
        made = cls(slope, centre, decay, clip, 0.0, 1.0, variance, float(x[0]), x.size)
        for value in x[1:]:
            made.update(float(value))
        made.mean, made.spread = float(z.mean()), deviation(z)
        return made

    def update(self, value: float) -> float:
        """The standardised surprise of the next value."""
        x = checked_value(value, "Baseline")
        surprise = x - self.centre - self.slope * (self.last - self.centre)
        z = min(max(surprise / sqrt(self.variance), -self.clip), self.clip)
        if self.decay < 1.0:
            self.variance = self.decay * self.variance + (1.0 - self.decay) * surprise * surprise
        self.last = x
        return (z - self.mean) / self.spread

    def surprises(self, values: ArrayLike) -> Floats:
        """The standardised surprises of the next values, `[n]` → `[n]`; the object does not change."""
        import numpy as np

        from cryptoalpha.monitoring.drift.kernels import whitened

        x = np.concatenate(([self.last], checked_returns(values, name="values")))
        found: Floats = (whitened(x, self.slope, self.centre, self.decay, self.variance, self.clip) - self.mean) / self.spread
        return found

    def of_reference(self, reference: ArrayLike) -> Floats:
        """The standardised surprises of the reference it was fitted to, `[n]` → `[n − 1]`."""
        from cryptoalpha.monitoring.drift.kernels import whitened

        x = checked_returns(reference, name="reference")
        d = x - self.centre
        surprises = d[1:] - self.slope * d[:-1]
        start = float((surprises * surprises).mean())
        found: Floats = (whitened(x, self.slope, self.centre, self.decay, start, self.clip) - self.mean) / self.spread
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
