"""A model that answers nonsense, or a tree that does not fit: an error that names the root, never a silent move."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cryptoalpha.core.errors import ConfigError, ModelError
from cryptoalpha.learn.search.contract import Budget, Outcomes, Roots, Rules, Step
from cryptoalpha.learn.search.plan import plan
from cryptoalpha.learn.search.reuse import reroot

NAMES = ("BTC/USDT", "ETH/USDT", "SOL/USDT")
A, SICK = 3, 1
"""Actions, and the root whose answers are spoiled."""

RULES = pytest.mark.parametrize("rules", [Rules("puct"), Rules("gumbel")], ids=["puct", "gumbel"])


class World:
    """State: (number of the root, depth). Everything is fine until a state of `spoil_depth` below root 1 is answered."""

    actions = A

    def __init__(self, spoil: Callable[[Any, Any], Any] | None = None, *, depth: int = 2) -> None:
        self.spoil, self.depth = spoil, depth

    def sick(self, states: Any) -> Any:
        return (states[:, 0] == SICK) & (states[:, 1] == self.depth)

    def evaluate(self, states: Any) -> tuple[Any, Any]:
        n = len(states)
        answer = np.tile(np.arange(A, dtype=np.float32), (n, 1)), np.full(n, 0.5, np.float32)
        return answer if self.spoil is None else self.spoil(answer, self.sick(states))

    def step(self, states: Any, actions: Any) -> Step:
        step = self.following(states, actions)
        return step if self.spoil is None else self.spoil(step, self.sick(step.states))

    def following(self, states: Any, actions: Any) -> Step:
        n = len(states)
        return Step(
            states + np.array([0, 1], np.float32),
            actions.astype(np.float32) / 8,
            np.full(n, 0.9, np.float32),
            np.zeros(n, np.bool_),
            np.ones((n, A), np.bool_),
        )


class Chancy(World):
    def outcomes(self, states: Any, actions: Any, uniforms: Any) -> Outcomes:
        step, m = self.following(states, actions), uniforms.shape[1]
        fan = Outcomes(
            np.repeat(step.states[:, None], m, axis=1),
            np.full((len(states), m), 1 / m),
            step.rewards,
            np.repeat(step.discounts[:, None], m, axis=1),
            np.repeat(step.terminal[:, None], m, axis=1),
        )
        return fan if self.spoil is None else self.spoil(fan, self.sick(step.states))


def search(model: Any, rules: Rules, **roots: Any) -> Any:
    states = np.array([[0, 0], [1, 0], [2, 0]], np.float32)
    return plan(Roots(**{"states": states, "names": NAMES, **roots}), model, Budget(40, outcomes=(2,)), seed=0, rules=rules)


def value_is(number: float) -> Callable[[Any, Any], Any]:
    return lambda answer, sick: answer if isinstance(answer, Step) else (answer[0], np.where(sick, number, answer[1]))


def logit_is(number: float) -> Callable[[Any, Any], Any]:
    def spoil(answer: Any, sick: Any) -> Any:
        if isinstance(answer, Step):
            return answer
        logits = answer[0].copy()
        logits[sick, 2] = number
        return logits, answer[1]

    return spoil


def step_has(field: str, number: Any) -> Callable[[Any, Any], Any]:
    def spoil(answer: Any, sick: Any) -> Any:
        if isinstance(answer, tuple):
            return answer
        part = getattr(answer, field).copy()
        part[sick] = number
        return replace(answer, **{field: part})

    return spoil


def test_the_world_is_fine_when_nothing_is_spoiled():
    assert search(World(), Rules("puct")).visits.sum(axis=1).tolist() == [40] * 3
    assert search(Chancy(), Rules("gumbel")).visits.sum(axis=1).tolist() == [40] * 3


@RULES
@pytest.mark.parametrize("depth", [0, 1, 3])
@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (value_is(np.nan), "a value that is NaN or infinite"),
        (value_is(np.inf), "a value that is NaN or infinite"),
        (logit_is(np.nan), "a logit of a legal action that is NaN or infinite"),
        (logit_is(-np.inf), "a logit of a legal action that is NaN or infinite"),
    ],
)
def test_nonsense_from_the_evaluator_names_the_root(rules, depth, spoil, what):
    with pytest.raises(ModelError, match=rf"root 1 \(ETH/USDT\): .*{what}; nothing was decided"):
        search(World(spoil, depth=depth), rules)


@RULES
@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (step_has("rewards", np.nan), "a reward that is NaN"),
        (step_has("rewards", -np.inf), "a reward that is NaN or infinite"),
        (step_has("discounts", np.nan), "a discount that is NaN"),
        (step_has("states", np.nan), "a state that holds NaN"),
        (step_has("legal", False), "a state that is not terminal but has no legal action"),
    ],
)
def test_nonsense_from_a_step_names_the_root_and_the_action(rules, spoil, what):
    with pytest.raises(ModelError, match=rf"root 1 \(ETH/USDT\): after action \d in node \d+ the model answered {what}"):
        search(World(spoil), rules)


@RULES
@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (step_has("weights", np.nan), "weights of outcomes"),
        (step_has("weights", 0.4), "weights of outcomes that are negative, NaN or do not sum to 1"),
        (step_has("weights", [-0.5, 1.5]), "weights of outcomes"),
        (step_has("rewards", np.nan), "a reward that is NaN"),
        (step_has("discounts", np.inf), "a discount that is NaN"),
    ],
)
def test_nonsense_from_chance_names_the_root(rules, spoil, what):
    with pytest.raises(ModelError, match=rf"root 1 \(ETH/USDT\): after action \d in node \d+ the model answered {what}"):
        search(Chancy(spoil), rules)


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (
            lambda answer, sick: answer if isinstance(answer, Step) else (answer[0][:, :2], answer[1]),
            r"logits of shape \[3, 2\], expected \[3, 3\]",
        ),
        (
            lambda answer, sick: answer if isinstance(answer, Step) else (answer[0], answer[1][:, None]),
            r"values of shape \[3, 1\], expected \[3\]",
        ),
        (
            lambda answer, sick: replace(answer, rewards=0.0) if isinstance(answer, Step) else answer,
            r"rewards of shape \[\], expected \[3\]",
        ),
        (
            lambda answer, sick: replace(answer, states=answer.states[:, :1]) if isinstance(answer, Step) else answer,
            r"states of shape \[3, 1\]",
        ),
        (lambda answer, sick: replace(answer, legal=answer.legal[:1]) if isinstance(answer, Step) else answer, r"legal of shape \[1, 3\]"),
    ],
)
def test_a_wrong_shape_names_the_roots_that_were_asked_for(spoil, what):
    with pytest.raises(ModelError, match=rf"root 0 \(BTC/USDT\), root 1 \(ETH/USDT\), root 2 \(SOL/USDT\): the model answered {what}"):
        search(World(spoil), Rules("puct"))


@RULES
def test_an_illegal_action_may_have_any_logit(rules):
    legal = np.ones((3, A), np.bool_)
    legal[SICK, 2] = False
    assert search(World(logit_is(-np.inf), depth=0), rules, legal=legal).visits[SICK, 2] == 0


@RULES
def test_a_root_without_a_legal_action_is_named(rules):
    legal = np.ones((3, A), np.bool_)
    legal[2] = False
    with pytest.raises(ModelError, match=r"root 2 \(SOL/USDT\): no action is legal"):
        search(World(), rules, legal=legal)


@pytest.mark.parametrize("world", [World, Chancy])
@pytest.mark.parametrize("field", ["terminal", "legal"])
def test_flags_that_are_floats_are_refused_since_nan_would_be_true(world, field):
    def spoil(answer: Any, sick: Any) -> Any:
        if isinstance(answer, tuple):
            return answer
        shape = (*answer.terminal.shape, A) if field == "legal" else answer.terminal.shape
        return replace(answer, **{field: np.full(shape, np.nan)})

    with pytest.raises(ModelError, match=rf"root 1 \(ETH/USDT\), .*: the model answered {field} of type float64, expected True or False"):
        search(world(spoil), Rules("puct"))


@pytest.mark.parametrize("legal", [np.full((3, A), np.nan), np.ones((3, A)), np.ones(A, np.bool_), np.ones((3, A + 1), np.bool_)])
def test_a_mask_that_is_none_is_refused_with_and_without_an_earlier_tree(legal):
    earlier = search(World(), Rules("puct")).trees
    roots = Roots(np.array([[0, 0], [1, 0], [2, 0]], np.float32), legal=legal)
    for before in (None, earlier):
        with pytest.raises(ConfigError, match=r"roots.legal is (float64|bool) \[.*\], expected True or False \[3, 3\]"):
            plan(roots, World(), Budget(40), seed=0, rules=Rules("puct"), earlier=before)


def test_a_mask_does_not_outlive_the_plan_it_was_given_to_but_the_models_own_does():
    class Narrow(World):
        def following(self, states: Any, actions: Any) -> Step:
            return replace(super().following(states, actions), legal=np.tile([True, True, False], (len(states), 1)))

    roots = Roots(np.zeros((1, 2), np.float32), legal=np.array([[True, False, True]]))
    first = plan(roots, Narrow(), Budget(6), seed=0, rules=Rules("puct"))
    assert first.visits[0, 1] == 0
    freed = plan(replace(roots, legal=None), Narrow(), Budget(60), seed=0, rules=Rules("puct"), earlier=first.trees)
    assert freed.visits[0, 1] > 0
    moved = reroot(freed.trees, np.array([2]))
    after = plan(Roots(moved.arrays.states[:, 0].copy()), Narrow(), Budget(60), seed=0, rules=Rules("puct"), earlier=moved)
    assert after.visits[0].sum() == 60
    assert after.visits[0, 2] == 0
    assert after.stats.evaluated_states < 60  # it went on with what it had


def test_a_root_without_a_name_is_called_by_its_row():
    with pytest.raises(ModelError, match=r"^root 1: "):
        search(World(value_is(np.nan)), Rules("puct"), names=())


def test_a_root_state_with_nan_is_named():
    states = np.array([[0, 0], [1, 0], [np.nan, 0]], np.float32)
    with pytest.raises(ConfigError, match=r"root 2 \(SOL/USDT\): its state holds NaN"):
        search(World(), Rules("puct"), states=states)


@RULES
def test_values_that_grow_beyond_float32_are_an_error(rules):
    with pytest.raises(ModelError, match=r"root 1 \(ETH/USDT\): the values backed up grew beyond float32"):
        search(Huge(), rules)


class Huge(World):
    """Rewards that add up to more than float32 holds, in root 1 only."""

    def step(self, states: Any, actions: Any) -> Step:
        return replace(
            super().step(states, actions),
            rewards=np.where(states[:, 0] == SICK, 3e38, 0.0).astype(np.float32),
            discounts=np.ones(len(states)),
        )


def test_trees_over_budget_are_refused_before_anything_is_searched():
    asked = []

    class Watched(World):
        def evaluate(self, states: Any) -> tuple[Any, Any]:
            asked.append(len(states))
            return super().evaluate(states)

    with pytest.raises(
        ConfigError, match=r"3 tree\(s\) of 801 nodes, 3 actions and 2 numbers per state need 0\.3 MiB.*allows 0\.2 MiB"
    ) as error:
        plan(Roots(np.zeros((3, 2), np.float32)), Watched(), Budget(800, memory_bytes=200_000), seed=0)
    assert "raise budget.memory_bytes to " in error.value.hint
    needed = int(error.value.hint.rsplit(" ", 1)[1])
    assert asked == []
    result = plan(Roots(np.zeros((3, 2), np.float32)), Watched(), Budget(800, memory_bytes=needed), seed=0)
    assert result.stats.memory_bytes == needed  # what was said is what is taken
    with pytest.raises(ConfigError, match=r"need"):
        plan(Roots(np.zeros((3, 2), np.float32)), Watched(), Budget(800, memory_bytes=needed - 1), seed=0)


def test_memory_with_chance_is_counted_too():
    with pytest.raises(ConfigError) as error:
        plan(Roots(np.zeros((3, 2), np.float32)), Chancy(), Budget(10, outcomes=(8, 4), memory_bytes=1), seed=0)
    assert "lower budget.simulations or budget.outcomes" in error.value.hint
    needed = int(error.value.hint.rsplit(" ", 1)[1])
    budget = Budget(10, outcomes=(8, 4), memory_bytes=needed)
    assert plan(Roots(np.zeros((3, 2), np.float32)), Chancy(), budget, seed=0).stats.memory_bytes == needed


@pytest.mark.parametrize(
    ("budget", "rules", "what"),
    [
        (Budget(0), Rules(), "budget.simulations must be ≥ 1, not 0"),
        (Budget(max_depth=0), Rules(), "budget.max_depth must be ≥ 1, not 0"),
        (Budget(outcomes=()), Rules(), "budget.outcomes must be numbers ≥ 1"),
        (Budget(), Rules(considered=0), "rules.considered must be ≥ 1, not 0"),
        (Budget(2.5), Rules(), "budget.simulations must be ≥ 1, not 2.5"),
        (Budget(True), Rules(), "budget.simulations must be ≥ 1, not True"),
        (Budget(max_depth=1.5), Rules(), "budget.max_depth must be ≥ 1, not 1.5"),
        (Budget(outcomes=(2, 0)), Rules(), "budget.outcomes must be numbers ≥ 1"),
        (Budget(), Rules("puct", temperature=-1.0), "rules.temperature must be ≥ 0"),
        (Budget(), Rules("puct", temperature=np.inf), "rules.temperature must be ≥ 0 and finite, not inf"),
        (Budget(), Rules("puct", temperature=np.nan), "rules.temperature must be ≥ 0"),
        (Budget(), Rules(gumbel_scale=np.nan), "rules.gumbel_scale must be ≥ 0"),
        (Budget(), Rules(gumbel_scale=-1.0), "rules.gumbel_scale must be ≥ 0"),
        (Budget(), Rules("puct", first_play_reduction=np.nan), "rules.first_play_reduction must be None, or ≥ 0"),
        (Budget(), Rules("puct", first_play_reduction=-1.0), "rules.first_play_reduction must be None, or ≥ 0"),
        (Budget(), Rules("puct", pb_c_init=np.nan), "rules.pb_c_init must be ≥ 0"),
        (Budget(), Rules("puct", pb_c_base=-5.0), "rules.pb_c_base must be > 0"),
        (Budget(), Rules("puct", pb_c_base=0.0), "rules.pb_c_base must be > 0"),
        (Budget(), Rules("puct", dirichlet_fraction=0.5, dirichlet_alpha=-1.0), "rules.dirichlet_alpha must be > 0"),
        (Budget(), Rules("puct", dirichlet_fraction=1.5), "rules.dirichlet_fraction must be in 0–1"),
    ],
)
def test_numbers_that_make_no_search_are_refused(budget, rules, what):
    with pytest.raises(ConfigError, match=what):
        plan(Roots(np.zeros((1, 2), np.float32)), World(), budget, seed=0, rules=rules)


def test_roots_of_a_wrong_shape_are_refused():
    with pytest.raises(ConfigError, match=r"root states must be \[B, D\]"):
        plan(Roots(np.zeros(3, np.float32)), World(), Budget(5), seed=0)
    with pytest.raises(ConfigError, match="2 names for 3 roots"):
        search(World(), Rules(), names=NAMES[:2])
