"""Planning agents live through the whole environment in markets whose answer is known: nothing to earn, Merton's, and dearer and dearer."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from cryptoalpha.decisions.alphazero.market import Dynamics, Taste, TradingModel
from cryptoalpha.decisions.alphazero.scenarios import Garch
from cryptoalpha.decisions.alphazero.state import COST_RATE, DRIFT, HOME, LOG_VOLATILITY, UNIT, WIDTH
from cryptoalpha.decisions.market_env.config import EnvironmentConfig
from cryptoalpha.decisions.market_env.market import ModelMarket
from cryptoalpha.decisions.market_env.problems import ou_config, ou_costs, ou_market
from cryptoalpha.decisions.market_env.vector import VectorMarketEnv
from cryptoalpha.execution.config import CostConfig
from cryptoalpha.learn.problems.merton import Merton
from cryptoalpha.learn.problems.ou_chain import OuChain
from cryptoalpha.learn.search import scenario_tree
from cryptoalpha.learn.search.contract import Budget, Roots
from cryptoalpha.learn.search.scenario_dp import plan_all_positions

GRID = np.linspace(-1.0, 1.0, 9)
LANES = 24


def prices_only(rate: float) -> CostConfig:
    """A fee on what is traded, no spread, no impact."""
    return CostConfig(taker_fee=rate, maker_fee=rate, half_spread=0.0, impact=0.0, max_participation=None)


def trading_model(*, response: float) -> TradingModel:
    """Student returns of 2 % a bar; an opinion that decays by a tenth a bar and answers to shocks, or none at all."""
    return TradingModel(GRID, Garch(4.0), Dynamics(0.9, response, 1.0), Taste("log", 2.0, 0.98))


def rows(drifts: np.ndarray, rate: float) -> np.ndarray:
    states = np.zeros((len(drifts), WIDTH), dtype=np.float32)
    states[:, DRIFT], states[:, LOG_VOLATILITY], states[:, HOME] = drifts, math.log(0.02), math.log(0.02)
    states[:, UNIT], states[:, COST_RATE] = 1.0, rate
    return states


def live(model, market, config, costs, *, steps, branching, lanes=LANES, seed=1):
    """Traded notional over equity, rewards and values claimed `[steps, lanes]` of acting by a scenario tree in every state met."""
    env = VectorMarketEnv(market, config, costs, num_envs=lanes)
    env.reset(seed=seed)
    traded, rewards, claimed = (np.zeros((steps, lanes)) for _ in range(3))
    every = np.arange(lanes)
    for step in range(steps):
        held, equity = env.lanes.buckets(), env.lanes.accounts.stakes(env.lanes.books)
        states = env.lanes.known.features.astype(np.float32)
        table = plan_all_positions(Roots(states), model, Budget(branching=branching), seed=step)
        actions, claimed[step] = table.actions[every, held], table.values[every, held]
        stepped = env.lanes.step(actions)
        rewards[step], traded[step] = stepped.settled.rewards, np.abs(stepped.settled.traded) / equity
    return traded, rewards, claimed


# --- a market that cannot be beaten -------------------------------------------------------------------------------------------------------


def fair_game(branching):
    model = trading_model(response=0.0)
    market = ModelMarket(model, lambda uniforms: rows(np.zeros(len(uniforms)), 1e-5))
    config = EnvironmentConfig(positions=9, shorts=True, horizon=20)
    return live(model, market, config, prices_only(1e-5), steps=20, branching=branching)


@pytest.mark.parametrize("branching", [(5, 5), (12, 8), (28,)])
def test_where_there_is_nothing_to_earn_nothing_is_traded_and_nothing_claimed(branching):
    traded, rewards, claimed = fair_game(branching)
    assert not traded.any()
    assert not rewards.any()
    assert np.abs(claimed).max() <= 1e-9


def test_a_planner_that_believes_its_own_draws_trades_there_and_loses(monkeypatch):
    monkeypatch.setattr(scenario_tree, "match_means", lambda returns, weights, expected: returns)
    traded, _, claimed = fair_game((5, 5))
    assert traded.mean() > 0.1
    assert claimed.mean() > 1e-4


# --- Merton's portfolio -------------------------------------------------------------------------------------------------------------------


def merton(reward: str):
    """The problem on the environment's own grid, −3 to 3 in steps of 0.2."""
    config = EnvironmentConfig(positions=31, largest=3.0, shorts=True, horizon=1, reward=reward)
    model = Merton()
    market = ModelMarket(model, lambda uniforms: np.zeros((len(uniforms), 1)))
    return model, market, config


