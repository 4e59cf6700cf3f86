"""ScenarioDP on worked cases: ties, masks, ruin, the line, what it refuses and what it costs."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from cryptoalpha.core.errors import ConfigError, ModelError
from cryptoalpha.learn.search.contract import Budget, Draws, Gains, MarketModel, Roots
from cryptoalpha.learn.search.market_tree import MarketTree, tree_roots
from cryptoalpha.learn.search.scenario_dp import memory_needed, plan_all_positions, plan_scenarios, policy_target


class Coin:
    """The market moves up or down by `size`, `odds` to one side; positions −1, 0, 1; nothing else. Depth shows in the state."""

    positions = np.array([-1.0, 0.0, 1.0])
    allowed = None

    def __init__(self, *, size: float = 1.0, odds: float = 0.5, cost: float = 0.0, discount: float = 1.0, width: int = 1) -> None:
        self.size, self.odds, self.discount, self.width = size, odds, discount, width
        self.trade_costs = cost * np.abs(self.positions[None, :] - self.positions[:, None])[None]

    def draw(self, states, uniforms):
        n = len(states)
        returns = np.tile([self.size, -self.size], (n, 1))
        weights = np.tile([self.odds, 1.0 - self.odds], (n, 1))
        following = np.repeat(states[:, None, :] + 1.0, 2, axis=1)
        return Draws(following, returns, np.full(n, self.size * (2.0 * self.odds - 1.0)), weights)

    def gains(self, states, returns):
        return Gains(returns[:, :, None] * self.positions)

    def costs(self, states):
        return self.trade_costs

    def values(self, states):
        return np.zeros((len(states), 3), dtype=np.float32)

    def logits(self, states):
        return None


def answering(method, answer):
    """A coin whose `method` answers something else."""
    coin = Coin()
    setattr(coin, method, answer)
    return coin


def roots(*positions, **more):
    return Roots(np.zeros((len(positions), 1), dtype=np.float32), np.array(positions), **more)


ONE = Budget(branching=(2,))
TWO = Budget(branching=(2, 2))


def test_a_biased_coin_is_bet_on_by_hand():
    """Edge .6·1 − .4·1 = .2 a step, cost .05 a unit: from flat to long is worth .2 − .05, then .9 of .2 more for staying."""
    plan = plan_scenarios(roots(1), Coin(odds=0.6, cost=0.05, discount=0.9), TWO, seed=0)
    assert isinstance(Coin(), MarketModel)
    np.testing.assert_array_equal(plan.action, [2])
    # short: −.2 − .05, then the better of staying (−.2), leaving (−.05) and turning (.2 − .1); flat: next .2 − .05
    np.testing.assert_allclose(plan.q, [[-0.25 + 0.9 * 0.1, 0.9 * 0.15, 0.15 + 0.9 * 0.2]], atol=1e-12)
    assert plan.value[0] == pytest.approx(0.33)
    assert plan.visits is None
    assert plan.stats.evaluated_states == 4
    assert plan.stats.depth == 2


@pytest.mark.parametrize(("held", "kept"), [(0, 0), (1, 1), (2, 2)])
def test_ties_go_to_the_smallest_trade(held, kept):
    assert plan_scenarios(roots(held), Coin(), TWO, seed=0).action[0] == kept


def test_an_illegal_action_has_no_share_and_the_best_of_the_rest_wins():
    plan = plan_scenarios(roots(1, legal=np.array([[True, True, False]])), Coin(odds=0.6), ONE, seed=0)
    np.testing.assert_allclose(plan.q, [[-0.2, 0.0, -np.inf]], atol=1e-12)
    assert plan.action[0] == 1
    assert plan.policy_target[0, 2] == 0.0
    assert plan.policy_target[0, 1] == pytest.approx(np.exp(5.0) / (1.0 + np.exp(5.0)))


def test_moves_that_the_model_forbids_are_not_made_later_either():
    """From flat one may only stay; so flat is worth 0 although long earns .2 a step."""
    coin = Coin(odds=0.6)
    coin.allowed = np.array([[True, True, True], [False, True, False], [True, True, True]])
    table = plan_all_positions(roots(0), coin, TWO, seed=0)
    np.testing.assert_allclose(table.values, [[0.4, 0.0, 0.4]], atol=1e-12)
    np.testing.assert_array_equal(table.actions, [[2, 1, 2]])


def test_ruin_ends_everything_for_the_ruined_position_only():
    coin = Coin(size=2.0, odds=0.75)  # long loses 2 with probability 1/4 and is ruined by it
    coin.gains = lambda states, returns: Gains(returns[:, :, None] * coin.positions, returns[:, :, None] * coin.positions > -1.0)
    coin.values = lambda states: np.full((len(states), 3), 8.0)
    table = plan_all_positions(roots(0), coin, ONE, seed=0)
    np.testing.assert_allclose(table.q[0, 1], [-1.0 + 0.25 * 8.0, 8.0, 1.0 + 0.75 * 8.0], atol=1e-12)


def test_the_principal_line_follows_the_likeliest_outcome():
    coin = Coin(odds=0.7, cost=0.05)
    coin.logits = lambda states: np.tile([0.0, 0.0, np.log(2.0)], (len(states), 3, 1))
    plan = plan_scenarios(roots(1, 1), coin, TWO, seed=0)
    line = plan.lines[1]
    assert [(step.action, step.outcome, step.visits) for step in line] == [(2, 0, None), (2, 0, None)]
    assert [step.prior for step in line] == pytest.approx([0.5, 0.5])
    assert [step.value for step in line] == pytest.approx([0.75, 0.4])  # (.4 − .05) + .4 in all, then .4
    assert plan.stats.evaluated_states == 8 + 2 + 2  # leaves, roots and their likeliest children asked for a prior


def test_the_target_of_equal_actions_is_the_prior():
    logits = np.log([[0.2, 0.3, 0.5]])
    np.testing.assert_allclose(policy_target(np.zeros((1, 3)), logits), [[0.2, 0.3, 0.5]])
    noise = np.array([[0.0, 1e-16, -1e-16]])
    np.testing.assert_allclose(policy_target(noise, logits), [[0.2, 0.3, 0.5]], atol=1e-6)


NAMED = {"names": ("BTC", "ETH", "SOL")}


def nan_at(row, array):
    array = np.array(array, dtype=np.float64)
    array[row] = np.nan
    return array


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (answering("values", lambda s: nan_at(5, np.zeros((len(s), 3)))), r"model.values: values hold nan for root 1 \(ETH\) at depth 2"),
        (answering("costs", lambda s: nan_at(1, np.zeros((len(s), 3, 3)))), r"model.costs: costs hold nan for root . "),
        (answering("gains", lambda s, r: Gains(nan_at(len(s) - 1, np.zeros((*r.shape, 3))))), r"rewards hold nan for root 2 \(SOL\)"),
        (answering("logits", lambda s: nan_at(1, np.zeros((len(s), 3, 3)))), r"model.logits: logits hold nan for root 1 \(ETH\)"),
        (
            answering("draw", lambda s, u: Draws(np.zeros((*u.shape, 1)), nan_at(2, u), np.zeros(len(s)), u)),
            r"returns hold nan for root 2 \(SOL\) at depth 0",
        ),
        (
            answering("draw", lambda s, u: Draws(nan_at(0, np.zeros((*u.shape, 1))), u, np.zeros(len(s)), np.full(u.shape, 0.5))),
            r"states hold nan for root 0 \(BTC\)",
        ),
        (
            answering("draw", lambda s, u: Draws(np.zeros((*u.shape, 1)), u, np.zeros(len(s)), np.full(u.shape, 0.4))),
            r"weights of root 0 \(BTC\) at depth 0 are no distribution .*sum 0.8",
        ),
        (
            answering("gains", lambda s, r: Gains(np.zeros((*r.shape, 3)), np.full((*r.shape, 3), np.nan))),
            r"model.gains: alive is of type float64, expected True or False, while planning root 0 \(BTC\) and 2 more",
        ),
        (
            answering("draw", lambda s, u: Draws(np.zeros((*u.shape, 1)), u, np.zeros(len(s)), np.full(u.shape, 0.5), u * np.nan)),
            r"model.draw: terminal is of type float64, expected True or False",
        ),
        (
            answering(
                "gains",
                lambda s, r: Gains(
                    np.where(np.arange(len(s)) // (len(s) // 3) == 1, 1.7e308, 0.0)[:, None, None] + np.zeros((*r.shape, 3))
                ),
            ),
            r"root 1 \(ETH\): the values backed up to depth 1 grew beyond float64; nothing was decided",
        ),
        (answering("values", lambda s: np.zeros(len(s))), r"model.values: values have shape \(12,\), expected \(12, 3\)"),
        (answering("gains", lambda s, r: Gains(np.zeros(r.shape))), r"rewards have shape \(6, 2\), expected \(6, 2, 3\)"),
        (answering("costs", lambda s: np.zeros((2, 3, 3))), r"costs have shape \(2, 3, 3\), expected \(6, 3, 3\)"),
        (
            answering("allowed", np.array([[True] * 3, [False] * 3, [True] * 3])),
            r"no move is allowed from position index 1, for root 0 \(BTC\)",
        ),
    ],
    ids=[
        "value",
        "cost",
        "reward",
        "prior",
        "return",
        "state",
        "weights",
        "alive",
        "terminal",
        "overflow",
        "values' shape",
        "rewards' shape",
        "costs' shape",
        "stuck",
    ],
)
def test_what_a_model_answers_is_checked_and_the_root_is_named(model, says):
    with pytest.raises(ModelError, match=says):
        plan_scenarios(roots(0, 1, 2, **NAMED), model, TWO, seed=0)


def test_a_root_without_a_legal_action_is_named():
    legal = np.array([[True] * 3, [False] * 3, [True] * 3])
    with pytest.raises(ModelError, match=r"root 1 \(ETH\) has no legal action from position index 1"):
        plan_scenarios(roots(0, 1, 2, legal=legal, **NAMED), Coin(), TWO, seed=0)
    table = plan_all_positions(roots(0, 1, 2, legal=legal), Coin(), TWO, seed=0)
    np.testing.assert_array_equal(table.actions[1], [-1, -1, -1])
    assert np.isneginf(table.values[1]).all()


@pytest.mark.parametrize(
    ("asked", "budget", "says"),
    [
        (roots(0, 3), TWO, r"root 1 stands at position index 3, outside the grid of 3"),
        (Roots(np.zeros((2, 1))), TWO, "positions are missing"),
        (Roots(np.zeros((2, 1)), np.array([0.0, 1.0])), TWO, r"float64 \(2,\), expected \(2,\) indices"),
        (Roots(np.zeros(2), np.array([0, 1])), TWO, r"expected \[B, X\]"),
        (Roots(np.array([[0.0], [np.nan]]), np.array([0, 1])), TWO, "root 1 starts from a state that is not finite"),
        (roots(0, 1, names=("BTC",)), TWO, "1 names for 2 roots"),
        (roots(0, 1, legal=np.ones((2, 2), dtype=bool)), TWO, r"legal has shape \(2, 2\), expected \(2, 3\)"),
        (roots(0, legal=np.full((1, 3), np.nan)), TWO, "roots.legal is of type float64, expected True or False"),
        (roots(-1), TWO, "root 0 stands at position index -1, outside the grid of 3"),
        (roots(0), Budget(branching=()), "grows no tree"),
        (
            roots(0, names=("BTC",)),
            Budget(branching=(1000, 1000, 1000)),
            r"root 0 \(BTC\) first\) with 1000000000 leaves each need \d+ MiB",
        ),
    ],
)
def test_what_cannot_be_planned_is_refused_before_anything_is_computed(asked, budget, says):
    def untouched(*_):
        raise AssertionError("computed")

    with pytest.raises(ConfigError, match=says):
        plan_scenarios(asked, answering("draw", untouched), budget, seed=0)


@pytest.mark.parametrize(
    ("what", "number", "says"),
    [
        ("discount", 1.5, "discount 1.5 of the model lies outside 0–1"),
        ("discount", np.nan, "discount nan of the model lies outside 0–1"),
        ("positions", np.zeros(0), "model.positions are .*, expected a list of at least one finite number"),
        ("positions", np.array([-1.0, np.nan, 1.0]), "expected a list of at least one finite number"),
        ("allowed", np.ones((2, 3), dtype=bool), r"model.allowed has shape \(2, 3\), expected \(3, 3\)"),
        ("allowed", np.full((3, 3), np.nan), "model.allowed is of type float64, expected True or False"),
    ],
)
def test_a_market_whose_constants_fit_no_plan_is_refused_by_both_planners(what, number, says):
    market = answering(what, number)
    for door in (
        lambda: plan_scenarios(roots(0), market, TWO, seed=0),
        lambda: tree_roots(roots(0), market),
        lambda: MarketTree(market),
    ):
        with pytest.raises(ConfigError, match=says):
            door()


@pytest.mark.parametrize("held", [[-1], [7], [1.9]])
def test_positions_off_the_grid_are_refused_by_tree_search_too(held):
    start = Roots(np.zeros((1, 1)), np.array(held))
    for door in (lambda: plan_scenarios(start, Coin(), TWO, seed=0), lambda: tree_roots(start, Coin())):
        with pytest.raises(ConfigError, match=r"position index|expected \(1,\) indices into the grid"):
            door()


def test_actions_that_differ_by_rounding_alone_are_equal():
    """Long earns 1e-13 more than flat: no reason to trade. 1e-9 more is one."""
    for gain, kept in ((1e-13, 1), (1e-9, 2)):
        coin = answering("gains", lambda s, r, gain=gain: Gains(np.zeros((*r.shape, 3)) + np.array([0.0, 0.0, gain])))
        assert plan_scenarios(roots(1), coin, ONE, seed=0).action[0] == kept


def test_the_memory_that_is_refused_is_the_memory_that_would_be_used():
    class Wide(Coin):
        positions = np.linspace(-1.0, 1.0, 21)

        def draw(self, states, uniforms):
            following = np.repeat(states[:, None, :], uniforms.shape[1], axis=1)
            return Draws(following, uniforms - 0.5, np.zeros(len(states)), np.full(uniforms.shape, 1.0 / uniforms.shape[1]))

        def values(self, states):
            return np.zeros((len(states), 21), dtype=np.float32)

    for width, count, branching in [(100, 8, (28, 28)), (2, 64, (6, 6, 6)), (1, 400, (16,))]:
        start = Roots(np.zeros((count, width), dtype=np.float32), np.zeros(count, dtype=np.int64))
        needed = memory_needed(count, width, 21, branching)
        tracemalloc.start()
        plan = plan_scenarios(start, Wide(), Budget(branching=branching), seed=0)
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert plan.stats.memory_bytes == needed
        assert 0.25 * needed <= used <= needed
        with pytest.raises(ConfigError, match="more than the"):
            plan_scenarios(start, Wide(), Budget(branching=branching, memory_bytes=needed - 1), seed=0)
