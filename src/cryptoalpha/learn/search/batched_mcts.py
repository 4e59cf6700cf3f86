"""Tree search over many roots at once: one call of the model and one of the evaluator per step, whatever the number of roots.

A step is: the compiled walk down every tree (`kernels.descend`), one `model.step` on the states found (or one `model.outcomes` for each
number of outcomes that occurs), one `evaluate` on those that are not terminal, and the compiled birth of the new nodes (`kernels.grow`).
Nothing of a tree depends on the other trees of the batch.

Where time goes (`cryptoalpha bench planner`): with many roots into the network, then into waiting for memory on the way down, which is why
a node is one cache line and edges stand in the order they were tried (`tree`); with one root into the network, then into calls from Python
to compiled code, which is why these are two a step and their arrays few.

Source: Schrittwieser et al. (2020), MuZero, appendix B; Danihelka et al. (2022), Gumbel MuZero; semantics of mctx 0.0.71, whose visit
counts are reproduced (tests/golden/test_search_trees.py).
"""

from __future__ import annotations

from dataclasses import replace
from math import inf

import numpy as np
from numpy.typing import NDArray

from cryptoalpha.core.errors import ConfigError, ModelError
from cryptoalpha.learn.search import kernels, noise
from cryptoalpha.learn.search.answers import Asking
from cryptoalpha.learn.search.contract import FLAGS, Budget, ChanceModel, PlanResult, PlanStats, Roots, Rules, SimulatesItself, StepModel
from cryptoalpha.learn.search.gumbel import schedule
from cryptoalpha.learn.search.kernels_select import Choice, finish
from cryptoalpha.learn.search.line import principal_lines
from cryptoalpha.learn.search.reuse import transplant
from cryptoalpha.learn.search.tree import ACTION, ASKED, COUNT, DEEPEST, KIND, LEFT, MEAN, PRIOR, TERMINAL, VISITS, Trees, allocate

LOWEST = np.float32(np.finfo(np.float32).min)
"""Logit of an illegal action: −inf would make the softmax NaN where nothing is legal."""


def plan_tree(
    roots: Roots, model: ChanceModel | StepModel, budget: Budget, *, seed: int, rules: Rules, earlier: Trees | None = None
) -> PlanResult:
    """Search from every root with `budget.simulations` each; see `plan.plan` for arguments and errors.

    Simulations that an earlier tree brings along count towards the budget.
    """
    states = _root_states(roots)
    (B, D), A = states.shape, int(model.actions)
    _check(budget, rules, A)
    roots = _checked_legal(roots, (B, A))
    fanouts = tuple(budget.outcomes) if isinstance(model, ChanceModel) else ()
    kept = np.zeros(B, np.bool_) if earlier is None else _continued(earlier, states, roots, (B, D, A), fanouts)
    visits = np.where(kept, earlier.arrays.nodes[:, 0, VISITS], 1) if earlier is not None else np.ones(B, np.int64)
    left = np.maximum(0, budget.simulations + 1 - visits)
    room = int(((np.where(kept, earlier.used, 1) if earlier is not None else 1) + left).max())
    trees = allocate(B, room, A, D, fanouts, budget.memory_bytes)
    asking = Asking(model, trees, roots)
    if earlier is not None:
        transplant(earlier, trees, np.flatnonzero(kept))
    if trees.chance:
        fresh = noise.root_keys(seed, roots, B)
        trees.arrays.keys[:, 0] = np.where(kept, trees.arrays.keys[:, 0], fresh)
    _plant(trees, asking, states, np.flatnonzero(~kept))
    choice = _crown(trees, roots, budget, rules, seed, kept, left, int((visits + left).max()))
    _simulate(trees, asking, choice, left)
    return _result(trees, asking, choice, rules, seed)


def _root_states(roots: Roots) -> NDArray[np.float32]:
    states = np.array(roots.states, np.float32, order="C")
    if states.ndim != 2 or not states.shape[0]:
        raise ConfigError(f"root states must be [B, D] with B ≥ 1, not {list(states.shape)}")
    if roots.names and len(roots.names) != states.shape[0]:
        raise ConfigError(f"{len(roots.names)} names for {states.shape[0]} roots")
    for row in np.flatnonzero(~np.isfinite(states).all(axis=1)):
        raise ConfigError(f"{roots.name(int(row))}: its state holds NaN or infinity")
    return states


def _checked_legal(roots: Roots, shape: tuple[int, int]) -> Roots:
    """The roots with a mask of truth values `[B, A]`, or none."""
    if roots.legal is None:
        return roots
    legal = np.asarray(roots.legal)
    if legal.shape != shape or legal.dtype.kind not in FLAGS:
        raise ConfigError(f"roots.legal is {legal.dtype} {list(legal.shape)}, expected True or False {list(shape)}: roots × actions")
    return replace(roots, legal=np.array(legal, np.bool_, order="C"))


