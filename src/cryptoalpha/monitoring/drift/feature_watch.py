"""All features together: does any still come from the distribution it had?

Looks are `false_discovery_rate × run length` apart and each takes the values since the last one, so no value is tested twice. At a look
every feature gets a p-value (twice the smaller of the PSI's and Kolmogorov–Smirnov's, both on whitened values), and Benjamini–Hochberg says
which to believe. Where nothing changed the chance of believing any is at most the rate: one false look per run length, however many
features there are. That holds for the average over references, so the same reference serves for good and what stays changed is told at
every look.

Two things a short reference cannot say, and both would count as another distribution. How slowly a feature comes back to its mean: so the
slowest return that the reference allows is taken out (`Baseline.fit(cautious=True)`), and of one that shows none at all, such as a momentum
of 28 days among 90 daily values, only the steps are compared, not the level. How its volatility comes and goes: so what dependence
whitening left in the sizes of surprises makes both samples count as shorter (`dispersion_share`).

Looks that believe something although nothing changes, eight features, at most .10 as stated (`cryptoalpha bench drift`,
`features_believed_*`, 400 looks at daily values): independent .01, AR(.9) .02, AR(.98) .02, AR(.995) .00, GARCH-t .06. The price is power:
of one feature whose level moves by its standard deviation .59 of looks tell it where values are independent, .88 GARCH-t, and none where a
feature is slow: 90 days of AR(.9) or more cannot tell a level that moved from one that wanders. Hourly values find AR(.9) at .98, AR(.98)
at .13.

It does not hold for all there is: a feature that is a slow part under noise (AR(.98) and a quarter of its variance white) was believed to
have changed at .43 of looks, the logarithm of an exponential volatility (decay .94 a day, GARCH-t returns) at .15.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import exp, lgamma

import numpy as np

from cryptoalpha.core.errors import DataError
from cryptoalpha.core.time import DAY, HOUR
from cryptoalpha.core.values import Alarm
from cryptoalpha.monitoring.daily import Floats
from cryptoalpha.monitoring.drift.baseline import LEAST, Baseline, largest_slope
from cryptoalpha.monitoring.drift.false_discovery import adjusted_p_values
from cryptoalpha.monitoring.drift.two_samples import ks_test, psi

LAGS = 6
"""Lags at which surprises and their sizes are looked at for dependence."""
STAYS = 0.5
"""Autocorrelation from which on a feature of few values is a state that comes and goes; how long it stays 90 days cannot say."""
EVERY = HOUR
"""Features are sampled at most once an hour: minutes add memory, not independent values."""


class FeatureWatch:
    """Watches the distributions of named features.

    Args:
        reference_days: days from a feature's first value that say what is normal of it.
        run_length_days: mean days between looks that believe something although nothing changed.
        rate: Benjamini–Hochberg rate of a look.
    """

    def __init__(self, *, reference_days: float, run_length_days: float, rate: float) -> None:
        self.reference_days, self.run_length_days, self.rate = reference_days, run_length_days, rate
        self._learned: dict[str, int] = {}
        """When the reference of each feature is complete."""
        self._reference: dict[str, list[float]] = {}
        self._window: dict[str, list[float]] = {}
        self._looked: int | None = None
        self._latest: int | None = None
        self._rows = 0
        """Since the last look."""

    @property
    def look_days(self) -> float:
        """Days between looks."""
        return self.rate * self.run_length_days

    @property
    def observed(self) -> dict[str, int]:
        """Values taken of each feature, those of the reference and those since the last look."""
        return {name: len(values) + len(self._window[name]) for name, values in self._reference.items()}

    def update(self, at: int, values: Mapping[str, float]) -> list[Alarm]:
        """Take the values known at `at` (UTC ns), NaN where not observed; one alarm per feature believed to have changed.

        A feature that is new learns from then on, and is tested from the first look at which its reference is complete.

        Raises:
            DataError: for infinity.
        """
        if any(value in (float("inf"), float("-inf")) for value in values.values()):
            raise DataError(f"features at {at}: {dict(values)}: expected finite numbers, or NaN where not observed")
        if self._latest is not None and at < self._latest + EVERY:
            return []
        self._latest = at
        learning = round(self.reference_days * DAY)
        if self._looked is None:
            self._looked = at + learning
        for name, value in values.items():
            if value == value:
                kept = self._reference if at < self._learned.setdefault(name, at + learning) else self._window
                self._window.setdefault(name, [])
                self._reference.setdefault(name, [])
                kept[name].append(float(value))
        if at < self._looked:
            return []
        self._rows += 1
        if at < self._looked + self.look_days * DAY:
            return []
        alarms = self._look(at)
        self._window = {name: [] for name in self._window}
        self._looked, self._rows = at, 0
        return alarms

    def _look(self, at: int) -> list[Alarm]:
        tested = {}
        for name, window in self._window.items():
            p = feature_p_value(np.array(self._reference[name]), np.array(window))
            if p is not None:
                tested[name] = p
        adjusted = adjusted_p_values(list(tested.values()))
        run_length = self.run_length_days * self._rows / self.look_days
        return [
            Alarm(
                happened_at=at,
                known_at=at,
                detector="psi_ks",
                subject=name,
                tier="retrain",
                statistic=-float(np.log10(max(q, 1e-300))),
                threshold=-float(np.log10(self.rate)),
                run_length=run_length,
                message=f"the last {self.look_days:.0f} days of {name} do not come from its reference: p {tested[name]:.2g}, "
                f"{q:.2g} after Benjamini–Hochberg over {len(tested)} features",
            )
            for name, q in zip(tested, adjusted.tolist(), strict=True)
            if q <= self.rate
        ]


def feature_p_value(reference: Floats, sample: Floats) -> float | None:
    """Chance of a distance like this or more between `[n]` and `[m]`; None where either is too short or neither varies, or where it is a
    state that stays."""
    if reference.size < 2 * LEAST or sample.size < LEAST:
        return None
    known = np.unique(reference)
    if known.size == 1:
        return gathered(reference.size, sample.size, np.setdiff1d(sample, known).size)
    if known.size < 2 * LEAST:  # steps, not a continuum: surprises of them have no density
        slope = max(largest_slope(reference), 0.0)
        if slope > STAYS:
            return None
        share = (1.0 - slope) / (1.0 + slope)
        return ks_test(reference, sample, effective=(share * reference.size, share * sample.size)).p_value
    baseline = Baseline.fit(reference, cautious=True)
    before, now = baseline.of_reference(reference), baseline.surprises(sample)
    share = independent_share(before, now)
    sizes = (share * before.size, share * now.size)  # by the limit law: counting out takes a tenth of a second a feature
    return min(1.0, 2.0 * min(psi(before, now, effective=sizes).p_value, ks_test(before, now, effective=sizes).p_value))


def gathered(before: int, after: int, count: int) -> float | None:
    """Chance that `count` exceptions among `before` + `after` values all fall among the last `after`; None without any.

    Of a feature that had one value in its reference. Each new value is one exception however long it stays, since nobody knows how long it
    would: a flag that is set for the first time is no news (.29 with 90 and 36 values), a feature that comes to life is.
    """
    if count == 0:
        return None
    return exp(lgamma(after + 1) - lgamma(after - count + 1) + lgamma(before + after - count + 1) - lgamma(before + after + 1))


def independent_share(before: Floats, now: Floats) -> float:
    """Share of the surprises `[n]` and `[m]` that they are worth: `1 / (1 + 2 Σ ρ)`, ρ the positive autocorrelations of z or of |z|,
    whichever add up to more. Each sample about its own mean: what changed between them is no dependence."""
    return 1.0 / (1.0 + 2.0 * max(_memory([before, now]), _memory([np.abs(before), np.abs(now)])))


def _memory(samples: list[Floats]) -> float:
    apart = [x - x.mean() for x in samples]
    total = sum(float((d * d).sum()) for d in apart)
    if not total > 0.0:
        return 0.0
    return sum(max(sum(float((d[lag:] * d[:-lag]).sum()) for d in apart) / total, 0.0) for lag in range(1, LAGS + 1))
