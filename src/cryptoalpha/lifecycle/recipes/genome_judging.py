"""A genome beside its baselines: every measure with a block-bootstrap interval, and the paired difference to each baseline.

Definitions. All assets count alike and are resampled together, moment by moment; outcomes of neighbouring moments overlap, so a block is at
least four horizons long on average (`resampling.HORIZONS_A_BLOCK`).

- levels: pinball loss in ATR, mean over levels and sides, beside the quantiles of the training stretch ("usual").
- hold: Brier score of "no close beyond this level within the horizon", on the net's own levels, beside climatology: how often its level of
  the same rank held on the validation bars, to which the net's own chances are calibrated, too.
- trend, movement: share of the likeliest class right, logarithmic loss, calibration error, beside the shares of the training stretch.
- tokens: of single bars hidden from the net (in every time frame), the bar before it seen, which is easier than the runs of one to four
  bars that are hidden while it learns; for the bar's own frame: accuracy of on/off, balanced accuracy (mean over tokens of hit rates
  for on and off, calling "on" what is likelier than usual), logarithmic loss; beside unigram rates ("usual") and rates given the token of
  the bar before ("last bar", the harder one).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cryptoalpha.core.errors import DataError
from cryptoalpha.core.seeds import stream
from cryptoalpha.lifecycle.recipes.genome_tallies import LAST, NET, USUAL
from cryptoalpha.lifecycle.recipes.resampling import (
    RESAMPLES,
    Columns,
    Measure,
    Sums,
    calibration_error,
    mean,
    mean_block,
    ratio,
    resampled,
    unbiased,
)
from cryptoalpha.lifecycle.recipes.verdict import TOO_GOOD_ACCURACY
from cryptoalpha.monitoring.bootstrap import LEVEL, Interval, interval_of
from cryptoalpha.store.tables import Floats


def _spoken(sums: Sums, who: str) -> Sums:
    """The sums under the names that a measure knows: those of one speaker, and those common to all."""
    return {**sums, **{name.removeprefix(f"{who} "): part for name, part in sums.items() if name.startswith(f"{who} ")}}


def _pinball(sums: Sums) -> Floats:
    sides = [ratio(sums[f"{side} pinball"], sums[f"{side} n"]) for side in ("below", "above")]
    return np.asarray((sides[0] + sides[1]) / 2.0, np.float64)


def _balanced(sums: Sums) -> Floats:
    """Mean over the tokens that were both on and off; in a resample that lost one of the two, over the rest."""
    tokens = sum(name.startswith("on n ") for name in sums)
    rates = [(ratio(sums[f"on {v}"], sums[f"on n {v}"]) + ratio(sums[f"off {v}"], sums[f"off n {v}"])) / 2.0 for v in range(tokens)]
    known = np.isfinite(rates)
    return ratio(np.where(known, rates, 0.0).sum(0), known.sum(0).astype(np.float64))


BOTH, ALL = (NET, USUAL), (NET, USUAL, LAST)
"""Who can be asked: for tokens all, else the first two."""

MEASURES: dict[str, Measure] = {
    "level_pinball": Measure("levels: pinball, ATR", -1, _pinball),
    "hold_brier": Measure("hold: Brier", -1, mean("hold brier", "hold n")),
    "hold_ece": Measure("hold: ECE", -1, calibration_error("hold")),
    "trend_accuracy": Measure("trend: class right", 1, mean("trend right", "trend n")),
    "trend_log_loss": Measure("trend: log loss", -1, mean("trend log", "trend n")),
    "trend_ece": Measure("trend: ECE", -1, calibration_error("trend")),
    "movement_accuracy": Measure("next bar: class right", 1, mean("movement right", "movement n")),
    "movement_log_loss": Measure("next bar: log loss", -1, mean("movement log", "movement n")),
    "movement_ece": Measure("next bar: ECE", -1, calibration_error("movement")),
    "token_accuracy": Measure("tokens, single bars hidden: right", 1, mean("token right", "token n")),
    "token_balanced": Measure("tokens, single bars hidden: balanced", 1, _balanced),
    "token_log_loss": Measure("tokens, single bars hidden: log loss", -1, mean("token log", "token n")),
    "long_token_log_loss": Measure("longer frames' tokens, single bars hidden: log loss", -1, mean("long token log", "long token n")),
}
"""By name, in the order of the table."""

GATES = (
    ("token_accuracy", USUAL, "tokens of single hidden bars are called better than by their base rates"),
    ("token_log_loss", USUAL, "tokens of single hidden bars surprise it less than their base rates would"),
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

    def loses(self, measure: str, baseline: str) -> bool:
        """Worse than the baseline, with the whole interval of the difference."""
        found, better = self.differences[measure][baseline], MEASURES[measure].better
        return bool(found.high < 0.0) if better > 0 else bool(found.low > 0.0)

    @property
    def gates(self) -> dict[str, bool]:
        """Each demand, and whether it is met."""
        return {words: self.beats(measure, baseline) for measure, baseline, words in GATES}

    def verdict(self) -> dict[str, Any]:
        """What may be concluded, as the lineage keeps it."""
        met, missed = ([words for words, yes in self.gates.items() if yes is wanted] for wanted in (True, False))
        shown = f"Shown at {LEVEL:.0%}: {'; '.join(met)}. " if met else ""
        words = f"{NET}: {shown}" + (f"Not shown: {'; '.join(missed)}." if missed else "Every demand is met.")
        if worse := [MEASURES[measure].title for measure, baseline, _ in GATES if self.loses(measure, baseline)]:
            words += f" Worse than what is usual, with the whole interval: {'; '.join(worse)}."
        suspects = [name for name in ("trend_accuracy", "movement_accuracy") if self.scores[name][NET].estimate > TOO_GOOD_ACCURACY]
        names = " and ".join(MEASURES[name].title for name in suspects)
        advice = f"{names} above {TOO_GOOD_ACCURACY:.0%}: look for a leak (cryptoalpha audit) before believing it" if suspects else ""
        return {"promoted": not missed, "reasons": [f"not shown: {one}" for one in missed], "words": words, "audit_first": advice}

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
    gain = table[:, names.index(f"{NET} below pinball")] - table[:, names.index(f"{USUAL} below pinball")]
    block = mean_block(gain, horizon, len(used))
    totals = dict(zip(names, table.sum(0), strict=True))
    drawn = dict(zip(names, resampled(table, block, resamples, stream(seed, "lifecycle", "genome judging")).T, strict=True))
    heard = {who: (_spoken(totals, who), _spoken(drawn, who)) for who in ALL}
    scores: dict[str, dict[str, Interval]] = {}
    differences: dict[str, dict[str, Interval]] = {}
    for name, measure in MEASURES.items():
        asked = ALL if "token" in name else BOTH
        found = {who: (float(measure.of(heard[who][0])), measure.of(heard[who][1])) for who in asked}
        scores[name] = {who: interval_of(value, unbiased(name, value, draws), level, block) for who, (value, draws) in found.items()}
        own, draws = found[NET]
        differences[name] = {who: interval_of(own - found[who][0], draws - found[who][1], level, block) for who in asked if who != NET}
    levels = sum(name.startswith(f"{NET} below within") for name in names)
    within = {
        f"{who} {side}": tuple(float(ratio(totals[f"{who} {side} within {k}"], totals[f"{side} n"])) for k in range(levels))
        for who in BOTH
        for side in ("below", "above")
    }
    return GenomeJudgement(len(used), block, scores, differences, within)
