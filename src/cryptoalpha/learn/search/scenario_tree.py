"""The scenario tree: where the market may go from each root, level by level, the same for every position held.

A price taker's action moves only the position, so one tree of market states serves all positions (an Exo-MDP). Each node gets b outcomes
at stratified uniforms u_j = (j+U)/b, one U per node, in an order drawn per node, so that no node begins with the same tail. Their returns
are then shifted to the mean that the model stands for (`match_means`): without it a tree claims money on a driftless walk.

Promises: no outcome depends on a decision, and none on which other roots are planned beside it (all roots share their uniforms, which
also makes their differences less noisy). What a model answers is checked here; an error names the root.

Sources: Sinclair et al. 2022, "Hindsight learning for MDPs with exogenous inputs" (arXiv 2207.06272) for the Exo-MDP; stratified sampling
as in Owen, "Monte Carlo theory, methods and examples", ch. 8; matching of moments, Barraquand 1995, "Numerical valuation of high
dimensional multivariate European securities".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cryptoalpha.core.errors import ConfigError, ModelError
from cryptoalpha.core.seeds import stream
from cryptoalpha.learn.search.chance import EDGE, WEIGHT_TOLERANCE
from cryptoalpha.learn.search.contract import FLAGS, Booleans, Draws, Floats, MarketModel, Roots

Array = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Level:
    """Nodes of one depth and what chance may do next.

    Shapes: states `[n, X]`, owners `[n]` the root of each node, paths `[n]` its number among that root's nodes at this depth, returns
    (matched) and weights `[n, b]`, live `[n·b]` children that go on (None: all do), children in row order make up the next level.
    """

    states: Floats
    owners: Rows
    paths: Rows
    returns: Array
    weights: Array
    live: Booleans | None

    def spread(self, values: Array) -> Array:
        """Values of the next level's nodes `[children, K]` laid out as `[n, b, K]`; terminal children are worth 0."""
        nodes, b = self.returns.shape
        if self.live is None:
            return values.reshape(nodes, b, -1)
        out = np.zeros((nodes * b, values.shape[1]))
        out[self.live] = values
        return out.reshape(nodes, b, -1)

    def child(self, node: int, outcome: int) -> int | None:
        """Row in the next level of a node's child; None if it is terminal."""
        flat: int = node * self.returns.shape[1] + outcome
        if self.live is None:
            return flat
        return int(np.sum(self.live[:flat])) if self.live[flat] else None


@dataclass(frozen=True)
class ScenarioTree:
    """All levels of all roots, and the leaves below them. Shapes: leaves `[n, X]`, owners (the root of each leaf) `[n]`."""

    levels: tuple[Level, ...]
    leaves: Floats
    owners: Rows


def stratified_uniforms(nodes: int, branching: int, generator: np.random.Generator) -> Array:
    """`[nodes, branching]` numbers in (0, 1), one in each of `branching` equal strata per row, in random order per row."""
    strata = generator.permuted(np.broadcast_to(np.arange(branching, dtype=np.float64), (nodes, branching)), axis=1)
    return np.clip((strata + generator.random((nodes, 1))) / branching, EDGE, 1.0 - EDGE)


def match_means(returns: Array, weights: Array, expected: Array) -> Array:
    """Shift each node's returns `[n, m]` so that their weighted mean is `expected` `[n]`: r_j − (Σ w r − E[r | node]).

    Simple returns, never logarithmic ones: money is made on simple returns, and a tree whose log returns have the right mean still claims
    a gain of about σ²/2 per step on a martingale. A shift may carry the worst outcome below −100 %, if its node has few outcomes or a
    heavy tail; a model that must not see that bounds what it earns in `gains`, as ruin does.
    """
    matched: Array = returns - ((weights * returns).sum(axis=1) - expected)[:, None]
    return matched


def matched_returns(draws: Draws) -> tuple[Array, Array]:
    """Returns and weights `[n, m]` of outcomes in float64: weights divided by their sum, returns matched to the expected ones."""
    weights = np.asarray(draws.weights, dtype=np.float64)
    weights = weights / weights.sum(axis=1, keepdims=True)
    returns = np.asarray(draws.returns, dtype=np.float64)
    return match_means(returns, weights, np.asarray(draws.expected, dtype=np.float64)), weights


def are_distributions(weights: ArrayLike) -> Booleans:
    """Which rows of `[n, m]` are weights ≥ 0 that sum to 1, but for rounding."""
    rows = np.asarray(weights, dtype=np.float64)
    return np.asarray((rows >= 0.0).all(axis=1) & (np.abs(rows.sum(axis=1) - 1.0) <= WEIGHT_TOLERANCE))


def grow(roots: Roots, model: MarketModel, branching: Sequence[int], *, seed: int) -> ScenarioTree:
    """Draw the tree of market states below every root.

    Args:
        branching: outcomes per node, by depth; their product is the number of leaves per root.
        seed: of the uniforms; the same seed gives a root the same tree whatever else is planned beside it.

    Raises:
        ModelError: the model's answer has a wrong shape, is not finite, or its weights are no distribution; names the root.
    """
    states: Floats = roots.states
    width = states.shape[1]
    owners = np.arange(len(states), dtype=np.int64)
    paths = np.zeros(len(states), dtype=np.int64)
    nodes_per_root = 1
    levels: list[Level] = []
    for depth, b in enumerate(branching):
        uniforms = stratified_uniforms(nodes_per_root, b, stream(seed, "scenario tree", depth))[paths]
        draws = model.draw(states, uniforms)
        live = _checked(draws, uniforms.shape, width, owners, roots, depth)
        returns, weights = matched_returns(draws)
        levels.append(Level(states, owners, paths, returns, weights, live))
        states = draws.states.reshape(-1, width)
        owners, paths = np.repeat(owners, b), (paths[:, None] * b + np.arange(b)).reshape(-1)
        if live is not None:
            states, owners, paths = states[live], owners[live], paths[live]
        nodes_per_root *= b
        if not len(states):
            break
    return ScenarioTree(tuple(levels), states, owners)


