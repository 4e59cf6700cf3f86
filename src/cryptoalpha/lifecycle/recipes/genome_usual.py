"""What is usual in the rows a fold learns from: where an untrained genome begins, and the baseline it must beat.

Levels: quantiles of the later excursions, in the same ATR. Holding: how often a level held. Classes: their shares. Tokens: how often each
is on, and, for a baseline that is harder to beat, how often after a bar that had it and after one that had not. All assets together.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt

from cryptoalpha.core.errors import DataError
from cryptoalpha.nets.genome.heads import level_probabilities
from cryptoalpha.signals.genome.arrays import GenomeArrays
from cryptoalpha.signals.genome.targets import Outcomes
from cryptoalpha.store.tables import Floats

Rows = npt.NDArray[np.int64]

PSEUDO = 1.0
"""Rows that are believed to have been seen of each kind before any was: no share is exactly 0 or 1."""


@dataclass(frozen=True, eq=False)
class Usual:
    """Baselines of one fold. `S` time frames, `V` tokens, `K` levels on a side."""

    below: Floats
    """Quantiles of how far the low goes below the price, ATR, `[K]`."""
    above: Floats
    """Of how far the high goes above it, `[K]`."""
    hold: Floats
    """How often the levels held: first those of `below` and `above`, later the net's own on its validation bars, supports first, `[2K]`."""
    trend: Floats
    """Share of up, down, sideways, `[3]`."""
    movement: Floats
    """The same of the next bar, `[3]`."""
    tokens: Floats
    """How often each token is on, `[S, V]`."""
    after_off: Floats
    """How often it is on where the bar before did not have it, `[S, V]`."""
    after_on: Floats
    """How often where the bar before had it, `[S, V]`."""

    def holding(self, hold: Floats) -> Usual:
        """The same with other frequencies of holding."""
        return replace(self, hold=hold)

    def as_arrays(self) -> dict[str, Floats]:
        """By name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def usual_of(arrays: GenomeArrays, outcomes: Outcomes, rows: Rows, *, supports: int, resistances: int, classes: int = 3) -> Usual:
    """The baselines of these rows of the frame; their labels must be settled by whoever asks.

    Raises:
        DataError: if no excursion is known at any of them.
    """
    below, above = _known(outcomes.below[rows]), _known(outcomes.above[rows])
    if not len(below) or not len(above):
        raise DataError("no bar of the training stretch has known outcomes", hint="bring instruments that traded then")
    lower, upper = np.quantile(below, level_probabilities(supports)), np.quantile(above, level_probabilities(resistances))
    closes = ((_known(outcomes.close_below[rows]), lower), (_known(outcomes.close_above[rows]), upper))
    off, on, always = _token_rates(arrays, rows)
    return Usual(
        below=lower,
        above=upper,
        hold=np.concatenate([(reach[:, None] <= levels).mean(0) for reach, levels in closes]),
        trend=_shares(outcomes.trend[rows], classes),
        movement=_shares(outcomes.movement[rows], classes),
        tokens=always,
        after_off=off,
        after_on=on,
    )


def _known(values: Floats) -> Floats:
    return np.asarray(values[np.isfinite(values)], np.float64)


def _shares(found: npt.NDArray[np.int64], classes: int) -> Floats:
    counts = np.bincount(found[found >= 0], minlength=classes) + PSEUDO
    return np.asarray(counts / counts.sum(), np.float64)


def _token_rates(arrays: GenomeArrays, rows: Rows) -> tuple[Floats, Floats, Floats]:
    """How often each token is on after a bar without it, after a bar with it, and at all, `[S, V]` each."""
    sets = arrays.sets
    told = sets.present[..., None] & ~sets.missing  # [T, A, S, V]
    now, asked = sets.tokens[rows], told[rows]
    before = np.maximum(rows - 1, 0)
    chained = asked & told[before] & (rows > 0)[:, None, None, None]
    had = sets.tokens[before]

    def rate(among: npt.NDArray[np.bool_], fallback: Floats | float) -> Floats:
        on, count = (now & among).sum((0, 1)), among.sum((0, 1))
        return np.asarray((on + PSEUDO * fallback) / (count + PSEUDO), np.float64)

    always = rate(asked, 0.5)
    return rate(chained & ~had, always), rate(chained & had, always), always
