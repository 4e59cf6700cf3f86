"""A market that our trades move: tree search plans it, nobody lifts his own book, and without a push it is the price taker's market."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.decisions.alphazero.market import Dynamics, Taste, TradingModel
from cryptoalpha.decisions.alphazero.moved_market import MovedMarket, moved_roots
from cryptoalpha.decisions.alphazero.scenarios import Garch
from cryptoalpha.decisions.alphazero.state import COST_RATE, DRIFT, HOME, LOG_VOLATILITY, UNIT, WIDTH
from cryptoalpha.learn.search.contract import Budget, Floats, Roots, Rules
from cryptoalpha.learn.search.market_tree import MarketTree, tree_roots
from cryptoalpha.learn.search.plan import plan
from cryptoalpha.learn.search.scenario_dp import plan_scenarios

GRID = np.linspace(-1.0, 1.0, 9)
BUDGET = Budget(simulations=400, outcomes=(12, 8), branching=(12, 12), max_depth=2)


def market(aversion: float = 1.0, *, leaf="hold") -> TradingModel:
    return TradingModel(GRID, Garch(1e6), Dynamics(0.8, 0.0, 1.0), Taste("linear", aversion, 0.99, leaf))


def states(drifts, *, cost: float = 0.002) -> Floats:
    rows = np.zeros((len(drifts), WIDTH), dtype=np.float32)
    rows[:, DRIFT], rows[:, UNIT], rows[:, COST_RATE] = drifts, 1.0, cost
    rows[:, LOG_VOLATILITY] = rows[:, HOME] = math.log(0.02)
    return rows


def held(count: int, place: int = 4) -> np.ndarray:
    return np.full(count, place)


def test_without_a_push_it_is_the_price_takers_market_and_both_back_ends_agree():
    rows = states([-0.8, -0.02, 0.0, 0.02, 0.8])
    roots = Roots(rows, held(5))
    moved = plan(moved_roots(roots, market()), MovedMarket(market(), 0.0, 0.5), BUDGET, seed=1, rules=Rules())
    taker = plan(tree_roots(roots, market()), MarketTree(market()), BUDGET, seed=1, rules=Rules())
    np.testing.assert_array_equal(moved.action, taker.action)
    np.testing.assert_array_equal(moved.q, taker.q)
    exact = plan_scenarios(roots, market(), BUDGET, seed=1)
    assert (np.abs(moved.action - exact.action) <= 1).all()  # where two positions are worth the same, searches may differ by a step
    assert (exact.q[np.arange(5), moved.action] >= exact.value - 0.1 * np.abs(exact.value)).all()
    worth = moved.q[np.arange(5), moved.action]  # the mean of what simulations found, bad moves deeper down included: a little less
    assert (worth <= exact.value + 2e-3).all()
    assert (worth >= 0.75 * exact.value - 2e-3).all()


def test_who_moves_the_price_trades_less():
    rows = states([0.3, 0.5, 0.8])
    sizes = []
    for push in (0.0, 0.01, 0.05, 0.5):
        found = plan(moved_roots(Roots(rows, held(3)), market()), MovedMarket(market(), push, 0.5), BUDGET, seed=2, rules=Rules())
        sizes.append(GRID[found.action].sum())
    assert sizes[0] >= sizes[1] >= sizes[2] >= sizes[3]
    assert sizes[3] < 0.5 * sizes[0]


@pytest.mark.parametrize("staying", [0.0, 0.5, 1.0])
def test_nobody_lifts_his_own_book(staying):
    """Without an opinion a push earns nothing, from flat or with a position that it would lift, whether it stays or fades."""
    for place in (4, 8):
        roots = moved_roots(Roots(states([0.0, 0.0]), held(2, place)), market(1e-9))
        found = plan(roots, MovedMarket(market(1e-9), 0.05, staying), BUDGET, seed=3, rules=Rules())
        assert found.q[np.arange(2), found.action].max() <= 1e-9
        assert (found.action <= place).all()
        if place == 4:
            assert (found.action == 4).all()


def test_a_round_trip_costs_what_it_costs_by_hand():
    """Buy one unit, sell it a bar later: the price is pushed by λ and half of that is paid each way, less what has not faded."""
    world = MovedMarket(market(1e-9, leaf="zero"), 0.04, 0.25)
    flat = moved_roots(Roots(states([0.0], cost=0.0), held(1)), world.market).states
    bought = world.outcomes(flat, np.array([8]), np.array([[0.5]]))
    sold = world.outcomes(bought.states[:, 0], np.array([4]), np.array([[0.5]]))
    # pushed by .04, half of it gained back at once as a mark (.02), three quarters of the push fade (−.03); then the sale marks down
    # the unit held by .04 and gets half of that back (−.04 + .02). Together −.03 = −λ (1 − ρ), as Obizhaeva & Wang have it.
    assert float(bought.rewards[0]) == pytest.approx(0.02 - 0.03)
    assert float(sold.rewards[0]) == pytest.approx(-0.04 + 0.02)
    assert float(bought.rewards[0] + sold.rewards[0]) == pytest.approx(-0.04 * (1.0 - 0.25))
    assert float(bought.states[0, 0, -1]) == pytest.approx(0.25 * 0.04)


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ConfigError, match="push"):
        MovedMarket(market(), -0.1, 0.5)
