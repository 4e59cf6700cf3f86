"""Whether learning weighs texts better than leaving them as they are: rewards and errors on bars that taught nothing, paired.

Beside the networks stands the source itself: its own proposed action, its own confidence, its own expected move. A reward is
position × move − cost × |position| in units of volatility over the horizon, per opinion. Better means that the whole 95 % interval of the
paired difference lies above zero, bars resampled in blocks no shorter than four horizons.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cryptoalpha.core.errors import DataError
from cryptoalpha.core.seeds import stream
from cryptoalpha.lifecycle.recipes.resampling import RESAMPLES, Columns, Floats, Sums, mean_block, ratio, resampled
from cryptoalpha.monitoring.bootstrap import Interval, interval_of

LEVEL = 0.95


def _measures(sums: Sums) -> dict[str, Floats]:
    """Every number of the table from the sums."""
    n = sums["n"]
    learned, own = ratio(sums["learned reward"], n), ratio(sums["own reward"], n)
    return {
        "reward of the policy's action": learned,
        "reward of the source's own action": own,
        "policy less own action": learned - own,
        "own action weighed by the value, less unweighed": ratio(sums["scaled own reward"], sums["scale"]) - own,
        "squared error of the own expected move, less the learned one's": ratio(sums["own error"] - sums["learned error"], n),
        "squared error of expecting nothing, less the learned one's": ratio(sums["no error"] - sums["learned error"], n),
    }


@dataclass(frozen=True)
class TextJudgement:
    """What was found. `measures`: title → interval."""

    bars: int
    opinions: int
    mean_block: float
    acted: float
    """Mean size of the policy's position, 0 to 1."""
    measures: dict[str, Interval]

    def verdict(self) -> dict[str, Any]:
        """What may be concluded, as the lineage keeps it."""
        gain, reward = self.measures["policy less own action"], self.measures["reward of the policy's action"]
        reasons = []
        if not gain.low > 0.0:
            reasons.append(f"its actions are not shown to earn more than the source's own ({gain.estimate:+.4f}, {_bounds(gain)})")
        if not reward.low > 0.0:
            reasons.append(f"its actions are not shown to earn anything after costs ({reward.estimate:+.4f}, {_bounds(reward)})")
        said = "worse than no learning" if gain.high < 0.0 else "; ".join(reasons)
        words = f"text agent, {self.opinions:,} opinions: " + (
            f"earns {gain.estimate:+.4f} ({_bounds(gain)}) volatilities an opinion more than the source's own action"
            if not reasons
            else said
        )
        return {"promoted": not reasons, "reasons": reasons, "words": f"{words}.", "audit_first": ""}

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def judge_text_agent(columns: Columns, *, horizon_bars: int, seed: int = 0, resamples: int = RESAMPLES) -> TextJudgement:
    """Judge the columns of all folds, one after the other (`[T]` each).

    Raises:
        DataError: if fewer than two bars had an opinion.
    """
    used = np.flatnonzero(columns["n"] > 0)
    if len(used) < 2:
        raise DataError(f"{len(used)} bars with texts cannot be judged", hint="bring more texts, or judge another period")
    names = list(columns)
    table = np.stack([columns[name][used] for name in names], axis=1)
    gain = columns["learned reward"][used] - columns["own reward"][used]
    block = mean_block(gain, horizon_bars, len(used))
    totals = dict(zip(names, table.sum(axis=0), strict=True))
    draws = resampled(table, block, resamples, stream(seed, "lifecycle", "text agent judging"))
    drawn = _measures(dict(zip(names, draws.T, strict=True)))
    measures = {title: interval_of(float(value), drawn[title], LEVEL, block) for title, value in _measures(totals).items()}
    return TextJudgement(len(used), int(totals["n"]), block, float(totals["acted"] / totals["n"]), measures)


def _bounds(found: Interval) -> str:
    return f"{found.low:+.4f} to {found.high:+.4f}"
