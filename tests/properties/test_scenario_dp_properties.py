"""ScenarioDP against a recursion written for clarity, on random small worlds with costs, masks, ruin and terminal outcomes."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalpha.learn.search.contract import Budget, Draws, Gains, Roots
from cryptoalpha.learn.search.scenario_dp import plan_all_positions, plan_scenarios

MARKETS = 4
RUIN = -5.0


class RandomWorld:
    """Four market states, each with its own outcomes, returns large enough to ruin, costs, masks and guesses at the leaves."""

    def __init__(self, seed: int, positions: int, outcomes: int, *, uses_uniforms: bool = False) -> None:
        rng = np.random.default_rng(seed)
        self.positions = np.sort(rng.uniform(-2.0, 2.0, positions))
        self.discount = float(rng.uniform(0.5, 1.0))
        self.allowed = rng.random((positions, positions)) < 0.7
        self.allowed[np.arange(positions), rng.integers(positions, size=positions)] = True
        self.next = rng.integers(MARKETS, size=(MARKETS, outcomes))
        self.returns = rng.normal(0.1, 0.6, (MARKETS, outcomes))
        self.expected = rng.normal(0.0, 0.1, MARKETS)
        self.weights = rng.dirichlet(np.ones(outcomes), MARKETS)
        self.terminal = rng.random((MARKETS, outcomes)) < 0.2
        self.trade_costs = rng.uniform(0.0, 0.2, (MARKETS, positions, positions))
        self.guess = rng.normal(0.0, 1.0, (MARKETS, positions))
        self.prior = rng.normal(0.0, 1.0, (MARKETS, positions, positions))
        self.uses_uniforms = uses_uniforms

    def draw(self, states, uniforms):
        s = states[:, 0].astype(int)
        returns = self.returns[s] + (uniforms if self.uses_uniforms else 0.0)
        following = (self.next[s] + (uniforms > 0.4) * 1) % MARKETS if self.uses_uniforms else self.next[s]
        return Draws(following[:, :, None].astype(np.float32), returns, self.expected[s], self.weights[s], self.terminal[s])

    def gains(self, states, returns):
        growth = 1.0 + self.positions * returns[:, :, None]
        return Gains(np.where(growth > 0.0, np.log(np.maximum(growth, 1e-300)), RUIN), growth > 0.0)

    def costs(self, states):
        return self.trade_costs[states[:, 0].astype(int)]

    def values(self, states):
        return self.guess[states[:, 0].astype(int)]

    def logits(self, states):
        return self.prior[states[:, 0].astype(int)]


def q_by_recursion(world: RandomWorld, s: int, p: int, a: int, depth: int) -> float:
    """What going from p to a earns: outcome by outcome, decision by decision, no arrays."""
    outcomes = range(world.next.shape[1])
    mean = sum(world.weights[s, j] * world.returns[s, j] for j in outcomes)
    total = -world.trade_costs[s, p, a]
    for j in outcomes:
        growth = 1.0 + world.positions[a] * (world.returns[s, j] - mean + world.expected[s])
        if growth <= 0.0:
            total += world.weights[s, j] * RUIN
            continue
        later = 0.0
        if not world.terminal[s, j]:
            there = int(world.next[s, j])
            later = world.guess[there, a] if depth == 1 else value_by_recursion(world, there, a, depth - 1)
        total += world.weights[s, j] * (np.log(growth) + world.discount * later)
    return float(total)


def value_by_recursion(world: RandomWorld, s: int, p: int, depth: int) -> float:
    return max(q_by_recursion(world, s, p, a, depth) for a in range(len(world.positions)) if world.allowed[p, a])


worlds = st.tuples(st.integers(0, 2**32 - 1), st.integers(2, 4), st.integers(1, 3))


@settings(max_examples=40, deadline=None)
@given(worlds, st.integers(1, 3))
def test_the_plan_is_what_a_plain_recursion_finds(world, depth):
    seed, positions, outcomes = world
    model = RandomWorld(seed, positions, outcomes)
    states = np.arange(MARKETS, dtype=np.float32)[:, None]
    table = plan_all_positions(Roots(states), model, Budget(branching=(outcomes,) * depth), seed=seed)
    for s in range(MARKETS):
        for p in range(positions):
            expected = [q_by_recursion(model, s, p, a, depth) if model.allowed[p, a] else -np.inf for a in range(positions)]
            np.testing.assert_allclose(table.q[s, p], expected, rtol=0.0, atol=1e-12)
            assert abs(table.values[s, p] - max(expected)) <= 1e-12
            assert expected[table.actions[s, p]] >= max(expected) - 1e-11


@settings(max_examples=40, deadline=None)
@given(worlds, st.integers(1, 3), st.randoms(use_true_random=False))
def test_one_position_and_all_positions_agree_and_the_target_is_the_softmax_by_hand(world, depth, chance):
    seed, positions, outcomes = world
    model = RandomWorld(seed, positions, outcomes, uses_uniforms=True)
    states = np.array([[chance.randrange(MARKETS)] for _ in range(5)], dtype=np.float32)
    held = np.array([chance.randrange(positions) for _ in range(5)])
    budget = Budget(branching=(outcomes,) * depth)
    plan = plan_scenarios(Roots(states, held), model, budget, seed=seed)
    table = plan_all_positions(Roots(states), model, budget, seed=seed)
    rows = np.arange(5)
    np.testing.assert_array_equal(plan.q, table.q[rows, held])
    np.testing.assert_array_equal(plan.action, table.actions[rows, held])
    np.testing.assert_array_equal(plan.value, table.values[rows, held])
    for i in rows:
        q, prior = plan.q[i], model.prior[int(states[i, 0]), held[i]]
        legal = [a for a in range(positions) if np.isfinite(q[a])]
        low, high = min(q[a] for a in legal), max(q[a] for a in legal)
        powers = {a: np.exp(prior[a] + 5.0 * (q[a] - low) / max(high - low, 1e-8)) for a in legal}
        expected = [powers.get(a, 0.0) / sum(powers.values()) for a in range(positions)]
        np.testing.assert_allclose(plan.policy_target[i], expected, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(worlds, st.integers(1, 3), st.permutations(range(6)), st.integers(1, 6))
def test_a_root_does_not_depend_on_the_roots_beside_it(world, depth, order, kept):
    seed, positions, outcomes = world
    model = RandomWorld(seed, positions, outcomes, uses_uniforms=True)
    rng = np.random.default_rng(seed)
    states = rng.integers(MARKETS, size=(6, 1)).astype(np.float32)
    held = rng.integers(positions, size=6)
    budget = Budget(branching=(outcomes,) * depth)
    whole = plan_scenarios(Roots(states, held), model, budget, seed=7)
    for chosen in (list(order), list(order)[:kept], [order[0]]):
        part = plan_scenarios(Roots(states[chosen], held[chosen]), model, budget, seed=7)
        np.testing.assert_array_equal(part.q, whole.q[chosen])
        np.testing.assert_array_equal(part.action, whole.action[chosen])
        np.testing.assert_array_equal(part.policy_target, whole.policy_target[chosen])
        assert part.lines == tuple(whole.lines[i] for i in chosen)
