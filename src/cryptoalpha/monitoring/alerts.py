"""Alert rules as data, judged in the process itself or by Prometheus: one list, two back ends that agree.

A rule is a comparison of a metric with a number, or with a number times another metric, that must have held for some time. The rules'
meaning is Prometheus' own: every combination of labels is judged by itself, a value that is missing or NaN fulfils nothing, and what has
held for as long as `hold_seconds` says fires at the next look. `AlertBoard` judges by the time it is given and reads no clock.

What judges in the process dies with it, in silence: that a process is gone only Prometheus can say (`alert_rule_file`).

An alert only speaks. What stops trading are the limits, breakers and the kill switch of `risk`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.time import SECOND
from cryptoalpha.monitoring.config import AlertsConfig
from cryptoalpha.monitoring.metrics import METRICS, Labels, Metrics

Severity = Literal["page", "warning", "notice"]
"""`page`: a person is needed now. `warning`: today. `notice`: good to know."""

Comparison = Literal[">", ">=", "<", "<=", "=="]
_COMPARE: dict[Comparison, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
}

_UNITS = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min"))


@dataclass(frozen=True)
class Condition:
    """`metric{where} comparison number [· times]`.

    Args:
        times: a metric that the number is multiplied by, with the labels of `metric` or with none.
        where: labels that must have these values.

    Raises:
        ConfigError: if there is no such metric or label.
    """

    metric: str
    comparison: Comparison
    number: float
    times: str | None = None
    where: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        known = METRICS.get(self.metric)
        other = METRICS.get(self.times) if self.times else None
        if known is None or known.kind == "histogram" or not {name for name, _ in self.where} <= set(known.labels):
            raise ConfigError(f"an alert on {self.metric} where {dict(self.where)}: no such gauge or counter, or no such label")
        if self.times and (other is None or other.kind == "histogram" or other.labels not in ((), known.labels)):
            raise ConfigError(f"an alert on {self.metric} cannot be measured by {self.times}: their labels do not fit")

    def holding(self, metrics: Metrics) -> Iterator[tuple[Labels, float]]:
        """Labels and value of everything that fulfils it now."""
        compare, names = _COMPARE[self.comparison], METRICS[self.metric].labels
        wanted = [(names.index(name), value) for name, value in self.where]
        for labels, value in metrics.labelled(self.metric):
            if all(labels[place] == text for place, text in wanted):
                bound = self._bound(metrics, labels)
                if bound is not None and compare(value, bound):
                    yield labels, value

    def expression(self) -> str:
        """The same in PromQL."""
        where = "{" + ", ".join(f'{name}="{value}"' for name, value in self.where) + "}" if self.where else ""
        if self.times is None:
            return f"{self.metric}{where} {self.comparison} {self.number!r}"
        labels = METRICS[self.metric].labels
        if METRICS[self.times].labels == labels:
            return f"{self.metric}{where} {self.comparison} {self.number!r} * {self.times}{where}"
        return f"{self.metric}{where} {self.comparison} ignoring ({', '.join(labels)}) group_left () ({self.number!r} * {self.times})"

    def _bound(self, metrics: Metrics, labels: Labels) -> float | None:
        if self.times is None:
            return self.number
        factor = metrics.value(self.times, *(labels if METRICS[self.times].labels else ()))
        return None if factor is None else self.number * factor


@dataclass(frozen=True)
class AlertRule:
    """When to speak, how loudly, and what the one who hears it should do."""

    name: str
    severity: Severity
    condition: Condition
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
        self.standing: dict[tuple[str, Labels], Standing] = {}
        self._at: int | None = None

    def judge(self, at: int, metrics: Metrics) -> list[AlertChange]:
        """What began to fire or was resolved since the last look, in order of rules and labels.

        Args:
            at: the time of the values, ns; a time before the last look counts as that look's.
        """
        at = self._at = at if self._at is None else max(at, self._at)
        changes: list[AlertChange] = []
        now: dict[tuple[str, Labels], Standing] = {}
        for rule in self.rules:
            for labels, value in rule.condition.holding(metrics):
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


def alert_rules(config: AlertsConfig) -> tuple[AlertRule, ...]:
    """The house's rules with these thresholds, the most urgent first."""
    hold = config.hold_minutes * 60.0
    return (*_of_risk(config, hold), *_of_data(config), *_of_models(config), *_of_the_process(config, hold))


