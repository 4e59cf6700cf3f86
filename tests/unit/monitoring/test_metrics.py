"""Metrics: names that Prometheus likes, text that its own parser reads, an endpoint that stops and never takes another's port."""

from __future__ import annotations

import math
import mmap
import re
import shutil
import socket
import subprocess
import urllib.request
from urllib.error import URLError

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.monitoring.metrics import BUCKETS, METRICS, Metrics
from cryptoalpha.monitoring.metrics_exposition import MetricsEndpoint, exposition
from cryptoalpha.monitoring.process import memory_allowed, memory_used


def every_metric() -> Metrics:
    """A value for every metric there is, all different."""
    metrics = Metrics()
    for place, metric in enumerate(METRICS.values()):
        labels = [f'{name} with "quotes" \\ {place}' for name in metric.labels]
        if metric.kind == "gauge":
            metrics.set(metric.name, -0.1 * place, *labels)
        elif metric.kind == "counter":
            metrics.add(metric.name, 0.1 * place, *labels)
        else:
            metrics.observe(metric.name, 0.1 * place, *labels)
    return metrics


def parsed(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = text_string_to_metric_families(text)
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


@pytest.mark.parametrize("metric", METRICS.values(), ids=lambda metric: metric.name)
def test_a_name_says_its_unit_and_kind_and_the_help_is_a_sentence(metric):
    assert re.fullmatch(r"cryptoalpha_[a-z][a-z0-9_]*", metric.name)
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert metric.unit in metric.name.split("_")
    assert metric.help[0].isupper() or metric.help[0].isdigit()
    assert metric.help.endswith(".")
    assert not {"le", "quantile", "instance", "job"} & set(metric.labels)  # Prometheus' own


def test_the_text_form_is_read_by_prometheus_own_parser_with_every_value_and_label():
    metrics = every_metric()
    read = parsed(exposition(metrics))
    for metric in METRICS.values():
        if metric.kind != "histogram":
            for labels, value in metrics.labelled(metric.name):
                assert read[metric.name, tuple(sorted(zip(metric.labels, labels, strict=True)))] == value
    assert {name for name, _ in read} >= {metric.name for metric in METRICS.values() if metric.kind != "histogram"}


def test_a_histogram_is_kept_apart_by_its_labels():
    metrics = Metrics()
    for arm, seconds in (("stable", 0.02), ("stable", 0.2), ("canary", 0.1)):
        metrics.observe("cryptoalpha_prediction_seconds", seconds, arm)
    assert [(labels, sum(seen.counts)) for labels, seen in metrics.histograms("cryptoalpha_prediction_seconds")] == [
        (("canary",), 1),
        (("stable",), 2),
    ]
    read = parsed(exposition(metrics))
    edge = {arm: read["cryptoalpha_prediction_seconds_bucket", (("arm", arm), ("le", "0.1"))] for arm in ("stable", "canary")}
    assert edge == {"stable": 1.0, "canary": 1.0}
    assert read["cryptoalpha_prediction_seconds_sum", (("arm", "stable"),)] == pytest.approx(0.22)


def test_nan_and_infinity_travel_and_what_was_never_given_is_left_out():
    metrics = Metrics()
    metrics.set("cryptoalpha_value_at_risk_ratio", math.nan)
    metrics.set("cryptoalpha_limit_allowed", math.inf, "gross_cap")
    read = parsed(exposition(metrics))
    assert len(read) == 2
    assert math.isnan(read["cryptoalpha_value_at_risk_ratio", ()])
    assert read["cryptoalpha_limit_allowed", (("limit", "gross_cap"),)] == math.inf


def test_a_histogram_counts_what_is_at_most_each_edge():
    seconds = np.concatenate([np.random.default_rng(0).lognormal(-4.0, 2.0, 500), BUCKETS, [0.0, 1e9]])
    metrics = Metrics()
    for each in seconds:
        metrics.observe("cryptoalpha_step_seconds", float(each))
    read = parsed(exposition(metrics))
    for edge in BUCKETS:
        assert read["cryptoalpha_step_seconds_bucket", (("le", str(edge)),)] == (seconds <= edge).sum()
    assert read["cryptoalpha_step_seconds_bucket", (("le", "+Inf"),)] == read["cryptoalpha_step_seconds_count", ()] == seconds.size
    assert read["cryptoalpha_step_seconds_sum", ()] == pytest.approx(seconds.sum())


def test_a_copy_does_not_change_with_the_loop():
    metrics = every_metric()
    before = exposition(metrics)
    copy = metrics.copy()
    metrics.set("cryptoalpha_equity_quote", 7.0)
    metrics.observe("cryptoalpha_step_seconds", 7.0)
    assert exposition(copy) == before != exposition(metrics)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda m: m.set("cryptoalpha_nonsense", 1.0),
        lambda m: m.set("cryptoalpha_orders_total", 1.0, "buy"),
        lambda m: m.add("cryptoalpha_orders_total", 1.0),
        lambda m: m.add("cryptoalpha_orders_total", -1.0, "buy"),
        lambda m: m.add("cryptoalpha_orders_total", math.nan, "buy"),
        lambda m: m.observe("cryptoalpha_equity_quote", 1.0),
    ],
)
def test_a_name_a_kind_or_a_label_that_is_wrong_is_refused(wrong):
    with pytest.raises(ConfigError):
        wrong(Metrics())


def test_promtool_finds_nothing_to_criticise():
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian package prometheus): names and text were checked by prometheus_client only")
    done = subprocess.run([promtool, "check", "metrics"], input=exposition(every_metric()), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_endpoint_serves_what_is_there_now_on_loopback_and_stops():
    metrics = Metrics()
    endpoint = MetricsEndpoint(0, lambda: metrics)
    try:
        assert endpoint.url.startswith("http://127.0.0.1:")
        for equity in (1.0, 2.0):
            metrics.set("cryptoalpha_equity_quote", equity)
            with urllib.request.urlopen(endpoint.url, timeout=5) as answer:
                assert answer.headers["Content-Type"].startswith("text/plain; version=")
                assert parsed(answer.read().decode())["cryptoalpha_equity_quote", ()] == equity
    finally:
        endpoint.close()
    with pytest.raises(URLError):
        urllib.request.urlopen(endpoint.url, timeout=1)


def test_the_endpoint_of_a_container_listens_to_every_address():
    endpoint = MetricsEndpoint(0, Metrics, address="0.0.0.0")
    try:
        assert endpoint.url == f"http://0.0.0.0:{endpoint.port}/metrics"
        with urllib.request.urlopen(f"http://127.0.0.2:{endpoint.port}/metrics", timeout=5) as answer:
            assert answer.status == 200
    finally:
        endpoint.close()


def test_a_port_that_is_taken_is_a_setting_to_change():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(ConfigError, match="the port is taken") as refused:
            MetricsEndpoint(other.getsockname()[1], Metrics)
    assert "monitoring.metrics.port" in refused.value.hint


def test_memory_in_use_lies_below_what_is_allowed():
    used, allowed = memory_used(), memory_allowed()
    if used is None or allowed is None:
        pytest.skip("this system does not say how much memory a process uses")
    with mmap.mmap(-1, 64 << 20) as block:  # pages of its own: what the interpreter asks for may be memory it had before
        for page in range(0, len(block), mmap.PAGESIZE):
            block[page] = 1
        grown = memory_used()
    given_back = memory_used()
    assert grown is not None
    assert given_back is not None
    assert used + (48 << 20) < grown < allowed
    assert given_back < grown - (48 << 20)
