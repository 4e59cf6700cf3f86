"""What the gates are asked about and what they answer.

A report is plain values, so that it can be attached to a version for ever: `as_dict` and `from_dict` are inverse, JSON holds no NaN.
A gate that could not be judged refuses like one that failed: nobody is promoted for want of evidence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from cryptoalpha.core.errors import DataError, ValidationFailedError
from cryptoalpha.core.time import iso

FORMAT = 1

GateName = Literal[
    "look_ahead", "walk_forward", "paths", "deflated_sharpe", "track_record", "overfitting", "champion", "baselines", "calibration",
    "latency", "memory", "shadow_parity", "shadow_latency", "holdout",
]  # fmt: skip

GATES: tuple[GateName, ...] = (
    "look_ahead", "walk_forward", "paths", "deflated_sharpe", "track_record", "overfitting", "champion", "baselines", "calibration",
    "latency", "memory", "shadow_parity", "shadow_latency", "holdout",
)  # fmt: skip
"""All gates, in the order in which they are judged: a leak first, it makes the rest worthless; the holdout last, a look spends it."""

Relation = Literal[">", "≥", "≤", "="]


class Contender(Protocol):
    """A version in the ring. What the registry calls a `Version` is one."""

    @property
    def id(self) -> str: ...
    @property
    def line(self) -> str: ...
    @property
    def path(self) -> Path: ...


@dataclass(frozen=True)
class Entrant:
    """A contender that no registry knows: a model folder or a folder of `train all`."""

    id: str
    line: str
    path: Path


@dataclass(frozen=True)
class GateResult:
    """One gate's answer. `passed` is None where it could not be judged; then it refuses too. NaN: there is no such number."""

    name: GateName
    passed: bool | None
    statistic: float
    relation: Relation
    bound: float
    words: str
    """What was found, with its numbers, for a reader who knows nothing of the gate."""
    required: bool = True
    """Whether the report may pass without it (`lifecycle.gates.required`)."""

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "name": self.name, "passed": self.passed, "statistic": _plain(self.statistic), "relation": self.relation,
            "bound": _plain(self.bound), "words": self.words, "required": self.required,
        }  # fmt: skip

    def __str__(self) -> str:
        mark = {True: "passed", False: "refused", None: "could not be judged"}[self.passed]
        return f"{self.name}: {mark}{'' if self.required else ' (not required)'}. {self.words}"


@dataclass(frozen=True)
class GateReport:
    """Every gate's answer about one candidate. `judged_at` UTC ns; `data` names what was judged on."""

    candidate: str
    line: str
    champion: str | None
    judged_at: int
    data: str
    results: tuple[GateResult, ...]

    @property
    def passed(self) -> bool:
        """Whether every required gate was judged and passed; an empty report passes nobody."""
        asked = [result for result in self.results if result.required]
        return bool(asked) and all(result.passed is True for result in asked)

    @property
    def refused_by(self) -> tuple[GateName, ...]:
        """The required gates that failed or could not be judged, in order."""
        return tuple(result.name for result in self.results if result.required and result.passed is not True)

    @property
    def decisive(self) -> GateResult | None:
        """The first required gate that refused; None where none did. With `stop_at_first` those after it were not asked."""
        return next((result for result in self.results if result.required and result.passed is not True), None)

    @property
    def asks_for_search(self) -> bool:
        """Whether other settings might pass: not where the holdout refused, whose days are seen then, nor where nothing could be judged."""
        first = self.decisive
        return first is not None and first.passed is False and first.name != "holdout"

    def of(self, name: GateName) -> GateResult:
        """One gate's answer.

        Raises:
            DataError: if the report has none of that name.
        """
        for result in self.results:
            if result.name == name:
                return result
        raise DataError(f"the report on {self.candidate} holds no gate {name!r}", hint="judge the candidate again")

    def words(self) -> str:
        """One sentence: who was judged, against whom, who refused first and why, and who else judged it and refused."""
        against = f"against champion {self.champion[:12]}" if self.champion else "with no champion to beat"
        head = f"{self.line} {self.candidate[:12]}, {against}, judged {iso(self.judged_at)}"
        first = self.decisive
        if first is None:
            return f"{head}: {'passed all gates' if self.passed else 'refused by an empty report'}"
        others = [result.name for result in self.results if result.required and result.passed is False and result is not first]
        return f"{head}: refused by {first.name}, {first.words}{'; also by ' if others else ''}{', '.join(others)}"

    def lines(self) -> list[str]:
        """For people: the sentence, then each gate."""
        return [self.words(), *(f"  {result}" for result in self.results)]

    def require(self) -> None:
        """Nothing, if it passed.

        Raises:
            ValidationFailedError: naming the gates that refused.
        """
        if not self.passed:
            raise ValidationFailedError(self.words(), hint="see each gate's words: `cryptoalpha models judge --json`")

    def as_dict(self) -> dict[str, Any]:
        """JSON values; `from_dict` reads them back."""
        return {
            "format": FORMAT, "candidate": self.candidate, "line": self.line, "champion": self.champion, "judged_at": self.judged_at,
            "data": self.data, "passed": self.passed, "refused_by": list(self.refused_by),
            "results": [result.as_dict() for result in self.results],
        }  # fmt: skip

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> GateReport:
        """The report that `as_dict` wrote.

        Raises:
            DataError: if it is not one, or says that it passed where its gates say otherwise.
        """
        try:
            if told["format"] != FORMAT:
                raise DataError(f"a gate report of format {told['format']!r}, expected {FORMAT}", hint="judge the candidate again")
            results = tuple(_result(one) for one in told["results"])
            report = cls(told["candidate"], told["line"], told["champion"], int(told["judged_at"]), told["data"], results)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"this is no gate report: {error!r}", hint="judge the candidate again") from None
        if told.get("passed") is not report.passed:
            raise DataError(f"the report on {report.candidate} says passed={told.get('passed')}, its gates say {report.passed}")
        return report


def _result(told: Mapping[str, Any]) -> GateResult:
    if told["name"] not in GATES or told["passed"] not in (True, False, None) or told["relation"] not in (">", "≥", "≤", "="):
        raise ValueError(f"gate {told['name']!r}: passed {told['passed']!r}, relation {told['relation']!r}")
    numbers = [math.nan if told[key] is None else float(told[key]) for key in ("statistic", "bound")]
    return GateResult(told["name"], told["passed"], numbers[0], told["relation"], numbers[1], str(told["words"]), bool(told["required"]))


def _plain(number: float) -> float | None:
    return float(number) if math.isfinite(number) else None
