"""The watch beside the gate: what it counted day by day is what a walk over the whole series counts."""

import json
import math

import numpy as np
import pytest

from cryptoalpha.core.time import DAY, HOUR
from cryptoalpha.risk.config import TailConfig
from cryptoalpha.risk.market_memory import MarketMemory
from cryptoalpha.risk.tail.walk import walk_forecasts
from cryptoalpha.risk.tail.watch import TailWatch

NAMES = ("A", "B")
CONFIG = TailConfig(history_days=100, least_days=100)


@pytest.fixture(scope="module")
def returns():
    return 0.03 * np.clip(np.random.default_rng(2).standard_t(4, (400, 2)), -9.0, 9.0)


def bars(returns):
    """Two bars a day, the second at midnight."""
    closes = 100.0 * np.cumprod(np.vstack([np.ones(2), 1.0 + returns]), axis=0)
    for day, row in enumerate(closes.tolist(), start=1):
        yield day * DAY - HOUR, [1.5 * x for x in row]
        yield day * DAY, row


def watched(returns, *, stop_after=None):
    memory = MarketMemory(CONFIG)
    watch = TailWatch(memory, level=0.95, window=200)
    for at, row in bars(returns):
        memory.observe(at, HOUR, NAMES, row, [1.0, 1.0])
        watch.look()
        if stop_after is not None and at == stop_after * DAY:  # a process ends and another begins with the state alone
            told, again = json.loads(json.dumps(watch.state())), MarketMemory(CONFIG)
            for earlier, prices in bars(returns):
                if earlier <= at:
                    again.observe(earlier, HOUR, NAMES, prices, [1.0, 1.0])
            memory, watch = again, TailWatch.from_state(again, told)
    return watch


def test_day_by_day_equals_the_walk(returns):
    found = watched(returns).verdicts()
    for column, name in enumerate(NAMES):
        walked = walk_forecasts(returns[:, column], level=0.95, window=100)
        assert [verdict.method for verdict in found[name]] == ["historical", "normal", "ewma", "filtered"]
        for verdict in found[name]:
            whole = walked[verdict.method]
            last = whole.between(200, 400)
            assert (verdict.all_observations, verdict.all_hits) == (300, whole.exceedances)
            assert (verdict.observations, verdict.hits, verdict.expected_hits) == (200, last.exceedances, pytest.approx(10.0))
            assert (verdict.kupiec, verdict.independence, verdict.coverage) == (last.kupiec(), last.independence(), last.coverage())


def test_a_restart_changes_nothing(returns):
    whole = watched(returns)
    again = watched(returns, stop_after=250)
    assert again.state() == whole.state()
    assert again.verdicts() == whole.verdicts()


def test_a_bar_within_the_day_is_not_judged(returns):
    memory = MarketMemory(CONFIG)
    watch = TailWatch(memory)
    looks = []
    for at, row in bars(returns[:130]):
        memory.observe(at, HOUR, NAMES, row, [1.0, 1.0])
        looks.append((at, watch.look()))
    assert {at % DAY for at, outcome in looks if outcome} == {0}
    assert [at // DAY for at, outcome in looks if outcome] == list(range(102, 132))  # 100 returns are known at midnight 101
    assert set(looks[-1][1]) == set(NAMES)


def test_a_price_without_volatility_is_watched_by_its_days_alone():
    memory = MarketMemory(TailConfig(least_days=30))
    watch = TailWatch(memory)
    for day in range(1, 60):
        memory.observe(day * DAY, DAY, ("A",), [5.0], [1.0])
        watch.look()
    assert math.isnan(memory.daily_volatility("A"))
    assert [verdict.method for verdict in watch.verdicts()["A"]] == ["historical", "normal"]
