"""The environment on real hourly bars, with their outages. Skips without evaluation data."""

from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
import pytest
from numpy.testing import assert_allclose

from cryptoalpha.core.time import DAY, HOUR, parse_time
from cryptoalpha.decisions.market_env.bars import BarMarket, bar_market
from cryptoalpha.decisions.market_env.config import EnvironmentConfig
from cryptoalpha.decisions.market_env.vector import VectorMarketEnv
from cryptoalpha.execution.config import CostConfig, ExecutionConfig
from cryptoalpha.store.tables import BarTable, Dataset

SINCE, UNTIL = parse_time("2019-02-01"), parse_time("2020-02-01")
FREE = CostConfig(taker_fee=0.0, maker_fee=0.0, half_spread=0.0, impact=0.0, max_participation=None)
LANES, HORIZON = 64, 256


@pytest.fixture(scope="module")
def market(market_data: Path) -> BarMarket:
    """Two assets over a year and its warm-up, as the venue printed them."""
    bars = {}
    for asset in ("BTC", "LINK"):
        sql = "SELECT epoch_ns(ts) AS t, open, high, low, close, volume FROM read_parquet(?) WHERE year(ts) IN (2019, 2020) ORDER BY t"
        rows = duckdb.execute(sql, [str(market_data / "price_1h" / f"{asset}USDT.parquet")]).fetchnumpy()
        columns = [np.asarray(rows[name], np.float64) for name in ("open", "high", "low", "close", "volume")]
        bars[f"{asset}/USDT"] = BarTable(f"{asset}/USDT", HOUR, np.asarray(rows["t"], np.int64), *columns)
    return bar_market(Dataset("test", bars), ExecutionConfig(), since=SINCE, until=UNTIL, warm_up=31 * DAY)


def test_episodes_avoid_the_venues_outages_and_stay_in_their_window(market):
    starts, present = market.starts(HORIZON), market.panel.present
    assert not present.all()
    assert all(present[row : row + HORIZON + 1, a].all() for row, a in starts[:: len(starts) // 200])
    assert market.panel.known_at[starts[:, 0].min()] >= SINCE
    assert market.panel.known_at[-1] <= UNTIL
    assert set(starts[:, 1]) == {0, 1}


def test_bought_at_the_first_open_and_held_an_asset_earns_its_move(market):
    env = VectorMarketEnv(market, EnvironmentConfig(horizon=HORIZON), FREE, num_envs=LANES)
    env.reset(seed=1)
    row, asset = env.lanes.places.astype(int).T
    total = sum(env.step(np.full(LANES, 20))[1] for _ in range(HORIZON))
    close, bought = market.panel.close, market.panel.open[row + 1, asset]
    assert_allclose(total, np.log1p((close[row + HORIZON, asset] - bought) / close[row, asset]), atol=1e-12)  # units by the close before


def test_whatever_is_done_rewards_add_up_and_costs_explain_the_difference_to_trading_for_nothing(market):
    config = EnvironmentConfig(horizon=HORIZON, shorts=True, reward="linear")
    actions = np.random.default_rng(3).integers(21, size=(HORIZON, LANES))
    told, earned, rewards, costs = {}, {}, {}, np.zeros(LANES)
    for name, charged in (("free", FREE), ("costly", CostConfig(max_participation=None))):
        env = VectorMarketEnv(market, config, charged, num_envs=LANES)
        env.reset(seed=2)
        rewards[name] = np.zeros(LANES)
        for row in actions:
            seen, paid, terminated, truncated, told[name] = env.step(row)
            assert np.isfinite(seen).all()
            assert not terminated.any()
            rewards[name] += paid
            if name == "costly":
                costs += told[name].get("final_info", told[name])["costs"]
        assert truncated.all()
        earned[name] = told[name]["final_info"]["equity"] / config.initial_equity - 1.0
        assert_allclose(rewards[name], earned[name], atol=1e-9)
    assert (costs > 0.0).all()
    assert_allclose((earned["free"] - earned["costly"]) * config.initial_equity, costs, rtol=1e-9)
