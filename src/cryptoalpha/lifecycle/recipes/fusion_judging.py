"""A trained fusion beside the same search without a network, and beside the baselines that nobody trains.

Measures, each with a block-bootstrap interval over whole moments (blocks of at least four horizons, `resampling`): the correlation of
expected and actual moves, all instruments pooled (IC); the log score of the expected moves less that of expecting nothing; and what the
searched weights earned per step after costs and risk, which only the two searches have. Differences are paired.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cryptoalpha.core.errors import DataError
from cryptoalpha.core.seeds import stream
from cryptoalpha.lifecycle.recipes.resampling import RESAMPLES, Columns, Sums, mean_block, ratio, resampled
from cryptoalpha.monitoring.bootstrap import LEVEL, Interval, interval_of
from cryptoalpha.store.tables import Floats

TRAINED, UNTRAINED = "trained", "search"
"""The search with its network, and without."""

BASELINES = ("ridge", "hedge", "equal")
WHO = (TRAINED, UNTRAINED, *BASELINES)

MEASURES = {"ic": "IC", "score": "log score, less expecting nothing", "reward": "earned per step after costs and risk"}

TOO_GOOD_IC = 0.15
"""Correlation over a day from which a leak is likelier than skill."""


def _ic(sums: Sums, who: str) -> Floats:
    n = sums["cells"]
    p, y = ratio(sums[f"{who} p"], n), ratio(sums["y"], n)
    covariance = ratio(sums[f"{who} py"], n) - p * y
    variances = (ratio(sums[f"{who} pp"], n) - p**2) * (ratio(sums["yy"], n) - y**2)
    return ratio(covariance, np.sqrt(np.maximum(variances, 0.0)))


def _measure(name: str, sums: Sums, who: str) -> Floats:
    return _ic(sums, who) if name == "ic" else ratio(sums[f"{who} {name}"], sums["n"])


def beside(trained: Columns, untrained: Columns) -> Columns:
    """One table of both walks over the same moments: the second one's search is the untrained one, its baselines are everybody's.

    Raises:
        DataError: if the walks judged other moments.
    """
    if not np.array_equal(trained["decided_at"], untrained["decided_at"]):
        raise DataError("the two walks did not judge the same moments", hint="walk the same steps with and without the network")
    found = {name: column for name, column in untrained.items() if name != "reward"}
    found[f"{UNTRAINED} reward"], found[f"{TRAINED} reward"] = untrained["reward"], trained["reward"]
    found |= {f"{TRAINED} {part}": trained[f"search {part}"] for part in ("score", "p", "pp", "py")}
    return found


@dataclass(frozen=True)
class FusionJudgement:
    """`scores[measure][who]`, and `differences[measure][baseline]`: the trained search less the other, resampled at the same moments."""

    moments: int
    mean_block: float
    scores: Mapping[str, Mapping[str, Interval]]
    differences: Mapping[str, Mapping[str, Interval]]

    def verdict(self) -> dict[str, Any]:
        """What may be concluded, as the lineage keeps it."""
        own = self.scores["ic"][TRAINED]
        reasons = []
        if not own.low > 0.0:
            leaning = "is shown to be below zero" if own.high < 0.0 else "is not shown to be above zero"
            reasons.append(f"its IC {leaning} ({_said(own)})")
        for who in (UNTRAINED, *BASELINES):
            gap = self.differences["score"][who]
            if not gap.low > 0.0:
                leaning = "loses to" if gap.high < 0.0 else "does not beat"
                reasons.append(f"it {leaning} {'the search without a network' if who == UNTRAINED else who} in log score ({_said(gap)})")
        words = f"trained fusion: IC {_said(own)} over {self.moments:,} moments. "
        words += f"What is missing: {'; '.join(reasons)}." if reasons else "Every demand is met."
        words += " Whatever it says here, in a run it acts only while it beats the best baseline there."
        suspicious = own.estimate > TOO_GOOD_IC and own.low > 0.0
        advice = f"an IC above {TOO_GOOD_IC}: look for a leak (cryptoalpha audit) before believing it" if suspicious else ""
        return {"promoted": not reasons, "reasons": reasons, "words": words, "audit_first": advice}

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""

        def plain(found: Mapping[str, Mapping[str, Interval]]) -> dict[str, Any]:
            return {name: {who: asdict(interval) for who, interval in row.items()} for name, row in found.items()}

        return {
            "moments": self.moments,
            "mean_block": self.mean_block,
            "scores": plain(self.scores),
            "differences": plain(self.differences),
        }


def judge_fusion(columns: Columns, *, horizon: int, seed: int = 0, resamples: int = RESAMPLES, level: float = LEVEL) -> FusionJudgement:
    """Judge the columns of `beside`, of one fold or of several, one after the other.

    Raises:
        DataError: for fewer than two moments.
    """
    moments = len(columns["n"])
    if moments < 2:
        raise DataError(f"{moments} moments cannot be judged", hint="bring more history, or longer stretches")
    names = [name for name in columns if name != "decided_at"]
    table = np.stack([columns[name] for name in names], axis=1)
    block = mean_block(columns[f"{TRAINED} score"] - columns["ridge score"], horizon, moments)
    totals = dict(zip(names, table.sum(0), strict=True))
    drawn = dict(zip(names, resampled(table, block, resamples, stream(seed, "lifecycle", "fusion judging")).T, strict=True))
    scores: dict[str, dict[str, Interval]] = {}
    differences: dict[str, dict[str, Interval]] = {}
    for name in MEASURES:
        asked = (TRAINED, UNTRAINED) if name == "reward" else WHO
        found = {who: (float(_measure(name, totals, who)), _measure(name, drawn, who)) for who in asked}
        scores[name] = {who: interval_of(value, draws, level, block) for who, (value, draws) in found.items()}
        own, draws = found[TRAINED]
        differences[name] = {who: interval_of(own - found[who][0], draws - found[who][1], level, block) for who in asked if who != TRAINED}
    return FusionJudgement(moments, block, scores, differences)


def _said(found: Interval) -> str:
    if np.isnan(found.estimate):
        return "undefined: it expected nothing, or always the same"
    return f"{found.estimate:+.4f}, {found.low:+.4f} to {found.high:+.4f}"
