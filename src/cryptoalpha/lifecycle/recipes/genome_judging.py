"""A genome beside its baselines: every measure with a block-bootstrap interval, and the paired difference to each baseline.

Definitions. All assets count alike and are resampled together, moment by moment; outcomes of neighbouring moments overlap, so a block is at
least twice the horizon long on average.

- levels: pinball loss in ATR, mean over levels and sides, beside the quantiles of the training stretch ("usual").
- hold: Brier score of "no close beyond this level within the horizon", on the net's own levels, beside climatology: how often its level of
  the same rank held in the training stretch.
- trend, movement: share of the likeliest class right, logarithmic loss, calibration error, beside the shares of the training stretch.
- tokens: of bars hidden from the net (in every time frame), for the bar's own frame: accuracy of on/off, balanced accuracy (mean over
  tokens of hit rates for on and off, calling "on" what is likelier than usual), logarithmic loss; beside unigram rates ("usual") and rates
  given the token of the bar before ("last bar", the harder one).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cryptoalpha.core.errors import DataError
from cryptoalpha.core.seeds import stream
from cryptoalpha.lifecycle.recipes.genome_tallies import BINS, LAST, NET, USUAL, Columns
from cryptoalpha.lifecycle.recipes.verdict import TOO_GOOD_ACCURACY
from cryptoalpha.monitoring.bootstrap import LEVEL, Interval, block_length, resample_indices
from cryptoalpha.store.tables import Floats

RESAMPLES = 1_000
CELLS_AT_ONCE = 2_000_000

Sums = Mapping[str, Floats]


@dataclass(frozen=True)
class Measure:
    """One number: its title, whether more is better (1) or less (−1), who can be asked, and how it follows from the sums."""

    title: str
    better: int
    who: tuple[str, ...]
    of: Callable[[Sums, str], Floats]


def _ratio(above: Floats, below: Floats) -> Floats:
    return np.asarray(np.divide(above, below, out=np.full(np.shape(above), np.nan), where=np.asarray(below) > 0), np.float64)


def _mean(total: str, count: str) -> Callable[[Sums, str], Floats]:
    return lambda sums, who: _ratio(sums[f"{who} {total}"], sums[count])


def _pinball(sums: Sums, who: str) -> Floats:
    sides = [_ratio(sums[f"{who} {side} pinball"], sums[f"{side} n"]) for side in ("below", "above")]
    return np.asarray((sides[0] + sides[1]) / 2.0, np.float64)


def _calibration(name: str) -> Callable[[Sums, str], Floats]:
    def of(sums: Sums, who: str) -> Floats:
        gaps = np.sum([np.abs(sums[f"{who} {name} gap {b}"]) for b in range(BINS)], axis=0)
        return _ratio(np.asarray(gaps, np.float64), sums[f"{name} n"])

    return of


def _balanced(sums: Sums, who: str) -> Floats:
    """Mean over the tokens that were both on and off; in a resample that lost one of the two, over the rest."""
    tokens = sum(name.startswith("on ") for name in sums)
    rates = [
        (_ratio(sums[f"{who} on {v}"], sums[f"on {v}"]) + _ratio(sums[f"{who} off {v}"], sums[f"off {v}"])) / 2.0 for v in range(tokens)
    ]
    known = np.isfinite(rates)
    return _ratio(np.where(known, rates, 0.0).sum(0), known.sum(0).astype(np.float64))


BOTH, ALL = (NET, USUAL), (NET, USUAL, LAST)
MEASURES: dict[str, Measure] = {
    "level_pinball": Measure("levels: pinball, ATR", -1, BOTH, _pinball),
    "hold_brier": Measure("hold: Brier", -1, BOTH, _mean("hold brier", "hold n")),
    "hold_ece": Measure("hold: ECE", -1, BOTH, _calibration("hold")),
    "trend_accuracy": Measure("trend: class right", 1, BOTH, _mean("trend right", "trend n")),
    "trend_log_loss": Measure("trend: log loss", -1, BOTH, _mean("trend log", "trend n")),
    "trend_ece": Measure("trend: ECE", -1, BOTH, _calibration("trend")),
    "movement_accuracy": Measure("next bar: class right", 1, BOTH, _mean("movement right", "movement n")),
    "movement_log_loss": Measure("next bar: log loss", -1, BOTH, _mean("movement log", "movement n")),
    "movement_ece": Measure("next bar: ECE", -1, BOTH, _calibration("movement")),
    "token_accuracy": Measure("hidden tokens: right", 1, ALL, _mean("token right", "token n")),
    "token_balanced": Measure("hidden tokens: balanced", 1, ALL, _balanced),
    "token_log_loss": Measure("hidden tokens: log loss", -1, ALL, _mean("token log", "token n")),
    "long_token_log_loss": Measure("longer frames' tokens: log loss", -1, ALL, _mean("long token log", "long token n")),
}
"""By name, in the order of the table."""

GATES = (
    ("token_accuracy", USUAL, "masked tokens are called better than by their base rates"),
    ("token_log_loss", USUAL, "masked tokens surprise it less than their base rates would"),
    ("level_pinball", USUAL, "levels are better quantiles than the usual ones"),
    ("hold_brier", USUAL, "it knows better than climatology whether a level holds"),
)
"""What a genome must do: a measure, against whom, in words."""


@dataclass(frozen=True)
class GenomeJudgement:
    """`scores[measure][who]`, and `differences[measure][baseline]`: the net less the baseline, resampled at the same moments.

    `within` is the share of excursions within each level, by who and side: calibrated where it is the level's probability.
    """

    moments: int
    mean_block: float
    scores: Mapping[str, Mapping[str, Interval]]
    differences: Mapping[str, Mapping[str, Interval]]
    within: Mapping[str, tuple[float, ...]]

    def beats(self, measure: str, baseline: str) -> bool:
        """Better than the baseline, with the whole interval of the difference."""
        found, better = self.differences[measure][baseline], MEASURES[measure].better
        return bool(found.low > 0.0) if better > 0 else bool(found.high < 0.0)

    @property
    def gates(self) -> dict[str, bool]:
        """Each demand, and whether it is met."""
        return {words: self.beats(measure, baseline) for measure, baseline, words in GATES}

    def verdict(self) -> dict[str, Any]:
        """What may be concluded, as the lineage keeps it."""
        met, missed = ([words for words, yes in self.gates.items() if yes is wanted] for wanted in (True, False))
        shown = f"Shown at {LEVEL:.0%}: {'; '.join(met)}. " if met else ""
        words = f"{NET}: {shown}" + (f"Not shown: {'; '.join(missed)}." if missed else "Every demand is met.")
        suspects = [name for name in ("trend_accuracy", "movement_accuracy") if self.scores[name][NET].estimate > TOO_GOOD_ACCURACY]
        names = " and ".join(MEASURES[name].title for name in suspects)
        advice = f"{names} above {TOO_GOOD_ACCURACY:.0%}: look for a leak (cryptoalpha audit) before believing it" if suspects else ""
        return {"promoted": not missed, "reasons": missed, "words": words, "audit_first": advice}

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""

        def plain(found: Mapping[str, Mapping[str, Interval]]) -> dict[str, Any]:
            return {name: {who: asdict(interval) for who, interval in row.items()} for name, row in found.items()}

        return {
            "moments": self.moments,
            "mean_block": self.mean_block,
            "scores": plain(self.scores),
            "differences": plain(self.differences),
            "within": {name: list(shares) for name, shares in self.within.items()},
            "gates": self.gates,
        }


def judge_genome(columns: Columns, *, horizon: int, seed: int = 0, resamples: int = RESAMPLES, level: float = LEVEL) -> GenomeJudgement:
    """Judge the columns of all folds, one after the other (`[T]` each, moments rising).

    Raises:
        DataError: if there are fewer than two moments with anything to judge.
    """
    used = np.flatnonzero(columns["below n"] + columns["above n"] + columns["trend n"] + columns["token n"] > 0)
    if len(used) < 2:
        raise DataError(f"{len(used)} moments cannot be judged", hint="bring more history, or shorter stretches")
    names = list(columns)
    table = np.stack([columns[name][used] for name in names], axis=1)  # [T, columns]
    block = _mean_block(dict(zip(names, table.T, strict=True)), horizon)
    totals = dict(zip(names, table.sum(0), strict=True))
    drawn = dict(zip(names, _resampled(table, block, seed, resamples).T, strict=True))
    scores: dict[str, dict[str, Interval]] = {}
    differences: dict[str, dict[str, Interval]] = {}
    for name, measure in MEASURES.items():
        found = {who: (float(measure.of(totals, who)), measure.of(drawn, who)) for who in measure.who}
        scores[name] = {who: _interval(value, draws, level, block) for who, (value, draws) in found.items()}
        own, draws = found[NET]
        others = [(who, *found[who]) for who in measure.who if who != NET]
        differences[name] = {who: _interval(own - value, draws - other, level, block) for who, value, other in others}
    levels = sum(name.startswith(f"{NET} below within") for name in names)
    within = {
        f"{who} {side}": tuple(float(_ratio(totals[f"{who} {side} within {k}"], totals[f"{side} n"])) for k in range(levels))
        for who in BOTH
        for side in ("below", "above")
    }
    return GenomeJudgement(len(used), block, scores, differences, within)


def _mean_block(columns: Columns, horizon: int) -> float:
    gain = columns[f"{NET} below pinball"] - columns[f"{USUAL} below pinball"]
    return float(min(max(block_length(gain), 2.0 * horizon), max(1.0, len(gain) / 3.0)))


def _resampled(table: Floats, block: float, seed: int, resamples: int) -> Floats:
    """Sums of every resample, `[resamples, columns]`."""
    moments, rng = len(table), stream(seed, "lifecycle", "genome judging")
    at_once = max(1, CELLS_AT_ONCE // moments)
    parts = []
    for start in range(0, resamples, at_once):
        count = min(at_once, resamples - start)
        drawn = resample_indices(moments, count, block, rng).astype(np.int64) + moments * np.arange(count)[:, None]
        parts.append(np.bincount(drawn.ravel(), minlength=count * moments).reshape(count, moments).astype(np.float64) @ table)
    return np.concatenate(parts)


def _interval(estimate: float, draws: Floats, level: float, block: float) -> Interval:
    known = draws[np.isfinite(draws)]
    if not len(known) or not np.isfinite(estimate):
        return Interval(estimate, np.nan, np.nan, level, block, len(known), np.nan)
    low, high = np.quantile(known, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return Interval(estimate, float(low), float(high), level, block, len(known), float(np.mean(known <= 0.0)))
