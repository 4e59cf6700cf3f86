"""Tree search over many roots at once: one call of the model and one of the evaluator per step, whatever the number of roots.

A step is: the compiled walk down every tree (`kernels.descend`), one `model.step` on the states found, one `evaluate` on those that are not
terminal, and the compiled birth of the new nodes (`kernels.grow`). Nothing of a tree depends on the other trees of the batch.

Source: Schrittwieser et al. (2020), MuZero, appendix B; semantics of mctx 0.0.71, whose visit counts are reproduced.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from cryptoalpha.core.errors import ConfigError, ModelError
from cryptoalpha.learn.search import kernels
from cryptoalpha.learn.search.contract import Budget, ChanceModel, PlanResult, PlanStats, Roots, Rules, StepModel
from cryptoalpha.learn.search.tree import COUNT, DEEPEST, LEFT, MEAN, PRIOR, VALUE, Trees, allocate

NO_MASK = np.zeros((0, 0), np.bool_)


@dataclass(frozen=True)
class Buffers:
    """What the kernels hand to the model, `[B, ·]` each; rows beyond those in use are stale."""

    requests: NDArray[np.int64]
    moves: NDArray[np.int64]
    states: NDArray[np.float32]


def plan_tree(
    roots: Roots, model: ChanceModel | StepModel, budget: Budget, *, seed: int, rules: Rules, earlier: Trees | None = None
) -> PlanResult:
    """Search from every root with `budget.simulations` each; see `plan.plan` for arguments and errors."""
    states = _root_states(roots)
    B, D = states.shape
    A = model.actions
    trees = allocate(B, budget.simulations + 1, A, D, (), budget.memory_bytes)
    t = trees.arrays
    evaluated = _plant(trees, roots, model, states)
    t.control[:, LEFT] = budget.simulations
    evaluated += _simulate(trees, roots, model, budget, rules)
    return _result(trees, roots, evaluated)


def _root_states(roots: Roots) -> NDArray[np.float32]:
    states = np.array(roots.states, np.float32, order="C")
    if states.ndim != 2 or not states.shape[0]:
        raise ConfigError(f"root states must be [B, D] with B ≥ 1, not {list(states.shape)}")
    if roots.names and len(roots.names) != states.shape[0]:
        raise ConfigError(f"{len(roots.names)} names for {states.shape[0]} roots")
    for row in np.flatnonzero(~np.isfinite(states).all(axis=1)):
        raise ModelError(f"{roots.name(int(row))}: its state holds NaN or infinity")
    return states


def _plant(trees: Trees, roots: Roots, model: ChanceModel | StepModel, states: NDArray[np.float32]) -> int:
    """Evaluate the roots and write node 0 of every tree."""
    B, A = states.shape[0], trees.actions
    legal = NO_MASK if roots.legal is None else exact(roots.legal, (B, A), np.bool_, "roots.legal", roots, range(B))
    logits, values = model.evaluate(states)
    rows = range(B)
    requests = np.full((B, 4), -1, np.int64)
    requests[:, kernels.ROW] = np.arange(B)
    zeros = np.zeros(B, np.float32)
    fault, i = kernels.grow(
        trees.arrays,
        A,
        requests,
        B,
        states,
        zeros,
        zeros,
        np.zeros(B, np.bool_),
        legal,
        exact(values, (B,), np.float32, "values", roots, rows),
        exact(logits, (B, A), np.float32, "logits", roots, rows),
    )
    if fault:
        raise _fault(fault, i, requests, roots)
    return B


def _simulate(trees: Trees, roots: Roots, model: ChanceModel | StepModel, budget: Budget, rules: Rules) -> int:
    """Spend the simulations that are left; returns how many states were evaluated."""
    t, A = trees.arrays, trees.actions
    B, D = trees.roots, t.states.shape[2]
    out = Buffers(np.zeros((B, 4), np.int64), np.zeros(B, np.int64), np.zeros((B, D), np.float32))
    growth = puct_weights(rules, trees.nodes + 1)
    reduction = np.float32(-1.0 if rules.first_play_reduction is None else rules.first_play_reduction)
    limit = budget.max_depth if budget.max_depth is not None else trees.nodes
    evaluated = 0
    no_values, no_logits = np.zeros(0, np.float32), np.zeros((0, A), np.float32)
    walk = cast(StepModel, model)
    while n := kernels.descend(t, A, limit, growth, reduction, out.requests, out.moves, out.states):
        full = n == B
        step = walk.step(out.states if full else out.states[:n], out.moves if full else out.moves[:n])
        rows = out.requests[:n, kernels.ROW]
        states = exact(step.states, (n, D), np.float32, "states", roots, rows)
        rewards = exact(step.rewards, (n,), np.float32, "rewards", roots, rows)
        discounts = exact(step.discounts, (n,), np.float32, "discounts", roots, rows)
        terminal = exact(step.terminal, (n,), np.bool_, "terminal", roots, rows)
        legal = NO_MASK if step.legal is None else exact(step.legal, (n, A), np.bool_, "legal", roots, rows)
        if terminal.any():
            asked = states[~terminal]
            values, logits = no_values, no_logits
        else:
            asked = states
        if m := asked.shape[0]:
            guess, worth = model.evaluate(asked)
            values = exact(worth, (m,), np.float32, "values", roots, rows)
            logits = exact(guess, (m, A), np.float32, "logits", roots, rows)
            evaluated += m
        fault, i = kernels.grow(t, A, out.requests, n, states, rewards, discounts, terminal, legal, values, logits)
        if fault:
            raise _fault(fault, i, out.requests, roots)
    return evaluated


def puct_weights(rules: Rules, most: int) -> NDArray[np.float32]:
    """√n·(c1 + ln((n + c2 + 1)/c2)) for node visits n = 0 … most, in float32 as mctx computes it."""
    n = np.arange(most + 1).astype(np.float32)
    base = np.float32(rules.pb_c_base)
    weights: NDArray[np.float32] = np.sqrt(n) * (np.float32(rules.pb_c_init) + np.log((n + base + np.float32(1.0)) / base))
    return weights


def exact(array: Any, shape: tuple[int, ...], dtype: Any, what: str, roots: Roots, rows: Any) -> Any:
    """The model's answer as the kernels need it: of this shape and type, contiguous, writable."""
    if type(array) is np.ndarray and array.dtype == dtype and array.shape == shape and array.flags.carray:
        return array
    array = np.asarray(array)
    if array.shape != shape:
        asked = ", ".join(roots.name(int(row)) for row in rows[:3]) + (" …" if len(rows) > 3 else "")
        raise ModelError(f"{asked}: the model answered {what} of shape {list(array.shape)}, expected {list(shape)}")
    return np.array(array, dtype, order="C")