def mean_rewards(reward: str, strata: int = 1024) -> np.ndarray:
    """What the environment pays for each target `[31]`: one bar, lived through at every stratum of the return."""
    _, market, config = merton(reward)
    env = VectorMarketEnv(market, config, prices_only(0.0), num_envs=strata)
    env.reset(seed=0)
    began = env.lanes.state() | {"uniforms": (np.arange(strata) + 0.5)[:, None] / strata}
    paid = np.zeros(31)
    for target in range(31):
        env.lanes.load(began)
        paid[target] = env.lanes.step(np.full(strata, target)).settled.rewards.mean()
    return paid


def test_the_environment_pays_most_for_mertons_portfolio():
    grid = np.linspace(-3.0, 3.0, 31)
    paid = mean_rewards("log")
    assert abs(grid[paid.argmax()] - Merton.best) <= 0.2 + 1e-9
    nodes, masses = np.polynomial.hermite_e.hermegauss(32)
    returns = np.expm1(Merton.drift - Merton.deviation**2 / 2.0 + Merton.deviation * nodes)
    exact = np.log1p(grid[:, None] * returns) @ (masses / masses.sum())
    assert grid[exact.argmax()] == pytest.approx(Merton.best)
    np.testing.assert_allclose(paid, exact, atol=1e-5)
    assert grid[mean_rewards("linear").argmax()] == 3.0  # without the logarithm there is no reason to stop


def test_a_planner_holds_mertons_portfolio_in_the_environment_within_a_grid_step():
    model, market, config = merton("log")
    model.positions = np.linspace(-3.0, 3.0, 31)
    model.no_costs = np.zeros((1, 31, 31))
    env = VectorMarketEnv(market, config.model_copy(update={"horizon": 30}), prices_only(0.0), num_envs=8)
    env.reset(seed=3)
    for step in range(30):
        table = plan_all_positions(Roots(np.zeros((8, 1), dtype=np.float32)), model, Budget(branching=(256,)), seed=step)
        held = env.lanes.buckets()
        env.lanes.step(table.actions[np.arange(8), held])
        weights = env.lanes.accounts.weights(env.lanes.books)
        assert np.abs(weights - Merton.best).max() <= 0.2 + 0.15  # a grid step, and what one bar may move it


# --- dearer and dearer --------------------------------------------------------------------------------------------------------------------


def test_the_dearer_trading_is_the_less_is_traded_until_nothing_is():
    model = trading_model(response=-0.1)
    config = EnvironmentConfig(positions=9, shorts=True, horizon=30)
    traded = []
    for rate in (0.0, 0.0005, 0.002, 0.005, 0.01, 0.03, 0.2):
        market = ModelMarket(model, lambda uniforms, rate=rate: rows(0.4 * uniforms - 0.2, rate))
        moved, rewards, _ = live(model, market, config, prices_only(rate), steps=30, branching=(8, 4))
        traded.append(moved.mean())
        assert rewards.sum() > 0.0 or moved.mean() < 0.01
    assert all(more > less for more, less in pairwise(traded[:-1]))
    assert traded[0] > 0.3
    assert traded[-1] == 0.0


def test_so_it_is_on_the_chain_that_is_solved_exactly():
    planned, optimal = [], []
    for cost in (0.0, 0.1, 0.3, 1.0):
        chain = OuChain()
        chain.trade_cost = cost
        chain.trade_costs = cost * np.abs(chain.positions[None, :] - chain.positions[:, None])[None]
        tree = plan_all_positions(Roots(np.arange(31, dtype=np.float32)[:, None]), chain, Budget(branching=(8, 8)), seed=0)
        planned.append(turnover(chain, tree.actions))
        optimal.append(turnover(chain, chain.optimal))
    assert all(more > less for more, less in pairwise(planned))
    assert all(more > less for more, less in pairwise(optimal))


def turnover(chain: OuChain, policy: np.ndarray) -> float:
    """Notional that a policy `[31, 7]` trades per step in the environment, at the chain's cost."""
    env = VectorMarketEnv(ou_market(chain), ou_config(chain, horizon=40), ou_costs(chain), num_envs=100)
    env.reset(seed=1)
    traded = [np.abs(env.lanes.step(policy[env.lanes.places[:, 0].astype(int), env.lanes.buckets()]).settled.traded) for _ in range(40)]
    return float(np.mean(traded))
