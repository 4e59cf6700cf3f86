"""Alerts: pending, firing, resolved by hand; the rules of the house; what the rule file holds."""

from __future__ import annotations

import math
import re

import pytest
import yaml

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.time import DAY, MINUTE, SECOND
from cryptoalpha.lifecycle.alerts.config import AlertConfig
from cryptoalpha.lifecycle.alerts.rules import every_rule
from cryptoalpha.monitoring.alert_rule_file import prometheus_duration, prometheus_rule_file
from cryptoalpha.monitoring.alerts import AlertBoard, AlertChange, AlertRule
from cryptoalpha.monitoring.conditions import Condition, QuantileCondition
from cryptoalpha.monitoring.config import AlertsConfig
from cryptoalpha.monitoring.metrics import METRICS, Metrics

RULES = every_rule(AlertsConfig(), AlertConfig())


def slow(hold_seconds: float = 300.0) -> AlertRule:
    return AlertRule("slow", "warning", Condition("cryptoalpha_step_p99_seconds", ">", 1.0), "steps are slow", "look", hold_seconds)


def fired(name: str, **values: float | dict[tuple[str, ...], float]) -> list[tuple[str, ...]]:
    """Labels for which a rule of the house fires at once on these values."""
    metrics = Metrics()
    for metric, given in values.items():
        for labels, value in given.items() if isinstance(given, dict) else [((), given)]:
            metrics.set(f"cryptoalpha_{metric}", value, *labels)
    (rule,) = [rule for rule in RULES if rule.name == name]
    return [labels for labels, _ in rule.condition.holding(metrics)]


def test_it_waits_fires_once_and_is_over_once():
    board, metrics = AlertBoard([slow()]), Metrics()
    told = []
    for minute, value in enumerate([0.5, 2.0, 2.0, 2.0, 2.0, 2.0, 3.0, 3.0, 0.5, 0.5]):
        metrics.set("cryptoalpha_step_p99_seconds", value)
        told += [(minute, change.state, change.value) for change in board.judge(minute * MINUTE, metrics)]
    assert told == [(6, "firing", 3.0), (8, "resolved", 3.0)]  # true since minute 1, five minutes later at 6
    assert board.standing == {}


def test_a_moment_of_calm_starts_the_wait_anew():
    board, metrics = AlertBoard([slow(120.0)]), Metrics()
    told = []
    for minute, value in enumerate([2.0, 2.0, 0.5, 2.0, 2.0, 2.0]):
        metrics.set("cryptoalpha_step_p99_seconds", value)
        told += [(minute, change.state) for change in board.judge(minute * MINUTE, metrics)]
    assert told == [(5, "firing")]


def test_what_is_missing_or_nan_fulfils_nothing_and_time_never_runs_back():
    board, metrics = AlertBoard([slow(60.0)]), Metrics()
    assert board.judge(0, metrics) == []
    metrics.set("cryptoalpha_step_p99_seconds", math.nan)
    assert board.judge(MINUTE, metrics) == []
    metrics.set("cryptoalpha_step_p99_seconds", 2.0)
    assert board.judge(2 * MINUTE, metrics) == []
    assert board.judge(0, metrics) == []  # an older time counts as the last one
    assert [change.at for change in board.judge(3 * MINUTE, metrics)] == [3 * MINUTE]


def test_a_clock_that_is_set_back_neither_shortens_nor_lengthens_a_wait():
    """The wall clock of live bars may be corrected: an hour back in the middle of a wait of five minutes, and then of an alert."""
    board, metrics = AlertBoard([slow(300.0)]), Metrics()
    metrics.set("cryptoalpha_step_p99_seconds", 2.0)
    told = []
    for minute in (100, 103, 43, 44, 104, 105, 45, 106):
        if minute == 106:
            metrics.set("cryptoalpha_step_p99_seconds", 0.5)
        told += [(minute, change.state, change.at) for change in board.judge(minute * MINUTE, metrics)]
    assert told == [(105, "firing", 105 * MINUTE), (106, "resolved", 106 * MINUTE)]
    metrics.set("cryptoalpha_step_p99_seconds", 2.0)
    assert board.judge(20 * MINUTE, metrics) == []  # pending since minute 106, the last that was seen
    assert board.standing["slow", ()].since == 106 * MINUTE
    assert [change.at for change in board.judge(111 * MINUTE, metrics)] == [111 * MINUTE]


