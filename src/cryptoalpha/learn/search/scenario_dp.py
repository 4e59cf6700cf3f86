"""ScenarioDP: plan a price taker's position exactly on a scenario tree.

The market moves by itself and the action only chooses the next position, so one tree of market states serves all positions on the grid:
all leaves of all roots are valued in one call, and decisions follow by backward induction. At a node x with outcomes j of weight w_j,
holding a: G[x,a] = Σ w_j·(reward_j(a) + γ·alive_j(a)·V[x_j,a]); Q[x,p,a] = G[x,a] − cost(p→a); V[x,p] = max_a Q[x,p,a].

Promises: a decision never depends on the outcome drawn after it; illegal actions have Q −inf; among equals the smallest trade wins; what
follows a terminal outcome or ruin is worth 0; a root's result does not depend on the roots beside it, nor on their order.

Sources: Sinclair et al. 2022 (arXiv 2207.06272), Exo-MDPs; Bellman 1957 for the induction; the policy target is the transform of
Danihelka et al. 2022 (ICLR, "Policy improvement by planning with Gumbel"), eq. 11, at zero visits: softmax(logits + 0.1·50·rescale01(Q)).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cryptoalpha.core.errors import ConfigError, ModelError
from cryptoalpha.learn.search.contract import FLAGS, Booleans, Budget, Floats, LineStep, MarketModel, PlanResult, PlanStats, Roots
from cryptoalpha.learn.search.scenario_tree import (
    Array,
    Level,
    Rows,
    ScenarioTree,
    check_finite,
    check_flags,
    check_market,
    check_shape,
    checked_positions,
    grow,
)

TARGET_SCALE = 5.0
"""How much a rescaled Q (0–1) adds to a logit: 0.1·(50 + visits) at zero visits."""

TIE = 1e-12
"""Actions whose Q differ by no more are equal: rounding, not an edge."""

SMALLEST_SPREAD = 1e-8
"""Q that differ by less than this in all are not blown up to 0–1."""


@dataclass(frozen=True)
class PositionTable:
    """The plan of every root from every position. Shapes: q `[B, K, A]` from position K to position A = K, values and actions `[B, K]`.

    A position from which no action is legal has value −inf and action −1.
    """

    q: Array
    values: Array
    actions: Rows
    stats: PlanStats


@dataclass(frozen=True)
class _Decided:
    """A level after the induction. Shapes: worth `[n, K]` (G of the header), costs `[n, K, K]` or `[1, K, K]`."""

    level: Level
    worth: Array
    costs: Array

    def q(self, nodes: Rows, positions: Rows) -> Array:
        """Q `[len(nodes), A]` before masks."""
        return self.worth[nodes] - self.costs[nodes if len(self.costs) > 1 else np.zeros_like(nodes), positions]


def plan_scenarios(roots: Roots, model: MarketModel, budget: Budget, *, seed: int) -> PlanResult:
    """Decide the next position of every root.

    Args:
        roots: market states `[B, X]`, positions `[B]` (index into `model.positions`), optionally legal `[B, K]`.
        budget: `branching` and `memory_bytes` are used.
        seed: of the scenarios; same seed, same plan.

    Returns:
        Action = index of the position to hold; `visits` is None. `stats.evaluated_states` counts leaves and states asked for a prior.

    Raises:
        ConfigError: roots, budget or model do not fit together, or the trees need more memory than allowed; nothing was computed.
        ModelError: the model answered what cannot be used, or a root has no legal action; names the root.
    """
    needed = _checked(roots, model, budget)
    positions = checked_positions(roots, model)
    rows = np.arange(len(positions))
    legal = _legal(roots, model)[rows, positions]
    if not legal.any(axis=1).all():
        row = int(legal.any(axis=1).argmin())
        raise ModelError(f"{roots.name(row)} has no legal action from position index {positions[row]}: allow one at least, such as holding")
    tree, decided, evaluated = _induce(roots, model, budget, seed)
    q = np.where(legal, decided[0].q(rows, positions), -np.inf)
    logits = _logits(roots, model, roots.states, positions, legal, rows, 0)
    actions = _actions(q, positions, model)
    lines, asked = _lines(roots, model, decided, actions, q, logits)
    asked += 0 if logits is None else len(rows)
    target = policy_target(q, np.zeros_like(q) if logits is None else logits)
    stats = PlanStats(evaluated + asked, len(tree.levels), needed)
    return PlanResult(actions, target, q, q.max(axis=1), None, stats, lines)


def plan_all_positions(roots: Roots, model: MarketModel, budget: Budget, *, seed: int) -> PositionTable:
    """The same plan from every position at once: what a backtest stores, and what a value function V(x, ·) learns from.

    `roots.positions` are not used; `roots.legal` `[B, K]` says which positions may be held next, wherever one stands. Errors as above, but
    a position without a legal action is not one: its value is −inf.
    """
    needed = _checked(roots, model, budget)
    tree, decided, evaluated = _induce(roots, model, budget, seed)
    q = np.where(_legal(roots, model), decided[0].worth[:, None, :] - decided[0].costs, -np.inf)
    count = len(model.positions)
    flat = q.reshape(-1, count)
    actions = _actions(flat, np.tile(np.arange(count), len(q)), model).reshape(q.shape[:2])
    values = q.max(axis=2)
    return PositionTable(q, values, np.where(np.isneginf(values), -1, actions), PlanStats(evaluated, len(tree.levels), needed))


def policy_target(q: Array, logits: Array) -> Array:
    """softmax(logits + 5·rescale01(Q)) over actions with finite Q; `[B, A]` both, 0 elsewhere."""
    legal = np.isfinite(q)
    low = np.where(legal, q, np.inf).min(axis=1, keepdims=True)
    spread = np.maximum(q.max(axis=1, keepdims=True) - low, SMALLEST_SPREAD)
    raised = np.where(legal, logits + TARGET_SCALE * (np.where(legal, q, low) - low) / spread, -np.inf)
    powers = np.exp(raised - raised.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), dtype=np.float64)


def memory_needed(roots: int, width: int, positions: int, branching: Sequence[int], itemsize: int = 8) -> int:
    """Bytes that the trees of one plan take at most, without what the model uses inside its own methods.

    Per outcome: its state, five numbers, and per position its reward, its value and two temporary products; per node: Q and its mask.
    """
    total, nodes = 0, roots
    for b in branching:
        children = nodes * b
        total += nodes * positions * positions * 24 + children * (2 * width * itemsize + 64 + 40 * positions)
        nodes = children
    return total


def _induce(roots: Roots, model: MarketModel, budget: Budget, seed: int) -> tuple[ScenarioTree, list[_Decided], int]:
    """Grow the tree, value its leaves in one call, go back to the roots; decided levels from the roots down, states evaluated."""
    tree = grow(roots, model, budget.branching, seed=seed)
    count, leaves = len(model.positions), len(tree.leaves)
    values = np.zeros((0, count))
    if leaves:
        answer = model.values(tree.leaves)
        check_shape("values", "values", answer, (leaves, count), roots)
        check_finite("values", "values", answer, tree.owners, roots, len(tree.levels))
        values = np.asarray(answer, dtype=np.float64)
    decided: list[_Decided] = []
    for depth in range(len(tree.levels) - 1, -1, -1):
        level = tree.levels[depth]
        here = _Decided(level, _worth(level, model, values, roots, depth), _costs(level, model, roots, depth))
        _check_range(here, roots, depth)
        decided.insert(0, here)
        if depth:
            q = here.worth[:, None, :] - here.costs  # [n, K, A]
            values = (q if model.allowed is None else np.where(model.allowed, q, -np.inf)).max(axis=2)
    return tree, decided, leaves


def _worth(level: Level, model: MarketModel, values: Array, roots: Roots, depth: int) -> Array:
    """G[x, a] `[n, K]`: what holding each position from here is expected to earn, before the cost of getting there."""
    count, shape = len(model.positions), level.returns.shape
    gains = model.gains(level.states, level.returns)
    check_shape("gains", "rewards", gains.rewards, (*shape, count), roots)
    check_finite("gains", "rewards", gains.rewards, level.owners, roots, depth)
    later = model.discount * level.spread(values)
    if gains.alive is not None:
        check_shape("gains", "alive", gains.alive, (*shape, count), roots)
        check_flags("gains", "alive", gains.alive, roots)
        later = np.where(gains.alive, later, 0.0)
    # One product per node, so that a root's sum never depends on how many roots stand beside it.
    with np.errstate(over="ignore", invalid="ignore"):  # said by _check_range
        worth: Array = np.matmul(level.weights[:, None, :], gains.rewards + later)[:, 0]
    return worth


def _check_range(here: _Decided, roots: Roots, depth: int) -> None:
    """Refuse sums that leave the range of float64, or differ by more than it holds."""
    with np.errstate(over="ignore"):
        highest = 2.0 * (np.abs(here.worth).max(axis=1) + max(here.costs.max(), -here.costs.min()))
    for row in np.flatnonzero(~np.isfinite(highest)):
        raise ModelError(
            f"{roots.name(int(here.level.owners[row]))}: the values backed up to depth {depth} grew beyond float64; nothing was decided",
            hint="scale the rewards",
        )


def _costs(level: Level, model: MarketModel, roots: Roots, depth: int) -> Array:
    count = len(model.positions)
    costs = np.asarray(model.costs(level.states), dtype=np.float64)
    if costs.shape != (1, count, count):
        check_shape("costs", "costs", costs, (len(level.states), count, count), roots)
    check_finite("costs", "costs", costs, level.owners, roots, depth)
    return costs


def _actions(q: Array, positions: Rows, model: MarketModel) -> Rows:
    """Best action per row of q `[n, A]`; the smallest trade from `positions` `[n]` among equals, then the lowest index."""
    equal = q >= q.max(axis=1, keepdims=True) - TIE
    grid = np.asarray(model.positions, dtype=np.float64)
    trade = np.abs(grid[None, :] - grid[positions][:, None])
    best: Rows = np.where(equal, trade, np.inf).argmin(axis=1)
    return best


def _logits(roots: Roots, model: MarketModel, states: Floats, positions: Rows, legal: Booleans, owners: Rows, depth: int) -> Array | None:
    """Logits of the prior `[n, A]` from the positions held, checked where an action is legal; None if the model has none."""
    answer, count = model.logits(states), len(model.positions)
    if answer is None:
        return None
    check_shape("logits", "logits", answer, (len(states), count, count), roots)
    mine = np.asarray(answer, dtype=np.float64)[np.arange(len(states)), positions]
    mine = np.where(legal, mine, 0.0)
    check_finite("logits", "logits", mine, owners, roots, depth)
    return mine


def _lines(
    roots: Roots, model: MarketModel, decided: list[_Decided], actions: Rows, q: Array, logits: Array | None
) -> tuple[tuple[tuple[LineStep, ...], ...], int]:
    """The principal line of each root: best action, then its likeliest outcome (among equals the one nearest the expected return), and so
    on until a terminal outcome or the leaves. Also the number of states below the roots that were asked for a prior."""
    lines: list[list[LineStep]] = [[] for _ in actions]
    active = nodes = np.arange(len(actions))
    asked = 0
    for depth, here in enumerate(decided):
        if depth:
            legal = np.ones(q.shape, dtype=np.bool_) if model.allowed is None else np.asarray(model.allowed)[actions]
            positions, q = actions, np.where(legal, here.q(nodes, actions), -np.inf)
            actions = _actions(q, positions, model)
            if logits is not None:
                logits = _logits(roots, model, here.level.states[nodes], positions, legal, active, depth)
                asked += len(nodes)
        prior = policy_target(np.where(np.isfinite(q), 0.0, -np.inf), np.zeros_like(q) if logits is None else logits)
        outcomes = _typical(here.level, nodes)
        for i, root in enumerate(active):
            a = int(actions[i])
            lines[root].append(LineStep(a, int(outcomes[i]), None, float(prior[i, a]), float(q[i, a])))
        children = [here.level.child(int(node), int(j)) for node, j in zip(nodes, outcomes, strict=True)]
        go = np.array([child is not None for child in children])
        if not go.any():
            break
        active, actions, q = active[go], actions[go], q[go]
        nodes = np.array([child for child in children if child is not None], dtype=np.int64)
    return tuple(tuple(line) for line in lines), asked


def _typical(level: Level, nodes: Rows) -> Rows:
    """Index of the likeliest outcome of each node; among equals, the one whose return is nearest the expected one."""
    weights, returns = level.weights[nodes], level.returns[nodes]
    distance = np.abs(returns - (weights * returns).sum(axis=1, keepdims=True))
    typical: Rows = np.where(weights >= weights.max(axis=1, keepdims=True) - TIE, distance, np.inf).argmin(axis=1)
    return typical


def _legal(roots: Roots, model: MarketModel) -> Booleans:
    """`[B, K, A]`: may a root standing at a position move to another."""
    count = len(model.positions)
    legal = np.ones((len(roots.states), count, count), dtype=np.bool_)
    if model.allowed is not None:
        legal &= model.allowed
    if roots.legal is not None:
        legal &= np.asarray(roots.legal, dtype=np.bool_)[:, None, :]
    return legal


def _checked(roots: Roots, model: MarketModel, budget: Budget) -> int:
    """Bytes needed by the trees, once roots, budget and the model's constants are known to fit together."""
    check_market(model)
    count, shape = len(model.positions), np.shape(roots.states)
    if len(shape) != 2 or not shape[0]:
        raise ConfigError(f"roots.states have shape {shape}, expected [B, X] with B ≥ 1")
    if roots.names and len(roots.names) != shape[0]:
        raise ConfigError(f"{len(roots.names)} names for {shape[0]} roots: give one each, or none")
    if not np.isfinite(roots.states).all():
        raise ConfigError(f"{roots.name(int(np.isfinite(roots.states).all(axis=1).argmin()))} starts from a state that is not finite")
    if roots.legal is not None and np.shape(roots.legal) != (shape[0], count):
        raise ConfigError(f"roots.legal has shape {np.shape(roots.legal)}, expected {(shape[0], count)}: roots × positions")
    if roots.legal is not None and np.asarray(roots.legal).dtype.kind not in FLAGS:
        raise ConfigError(f"roots.legal is of type {np.asarray(roots.legal).dtype}, expected True or False")
    if not budget.branching or min(budget.branching) < 1:
        raise ConfigError(f"branching {budget.branching} grows no tree: give the outcomes per node for each depth, such as (28, 28)")
    if model.allowed is not None and not np.asarray(model.allowed).any(axis=1).all():
        stuck = int(np.asarray(model.allowed).any(axis=1).argmin())
        raise ModelError(f"no move is allowed from position index {stuck}, for {roots.name(0)} and every other root: allow holding")
    needed = memory_needed(shape[0], shape[1], count, budget.branching)
    if needed > budget.memory_bytes:
        leaves = int(np.prod(budget.branching, dtype=object))
        raise ConfigError(
            f"scenario trees of {shape[0]} roots ({roots.name(0)} first) with {leaves} leaves each need {needed >> 20} MiB, "
            f"more than the {budget.memory_bytes >> 20} MiB of the budget",
            hint="plan fewer roots at once, lower learn.planner.branching or raise learn.planner.memory_mib",
        )
    return needed
