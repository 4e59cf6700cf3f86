"""What came of a search: its trials, the winner, and what is left of its Sharpe ratio after counting everything that was tried.

The winner is the best by what was searched for. Its Sharpe ratio is that of the plain position rule on the days that judged it, on which it
was also picked: so it is deflated by all looks at those days that the ledger knows. On the days that no trial saw it is judged once, beside
the settings the search began with; nothing was picked there, and they are the better witness, but a short one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite, sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from cryptoalpha.core.time import DAYS_PER_YEAR, iso
from cryptoalpha.lifecycle.tune.ledger import Deflated
from cryptoalpha.lifecycle.tune.trial import ABANDONED, ERROR, FIGURES, SECONDS, Bench, by_day
from cryptoalpha.monitoring.overfitting import probability_of_backtest_overfitting
from cryptoalpha.monitoring.ratios import NAN
from cryptoalpha.monitoring.significance import sharpe_moments

if TYPE_CHECKING:
    from cryptoalpha.lifecycle.tune.journal import Place
    from cryptoalpha.lifecycle.tune.space import Params

M = TypeVar("M")

HOLDOUT = "holdout"
WORDS = {"COMPLETE": "judged", "PRUNED": "given up", "FAIL": "killed", "RUNNING": "running", "WAITING": "queued"}
BLOCKS = 8
"""Blocks of the probability of overfitting: 70 choices; twelve weeks leave ten days in each."""


@dataclass(frozen=True)
class TrialRow:
    """One trial. `value` is the mean over the folds that judged it; None where none did."""

    number: int
    state: str
    value: float | None
    folds: int
    params: Mapping[str, float | int]
    figures: Mapping[str, float]
    seconds: float
    error: str = ""


@dataclass(frozen=True)
class HoldoutResult:
    """The winner on the days that no trial saw, and the settings the search began with on the same days; None where they were not in the
    space, or where training went wrong."""

    winner: Mapping[str, float] | None
    begin: Mapping[str, float] | None
    since: int
    until: int
    winners: int = 1
    """How many winners of this study were judged here: a study that goes on may find another, for which these days are unseen no longer."""


@dataclass(frozen=True, eq=False)
class StudyResult:
    """A search that has ended, or whose time was up."""

    name: str
    journal: Path
    direction: str
    trials: tuple[TrialRow, ...]
    best: TrialRow | None
    """None where no trial was judged by all folds."""
    deflated: Deflated | None
    overfitting: float
    """Probability that picking the best of the judged trials by their Sharpe ratio was worth nothing; NaN for fewer than two."""
    holdout: HoldoutResult | None
    since: int
    until: int
    identity: Mapping[str, Any]

    @property
    def params(self) -> dict[str, float | int]:
        """The winner's."""
        return {} if self.best is None else dict(self.best.params)

    def as_dict(self) -> dict[str, Any]:
        """JSON values, but for numbers that are not finite."""
        counts = {word: sum(row.state == word for row in self.trials) for word in dict.fromkeys(WORDS.values())}
        return {
            "study": self.name,
            "journal": str(self.journal),
            "direction": self.direction,
            "judged": {"since": iso(self.since), "until": iso(self.until)},
            "counts": counts,
            "best": None if self.best is None else asdict(self.best),
            "deflated": None if self.deflated is None else {**asdict(self.deflated), "annual_sharpe": _annual(self.deflated.sharpe)},
            "probability_of_overfitting": self.overfitting,
            "holdout": None if self.holdout is None else asdict(self.holdout),
            "trials": [asdict(row) for row in self.trials],
            "seconds": sum(row.seconds for row in self.trials),
        }

    def table(self, most: int = 10) -> tuple[str, list[str], list[list[str]]]:
        """Title, columns and rows: the best trials, best first."""
        judged = sorted((row for row in self.trials if row.state == "judged"), key=lambda row: self._worse(row.value))
        names = list(dict.fromkeys(name for row in judged for name in row.params))
        extra = list(dict.fromkeys(name for row in judged for name in row.figures))
        rows = [
            [str(row.number), f"{row.value:.4f}", *(f"{row.params.get(name, NAN):.4g}" for name in names),
             *(f"{row.figures.get(name, NAN):.4f}" for name in extra), f"{row.seconds:.0f}"]
            for row in judged[:most]
        ]  # fmt: skip
        title = f"best of {len(judged)} judged trials"
        return title, ["trial", "value", *names, *(name.replace("_", " ") for name in extra), "seconds"], rows

    def lines(self) -> list[str]:
        """What came of it, in words, the bad news included."""
        judged, given_up, failed = (
            sum(row.state in states for row in self.trials) for states in (("judged",), ("given up",), ("failed", "killed"))
        )
        count = f"{judged} trials judged by all folds, {given_up} given up early, {failed} failed"
        if self.best is None or self.deflated is None:
            return [f"{count}: there is no winner"]
        found = self.deflated
        lines = [
            f"{count}; best: trial {self.best.number}, " + ", ".join(f"{name} {value:.4g}" for name, value in self.best.params.items()),
            f"its Sharpe ratio of {_annual(found.sharpe):+.2f} a year over {found.days} judged days, picked among {found.trials} looks at "
            f"them: the best of so many worthless ones would reach {_annual(found.benchmark):+.2f}; deflated Sharpe ratio "
            + (f"{found.probability:.3f}, {'enough' if found.probability >= 0.95 else 'not enough'} (0.95 is asked for)"
               if isfinite(found.probability) else "undefined, its returns do not vary"),
        ]  # fmt: skip
        if isfinite(self.overfitting):
            lines.append(f"picking the best of these trials by Sharpe ratio was worth nothing with probability {self.overfitting:.2f}")
        if self.holdout is not None:
            days = f"{iso(self.holdout.since)[:10]} to {iso(self.holdout.until)[:10]}"
            again = f"; winner number {self.holdout.winners} of this study to be judged on them" if self.holdout.winners > 1 else ""
            lines.append(f"on the days no trial saw ({days}{again}): {self._unseen()}")
        return lines

    def _unseen(self) -> str:
        assert self.holdout is not None
        parts = []
        for name, found in (("winner", self.holdout.winner), ("settings as they were", self.holdout.begin)):
            said = "not judged" if found is None else ", ".join(f"{key.replace('_', ' ')} {value:.4f}" for key, value in found.items())
            parts.append(f"{name} {said}")
        return "; ".join(parts)

    def _worse(self, value: float | None) -> float:
        assert value is not None
        return value if self.direction == "minimize" else -value


