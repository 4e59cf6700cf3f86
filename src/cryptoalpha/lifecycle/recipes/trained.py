"""What came of a training, as its lineage tells it: for the folder, the report and the command line alike."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cryptoalpha.lifecycle.recipes.forecaster_sentiment import lines as sentiment_lines
from cryptoalpha.lifecycle.recipes.tallies import COVERAGES, MEASURES

SHOWN = ("rank_ic", "ic", "accuracy", "three_way", "qlike", "volatility_mae", "ece", "pinball")
"""Measures of the main table."""


@dataclass(frozen=True)
class Trained:
    """A trained model. `lineage` is what `model.json` holds; `already`: it lay there before."""

    path: Path
    lineage: Mapping[str, Any]
    already: bool = False

    def tables(self) -> list[tuple[str, list[str], list[list[str]]]]:
        """Title, columns and rows: per horizon the measures with their 95 % intervals, then the surest calls, then differences."""
        found = []
        for horizon in self.lineage["horizons"]:
            bars = horizon["horizon_bars"]
            columns = [name for name in SHOWN if any(name in scores for scores in horizon["scores"].values())]
            rows = [[name, *(said(scores.get(key)) for key in columns)] for name, scores in horizon["scores"].items()]
            rows += [[name, *(["not installed"] + [""] * (len(columns) - 1))] for name in self.lineage["not_installed"]]
            found.append((f"{bars} bars ahead, {horizon['moments']:,} moments", ["model", *(MEASURES[key].title for key in columns)], rows))
        last = self.lineage["horizons"][-1]
        keys = [f"selective_{share:.0%}" for share in COVERAGES]
        surest = [[name, *(said(scores.get(key)) for key in keys)] for name, scores in last["scores"].items() if keys[0] in scores]
        found.append(
            (f"class right among the surest calls, {last['horizon_bars']} bars ahead", ["model", *(f"{s:.0%}" for s in COVERAGES)], surest)
        )
        compared = [
            [name, *(said(gaps.get(key), sign=True) for key in ("rank_ic", "accuracy", "qlike", "pinball"))]
            for name, gaps in last["differences"].items()
        ]
        titles = [MEASURES[key].title for key in ("rank_ic", "accuracy", "qlike", "pinball")]
        found.append((f"{self.lineage['model']} less baseline, paired, {last['horizon_bars']} bars ahead", ["baseline", *titles], compared))
        tests = [[test["against"], test["loss"], number(test["statistic"], 2), number(test["p_value"], 3)] for test in last["tests"]]
        found.append(("Diebold–Mariano (HAC), above 0 speaks for the model", ["against", "loss", "statistic", "p"], tests))
        sharpe = [[name, said(value, digits=2)] for name, value in self.lineage["net_sharpe"].items()]
        found.append(("net Sharpe ratio of the plain position rule after costs", ["model", "per year"], sharpe))
        return found

    def training_lines(self) -> list[str]:
        """How each fold's training went, and whether it converged."""
        lines = []
        for one in self.lineage["training"]:
            fold, looks = one["fold"], ", ".join(f"{value:.4f}" for value in one["validations"])
            state = "converged" if one["converged"] else "not converged"
            evolution = one["evolution"]
            lines.append(
                f"fold {fold['number']}, judged {fold['test_since'][:10]} to {fold['test_until'][:10]}: {one['windows']:,} windows in "
                f"{one['steps']:,} steps, {state}; validation {looks}; rank IC {said(one['rank_ic'])}; "
                f"{evolution['kept']} of {evolution['generations']} generations kept"
            )
        seen, bars = self.lineage["windows"], self.lineage["bars_per_window"]
        lines.append(f"{seen:,} windows of {bars} bars seen in all")
        flat = "validation loss was flat for two looks in every fold: converged"
        lines.append(
            flat if self.lineage["converged"] else "not converged: in at least one fold validation loss still fell at the last two looks"
        )
        return [*lines, *sentiment_lines(self.lineage.get("sentiment"))]

    def verdict_lines(self) -> list[str]:
        """The verdict, and what to audit first."""
        found = self.lineage["verdict"]
        return [found["words"], *([found["audit_first"]] if found["audit_first"] else [])]


def said(found: Sequence[float | None] | None, *, digits: int = 3, sign: bool = False) -> str:
    """`estimate (low to high)`, or a dash."""
    if found is None or found[0] is None or not math.isfinite(found[0]):
        return "–"
    plus = "+" if sign else ""
    low, high = (number(value, digits, plus) for value in found[1:3])
    return f"{number(found[0], digits, plus)} ({low} to {high})"


def number(value: float | None, digits: int, plus: str = "") -> str:
    """A number, or a dash."""
    return "–" if value is None or not math.isfinite(value) else f"{value:{plus}.{digits}f}"


def as_json(value: Any) -> Any:
    """`value` in JSON's own types; numbers that are not finite become null."""
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    if isinstance(value, np.generic):
        return as_json(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
