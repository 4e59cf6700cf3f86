"""Stress: each one by hand, totals are sums, and harder is never milder."""

from __future__ import annotations

import itertools
import math
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from cryptoalpha.core.errors import ConfigError, DataError, DataMissingError
from cryptoalpha.core.time import DAY, SECOND
from cryptoalpha.risk.crises import CRISES, Crisis
from cryptoalpha.risk.stress import correlation_shock, exchange_outage, gap, historical, liquidity_drought, worst_gap

COVID = next(crisis for crisis in CRISES if crisis.name == "covid_2020")
books = st.lists(st.floats(-1, 1), min_size=1, max_size=6).map(np.array)
severities = st.tuples(st.floats(0, 3), st.floats(0, 3)).map(sorted)


def days_of(crisis: Crisis, before: int = 3, after: int = 3) -> np.ndarray:
    start = datetime(crisis.first.year, crisis.first.month, crisis.first.day, tzinfo=UTC).timestamp()
    length = (crisis.last - crisis.first).days + 1
    return int(start) * SECOND + DAY * np.arange(-before, length + after)


def some_returns(seed: int, periods: int, assets: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.0, 0.05, (periods, assets)).clip(-0.9)


def covariance_of(seed: int, assets: int) -> np.ndarray:
    x = some_returns(seed, 30, assets)
    return x.T @ x / 30


def test_a_crisis_by_hand():
    days = days_of(COVID)
    returns = np.zeros((len(days), 2))
    returns[0] = -0.9  # before it began
    returns[8] = [-0.4, -0.5]  # 12 March
    returns[9] = [0.5, 0.1]
    found = historical([0.5, -0.2], returns, days, COVID)
    assert_allclose(found.by_position, [-0.2, 0.1])
    assert found.total == pytest.approx(-0.1)
    assert "day 6 of 7" in found.what
    assert_allclose(historical([0.5, -0.2], returns, days, COVID, severity=3.0).by_position, [-0.5, 0.2])  # no price below zero


def test_a_crisis_that_is_not_stored_is_not_made_up():
    days = days_of(COVID)[:8]
    with pytest.raises(DataMissingError, match="7 days from 2020-03-07, 5 of them"):
        historical([0.5], np.zeros((8, 1)), days, COVID)
    days = days_of(COVID)
    holes = np.zeros((len(days), 2))
    holes[5, 1] = np.nan
    assert historical([0.5, 0.0], holes, days, COVID).total == 0.0  # of an instrument nobody holds
    with pytest.raises(DataError, match="1 of the 2 positions"):
        historical([0.5, 0.1], holes, days, COVID)
    assert_array_equal(historical([0.0, 0.0], holes, days, COVID).by_position, [0.0, 0.0])


def test_crises_are_named_once_and_in_order():
    assert len({crisis.name for crisis in CRISES}) == len(CRISES)
    assert all(before.last < after.first for before, after in itertools.pairwise(CRISES))
    assert all(crisis.first < crisis.last for crisis in CRISES)


def test_history_that_broke_is_found_in_real_data(market_data):
    duckdb = pytest.importorskip("duckdb")
    lows = {"covid_2020": (-0.6, -0.4), "terra_2022": (-0.35, -0.2), "ftx_2022": (-0.35, -0.2)}
    query = "select epoch_ms(ts) // 86400000 as day, last(close order by ts) from read_parquet(?) group by 1 order by 1"
    file = str(market_data / "price_1h" / "BTCUSDT.parquet")
    days, close = duckdb.connect(":memory:").execute(query, [file]).fetchnumpy().values()
    returns = close[1:] / close[:-1] - 1.0
    for crisis in CRISES:
        found = historical([1.0], returns[:, None], days[1:].astype(np.int64) * DAY, crisis).total
        assert found < -0.1, crisis.name
        low, high = lows.get(crisis.name, (-0.7, -0.1))
        assert low < found < high, crisis.name


def test_correlation_against_the_book_by_hand():
    covariance = np.array([[0.04, 0.0], [0.0, 0.09]])
    found = correlation_shock([0.5, -0.5], covariance, deviations=2.0)
    assert_allclose(found.by_position, [-0.2, -0.3])  # 2 · ½ · .2 and 2 · ½ · .3: the hedge fails
    apart = correlation_shock([0.5, -0.5], covariance, towards_one=0.0, deviations=2.0)
    assert apart.total == pytest.approx(-2.0 * math.sqrt(0.25 * 0.13))
    assert correlation_shock([0.0, 0.0], covariance).total == 0.0


def test_a_gap_by_hand():
    assert_allclose(gap([0.5, -0.2], [-0.3, 0.1]).by_position, [-0.15, -0.02])
    assert gap([0.5], -0.6, severity=2.0).total == -0.5
    assert worst_gap([0.5, -0.2], 0.1).total == pytest.approx(-0.03)
    assert worst_gap([0.2, -0.5], 0.1).total == pytest.approx(-0.03)
    assert worst_gap([-0.5], 2.0).total == pytest.approx(-1.0)  # a short has no floor


