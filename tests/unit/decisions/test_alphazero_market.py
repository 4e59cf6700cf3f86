"""The planners' market: it claims nothing on a martingale, finds known optima, and its laws are what they say."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from cryptoalpha.decisions.alphazero.market import Dynamics, Taste, TradingModel
from cryptoalpha.decisions.alphazero.scenarios import Bootstrap, Garch, Law, Quantiles, make_pool, student_quantile
from cryptoalpha.decisions.alphazero.state import (
    COST_RATE,
    DRIFT,
    HOME,
    IMPACT,
    LEVELS,
    LOG_VOLATILITY,
    REGIME,
    SHAPE,
    UNIT,
    WIDTH,
    drift_per_bar,
    forecast_shape,
    inverse_law,
    tailed_mean,
)
from cryptoalpha.decisions.alphazero.trader import grid
from cryptoalpha.learn.problems.ou_chain import OuChain
from cryptoalpha.learn.search.contract import Budget, Draws, Floats, Roots, Rules
from cryptoalpha.learn.search.market_tree import MarketTree, tree_roots
from cryptoalpha.learn.search.plan import plan
from cryptoalpha.learn.search.scenario_dp import plan_all_positions, plan_scenarios

LINEAR = Taste("linear", 1e-3, 1.0, "zero")
SKEWED = (-2.6, -1.7, -0.6, 0.1, 0.7, 1.2, 1.5)
NORMAL = 1e6
"""Degrees of freedom of which Student's law is normal."""


def states(count: int = 1, *, drift: float = 0.0, volatility: float = 0.01, unit: float = 1.0, cost: float = 1e-5) -> Floats:
    rows = np.zeros((count, WIDTH), dtype=np.float32)
    rows[:, DRIFT], rows[:, UNIT], rows[:, COST_RATE] = drift, unit, cost
    rows[:, LOG_VOLATILITY] = rows[:, HOME] = math.log(volatility)
    rows[:, REGIME] = np.random.default_rng(1).dirichlet(np.ones(6), count)
    rows[:, SHAPE] = forecast_shape(SKEWED)
    return rows


def pool(seed: int = 0, count: int = 3_000):
    rng = np.random.default_rng(seed)
    z = np.where(rng.random(count) < 0.2, -2.0, 0.5) + 0.3 * rng.standard_normal(count)  # crashes and small gains
    return make_pool(z, 0.1 * np.abs(z), rng.dirichlet(np.ones(6), count), bins=128, prior=100.0, degrees=4.0)


LAWS: dict[str, Law] = {"bootstrap": Bootstrap(pool()), "quantiles": Quantiles(pool()), "garch": Garch(4.0)}


def model(law: Law, *, taste: Taste = LINEAR, positions: int = 9, dynamics: Dynamics | None = None) -> TradingModel:
    return TradingModel(grid(positions, long_only=False), law, dynamics or Dynamics(0.9, 0.0, 0.99, garch=(0.05, 0.9)), taste)


class MatchedToItsOwnDraws(TradingModel):
    """A planner that believes the mean of what it happened to draw: the mutation that claims money for nothing."""

    def draw(self, states: Floats, uniforms: Floats) -> Draws:
        draws = super().draw(states, uniforms)
        return replace(draws, expected=draws.returns.mean(axis=1))


@pytest.mark.parametrize("reward", ["linear", "log"])
@pytest.mark.parametrize("leaf", ["zero", "hold"])
@pytest.mark.parametrize("law", LAWS)
def test_a_martingale_is_left_alone(law, leaf, reward):
    market = model(LAWS[law], taste=Taste(reward, 1.0, 1.0, leaf))
    found = plan_scenarios(Roots(states(6), np.full(6, 4)), market, Budget(branching=(5, 5, 3)), seed=3)
    assert (found.action == 4).all()
    assert found.value.max() <= 1e-9


@pytest.mark.parametrize("law", LAWS)
def test_tree_search_leaves_a_martingale_alone_too(law):
    market = model(LAWS[law], taste=Taste("linear", 1e-3, 1.0, "zero"))
    roots = tree_roots(Roots(states(4), np.full(4, 4)), market)
    found = plan(roots, MarketTree(market), Budget(simulations=200, outcomes=(4, 4)), seed=3, rules=Rules())
    assert (found.action == 4).all()
    assert found.q[np.arange(4), found.action].max() <= 1e-9


