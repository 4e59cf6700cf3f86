"""Nothing the environment shows, offers or pays up to t depends on bars after t: they are replaced, and not a bit changes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from cryptoalpha.core.time import HOUR
from cryptoalpha.decisions.market_env.bars import BarMarket, bar_features
from cryptoalpha.decisions.market_env.config import EnvironmentConfig
from cryptoalpha.decisions.market_env.vector import VectorMarketEnv
from cryptoalpha.execution.config import CostConfig, ExecutionConfig
from cryptoalpha.store.panel import Panel

ROWS, START, HORIZON, LANES = 280, 200, 60, 3
PRICES = ("open", "high", "low", "close", "volume")
CONFIG = EnvironmentConfig(positions=7, shorts=True, horizon=HORIZON, risk_aversion=1.0, minimum_trade=0.1, maintenance=0.01)


def walk(g: np.random.Generator) -> tuple[Panel, np.ndarray, np.ndarray]:
    close = 100.0 * np.exp(np.cumsum(g.normal(0.0, 0.03, (ROWS, LANES)), axis=0))
    open_ = np.vstack([np.full((1, LANES), 100.0), close[:-1]]) * np.exp(g.normal(0.0, 0.01, (ROWS, LANES)))
    columns = [open_, np.maximum(open_, close) * 1.01, np.minimum(open_, close) * 0.99, close, g.gamma(2.0, 2000.0, (ROWS, LANES))]
    times = HOUR * np.arange(1, ROWS + 1, dtype=np.int64)
    nothing, row = np.full((ROWS, LANES), np.nan), np.tile(np.arange(ROWS)[:, None], (1, LANES))
    names = tuple(f"A{i}/USDT" for i in range(LANES))
    panel = Panel(names, HOUR, times, times + HOUR, *columns, nothing, np.ones((ROWS, LANES), dtype=np.bool_), row)
    return panel, g.normal(0.0, 1e-3, (ROWS, LANES)), g.normal(0.0, 1e-3, (ROWS, LANES))


def poisoned(world, last: int, g: np.random.Generator):
    """The same world up to row `last`, and another one behind it."""
    panel, at_open, inside = world
    columns = {name: getattr(panel, name).copy() for name in PRICES}
    factors = np.exp(g.normal(0.0, 1.0, (ROWS - last - 1, LANES)))
    for name, column in columns.items():
        column[last + 1 :] *= factors if name != "volume" else factors[::-1]
    rates = at_open.copy(), inside.copy()
    for rate in rates:
        rate[last + 1 :] = g.normal(0.0, 1e-2, factors.shape)
    return replace(panel, **columns), *rates


def live(world, cut: int, *, features=bar_features) -> list[np.ndarray]:
    """All that was seen, offered, done and paid up to and with row START + cut: a policy that reads its observations."""
    panel, at_open, inside = world
    market = BarMarket(panel, ExecutionConfig(), funding=(at_open, inside), features=features)
    env = VectorMarketEnv(market, CONFIG, CostConfig(), num_envs=LANES)
    places = np.stack([np.full(LANES, START), np.arange(LANES)], axis=1)
    seen, told = env.reset(seed=1, options={"place": places})
    out = []
    for _ in range(cut):
        wanted = np.floor(997.0 * np.abs(seen[:, 0]) + 7.0 * np.abs(seen[:, 3])).astype(np.int64) % 7
        actions = np.where(told["action_mask"][np.arange(LANES), wanted] == 1, wanted, told["bucket"])
        out += [seen, told["action_mask"], actions]
        seen, rewards, terminated, truncated, told = env.step(actions)
        out += [rewards, terminated, truncated, told["equity"], told["costs"], told["funding"], told["penalty"], told["traded"]]
    return [*out, seen, told["action_mask"]]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), cut=st.integers(1, HORIZON - 1))
def test_what_is_seen_offered_done_and_paid_up_to_t_is_the_same_whatever_comes_after_t(seed, cut):
    g = np.random.default_rng(seed)
    world = walk(g)
    for one, other in zip(live(world, cut), live(poisoned(world, START + cut, g), cut), strict=True):
        assert_array_equal(one, other)


def with_the_next_return(panel: Panel, volatility: np.ndarray) -> np.ndarray:
    """Features with the fault to be found: the return of the bar after."""
    features = bar_features(panel, volatility)
    features[:-1, :, 0] = features[1:, :, 0]
    return features


@pytest.mark.parametrize("cut", [1, 30])
def test_a_feature_that_looks_one_bar_ahead_is_found_out(cut):
    g = np.random.default_rng(5)
    world = walk(g)
    here = live(world, cut, features=with_the_next_return)
    there = live(poisoned(world, START + cut, g), cut, features=with_the_next_return)
    assert not all(np.array_equal(one, other) for one, other in zip(here, there, strict=True))
