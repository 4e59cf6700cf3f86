"""What a scenario tree promises about its uniforms, its means and its shape."""

from __future__ import annotations

import numpy as np
import pytest

from cryptoalpha.core.seeds import stream
from cryptoalpha.learn.problems.ou_chain import OuChain
from cryptoalpha.learn.problems.random_walk import RandomWalk
from cryptoalpha.learn.search.contract import Draws, Roots
from cryptoalpha.learn.search.scenario_tree import EDGE, grow, match_means, matched_returns, stratified_uniforms


def test_every_stratum_holds_one_uniform_at_one_height_per_node():
    uniforms = stratified_uniforms(50, 8, stream(0, "test"))
    ordered = np.sort(uniforms, axis=1) * 8
    np.testing.assert_array_equal(np.floor(ordered), np.tile(np.arange(8), (50, 1)))
    np.testing.assert_allclose(ordered - np.floor(ordered), np.repeat(ordered[:, :1], 8, axis=1), atol=1e-12)  # one U per node
    assert len(np.unique(uniforms[:, 0].round(12))) == 50


def test_no_node_order_is_preferred():
    """The first outcome of a node is as often from the upper as from the lower tail; a fixed order ruins tree search (.94 → .76)."""
    first = np.floor(stratified_uniforms(4_000, 4, stream(1, "test"))[:, 0] * 4)
    share = np.bincount(first.astype(int), minlength=4) / 4_000
    np.testing.assert_allclose(share, 0.25, atol=0.03)  # 4 standard errors


def test_uniforms_never_round_to_the_ends_in_float32():
    class AlmostOne(np.random.Generator):
        def random(self, *args, **kwargs):
            return np.full(args[0], 1.0 - 2.0**-53)

    uniforms = stratified_uniforms(3, 5, AlmostOne(np.random.PCG64(0)))
    assert uniforms.max() == 1.0 - EDGE
    assert uniforms.astype(np.float32).max() < 1.0


def test_matching_moves_the_weighted_mean_and_nothing_else():
    returns, weights = np.array([[0.1, -0.2, 0.4]]), np.array([[0.5, 0.25, 0.25]])
    matched = match_means(returns, weights, np.array([0.02]))  # mean was .5·.1 − .25·.2 + .25·.4 = .1
    np.testing.assert_allclose(matched, [[0.02, -0.28, 0.32]], atol=1e-15)


def test_a_tree_has_as_many_nodes_as_its_branching_says_and_moves_as_the_market_does():
    chain = OuChain()
    tree = grow(Roots(np.array([[3.0], [15.0]], dtype=np.float32)), chain, (4, 3), seed=0)
    assert [level.states.shape for level in tree.levels] == [(2, 1), (8, 1)]
    assert tree.leaves.shape == (24, 1)
    np.testing.assert_array_equal(tree.owners, np.repeat([0, 1], 12))
    np.testing.assert_array_equal(tree.levels[1].paths, [0, 1, 2, 3, 0, 1, 2, 3])
    here, there = tree.levels[0].states[:, 0].astype(int), tree.levels[1].states[:, 0].astype(int).reshape(2, 4)
    assert (chain.transitions[here[:, None], there] > 0.0).all()


def test_terminal_children_are_neither_expanded_nor_valued():
    class Ends(RandomWalk):
        def draw(self, states, uniforms):
            draws = super().draw(states, uniforms)
            terminal = draws.returns > 0.0
            following = np.where(terminal[:, :, None], np.nan, draws.states)  # a terminal state is nobody's business
            return Draws(following, draws.returns, draws.expected, draws.weights, terminal)

    tree = grow(Roots(np.zeros((3, 1), dtype=np.float32)), Ends(), (4, 4), seed=0)
    assert [len(level.states) for level in tree.levels] == [3, 6]  # two of four strata lie above the median
    assert len(tree.leaves) == 12
    level = tree.levels[0]
    children = [level.child(node, j) for node in range(3) for j in range(4)]
    assert [child for child in children if child is not None] == [0, 1, 2, 3, 4, 5]
    values = level.spread(np.arange(1.0, 7.0)[:, None])[:, :, 0]
    np.testing.assert_array_equal(values[values > 0.0], np.arange(1.0, 7.0))
    assert ((values == 0.0) == (np.array(children).reshape(3, 4) == None)).all()  # noqa: E711  elementwise


@pytest.mark.parametrize("seed", [0, 1])
def test_same_seed_same_tree_other_seed_another(seed):
    roots = Roots(np.zeros((2, 1), dtype=np.float32))
    first, again, other = (grow(roots, RandomWalk(), (5, 5), seed=s) for s in (seed, seed, seed + 1))
    np.testing.assert_array_equal(first.leaves, again.leaves)
    assert (first.leaves != other.leaves).any()


def test_weights_that_were_rounded_in_float32_leave_no_trace_in_the_mean():
    weights = np.full((1, 28), 1.0 / 28.0, dtype=np.float32) * np.float32(1.000004)
    draws = Draws(np.zeros((1, 28, 1)), np.linspace(-1.0, 9.0, 28)[None], np.array([0.25]), weights)
    returns, used = matched_returns(draws)
    assert (used * returns).sum() == pytest.approx(0.25, abs=1e-14)