@pytest.mark.parametrize("law", LAWS)
def test_whoever_believes_his_own_draws_claims_money_on_a_martingale(law):
    market = MatchedToItsOwnDraws(grid(9, long_only=False), LAWS[law], Dynamics(0.9, 0.0, 0.99), LINEAR)
    found = plan_scenarios(Roots(states(6), np.full(6, 4)), market, Budget(branching=(5, 5, 3)), seed=3)
    assert found.value.max() > 1e-4
    roots = tree_roots(Roots(states(4), np.full(4, 4)), market)
    searched = plan(roots, MarketTree(market), Budget(simulations=200, outcomes=(4, 4)), seed=3, rules=Rules())
    assert searched.q[np.arange(4), searched.action].max() > 1e-4


@pytest.mark.parametrize("law", ["bootstrap", "garch"])
def test_log_utility_holds_what_merton_held(law):
    rng = np.random.default_rng(5)
    normal = make_pool(rng.standard_normal(20_000), np.zeros(20_000), np.zeros((20_000, 6)), bins=256, prior=1.0, degrees=NORMAL)
    laws: dict[str, Law] = {"bootstrap": Bootstrap(normal), "garch": Garch(NORMAL)}
    positions = np.round(np.arange(-1.0, 3.1, 0.2), 1)
    market = TradingModel(positions, laws[law], Dynamics(0.0, 0.0, 0.99), Taste("log", 1.0, 0.99, "zero"))
    for seed in range(5):
        found = plan_scenarios(
            Roots(states(drift=0.0008 / 0.02, volatility=0.02, cost=0.0), np.array([5])), market, Budget(branching=(256,)), seed=seed
        )
        assert abs(positions[found.action[0]] - 2.0) <= 0.2 + 1e-9  # μ/σ² = 0.0008 / 0.02²


def test_half_the_appetite_for_risk_holds_half():
    positions = np.round(np.arange(-1.0, 3.1, 0.2), 1)
    market = TradingModel(positions, Garch(NORMAL), Dynamics(0.0, 0.0, 0.99), Taste("log", 2.0, 0.99, "zero"))
    rows = states(drift=0.0008 / 0.02, volatility=0.02, cost=0.0)
    found = plan_scenarios(Roots(rows, np.array([5])), market, Budget(branching=(256,)), seed=1)
    assert abs(positions[found.action[0]] - 1.0) <= 0.2 + 1e-9


def ou_market() -> tuple[OuChain, TradingModel, Floats]:
    """The chain as a trading model: x' − x = (φ − 1) x + z, so that the drift is d = (φ − 1) x and d' = φ d + (φ − 1) z."""
    chain = OuChain()
    dynamics = Dynamics(chain.persistence, chain.persistence - 1.0, 1.0)
    taste = Taste("linear", 2.0 * chain.risk_aversion, chain.discount, "zero")
    market = TradingModel(chain.positions, Garch(NORMAL), dynamics, taste)
    rows = states(chain.states, volatility=1.0, cost=chain.trade_cost)
    rows[:, DRIFT] = chain.drift
    rows[:, REGIME] = 0.0
    return chain, market, rows


def test_a_mean_reverting_market_is_planned_nearly_as_well_as_can_be():
    chain, market, rows = ou_market()
    table = plan_all_positions(Roots(rows), market, Budget(branching=(28, 28)), seed=0)
    assert chain.score(table.actions) >= 0.90 * chain.optimum
    myopic = plan_all_positions(Roots(rows), market, Budget(branching=(28,)), seed=0)
    assert chain.score(myopic.actions) < 0.75 * chain.optimum


def test_both_back_ends_plan_the_same_positions():
    _, market, rows = ou_market()
    rows, flat = rows[[4, 10, 20, 26]], np.full(4, 3)
    exact = plan_scenarios(Roots(rows, flat), market, Budget(branching=(28, 28)), seed=2)
    searched = plan(
        tree_roots(Roots(rows, flat), market),
        MarketTree(market),
        Budget(simulations=800, outcomes=(28, 28), max_depth=2),
        seed=2,
        rules=Rules(),
    )
    np.testing.assert_array_equal(searched.action, exact.action)
    worth = searched.q[np.arange(4), searched.action]
    np.testing.assert_allclose(worth, exact.value, rtol=0.1, atol=0.05)


def test_dearer_trading_trades_less():
    """One bar ahead, for every state and start; two bars ahead, in all."""
    rng = np.random.default_rng(7)
    rows = states(200)
    rows[:, DRIFT] = 0.3 * rng.standard_normal(200)
    rows[:, IMPACT] = 1e-4
    single, double = [], []
    for factor in (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 16.0):
        dearer = rows.copy()
        dearer[:, [COST_RATE, IMPACT]] = factor * np.array([5e-4, 1e-4])
        market = model(LAWS["bootstrap"], taste=Taste("log", 3.0, 0.99, "zero"))
        traded = []
        for branching in ((24,), (12, 8)):
            table = plan_all_positions(Roots(dearer), market, Budget(branching=branching), seed=1)
            traded.append(np.abs(market.positions[table.actions] - market.positions[None, :]))
        single.append(traded[0])
        double.append(traded[1].sum())
    assert all((later <= earlier + 1e-12).all() for earlier, later in pairwise(single))
    assert all(later <= earlier for earlier, later in pairwise(double))
    assert double[-1] < 0.1 * double[0]