def _whole(number: object) -> bool:
    """An integer ≥ 1, and no truth value."""
    return isinstance(number, int | np.integer) and not isinstance(number, bool) and bool(number >= 1)


def _check(budget: Budget, rules: Rules, actions: int) -> None:
    """Refuse numbers that make no search."""
    reduction = 0.0 if rules.first_play_reduction is None else rules.first_play_reduction
    wrong = (
        (not _whole(budget.simulations), f"budget.simulations must be ≥ 1, not {budget.simulations}"),
        (budget.max_depth is not None and not _whole(budget.max_depth), f"budget.max_depth must be ≥ 1, not {budget.max_depth}"),
        (not budget.outcomes or not all(map(_whole, budget.outcomes)), f"budget.outcomes must be numbers ≥ 1, not {budget.outcomes}"),
        (rules.root not in ("gumbel", "puct"), f"rules.root must be gumbel or puct, not {rules.root!r}"),
        (not _whole(rules.considered), f"rules.considered must be ≥ 1, not {rules.considered}"),
        (not 0 <= rules.pb_c_init < inf, f"rules.pb_c_init must be ≥ 0 and finite, not {rules.pb_c_init}"),
        (not 0 < rules.pb_c_base < inf, f"rules.pb_c_base must be > 0 and finite, not {rules.pb_c_base}"),
        (not 0 <= reduction < inf, f"rules.first_play_reduction must be None, or ≥ 0 and finite, not {reduction}"),
        (not 0 <= rules.gumbel_scale < inf, f"rules.gumbel_scale must be ≥ 0 and finite, not {rules.gumbel_scale}"),
        (not 0 <= rules.temperature < inf, f"rules.temperature must be ≥ 0 and finite, not {rules.temperature}"),
        (not 0 <= rules.dirichlet_fraction <= 1, f"rules.dirichlet_fraction must be in 0–1, not {rules.dirichlet_fraction}"),
        (not 0 < rules.dirichlet_alpha < inf, f"rules.dirichlet_alpha must be > 0 and finite, not {rules.dirichlet_alpha}"),
        (actions < 1, f"the model has {actions} actions, expected at least one"),
    )
    for bad, message in wrong:
        if bad:
            raise ConfigError(message)


def _continued(
    earlier: Trees, states: NDArray[np.float32], roots: Roots, shape: tuple[int, int, int], fanouts: tuple[int, ...]
) -> NDArray[np.bool_]:
    """Which rows go on with their earlier tree: those that have one, unless what is legal has changed since."""
    had = (earlier.roots, earlier.arrays.states.shape[2], earlier.actions)
    if had != shape or earlier.fanouts != fanouts:
        raise ConfigError(
            f"the earlier trees have (B, D, A) = {had} and outcomes {earlier.fanouts}, this plan has {shape} and {fanouts}",
            hint="leave `earlier` out and plan afresh",
        )
    kept = earlier.used > 0
    for row in np.flatnonzero(kept & (earlier.arrays.nodes[:, 0, KIND] == TERMINAL)):
        raise ConfigError(f"{roots.name(int(row))}: the state observed is terminal, nothing is left to decide")
    for row in np.flatnonzero(kept):
        if not np.array_equal(earlier.arrays.states[row, 0], states[row]):
            raise ConfigError(
                f"{roots.name(int(row))}: its earlier tree starts at another state than the one observed",
                hint="re-root it on the outcome that happened (reuse.observed_outcomes), or leave it out",
            )
    same = (earlier.root_edges(PRIOR, -1.0) >= 0) == (True if roots.legal is None else roots.legal)
    if roots.legal is None:  # all actions, where the roots were given; the model's own mask, where a step led to them
        same[earlier.arrays.nodes[:, 0, ACTION] >= 0] = True
    kept &= same.all(axis=1)
    return kept


def _plant(trees: Trees, asking: Asking, states: NDArray[np.float32], rows: NDArray[np.int64]) -> None:
    """Evaluate these roots and write node 0 of their trees."""
    n, roots = len(rows), asking.roots
    if not n:
        return
    legal = asking.no_mask
    if roots.legal is not None:
        legal = np.ascontiguousarray(roots.legal[rows])
    for i in np.flatnonzero(~legal.any(axis=1)):
        raise ModelError(f"{roots.name(int(rows[i]))}: no action is legal; nothing was decided")
    values, logits = asking.evaluate(np.ascontiguousarray(states[rows]), rows)
    asking.requests[:n] = -1
    asking.requests[:n, kernels.ROW] = rows
    zeros = np.zeros(n, np.float32)
    trees.arrays.logits[rows] = logits
    said = kernels.Answers(states[rows], zeros, zeros, np.zeros(n, np.bool_), legal, asking.no_weights, values, logits)
    _grow(trees, asking, n, said)


