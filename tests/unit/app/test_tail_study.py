"""Days beside their forecasts, and where a result came from: worked out on series small enough to check by hand."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from cryptoalpha.app.book_forecasts import JudgedDay
from cryptoalpha.app.period import Period
from cryptoalpha.app.report.view import regime_note
from cryptoalpha.app.result_tables import UNKNOWN, by_regime, market_states
from cryptoalpha.app.tail_study import daily_closes, shortfall_test, study_tails, tail_test
from cryptoalpha.core.time import DAY, HOUR, parse_time
from cryptoalpha.data.config import SimulatedConfig
from cryptoalpha.data.simulated import simulate
from cryptoalpha.monitoring.daily import DailyReturns
from cryptoalpha.risk.config import TailConfig
from cryptoalpha.risk.tail.laws import normal_factors
from cryptoalpha.risk.tail.walk import WalkForecasts
from cryptoalpha.store.tables import Dataset, Floats

START = parse_time("2022-01-01")


@pytest.fixture(scope="module")
def market() -> Dataset:
    return simulate(SimulatedConfig(assets=2, bars=24 * 200), seed=5).dataset


def book_of(returns: list[float], start: int = START) -> DailyReturns:
    days = start + DAY * np.arange(len(returns))
    return DailyReturns(days, np.array(returns), np.cumprod([1.0, *(1.0 + np.array(returns))]))


def test_a_day_ends_with_the_last_close_known_at_midnight(market: Dataset) -> None:
    table = market.bars["SIM1/USDT"]
    first = int(table.open_time[0])
    part = table.take((table.open_time >= first) & (table.open_time < first + 2 * DAY + 5 * HOUR))
    late = part.take(np.arange(len(part)) != 23)  # the last bar of the first day never came
    ends, close = daily_closes(late)
    assert ends.tolist() == [first + DAY, first + 2 * DAY]  # the third day is not over
    assert close.tolist() == [part.close[22], part.close[47]]


def test_what_the_gate_said_is_judged_by_what_its_book_did(market: Dataset) -> None:
    judged = [
        JudgedDay(START + k * DAY, loss, var, 1.2 * var, 0.975) for k, loss, var in ((0, 0.03, 0.02), (2, 0.05, 0.06), (3, 0.02, 0.01))
    ]
    book = book_of([0.5, -0.5, 0.5, -0.5])  # what the run's own days brought says nothing of the books that were forecast
    study = study_tails(market, (), Period(START, START + 4 * DAY), book, judged, TailConfig())
    (found,) = study.tests
    assert (found.method, found.days, found.refused, found.exceedances) == ("the gate", 3, 0, 2)
    assert found.expected == pytest.approx(3 * 0.025)
    assert found.mean_value_at_risk == pytest.approx(0.03)


def test_with_little_history_forecasts_begin_later_and_with_none_there_are_none(market: Dataset) -> None:
    period = Period(START + 100 * DAY, START + 200 * DAY)
    study = study_tails(market, ("SIM1/USDT",), period, book_of([]), [], TailConfig())
    assert {one.days + one.refused for one in study.tests} == {100}  # 99 returns lie before the period, all are drawn from
    whole = study_tails(market, ("SIM1/USDT",), Period(START, START + 200 * DAY), book_of([]), [], TailConfig(least_days=80))
    assert {one.days + one.refused for one in whole.tests} == {199 - 80}
    assert study_tails(market, ("SIM1/USDT",), Period(START, START + 50 * DAY), book_of([]), [], TailConfig()).tests == ()


def test_days_after_the_period_are_not_studied_and_days_bear_their_own_date(market: Dataset) -> None:
    study = study_tails(market, ("SIM1/USDT",), Period(START + 100 * DAY, START + 150 * DAY), book_of([]), [], TailConfig())
    assert {one.days + one.refused for one in study.tests} == {50}
    (series,) = study.series
    assert series.times.tolist() == (START + DAY * np.arange(100, 150)).tolist()  # 00:00 UTC at which each began
    ends, close = daily_closes(market.bars["SIM1/USDT"])
    ended = int(np.searchsorted(ends, START + 101 * DAY))
    assert series.returns[0] == pytest.approx(close[ended] / close[ended - 1] - 1.0)


def forecasts(losses: Floats, var: float, es: float, level: float = 0.95) -> WalkForecasts:
    return WalkForecasts("normal", level, 0, losses, np.full(losses.size, var), np.full(losses.size, es))


def test_shortfall_by_hand() -> None:
    losses = np.zeros(100)
    losses[[3, 50, 90]] = 0.06, 0.05, 0.04
    found = shortfall_test(forecasts(losses, 0.03, 0.04))
    assert found.statistic == pytest.approx(1.0 - 0.15 / 0.04 / 5.0)
    assert 0.5 < found.p_value < 0.9  # three of five expected
    assert shortfall_test(forecasts(np.zeros(100), 0.03, 0.04)).p_value == 1.0
    assert shortfall_test(forecasts(losses, 0.0, 0.0)).reason == "no observations"


def test_right_shortfalls_are_accepted_and_too_small_ones_are_not_although_the_days_are_as_many_as_forecast() -> None:
    """Normal and Student losses: the null is drawn from the two figures alone and still rejects about one right forecast in twenty."""
    rejected = {"normal": 0, "student": 0, "too small": 0}
    var, es = normal_factors(0.95)
    student_var, student_es = 2.131847, 3.2029  # of Student's t with 4 degrees of freedom, 95 %
    for seed in range(60):
        rng = np.random.default_rng(seed)
        rejected["normal"] += shortfall_test(forecasts(rng.standard_normal(500), var, es)).p_value < 0.05
        heavy = rng.standard_t(4, 500)
        rejected["student"] += shortfall_test(forecasts(heavy, student_var, student_es)).p_value < 0.05
        rejected["too small"] += shortfall_test(forecasts(heavy, student_var, 0.6 * student_es)).p_value < 0.05
    assert rejected["normal"] <= 8  # 3, and three standard errors
    assert rejected["student"] <= 8
    assert rejected["too small"] >= 30


def test_a_verdict_says_that_days_lost_more_than_expected() -> None:
    losses = np.zeros(400)
    losses[[10, 100, 200, 300]] = 0.5
    found = tail_test("the book", forecasts(losses, 0.03, 0.04, 0.99))
    assert (found.exceedances, found.expected) == (4, pytest.approx(4.0))
    assert found.shortfall_z == pytest.approx(1.0 - 4 * 12.5 / 4.0)
    assert found.shortfall_p < 0.01
    assert found.verdict == "about as many as forecast, but they lost more than expected"


def test_of_an_idle_book_nothing_is_forecast(market: Dataset) -> None:
    """A loss of nothing is no forecast: 90 days that kept it would look like a test that was passed."""
    study = study_tails(market, (), Period(START, START + 90 * DAY), book_of([0.0] * 90), [], TailConfig())
    assert study.tests == ()


def test_a_book_that_began_late_is_judged_from_when_it_moved(market: Dataset) -> None:
    moves = [-0.02, *np.random.default_rng(3).normal(0.0, 0.02, 59).tolist()]
    study = study_tails(market, (), Period(START, START + 150 * DAY), book_of([0.0] * 90 + moves), [], TailConfig())
    found = {one.method: one for one in study.tests}
    assert found["historical"].days == 59  # a loss of nothing was forecast for the 30 days without a book and for its first
    assert found["historical"].refused == 31


def test_states_of_the_market_are_told_from_the_past_alone(market: Dataset) -> None:
    days = START + DAY * np.arange(1, 190)
    states = market_states(market, tuple(market.bars), days)
    assert states[:79] == [UNKNOWN] * 79
    assert UNKNOWN not in states[80:]
    cut = START + 150 * DAY
    past = market_states(market.known_until(cut), tuple(market.bars), days[days <= cut])
    assert past == states[: len(past)]


def storm(dataset: Dataset, since: int, size: float) -> Dataset:
    """The same market, but from `since` on every close jumps up and down by `size`: a poison that moves any median of volatility."""
    bars = {}
    for name, table in dataset.bars.items():
        jumps = np.where(table.open_time >= since, 1.0 + size * (-1.0) ** (table.open_time // DAY), 1.0)
        moved = {field: getattr(table, field) * jumps for field in ("open", "high", "low", "close")}
        bars[name] = dataclasses.replace(table, **moved)
    return dataclasses.replace(dataset, bars=bars)


@pytest.mark.parametrize("day", range(85, 190, 7))
@pytest.mark.parametrize("size", [0.0, 0.9])
def test_no_later_day_moves_the_median_that_volatility_is_told_by(market: Dataset, day: int, size: float) -> None:
    """Were the median of all days taken, a stormy or a dead calm future would change labels of the past."""
    names, cut = tuple(market.bars), START + day * DAY
    days = START + DAY * np.arange(80, day + 1)
    poison = storm(market, cut, size) if size else market.known_until(cut)
    assert market_states(poison, names, days) == market_states(market, names, days)


def test_states_by_hand(market: Dataset) -> None:
    """Volatility of 20 days against the median of all before, on the index of two instruments, a slow second way."""
    names = tuple(market.bars)
    closes = np.array([daily_closes(market.bars[name])[1] for name in names])
    ends = daily_closes(market.bars[names[0]])[0]
    index = np.cumprod(np.append(1.0, (closes[:, 1:] / closes[:, :-1]).mean(axis=0)))
    moves = np.diff(np.log(index))
    for d in range(80, len(ends), 11):
        spreads = [np.std(moves[k - 20 : k], ddof=1) for k in range(20, d + 1)]
        words = ("rising" if index[d] > index[d - 50] else "falling", "volatile" if spreads[-1] > np.median(spreads) else "calm")
        assert market_states(market, names, ends[d : d + 1]) == [", ".join(words)]


def test_regimes_that_were_believed_in_go_before_those_of_the_market(market: Dataset) -> None:
    book = book_of([0.01, -0.02, 0.03])
    beliefs = [
        (START, (0.0, 0.1, 0.1, 0.1, 0.6, 0.1)),
        (START + DAY, (0.2, 0.7, 0.0, 0.1, 0.0, 0.0)),
        (START + 2 * DAY, (0.0, 0.0, 0.0, 0.0, 0.4, 0.6)),
    ]
    rows = {row.label: row for row in by_regime(market, tuple(market.bars), book, beliefs, seed=0)}
    assert {name: row.periods for name, row in rows.items()} == {"bear": 1, "bull": 2, "low_volatility": 1, "high_volatility": 2, "all": 3}
    assert rows["bull"].growth == pytest.approx(1.01 * 1.03 - 1.0)
    assert rows["bull"].belief == pytest.approx((0.7 + 1.0) / 2.0)
    assert rows["high_volatility"].growth == pytest.approx(0.98 * 1.03 - 1.0)
    assert math.isnan(rows["bull"].sharpe.estimate)
    assert "the run's regime model believed in" in regime_note(tuple(rows.values()))
    holes = {row.label: row for row in by_regime(market, tuple(market.bars), book, beliefs[:2], seed=0)}
    assert set(holes) == {UNKNOWN, "all"}
    assert "its level 50 days" in regime_note(tuple(holes.values()))
