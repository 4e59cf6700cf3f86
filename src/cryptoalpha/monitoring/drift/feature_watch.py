"""All features together: does any still come from the distribution it had?

Looks are `false_discovery_rate × run length` apart and each takes the values since the last one, so no value is tested twice. At a look
every feature gets a p-value (twice the smaller of the PSI's and Kolmogorov–Smirnov's, both on whitened values), and Benjamini–Hochberg says
which to believe. Where nothing changed the chance of believing any is at most the rate: one false look per run length, however many
features there are. That holds for the average over references, so the same reference serves until `relearn` and what stays changed is told
at every look.

A short reference cannot say how a feature's volatility comes and goes, and a month of high volatility would count as another distribution.
What dependence whitening left in the sizes of surprises therefore makes both samples count as shorter (`dispersion_share`). With 90 daily
values a shift by one standard deviation is still found at nine looks in ten, a change of scale alone hardly: that takes hourly values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.core.time import DAY, HOUR
from cryptoalpha.core.values import Alarm
from cryptoalpha.monitoring.daily import Floats
from cryptoalpha.monitoring.drift.baseline import LEAST, Baseline
from cryptoalpha.monitoring.drift.detector import State
from cryptoalpha.monitoring.drift.false_discovery import adjusted_p_values
from cryptoalpha.monitoring.drift.two_samples import effective_size, ks_test, psi

LAGS = 3
"""Lags at which sizes of surprises are looked at for dependence."""
EVERY = HOUR
"""Features are sampled at most once an hour: minutes add memory, not independent values."""


class FeatureWatch:
    """Watches the distributions of named features. NaN is a value that was not observed.

    Args:
        reference_days: days at the start that say what normal is.
        run_length_days: mean days between looks that believe something although nothing changed.
        rate: Benjamini–Hochberg rate of a look.
    """

    def __init__(self, *, reference_days: float, run_length_days: float, rate: float) -> None:
        self.reference_days, self.run_length_days, self.rate = reference_days, run_length_days, rate
        self.relearn()

    def relearn(self) -> None:
        """Forget what was normal and learn it anew from what comes."""
        self._names: tuple[str, ...] = ()
        self._reference: list[list[float]] = []
        self._window: list[list[float]] = []
        self._looked: int | None = None
        self._latest: int | None = None
        self.p_values: dict[str, float] = {}

    @property
    def look_days(self) -> float:
        """Days between looks."""
        return self.rate * self.run_length_days

    def update(self, at: int, names: Sequence[str], values: ArrayLike) -> list[Alarm]:
        """Take the values `[F]` known at `at` (UTC ns); one alarm per feature believed to have changed.

        Raises:
            DataError: for other names than before, a wrong number of values, or infinity.
        """
        x = np.asarray(values, dtype=np.float64)
        if x.shape != (len(names),) or bool(np.isinf(x).any()):
            raise DataError(f"{len(names)} features, values {x.shape}: expected one finite or NaN value each")
        if self._names and tuple(names) != self._names:
            raise DataError("the features are no longer the same", hint="call `relearn` when their list changes")
        self._names = tuple(names)
        if self._latest is not None and at < self._latest + EVERY:
            return []
        self._latest = at
        if self._looked is None:
            self._looked = at + round(self.reference_days * DAY)
        row: list[float] = x.tolist()
        if at < self._looked:
            self._reference.append(row)
            return []
        self._window.append(row)
        if at < self._looked + self.look_days * DAY:
            return []
        alarms = self._look(at)
        self._window = []
        self._looked = at
        return alarms

    def _look(self, at: int) -> list[Alarm]:
        before, now = np.array(self._reference), np.array(self._window)
        tested = {}
        for place, name in enumerate(self._names):
            p = feature_p_value(before[:, place], now[:, place])
            if p is not None:
                tested[name] = p
        self.p_values = tested
        adjusted = adjusted_p_values(list(tested.values()))
        run_length = self.run_length_days * len(self._window) / self.look_days
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

    def state(self) -> State:
        """All but the settings."""
        return {
            "names": list(self._names),
            "reference": [list(row) for row in self._reference],
            "window": [list(row) for row in self._window],
            "looked": self._looked,
            "latest": self._latest,
            "p_values": dict(self.p_values),
        }

    @classmethod
    def from_state(cls, state: State, *, reference_days: float, run_length_days: float, rate: float) -> Self:
        """The watch that gave this state.

        Raises:
            ConfigError: where the state has other entries.
        """
        made = cls(reference_days=reference_days, run_length_days=run_length_days, rate=rate)
        if set(state) != set(made.state()):
            raise ConfigError("the kept state of the features' watch has other entries", hint="start it anew")
        made._names = tuple(state["names"])
        made._reference = [list(row) for row in state["reference"]]
        made._window = [list(row) for row in state["window"]]
        made._looked, made._latest = state["looked"], state["latest"]
        made.p_values = dict(state["p_values"])
        return made


def feature_p_value(reference: Floats, sample: Floats) -> float | None:
    """Chance of a distance like this between `[n]` and `[m]` (NaN left out); None where either is too short or does not vary.

    A feature that never varied and now does is certain to have changed: 0.
    """
    e, a = reference[np.isfinite(reference)], sample[np.isfinite(sample)]
    if e.size < 2 * LEAST or a.size < LEAST:
        return None
    levels = np.unique(e).size
    if levels == 1:
        return 0.0 if bool(np.any(a != e[0])) else None
    if levels < 2 * LEAST:  # steps, not a continuum: surprises of them have no density
        found = psi(e, a, effective=(max(effective_size(e), 1.0), max(effective_size(a), 1.0)))
        return found.p_value if found.p_value == found.p_value else None
    baseline = Baseline.fit(e)
    before, now = baseline.of_reference(e), baseline.surprises(a)
    share = dispersion_share(np.concatenate((before, now)))
    sizes = (share * before.size, share * now.size)  # by the limit law: counting out takes a tenth of a second a feature
    return min(1.0, 2.0 * min(psi(before, now, effective=sizes).p_value, ks_test(before, now, effective=sizes).p_value))


def dispersion_share(surprises: Floats) -> float:
    """Share of values `[n]` that the distribution of their sizes is worth: `1 / (1 + 2 Σ ρ)`, ρ the positive autocorrelations of |z|."""
    d = np.abs(surprises) - np.abs(surprises).mean()
    total = float((d * d).sum())
    if not total > 0.0:
        return 1.0
    return 1.0 / (1.0 + 2.0 * sum(max(float((d[lag:] * d[:-lag]).sum()) / total, 0.0) for lag in range(1, LAGS + 1)))
