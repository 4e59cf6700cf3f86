"""What came of a regime model's training, as its lineage tells it: for the folder, the report and the command line alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptoalpha.core.values import REGIMES, TRENDS, VOLATILITIES
from cryptoalpha.lifecycle.recipes.trained import Trained, number, said


@dataclass(frozen=True)
class RegimeTrained(Trained):
    """A trained regime model. `lineage` is what `model.json` holds; `already`: it lay there before."""

    def tables(self) -> list[tuple[str, list[str], list[list[str]]]]:
        """Title, columns and rows: measures beside their rivals, chances of change said and seen, time in each regime."""
        judged = self.lineage["judgement"]
        rows = []
        for name, scores in judged["scores"].items():
            for who, found in scores.items():
                gap = judged["differences"][name].get(who)
                rows.append([name, who, said(_triple(found), digits=4), said(_triple(gap), digits=4, sign=True) if gap else ""])
        change = [[f"{bars:,}", number(100.0 * a, 2), number(100.0 * b, 2)] for bars, a, b in judged["change"]]
        time = [[name.replace("_", " "), number(100.0 * judged["time"][name], 1)] for name in (*TRENDS, *VOLATILITIES)]
        time += [[" ".join(cell).replace("_", " "), number(100.0 * judged["time"][" ".join(cell)], 1)] for cell in REGIMES]
        moves = [[name, said(_triple(judged["moves"][name]), sign=True)] for name in TRENDS]
        return [
            (f"out of sample, {judged['bars']:,} bars", ["measure, per bar", "who", "score", "regime less it"], rows),
            ("chance that the next bar stands in another regime, %, by fifths", ["bars", "said", "later seen"], change),
            ("belief in each regime, % of time", ["regime", "%"], time),
            ("mean move of the next day by trend, in usual days", ["trend", "move"], moves),
        ]

    def training_lines(self) -> list[str]:
        """How each fold was fitted."""
        lines = []
        for one in self.lineage["training"]:
            fold, parts = one["fold"], []
            for name, axis in one["axes"].items():
                spells = ", ".join(number(bars, 0) for bars in axis["spell_bars"])
                state = "converged" if axis["converged"] else "not converged"
                parts.append(f"{name} temper {axis['temper']:g}, spells {spells} bars, {axis['steps']} steps, {state}")
            judged = f"judged {fold['test_since'][:10]} to {fold['test_until'][:10]}"
            lines.append(f"fold {fold['number']}, learned from {fold['train_since'][:10]}, {judged}: {'; '.join(parts)}")
        return [*lines, f"mean spell of the likeliest regime {self.lineage['judgement']['spell_bars']:.0f} bars"]

    def lines(self) -> list[str]:
        """Everything that is said beside the tables."""
        return [*self.training_lines(), *self.verdict_lines()]


def _triple(found: Mapping[str, Any]) -> list[float | None]:
    return [found["estimate"], found["low"], found["high"]]
