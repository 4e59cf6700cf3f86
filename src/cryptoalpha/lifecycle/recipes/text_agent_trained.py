"""What came of a text agent's training, as its lineage tells it: for the folder, the report and the command line alike."""

from __future__ import annotations

from dataclasses import dataclass

from cryptoalpha.lifecycle.recipes.trained import Trained, said


@dataclass(frozen=True)
class TextAgentTrained(Trained):
    """A trained text agent. `lineage` is what `model.json` holds; `already`: it lay there before."""

    def tables(self) -> list[tuple[str, list[str], list[list[str]]]]:
        """Title, columns and rows: rewards and errors beside the source's own."""
        judged = self.lineage["judgement"]
        rows = [[title, said((one["estimate"], one["low"], one["high"]), digits=4, sign=True)] for title, one in judged["measures"].items()]
        return [
            (f"out of sample, {judged['opinions']:,} opinions of {judged['bars']:,} bars", ["in volatilities an opinion", "mean"], rows)
        ]

    def training_lines(self) -> list[str]:
        """How each fold's learning went."""
        lines = []
        for one in self.lineage["training"]:
            fold, looks = one["fold"], ", ".join(f"{value:+.4f}" for value in one["validation_rewards"])
            lines.append(
                f"fold {fold['number']}, judged {fold['test_since'][:10]} to {fold['test_until'][:10]}: "
                f"{one['states']['train']:,} outcomes, {one['updates']:,} updates kept, {one['rollbacks']:,} undone; "
                f"validation reward before and after each pass {looks}"
            )
        return lines

    def lines(self) -> list[str]:
        """The verdict, then how training went."""
        return [*self.verdict_lines(), *self.training_lines()]
