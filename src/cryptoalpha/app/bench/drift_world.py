"""Series on which nothing happens, the detectors that watch them, and how long both say it takes to be wrong.

`iid` is standard normal, `ar98` an AR(1) with φ = .98, `garch_t` a GARCH(1,1) (.08, .90) with Student-t₄ surprises. A trial draws a
reference of 5,000 values and fits a baseline and a threshold to it, as `monitoring.drift` does for any series; then fresh values of the
same kind are watched. Nothing is known of a series but its reference.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cryptoalpha.core.seeds import stream
from cryptoalpha.monitoring.accuracy import wilson_interval
from cryptoalpha.monitoring.daily import Floats
from cryptoalpha.monitoring.drift.adwin import Adwin
from cryptoalpha.monitoring.drift.baseline import Baseline, Standardised
from cryptoalpha.monitoring.drift.calibrate import DetectorFactory, Run, Scored, calibrate_threshold, records
from cryptoalpha.monitoring.drift.cusum import Cusum
from cryptoalpha.monitoring.drift.e_detector import EDetector
from cryptoalpha.monitoring.drift.page_hinkley import PageHinkley
from cryptoalpha.monitoring.drift.window_test import WindowTest

REFERENCE = 5_000
RUN_LENGTH = 2_000
"""Observations between false alarms that is asked for."""
HORIZON = 8
"""Length of a fresh run, in run lengths."""
FRESH = 10
"""Fresh runs for each reference."""
SIMULATED = 100
"""Runs from which each threshold is found."""
SLACK = 0.25
WINDOW = 250
CLAIM = 0.53
"""Share of hits of the prediction that the e-detector watches."""

_REACTION, _MEMORY, _FREEDOM = 0.08, 0.90, 4


def iid(rng: np.random.Generator, length: int) -> Floats:
    """Independent standard normal values."""
    return rng.normal(size=length)


def autoregressive(slope: float) -> Callable[[np.random.Generator, int], Floats]:
    """Draws AR(1) series with unit surprises from their stationary law."""

    def draw(rng: np.random.Generator, length: int) -> Floats:
        surprises = rng.normal(size=length)
        surprises[0] /= np.sqrt(1.0 - slope**2)
        found = np.empty(length)
        level = 0.0
        for i, surprise in enumerate(surprises.tolist()):
            level = slope * level + surprise
            found[i] = level
        return found

    return draw


ar98 = autoregressive(0.98)


def garch_t(rng: np.random.Generator, length: int) -> Floats:
    """GARCH(1,1) with t₄ surprises and a long-run variance of 1, after 500 values that are thrown away."""
    burn = 500
    surprises = rng.standard_t(_FREEDOM, size=length + burn) / np.sqrt(_FREEDOM / (_FREEDOM - 2.0))
    found = np.empty(length + burn)
    variance = 1.0
    for i, surprise in enumerate(surprises.tolist()):
        value = variance**0.5 * surprise
        found[i] = value
        variance = (1.0 - _REACTION - _MEMORY) + _REACTION * value * value + _MEMORY * variance
    return found[burn:]


WORLDS: dict[str, Callable[[np.random.Generator, int], Floats]] = {"iid": iid, "ar98": ar98, "garch_t": garch_t}
SLOW = {"ar90": autoregressive(0.9), "ar98": ar98, "ar995": autoregressive(0.995)}
"""As slow as features are; a momentum of 28 days is about AR(.96)."""
LEVEL_SPREADS = {"ar90": (1.0 - 0.9**2) ** -0.5, "ar98": (1.0 - 0.98**2) ** -0.5, "ar995": (1.0 - 0.995**2) ** -0.5}
"""Standard deviations of those worlds that do not have 1."""

DETECTORS: dict[str, DetectorFactory] = {
    "cusum": lambda reference: Standardised(Cusum(slack=SLACK, threshold=1.0), reference),
    "page_hinkley": lambda reference: Standardised(PageHinkley(slack=SLACK, threshold=1.0), reference),
    "adwin": lambda reference: Standardised(Adwin(), reference),
    "psi": lambda reference: WindowTest(reference=reference, test="psi", window=WINDOW),
    "ks": lambda reference: WindowTest(reference=reference, test="ks", window=WINDOW),
}


class Trial:
    """One reference of one world, its baseline, and fresh series after it, whitened: `reference` `[n]`, `fresh` `FRESH` × `[length]`."""

    def __init__(self, world: str, seed: int, *, length: int = HORIZON * RUN_LENGTH, fresh: int = FRESH) -> None:
        rng = stream(seed, "bench", "drift", world)
        raw = WORLDS[world](rng, REFERENCE)
        baseline = Baseline.fit(raw)
        self.seed = seed
        self.reference = baseline.of_reference(raw)
        self.fresh = []
        for _ in range(fresh):
            values = WORLDS[world](rng, length + 1)
            baseline.last, baseline.variance = float(values[0]), baseline.usual
            self.fresh.append(baseline.surprises(values[1:]))

    def ends(self, name: str) -> list[tuple[int, bool]]:
        """Of every fresh series, the observations until a false alarm, and whether there was one."""
        if name == "e_detector":
            return [run.until(float(RUN_LENGTH)) for run in self._hits()]
        found = calibrate_threshold(DETECTORS[name], self.reference, RUN_LENGTH, seed=self.seed, runs=SIMULATED)
        detector = DETECTORS[name](self.reference)
        return [records(detector.statistics(series)).until(found.threshold) for series in self.fresh]

    def _hits(self) -> list[Run]:
        """A prediction that was right in 53 % of the reference; its promise is the lower end of what that allows."""
        line = np.quantile(self.reference, CLAIM)
        hits = int(np.sum(self.reference < line))
        detector = EDetector(expected=wilson_interval(hits, self.reference.size, level=0.9)[0], run_length=float(RUN_LENGTH))
        return [records(detector.statistics((series < line).astype(np.float64))) for series in self.fresh]


def run_length_ratios(world: str, name: str, *, trials: int, length: int = HORIZON * RUN_LENGTH) -> tuple[float, Floats]:
    """Measured over stated run length: over all references together, and of each `[trials]`."""
    ends = [Trial(world, seed, length=length).ends(name) for seed in range(trials)]
    return _ratio([end for some in ends for end in some]), np.array([_ratio(some) for some in ends])


def _ratio(ends: list[tuple[int, bool]]) -> float:
    """Total time over alarms; where no run alarmed, as if the last one just had."""
    return sum(end for end, _ in ends) / max(sum(alarmed for _, alarmed in ends), 1) / RUN_LENGTH


def mean_delay(name: str, shift: float, *, runs: int, length: int = 20_000) -> float:
    """Mean observations from a shift of the mean of standard normal values (or of the hit rate) to the alarm, runs with a false alarm
    before it left out."""
    detector: Scored
    if name == "e_detector":
        detector, threshold = EDetector(expected=CLAIM, run_length=8_760.0), 8_760.0
    else:
        threshold = calibrate_threshold(DETECTORS[name], iid, RUN_LENGTH, seed=0, reference_length=REFERENCE, runs=4 * SIMULATED).threshold
        detector = DETECTORS[name](iid(stream(0, "bench", "drift", "delay reference"), REFERENCE))
    delays = []
    for seed in range(runs):
        rng = stream(seed, "bench", "drift", "delay")
        before = 500 + int(rng.integers(WINDOW))  # windows do not wait for shifts
        if name == "e_detector":
            rate = np.where(np.arange(length) < before, CLAIM, CLAIM - shift)
            values = (rng.random(length) < rate).astype(np.float64)
        else:
            values = iid(rng, length)
            values[before:] += shift
        end, _ = records(detector.statistics(values)).until(threshold)
        if end > before:
            delays.append(end - before)
    return float(np.mean(delays))