def test_each_combination_of_labels_is_an_alert_of_its_own():
    board, metrics = AlertBoard(RULES), Metrics()
    metrics.set("cryptoalpha_bar_interval_seconds", 60.0)
    metrics.set("cryptoalpha_bar_age_seconds", 181.0, "BTCUSDT")
    metrics.set("cryptoalpha_bar_age_seconds", 180.0, "ETHUSDT")
    (change,) = board.judge(SECOND, metrics)
    assert (change.rule.name, change.labels, change.value) == ("stale_data", ("BTCUSDT",), 181.0)
    assert change.text.startswith("alert stale_data (instrument BTCUSDT): ")
    assert ": for 3 min → " in change.text
    metrics.set("cryptoalpha_bar_age_seconds", 0.0, "BTCUSDT")
    (change,) = board.judge(2 * SECOND, metrics)
    assert (change.state, change.text) == ("resolved", "alert stale_data (instrument BTCUSDT) is over")


@pytest.mark.parametrize(
    ("metric", "value", "said"),
    [
        ("cryptoalpha_bar_age_seconds", 8.71919, ": for 8.7 s → "),
        ("cryptoalpha_bar_age_seconds", 31.4142, ": for 31 s → "),
        ("cryptoalpha_idle_seconds", 7_300.0, ": for 2 h → "),
        ("cryptoalpha_step_p99_seconds", 2.34567, ": 2.3 s → "),
        ("cryptoalpha_memory_ratio", 0.81234, ": 81.2% → "),
        ("cryptoalpha_kill_switch", 1.0, ": 1 → "),
    ],
)
def test_values_are_told_rounded_and_with_their_unit(metric: str, value: float, said: str):
    rule = AlertRule("one", "warning", Condition(metric, ">", 0.0), "look", "act")
    assert said in AlertChange(rule, ("X",) * len(METRICS[metric].labels), "firing", 0, value).text


