"""The search compiled as a whole finds what the search from Python finds, to the last bit; its features are those of array expressions."""

from __future__ import annotations

import copy
import hashlib
import math
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import cryptoalpha
from cryptoalpha.app.bench.decisions_fusion import planted_bars, planted_config, values_of
from cryptoalpha.core.errors import ModelError
from cryptoalpha.decisions.fusion.network import build_network, guide_of
from cryptoalpha.decisions.fusion.search import searched
from cryptoalpha.decisions.fusion.search.actions import ACTIONS, FAMILIES
from cryptoalpha.decisions.fusion.search.kernels import show
from cryptoalpha.decisions.fusion.search.loop import place_in
from cryptoalpha.decisions.fusion.search.state import GROSS_AT, HELD_AT, MOVE_AT, NET_AT, WEIGHT_AT
from cryptoalpha.decisions.fusion.search.world import FusionWorld
from cryptoalpha.learn.search.contract import Budget, Roots, Rules
from cryptoalpha.learn.search.plan import plan
from cryptoalpha.learn.search.row_network import RowNetwork
from cryptoalpha.nets.config import PolicyValueConfig

BARS, INSTRUMENTS = 250, 3


@lru_cache(maxsize=1)
def graph() -> bytes:
    """A network in which everything says something, its values in the size of rewards."""
    net = build_network(ACTIONS, sizes=PolicyValueConfig(hidden=(48, 32), value_hidden=16, policy_hidden=16), seed=1)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(0.2 * torch.randn(weight.shape, generator=draw))
    net.scale_values(1e-4, 1e-4)
    return guide_of(net).graph