def result_of(bench: Bench[M], place: Place) -> StudyResult:
    """Read the study, deflate its winner, and judge it on the days that no trial saw: each winner once, and they are counted."""
    search, study = bench.search, bench.study
    rows = rows_of(study)
    judged = [row for row in rows if row.state == "judged" and row.value is not None]
    sign = 1.0 if search.direction == "minimize" else -1.0
    best = min(judged, key=lambda row: (sign * float(row.value or 0.0), row.number), default=None)
    looks = bench.ledger.looks(search.data, search.since, search.until)
    by_config = {each.config: each.returns for each in looks.returns}
    deflated, overfitting, holdout = None, NAN, None
    if best is not None:
        own = by_config.get(search.look(best.params).config)
        deflated = looks.deflated(np.zeros(0) if own is None else own) if own is not None and len(own) > 1 else None
        overfitting = _overfitting([by_config.get(search.look(row.params).config) for row in judged])
        holdout = _judged_once(bench, dict(best.params), best.number)
    return StudyResult(
        search.name,
        place.journal,
        search.direction,
        rows,
        best,
        deflated,
        overfitting,
        holdout,
        search.since,
        search.until,
        search.identity,
    )


def rows_of(study: Any) -> tuple[TrialRow, ...]:
    """Every trial as a row; beginnings that a killed process left are told apart."""
    abandoned, rows = study.user_attrs.get(ABANDONED, ()), []
    for each in study.get_trials(deepcopy=False):
        error = str(each.user_attrs.get(ERROR, ""))
        state = "begun again" if each.number in abandoned else "failed" if error else WORDS[each.state.name]
        rows.append(
            TrialRow(
                each.number,
                state,
                None if error or each.value is None else float(each.value),
                len(each.intermediate_values),
                dict(each.params),
                dict(each.user_attrs.get(FIGURES, {})),
                float(each.user_attrs.get(SECONDS, 0.0)),
                error,
            )
        )
    return tuple(rows)


def _overfitting(columns: Sequence[Any]) -> float:
    known = [column for column in columns if column is not None]
    if len(known) < 2 or len({len(column) for column in known}) > 1 or len(known[0]) < 2 * BLOCKS:
        return NAN
    return probability_of_backtest_overfitting(np.stack(known, axis=1), blocks=BLOCKS).probability


def _judged_once(bench: Bench[M], params: Params, number: int) -> HoldoutResult | None:
    """The winner and the settings in use on the last stretch; a second call reads what the first found."""
    search = bench.search
    if search.holdout is None:
        return None
    kept = bench.study.user_attrs.get(HOLDOUT, {})
    if kept.get("winner_number") != number:
        winners = [*kept.get("winners", []), number]
        found = {"winner": _on_holdout(bench, params), "begin": _on_holdout(bench, search.space.begin) if search.space.begin else None}
        kept = {"winner_number": number, "winners": winners, **found}
        bench.study.set_user_attr(HOLDOUT, json.loads(json.dumps(kept)))
    return HoldoutResult(kept["winner"], kept["begin"], *search.holdout, len(set(kept["winners"])))


def _on_holdout(bench: Bench[M], params: Params) -> dict[str, float] | None:
    from cryptoalpha.core.errors import ModelError

    search = bench.search
    look = search.last_look(params)
    bench.ledger.enter(look)
    try:
        score = search.judge(bench.material, params, search.folds)
    except ModelError:
        bench.ledger.settle(look, "failed")
        return None
    days, returns = by_day([score])
    bench.ledger.settle(look, "done", first_day=int(days[0]) if len(days) else None, returns=returns if len(days) else None)
    sharpe = sharpe_moments(returns).sharpe if len(returns) > 1 else NAN
    found = {"value": score.value, **score.figures, "annual_sharpe": _annual(sharpe)}
    return {name: float(value) for name, value in found.items() if isfinite(value)}


def _annual(sharpe: float) -> float:
    return sharpe * sqrt(DAYS_PER_YEAR)
