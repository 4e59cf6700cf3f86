"""What must hold for every return series; empyrical computes the same numbers a second way."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cryptoalpha.monitoring import measures as m

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import empyrical

moves = st.floats(-0.2, 0.2).map(lambda x: round(x, 6))
series = st.lists(moves, min_size=3, max_size=120).map(np.array)
ANNUAL = ("sharpe_ratio", "sortino_ratio", "calmar_ratio", "cagr", "annual_volatility")
LUCK = ("probabilistic_sharpe_ratio", "deflated_sharpe_ratio", "min_track_record_length")
MEASURES = (*ANNUAL, *LUCK, "omega_ratio", "profit_factor", "win_rate")


def same(ours: float, theirs: float) -> bool:
    return ours == pytest.approx(theirs, rel=1e-10, abs=1e-10)


@settings(max_examples=50, deadline=None)
@given(r=series)
def test_measures_equal_empyrical(r):
    assume(np.ptp(r) > 1e-4 and r.min() < -1e-5)
    assert same(m.sharpe_ratio(r, periods_per_year=365), empyrical.sharpe_ratio(r, annualization=365))
    assert same(m.sortino_ratio(r, periods_per_year=365), empyrical.sortino_ratio(r, annualization=365))
    assert same(m.annual_volatility(r, periods_per_year=365), empyrical.annual_volatility(r, annualization=365))
    assert same(m.max_drawdown(r).depth, -empyrical.max_drawdown(r))  # theirs is negative
    assert same(m.omega_ratio(r), empyrical.omega_ratio(r))
    assert same(m.cagr(r, periods_per_year=365), empyrical.annual_return(r, annualization=365))
    assert same(m.calmar_ratio(r, periods_per_year=365), empyrical.calmar_ratio(r, annualization=365))


@settings(max_examples=50, deadline=None)
@given(r=st.one_of(st.lists(st.floats(-1.5, 3.0), max_size=12), st.lists(st.sampled_from([0.0, 1.0]), max_size=6)))
def test_a_measure_is_nan_exactly_where_a_reason_is_given(r):
    for name in MEASURES:
        function = getattr(m, name)
        arguments = {"periods_per_year": 365} if name in ANNUAL else {"trials": 7} if name == "deflated_sharpe_ratio" else {}
        value = function(r, **arguments)
        assert not math.isinf(value)
        assert math.isnan(value) == (m.explain_undefined(name, r) is not None), name


@settings(max_examples=50, deadline=None)
@given(r=series, scale=st.floats(0.1, 10.0))
def test_sharpe_does_not_depend_on_the_size_of_the_bet(r, scale):
    assume(np.ptp(r) > 1e-4)
    assert same(m.sharpe_ratio(r * scale, periods_per_year=365), m.sharpe_ratio(r, periods_per_year=365))


@settings(max_examples=50, deadline=None)
@given(r=series, cut=st.integers(0, 120))
def test_drawdown_never_shrinks_as_data_is_appended(r, cut):
    assert m.max_drawdown(r).depth >= m.max_drawdown(r[:cut]).depth


@settings(max_examples=50, deadline=None)
@given(r=series)
def test_drawdown_agrees_with_a_search_over_all_pairs(r):
    w = [1.0]
    for x in r:
        w.append(w[-1] * (1.0 + x))
    slow = max(1.0 - w[j] / w[i] for j in range(len(w)) for i in range(j + 1))
    assert m.max_drawdown(r).depth == pytest.approx(slow, abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(hits=st.integers(0, 200), misses=st.integers(0, 200))
def test_wilson_interval_holds_the_rate_and_stays_within_zero_and_one(hits, misses):
    assume(hits + misses > 0)
    low, high = m.wilson_interval(hits, hits + misses)
    assert 0.0 <= low <= hits / (hits + misses) + 1e-12
    assert hits / (hits + misses) - 1e-12 <= high <= 1.0


def test_probabilistic_sharpe_ratio_is_uniform_where_there_is_no_skill():
    rng = np.random.default_rng(11)
    values = np.array([m.probabilistic_sharpe_ratio(rng.normal(size=200)) for _ in range(600)])
    for level in (0.1, 0.5, 0.9):
        assert abs(float(np.mean(values < level)) - level) < 0.06  # three standard errors of a share of 600
