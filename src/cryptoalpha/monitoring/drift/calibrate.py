"""The threshold at which false alarms come as rarely as stated, found by simulating that nothing happens.

Runs are drawn from a reference by the stationary block bootstrap, or from a generator. Each run gets its own simulated reference too, of
the same length, from which the detector takes its baseline: so the threshold pays for a mean that is known from so many values only.
The detector's statistic does not depend on the threshold before the first alarm, so one pass over the runs serves all thresholds. Runs end
after `horizon` run lengths; with A alarms in a total time of T the mean run length is T / A, its error A^(−1/2) of it. Over the luck of
short references alarms come early or hardly ever, so a long horizon lets the first years alarm more often than stated; a horizon of one run
length makes their rate the stated one and later rates lower.

What a finite reference costs can be asked for (`with_wrong_means`): `Calibration.if_mean_is_low` and `if_mean_is_high` are the run lengths
of the same threshold when the true mean lies one standard error off the reference's.

Sources: Politis & Romano (1994) for the bootstrap; the estimate is that of an exponential tail with censoring.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.core.seeds import stream
from cryptoalpha.monitoring.bootstrap import block_length as automatic_block_length
from cryptoalpha.monitoring.bootstrap import resample_indices
from cryptoalpha.monitoring.daily import Floats, checked_returns
from cryptoalpha.monitoring.ratios import deviation

HORIZON = 4.0
"""Length of a simulated run, in run lengths: 98 % of runs see an alarm."""
MOST_VALUES = 40_000_000
"""Values simulated at most; beyond, runs end sooner and the tail is extrapolated as exponential."""

Generator = Callable[[np.random.Generator, int], Floats]
"""Draws a series of a given length under the null."""


class Scored(Protocol):
    """What is asked of a detector here."""

    def statistics(self, values: Floats) -> Floats:
        """The statistic after each value, from a fresh start."""
        ...


DetectorFactory = Callable[[Floats], Scored]
"""Builds a fresh detector from a reference `[n]` (empty where none is simulated); its threshold is not looked at."""


@dataclass(frozen=True)
class Calibration:
    """A threshold, and what is known of it."""

    threshold: float
    run_length: float
    """Mean observations between false alarms that was asked for."""
    error: float
    """Relative standard error of that by the number of simulated alarms."""
    if_mean_is_low: float | None
    """Run length of this threshold where the true mean lies one standard error below the reference's; None unless asked for."""
    if_mean_is_high: float | None
    """The same, above."""
    reference_length: int
    block_length: float
    runs: int


@dataclass(frozen=True)
class Run:
    """The rising records of one run: places `[k]` (from 1) and heights `[k]`, and where it ended."""

    places: NDArray[np.int64]
    heights: Floats
    length: int

    def until(self, threshold: float) -> tuple[int, bool]:
        """Observations until the statistic exceeds the threshold, and whether it did."""
        at = bisect_right(self.heights, threshold)  # searchsorted takes as long to begin as this to end
        return (int(self.places[at]), True) if at < self.places.size else (self.length, False)


