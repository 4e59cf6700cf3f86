"""What came of a genome's training, as its lineage tells it: for the folder, the report and the command line alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptoalpha.lifecycle.recipes.genome_judging import GATES, MEASURES
from cryptoalpha.lifecycle.recipes.genome_tallies import LAST, NET, USUAL
from cryptoalpha.lifecycle.recipes.trained import Trained, number, said
from cryptoalpha.nets.genome.heads import level_probabilities
from cryptoalpha.signals.genome.vocabulary import NAMES

DIGITS = 4


@dataclass(frozen=True)
class GenomeTrained(Trained):
    """A trained genome. `lineage` is what `model.json` holds; `already`: it lay there before."""

    def tables(self) -> list[tuple[str, list[str], list[list[str]]]]:
        """Title, columns and rows: the measures with 95 % intervals beside their baselines, calibration of the levels, base rates."""
        judged = self.lineage["judgement"]
        head = ["measure", NET, USUAL, f"{NET} less {USUAL}", LAST, f"{NET} less {LAST}"]
        title = f"{self.lineage['horizon_bars']} bars ahead, {judged['moments']:,} moments, all instruments"
        probabilities = level_probabilities(len(judged["within"][f"{NET} below"]))
        within = [[name, *(number(share, 3) for share in shares)] for name, shares in judged["within"].items()]
        rates = [[name, *(number(100.0 * one["token_rates"][0][v], 2) for one in self.lineage["training"])] for v, name in enumerate(NAMES)]
        folds = [f"fold {one['fold']['number']}" for one in self.lineage["training"]]
        return [
            (title, head, [_row(judged, name) for name in MEASURES]),
            ("share of excursions within each level", ["levels of", *(f"{p:.1f}" for p in probabilities)], within),
            ("how often each token is on in the training stretch, %", ["token", *folds], rates),
        ]

    def training_lines(self) -> list[str]:
        """How each fold's training went, and whether it converged."""
        lines = []
        for one, judged in zip(self.lineage["training"], self.lineage["by_fold"], strict=True):
            fold, looks = one["fold"], ", ".join(f"{value:.4f}" for value in one["validations"])
            met = sum(bool(yes) for yes in judged["gates"].values())
            lines.append(
                f"fold {fold['number']}, judged {fold['test_since'][:10]} to {fold['test_until'][:10]}: {one['windows']:,} windows in "
                f"{one['steps']:,} steps, {'converged' if one['converged'] else 'not converged'}; validation (tokens weighed .1) {looks}; "
                f"{met} of {len(GATES)} demands met"
            )
        seen, bars = self.lineage["windows"], self.lineage["bars_per_window"]
        flat = "validation loss was flat for two looks in every fold: converged"
        falling = "not converged: in at least one fold validation loss still fell at the last two looks"
        return [*lines, f"{seen:,} windows of {bars} bars seen in all", flat if self.lineage["converged"] else falling]


def _row(judged: Mapping[str, Any], name: str) -> list[str]:
    scores, differences = judged["scores"][name], judged["differences"][name]
    cells = [MEASURES[name].title, said(_triple(scores[NET]), digits=DIGITS)]
    for who in (USUAL, LAST):
        there = who in scores
        cells += [number(scores[who]["estimate"], DIGITS), said(_triple(differences[who]), digits=DIGITS, sign=True)] if there else ["", ""]
    return cells


def _triple(found: Mapping[str, float | None]) -> list[float | None]:
    return [found["estimate"], found["low"], found["high"]]