@lru_cache(maxsize=2)
def _asked(guided: bool) -> tuple[Roots, FusionWorld]:
    kept: list[tuple[Any, ...]] = []

    def keeping(*args, **options):
        kept.append(args)
        return plan(*args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(searched, "plan", keeping)
        fusion = searched.SearchedFusion(planted_config(32), seed=1)
        fusion.adopt(RowNetwork(graph()) if guided else None, "")
        for at, states, signals in values_of(planted_bars(1, ic=0.9, bars=BARS), INSTRUMENTS):
            n = len(states)
            fusion.fuse(at, states, signals, state_events=range(n), signal_events=range(n, n + len(signals)))
    roots, world, _ = kept[-1]
    assert world._bar.slopes.any()  # something is claimed, so that positions and rewards are not 0
    return roots, world


def asked(*, guided: bool) -> tuple[Roots, FusionWorld]:
    """Root and world of the last of some bars, as the fusion hands them to the planner."""
    roots, world = _asked(guided)
    return roots, copy.copy(world)


def after_every_action(roots: Roots, world: FusionWorld) -> np.ndarray:
    uniforms = np.linspace(0.01, 0.99, ACTIONS)[:, None]
    return np.ascontiguousarray(world.outcomes(np.repeat(roots.states, ACTIONS, axis=0), np.arange(ACTIONS), uniforms).states[:, 0])


def test_the_compiled_features_are_those_of_array_expressions():
    roots, world = asked(guided=False)
    states = after_every_action(roots, world)
    varying = [*range(FAMILIES), *range(WEIGHT_AT, WEIGHT_AT + FAMILIES), GROSS_AT, HELD_AT, NET_AT, MOVE_AT]
    for state, plain in zip(states, world.features(states), strict=True):
        row = np.zeros(100, np.float32)
        show(world._bar, state, row)
        np.testing.assert_allclose(row[varying], plain[varying], rtol=1e-6, atol=1e-7)
        assert np.array_equal(np.delete(world._base, varying), np.delete(plain, varying))
        assert not np.delete(row, varying).any()  # what all states have in common is left alone
        assert not world._base[varying].any()
        assert np.count_nonzero(row[[GROSS_AT, HELD_AT, NET_AT, MOVE_AT]]) == 4


def test_a_network_is_shown_the_same_by_the_compiled_search():
    roots, world = asked(guided=True)
    states = after_every_action(roots, world)
    for ours, theirs in zip(world.evaluate(states), RowNetwork(graph())(world.features(states)), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())
        assert np.ptp(ours) > 0.0


@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("rules", [Rules(considered=ACTIONS), Rules(root="puct")])
@pytest.mark.parametrize(("simulations", "outcomes", "depth"), [(200, (4, 2), 6), (40, (3,), None), (1, (1,), 1)])
def test_the_search_compiled_as_a_whole_finds_the_same_bits(monkeypatch, guided, rules, simulations, outcomes, depth):
    roots, world = asked(guided=guided)
    budget = Budget(simulations, outcomes=outcomes, max_depth=depth)
    whole = plan(roots, world, budget, seed=7, rules=rules)
    monkeypatch.setattr(FusionWorld, "simulate", lambda *args: None)
    stepwise = plan(roots, world, budget, seed=7, rules=rules)
    for name in ("action", "policy_target", "q", "value", "visits"):
        assert np.array_equal(getattr(whole, name), getattr(stepwise, name)), name
    assert (whole.stats, whole.lines) == (stepwise.stats, stepwise.lines)
    used = int(whole.trees.used[0])
    assert used == stepwise.trees.used[0]
    for name in ("nodes", "states", "keys"):
        ours, theirs = (getattr(found.trees.arrays, name)[:, :used] for found in (whole, stepwise))
        assert np.array_equal(ours[..., :15], theirs[..., :15]), name  # the sixteenth column of a node is never written


def test_a_network_that_only_python_can_ask_is_asked_step_by_step():
    roots, world = asked(guided=True)
    budget, rules = Budget(64, outcomes=(4, 2), max_depth=6), Rules(considered=ACTIONS)
    compiled = plan(roots, world, budget, seed=7, rules=rules)
    network, calls = RowNetwork(graph()), []

    def by_hand(states):
        calls.append(len(states))
        return network(states)

    world._guide, world._evaluator = None, by_hand
    plain = plan(roots, world, budget, seed=7, rules=rules)
    assert sum(calls) == plain.stats.evaluated_states
    np.testing.assert_allclose(plain.q, compiled.q, atol=1e-5 * np.abs(compiled.q[np.isfinite(compiled.q)]).max())
    np.testing.assert_allclose(plain.policy_target, compiled.policy_target, atol=1e-3)


@given(st.lists(st.sampled_from([0.0, 0.1, 0.25, 1e-9]), min_size=1, max_size=9), st.floats(0.0, 1.0))
@settings(max_examples=40)
def test_a_place_in_shares_is_the_one_that_numpy_finds(steps, uniform):
    shares = np.cumsum(steps)
    for at in (uniform, *shares.tolist()):
        assert place_in(shares, at) == min(shares.searchsorted(at), len(shares) - 1)


def test_an_answer_that_is_no_number_is_named_by_the_compiled_search_too():
    roots, world = asked(guided=False)
    world._bar = world._bar._replace(unit=math.nan)
    with pytest.raises(ModelError, match=r"book.*: after action .* a reward that is NaN or infinite; nothing was decided"):
        plan(roots, world, Budget(20, outcomes=(2,)), seed=1)


def test_compiled_code_does_not_outlive_what_it_compiles_in():
    package = Path(cryptoalpha.__file__).parent
    here, planner = "decisions/fusion/search/", "learn/search/"
    planners = ("chance.py", "kernels.py", "kernels_chance.py", "kernels_select.py", "row_network.py", "tree.py")
    files = {
        "kernels.py": [here + "actions.py", here + "state.py"],
        "loop.py": [here + "kernels.py", here + "actions.py", *(planner + name for name in planners)],
    }
    for name, compiled in files.items():
        digest = hashlib.blake2b(b"".join((package / file).read_bytes() for file in compiled), digest_size=6).hexdigest()
        text = (package / here / name).read_text(encoding="utf-8")
        assert f'COMPILED_WITH = "{digest}"' in text, f'write COMPILED_WITH = "{digest}" in {here}{name}'
