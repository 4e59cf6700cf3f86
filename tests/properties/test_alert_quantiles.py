"""Quantiles as the board judges them and as Prometheus itself does: random histories of latencies, every look compared with promtool."""

from __future__ import annotations

import os
import shutil
import subprocess
from itertools import accumulate

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cryptoalpha.core.time import SECOND
from cryptoalpha.monitoring.alert_rule_file import prometheus_rule_file
from cryptoalpha.monitoring.alerts import AlertBoard, AlertRule
from cryptoalpha.monitoring.conditions import QuantileCondition, quantile_of
from cryptoalpha.monitoring.metrics import BUCKETS, Metrics

NAME = "cryptoalpha_prediction_seconds"
STEP = 15
ARMS = ("canary", "stable")
RULES = [
    AlertRule("late", "warning", QuantileCondition(NAME, 0.99, ">", 0.1, 60.0), "a", "b", 30.0),
    AlertRule("fast", "notice", QuantileCondition(NAME, 0.5, "<=", 0.05, 30.0), "a", "b"),
    AlertRule("of one arm", "page", QuantileCondition(NAME, 0.9, ">=", 0.25, 90.0, (("arm", "canary"),)), "a", "b", 15.0),
]


def observed(generator: np.random.Generator, looks: int) -> list[dict[str, list[float]]]:
    """Of each look and arm the latencies since the one before: quiet and busy times, fast and slow ones; the canary begins later."""
    found = []
    speed = generator.choice([0.02, 0.05, 0.1, 0.2])
    for look in range(looks):
        if generator.random() < 0.3:
            speed = generator.choice([0.01, 0.05, 0.1, 0.4])
        count = int(generator.choice([0, 1, 5, 100]))
        arms = ARMS if look >= looks // 3 else ("stable",)
        found.append({arm: list(speed * generator.lognormal(0.0, 0.6, count)) for arm in arms})
    return found


def expected(history: list[dict[str, list[float]]]) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """The input series of a history, and what the board says at each look."""
    board, metrics = AlertBoard(RULES), Metrics()
    values: dict[tuple[str, str], list[str]] = {(arm, str(edge)): [] for arm in ARMS for edge in (*BUCKETS, "+Inf")}
    looks: list[dict[str, object]] = []
    for place, latencies in enumerate(history):
        for arm, seconds in latencies.items():
            for each in seconds or [1e-9] * (metrics.histogram(NAME, arm) is None):
                metrics.observe(NAME, each, arm)
        for arm in ARMS:
            seen = metrics.histogram(NAME, arm)
            counts = None if seen is None else np.cumsum(seen.counts)
            for edge_place, edge in enumerate((*BUCKETS, "+Inf")):
                values[arm, str(edge)].append("_" if counts is None else str(counts[edge_place]))
        board.judge(place * STEP * SECOND, metrics)
        for rule in RULES:
            alerts = [
                {"exp_labels": {"arm": arm, "severity": rule.severity}, "exp_annotations": {"summary": "a", "action": "b"}}
                for arm in ARMS
                if (standing := board.standing.get((rule.name, (arm,)))) is not None and standing.is_firing
            ]
            looks.append({"eval_time": f"{place * STEP}s", "alertname": rule.name, "exp_alerts": alerts})
    series = [{"series": f'{NAME}_bucket{{arm="{arm}",le="{edge}"}}', "values": " ".join(each)} for (arm, edge), each in values.items()]
    return series, looks


def test_the_board_and_prometheus_say_the_same_of_quantiles(tmp_path):
    program = shutil.which("promtool")
    if program is None:
        missing = "promtool is not installed (Debian package prometheus)"
        pytest.fail(missing) if os.environ.get("TESTS_SKIP_NOTHING") == "1" else pytest.skip(missing)
    tests, said = [], 0
    for seed in range(40):
        series, looks = expected(observed(np.random.default_rng(seed), 24))
        said += sum(bool(look["exp_alerts"]) for look in looks)
        tests.append({"interval": f"{STEP}s", "input_series": series, "alert_rule_test": looks})
    assert said > 400  # of 2,880 looks
    (tmp_path / "rules.yaml").write_text(prometheus_rule_file(RULES))
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump({"rule_files": ["rules.yaml"], "evaluation_interval": f"{STEP}s", "tests": tests}))
    done = subprocess.run([program, "test", "rules", "tests.yaml"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]


@given(seconds=st.lists(st.floats(0.0, 20.0), min_size=1, max_size=200), quantile=st.floats(0.01, 0.99))
def test_a_quantile_lies_in_the_bucket_of_the_observation_that_it_names(seconds, quantile):
    """The second way: sort what was observed and take the one whose rank the quantile names."""
    metrics = Metrics()
    for each in seconds:
        metrics.observe(NAME, each, "stable")
    histogram = metrics.histogram(NAME, "stable")
    assert histogram is not None
    found = quantile_of(tuple(accumulate(histogram.counts)), quantile)
    named = sorted(seconds)[min(int(np.ceil(quantile * len(seconds))), len(seconds)) - 1]
    edges = (0.0, *BUCKETS)
    place = int(np.searchsorted(BUCKETS, named))
    assert found is not None
    if place == len(BUCKETS):
        assert found == BUCKETS[-1]
    else:
        assert edges[place] <= found <= BUCKETS[place] * (1.0 + 1e-12)


def test_of_no_observations_and_of_one_look_there_is_no_quantile():
    assert quantile_of((0,) * (len(BUCKETS) + 1), 0.5) is None
    board, metrics = AlertBoard([RULES[1]]), Metrics()
    metrics.observe(NAME, 0.001, "stable")
    assert board.judge(0, metrics) == []
    metrics.observe(NAME, 0.001, "stable")
    (change,) = board.judge(STEP * SECOND, metrics)
    assert (change.state, change.labels) == ("firing", ("stable",))
    assert change.value == pytest.approx(0.0005)  # half way through the first bucket
