"""How good is a source of signals lately? Rank IC × coverage × freshness, with a bootstrap interval.

Over a window of periods t and assets a, with `known` where the outcome of t is known and `spoke` where the source also had a signal:

- IC: mean over the periods of the rank correlation of signals with outcomes, as `accuracy.information_coefficient` (across assets where
  at least five spoke, else along time), −1 to 1;
- coverage: share of the known outcomes about which the source spoke, 0 to 1;
- freshness: mean over what it said of `2^(−age / half_life)`, 0 to 1. `age` counts periods since the signal became known; the half-life
  is the horizon unless given, so that a signal as old as what it foretells is worth half.

Their product, the quality, is the IC of a source that says nothing useful where it is silent and forgets as it ages. It is for ranking
sources and for watching one: an interval that has fallen below zero says that the source misleads. The interval resamples periods, all
assets together, in blocks no shorter than the horizon (overlapping outcomes are one observation); along time the ranks of the window are
kept. Undefined is NaN with a `reason`.

Source: Grinold & Kahn (2000) for IC and breadth; Politis & Romano (1994) for the stationary bootstrap.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.monitoring.accuracy import CROSS_SECTION, coefficients, paired
from cryptoalpha.monitoring.bootstrap import LEVEL, Interval, block_length, rows_interval
from cryptoalpha.monitoring.daily import Floats
from cryptoalpha.monitoring.ratios import NAN

LEAST_PERIODS = 30
"""Fewest periods with a rank correlation; with fewer the quality is NaN."""

RESAMPLES = 500
"""Resamples of each window: enough for 95 % bounds that move by a tenth of their distance, few enough to repeat at every step."""


@dataclass(frozen=True)
class SignalQuality:
    """Quality of one source over one window."""

    source: str
    end: int
    """Row after the last one of the window."""
    quality: Interval
    """IC × coverage × freshness with its interval; `share_below_zero` is a one-sided p-value for "this source helps"."""
    ic: float
    coverage: float
    freshness: float
    periods: int
    """Periods with a rank correlation."""
    cross_sectional: bool
    reason: str | None = None
    """Why the quality is NaN."""


class Cells(NamedTuple):
    """What is judged, each `[T, A]`."""

    predictions: Floats
    realised: Floats
    both: NDArray[np.bool_]
    """Signal and outcome are there."""
    known: NDArray[np.bool_]
    fresh: Floats
    """Freshness of each signal; 0 where `both` is not."""

    def where(self, due: NDArray[np.bool_]) -> Cells:
        """As if only these outcomes were known; `due` broadcasts to `[T, A]`."""
        return self._replace(both=self.both & due, known=self.known & due, fresh=np.where(due, self.fresh, 0.0))

    def rows(self, start: int, end: int) -> Cells:
        """Those of a window."""
        return Cells(
            self.predictions[start:end], self.realised[start:end], self.both[start:end], self.known[start:end], self.fresh[start:end]
        )


@dataclass(frozen=True, eq=False)
class SourceRecord:
    """What a source said and what happened. Shapes `[T, A]`, or `[T]` for one asset.

    Args:
        source: its name.
        predictions: its signal, any monotone scale; read where `spoke`.
        realised: the return each signal was about, over `horizon` periods; read where `known`.
        spoke: True where the source had a signal; everywhere unless given.
        known: True where the outcome is known by now; everywhere unless given. The last `horizon` rows usually are not.
        age: periods since the signal became known, at least 0; 0 unless given.
        horizon: periods a signal looks ahead.
        half_life: of freshness, periods; the horizon unless given.

    Raises:
        ConfigError: for a horizon or half-life that is not positive.
        DataError: for shapes that differ, or values that are not finite where they are read.
    """

    source: str
    predictions: ArrayLike
    realised: ArrayLike
    spoke: ArrayLike | None = None
    known: ArrayLike | None = None
    age: ArrayLike | None = None
    horizon: int = 1
    half_life: float | None = None

    def cells(self) -> Cells:
        """The record, checked, as arrays `[T, A]`."""
        half_life = float(self.horizon) if self.half_life is None else self.half_life
        if self.horizon < 1 or not 0.0 < half_life < float("inf"):
            raise ConfigError(f"horizon {self.horizon}, half_life {half_life}: expected at least 1 period and a positive half-life")
        shape = np.shape(self.predictions)
        spoke, known = (np.ones(shape, bool) if mask is None else np.asarray(mask, bool) for mask in (self.spoke, self.known))
        ages = np.zeros(shape) if self.age is None else np.asarray(self.age, dtype=np.float64)
        if not shape == spoke.shape == known.shape == ages.shape:
            raise DataError(f"predictions {shape}, spoke {spoke.shape}, known {known.shape} and age {ages.shape} differ in shape")
        p, r, both = paired(self.predictions, self.realised, spoke & known)
        ages, known = ages.reshape(p.shape), known.reshape(p.shape)
        if not bool(np.all(ages[both] >= 0.0)):
            raise DataError("age is negative or NaN where the source spoke", hint="a signal cannot be used before it is known")
        fresh = np.where(both, np.exp2(-np.where(both, ages, 0.0) / half_life), 0.0)
        return Cells(p, r, both, known, fresh)


def signal_quality(
    record: SourceRecord, *, least: int = LEAST_PERIODS, seed: int = 0, resamples: int = RESAMPLES, level: float = LEVEL
) -> SignalQuality:
    """Quality over the whole record."""
    cells = record.cells()
    return _of_window(record, cells, len(cells.predictions), least, seed, resamples, level)


def rolling_signal_quality(
    record: SourceRecord,
    window: int,
    *,
    step: int = 1,
    least: int = LEAST_PERIODS,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Iterator[SignalQuality]:
    """Quality of each full window, every `step` rows: what was known at row `end` and nothing later.

    The outcome of a row is known `horizon` rows after it, so within a window the last `horizon − 1` rows have none yet, whatever the
    record holds: they count neither as spoken about nor as missed.

    Raises:
        ConfigError: for a window or step below 1.
    """
    if window < 1 or step < 1:
        raise ConfigError(f"window {window}, step {step}: expected at least 1 row each")
    cells = record.cells()
    for end in range(window, len(cells.predictions) + 1, step):
        due = np.arange(end - window, end)[:, None] <= end - record.horizon
        yield _of_window(record, cells.rows(end - window, end).where(due), end, least, seed, resamples, level)


def _of_window(record: SourceRecord, cells: Cells, end: int, least: int, seed: int, resamples: int, level: float) -> SignalQuality:
    p, r, both, known, fresh = cells
    asked, said = float(known.sum()), float(both.sum())
    coverage, freshness = said / asked if asked else NAN, float(fresh.sum()) / said if said else NAN
    each = coefficients(p, r, both) if said else np.full(len(p), NAN)
    defined = ~np.isnan(each)
    periods = int(defined.sum())
    ic = float(each[defined].mean()) if periods else NAN
    reason = _undefined(asked, said, periods, least)
    quality = Interval(NAN, NAN, NAN, level, NAN, 0, NAN)
    if reason is None:
        columns = (np.where(defined, each, 0.0), defined.astype(float), fresh.sum(axis=1), known.sum(axis=1).astype(float))
        quality = rows_interval(
            np.arange(len(p), dtype=np.float64),
            lambda rows: _product(rows.astype(np.int64), *columns),
            seed=seed,
            name=f"quality {record.source}",
            resamples=resamples,
            level=level,
            mean_block=max(float(record.horizon), block_length(each[defined])),
        )
    return SignalQuality(record.source, end, quality, ic, coverage, freshness, periods, p.shape[1] >= CROSS_SECTION, reason)


def _product(rows: NDArray[np.int64], ic: Floats, defined: Floats, fresh: Floats, known: Floats) -> Floats:
    """Quality of each resample of periods, `[k, n]` → `[k]`; coverage × freshness is what was said, by freshness, over what was asked."""
    counted, asked = defined[rows].sum(axis=1), known[rows].sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(ic[rows].sum(axis=1) / counted * (fresh[rows].sum(axis=1) / asked), dtype=np.float64)


def _undefined(asked: float, said: float, periods: int, least: int) -> str | None:
    if not asked:
        return "no outcome is known"
    if not said:
        return "the source never spoke about a known outcome"
    if not periods:
        return "signals or outcomes never varied, or too few were given at a time to rank them"
    enough = max(least, 2)
    return f"{periods} periods with a rank correlation, fewer than the {enough} it needs" if periods < enough else None
