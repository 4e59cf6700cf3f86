"""The simple rules by hand, and none of them sees a later row."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from cryptoalpha.app.baselines import (
    RULES,
    baseline_weights,
    benchmark,
    daily_closes,
    daily_rows,
    daily_volatility,
    equal_weight_hold,
    hold,
    momentum_28,
    multi_speed_trend,
    shifted_copies,
    trend_50,
    volatility_targeted_hold,
)
from cryptoalpha.app.marks import newest_marks
from cryptoalpha.core.time import DAY, HOUR
from cryptoalpha.store.panel import Panel, build_panel
from cryptoalpha.store.tables import BarTable, Dataset, Floats

START = 20_000 * DAY
NAN = float("nan")


def panel_of(interval: int = 6 * HOUR, start: int = START, **closes: list[float]) -> Panel:
    """Bars that open where the last one closed; NaN = no bar."""
    bars = {}
    for name, values in closes.items():
        close = np.array(values)
        table = BarTable(
            instrument=f"{name}/USDT", interval=interval, open_time=start + interval * np.arange(len(close)), open=close, high=close,
            low=close, close=close, volume=np.ones(len(close)),
        )  # fmt: skip
        bars[f"{name}/USDT"] = table.take(np.isfinite(close))
    return build_panel(Dataset("by hand", bars), since=0, until=2**62)


def walk(days: int, assets: int, seed: int = 0) -> Floats:
    return 100.0 * np.exp(np.cumsum(0.03 * np.random.default_rng(seed).standard_normal((days, assets)), axis=0))


def test_rules_decide_where_a_day_ends() -> None:
    ten = [float(price) for price in range(1, 11)]
    assert daily_rows(panel_of(A=ten)).tolist() == [3, 7]  # the third day is not over
    assert daily_rows(panel_of(A=ten, start=START + 6 * HOUR)).tolist() == [2, 6]
    assert daily_rows(panel_of(A=ten, interval=DAY)).tolist() == list(range(10))
    assert daily_rows(panel_of(A=ten, interval=7 * DAY, start=START + 3 * DAY)).tolist() == list(range(10))


def test_an_outage_at_midnight_leaves_the_last_close_there_is() -> None:
    panel = panel_of(A=[1.0, 2.0, 3.0, NAN, 5.0, NAN, NAN, NAN, 9.0], B=[NAN, NAN, NAN, NAN, NAN, 6.0, 7.0, NAN, NAN])
    rows = daily_rows(panel)
    assert rows.tolist() == [3, 7]
    assert_array_equal(daily_closes(panel, rows), [[3.0, NAN], [5.0, 7.0]])


def test_a_day_cut_short_decides_nothing_that_the_whole_day_would_not() -> None:
    """The row of 18:00 must not decide because no later one is there yet, or because the 24:00 one never came."""
    prices = [1.0, 2.0, 3.0, NAN, 5.0, 6.0, 7.0, 8.0]
    whole = daily_rows(panel_of(A=prices))
    for length in (1, 2, 3, 5, 6, 7, 8):
        cut = panel_of(A=prices[:length])
        assert_array_equal(daily_rows(cut), whole[whole < len(cut)])


def test_what_is_held_is_bought_at_its_first_bar_where_a_period_begins_in_an_outage() -> None:
    """A is known from before the period but prints no bar at its start: an order decided there would come to nothing."""
    history = panel_of(A=[1.0, 2.0, NAN, 4.0, NAN, 6.0], B=[1.0] * 6)
    weights = baseline_weights(history, first_row=2)
    assert_array_equal(weights["hold A"], [[NAN, NAN], [1.0, NAN], [NAN, NAN], [NAN, NAN]])
    assert_array_equal(weights["equal-weight hold"], [[NAN, 0.5], [0.5, NAN], [NAN, NAN], [NAN, NAN]])


def test_hold_buys_one_instrument_once_it_has_a_price() -> None:
    closes = np.array([[NAN, 1.0], [2.0, 1.0], [3.0, 1.0]])
    assert_array_equal(hold(closes, 0), [[NAN, NAN], [1.0, NAN], [NAN, NAN]])
    assert_array_equal(equal_weight_hold(closes), [[NAN, 0.5], [0.5, NAN], [NAN, NAN]])
    assert benchmark(("ADA/USDT", "BTC/USDT")) == 1
    assert benchmark(("ADA/USDT", "ETH/USDT")) == 0


def test_volatility_is_the_sample_deviation_of_thirty_returns() -> None:
    closes = walk(40, 2)
    found = daily_volatility(closes)
    assert np.isnan(found[:30]).all()
    returns = np.diff(np.log(closes), axis=0)
    for day in range(30, 40):
        assert_allclose(found[day], returns[day - 30 : day].std(axis=0, ddof=1) * np.sqrt(365), rtol=1e-12)


def test_a_book_is_held_at_thirty_percent_volatility_and_never_geared() -> None:
    """Returns of ±r by turns: the sample deviation of thirty of them is r·√(30/29)."""
    calm, wild = (100.0 * np.exp(r * (np.arange(31) % 2)) for r in (0.001, 0.1))
    found = volatility_targeted_hold(np.column_stack([calm, wild]))[30]
    annual = 0.1 * np.sqrt(30 / 29 * 365)
    assert_allclose(found, [0.5, 0.5 * 0.30 / annual])
    assert_array_equal(volatility_targeted_hold(np.full((40, 1), 5.0)), np.zeros((40, 1)))  # a price that stands still has none


def test_trend_is_long_above_the_mean_of_fifty_days() -> None:
    closes = np.arange(1.0, 61.0)[:, None]
    closes[55] = 30.4  # the mean with the 49 days before it, 7 to 55, is (49 · 31 + 30.4) / 50 = 30.988
    assert trend_50(closes)[:, 0].tolist() == [0.0] * 49 + [1.0] * 6 + [0.0] + [1.0] * 4


def test_momentum_is_long_while_the_price_of_28_days_before_is_lower() -> None:
    closes = walk(60, 1, seed=3)
    expected = np.where(closes[40:] > closes[12:32], volatility_targeted_hold(closes)[40:], 0.0)
    assert_array_equal(momentum_28(closes)[40:], expected)
    assert 0 < (expected > 0).sum() < 20


def test_multi_speed_trend_second_way() -> None:
    closes = walk(80, 1, seed=5)
    found = multi_speed_trend(closes)
    for day in (35, 60, 79):
        strength = 0.0
        for span in (8, 16, 32, 64):
            level = closes[0, 0]
            for close in closes[1 : day + 1, 0]:
                level = level * (1 - 2 / (span + 1)) + close * 2 / (span + 1)
            sigma = np.diff(np.log(closes[day - 30 : day + 1, 0])).std(ddof=1)
            strength += np.tanh(np.log(closes[day, 0] / level) / (sigma * np.sqrt(span))) / 4
        share = min(1.0, 0.30 / (sigma * np.sqrt(365)))
        assert found[day, 0] == pytest.approx(max(0.0, strength) * share, rel=1e-9)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), assets=st.integers(1, 3), days=st.integers(1, 130), listed=st.integers(0, 40))
def test_no_rule_sees_a_later_day(seed: int, assets: int, days: int, listed: int) -> None:
    closes = walk(130, assets, seed)
    closes[:listed, 0] = NAN
    for rule in RULES.values():
        whole = rule(closes)
        assert_array_equal(rule(closes[:days]), whole[:days])
        assert np.isfinite(whole).all()
        assert (whole.sum(axis=1) <= 1.0 + 1e-12).all()


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), cut=st.integers(90, 239), gaps=st.sets(st.integers(91, 238), max_size=20))
def test_no_baseline_sees_a_later_row(seed: int, cut: int, gaps: set[int]) -> None:
    prices = walk(240, 2, seed)
    prices[sorted(gaps), 0] = NAN
    panel = panel_of(A=prices[:, 0].tolist(), B=prices[:, 1].tolist())
    whole, part = baseline_weights(panel, 80), baseline_weights(panel.rows(0, cut), 80)
    assert list(whole) == list(part)
    for name, weights in whole.items():
        assert_array_equal(part[name], weights[: cut - 80])


def test_a_period_begins_with_what_the_rules_had_decided_before() -> None:
    prices = walk(400, 1, seed=2)[:, 0].tolist()
    panel = panel_of(BTC=prices)
    first = 4 * 60 + 1  # a day after the sixtieth midnight
    for name, weights in baseline_weights(panel, first).items():
        if name == "hold BTC":
            assert_array_equal(weights[:2], [[1.0], [NAN]])
        else:
            decided = RULES[name](daily_closes(panel, daily_rows(panel)))
            assert weights[0, 0] == decided[59, 0]
            assert np.isnan(weights[1, 0])
            assert weights[2, 0] == decided[60, 0]
    assert "equal-weight hold" not in baseline_weights(panel, first)  # one instrument: the same as hold


def test_a_period_without_history_or_a_whole_day_still_has_every_baseline() -> None:
    found = baseline_weights(panel_of(A=[1.0, 2.0], B=[1.0, 1.0]), 0)
    assert set(found) == {"hold A", "equal-weight hold", *RULES}
    assert all(np.isnan(found[name]).all() for name in RULES)


def test_copies_are_moved_by_a_tenth_of_the_period_or_more() -> None:
    weights = np.arange(100.0)[:, None]
    copies = shifted_copies(weights, 50, np.random.default_rng(0))
    moves = {int(copy[0, 0]) for copy in copies}
    assert all(10 <= 100 - move <= 90 for move in moves)
    assert len(moves) > 20
    assert all(sorted(copy[:, 0]) == sorted(weights[:, 0]) for copy in copies)
    for short in (1, 2, 3):
        assert len(shifted_copies(weights[:short], 2, np.random.default_rng(0))) == 2


def test_marks_known_together_count_once_by_the_newest() -> None:
    times, equity = newest_marks(np.array([1, 3, 3, 3, 4]), np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    assert times.tolist() == [1, 3, 4]
    assert equity.tolist() == [1.0, 4.0, 5.0]
    assert newest_marks(np.empty(0, np.int64), np.empty(0))[0].size == 0


def test_a_bar_that_came_late_moves_no_decision() -> None:
    panel = panel_of(A=walk(240, 1)[:, 0].tolist())
    late = replace(panel, known_at=panel.known_at + HOUR)
    assert_array_equal(daily_rows(panel), daily_rows(late))
