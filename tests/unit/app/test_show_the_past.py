"""What the gate sees of the market before a run: what was known by then, all of it and nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cryptoalpha.app.book import show_the_past
from cryptoalpha.core.time import DAY, HOUR
from cryptoalpha.data.config import SimulatedConfig
from cryptoalpha.data.simulated import simulate
from cryptoalpha.risk.config import RiskConfig
from cryptoalpha.risk.gate import RiskGate
from cryptoalpha.store.tables import Dataset

BARS, BEFORE = 1000, 800


@pytest.fixture(scope="module")
def market() -> Dataset:
    return simulate(SimulatedConfig(assets=2, bars=BARS, posts_per_day=24.0), seed=3).dataset


def shown(dataset: Dataset) -> tuple[int, RiskGate, int]:
    names = sorted(dataset.bars)
    since = int(dataset.bars[names[0]].open_time[BEFORE])
    gate = RiskGate(RiskConfig(), {name: dataset.rules[name] for name in names})
    return show_the_past(gate, dataset, since, names), gate, since


def late(dataset: Dataset, row: int, known_at: int, *, times: float = 1.0) -> Dataset:
    """The first instrument's bar `row` became known at another moment, with another close."""
    name = sorted(dataset.bars)[0]
    table = dataset.bars[name]
    known, close = table.known_at.copy(), table.close.copy()
    known[row], close[row] = known_at, close[row] * times
    return replace(dataset, bars={**dataset.bars, name: replace(table, known_at=known, close=close)})


def test_every_bar_known_by_then_is_seen(market):
    rows, gate, since = shown(market)
    assert rows == BEFORE
    assert gate.memory.last_midnight == since // DAY * DAY


def test_a_bar_that_became_known_later_is_left_out_and_nothing_with_it(market):
    _, whole, since = shown(market)
    rows, gate, _ = shown(late(market, 200, since + HOUR))  # row 200 is no last bar of a day
    assert rows == BEFORE - 1
    name = sorted(market.bars)[0]
    np.testing.assert_array_equal(gate.memory.daily_returns(name), whole.memory.daily_returns(name))
    poisoned = shown(late(market, 200, since + HOUR, times=2.0))[1]
    np.testing.assert_array_equal(poisoned.memory.daily_returns(name), whole.memory.daily_returns(name))


def test_a_bar_that_came_late_but_by_then_is_seen(market):
    since = int(market.bars[sorted(market.bars)[0]].open_time[BEFORE])
    rows, gate, _ = shown(late(market, 200, since))
    assert rows == BEFORE
    assert gate.memory.last_price(sorted(market.bars)[0]) == market.bars[sorted(market.bars)[0]].close[BEFORE - 1]