def test_the_houses_rules_fire_where_they_should_and_not_beside_it():
    assert fired("kill_switch", kill_switch=1.0) == [()]
    assert fired("kill_switch", kill_switch=0.0) == []
    assert fired("drawdown", drawdown_ratio=0.175, drawdown_allowed_ratio=0.35) == [()]
    assert fired("drawdown", drawdown_ratio=0.174, drawdown_allowed_ratio=0.35) == []
    states = {("daily_loss", "", "reduce_only"): 1.0, ("venue", "", "open"): 1.0, ("bad_tick", "BTC", "open"): 0.0}
    assert fired("daily_loss", risk_state=states) == [("daily_loss", "", "reduce_only")]
    assert fired("breaker_open", risk_state=states) == [("venue", "", "open")]
    assert fired("reduced_exposure", exposure_ratio=0.75) == [()]
    used, allowed = {("expected_shortfall",): 0.054, ("gross_cap",): 1.0}, {("expected_shortfall",): 0.06, ("gross_cap",): 0.98}
    assert fired("tail_limit_nearly_used", limit_used=used, limit_allowed=allowed) == [("expected_shortfall",)]
    assert fired("tail_limit_nearly_used", limit_used={("expected_shortfall",): 0.053}, limit_allowed=allowed) == []
    assert fired("run_stands_still", idle_seconds=10_801.0, step_interval_seconds=3600.0) == [()]
    assert fired("run_stands_still", idle_seconds=1e9) == []  # a replay without pace has no interval
    assert fired("value_at_risk_exceeded", exceedance_p_ratio=0.009) == [()]
    assert fired("instrument_risk_exceeded", instrument_exceedance_p_ratio={("BTC",): 0.009, ("ETH",): 1.0}) == [("BTC",)]
    ages = {("retrain",): 6 * DAY / SECOND, ("champion",): 8 * DAY / SECOND}
    assert fired("drift_retrain", alarm_age_seconds=ages) == [("retrain",)]
    assert fired("drift_champion", alarm_age_seconds=ages) == []
    assert fired("drift_champion", alarm_age_seconds={("champion",): 0.0}) == [("champion",)]
    assert fired("drawdown_ladder", ladder_rung=1.0) == [()]
    assert fired("drawdown_ladder", ladder_rung=0.0) == []
    assert fired("order_unknown", venue_unknown_seconds=31.0) == [()]
    assert fired("order_unknown", venue_unknown_seconds=30.0) == []
    assert fired("venue_halted", venue_halted=1.0) == [()]
    assert fired("source_down", source_up={("x",): 0.0, ("news",): 1.0}) == [("x",)]
    assert fired("streams_closed", stream_open=0.0) == [()]
    assert fired("journal_lag", journal_lag_seconds=61.0, bar_interval_seconds=60.0) == [()]
    assert fired("journal_lag", journal_lag_seconds=61.0, bar_interval_seconds=3600.0) == []
    assert fired("disk_nearly_full", disk_used_ratio=0.9) == [()]
    assert fired("disk_nearly_full", disk_used_ratio=0.89) == []
    assert fired("memory_nearly_used", memory_ratio=0.8) == [()]
    assert fired("slow_steps", step_p99_seconds=1.0) == []


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Condition("cryptoalpha_nonsense", ">", 1.0),
        lambda: Condition("cryptoalpha_step_seconds", ">", 1.0),  # a histogram has no one value
        lambda: Condition("cryptoalpha_mode", "==", 1.0, where=(("state", "open"),)),
        lambda: Condition("cryptoalpha_equity_quote", ">", 1.0, "cryptoalpha_limit_allowed"),
        lambda: Condition("cryptoalpha_equity_quote", ">", 1.0, "cryptoalpha_nonsense"),
        lambda: QuantileCondition("cryptoalpha_step_p99_seconds", 0.99, ">", 1.0),  # a gauge has no quantiles
        lambda: QuantileCondition("cryptoalpha_prediction_seconds", 0.99, ">", 1.0, where=(("state", "open"),)),
        lambda: QuantileCondition("cryptoalpha_prediction_seconds", 1.0, ">", 1.0),
        lambda: QuantileCondition("cryptoalpha_prediction_seconds", 0.5, ">", 1.0, 0.5),
    ],
)
def test_a_rule_about_nothing_is_refused(wrong):
    with pytest.raises(ConfigError):
        wrong()


def test_the_rule_file_holds_every_rule_once_with_what_to_do():
    (group,) = yaml.safe_load(prometheus_rule_file(RULES))["groups"]
    assert [entry["alert"] for entry in group["rules"]] == [rule.name for rule in RULES]
    assert len({rule.name for rule in RULES}) == len(RULES)
    for entry, rule in zip(group["rules"], RULES, strict=True):
        assert entry["expr"] == rule.condition.expression()
        assert rule.condition.metric in entry["expr"]
        assert entry["labels"] == {"severity": rule.severity}
        assert entry["annotations"]["action"] == rule.action != ""
        assert entry.get("for") == (prometheus_duration(rule.hold_seconds) if rule.hold_seconds else None)
    assert (prometheus_duration(300.0), prometheus_duration(0.25)) == ("300s", "250ms")


def test_what_a_person_is_told_to_run_is_a_whole_command():
    said = " ".join(rule.action for rule in RULES)
    assert "`cryptoalpha resume --run NAME --reason TEXT`" in said
    for command in re.findall(r"`cryptoalpha ([^`]+)`", said):
        assert command.startswith(("status", "retrain", "bench serving")) or "--run NAME" in command, command
