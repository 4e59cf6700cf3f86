"""Alert rules as data, judged in the process itself or by Prometheus: one list, two back ends that agree.

A rule is a condition (`conditions`) that must have held for some time. Its meaning is Prometheus' own: every combination of labels is
judged by itself, a value that is missing or NaN fulfils nothing, and what has held for as long as `hold_seconds` says fires at the next
look. `AlertBoard` judges by the time it is given and reads no clock. The house's own rules are in `alert_rules` and `lifecycle.alerts`.

What judges in the process dies with it, in silence: that a process is gone only Prometheus can say (`alert_rule_file`).

An alert only speaks. What stops trading are the limits, breakers and the kill switch of `risk`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from cryptoalpha.core.time import SECOND
from cryptoalpha.monitoring.conditions import Condition, QuantileCondition, Windows
from cryptoalpha.monitoring.metrics import METRICS, Labels, Metrics

Severity = Literal["page", "warning", "notice"]
"""`page`: a person is needed now. `warning`: today. `notice`: good to know."""


_UNITS = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min"))


@dataclass(frozen=True)
class AlertRule:
    """When to speak, how loudly, and what the one who hears it should do."""

    name: str
    severity: Severity
    condition: Condition | QuantileCondition
    summary: str
    action: str
    hold_seconds: float = 0.0


class AlertChange(NamedTuple):
    """An alert began to fire, or was resolved after it had fired. `value` is the metric's, at its end the last that fired."""

    rule: AlertRule
    labels: Labels
    state: Literal["firing", "resolved"]
    at: int
    value: float

    @property
    def text(self) -> str:
        """One line for people."""
        where = ", ".join(f"{name} {label}" for name, label in zip(METRICS[self.rule.condition.metric].labels, self.labels, strict=True))
        about = f"{self.rule.name} ({where})" if where else self.rule.name
        if self.state == "resolved":
            return f"alert {about} is over"
        return f"alert {about}: {self.rule.summary}: {_worded(self.rule.condition.metric, self.value)} → {self.rule.action}"


def _worded(metric: str, value: float) -> str:
    """A metric's value for people, rounded and with its unit, which is the end of the metric's name."""
    if metric.endswith("_ratio"):
        return f"{value:.1%}"
    if not metric.endswith("_seconds"):
        return f"{value:.4g}"
    size, unit = next((pair for pair in _UNITS if value >= 2.0 * pair[0]), (1.0, "s"))
    since = "for " if metric.endswith(("_age_seconds", "_idle_seconds")) else ""
    return f"{since}{value / size:{'.2g' if value < 10.0 else '.0f'}} {unit}"


class Standing(NamedTuple):
    """An alert that is not over: pending since `since`, firing once it has held long enough."""

    since: int
    value: float
    is_firing: bool


class AlertBoard:
    """Judges rules look by look: nothing → pending → firing → resolved.

    The same values at the same times give the same changes.
    """

    def __init__(self, rules: Sequence[AlertRule]) -> None:
        self.rules = tuple(rules)
        self._windows = Windows(rule.condition for rule in rules)
        self.standing: dict[tuple[str, Labels], Standing] = {}
        self._at: int | None = None

    def judge(self, at: int, metrics: Metrics) -> list[AlertChange]:
        """What began to fire or was resolved since the last look, in order of rules and labels.

        Args:
            at: the time of the values, ns; a time before the last look counts as that look's.
        """
        at = self._at = at if self._at is None else max(at, self._at)
        self._windows.take(at, metrics)
        changes: list[AlertChange] = []
        now: dict[tuple[str, Labels], Standing] = {}
        for rule in self.rules:
            for labels, value in rule.condition.holding(metrics, self._windows):
                before = self.standing.get((rule.name, labels))
                since = at if before is None else before.since
                firing = at - since >= round(rule.hold_seconds * SECOND)
                if firing and not (before and before.is_firing):
                    changes.append(AlertChange(rule, labels, "firing", at, value))
                now[rule.name, labels] = Standing(since, value, firing)
            if self.standing:
                for (name, labels), was in self.standing.items():
                    if name == rule.name and was.is_firing and (name, labels) not in now:
                        changes.append(AlertChange(rule, labels, "resolved", at, was.value))
        self.standing = now
        return changes
