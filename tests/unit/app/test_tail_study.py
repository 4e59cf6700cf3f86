"""Days beside their forecasts, and where a result came from: worked out on series small enough to check by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cryptoalpha.app.book_forecasts import JudgedDay
from cryptoalpha.app.period import Period
from cryptoalpha.app.result_tables import UNKNOWN, by_regime, market_states
from cryptoalpha.app.tail_study import daily_closes, study_tails
from cryptoalpha.core.time import DAY, HOUR, parse_time
from cryptoalpha.data.config import SimulatedConfig
from cryptoalpha.data.simulated import simulate
from cryptoalpha.monitoring.daily import DailyReturns
from cryptoalpha.risk.config import TailConfig
from cryptoalpha.store.tables import Dataset

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


def test_regimes_that_were_believed_in_go_before_those_of_the_market(market: Dataset) -> None:
    book = book_of([0.01, -0.02, 0.03])
    beliefs = [(START, (0.8, 0.1, 0.1)), (START + DAY, (0.1, 0.1, 0.8)), (START + 2 * DAY, (0.7, 0.2, 0.1))]
    rows = {row.label: row for row in by_regime(market, tuple(market.bars), book, beliefs, seed=0)}
    assert rows["calm"].periods == 2
    assert rows["calm"].growth == pytest.approx(1.01 * 1.03 - 1.0)
    assert rows["crisis"].growth == pytest.approx(-0.02)
    assert math.isnan(rows["calm"].sharpe.estimate)
    holes = {row.label for row in by_regime(market, tuple(market.bars), book, beliefs[:2], seed=0)}
    assert holes == {UNKNOWN, "all"}
