"""How good a regime model is on bars it was not fitted on: measures with block-bootstrap intervals, demands, a verdict in words.

A regime is nothing anybody observes, so none of this says that it is "right". What can be said: whether the states foretell features
better than models without states or without memory; whether the filter's chances of change are those it later confirms; and whether the
belief says anything about the next day's volatility and direction that plain shares do not.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cryptoalpha.core.errors import DataError
from cryptoalpha.core.seeds import stream
from cryptoalpha.core.values import REGIMES, TRENDS, VOLATILITIES
from cryptoalpha.lifecycle.recipes.regime_tallies import BINS, LAST_DAY, MIXTURE, ONE, REGIME, SHARE
from cryptoalpha.lifecycle.recipes.resampling import RESAMPLES, Columns, Sums, mean_block, ratio, resampled
from cryptoalpha.monitoring.bootstrap import Interval, interval_of

LEVEL = 0.95


@dataclass(frozen=True)
class RegimeMeasure:
    """A mean per bar: its title, the columns it is made of, whether more is better, and who is compared."""

    title: str
    column: str
    better: int
    who: tuple[str, ...]


def measures(day: int) -> tuple[RegimeMeasure, ...]:
    """All of them, for days of so many bars."""
    likely = tuple(
        RegimeMeasure(f"log density of the {axis} features {words} ahead", f"{axis} {ahead}", 1, (REGIME, ONE, MIXTURE))
        for axis in ("trend", "volatility")
        for ahead, words in ((1, "one bar"), (day, "one day"))
    )
    return (
        *likely,
        RegimeMeasure("Brier score of a stormy next day", "stormy", -1, (REGIME, SHARE, LAST_DAY)),
        RegimeMeasure("Brier score of a rising next day", "rising", -1, (REGIME, SHARE)),
    )


@dataclass(frozen=True)
class RegimeJudgement:
    """What was found. `scores`: measure → who → interval; `differences`: measure → rival → regime less rival, paired."""

    bars: int
    mean_block: float
    scores: dict[str, dict[str, Interval]]
    differences: dict[str, dict[str, Interval]]
    better: dict[str, int]
    change: tuple[tuple[int, float, float], ...]
    """(bars, chance of change said, chance later seen) in each fifth of what was said."""
    change_ratio: Interval
    """Changes later seen over changes said; 1 is right."""
    time: dict[str, float]
    """Mean belief in each cell and in each of the five named regimes."""
    spell_bars: float
    """Mean length of a spell of the likeliest cell, bars."""
    moves: dict[str, Interval]
    """Mean move of the next day by trend, in units of what is usual for a day."""

    def beats(self, measure: str, rival: str) -> bool:
        """Better than the rival, with the whole interval of the difference."""
        found = self.differences[measure][rival]
        return bool(found.low > 0.0) if self.better[measure] > 0 else bool(found.high < 0.0)

    def loses(self, measure: str, rival: str) -> bool:
        """Worse than the rival, with the whole interval of the difference."""
        found = self.differences[measure][rival]
        return bool(found.high < 0.0) if self.better[measure] > 0 else bool(found.low > 0.0)

    @property
    def gates(self) -> dict[str, bool]:
        """Each demand, and whether it is met."""
        return {
            f"{'a higher' if self.better[name] > 0 else 'a lower'} {name} than {rival}": self.beats(name, rival)
            for name, row in self.differences.items()
            for rival in row
        }

    def verdict(self) -> dict[str, Any]:
        """What may be concluded, as the lineage keeps it."""
        met = [words for words, yes in self.gates.items() if yes]
        pairs = [(name, rival, found) for name, row in self.differences.items() for rival, found in row.items()]
        worse = [
            f"worse than {rival} in {name} ({found.estimate:+.3f}, {found.low:+.3f} to {found.high:+.3f})"
            for name, rival, found in pairs
            if self.loses(name, rival)
        ]
        missed = [
            f"{'a higher' if self.better[name] > 0 else 'a lower'} {name} than {rival}"
            for name, rival, _ in pairs
            if not self.beats(name, rival) and not self.loses(name, rival)
        ]
        words = f"regimes: shown at {LEVEL:.0%}: {'; '.join(met) or 'nothing'}. "
        words += f"Shown to be {'; '.join(worse)}. " if worse else ""
        words += f"Not shown: {'; '.join(missed)}. " if missed else ""
        found = self.change_ratio
        words += (
            f"For every change that was foretold the model itself later saw {found.estimate:.2f} ({found.low:.2f} to {found.high:.2f})."
        )
        reasons = [*(f"shown to be {one}" for one in worse), *(f"not shown: {one}" for one in missed)]
        return {"promoted": not reasons, "reasons": reasons, "words": words, "audit_first": ""}

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "gates": self.gates}


def judge_regime(columns: Columns, *, day: int, seed: int = 0, resamples: int = RESAMPLES) -> RegimeJudgement:
    """Judge the columns of all folds, one after the other (`[T]` each).

    Raises:
        DataError: if fewer than two moments have a belief.
    """
    used = np.flatnonzero(columns["time n"] > 0)
    if len(used) < 2:
        raise DataError(f"{len(used)} moments cannot be judged", hint="bring more history, or shorter stretches")
    names = list(columns)
    table = np.stack([columns[name][used] for name in names], axis=1)
    gain = table[:, names.index(f"stormy {SHARE}")] - table[:, names.index(f"stormy {REGIME}")]
    block = mean_block(gain, day, len(used))
    totals = dict(zip(names, table.sum(0), strict=True))
    drawn = dict(zip(names, resampled(table, block, resamples, stream(seed, "lifecycle", "regime judging")).T, strict=True))

    def interval(above: str, below: str) -> Interval:
        return interval_of(float(ratio(totals[above], totals[below])), ratio(drawn[above], drawn[below]), LEVEL, block)

    scores: dict[str, dict[str, Interval]] = {}
    differences: dict[str, dict[str, Interval]] = {}
    for measure in measures(day):
        column = measure.column
        scores[measure.title] = {who: interval(f"{column} {who}", f"{column} n") for who in measure.who}
        differences[measure.title] = {
            rival: _gap(totals, drawn, f"{column} {REGIME}", f"{column} {rival}", f"{column} n", block) for rival in measure.who[1:]
        }
    said, seen = ([sum(part[f"change {b} {kind}"] for b in range(BINS)) for part in (totals, drawn)] for kind in ("said", "seen"))
    shares = [[float(ratio(totals[f"change {b} {kind}"], totals[f"change {b} n"])) for kind in ("said", "seen")] for b in range(BINS)]
    bins = tuple((int(totals[f"change {b} n"]), said_share, seen_share) for b, (said_share, seen_share) in enumerate(shares))
    spells = float(totals["time n"] / max(1.0, totals["ends"] + 1.0))
    return RegimeJudgement(
        bars=int(totals["time n"]),
        mean_block=block,
        scores=scores,
        differences=differences,
        better={measure.title: measure.better for measure in measures(day)},
        change=bins,
        change_ratio=interval_of(float(ratio(seen[0], said[0])), ratio(seen[1], said[1]), LEVEL, block),
        time=_time(totals),
        spell_bars=spells,
        moves={name: interval(f"move {name}", f"move {name} n") for name in TRENDS},
    )


def _gap(totals: Sums, drawn: Sums, own: str, rival: str, count: str, block: float) -> Interval:
    """One mean less another, resampled at the same places."""
    estimate = float(ratio(totals[own] - totals[rival], totals[count]))
    return interval_of(estimate, ratio(drawn[own] - drawn[rival], drawn[count]), LEVEL, block)


def _time(totals: Sums) -> dict[str, float]:
    """Mean belief in each cell and in the five named regimes."""
    cells = {cell: float(totals[f"time {c}"] / totals["time n"]) for c, cell in enumerate(REGIMES)}
    named = {name: sum(share for cell, share in cells.items() if name in cell) for name in (*TRENDS, *VOLATILITIES)}
    return {" ".join(cell): share for cell, share in cells.items()} | named
