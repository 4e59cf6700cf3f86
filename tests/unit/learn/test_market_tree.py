"""One market, two planners: tree search against the exact scenario plan, and tree search on a market that cannot be beaten."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cryptoalpha.core.errors import ConfigError, ModelError
from cryptoalpha.learn.problems.ou_chain import OuChain
from cryptoalpha.learn.problems.random_walk import RandomWalk
from cryptoalpha.learn.search import scenario_tree
from cryptoalpha.learn.search.contract import Budget, ChanceModel, Draws, Gains, Roots, Rules
from cryptoalpha.learn.search.market_tree import MarketTree, tree_roots
from cryptoalpha.learn.search.plan import plan
from cryptoalpha.learn.search.scenario_dp import plan_all_positions

PUCT = Rules(root="puct")


class FourWays:
    """Four market states in a ring, three positions; each state has two outcomes, equally likely, so that drawing both is exact. Two
    positions may not be changed into each other, a leveraged short is ruined by one outcome, and one outcome ends the game."""

    positions = np.array([-2.0, 0.0, 1.0])
    discount = 0.9
    allowed = np.array([[True, True, False], [True, True, True], [False, True, True]])
    moves = np.array([[0.5, -0.2], [0.1, -0.3], [0.6, -0.1], [0.05, 0.0]])

    def draw(self, states, uniforms):
        s = states[:, 0].astype(int)
        high = uniforms < 0.5
        returns = np.where(high, self.moves[s, :1], self.moves[s, 1:])
        following = np.where(high, (s[:, None] + 1) % 4, (s[:, None] + 3) % 4)
        terminal = ~high & (s[:, None] == 3)
        weights = np.full(uniforms.shape, 1.0 / uniforms.shape[1])
        return Draws(following[:, :, None].astype(np.float32), returns, self.moves[s].mean(axis=1), weights, terminal)

    def gains(self, states, returns):
        earned = returns[:, :, None] * self.positions
        return Gains(np.maximum(earned, -1.0), earned > -1.0)

    def costs(self, states):
        return 0.05 * (1.0 + states[:, :1, None]) * np.abs(self.positions[None, :] - self.positions[:, None])

    def values(self, states):
        return 0.2 * np.cos(states[:, :1] + self.positions)

    def logits(self, states):
        return None


def everywhere(world):
    """Every market state with every position."""
    states, held = (a.reshape(-1) for a in np.meshgrid(np.arange(4), np.arange(len(world.positions)), indexing="ij"))
    return Roots(states[:, None].astype(np.float32), held)


def test_the_adapter_says_what_the_market_says():
    world = FourWays()
    tree = MarketTree(world)
    assert isinstance(tree, ChanceModel)
    assert tree.actions == 3
    states = np.array([[2.0, 1.0], [3.0, 2.0]], dtype=np.float32)  # market 2 while flat, market 3 while long
    logits, values = tree.evaluate(states)
    np.testing.assert_allclose(logits, [[-2e-3 / 3, 0.0, -1e-3 / 3], [-1e-3, -1e-3 / 3, 0.0]], atol=1e-9)  # no opinion: by what is traded
    np.testing.assert_allclose(values, [0.2 * np.cos(2.0), 0.2 * np.cos(4.0)], rtol=1e-6)
    out = tree.outcomes(states, np.array([0, 1]), np.array([[0.7, 0.2], [0.2, 0.7]]))
    np.testing.assert_array_equal(out.states, [[[1, 0], [3, 0]], [[0, 1], [2, 1]]])
    # Short 2 in market 2: 0.6 up ruins (floor −1), −0.1 earns 0.2; on average −0.4, less 0.15·2 for the trade. Flat: 0 less 0.2·1.
    np.testing.assert_allclose(out.rewards, [-0.4 - 0.3, -0.2], atol=1e-12)
    np.testing.assert_array_equal(out.terminal, [[False, True], [False, True]])  # ruin above, the end of the game below
    np.testing.assert_array_equal(out.discounts, np.full((2, 2), 0.9))
    np.testing.assert_array_equal(out.legal[:, 0], world.allowed[[0, 1]])


def test_roots_of_a_scenario_plan_become_roots_of_a_tree_search():
    world = FourWays()
    roots = Roots(np.array([[1.0], [2.0]]), np.array([0, 2]), legal=np.array([[False, True, True]] * 2), names=("BTC", "ETH"))
    told = tree_roots(roots, world)
    np.testing.assert_array_equal(told.states, [[1, 0], [2, 2]])
    np.testing.assert_array_equal(told.legal, [[False, True, False], [False, True, True]])
    assert told.names == roots.names
    with pytest.raises(ConfigError, match="positions are missing"):
        tree_roots(Roots(np.zeros((1, 1))), world)


def test_what_a_market_answers_is_refused_in_tree_search_as_in_the_scenario_plan():
    class Spoiled(FourWays):
        def __init__(self, **spoil):
            self.spoil = spoil

        def draw(self, states, uniforms):
            draws = super().draw(states, uniforms)
            return replace(draws, **{field: answer(draws.weights) for field, answer in self.spoil.items()})

    start = Roots(np.zeros((2, 1), dtype=np.float32), np.array([0, 1]), names=("BTC", "ETH"))
    for spoil, says in (
        ({"weights": lambda w: 3.0 * w}, r"BTC.*weights|weights of .*BTC"),
        ({"weights": lambda w: 0.0 * w}, r"BTC.*weights|weights of .*BTC"),
        ({"weights": lambda w: w * [3.0, -1.0]}, r"BTC.*weights|weights of .*BTC"),
        ({"weights": lambda w: w * np.nan}, r"BTC"),
        ({"terminal": lambda w: w * np.nan}, "model.draw: terminal is of type float64, expected True or False"),
    ):
        market = Spoiled(**spoil)
        with pytest.raises(ModelError, match=says):
            plan(start, market, Budget(branching=(2,)), seed=0)
        with pytest.raises(ModelError, match=says):
            plan(tree_roots(start, market), MarketTree(market), Budget(8, outcomes=(2,)), seed=0, rules=PUCT)


def test_a_trade_costs_what_its_own_direction_costs():
    """Buying costs 0.1 a unit, selling 0.4: from flat to 1 is 0.1, back again 0.4, and nothing else is earned."""

    class Lopsided(FourWays):
        allowed = None

        def costs(self, states):
            change = self.positions[None, :] - self.positions[:, None]
            return np.where(change > 0.0, 0.1 * change, -0.4 * change)[None]

        def gains(self, states, returns):
            return Gains(np.zeros((*returns.shape, 3)))

    tree = MarketTree(Lopsided())
    there = tree.outcomes(np.array([[0.0, 1.0]], np.float32), np.array([2]), np.array([[0.2, 0.7]]))
    back = tree.outcomes(np.array([[0.0, 2.0]], np.float32), np.array([1]), np.array([[0.2, 0.7]]))
    assert [float(there.rewards[0]), float(back.rewards[0])] == pytest.approx([-0.1, -0.4])


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_tree_search_finds_what_the_scenario_plan_computes(depth):
    """Both outcomes of every node are seen, so at the same depth both planners solve the same problem."""
    world = FourWays()
    roots = everywhere(world)
    exact = plan_all_positions(roots, world, Budget(branching=(2,) * depth), seed=0)
    q = exact.q[np.arange(12), roots.positions]
    budget = Budget(simulations=6_000, outcomes=(2,), max_depth=depth)
    found = plan(tree_roots(roots, world), MarketTree(world), budget, seed=1, rules=PUCT)
    np.testing.assert_array_equal(np.isneginf(found.q), np.isneginf(q))
    np.testing.assert_array_equal(found.action, q.argmax(axis=1))
    rows = np.arange(12)
    gap = q.max(axis=1) - found.q[rows, found.action]
    assert gap.min() > -1e-3  # a mean over visits, some of them to worse actions: never above the truth …
    assert gap.max() < 0.01 * depth**2  # … and below it by what looking around costs, more so the deeper


def test_on_the_chain_one_step_of_tree_search_with_exact_values_is_one_step_of_the_optimum():
    """At one step only: deeper, PUCT without a prior averages over the worse actions it tries and needs far more simulations than that."""
    chain = OuChain()
    values = chain.optimal_values
    chain.guess = lambda states: values[states[:, 0].astype(int)]
    markets = np.arange(5, 26, dtype=np.float32)
    roots = Roots(np.repeat(markets, 7)[:, None], np.tile(np.arange(7), len(markets)))
    best = chain.induct(values)[roots.states[:, 0].astype(int), roots.positions]
    found = plan(tree_roots(roots, chain), MarketTree(chain), Budget(simulations=200, outcomes=(16,), max_depth=1), seed=0, rules=PUCT)
    lost = best.max(axis=1) - best[np.arange(len(best)), found.action]
    assert lost.mean() < 0.002  # of values near 1.3
    assert lost.max() < 0.03


# --- learning test 7 for tree search ----------------------------------------------------------------------------------------------------

WALKS = {"normal": RandomWalk(), "cheap": RandomWalk(trade_cost=1e-3), "lognormal": RandomWalk(0.02, lognormal=True, trade_cost=1e-6)}
RULES = {"puct": PUCT, "gumbel": Rules(root="gumbel")}


def from_flat(walk, count):
    return tree_roots(Roots(np.zeros((count, 1), dtype=np.float32), np.full(count, walk.flat)), walk)


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
@pytest.mark.parametrize("walk", WALKS.values(), ids=WALKS)
def test_tree_search_claims_nothing_on_a_martingale_and_does_not_trade(walk, rules):
    for outcomes in ((8, 4), (2,)):
        found = plan(from_flat(walk, 8), MarketTree(walk), Budget(simulations=400, outcomes=outcomes), seed=0, rules=rules)
        assert found.value.max() <= 1e-9
        np.testing.assert_array_equal(found.action, np.full(8, walk.flat))
        assert np.delete(found.q, walk.flat, axis=1).max() < 0.0  # every trade costs


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
def test_unmatched_tree_search_claims_money_on_a_martingale(monkeypatch, rules):
    monkeypatch.setattr(scenario_tree, "match_means", lambda returns, weights, expected: returns)
    walk = RandomWalk()
    values, actions = [], []
    for seed in range(4):
        found = plan(from_flat(walk, 8), MarketTree(walk), Budget(simulations=400, outcomes=(2,)), seed=seed, rules=rules)
        values.append(found.value)
        actions.append(found.action)
    assert np.mean(values) > 0.1
    assert (np.concatenate(actions) != walk.flat).mean() > 0.2


class Drifting(RandomWalk):
    """A walk that rises or falls by a tenth of its deviation per step."""

    def __init__(self, drift, positions):
        super().__init__(0.01, trade_cost=0.0005)
        self.drift, self.positions, self.discount = drift, positions, 0.99

    def draw(self, states, uniforms):
        still = super().draw(states, uniforms)
        return replace(still, returns=still.returns + self.drift, expected=still.expected + self.drift)

    def costs(self, states):
        return 0.0005 * np.abs(self.positions[None, :] - self.positions[:, None])[None]

    def values(self, states):
        return np.zeros((len(states), len(self.positions)))


@pytest.mark.parametrize("root", ["puct", "gumbel"])
@pytest.mark.parametrize("up", [True, False])
def test_a_search_without_a_prior_leans_neither_short_nor_to_the_end_of_the_grid_named_first(root, up):
    drift, held = 0.001 if up else -0.001, []
    for grid in (np.linspace(-1.0, 1.0, 21), np.linspace(1.0, -1.0, 21)):
        market = Drifting(drift, grid)
        roots = tree_roots(Roots(np.zeros((1, 1), np.float32), positions=np.array([10])), market)
        found = plan(roots, MarketTree(market), Budget(simulations=800), seed=0, rules=Rules(root))
        assert found.q[0, found.action[0]] > 0.0
        held.append(grid[found.action[0]])
    assert min(np.sign(drift) * np.array(held)) >= 0.6
    assert abs(held[0] - held[1]) <= 0.2
