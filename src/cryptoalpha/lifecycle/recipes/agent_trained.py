"""What came of the agents' training, as its lineage tells it: for the folder, the report and the command line alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cryptoalpha.lifecycle.recipes.trained import Trained, said


@dataclass(frozen=True)
class AgentTrained(Trained):
    """Trained agents. `lineage` is what `model.json` holds; `already`: they lay there before."""

    def tables(self) -> list[tuple[str, list[str], list[list[str]]]]:
        """Title, columns and rows: growth and Sharpe ratio a year beside plainer policies, then paired differences."""
        judged = self.lineage["judgement"]
        turnover = self.lineage["trades_a_year"]
        scores = [
            [name, _percent(one["growth"]), said(one["sharpe"], digits=2), f"{turnover[name]:.1f}"]
            for name, one in judged["scores"].items()
        ]
        differences = [
            [name, other, _percent(one["growth"]), said(one["sharpe"], digits=2, sign=True)]
            for name, others in judged["against"].items()
            for other, one in others.items()
        ]
        return [
            (f"{judged['days']:,} unseen days, net of costs", ["policy", "growth a year", "Sharpe", "equity traded a year"], scores),
            ("paired differences", ["agent", "less", "growth a year", "Sharpe"], differences),
        ]

    def training_lines(self) -> list[str]:
        """What was fitted in each fold, and which value functions passed the gate."""
        lines = []
        for one in self.lineage["training"]:
            fold, how = one["fold"], one["dynamics"]
            gates = []
            for name, learned in one["learned"].items():
                passed = sum(bool(gate["passed"]) for gate in learned["gates"])
                gates.append(f"{name} {passed} of {len(learned['gates'])}")
            alpha, beta = how["garch"]
            lines.append(
                f"fold {fold['number']}, judged {fold['test_since'][:10]} to {fold['test_until'][:10]}: opinions keep "
                f"{how['persistence']:.3f} of themselves a bar, answer to a return with {how['response']:+.4f}; GARCH {alpha:.3f} and "
                f"{beta:.3f} ({how['garch_from']}); challengers that passed the gate: {', '.join(gates)}"
            )
        return lines

    def lines(self) -> list[str]:
        """The verdict, then how training went."""
        return [*self.verdict_lines(), *self.training_lines()]


def _percent(found: Sequence[float | None]) -> str:
    if any(value is None for value in found):
        return "–"
    estimate, low, high = (float(value or 0.0) for value in found)
    return f"{estimate:+.1%} ({low:+.1%} to {high:+.1%})"
