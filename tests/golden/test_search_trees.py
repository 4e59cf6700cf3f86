"""The planner's visits are mctx's, tree by tree: stored ones (no JAX needed), and live ones where mctx is installed."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cryptoalpha.learn.search.contract import Budget, PlanResult, Roots, Rules, Step
from cryptoalpha.learn.search.plan import plan

HERE = Path(__file__).parent
WORLD = runpy.run_path(str(HERE / "make_search_trees.py"))
CASES: list[dict[str, Any]] = json.loads((HERE / "search_trees.json").read_text(encoding="utf-8"))


class HashedWorld:
    """`make_search_trees` in NumPy."""

    def __init__(self, actions: int, discount: float) -> None:
        self.actions = actions
        self.discount = discount

    def evaluate(self, states: Any) -> tuple[Any, Any]:
        return WORLD["guess"](WORLD["unpack"](states, np), self.actions, np)

    def step(self, states: Any, actions: Any) -> Step:
        codes = WORLD["following"](WORLD["unpack"](states, np), actions, np)
        n = len(codes)
        return Step(WORLD["pack"](codes, np), WORLD["reward"](codes, np), np.full(n, self.discount, np.float32), np.zeros(n, np.bool_))


def search(case: dict[str, Any], roots: Any, legal: Any, **rules: Any) -> PlanResult:
    states = WORLD["pack"](np.array(roots, np.uint32), np)
    world = HashedWorld(case["actions"], case["discount"])
    return plan(Roots(states, legal=legal), world, Budget(WORLD["SIMULATIONS"]), seed=0, rules=Rules(case["policy"], **rules))


def legal_of(case: dict[str, Any]) -> Any:
    return np.array([[letter == "1" for letter in row] for row in case["legal"]])


def named(case: dict[str, Any]) -> str:
    return f"{case['policy']}-A{case['actions']}-B{case['batch']}-discount{case['discount']}{'-masked' * case['masked']}"


def test_the_stored_trees_cover_what_was_promised():
    assert {(case["policy"], case["actions"], case["batch"]) for case in CASES} == {
        (policy, actions, batch) for policy in ("puct", "gumbel") for actions in (7, 21) for batch in (1, 16)
    }
    assert all(len(case["visits"]) == case["batch"] and {sum(row) for row in case["visits"]} == {800} for case in CASES)


@pytest.mark.parametrize("case", CASES, ids=named)
def test_root_visits_equal_mctx_on_every_stored_tree(case):
    result = search(case, case["roots"], legal_of(case))
    np.testing.assert_array_equal(result.visits, case["visits"])
    np.testing.assert_allclose(result.value, case["values"], atol=2e-5)  # XLA sums in another order
    if case["policy"] == "gumbel":
        np.testing.assert_array_equal(result.action, case["best"])


def test_another_constant_gives_other_trees():
    """The fixture would notice: a c1 of 1.26, or 15 actions considered, changes visits."""
    by_name = {named(case): case for case in CASES}
    puct, gumbel = by_name["puct-A21-B16-discount0.96875"], by_name["gumbel-A21-B16-discount0.96875"]
    assert (search(puct, puct["roots"], legal_of(puct), pb_c_init=1.26).visits != puct["visits"]).any()
    assert (search(gumbel, gumbel["roots"], legal_of(gumbel), considered=15).visits != gumbel["visits"]).any()


@pytest.mark.slow  # JAX compiles for 10 s and more
@pytest.mark.parametrize(("policy", "actions"), [("puct", 21), ("gumbel", 7)])
def test_root_visits_equal_mctx_live(policy, actions):
    pytest.importorskip("jax")
    pytest.importorskip("mctx")
    rng = np.random.default_rng(2026)
    roots = rng.integers(0, 2**32, 24, dtype=np.uint32)
    legal = rng.random((24, actions)) < 0.7
    legal[:, 0] = True
    run = WORLD["mctx_policy"](policy, actions)
    for discount in (0.96875, -1.0):
        first, best, target, value = run(roots, discount, ~legal, 0)
        again = run(roots, discount, ~legal, 1)[0]
        certain = (first == again).all(axis=1)  # a tree that hangs on mctx's tie-breaking noise has no one answer
        assert certain.sum() >= 20
        result = search({"policy": policy, "actions": actions, "discount": discount}, roots, legal)
        np.testing.assert_array_equal(result.visits[certain], first[certain])
        np.testing.assert_allclose(result.value[certain], value[certain], atol=2e-5)
        np.testing.assert_allclose(result.policy_target[certain], target[certain], atol=2e-5)
        if policy == "gumbel":
            np.testing.assert_array_equal(result.action[certain], best[certain])
