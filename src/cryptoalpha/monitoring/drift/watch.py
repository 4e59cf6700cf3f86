"""One series under watch: a stretch that says what is normal, a threshold calibrated to it, then alarms.

The first `reference_days` of values are the reference. From them come the baseline (whitening) and, by simulation, the threshold at which
a CUSUM of the surprises has the stated mean run length. After an alarm it takes a new reference from what comes: one change, one alarm.

That is what makes the run length hold in use. A mean known from 90 values is off by a tenth of a standard deviation; a watch that kept an
unlucky reference would alarm again and again: the average rate over references is larger than the rate of the average time. With a new
reference each time, alarms are a renewal process: their rate is one over the mean time to the first alarm and the time to learn, so at most
the stated one. Thresholds are found over one run length, so that the first years keep to it too. The price: what changes while a reference
is being learned, that is within `reference_days` of the start or of an alarm, counts as normal.

Alarms in use, for all watches at their default settings: `cryptoalpha bench drift`, `alarms_per_run_length_*`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cryptoalpha.core.time import DAY
from cryptoalpha.core.values import Alarm
from cryptoalpha.monitoring.daily import Floats
from cryptoalpha.monitoring.drift.baseline import LEAST, Baseline, Standardised
from cryptoalpha.monitoring.drift.calibrate import calibrate_threshold
from cryptoalpha.monitoring.drift.cusum import Cusum, Side
from cryptoalpha.monitoring.drift.detector import checked_value

HORIZON = 1.0
"""Length of the simulations behind a threshold, in run lengths."""

Tier = Literal["breaker", "retrain", "champion"]


@dataclass(frozen=True)
class WatchSettings:
    """How one series is watched."""

    subject: str
    tier: Tier
    reference_days: float
    run_length_days: float
    cooldown_days: float
    shift: float
    side: Side = "both"
    every: int = 0
    """Least time between values that are looked at, nanoseconds."""
    runs: int = 200
    seed: int = 0


class SeriesWatch:
    """Watches the level of one series of numbers.

    Feed it in order of time with `update`; it answers with an alarm or nothing, and learns anew after each. Same values, same alarms.
    """

    def __init__(self, settings: WatchSettings) -> None:
        self.settings = settings
        self.relearn()

    def relearn(self) -> None:
        """Forget what was normal and learn it anew from what comes."""
        self._reference: list[float] = []
        self._since: int | None = None
        self._latest: int | None = None
        self._silent_until: int | None = None
        self._baseline: Baseline | None = None
        self._detector: Cusum | None = None
        self._run_length = 0.0

    def update(self, at: int, value: float) -> Alarm | None:
        """Take the value known at `at` (UTC ns); values closer together than `every` are passed over.

        Raises:
            DataError: for NaN or infinity.
        """
        x = checked_value(value, f"the watch over {self.settings.subject}")
        if self._latest is not None and at < self._latest + max(self.settings.every, 1):
            return None
        self._latest = at
        if self._baseline is None or self._detector is None:
            self._learn(at, x)
            return None
        z = self._baseline.update(x)
        if self._silent_until is not None:
            if at < self._silent_until:
                return None
            self._silent_until = None
        if not self._detector.update(z):
            return None
        alarm = self._alarm(at)
        self.relearn()
        self._latest = at
        self._silent_until = at + round(self.settings.cooldown_days * DAY)
        return alarm

    def _learn(self, at: int, x: float) -> None:
        self._since = at if self._since is None else self._since
        self._reference.append(x)
        days = (at - self._since) / DAY
        if days < self.settings.reference_days or len(self._reference) < 2 * LEAST or len(set(self._reference)) < 3:
            return
        self._baseline = Baseline.fit(self._reference)
        self._run_length = max(self.settings.run_length_days * (len(self._reference) - 1) / days, 10.0)
        slack, side = self.settings.shift / 2.0, self.settings.side

        def build(reference: Floats) -> Standardised:
            return Standardised(Cusum(slack=slack, threshold=1.0, side=side), reference)

        found = calibrate_threshold(
            build,
            self._baseline.of_reference(self._reference),
            self._run_length,
            seed=self.settings.seed,
            runs=self.settings.runs,
            horizon=HORIZON,
        )
        self._detector = Cusum(slack=slack, threshold=found.threshold, side=side)
        self._reference = []

    def _alarm(self, at: int) -> Alarm:
        assert self._detector is not None
        assert self._baseline is not None
        way = "above" if self._detector.is_above else "below"
        return Alarm(
            happened_at=at,
            known_at=at,
            detector="cusum",
            subject=self.settings.subject,
            tier=self.settings.tier,
            statistic=self._detector.statistic,
            threshold=self._detector.threshold,
            run_length=self._run_length,
            message=f"{self.settings.subject} runs {way} its reference of {self._baseline.observations} values; by chance once in "
            f"{self.settings.run_length_days:g} days",
        )
