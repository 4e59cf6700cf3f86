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
ROOT = 25.0
"""Where n (1 − φ) is less, n values do not show that a series comes back to its mean at all: one that never does gets there with a chance
of less than a percent (Fuller 1976)."""
FAR = 10
"""Lags at which memory is looked for: a slow part under noise shows later than at the first."""
SEEN = 2.5
"""Standard errors at which an autocorrelation counts as seen."""


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
    def fit(cls, reference: ArrayLike, *, clip: float = 4.0, cautious: bool = False) -> Self:
        """Learn from a reference `[n]` what is normal.

        Args:
            reference: `[n]`.
            clip: standard deviations beyond which a surprise counts as just that.
            cautious: whether φ is the largest that the reference allows (`largest_slope`) instead of the likeliest. Surprises then hang
                together less than independent values, never more, so that a test of them is wrong less often than it says.

        Raises:
            DataError: for fewer than 30 values, NaN or infinity, or a series that does not vary.
        """
        from cryptoalpha.monitoring.drift.kernels import running_variance, volatility_misfit, whitened

        x = checked_returns(reference, name="reference")
        if x.size < LEAST or deviation(x) == 0.0:
            raise DataError(f"{x.size} values, spread {deviation(x) if x.size > 1 else 0.0:g}: expected {LEAST} or more that vary")
        centre = float(x.mean())
        d = x - centre
        slope = float((d[1:] * d[:-1]).sum() / (d * d).sum())
        slope = largest_slope(x) if cautious else min(max(corrected_slope(slope, x.size), -0.999), 0.999)
        surprises = d[1:] - slope * d[:-1]
        usual = float((surprises * surprises).mean())
        if not usual > 0.0:
            raise DataError("the reference is a straight decay without surprises: nothing can be told from it")
        reaction, memory = min(VOLATILITIES, key=lambda pair: float(volatility_misfit(surprises, usual, *pair)))
        z = whitened(x, slope, centre, usual, reaction, memory, usual, clip)
        variance = running_variance(surprises, usual, reaction, memory)
        return cls(slope, centre, usual, reaction, memory, clip, float(z.mean()), deviation(z), variance, float(x[-1]), x.size)

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


def corrected_slope(slope: float, size: int) -> float:
    """First autocorrelation of `size` values without what short series understate it by (Kendall 1954)."""
    return slope + (1.0 + 3.0 * slope) / size


def largest_slope(values: Floats) -> float:
    """The largest φ that values `[n]` which vary allow: one standard error up; 1 where no return to the mean shows.

    The standard error alone does not do: near φ = 1 its law is skew, and 90 days tell .98 from 1 in no way.
    """
    d, n = values - values.mean(), values.size
    total = float((d * d).sum())
    rho = [float((d[lag:] * d[:-lag]).sum()) / total for lag in range(1, min(FAR, n - 1) + 1)]
    slowest = max((r ** (1.0 / lag) for lag, r in enumerate(rho, start=1) if r > SEEN / sqrt(n)), default=rho[0])
    if n * (1.0 - slowest) < ROOT:
        return 1.0
    likely = corrected_slope(rho[0], n)
    return min(max(likely + sqrt(max(1.0 - likely * likely, 1.0 / n) / n), -0.999), 1.0)


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