FAULTS = {
    kernels.BAD_REWARD: "a reward that is NaN or infinite",
    kernels.BAD_DISCOUNT: "a discount that is NaN or infinite",
    kernels.BAD_VALUE: "a value that is NaN or infinite",
    kernels.BAD_LOGIT: "a logit of a legal action that is NaN or infinite",
    kernels.NO_LEGAL: "a state that is not terminal but has no legal action",
    kernels.BAD_STATE: "a state that holds NaN or infinity",
    kernels.BAD_WEIGHT: "weights of outcomes that are negative, NaN or do not sum to 1",
}


def _fault(fault: int, i: int, requests: NDArray[np.int64], roots: Roots) -> ModelError:
    row, node, action = (int(requests[i, column]) for column in (kernels.ROW, kernels.AT, kernels.MOVE))
    if node < 0:
        return ModelError(
            f"{roots.name(row)}: {'no action is legal' if fault == kernels.NO_LEGAL else 'the model answered ' + FAULTS[fault]}"
        )
    return ModelError(f"{roots.name(row)}: after action {action} in node {node} the model answered {FAULTS[fault]}; nothing was decided")


def _result(trees: Trees, roots: Roots, evaluated: int) -> PlanResult:
    t, A = trees.arrays, trees.actions
    visits = t.edges[:, 0, COUNT, :A].astype(np.int64)
    illegal = t.edge_floats[:, 0, PRIOR, :A] < 0
    q = np.where(illegal, -np.inf, t.edge_floats[:, 0, VALUE, :A].astype(np.float64))
    action = np.argmax(visits, axis=1)
    target = visits / visits.sum(axis=1, keepdims=True)
    stats = PlanStats(evaluated, int(t.control[:, DEEPEST].max()), trees.memory_bytes)
    return PlanResult(action, target, q, t.numbers[:, 0, MEAN].astype(np.float64), visits, stats, trees=trees)