def test_a_root_is_planned_to_the_last_bit_as_it_is_alone():
    rows = states(8)
    rows[:, DRIFT] = np.linspace(-0.2, 0.2, 8)
    for law in LAWS.values():
        market = model(law, taste=Taste("log", 2.0, 0.99, "hold"))
        together = plan_all_positions(Roots(rows), market, Budget(branching=(6, 4)), seed=5)
        for row in range(8):
            alone = plan_all_positions(Roots(rows[row : row + 1]), market, Budget(branching=(6, 4)), seed=5)
            np.testing.assert_array_equal(alone.q[0], together.q[row])


def test_ruin_ends_the_game():
    market = model(LAWS["garch"], taste=Taste("log", 1.0, 1.0, "zero"))
    gains = market.gains(states(unit=5.0), np.array([[-0.5, 0.1]]))
    assert gains.alive is not None
    assert not gains.alive[0, 0, -1]
    assert gains.alive[0, 1, -1]
    assert gains.rewards[0, 0, -1] == pytest.approx(-20.0)
    assert gains.rewards[0, 1, -1] == pytest.approx(math.log(1.5))


def test_student_shocks_are_students():
    scipy = pytest.importorskip("scipy.stats")
    u = np.array([0.001, 0.02, 0.3, 0.5, 0.77, 0.999])
    for degrees in (3.0, 4.0, 9.5):
        exact = scipy.t.ppf(u, degrees) * math.sqrt((degrees - 2.0) / degrees)
        np.testing.assert_allclose(student_quantile(u, degrees), exact, rtol=2e-3, atol=2e-4)


def test_a_belief_draws_from_the_residuals_of_its_regime():
    """Regime 0 saw only losses, regime 5 only gains: each belief draws its own, no belief draws both."""
    z = np.concatenate([-np.linspace(0.5, 1.5, 500), np.linspace(0.5, 1.5, 500)])
    beliefs = np.zeros((1_000, 6))
    beliefs[:500, 0] = beliefs[500:, 5] = 1.0
    law = Bootstrap(make_pool(z, np.zeros(1_000), beliefs, bins=64, prior=16.0, degrees=4.0))
    rows, uniforms = states(3), np.tile((np.arange(50) + 0.5) / 50, (3, 1))
    rows[:, REGIME] = 0.0
    rows[0, REGIME.start], rows[1, REGIME.stop - 1] = 1.0, 1.0
    drawn = law.shocks(rows, uniforms).z
    assert (drawn[0] < 0.0).mean() > 0.9
    assert (drawn[1] > 0.0).mean() > 0.9
    assert (drawn[2] < 0.0).mean() == pytest.approx(0.5, abs=0.05)


def test_a_forecasts_quantiles_are_drawn_from_and_have_no_mean_of_their_own():
    shape = forecast_shape(SKEWED)
    u = (np.arange(200_000) + 0.5) / 200_000
    drawn = inverse_law(shape[None, :], u[None, :])[0]
    np.testing.assert_allclose(np.quantile(drawn, LEVELS), shape, atol=2e-3)
    assert drawn.mean() == pytest.approx(0.0, abs=1e-3)
    assert tailed_mean(shape) == pytest.approx(0.0, abs=1e-12)
    assert (np.diff(drawn) >= 0.0).all()


def test_a_move_is_spread_over_its_horizon():
    for persistence in (0.0, 0.5, 0.97, 0.9999999999, 1.0):
        drift = drift_per_bar(0.2, 24.0, persistence)
        assert sum(drift * persistence**k for k in range(24)) == pytest.approx(0.2 * math.sqrt(24.0))


def test_garch_variance_follows_bollerslev():
    market = model(Garch(4.0), dynamics=Dynamics(0.9, 0.0, 0.99, garch=(0.1, 0.8)))
    rows = states(volatility=0.02)
    rows[:, HOME] = math.log(0.01)
    draws = market.draw(rows, np.array([[0.1, 0.5, 0.95]]))
    expected = 0.1 * 0.01**2 + 0.1 * draws.returns[0] ** 2 + 0.8 * 0.02**2  # ω = (1 − α − β) home²
    np.testing.assert_allclose(np.exp(2.0 * draws.states[0, :, LOG_VOLATILITY].astype(np.float64)), expected, rtol=1e-4)
