"""Measures kept up to date return by return equal those of the whole series; stretches join; a restart changes no bit."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.monitoring import measures as m
from cryptoalpha.monitoring.significance import sharpe_moments

moves = st.one_of(st.floats(-0.9, 2.0).map(lambda x: round(x, 6)), st.just(0.0), st.sampled_from([-1.0, 1.0, -0.5]))
series = st.lists(moves, max_size=60)
PPY = 365


def streamed(returns, **options):
    metrics = m.StreamingMetrics(**options)
    metrics.extend(returns)
    return metrics


def near(ours, theirs, *, slack=0.0):
    return (math.isnan(ours) and math.isnan(theirs)) or ours == pytest.approx(theirs, rel=1e-12, abs=slack)


def check(metrics, returns, mar=0.0):
    """Every measure against the batch function, and NaN exactly where a reason is given."""
    r = np.array(returns, dtype=float)
    drawdown, moments = m.max_drawdown(r), sharpe_moments(r)
    spread = max(moments.kurtosis, 1.0) * 1e-12
    pairs = {
        "annual_volatility": (metrics.annual_volatility(periods_per_year=PPY), m.annual_volatility(r, periods_per_year=PPY), 0.0),
        "sharpe_ratio": (metrics.sharpe_ratio(periods_per_year=PPY), m.sharpe_ratio(r, periods_per_year=PPY), 1e-13 * PPY),
        "sortino_ratio": (metrics.sortino_ratio(periods_per_year=PPY), m.sortino_ratio(r, periods_per_year=PPY, mar=mar), 1e-12 * PPY),
        "profit_factor": (metrics.profit_factor(), m.profit_factor(r), 0.0),
        "win_rate": (metrics.win_rate(), m.win_rate(r), 0.0),
        "cagr": (metrics.cagr(periods_per_year=PPY), m.cagr(r, periods_per_year=PPY), 1e-12),
        "drawdown": (metrics.drawdown(), m.drawdown_curve(r)[-1], 1e-12),
        "max_drawdown": (metrics.max_drawdown(), drawdown.depth, 1e-12),
        "calmar_ratio": (metrics.calmar_ratio(periods_per_year=PPY), m.calmar_ratio(r, periods_per_year=PPY), 1e-10),
    }
    for name, (ours, theirs, slack) in pairs.items():
        assert near(ours, theirs, slack=slack), (name, ours, theirs)
        assert math.isnan(ours) == (metrics.explain(name) is not None), name
        if mar == 0.0 and "drawdown" not in name:
            assert metrics.explain(name) == m.explain_undefined(name, r)
    assert metrics.count == moments.observations
    assert near(metrics.moments().skewness, moments.skewness, slack=spread)
    assert near(metrics.moments().kurtosis, moments.kurtosis, slack=spread)
    return drawdown


@settings(max_examples=50, deadline=None)
@given(returns=series, mar=st.sampled_from([0.0, 0.01]))
def test_one_pass_equals_the_batch_functions(returns, mar):
    metrics = streamed(returns, mar=mar)
    assert metrics.longest_underwater() == check(metrics, returns, mar).longest_underwater


@settings(max_examples=50, deadline=None)
@given(returns=series, cuts=st.lists(st.integers(0, 60), max_size=4), backwards=st.booleans())
def test_joined_stretches_equal_the_whole_in_any_grouping(returns, cuts, backwards):
    edges = [0, *sorted(min(cut, len(returns)) for cut in cuts), len(returns)]
    parts = [streamed(returns[a:b], mergeable=True) for a, b in pairwise(edges)]
    while len(parts) > 1:
        k = len(parts) - 2 if backwards else 0
        parts[k].merge(parts.pop(k + 1))
    check(parts[0], returns)


@settings(max_examples=50, deadline=None)
@given(steps=st.lists(st.sampled_from([-0.5, 0.0, 1.0, -0.75, 3.0]), max_size=40), cut=st.integers(0, 40), again=st.integers(0, 40))
def test_time_under_water_is_exact_across_stretches(steps, cut, again):
    # growth by powers of two is exact, so peaks are regained to the last bit and ties count
    a, b = sorted((min(cut, len(steps)), min(again, len(steps))))
    last = streamed(steps[b:], mergeable=True)
    middle = streamed(steps[a:b], mergeable=True)
    middle.merge(last)
    whole = streamed(steps[:a])
    whole.merge(middle)
    one = streamed(steps)
    assert whole.longest_underwater() == one.longest_underwater() == m.max_drawdown(steps).longest_underwater
    assert (whole.path.underwater, whole.path.wealth, whole.path.peak) == (one.path.underwater, one.path.wealth, one.path.peak)
    assert whole.max_drawdown() == one.max_drawdown() == m.max_drawdown(steps).depth


@settings(max_examples=50, deadline=None)
@given(returns=series, cut=st.integers(0, 60), mergeable=st.booleans())
def test_a_restart_from_its_state_changes_no_bit(returns, cut, mergeable):
    first = streamed(returns[:cut], mergeable=mergeable)
    for encode, decode in (
        (json.dumps, json.loads),
        (msgspec.json.encode, msgspec.json.decode),
        (msgspec.msgpack.encode, msgspec.msgpack.decode),
    ):
        restarted = m.StreamingMetrics.from_state(decode(encode(first.state())))
        restarted.extend(returns[cut:])
        assert restarted.state() == streamed(returns, mergeable=mergeable).state()


def test_a_level_under_the_returns_costs_no_digits():
    r = np.random.default_rng(5).normal(0.0, 0.02, 4000)
    metrics = streamed(r + 1e4)
    assert metrics.annual_volatility(periods_per_year=1) == pytest.approx(float(np.std(r, ddof=1)), rel=1e-9)


def test_what_cannot_be_counted_or_joined_is_refused():
    metrics = streamed([0.1])
    before = metrics.state()
    with pytest.raises(DataError, match="return 1 is nan"):
        metrics.update(math.nan)
    assert metrics.state() == before
    with pytest.raises(ConfigError, match="record highs"):
        metrics.merge(streamed([0.1]))
    with pytest.raises(ConfigError, match="mar"):
        metrics.merge(streamed([0.1], mar=0.01, mergeable=True))
    with pytest.raises(ConfigError, match="no streaming measure"):
        metrics.explain("sharpe")
    with pytest.raises(DataError, match="fields"):
        m.StreamingMetrics.from_state({"count": 1})
    with pytest.raises(DataError, match="wealth path"):
        m.StreamingMetrics.from_state(before | {"path": {}})


def test_growth_too_large_to_represent_is_undefined():
    metrics = streamed([9.0])
    assert math.isnan(metrics.cagr(periods_per_year=365))
    assert metrics.explain("calmar_ratio") == "equity never fell below its peak"
    for name in ("cagr", "calmar_ratio"):
        fallen = streamed([9.0, -0.5])
        assert math.isnan(getattr(fallen, name)(periods_per_year=10_000))
        assert fallen.explain(name, periods_per_year=10_000) == "growth per year is too large to represent"


def test_wealth_below_zero_has_no_drawdown_and_says_so():
    metrics = streamed([0.1, -1.5, 0.2])
    for name in ("max_drawdown", "drawdown", "longest_underwater", "calmar_ratio", "cagr"):
        assert metrics.explain(name) == "wealth fell below zero"
    assert math.isnan(metrics.max_drawdown())
    assert math.isnan(metrics.drawdown())
    assert math.isnan(metrics.longest_underwater())
