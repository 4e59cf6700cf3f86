"""Every alert rule as Prometheus' own rule tester sees it: it fires when its condition has held, and not before or beside it."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from cryptoalpha.lifecycle.alerts.config import AlertConfig
from cryptoalpha.lifecycle.alerts.rules import every_rule
from cryptoalpha.monitoring.alert_rule_file import PROCESS_GONE, prometheus_rule_file
from cryptoalpha.monitoring.alerts import AlertRule
from cryptoalpha.monitoring.conditions import QuantileCondition
from cryptoalpha.monitoring.config import AlertsConfig
from cryptoalpha.monitoring.metrics import METRICS

RULES = every_rule(AlertsConfig(), AlertConfig())


def promtool(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    program = shutil.which("promtool")
    if program is None:
        missing = "promtool is not installed (Debian package prometheus): the expressions were evaluated by the test suite only"
        pytest.fail(missing) if os.environ.get("TESTS_SKIP_NOTHING") == "1" else pytest.skip(missing)
    return subprocess.run([program, *arguments], cwd=cwd, capture_output=True, text=True, check=False)


def run_tests(tmp_path: Path, tests: list[dict[str, object]], rules: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "rules.yaml").write_text(rules)
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump({"rule_files": ["rules.yaml"], "evaluation_interval": "15s", "tests": tests}))
    return promtool("test", "rules", "tests.yaml", cwd=tmp_path)


def series_of(name: str, labels: dict[str, str]) -> str:
    return name + ("{" + ",".join(f'{key}="{value}"' for key, value in labels.items()) + "}" if labels else "")


def labels_of(rule: AlertRule) -> dict[str, str]:
    return {name: dict(rule.condition.where).get(name, "x") for name in METRICS[rule.condition.metric].labels}


def inputs(rule: AlertRule, *, reaching: bool) -> list[dict[str, str]]:
    """Series of eleven minutes, a value every 15 s, that fulfil the rule all along, or lie as near beside it as can be."""
    condition, labels = rule.condition, labels_of(rule)
    if isinstance(condition, QuantileCondition):  # a hundred observations each 15 s: two of them late, or one, which is no more than may be
        late = 2 if reaching else 1
        counts = {f"{condition.number:g}": 100 - late, "10.0": 100, "+Inf": 100}
        return [
            {"series": series_of(f"{condition.metric}_bucket", {**labels, "le": le}), "values": f"0+{n}x44"} for le, n in counts.items()
        ]
    near = 0.001
    fulfils = {">": near, ">=": 0.0, "<": -near, "<=": 0.0, "==": 0.0}[condition.comparison]
    misses = {">": 0.0, ">=": -near, "<": 0.0, "<=": near, "==": near}[condition.comparison]
    value = condition.number + (fulfils if reaching else misses)
    found = [{"series": series_of(condition.metric, labels), "values": f"{value}x44"}]
    if condition.times is not None:
        found.append({"series": series_of(condition.times, labels if METRICS[condition.times].labels else {}), "values": "1x44"})
    return found


def test_promtool_accepts_the_rules(tmp_path):
    (tmp_path / "rules.yaml").write_text(prometheus_rule_file(RULES, job="cryptoalpha"))
    done = promtool("check", "rules", "rules.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(RULES) + 1} rules found" in done.stdout


def test_promtool_sees_every_rule_fire_when_its_condition_has_held_and_not_before(tmp_path):
    tests = []
    for rule in RULES:
        expected = {
            "exp_labels": {**labels_of(rule), "severity": rule.severity},
            "exp_annotations": {"summary": rule.summary, "action": rule.action},
        }
        first = 15 if isinstance(rule.condition, QuantileCondition) else 0  # of one look there is no increase
        fires = first + 15 * math.ceil(rule.hold_seconds / 15.0)
        looks = [{"eval_time": f"{seconds}s", "alertname": rule.name, "exp_alerts": [expected]} for seconds in (fires, 600)]
        if fires:
            looks.append({"eval_time": f"{fires - 15}s", "alertname": rule.name, "exp_alerts": []})
        tests.append({"interval": "15s", "input_series": inputs(rule, reaching=True), "alert_rule_test": looks})
    done = run_tests(tmp_path, tests, prometheus_rule_file(RULES))
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_sees_no_rule_fire_beside_its_condition(tmp_path):
    never = [
        {
            "interval": "15s",
            "input_series": inputs(rule, reaching=False),
            "alert_rule_test": [{"eval_time": "600s", "alertname": rule.name, "exp_alerts": []}],
        }
        for rule in RULES
    ]
    done = run_tests(tmp_path, never, prometheus_rule_file(RULES))
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_sees_that_a_process_is_gone_which_it_cannot_say_itself(tmp_path):
    """Of two targets one dies at minute 5 and comes back; of another job nothing was ever scraped: that of a wrong name."""
    (rule,) = yaml.safe_load(prometheus_rule_file([], job="nobody"))["groups"][0]["rules"]

    def alert(**labels: str) -> dict[str, object]:
        return {"exp_labels": {**labels, "severity": "page"}, "exp_annotations": rule["annotations"]}

    def look(minute: int, *alerts: dict[str, object]) -> dict[str, object]:
        return {"eval_time": f"{minute}m", "alertname": PROCESS_GONE, "exp_alerts": list(alerts)}

    up = [
        {"series": 'up{job="cryptoalpha", instance="a"}', "values": "1x4 0x4 1x9"},
        {"series": 'up{job="cryptoalpha", instance="b"}', "values": "1x20"},
    ]
    dead = alert(job="cryptoalpha", instance="a")
    none = [{"series": 'up{job="other", instance="a"}', "values": "1x20"}]
    named = [
        {"interval": "1m", "input_series": up, "alert_rule_test": [look(5), look(6, dead), look(9, dead), look(10)]},
        {"interval": "1m", "input_series": none, "alert_rule_test": [look(0), look(1, alert(job="cryptoalpha"))]},
    ]
    misnamed = [{"interval": "1m", "input_series": up, "alert_rule_test": [look(0), look(1, alert(job="nobody"))]}]
    for cases, rules in ((named, prometheus_rule_file(RULES, job="cryptoalpha")), (misnamed, prometheus_rule_file([], job="nobody"))):
        done = run_tests(tmp_path, cases, rules)
        assert done.returncode == 0, done.stdout + done.stderr
