"""The environment keeps gymnasium's promises, and many lanes are many single environments."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.testing import assert_array_equal

from cryptoalpha.core.errors import ConfigError, DataMissingError
from cryptoalpha.core.time import HOUR
from cryptoalpha.decisions.market_env.bars import BarMarket
from cryptoalpha.decisions.market_env.config import EnvironmentConfig
from cryptoalpha.decisions.market_env.env import MarketEnv
from cryptoalpha.decisions.market_env.problems import ou_config, ou_costs, ou_market
from cryptoalpha.decisions.market_env.vector import VectorMarketEnv
from cryptoalpha.execution.config import CostConfig, ExecutionConfig
from cryptoalpha.learn.problems.ou_chain import OuChain
from cryptoalpha.store.panel import Panel

CHAIN = OuChain()
ROWS = 420


def walk(seed: int = 0, *, absent: tuple[int, ...] = (), deviation: float = 0.01) -> Panel:
    """Two instruments on hourly bars, with gaps between close and open; rows in `absent` are missing for the first."""
    g = np.random.default_rng(seed)
    close = 100.0 * np.exp(np.cumsum(g.normal(0.0, deviation, (ROWS, 2)), axis=0))
    open_ = np.vstack([np.full((1, 2), 100.0), close[:-1]]) * np.exp(g.normal(0.0, 0.002, (ROWS, 2)))
    present = np.ones((ROWS, 2), dtype=np.bool_)
    present[list(absent), 0] = False
    columns = [open_, np.maximum(open_, close) * 1.001, np.minimum(open_, close) * 0.999, close, g.gamma(2.0, 5000.0, (ROWS, 2))]
    times = HOUR * np.arange(1, ROWS + 1, dtype=np.int64)
    gone = [np.where(present, column, np.nan) for column in columns]
    row = np.where(present, np.arange(ROWS)[:, None], -1)
    return Panel(("A/USDT", "B/USDT"), HOUR, times, times + HOUR, *gone, np.full((ROWS, 2), np.nan), present, row)


def bars(**keywords) -> BarMarket:
    return BarMarket(walk(**keywords), ExecutionConfig())


WORLDS = {
    "bars": (bars(), EnvironmentConfig(shorts=True, horizon=20, start="anywhere"), CostConfig()),
    "bars without shorts": (bars(), EnvironmentConfig(positions=7, horizon=7, minimum_trade=0.2, risk_aversion=2.0), CostConfig()),
    "ruinous bars": (bars(deviation=0.3), EnvironmentConfig(shorts=True, largest=3.0, horizon=50, start="anywhere"), CostConfig()),
    "ou": (ou_market(CHAIN), ou_config(CHAIN, horizon=9), ou_costs(CHAIN)),
}


@pytest.mark.parametrize("name", WORLDS)
def test_gymnasiums_own_checker_finds_nothing(name):
    check_env(MarketEnv(*WORLDS[name]), skip_render_check=True)  # nothing is drawn, and warnings are errors


def assert_told_the_same(mine, theirs):
    assert sorted(mine) == sorted(theirs)
    for name, value in mine.items():
        if isinstance(value, dict):
            assert_told_the_same(value, theirs[name])
        elif value.dtype == object:
            assert all((a is None and b is None) or np.array_equal(a, b) for a, b in zip(value, theirs[name], strict=True))
        else:
            assert value.dtype == theirs[name].dtype
            assert_array_equal(value, theirs[name], err_msg=name)


@pytest.mark.parametrize("name", WORLDS)
def test_lanes_are_gymnasiums_vector_of_single_environments_bit_for_bit(name):
    mine = VectorMarketEnv(*WORLDS[name], num_envs=5)
    theirs = SyncVectorEnv([lambda: MarketEnv(*WORLDS[name])] * 5, autoreset_mode=AutoresetMode.SAME_STEP)
    assert mine.single_observation_space == theirs.single_observation_space
    assert mine.observation_space == theirs.observation_space
    assert mine.action_space == theirs.action_space
    assert mine.metadata["autoreset_mode"] == theirs.metadata["autoreset_mode"]
    random = np.random.default_rng(1)
    assert mine.np_random == ()
    for seed in (3, None, [5, None, 1, 1, 9]):
        (seen, told), (theirs_seen, theirs_told) = mine.reset(seed=seed), theirs.reset(seed=seed)
        assert_array_equal(seen, theirs_seen)
        if seed == 3:  # without a first seed both draw one from the system, each its own
            assert_told_the_same(told, theirs_told)
        assert [one.bit_generator.state for one in mine.np_random] == [one.bit_generator.state for one in theirs.np_random]
        for _ in range(35):
            actions = random.integers(mine.single_action_space.n, size=5)
            ours, others = mine.step(actions), theirs.step(actions)
            for one, other in zip(ours[:4], others[:4], strict=True):
                assert one.dtype == other.dtype
                assert_array_equal(one, other)
            assert_told_the_same(ours[4], others[4])
            assert mine.observation_space.contains(ours[0])


def test_the_seed_decides_every_draw():
    env = MarketEnv(*WORLDS["bars"])
    first, again, other = (env.reset(seed=seed)[0] for seed in (11, 11, 12))
    assert_array_equal(first, again)
    assert not np.array_equal(first, other)  # a peer's fault: Gym-Trading-Env ignores it
    follow = [env.reset()[0] for _ in range(3)]
    env.reset(seed=12)
    for seen in follow:
        assert_array_equal(env.reset()[0], seen)
    assert len({seen.tobytes() for seen in follow}) == 3


def test_a_step_tells_five_things_and_the_horizon_truncates():
    env = MarketEnv(*WORLDS["bars without shorts"])  # seven decisions
    env.reset(seed=1)
    ends = [env.step(env.action_space.sample()) for _ in range(7)]
    assert [len(told) for told in ends] == [5] * 7  # a peer's fault: FinRL tells four
    assert [told[2] for told in ends] == [False] * 7
    assert [told[3] for told in ends] == [False] * 6 + [True]
    with pytest.raises(ConfigError, match="is over"):
        env.step(0)


def test_ruin_at_the_horizon_terminates_and_is_no_truncation():
    market, config, costs = WORLDS["ruinous bars"]
    env = MarketEnv(market, config.model_copy(update={"horizon": 1}), costs)
    ends = []
    for seed in range(60):
        env.reset(seed=seed)
        ends.append(env.step(0)[2:4])
    assert set(ends) == {(True, False), (False, True)}


def test_the_mask_can_be_sampled_from_and_what_it_forbids_is_not_traded():
    env = MarketEnv(*WORLDS["bars without shorts"])
    _, info = env.reset(seed=1)
    assert_array_equal(info["action_mask"], [1, 0, 1, 1, 1, 1, 1])  # 1/6 is nearer than the minimum trade of 0.2
    assert env.action_space.sample(info["action_mask"]) != 1
    *_, info = env.step(1)
    assert info["traded"] == info["position"] == 0.0
    *_, info = env.step(6)
    assert info["position"] > 0.9


def test_unknown_options_and_positions_off_the_grid_are_refused():
    env = MarketEnv(*WORLDS["bars"])
    with pytest.raises(ConfigError, match="no reset option leverage"):
        env.reset(seed=0, options={"leverage": 3})
    with pytest.raises(ConfigError, match="no position 21"):
        env.reset(seed=0, options={"position": 21})
    env.reset(seed=0)
    with pytest.raises(ConfigError, match="on a grid of 21"):
        env.step(21)
    with pytest.raises(ConfigError, match="3 seeds for 2 lanes"):
        VectorMarketEnv(*WORLDS["ou"], num_envs=2).reset(seed=[1, 2, 3])


def test_episodes_start_only_where_all_their_bars_stand_and_estimates_are_known():
    market = bars(absent=(300, 380))
    first = 168  # the longest look-back; liquidity is known after 24 returns
    wanted = [
        (row, a) for row in range(first, ROWS - 50) for a in range(2) if a == 1 or not any(row <= gone <= row + 50 for gone in (300, 380))
    ]
    assert_array_equal(market.starts(50), wanted)
    assert {tuple(place) for place in market.begin(np.linspace(0.0, 1.0, 999, endpoint=False), 50)} == set(wanted)
    with pytest.raises(DataMissingError, match="no 401 bars without a gap"):
        market.starts(400)


@pytest.mark.parametrize(("row", "steps"), [(299 - 2, 2), (ROWS - 3, 2)])
def test_an_episode_put_where_its_bars_end_is_refused_when_it_gets_there(row, steps):
    env = MarketEnv(bars(absent=(300,)), EnvironmentConfig(horizon=50), CostConfig())
    env.reset(seed=0, options={"place": [row, 0]})
    for _ in range(steps):
        env.step(0)
    with pytest.raises(ConfigError, match="past its bars or into a gap"):
        env.step(0)


def test_a_window_holds_no_bar_that_is_known_later_than_its_end():
    from cryptoalpha.data.simulated import simulate
    from cryptoalpha.decisions.market_env.bars import bar_market

    world = simulate(seed=1)
    since, until = int(world.known_at[1000]), int(world.known_at[1400])
    market = bar_market(world.dataset, ExecutionConfig(), since=since, until=until)
    assert market.panel.known_at[-1] == until
    starts = market.starts(100)
    assert market.panel.known_at[starts[:, 0]].min() == since
    assert market.panel.known_at[starts[:, 0] + 100].max() == until


def test_a_bar_that_came_late_holds_back_those_after_it_and_the_end_of_the_window():
    from cryptoalpha.data.config import SimulatedConfig
    from cryptoalpha.data.simulated import simulate
    from cryptoalpha.decisions.market_env.bars import bar_market

    whole = simulate(SimulatedConfig(assets=2, bars=24 * 60), 3).dataset
    name = sorted(whole.bars)[0]
    table, known_at = whole.bars[name], np.array(whole.bars[name].known_at)
    known_at[1200] += 5 * HOUR
    late = replace(whole, bars={**whole.bars, name: replace(table, known_at=known_at)})
    since, opened = int(table.open_time[1100]), table.open_time

    def market(last: int) -> BarMarket:
        return bar_market(late, ExecutionConfig(), since=since, until=int(opened[last]))

    rows = market(1300).panel.open_time[np.unique(market(1300).starts(1)[:, 0])]
    assert not np.isin(opened[1199:1205], rows).any()  # the one before it would be rewarded by it
    assert np.isin(opened[[1150, 1198, 1205, 1250]], rows).all()
    assert market(1200).panel.open_time[-1] == opened[1199]
    for cut in range(1201, 1206):
        assert market(cut).panel.open_time[-1] == opened[1199]  # not told before it was known, nor what came after it
    assert market(1206).panel.open_time[-1] == opened[1205]
