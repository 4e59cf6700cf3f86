"""Scenario planning on worlds whose answer is known: mean reversion, a market that cannot be beaten, Merton's portfolio."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cryptoalpha.learn.expert_iteration import ExpertIteration, FitRecipe
from cryptoalpha.learn.problems.merton import Merton
from cryptoalpha.learn.problems.ou_chain import OuChain, rouwenhorst
from cryptoalpha.learn.problems.ou_learners import ValueNet, ValueTable, market_features
from cryptoalpha.learn.problems.random_walk import RandomWalk, normal_quantile
from cryptoalpha.learn.search import scenario_tree
from cryptoalpha.learn.search.contract import Budget, MarketModel, Roots
from cryptoalpha.learn.search.scenario_dp import plan_all_positions, plan_scenarios

SEEDS = range(5)
EVERY_MARKET = Roots(np.arange(31, dtype=np.float32)[:, None])


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def exact_guess(states):
    return OuChain().optimal_values[states[:, 0].astype(int)]


def share_of_optimum(chain, branching, seed):
    """Score of acting by a plan in every state, as a share of the best score possible."""
    return chain.score(plan_all_positions(EVERY_MARKET, chain, Budget(branching=branching), seed=seed).actions) / chain.optimum


# --- the chain itself -------------------------------------------------------------------------------------------------------------------


def test_the_chain_is_the_autoregression_it_stands_for():
    chain = OuChain()
    np.testing.assert_allclose(chain.transitions.sum(axis=1), 1.0, atol=1e-14)
    np.testing.assert_allclose(chain.transitions @ chain.grid, 0.9 * chain.grid, atol=1e-12)  # conditional mean φx
    np.testing.assert_allclose(chain.transitions @ chain.grid**2 - (0.9 * chain.grid) ** 2, 1.0, atol=0.06)  # innovations of sd 1 …
    assert chain.stationary @ (chain.transitions @ chain.grid**2 - (0.9 * chain.grid) ** 2) == pytest.approx(1.0)  # … on average
    np.testing.assert_allclose(chain.stationary @ chain.transitions, chain.stationary, atol=1e-14)
    assert chain.grid[-1] == pytest.approx(np.sqrt(30.0 / (1.0 - 0.81)))
    np.testing.assert_allclose(rouwenhorst(3, 0.0), [[0.25, 0.5, 0.25]] * 3)


def test_the_scores_are_those_worked_out_before():
    """Figures of the design: optimum 1.2716, one step ahead .695 of it, flat 0, always long −2.30."""
    chain = OuChain()
    assert isinstance(chain, MarketModel)
    assert chain.optimum == pytest.approx(1.2716, abs=5e-5)
    assert chain.score(chain.optimal) == pytest.approx(chain.optimum, abs=1e-12)
    assert chain.score(chain.myopic) / chain.optimum == pytest.approx(0.695, abs=5e-4)
    assert chain.score(chain.always(chain.flat)) == pytest.approx(0.0, abs=1e-12)
    assert chain.score(chain.always(6)) == pytest.approx(-2.30, abs=5e-3)  # −.3 once, −.1/(1 − .95) for holding


def test_the_best_values_are_a_fixed_point_that_value_iteration_also_reaches():
    chain = OuChain()
    np.testing.assert_allclose(chain.induct(chain.optimal_values).max(axis=2), chain.optimal_values, atol=1e-12)
    values = np.zeros((31, 7))
    for _ in range(700):  # .95^700 = 2.6e-16
        values = chain.induct(values).max(axis=2)
    np.testing.assert_allclose(values, chain.optimal_values, atol=1e-11)


# --- learning test 3: scenario plans ----------------------------------------------------------------------------------------------------


def test_784_scenarios_reach_the_optimum_with_exact_leaves_and_95_percent_of_it_with_none():
    with_exact = [share_of_optimum(OuChain(guess=exact_guess), (28, 28), seed) for seed in SEEDS]
    with_none = [share_of_optimum(OuChain(), (28, 28), seed) for seed in SEEDS]
    assert min(with_exact) >= 0.99
    assert min(with_none) >= 0.95
    assert np.mean(with_none) < np.mean(with_exact)  # else the leaves would not matter and the first line would show nothing


def test_all_outcomes_with_their_weights_are_value_iteration():
    leaves = np.random.default_rng(0).normal(size=(31, 7))
    for guess in (exact_guess, lambda states: leaves[states[:, 0].astype(int)], None):
        chain = OuChain(exact=True, guess=guess)
        expected = np.zeros((31, 7)) if guess is None else guess(EVERY_MARKET.states)
        for branching in ((31,), (31, 31)):
            expected = chain.induct(expected).max(axis=2)
            table = plan_all_positions(EVERY_MARKET, chain, Budget(branching=branching), seed=0)
            np.testing.assert_allclose(table.values, expected, rtol=0.0, atol=1e-12)


def test_left_as_drawn_the_scenarios_miss_what_matched_ones_find(monkeypatch):
    """Few scenarios, good leaves: with the mean of their returns left to chance, plans act on noise."""
    matched = np.mean([share_of_optimum(OuChain(guess=exact_guess), (5, 5), seed) for seed in range(20)])
    monkeypatch.setattr(scenario_tree, "match_means", lambda returns, weights, expected: returns)
    assert np.mean([share_of_optimum(OuChain(guess=exact_guess), (5, 5), seed) for seed in range(20)]) < matched - 0.005


# --- learning test 4: expert iteration --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_expert_iteration_learns_the_values_that_make_a_small_tree_enough(seed):
    chain = OuChain()
    net = ValueNet(seed)
    chain.guess = table = ValueTable(chain, net)
    learner = ExpertIteration(
        net,
        chain,
        lambda states: market_features(chain, states),
        lambda random: EVERY_MARKET.states,
        Budget(branching=(8, 4)),
        publish=table.read,
        seed=seed,
        recipe=FitRecipe(value_scale=5.0, memory=310),
    )
    before = share_of_optimum(chain, (28,), seed=99)
    losses = [learner.iterate() for _ in range(60)]
    assert share_of_optimum(chain, (8, 4), seed=99) >= 0.97
    # The tree alone does not do it: one step ahead, the untrained net is as blind as the myopic policy and the trained one is not.
    assert before < 0.8
    assert share_of_optimum(chain, (28,), seed=99) >= 0.97
    assert losses[-1] < 0.1 * losses[0]
    # What decides is how values differ between positions, here by 0.3 at most per position of 1; their level comes with more plans.
    learned, best = (values - values[:, [3]] for values in (table.values[4:27], chain.optimal_values[4:27]))
    assert np.abs(learned - best).mean() < 0.03


# --- learning test 7: the market that cannot be beaten ----------------------------------------------------------------------------------

TREES = [(2, 2, 2, 2), (5, 5, 5, 5), (28, 28)]
WALKS = {"normal": RandomWalk(), "cheap": RandomWalk(trade_cost=1e-3), "lognormal": RandomWalk(0.02, lognormal=True, trade_cost=1e-6)}


def from_flat(walk):
    return Roots(np.zeros((1, 1), dtype=np.float32), np.array([walk.flat]))


@pytest.mark.parametrize("branching", TREES)
@pytest.mark.parametrize("walk", WALKS.values(), ids=WALKS)
def test_nothing_is_claimed_on_a_martingale_and_nothing_traded(walk, branching):
    for seed in range(10):
        plan = plan_scenarios(from_flat(walk), walk, Budget(branching=branching), seed=seed)
        assert abs(plan.value[0]) <= 1e-9
        assert plan.action[0] == walk.flat


@pytest.mark.parametrize(("branching", "claims"), [((2, 2, 2, 2), 0.3), ((5, 5, 5, 5), 0.05)])
def test_unmatched_scenarios_claim_money_on_a_martingale(monkeypatch, branching, claims):
    monkeypatch.setattr(scenario_tree, "match_means", lambda returns, weights, expected: returns)
    walk = RandomWalk()
    plans = [plan_scenarios(from_flat(walk), walk, Budget(branching=branching), seed=seed) for seed in range(30)]
    assert np.mean([plan.value[0] for plan in plans]) > claims
    assert any(plan.action[0] != walk.flat for plan in plans)


def test_matching_logarithms_instead_of_simple_returns_claims_the_variance(monkeypatch):
    """Log returns of mean 0 at σ = .02 have simple returns of mean σ²/2 = 2e-4: a position of 1 seems to earn that every step."""

    def match_logarithms(returns, weights, expected):
        logs = np.log1p(returns)
        return np.expm1(logs - (weights * logs).sum(axis=1, keepdims=True))

    monkeypatch.setattr(scenario_tree, "match_means", match_logarithms)
    walk = WALKS["lognormal"]
    plan = plan_scenarios(from_flat(walk), walk, Budget(branching=(256,)), seed=0)
    assert plan.action[0] == 6
    assert plan.value[0] == pytest.approx(2e-4, rel=0.02)


def test_quantiles_of_the_normal_distribution():
    from statistics import NormalDist

    uniforms = np.array([1e-7, 0.01, 0.3, 0.5, 0.9, 1.0 - 1e-7])
    np.testing.assert_allclose(normal_quantile(uniforms), [NormalDist().inv_cdf(u) for u in uniforms], atol=1e-9)


# --- learning test 8: Merton ------------------------------------------------------------------------------------------------------------


def merton_position(model, branching, seed):
    plan = plan_scenarios(Roots(np.zeros((1, 1), dtype=np.float32), np.array([5])), model, Budget(branching=branching), seed=seed)
    return model.positions[plan.action[0]], plan.q[0]


def test_merton_by_quadrature_is_exact():
    model = Merton(quadrature=True)
    assert model.positions[5] == 0.0
    position, q = merton_position(model, (16,), 0)
    assert position == model.best == 2.0
    # Second way: growth of a position in the continuous model, a·μ − a²σ²/2 per step, up to terms of third order.
    np.testing.assert_allclose(q, model.positions * 0.0008 - model.positions**2 * 0.02**2 / 2.0, atol=1e-5)


def test_merton_by_256_scenarios_lies_within_one_step():
    positions = [merton_position(Merton(), (256,), seed)[0] for seed in range(20)]
    assert np.abs(np.array(positions) - 2.0).max() <= 0.2 + 1e-12
    assert np.mean(np.isclose(positions, 2.0)) >= 0.8


def test_merton_unmatched_misses_by_more_than_a_step(monkeypatch):
    monkeypatch.setattr(scenario_tree, "match_means", lambda returns, weights, expected: returns)
    positions = [merton_position(Merton(), (256,), seed)[0] for seed in range(20)]
    assert np.abs(np.array(positions) - 2.0).max() > 0.2 + 1e-12


def test_ruin_is_worth_what_it_is_said_to_be():
    model = Merton()
    gains = model.gains(np.zeros((1, 1)), np.array([[-0.4]]))
    np.testing.assert_array_equal(gains.alive[0, 0], model.positions * -0.4 > -1.0)  # 2.6 and more are lost
    assert (gains.rewards[0, 0, ~gains.alive[0, 0]] == -1e3).all()
    assert gains.rewards[0, 0, 10] == pytest.approx(np.log(1.0 - 0.4 * 1.0))