def test_a_drought_by_hand():
    # half a spread of .001 / .25; a position of 100 in a market of .25 · 1600 moves it by σ · √(100 / 400)
    found = liquidity_drought([0.1, -0.1], [1600.0, np.nan], [0.04, 0.04], equity=1000.0, volume_share=0.25)
    assert_allclose(found.by_position, [-0.1 * (0.004 + 0.02), -0.1])  # where nobody trades, all of it


def test_an_outage_is_a_stretch_that_happened():
    returns = np.zeros((101, 2))
    returns[50], returns[51] = [-0.1, 0.0], [-0.1, 0.02]
    found = exchange_outage([1.0, -0.5], returns, 2, level=0.99)  # 100 stretches: the second worst
    assert found.total == pytest.approx(-0.11)
    assert_allclose(found.by_position, [-0.1, -0.01])
    assert exchange_outage([1.0, -0.5], returns, 2, level=0.999).total == pytest.approx(0.81 - 1.0 - 0.01)


@settings(max_examples=50)
@given(books, severities, st.integers(0, 1000))
def test_harder_is_never_milder(weights, severity, seed):
    mild, hard = severity
    n = len(weights)
    sizes = np.abs(weights)  # a rise helps a long: monotone is what can only hurt
    days = days_of(COVID)
    falls = -np.abs(some_returns(seed, len(days), n))
    covariance = covariance_of(seed, n)
    values, sd = np.full(n, 1e6), np.sqrt(np.diag(covariance))
    bars = some_returns(seed, 50, n)
    share = min(mild, 3.0) / 3.0, min(hard, 3.0) / 3.0
    pairs = [
        [historical(sizes, falls, days, COVID, severity=s) for s in severity],
        [correlation_shock(weights, covariance, deviations=s) for s in severity],
        [correlation_shock(weights, covariance, towards_one=s) for s in share],
        [gap(sizes, -0.2, severity=s) for s in severity],
        [worst_gap(weights, s) for s in severity],
        [liquidity_drought(weights, values, sd, equity=1e6, volume_share=1.0 / (1.0 + s)) for s in severity],
        [liquidity_drought(weights, values, sd, equity=1e6, impact=s) for s in severity],
        [exchange_outage(weights, bars, 3, level=0.5 + s / 6.1) for s in severity],
    ]
    for milder, harder in pairs:
        assert harder.total <= milder.total + 1e-12, milder.name
        assert harder.total == pytest.approx(sum(harder.by_position))
        assert harder.by_position.shape == (n,)
        assert harder.what


@settings(max_examples=50)
@given(books, st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(sorted), st.integers(0, 1000))
def test_a_book_that_is_hurt_is_hurt_no_less_by_more(weights, severity, seed):
    days = days_of(COVID)
    returns = some_returns(seed, len(days), len(weights))
    jumps = some_returns(seed, 1, len(weights))[0]
    for mild, hard in (
        [historical(weights, returns, days, COVID, severity=s) for s in severity],
        [gap(weights, jumps, severity=s) for s in severity],
    ):
        assert mild.total >= 0.0 or hard.total <= mild.total + 1e-15


def test_a_short_can_gain_from_a_fall_but_a_drought_costs_everybody():
    assert gap([-0.5], -0.2).total == pytest.approx(0.1)
    assert liquidity_drought([-0.5], [1e6], [0.05], equity=1e6).total < 0.0


def test_what_cannot_be_stressed_is_refused():
    with pytest.raises(DataError, match="returns"):
        historical([0.5], np.zeros((3, 2)), np.zeros(3), COVID)
    with pytest.raises(ConfigError, match="severity"):
        gap([0.5], -0.1, severity=-1.0)
    with pytest.raises(DataError, match="gaps"):
        gap([0.5], [-1.5])
    with pytest.raises(DataError, match="weights for a covariance"):
        correlation_shock([0.5], np.eye(2))
    with pytest.raises(ConfigError, match="towards_one"):
        correlation_shock([0.5], np.eye(1), towards_one=1.5)
    with pytest.raises(DataError, match="one size"):
        liquidity_drought([0.5], [1.0, 2.0], [0.1], equity=1.0)
    with pytest.raises(ConfigError, match="out of range"):
        liquidity_drought([0.5], [1.0], [0.1], equity=0.0)
    with pytest.raises(DataError, match="weights for returns"):
        exchange_outage([0.5], np.zeros((9, 2)), 2)
    with pytest.raises(ConfigError, match="bars"):
        exchange_outage([0.5], np.zeros((9, 1)), 0)
    with pytest.raises(DataMissingError, match="outage of 10"):
        exchange_outage([0.5], np.zeros((9, 1)), 10)