def _of_risk(config: AlertsConfig, hold: float) -> tuple[AlertRule, ...]:
    return (
        AlertRule(
            "kill_switch", "page", Condition("cryptoalpha_kill_switch", "==", 1.0),
            "the kill switch stands: nothing is entered",
            "find out why with `cryptoalpha status`, then `cryptoalpha resume --run NAME --reason TEXT`",
        ),
        AlertRule(
            "drawdown", "page", Condition("cryptoalpha_drawdown_ratio", ">=", config.drawdown, "cryptoalpha_drawdown_allowed_ratio"),
            "a large share of the allowed drawdown is used",
            "`cryptoalpha kill --run NAME --reason TEXT` stops entries now; at the limit everything is closed",
        ),
        AlertRule(
            "daily_loss", "page", Condition("cryptoalpha_risk_state", "==", 1.0, where=(("rule", "daily_loss"), ("state", "reduce_only"))),
            "today's loss allows no entries until 00:00 UTC",
            "`cryptoalpha status --run NAME` shows the loss, `cryptoalpha explain --run NAME FILL_ID` why a trade was made",
        ),
        AlertRule(
            "breaker_open", "warning", Condition("cryptoalpha_risk_state", "==", 1.0, where=(("state", "open"),)),
            "a breaker is open and blocks entries",
            "`cryptoalpha status` says which and why; it closes by itself after a quiet time",
            hold,
        ),
        AlertRule(
            "reduced_exposure", "notice", Condition("cryptoalpha_exposure_ratio", "<", 1.0),
            "drawdown ladder or regime leave only part of the exposure",
            "nothing, it grows again by itself",
        ),
        AlertRule(
            "tail_limit_nearly_used", "notice",
            Condition(
                "cryptoalpha_limit_used", ">=", config.limit_used, "cryptoalpha_limit_allowed", where=(("limit", "expected_shortfall"),)
            ),
            "expected shortfall is near its cap, which will cut entries",
            "nothing, unless it stays: then sizes are larger than the cap was meant for",
        ),
    )  # fmt: skip


def _of_data(config: AlertsConfig) -> tuple[AlertRule, ...]:
    return (
        AlertRule(
            "run_stands_still", "page",
            Condition("cryptoalpha_idle_seconds", ">", config.stale_bars, "cryptoalpha_step_interval_seconds"),
            "the loop takes no steps, so positions are not watched",
            "is the process alive, the venue reachable, the disk full?",
        ),
        AlertRule(
            "stale_data", "warning", Condition("cryptoalpha_bar_age_seconds", ">", config.stale_bars, "cryptoalpha_bar_interval_seconds"),
            "an instrument has had no bar for too long; nothing is entered on it",
            "check the venue's status; without trades there are no bars",
        ),
    )  # fmt: skip


def _of_models(config: AlertsConfig) -> tuple[AlertRule, ...]:
    return (
        AlertRule(
            "value_at_risk_exceeded", "warning", Condition("cryptoalpha_exceedance_p_ratio", "<", config.exceedance_p),
            "losses exceed value at risk more often than a right model allows",
            "do not trust the tail figures; lower `risk.tail.max_expected_shortfall` or try another `risk.tail.method`",
        ),
        AlertRule(
            "instrument_risk_exceeded", "warning", Condition("cryptoalpha_instrument_exceedance_p_ratio", "<", config.exceedance_p),
            "an instrument falls beyond its value at risk more often than a right model allows",
            "the gate takes it for safer than it is: lower `risk.max_position` or try another `risk.tail.method`",
        ),
        AlertRule(
            "drift", "warning", Condition("cryptoalpha_alarm_age_seconds", "<", config.alarm_days * 86_400.0),
            "what the models see or say is not as it was",
            "`cryptoalpha status` names the alarm; train anew and compare",
        ),
    )  # fmt: skip


def _of_the_process(config: AlertsConfig, hold: float) -> tuple[AlertRule, ...]:
    return (
        AlertRule(
            "slow_steps", "warning", Condition("cryptoalpha_step_p99_seconds", ">", config.step_seconds),
            "steps take too long",
            "look for a slow disk or a busy machine; trade fewer instruments",
            hold,
        ),
        AlertRule(
            "memory_nearly_used", "page", Condition("cryptoalpha_memory_ratio", ">=", config.memory),
            "the process may be ended for want of memory",
            "give it more memory, or stop and start it: it goes on where it stopped",
            hold,
        ),
    )  # fmt: skip