def _grow(trees: Trees, asking: Asking, n: int, said: kernels.Answers) -> None:
    fanouts = np.array(trees.fanouts or (1,), np.int64)
    fault, i = kernels.grow(trees.arrays, trees.chance, fanouts, asking.requests, n, said)
    if fault:
        raise asking.fault(fault, i)


def _crown(
    trees: Trees, roots: Roots, budget: Budget, rules: Rules, seed: int, kept: NDArray[np.bool_], left: NDArray[np.int64], most_visits: int
) -> Choice:
    """What makes a root different from the nodes below it: noise, and the schedule of a Gumbel root.

    A root that was an inner node kept no logits: the logarithm of its prior differs from them by a constant, which no rule sees.
    """
    t, A = trees.arrays, trees.actions
    priors = trees.root_edges(PRIOR, -1.0)
    legal = priors >= 0
    t.logits[kept] = np.log(np.maximum(priors[kept], np.finfo(np.float32).tiny))
    t.logits[~legal] = LOWEST
    t.logits[:] -= np.where(legal, t.logits, LOWEST).max(axis=1, keepdims=True)
    t.logits[~legal] = LOWEST
    noise.mix_dirichlet(seed, roots, rules, trees)
    return Choice(
        rules.root == "gumbel",
        trees.room if budget.max_depth is None else budget.max_depth,
        np.float32(-1.0 if rules.first_play_reduction is None else rules.first_play_reduction),
        puct_weights(rules, most_visits + 1),
        noise.gumbel_noise(seed, roots, rules, (trees.roots, A)),
        schedule(legal, rules.considered, left) if rules.root == "gumbel" else np.zeros((1, 1), np.int32),
        trees.root_edges(COUNT, 0.0).astype(np.int32),
        np.zeros(A, np.float32),
    )


def puct_weights(rules: Rules, most: int) -> NDArray[np.float32]:
    """√n·(c1 + ln((n + c2 + 1)/c2)) for node visits n = 0 … most, in float32 as mctx computes it."""
    n, base = np.arange(most + 1).astype(np.float32), np.float32(rules.pb_c_base)
    weights: NDArray[np.float32] = np.sqrt(n) * (np.float32(rules.pb_c_init) + np.log((n + base + np.float32(1.0)) / base))
    return weights


def _simulate(trees: Trees, asking: Asking, choice: Choice, left: NDArray[np.int64]) -> None:
    """Spend the simulations that are left, `[B]`."""
    t, chance = trees.arrays, trees.chance
    t.control[:, LEFT] = t.control[:, ASKED] = left
    if trees.roots == 1 and isinstance(asking.model, SimulatesItself):
        done = asking.model.simulate(trees, choice, asking)
        if done is not None:
            fault, answered, n = done
            asking.evaluated += answered
            if fault:
                raise asking.fault(fault, 0)
            if n < 0:
                raise asking.overflow(0)
            return
    while n := kernels.descend(t, choice, chance, asking.requests, asking.moves, asking.states, asking.uniforms):
        if n < 0:
            raise asking.overflow(-1 - n)
        _grow(trees, asking, n, asking.answers(n))


def _result(trees: Trees, asking: Asking, choice: Choice, rules: Rules, seed: int) -> PlanResult:
    t, A, B, roots = trees.arrays, trees.actions, trees.roots, asking.roots
    value = t.node_floats[:, 0, MEAN].astype(np.float64)
    for row in np.flatnonzero(~np.isfinite(value)):
        raise asking.overflow(int(row))
    legal = trees.root_edges(PRIOR, -1.0) >= 0
    visits = trees.root_edges(COUNT, 0.0).astype(np.int64)
    completed, scaled, action = np.zeros((B, A), np.float32), np.zeros((B, A), np.float32), np.zeros(B, np.int64)
    finish(t, choice, completed, scaled, action)
    q = np.where(legal, completed.astype(np.float64), -np.inf)
    if rules.root == "gumbel":
        improved = np.where(legal, t.logits + scaled, LOWEST)
        weights = np.exp(improved - improved.max(axis=1, keepdims=True)).astype(np.float64) * legal
    else:
        weights = visits.astype(np.float64)
        action = noise.play_by_visits(seed, roots, rules, visits, q)
    target = weights / weights.sum(axis=1, keepdims=True)
    stats = PlanStats(asking.evaluated, int(t.control[:, DEEPEST].max()), trees.memory_bytes)
    return PlanResult(action, target, q, value, visits, stats, principal_lines(trees, action), trees)
