"""The edge of a simulated market dies at a bar: before it everything is the first market, after it returns are the second's."""

from __future__ import annotations

import numpy as np
import pytest

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.data.config import SimulatedConfig
from cryptoalpha.data.simulated import simulate
from cryptoalpha.data.simulated_change import simulate_change

BEFORE = SimulatedConfig(assets=3, bars=1200, edge=0.3, news_share=1.0, funding_share=0.0, flow_share=0.0)
AFTER = BEFORE.model_copy(update={"news_share": 0.0, "flow_share": 1.0})
AT = 700


@pytest.fixture(scope="module")
def changed():
    return simulate_change(BEFORE, AFTER, AT, seed=4)


def test_before_the_change_it_is_the_first_market_to_the_bit(changed):
    first = simulate(BEFORE, 4).dataset
    for name, table in changed.bars.items():
        for column in ("open", "high", "low", "close", "volume"):
            assert np.array_equal(getattr(table, column)[:AT], getattr(first.bars[name], column)[:AT])
    moment = int(changed.bars["SIM1/USDT"].known_at[AT - 1])
    for key, table in changed.readings.items():
        early = table.known_at <= moment
        assert np.array_equal(table.value[early], first.readings[key].value[early])
    assert np.array_equal(changed.posts["news"].text, first.posts["news"].text)  # posts tell of states, which both markets share


def test_after_it_returns_are_the_second_markets_and_the_price_goes_on(changed):
    second = simulate(AFTER, 4).dataset
    for name, table in changed.bars.items():
        other = second.bars[name]
        assert np.allclose(np.diff(np.log(table.close[AT - 1 :])), np.diff(np.log(other.close[AT - 1 :])), atol=1e-12)
        assert np.allclose(table.open[AT] / table.close[AT - 1], other.open[AT] / other.close[AT - 1])
        assert np.allclose((table.volume * table.close)[AT:], (other.volume * other.close)[AT:])  # dollars, not coins, are the same
        assert (table.high >= np.maximum(table.open, table.close)).all()


def test_markets_that_differ_in_more_than_their_edge_are_refused():
    with pytest.raises(ConfigError, match="assets"):
        simulate_change(BEFORE, AFTER.model_copy(update={"assets": 2}), AT)
    with pytest.raises(ConfigError, match="bar 1200"):
        simulate_change(BEFORE, AFTER, 1200)
