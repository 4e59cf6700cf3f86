"""The numbers of a run as plain JSON values: what `metrics.json` holds and what the report prints.

Both come from this one mapping, so a number in the page equals the number in the file. Undefined is `null`, never NaN; the reasons stand
under `undefined`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from decimal import Decimal

import numpy as np

from cryptoalpha.app.report.content import ReportContent
from cryptoalpha.app.report.decision_content import Deciders
from cryptoalpha.app.report.risk_content import RiskRecord, StressStudy, TailStudy
from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.time import iso
from cryptoalpha.monitoring.comparison import Assessment
from cryptoalpha.monitoring.measures import SHARPE_DEFINITION, MonthReturn, monthly_returns

SCHEMA = 1

Plain = None | bool | int | float | str | list["Plain"] | dict[str, "Plain"]


def metrics_of(content: ReportContent) -> dict[str, Plain]:
    """Every number of a run, JSON-ready."""
    comparison, card = content.comparison, content.card
    months = monthly_returns(content.strategy.daily)
    baselines: dict[str, Plain] = {one.name: _assessment(one) for one in comparison.baselines}
    differences: dict[str, Plain] = {one.baseline: plain(one) for one in comparison.differences}
    costs = plain(content.costs)
    if not isinstance(costs, dict):
        raise ConfigError("costs must be a CostSplit")
    costs["gross"] = content.costs.gross
    costs["initial_equity"] = card.initial_equity
    return {
        "schema": SCHEMA,
        "card": {**_fields(card), "since": iso(card.since), "until": iso(card.until)},
        "sharpe_definition": SHARPE_DEFINITION,
        "first_day": comparison.first_day,
        "last_day": comparison.last_day,
        "trials": comparison.trials,
        "verdict": comparison.verdict,
        "strategy": _assessment(comparison.strategy),
        "baselines": baselines,
        "differences": differences,
        "costs": costs,
        "trades": content.trades_total,
        "months": [plain(month) for month in months],
        "years": {str(year): value for year, value in _years(months).items()},
        "source_skill": plain(content.source_skill),
        "checks": plain(content.checks),
        "refusals": plain(content.refusals),
        "bar_gate": plain(content.bar_gate),
        "liveness": plain(content.liveness),
        "notes": plain(content.notes),
        **risk_metrics(content.risk, content.tail, content.stress),
        "deciders": decider_metrics(content.deciders),
        "by_year": plain(content.years),
        "by_regime": plain(content.regimes),
        "by_instrument": plain(content.instruments),
    }


def risk_metrics(risk: RiskRecord | None, tail: TailStudy | None, stress: StressStudy | None) -> dict[str, Plain]:
    """What limits, tails and stresses say, JSON-ready; the day-by-day series of the tail stay in the charts."""
    found: dict[str, Plain] = {"risk": None, "tail": None, "stress": None}
    if risk is not None:
        fields = _fields(risk)
        fields["changes"] = [{**_fields(one), "time": iso(one.time)} for one in risk.changes]
        fields["alarms"] = [{**_fields(one), "time": iso(one.time)} for one in risk.alarms]
        fields["limits"] = [plain(one.as_dict()) for one in risk.limits]
        fields["limits_at"] = None if risk.limits_at is None else iso(risk.limits_at)
        found["risk"] = fields
    if tail is not None:
        found["tail"] = {"level": tail.level, "tests": plain(tail.tests)}
    if stress is not None:
        found["stress"] = {
            "at": None if stress.at is None else iso(stress.at),
            "reason": "nothing was ever held" if stress.at is None else "",
            "gross": stress.gross,
            "book": plain(dict(stress.book)),
            "results": [{**_fields(one), "positions": plain(dict(one.positions))} for one in stress.results],
            "missing": plain(dict(stress.missing)),
        }
    return found


def decider_metrics(deciders: Deciders | None) -> Plain:
    """Who decided, JSON-ready; what was noted day by day stays in the charts."""
    if deciders is None:
        return None
    return {
        "in_charge": plain(deciders.charge),
        "changes": [{**_fields(one), "time": iso(one.time)} for one in deciders.changes],
        "scores": plain(deciders.scores),
        "council": plain(deciders.members),
        "regimes": {one.name: plain(one.share) for one in deciders.regimes},
        "ablation": plain(deciders.stages),
        "ablation_left_out": plain(deciders.missing_stages),
    }


def plain(value: object) -> Plain:
    """A value as JSON can hold it; NaN and infinity become None.

    Raises:
        ConfigError: for a type that has no JSON form.
    """
    if value is None or isinstance(value, bool | str | int):
        return value
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, tuple | list):
        return [plain(one) for one in value]
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _fields(value)
    raise ConfigError(f"{type(value).__name__} has no JSON form")


def look_up(metrics: Plain, path: tuple[str, ...]) -> Plain:
    """The value at a path of keys and list places.

    Raises:
        ConfigError: if there is none: a report never prints a number that the metrics do not hold.
    """
    at = metrics
    for key in path:
        if isinstance(at, dict) and key in at:
            at = at[key]
        elif isinstance(at, list) and key.isdigit() and int(key) < len(at):
            at = at[int(key)]
        else:
            raise ConfigError(f"no metric at {' / '.join(path)}")
    return at


def _years(months: list[MonthReturn]) -> dict[int, float]:
    growth: dict[int, float] = {}
    for month in months:
        growth[month.year] = growth.get(month.year, 1.0) * (1.0 + month.value)
    return {year: total - 1.0 for year, total in growth.items()}


def _fields(value: object) -> dict[str, Plain]:
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        raise ConfigError(f"{type(value).__name__} is no dataclass")
    return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}


def _assessment(one: Assessment) -> dict[str, Plain]:
    fields = _fields(one)
    fields["undefined"] = dict(one.undefined)
    return fields