def calibrate_threshold(
    detector_factory: DetectorFactory,
    reference: ArrayLike | Generator,
    run_length: float,
    *,
    seed: int,
    block_length: float | None = None,
    reference_length: int | None = None,
    runs: int = 400,
    horizon: float = HORIZON,
    with_wrong_means: bool = False,
) -> Calibration:
    """Find the threshold with this mean run length under the null.

    Args:
        detector_factory: builds a fresh detector from a (simulated) reference.
        reference: values `[n]` as the detector will see them, best whitened (`Baseline.of_reference`); or a generator of such values.
        run_length: mean observations between false alarms, at least 10.
        seed: same seed, same threshold.
        block_length: mean length of bootstrap blocks [by the rule of Politis & White].
        reference_length: length of the simulated references [n; 0 with a generator: the baseline is exact].
        runs: simulated runs.
        horizon: length of each, in run lengths, above 0.
        with_wrong_means: whether to say what the threshold is worth where the reference's mean is off; costs half as much again.

    Raises:
        ConfigError: for a run length below 10, fewer than 20 runs or a horizon that is not positive.
        DataError: for a reference of fewer than 30 values, NaN or infinity.
    """
    if run_length < 10.0 or runs < 20 or not horizon > 0.0:
        raise ConfigError(f"run_length {run_length}, runs {runs}, horizon {horizon}: expected at least 10, at least 20, above 0")
    draw, size, block = _source(reference, block_length)
    size = size if reference_length is None else reference_length
    length = int(max(min(horizon * run_length, MOST_VALUES / runs), 2.0))
    rng = stream(seed, "drift", "runs")
    simulated = [_one(detector_factory, draw, size, length, rng) for _ in range(runs)]
    threshold = _threshold(simulated, run_length)
    low: float | None = None
    high: float | None = None
    if with_wrong_means and size > 1:
        exact = draw(stream(seed, "drift", "reference"), 20 * size) if callable(reference) else checked_returns(reference)
        error = deviation(exact) / np.sqrt(size)
        low, high = (
            _with_wrong_mean(detector_factory, draw, exact, length, shift, max(runs // 4, 20), seed, threshold) for shift in (-error, error)
        )
    _, alarms = mean_run_length(simulated, threshold)
    return Calibration(threshold, run_length, max(alarms, 1) ** -0.5, low, high, size, block, runs)


def mean_run_length(simulated: Sequence[Run], threshold: float) -> tuple[float, int]:
    """Total time over alarms, and the alarms."""
    ends = [run.until(threshold) for run in simulated]
    alarms = sum(alarmed for _, alarmed in ends)
    return (sum(end for end, _ in ends) / alarms if alarms else float("inf")), alarms


def bootstrap_draw(reference: Floats, mean_block: float) -> Generator:
    """Draws series of any length from a reference by the stationary block bootstrap."""

    def draw(rng: np.random.Generator, length: int) -> Floats:
        return np.asarray(reference[resample_indices(reference.size, 1, mean_block, rng, drawn=length)[0]])

    return draw


def _source(reference: ArrayLike | Generator, block_length: float | None) -> tuple[Generator, int, float]:
    if callable(reference):
        return reference, 0, 0.0
    x = checked_returns(reference, name="reference")
    if x.size < 30 or deviation(x) == 0.0:
        raise DataError(f"a reference of {x.size} values that do not vary, or too few, cannot say what is normal")
    block = automatic_block_length(x) if block_length is None else block_length
    if not block >= 1.0:
        raise ConfigError(f"block_length is {block}, expected at least 1")
    return bootstrap_draw(x, block), x.size, block


def _one(factory: DetectorFactory, draw: Generator, size: int, length: int, rng: np.random.Generator) -> Run:
    """One run, with a reference of its own."""
    reference = draw(rng, size) if size else np.empty(0)
    return records(factory(reference).statistics(draw(rng, length)))


def records(statistics: Floats) -> Run:
    """The run behind a series of statistics `[n]`, as `Detector.statistics` gives it."""
    highest = np.maximum.accumulate(statistics)
    rises = np.flatnonzero(np.diff(highest, prepend=-np.inf) > 0.0)
    return Run(rises + 1, highest[rises], statistics.size)


def _with_wrong_mean(
    factory: DetectorFactory, draw: Generator, exact: Floats, length: int, shift: float, runs: int, seed: int, threshold: float
) -> float:
    """Mean run length where the baseline is that of `exact`, but every value lies off by `shift`."""
    detector = factory(exact)
    simulated = [records(detector.statistics(draw(stream(seed, "drift", "off", i), length) + shift)) for i in range(runs)]
    return mean_run_length(simulated, threshold)[0]


def _threshold(simulated: list[Run], run_length: float) -> float:
    low = min(float(run.heights[0]) for run in simulated)
    high = max(float(run.heights[-1]) for run in simulated)
    while high - low > 1e-4 * high:  # far below what so few runs can tell
        middle = (low + high) / 2.0
        low, high = (middle, high) if mean_run_length(simulated, middle)[0] < run_length else (low, middle)
    return high
