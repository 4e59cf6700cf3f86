"""Measures that are functions of per-moment sums, and their block-bootstrap intervals: shared by all that judge.

A measure is a function of sums over moments, so a resample of whole moments, all assets together, is one product of how often each moment
was drawn with the columns `[T]`; a thousand resamples of every measure cost as much as one matrix product, and whoever is compared is
resampled at the same places, so that differences are paired.

Sources: Politis & Romano (1994) for the resampling (`monitoring.bootstrap`); Naeini et al. (2015) for the calibration error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cryptoalpha.monitoring.bootstrap import block_length, resample_indices
from cryptoalpha.monitoring.calibration import bins_of_equal_mass

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

Columns = dict[str, Floats]
Sums = Mapping[str, Floats]

RESAMPLES = 1_000
"""Resamples of a 95 % interval; its ends are then known to about a hundredth of its width."""

CELLS_AT_ONCE = 2_000_000

BINS = 15
"""Bins of the calibration error; as `monitoring.calibration.expected_calibration_error`."""

HORIZONS_A_BLOCK = 4.0
"""Least mean length of a block over the horizon. Outcomes of h bars share bars with their neighbours, so their autocovariance falls in a
straight line to 0 at lag h. Blocks of mean length L keep it at lag k with the weight (1 − 1/L)^k, and so of the variance of a mean the
share 2 ∫ (1 − x) e^(−x h/L) dx, x from 0 to 1: .85 at L = 2h, which makes intervals 8 % too narrow, and .92 at 4h, 4 %. Much longer blocks
would be too few to tell a variance by."""


@dataclass(frozen=True)
class Measure:
    """One number of a table: what it is called, whether more is better, and how it follows from the sums."""

    title: str
    better: int
    """1: more is better; −1: less is; 0: neither."""
    of: Callable[[Sums], Floats]


def ratio(above: Floats, below: Floats) -> Floats:
    """`above / below`, NaN where `below` is not positive."""
    return np.asarray(np.divide(above, below, out=np.full(np.shape(above), np.nan), where=np.asarray(below) > 0), np.float64)


def mean(total: str, count: str) -> Callable[[Sums], Floats]:
    """The measure that is one column over another."""
    return lambda sums: ratio(sums[total], sums[count])


def calibration_gaps(name: str, p: Floats, came_true: Flags, seen: Flags) -> Columns:
    """What `calibration_error` is made of: per moment and bin, what came true less what was said, over all of `seen` `[T, ...]`.

    The bins are those of `monitoring.calibration.expected_calibration_error` of everything given at once. Columns of several folds may be
    joined: each fold then has its own bounds of the bins, and gaps of bins of one rank are summed.
    """
    moments = np.nonzero(seen)[0]
    place = moments * BINS + bins_of_equal_mass(p[seen], BINS)
    gaps = np.bincount(place, weights=came_true[seen] - p[seen], minlength=len(p) * BINS).astype(np.float64).reshape(len(p), BINS)
    return {f"{name} gap {b}": gaps[:, b] for b in range(BINS)}


def calibration_error(name: str) -> Callable[[Sums], Floats]:
    """The measure of `calibration_gaps` of that name over the column "`name` n"."""

    def of(sums: Sums) -> Floats:
        gaps = np.sum([np.abs(sums[f"{name} gap {b}"]) for b in range(BINS)], axis=0)
        return ratio(np.asarray(gaps, np.float64), sums[f"{name} n"])

    return of


def mean_block(series: Floats | None, horizon_bars: int, moments: int) -> float:
    """Mean length of a resampled block, moments: what the series asks for, no less than `HORIZONS_A_BLOCK`, and at most a third of all."""
    asked = 1.0 if series is None else block_length(series)
    return float(min(max(asked, HORIZONS_A_BLOCK * horizon_bars), max(1.0, moments / 3.0)))


def resampled(table: Floats, block: float, resamples: int, rng: np.random.Generator) -> Floats:
    """Sums of the columns `[T, K]` over each resample of moments, `[resamples, K]`."""
    moments = len(table)
    at_once = max(1, CELLS_AT_ONCE // moments)
    parts = []
    for start in range(0, resamples, at_once):
        count = min(at_once, resamples - start)
        drawn = resample_indices(moments, count, block, rng).astype(np.int64) + moments * np.arange(count)[:, None]
        parts.append(np.bincount(drawn.ravel(), minlength=count * moments).reshape(count, moments).astype(np.float64) @ table)
    return np.concatenate(parts)


def unbiased(measure: str, estimate: float, draws: Floats) -> Floats:
    """A calibration error is a sum of absolute values, which noise only enlarges: its resamples lie too high and are moved back."""
    if not measure.endswith("ece") or not np.isfinite(draws).any():
        return draws
    return np.maximum(draws - (np.nanmean(draws) - estimate), 0.0)