def _checked(draws: Draws, shape: tuple[int, ...], width: int, owners: Rows, roots: Roots, depth: int) -> Booleans | None:
    """Which children go on (None: all), once the model's outcomes have been found usable."""
    nodes, b = shape
    check_shape("draw", "states", draws.states, (nodes, b, width), roots)
    check_shape("draw", "returns", draws.returns, shape, roots)
    check_shape("draw", "weights", draws.weights, shape, roots)
    check_shape("draw", "expected", draws.expected, (nodes,), roots)
    check_finite("draw", "returns", draws.returns, owners, roots, depth)
    check_finite("draw", "expected", draws.expected, owners, roots, depth)
    check_finite("draw", "weights", draws.weights, owners, roots, depth)
    right = are_distributions(draws.weights)
    if not right.all():
        weights, row = np.asarray(draws.weights, dtype=np.float64), int(right.argmin())
        raise ModelError(
            f"model.draw: weights of {roots.name(int(owners[row]))} at depth {depth} are no distribution "
            f"(smallest {weights[row].min():g}, sum {weights[row].sum():g}): expected weights ≥ 0 that sum to 1"
        )
    if draws.terminal is None:
        check_finite("draw", "states", draws.states, owners, roots, depth)
        return None
    check_shape("draw", "terminal", draws.terminal, shape, roots)
    check_flags("draw", "terminal", draws.terminal, roots)
    live = ~np.asarray(draws.terminal, dtype=np.bool_)
    check_finite("draw", "states", np.where(live[:, :, None], draws.states, 0.0), owners, roots, depth)
    return None if live.all() else live.reshape(-1)


def check_shape(method: str, what: str, array: ArrayLike, shape: tuple[int, ...], roots: Roots) -> None:
    """Refuse an answer of the model whose shape is not the promised one.

    Raises:
        ModelError: it is not; all roots are planned in one call, so the message names the first.
    """
    found = np.shape(array)
    if found != shape:
        raise ModelError(
            f"model.{method}: {what} have shape {found}, expected {shape}, while planning {roots.name(0)} and {len(roots.states) - 1} more"
        )


def check_flags(method: str, what: str, array: ArrayLike, roots: Roots | None = None) -> None:
    """Refuse truth values that are floats: NaN would be True.

    Raises:
        ModelError: they are; all roots are planned in one call, so the message names the first where roots are given.
    """
    kind = np.asarray(array).dtype
    if kind.kind not in FLAGS:
        planning = f", while planning {roots.name(0)} and {len(roots.states) - 1} more" if roots else ""
        raise ModelError(f"model.{method}: {what} is of type {kind}, expected True or False{planning}")


def check_market(model: MarketModel) -> None:
    """Refuse a market whose constants cannot be planned with.

    Raises:
        ConfigError: the grid is empty or not finite, the discount outside 0–1, or `allowed` no mask `[K, K]`.
    """
    grid = np.asarray(model.positions)
    if grid.ndim != 1 or not grid.size or not np.isfinite(grid).all():
        raise ConfigError(f"model.positions are {grid}, expected a list of at least one finite number")
    if not 0.0 <= model.discount <= 1.0:
        raise ConfigError(f"discount {model.discount} of the model lies outside 0–1")
    if model.allowed is not None:
        allowed, shape = np.asarray(model.allowed), (grid.size, grid.size)
        if allowed.shape != shape:
            raise ConfigError(f"model.allowed has shape {allowed.shape}, expected {shape}: from position × to position")
        if allowed.dtype.kind not in FLAGS:
            raise ConfigError(f"model.allowed is of type {allowed.dtype}, expected True or False")


def checked_positions(roots: Roots, model: MarketModel) -> Rows:
    """Where each root stands on the model's grid, `[B]`.

    Raises:
        ConfigError: positions are missing, no integers, or outside the grid.
    """
    if roots.positions is None:
        raise ConfigError("roots.positions are missing: a price taker's plan starts from the position held")
    held = np.asarray(roots.positions)
    if held.shape != (len(roots.states),) or not np.issubdtype(held.dtype, np.integer):
        raise ConfigError(
            f"roots.positions are {held.dtype} {held.shape}, expected {(len(roots.states),)} indices into the grid (integers)"
        )
    positions: Rows = held.astype(np.int64)
    outside = (positions < 0) | (positions >= len(model.positions))
    if outside.any():
        row = int(outside.argmax())
        raise ConfigError(f"{roots.name(row)} stands at position index {held[row]}, outside the grid of {len(model.positions)}")
    return positions


def check_finite(method: str, what: str, array: ArrayLike, owners: Rows, roots: Roots, depth: int) -> None:
    """Refuse NaN and infinity in an answer of the model whose first axis runs over nodes.

    Raises:
        ModelError: there is one; names the root below which it was found.
    """
    finite = np.isfinite(array)
    if finite.all():
        return
    row, *rest = (int(i) for i in np.argwhere(~finite)[0])
    raise ModelError(
        f"model.{method}: {what} hold {np.asarray(array)[(row, *rest)]} for {roots.name(int(owners[row]))} at depth {depth}"
        f"{f', index {tuple(rest)}' if rest else ''}: expected finite numbers; nothing was decided for any root"
    )
