"""The largest book of a run under stress: worked out by hand, told from the past alone, and honest about what it cannot tell."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from cryptoalpha.app.stress_study import daily_returns, study_stress
from cryptoalpha.core.time import DAY, HOUR, parse_time
from cryptoalpha.data.config import SimulatedConfig
from cryptoalpha.data.simulated import simulate
from cryptoalpha.risk.stress_table import GAP
from cryptoalpha.store.tables import Dataset

NAMES = ("SIM1/USDT", "SIM2/USDT", "SIM3/USDT")
HELD_AT = parse_time("2022-06-01T05:00:00Z")
LEFT, RIGHT = 0.6, -0.3


@pytest.fixture(scope="module")
def market() -> Dataset:
    found = simulate(SimulatedConfig(assets=3, bars=24 * 200), seed=5).dataset
    start = parse_time("2022-01-01")  # Terra falls in May, the lenders in June
    bars = {}
    for name, table in found.bars.items():
        shift = start - table.open_time[0]
        bars[name] = replace(table, open_time=table.open_time + shift, known_at=table.known_at + shift)
    return replace(found, bars=bars)


def study(market: Dataset, weights: tuple[float, ...] = (LEFT, RIGHT, 0.0)):
    known_at = HELD_AT + HOUR * np.arange(-1, 2)
    held = np.array([np.zeros(3), weights, np.array(weights) / 2.0])
    return study_stress(market, NAMES, known_at, held, np.array([1e5, 1e5, 1e5]))


def test_a_crisis_that_lay_in_the_past_is_replayed_on_the_largest_book(market):
    found = study(market)
    assert (found.at, found.book, found.gross) == (HELD_AT, (("SIM1/USDT", LEFT), ("SIM2/USDT", RIGHT)), pytest.approx(0.9))
    one = next(result for result in found.results if result.name == "terra_2022")
    start = parse_time("2022-05-05")
    totals = []
    for day in range(1, 10):  # closes at 00:00 UTC, against the one before the first day
        moves = []
        for name in NAMES[:2]:
            table = market.bars[name]
            before, after = (float(table.close[table.known_at <= start + k * DAY][-1]) for k in (0, day))
            moves.append(after / before - 1.0)
        totals.append(LEFT * moves[0] + RIGHT * moves[1])
    assert one.profit == pytest.approx(min(totals))
    assert sum(value for _, value in one.positions) == pytest.approx(one.profit)


def test_the_worst_comes_first_and_what_cannot_be_told_says_why(market):
    found = study(market)
    profits = [one.profit for one in found.results]
    assert profits == sorted(profits)
    assert {one.name for one in found.results} == {"terra_2022", "correlation", "liquidity", "outage", "gap"}
    assert next(one.profit for one in found.results if one.name == "gap") == pytest.approx(-GAP * (LEFT + RIGHT))
    missing = dict(found.missing)
    assert len(missing) == 8
    assert "0 of them are there" in missing["lenders_2022"]  # in the data, but not yet in June's first hours


def test_nothing_known_later_changes_it(market):
    bars = {}
    for name, table in market.bars.items():
        later = table.known_at > HELD_AT
        poisoned = {field: np.where(later, 7.0 * getattr(table, field), getattr(table, field)) for field in ("close", "volume")}
        bars[name] = replace(table, **poisoned)
    assert study(replace(market, bars=bars)) == study(market)


def test_a_book_that_never_held_anything_says_so(market):
    found = study(market, (0.0, 0.0, 0.0))
    assert (found.at, found.results, found.missing, found.gross) == (None, (), (), 0.0)


def test_a_day_without_a_close_has_no_return(market):
    table = market.bars[NAMES[0]]
    midnight = parse_time("2022-03-01")
    silent = table.take((table.known_at <= midnight - DAY) | (table.known_at > midnight))  # nothing on the last of February
    days, returns = daily_returns(replace(market, bars={**market.bars, NAMES[0]: silent}), NAMES, HELD_AT)
    place = int(np.flatnonzero(days == midnight - DAY)[0])
    assert [math.isnan(value) for value in returns[place : place + 3, 0]] == [True, True, False]
    assert np.isfinite(returns[place, 1])
    assert days[-1] == parse_time("2022-05-31")  # the day that is running has none
