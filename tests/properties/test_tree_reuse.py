"""A re-rooted tree is the tree that a fresh search from there would have grown; only what was observed can be followed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.learn.search import noise
from cryptoalpha.learn.search import tree as layout
from cryptoalpha.learn.search.contract import Budget, Outcomes, Roots, Rules, Step
from cryptoalpha.learn.search.plan import plan
from cryptoalpha.learn.search.reuse import observed_outcomes, reroot

A, SIZE = 4, 1 << 14


class Maze:
    """Numbers below 2^14; where an action leads, what it earns, what is legal and where it ends stand in tables."""

    actions = A

    def __init__(self, seed: int, ending: float = 0.1) -> None:
        rng = np.random.default_rng(seed)
        self.after = rng.integers(0, SIZE, (SIZE, A, 8))
        self.logits, self.values = rng.normal(size=(SIZE, A)), rng.normal(size=SIZE)
        self.rewards, self.discounts = rng.normal(size=(SIZE, A)), rng.choice([-1.0, 0.9], SIZE)
        self.ends, self.legal = rng.random(SIZE) < ending, rng.random((SIZE, A)) < 0.7
        self.legal[np.arange(SIZE), rng.integers(0, A, SIZE)] = True
        self.asked = 0

    def evaluate(self, states: Any) -> tuple[Any, Any]:
        codes = states[:, 0].astype(int)
        self.asked += len(codes)
        return self.logits[codes], self.values[codes]

    def step(self, states: Any, actions: Any) -> Step:
        before = states[:, 0].astype(int)
        after = self.after[before, actions, 0]
        return Step(after[:, None], self.rewards[before, actions], self.discounts[after], self.ends[after], self.legal[after])


class Dice(Maze):
    """The same, where one of six outcomes follows, whatever the uniforms say: an observed outcome is one of those in the tree."""

    def outcomes(self, states: Any, actions: Any, uniforms: Any) -> Outcomes:
        before, m = states[:, 0].astype(int), uniforms.shape[1]
        after = self.after[before, actions, :m]
        return Outcomes(
            after[:, :, None],
            np.full(after.shape, 1 / m),
            self.rewards[before, actions],
            self.discounts[after],
            self.ends[after],
            self.legal[after],
        )


def grown(trees: Any, row: int = 0) -> dict[str, Any]:
    """All that a tree holds, but where it came from."""
    t, used = trees.arrays, int(trees.used[row])
    nodes, floats = t.nodes[row, :used].copy(), t.node_floats[row, :used].copy()
    nodes[0, [layout.ACTION, layout.OUTCOME, layout.SLOT]] = 0
    floats[0, [layout.REWARD, layout.DISCOUNT]] = 0
    legal = nodes[:, layout.LEGAL]
    return {
        "nodes": nodes[:, :10],
        "numbers": floats[:, 10:14],
        "edges": [t.edges[row, node, : legal[node]].tolist() for node in range(used)],
        "states": t.states[row, :used],
        "fan": [
            t.fan[row, edge, : nodes[node, layout.FANOUT]].tolist()
            for node in range(used)
            for edge in t.edges[row, node, : nodes[node, layout.TRIED], layout.CHILD]
            if trees.chance
        ],
    }


def same(one: dict[str, Any], other: dict[str, Any]) -> None:
    for name, part in one.items():
        if isinstance(part, list):
            assert part == other[name], name
        else:
            np.testing.assert_array_equal(part, other[name], err_msg=name)


def child_state(trees: Any, action: int, outcome: int = 0) -> Any:
    nodes = trees.arrays.nodes[0, : int(trees.used[0])]
    at = np.flatnonzero((nodes[:, layout.PARENT] == 0) & (nodes[:, layout.ACTION] == action) & (nodes[:, layout.OUTCOME] == outcome))
    return trees.arrays.states[0, at[0]], nodes[at[0]]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 500), start=st.integers(0, SIZE - 1), simulations=st.integers(5, 120))
def test_a_rerooted_tree_is_the_one_a_fresh_search_would_have_grown(seed, start, simulations):
    maze, rules = Maze(seed), Rules("puct")
    roots = Roots(np.array([[start]], np.float32), legal=maze.legal[[start]])
    first = plan(roots, maze, Budget(simulations), seed=0, rules=rules)
    action = int(first.action[0])
    state, node = child_state(first.trees, action)
    if node[layout.KIND] == layout.TERMINAL or node[layout.VISITS] < 2:
        return
    rerooted = reroot(first.trees, first.action)
    here = Roots(state[None], legal=maze.legal[[int(state[0])]])
    fresh = plan(here, maze, Budget(int(node[layout.VISITS]) - 1), seed=0, rules=rules)
    same(grown(rerooted), grown(fresh.trees))

    asked = maze.asked
    on = plan(here, maze, Budget(simulations), seed=0, rules=rules, earlier=rerooted)
    asked = maze.asked - asked
    whole = plan(here, maze, Budget(simulations), seed=0, rules=rules)
    same(grown(on.trees), grown(whole.trees))
    np.testing.assert_array_equal(on.visits, whole.visits)
    assert on.stats.evaluated_states == asked < whole.stats.evaluated_states  # what was known is not asked again


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 500), start=st.integers(0, SIZE - 1))
def test_with_chance_the_subtree_of_the_observed_outcome_is_kept(seed, start):
    dice, rules, budget = Dice(seed, ending=0.02), Rules("puct"), Budget(150, outcomes=(6,))
    first = plan(Roots(np.array([[start]], np.float32)), dice, budget, seed=0, rules=rules)
    action = int(first.action[0])
    for outcome in range(6):
        state = np.array([[dice.after[start, action, outcome]]], np.float32)
        found = observed_outcomes(first.trees, first.action, state)
        nodes = first.trees.arrays.nodes[0, : int(first.trees.used[0])]
        seen = (nodes[:, layout.PARENT] == 0) & (nodes[:, layout.ACTION] == action) & (nodes[:, layout.OUTCOME] == outcome)
        assert found[0] == (outcome if seen.any() else -1)
        rerooted = reroot(first.trees, first.action, found)
        if not seen.any() or nodes[seen][0, layout.KIND] == layout.TERMINAL or nodes[seen][0, layout.VISITS] < 2:
            continue
        key = first.trees.arrays.keys[0, np.flatnonzero(seen)[0]]
        here = Roots(state, legal=dice.legal[[int(state[0, 0])]])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(noise, "root_keys", lambda seed, roots, count, key=key: np.array([key], np.uint64))
            fresh = plan(here, dice, Budget(int(nodes[seen][0, layout.VISITS]) - 1, outcomes=(6,)), seed=0, rules=rules)
            whole = plan(here, dice, budget, seed=0, rules=rules)
        same(grown(rerooted), grown(fresh.trees))
        on = plan(here, dice, budget, seed=0, rules=rules, earlier=rerooted)
        same(grown(on.trees), grown(whole.trees))


def test_a_gumbel_root_spends_what_is_left_by_its_own_schedule():
    maze = Maze(3, ending=0.0)
    start = np.array([[5]], np.float32)
    first = plan(Roots(start), maze, Budget(100), seed=0)
    state, node = child_state(first.trees, int(first.action[0]))
    kept = int(node[layout.VISITS]) - 1
    here, rerooted = Roots(state[None], legal=maze.legal[[int(state[0])]]), reroot(first.trees, first.action)
    on = plan(here, maze, Budget(100), seed=0, earlier=rerooted)
    assert 0 < kept < 100
    assert on.visits.sum() == 100
    assert on.stats.evaluated_states == 100 - kept
    new = on.visits[0] - rerooted.root_edges(layout.COUNT, 0)[0]
    assert new.sum() == 100 - kept
    legal = maze.legal[int(state[0])]
    assert (new[legal] > 0).all()  # four actions at most: all are considered
    assert legal[on.action[0]]


def test_rows_that_were_never_visited_are_planned_afresh():
    maze = Maze(4, ending=0.0)
    starts = np.array([[5], [6]], np.float32)
    first = plan(Roots(starts), maze, Budget(30), seed=0, rules=Rules("puct"))
    actions = first.action.copy()
    actions[1] = int(np.argmin(np.where(first.visits[1] == 0, 0, 1)))
    if first.visits[1].min() > 0:
        pytest.fail("the example needs an action that was never visited")
    after = maze.after[[5, 6], actions, 0].astype(np.float32)[:, None]
    rerooted = reroot(first.trees, actions)
    assert (rerooted.used > 0).tolist() == [True, False]
    for memory in (rerooted.arrays.nodes, rerooted.arrays.edges, rerooted.arrays.states):
        memory[1] = 1042983595  # an empty tree is memory that was never written: whatever is in there, nobody reads it
    assert (rerooted.root_edges(layout.COUNT, 0.0)[1] == 0).all()
    on = plan(Roots(after), maze, Budget(30), seed=0, rules=Rules("puct"), earlier=rerooted)
    fresh = plan(Roots(after), maze, Budget(30), seed=0, rules=Rules("puct"))
    np.testing.assert_array_equal(on.visits[1], fresh.visits[1])
    assert on.visits.sum(axis=1).tolist() == [30, 30]


def test_rerooting_leaves_the_old_trees_alone_and_drops_the_noise_of_the_old_root():
    maze, rules = Maze(6, ending=0.0), Rules("puct", dirichlet_fraction=0.5)
    first = plan(Roots(np.array([[9]], np.float32)), maze, Budget(60), seed=0, rules=rules)
    before = grown(first.trees)
    rerooted = reroot(first.trees, first.action)
    same(grown(first.trees), before)
    code = int(rerooted.arrays.states[0, 0, 0])
    logits = np.where(maze.legal[code], maze.logits[code], -np.inf)
    prior = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    np.testing.assert_allclose(rerooted.root_edges(layout.PRIOR, 0.0)[0], prior, rtol=1e-5)


def test_a_state_that_was_not_observed_cannot_be_followed():
    maze = Maze(7, ending=0.0)
    first = plan(Roots(np.array([[9]], np.float32), names=("BTC",)), maze, Budget(40), seed=0)
    rerooted = reroot(first.trees, first.action)
    with pytest.raises(ConfigError, match=r"root 0 \(BTC\): its earlier tree starts at another state than the one observed"):
        plan(Roots(np.array([[10]], np.float32), names=("BTC",)), maze, Budget(40), seed=0, earlier=rerooted)


def test_what_is_legal_now_decides_not_what_was_legal_in_the_tree():
    maze = Maze(8, ending=0.0)
    first = plan(Roots(np.array([[9]], np.float32)), maze, Budget(40), seed=0)
    rerooted = reroot(first.trees, first.action)
    state = rerooted.arrays.states[0, :1]
    legal = maze.legal[[int(state[0, 0])]].copy()
    legal[0, np.flatnonzero(legal[0])[0]] ^= legal.sum() > 1
    changed = Roots(state, legal=legal if legal.sum() < maze.legal[int(state[0, 0])].sum() else ~np.zeros_like(legal))
    on = plan(changed, maze, Budget(40), seed=0, earlier=rerooted)
    np.testing.assert_array_equal(on.visits, plan(changed, maze, Budget(40), seed=0).visits)


def test_arguments_that_do_not_fit_are_refused():
    maze, dice = Maze(1), Dice(1)
    roots = Roots(np.array([[9], [10]], np.float32))
    trees = plan(roots, maze, Budget(10), seed=0).trees
    with pytest.raises(ConfigError, match="1 actions and 2 outcomes for 2 trees"):
        reroot(trees, np.array([0]))
    with pytest.raises(ConfigError, match="outside 0 … 3"):
        reroot(trees, np.array([0, 4]))
    with pytest.raises(ConfigError, match="chance moved"):
        reroot(plan(roots, dice, Budget(10), seed=0).trees, np.array([0, 0]))
    with pytest.raises(ConfigError, match="earlier trees have"):
        plan(Roots(np.array([[9]], np.float32)), maze, Budget(10), seed=0, earlier=reroot(trees, np.array([0, 0])))


def test_an_observed_end_has_nothing_left_to_decide():
    maze = Maze(2, ending=1.0)
    first = plan(Roots(np.array([[9]], np.float32)), maze, Budget(10), seed=0)
    rerooted = reroot(first.trees, first.action)
    with pytest.raises(ConfigError, match="root 0: the state observed is terminal"):
        plan(Roots(rerooted.arrays.states[0, :1]), maze, Budget(10), seed=0, earlier=rerooted)
