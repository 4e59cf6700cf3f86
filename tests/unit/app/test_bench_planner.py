"""The planner's benchmark in small, and its baseline: an object tree must find exactly what the planner's arrays find."""

import math

import numpy as np
import pytest
import torch

from cryptoalpha.app.bench.object_tree import Node, ObjectTree, back_up, root_visits
from cryptoalpha.app.bench.planner import Sizes, bench_planner, compare_visits, latent_tree, visits_of
from cryptoalpha.app.bench.planner_peers import Peers, one_core
from cryptoalpha.app.bench.planner_workload import SIMULATIONS, TABLE_KEEP, TABLE_STATES, LatentMarket, TableModel, latent_world, onnx_net
from cryptoalpha.core.errors import CryptoAlphaError
from cryptoalpha.learn.search.contract import MarketModel, StepModel

KEYS = (
    *(f"sims_per_second_b{batch}" for batch in (1, 16, 64, 256)),
    *("ratio_object_tree_b1", "ratio_object_tree_b64", "ratio_mctx_b1", "ratio_mctx_b16", "ratio_open_spiel_b1"),
    *("tree_share_of_network_a7", "tree_share_of_network_a21", "live_decision_800_ms", "scenario_dp_784_ms", "mctx_visits_equal"),
)
OF_PEERS = {"ratio_mctx_b1", "ratio_mctx_b16", "ratio_open_spiel_b1", "mctx_visits_equal"}


def table_tree(actions: int) -> ObjectTree:
    table = TableModel(actions)

    def evaluate(state: int) -> tuple[list[float], float]:
        return torch.softmax(torch.from_numpy(table.logits[state]), 0).tolist(), float(table.values[state])

    def advance(state: int, action: int) -> tuple[int, float, float]:
        return (state * actions + action + 1) % TABLE_STATES, float(table.rewards[state, action]), TABLE_KEEP

    return ObjectTree(evaluate, advance)


@pytest.mark.parametrize("actions", [7, 21])
@pytest.mark.parametrize("batch", [1, 4])
def test_an_object_tree_visits_what_the_planner_visits(actions, batch):
    """Two programs, one algorithm; priors, values and rewards are looked up, so that no rounding of a product lies between them."""
    ours = visits_of("table", actions, batch, SIMULATIONS)
    roots = TableModel(actions).roots(batch)[:, 0].astype(int)
    tree = table_tree(actions)
    assert ours.tolist() == [root_visits(tree.search(root, SIMULATIONS)) for root in roots]
    assert ours.sum(axis=1).tolist() == [SIMULATIONS] * batch


@pytest.mark.parametrize("actions", [7, 21])
def test_with_a_net_they_visit_the_same_but_for_rounding(actions):
    """Torch and ONNX Runtime sum a product in different orders: a near-tie may fall differently, a search may not."""
    ours = visits_of("net", actions, 2, 200)
    tree, roots = latent_tree(actions, 2)
    theirs = np.array([root_visits(tree.search(root, 200)) for root in roots])
    assert np.abs(ours - theirs).sum(axis=1).max() <= 0.1 * 200


def test_the_object_tree_backs_up_rewards_and_discounts():
    """root –(reward 1, discount ½)→ a –(reward 2, discount ½)→ leaf worth 8: 2 + 4 = 6 at a, 1 + 3 = 4 at the root."""
    root, middle, leaf = Node(1.0), Node(0.5), Node(0.5)
    root.expand(torch.zeros(1), 0.0, 1.0, [0.5, 0.5], 0.0)
    middle.expand(torch.zeros(1), 1.0, 0.5, [0.5, 0.5], 2.0)
    leaf.expand(torch.zeros(1), 2.0, 0.5, [0.5, 0.5], 8.0)
    back_up([root, middle, leaf])
    assert (middle.value, middle.visits) == ((2.0 + 6.0) / 2, 2)
    assert (root.value, root.visits) == ((0.0 + 4.0) / 2, 2)
    assert leaf.visits == 1


def test_one_wrong_term_changes_the_visits():
    """The comparison can fail: an object tree that forgets the discount finds other visits."""
    tree = table_tree(7)
    whole = tree.advance
    tree.advance = lambda state, action: (*whole(state, action)[:2], 1.0)
    roots = TableModel(7).roots(4)[:, 0].astype(int)
    assert [root_visits(tree.search(root, 400)) for root in roots] != visits_of("table", 7, 4, 400).tolist()


def test_every_key_is_there_and_a_peer_that_is_not_asked_is_null():
    done: list[int] = []
    small = Sizes(simulations=8, branching=(3, 2), object_roots=2, object_turns=1, peers=False)
    figures, notes = bench_planner(repeats=2, advance=done.append, sizes=small)
    assert tuple(figures) == KEYS
    assert {key for key, value in figures.items() if value is None} == OF_PEERS
    assert all(
        math.isfinite(value) and value > 0 for key, value in figures.items() if value is not None and not key.startswith("tree_share")
    )
    assert any("object tree: 8 of 8" in note for note in notes)
    assert sum(done) == 3


def test_a_peer_that_is_not_installed_is_named_with_how_to_install_it(monkeypatch):
    monkeypatch.setattr("cryptoalpha.app.bench.planner_peers.find_spec", lambda module: None)
    peers = Peers()
    assert peers.missing == ("mctx", "open_spiel")
    assert compare_visits(peers, Sizes(simulations=4))[0] is None


def test_a_peer_whose_process_dies_is_an_error_and_not_a_figure(monkeypatch):
    monkeypatch.setattr("cryptoalpha.app.bench.planner_peers.sys.executable", "/bin/false")
    with Peers() as peers, pytest.raises(CryptoAlphaError, match="runs mctx ended with code 1"):
        peers.run("mctx", actions=7, batch=1, simulations=1)


def test_the_worlds_are_what_the_planner_asks_for():
    assert isinstance(TableModel(7), StepModel)
    assert isinstance(LatentMarket(onnx_net(21, value_outputs=21)), MarketModel)
    first, more = latent_world(7, 1), latent_world(7, 3)
    assert (more.roots[:1] == first.roots).all()  # a batch begins with the roots of a smaller one


@pytest.mark.slow
def test_root_visits_are_mctx_ones():
    pytest.importorskip("mctx", reason="python -m pip install --group peers")
    with one_core(), Peers() as peers:
        share, notes = compare_visits(peers, Sizes(simulations=100))
    assert share == 1.0, notes
