"""What must hold of tail risk for any returns and any book."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cryptoalpha.core.time import DAY, HOUR
from cryptoalpha.risk.config import TailConfig
from cryptoalpha.risk.market_memory import MarketMemory
from cryptoalpha.risk.tail.backtests import kupiec_pof
from cryptoalpha.risk.tail.components import component_var, scenario_components
from cryptoalpha.risk.tail.estimate import tail_risk
from cryptoalpha.risk.tail.losses import tail_of_losses
from cryptoalpha.risk.tail.walk import walk_forecasts

METHODS = ("historical", "normal", "cornish_fisher", "ewma", "filtered")
levels = st.floats(0.55, 0.995)
methods = st.sampled_from(METHODS)


@st.composite
def series(draw: st.DrawFn, least: int = 25, most: int = 120) -> np.ndarray:
    """Returns with whatever tails, never quite still."""
    seed, degrees, spread = draw(st.integers(0, 2**31)), draw(st.floats(2.5, 30.0)), draw(st.floats(1e-4, 0.1))
    rng = np.random.default_rng(seed)
    returns = spread * rng.standard_t(degrees, draw(st.integers(least, most)))
    jumps = draw(st.lists(st.tuples(st.integers(0, least - 1), st.floats(-0.9, 0.9)), max_size=3))
    for place, jump in jumps:
        returns[place] = jump
    return returns


@settings(max_examples=50, deadline=None)
@given(returns=series(), low=levels, high=levels, method=methods)
def test_value_at_risk_never_falls_with_the_level_and_shortfall_is_no_smaller(returns, low, high, method):
    low, high = min(low, high), max(low, high)
    below, above = (tail_risk(returns, level=level, method=method) for level in (low, high))
    assert all((found.reason is None) == (not math.isnan(found.value_at_risk)) for found in (below, above))
    assert below.reason is None or above.reason is not None
    assume(above.reason is None)
    slack = 1e-12 * (1.0 + abs(above.value_at_risk))
    assert below.value_at_risk <= above.value_at_risk + slack
    assert below.expected_shortfall <= above.expected_shortfall + slack
    assert below.value_at_risk <= below.expected_shortfall + slack


@settings(max_examples=50, deadline=None)
@given(returns=series(), level=levels, factor=st.floats(0.01, 100.0), shift=st.floats(-0.1, 0.1), method=methods)
def test_what_is_scaled_or_shifted_scales_or_shifts_its_tail(returns, level, factor, shift, method):
    plain, scaled = tail_risk(returns, level=level, method=method), tail_risk(factor * returns, level=level, method=method)
    assume(plain.reason is None and scaled.reason is None)
    assert scaled.value_at_risk == pytest.approx(factor * plain.value_at_risk, rel=1e-8, abs=1e-12)
    assert scaled.expected_shortfall == pytest.approx(factor * plain.expected_shortfall, rel=1e-8, abs=1e-12)
    if method in ("historical", "normal", "cornish_fisher"):  # the others take the mean as zero
        moved = tail_risk(returns + shift, level=level, method=method)
        assume(moved.reason is None)
        assert moved.value_at_risk == pytest.approx(plain.value_at_risk - shift, rel=1e-6, abs=1e-9)
        assert moved.expected_shortfall == pytest.approx(plain.expected_shortfall - shift, rel=1e-6, abs=1e-9)


@settings(max_examples=50, deadline=None)
@given(returns=series(least=1, most=60), level=levels)
def test_expected_shortfall_is_the_least_of_rockafellar_and_uryasev(returns, level):
    losses = -returns
    var, es = tail_of_losses(losses, level)
    assert var in losses
    values = [c + np.maximum(losses - c, 0.0).mean() / (1.0 - level) for c in losses]  # convex, its corners are the losses
    assert es == pytest.approx(min(values), rel=1e-9, abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**31), size=st.integers(1, 8), level=levels)
def test_components_sum_to_the_whole(seed, size, level):
    rng = np.random.default_rng(seed)
    root = rng.normal(0.0, 0.03, (size, size + 2))
    weights, mean = rng.normal(0.0, 0.5, size), rng.normal(0.0, 0.001, size)
    normal = component_var(weights, root @ root.T, level=level, mean=mean)
    drawn = scenario_components(weights, rng.standard_t(4, (50, size)) * 0.03, level=level)
    for found in (normal, drawn):
        assert found.component.sum() == pytest.approx(found.value_at_risk, rel=1e-9, abs=1e-14)
        assert found.shortfall_component.sum() == pytest.approx(found.expected_shortfall, rel=1e-9, abs=1e-14)
        assert found.component == pytest.approx(weights * found.marginal, rel=1e-12)


@settings(max_examples=30, deadline=None)
@given(returns=series(), more=series())
def test_shortfall_of_two_books_is_no_larger_than_the_two(returns, more):
    size = min(len(returns), len(more))
    one, other = -returns[:size], -more[:size]
    together = tail_of_losses(one + other, 0.9)[1]
    assert together <= tail_of_losses(one, 0.9)[1] + tail_of_losses(other, 0.9)[1] + 1e-12


@settings(max_examples=30, deadline=None)
@given(returns=series(least=45), cut=st.integers(31, 44), method=methods)
def test_a_walk_never_sees_the_future(returns, cut, method):
    whole = walk_forecasts(returns, window=30, methods=[method])[method]
    poisoned = returns.copy()
    poisoned[cut:] = 7.0
    for other in (returns[:cut], poisoned):
        found = walk_forecasts(other, window=30, methods=[method])[method]
        np.testing.assert_array_equal(found.value_at_risk[: cut - 30], whole.value_at_risk[: cut - 30])
        np.testing.assert_array_equal(found.expected_shortfall[: cut - 30], whole.expected_shortfall[: cut - 30])


@settings(max_examples=50, deadline=None)
@given(observations=st.integers(2, 2000), level=levels, data=st.data())
def test_kupiec_is_a_probability_and_highest_at_what_was_promised(observations, level, data):
    hits = data.draw(st.integers(0, observations))
    found = kupiec_pof(hits, observations, level)
    assert 0.0 <= found.p_value <= 1.0
    further = hits + 1 if hits >= observations * (1.0 - level) else hits - 1
    if 0 <= further <= observations:
        assert kupiec_pof(further, observations, level).p_value <= found.p_value


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    cut=st.integers(45, 69),
    method=st.sampled_from(["filtered", "historical", "normal"]),
    holes=st.floats(0.0, 0.5),
)
def test_the_market_memory_never_sees_the_future(seed, cut, method, holes):
    rng = np.random.default_rng(seed)
    closes = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.03, (70 * 4, 3)), axis=0))
    closes[rng.random(closes.shape) < holes] = math.nan
    poisoned = closes.copy()
    poisoned[cut * 4 :] = 1e6
    names, expected = ("A", "B", "C"), {"A": 0.5, "B": 2.0}
    told = []
    for prices in (closes, closes[: cut * 4], poisoned):
        memory = MarketMemory(TailConfig(method=method, history_days=40, least_days=15))
        for quarter, row in enumerate(prices.tolist(), start=1):
            memory.observe(quarter * DAY // 4, 6 * HOUR, names, row, (1.0, 2.0, 3.0))
            if quarter == cut * 4:
                told.append([memory.scenarios(names, expected), memory.correlation(names), memory.daily_value(names)])
    for other in told[1:]:
        for one, two in zip(told[0], other, strict=True):
            np.testing.assert_array_equal(one, two)
    assert len(told) == 3
    assert (told[0][0][~np.isnan(told[0][0])] >= -1.0).all()
    assert (np.abs(told[0][1]) <= 1.0).all()
