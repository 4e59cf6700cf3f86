"""What came of a fusion's training, as its lineage tells it: for the folder, the report and the command line alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptoalpha.decisions.fusion.guided import EVOLVED
from cryptoalpha.lifecycle.recipes.fusion_judging import MEASURES, TRAINED, WHO
from cryptoalpha.lifecycle.recipes.trained import Trained, number, said

DIGITS = 4


@dataclass(frozen=True)
class FusionTrained(Trained):
    """A trained fusion. `lineage` is what `model.json` holds; `already`: it lay there before."""

    def tables(self) -> list[tuple[str, list[str], list[list[str]]]]:
        """Title, columns and rows: test and validation with 95 % intervals beside the baselines, differences, what evolution chose."""
        judged, training = self.lineage["judgement"], self.lineage["training"]
        found = [_scores("test stretches", judged), _differences(judged)]
        found += [_scores(f"validation of fold {one['fold']['number']}", one["validation"]) for one in training]
        rows = [[name, *(number(one["search"][name], DIGITS) for one in training)] for name in EVOLVED]
        found.append(("settings of the search, evolved", ["setting", *(f"fold {one['fold']['number']}" for one in training)], rows))
        return found

    def training_lines(self) -> list[str]:
        """How each fold's training went."""
        lines = []
        for one in self.lineage["training"]:
            fold, evolution = one["fold"], one["evolution"]
            looks = ", ".join(number(value, 3) for value in one["validations"])
            judged = f"fold {fold['number']}, judged {fold['test_since'][:10]} to {fold['test_until'][:10]}"
            learned = f"{one['taught']:,} decisions in {one['passes']} passes, best after {one['best']}, {one['rollbacks']} steps undone"
            evolved = f"{evolution['kept']} of {evolution['generations']} generations kept"
            use = "used" if one["kept"] else "not used: on validation it did not earn more than the search without a network"
            lines.append(f"{judged}: {learned}; loss on decisions that taught nothing {looks}; {evolved}; {use}")
        bars = self.lineage["stride_bars"]
        lines.append(f"walked in steps of {bars} bars, all that is counted in bars scaled with them" if bars > 1 else "walked bar by bar")
        return lines

    def lines(self) -> list[str]:
        """How training went, and the verdict."""
        return [*self.training_lines(), *self.verdict_lines()]


def _scores(title: str, judged: Mapping[str, Any]) -> tuple[str, list[str], list[list[str]]]:
    rows = [[who, *(said(_triple(judged["scores"][name].get(who)), digits=DIGITS) for name in MEASURES)] for who in WHO]
    return f"{title}, {judged['moments']:,} moments", ["fusion", *MEASURES.values()], rows


def _differences(judged: Mapping[str, Any]) -> tuple[str, list[str], list[list[str]]]:
    others = [who for who in WHO if who != TRAINED]
    rows = [[who, *(said(_triple(judged["differences"][name].get(who)), digits=DIGITS, sign=True) for name in MEASURES)] for who in others]
    return "trained fusion less the other, paired", ["less", *MEASURES.values()], rows


def _triple(found: Mapping[str, float | None] | None) -> list[float | None] | None:
    return None if found is None else [found["estimate"], found["low"], found["high"]]
