"""Go on with a tree after its action was played: the subtree of what was observed becomes the tree, the rest is dropped.

Only the outcome that really happened may be followed. `plan` checks that the state kept for it is the state observed, number by number; a
state that was never drawn (a sampled market, always) has no subtree and its root is planned afresh.

A re-rooted PUCT tree holds, bit by bit, what a fresh search from there would hold after as many simulations, because nodes are chosen by
rules that do not know how far up the root was. Not so where `budget.max_depth` stopped the search: it was counted from the old root.
A Gumbel root spends its simulations by a schedule of its own: the visits it brings along count for its values, and the schedule for those
still to come. With chance, nodes keep the number of outcomes and the uniforms that they were born with.

Memory: re-rooting holds both trees, and `plan` copies the new one into its own; `budget.memory_bytes` counts the plan's trees only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.learn.search.contract import Floats
from cryptoalpha.learn.search.tree import ACTION, CHILD, DEEPEST, DEPTH, FANOUT, OUTCOME, PARENT, TRIED, USED, Trees, allocate

COMPILED_WITH = "6f6abd9e5a52"
"""Digest of tree.py; see kernels_select."""

NO_LIMIT = 1 << 62


@njit(cache=True, nogil=True)
def _mark(nodes: Any, used: int, root: int, place: Any) -> int:
    """Write where each node below `root` goes (−1: dropped), in order of birth; returns how many are kept."""
    place[:] = -1
    place[root] = 0
    kept = 1
    for node in range(root + 1, used):  # a child is always born after its parent
        if place[nodes[node, PARENT]] >= 0:
            place[node] = kept
            kept += 1
    return kept


@njit(cache=True, nogil=True)
def _move(old: Any, new: Any, b: int, place: Any, chance: bool) -> None:
    """Copy the nodes that are kept to their places in tree b of `new`."""
    new.control[b, USED] = new.control[b, DEEPEST] = 0
    for node in range(old.control[b, USED]):
        to = place[node]
        if to < 0:
            continue
        new.nodes[b, to] = old.nodes[b, node]
        new.states[b, to] = old.states[b, node]
        new.edges[b, to] = old.edges[b, node]
        new.nodes[b, to, DEPTH] -= 1
        new.nodes[b, to, PARENT] = place[old.nodes[b, node, PARENT]] if to > 0 else -1
        for s in range(old.nodes[b, node, TRIED]):
            edge = old.edges[b, node, s, CHILD]
            new.edges[b, to, s, CHILD] = place[edge]
            if chance:
                for j in range(old.nodes[b, node, FANOUT]):
                    seen = old.fan[b, edge, j]
                    new.fan[b, place[edge], j] = place[seen] if seen >= 0 else -1
                    new.weights[b, place[edge], j] = old.weights[b, edge, j]
        if chance:
            new.keys[b, to] = old.keys[b, node]
        new.control[b, USED] += 1
        new.control[b, DEEPEST] = max(new.control[b, DEEPEST], new.nodes[b, to, DEPTH])


def _children(trees: Trees, row: int, action: int) -> list[int]:
    """Nodes that follow the action at the root."""
    nodes = trees.arrays.nodes[row, : int(trees.used[row])]
    return [int(node) for node in np.flatnonzero((nodes[:, PARENT] == 0) & (nodes[:, ACTION] == action))]


def observed_outcomes(trees: Trees, actions: NDArray[np.int64], states: Floats) -> NDArray[np.int64]:
    """Which outcome led to the observed states `[B, D]` after the actions `[B]`; −1 where the search never saw that state.

    A state that two outcomes share is taken for the one seen first.
    """
    found = np.full(trees.roots, -1, np.int64)
    for row, (action, state) in enumerate(zip(actions.tolist(), np.asarray(states, np.float32), strict=True)):
        for node in _children(trees, row, action):
            if np.array_equal(trees.arrays.states[row, node], state):
                found[row] = trees.arrays.nodes[row, node, OUTCOME]
                break
    return found


def reroot(trees: Trees, actions: NDArray[np.int64], outcomes: NDArray[np.int64] | None = None) -> Trees:
    """The trees that start where `actions` `[B]` and the observed `outcomes` `[B]` led; those that were never visited come out empty.

    `trees` stays as it was.

    Args:
        outcomes: from `observed_outcomes`; None where each action has one consequence.

    Raises:
        ConfigError: if an array has another length, an action is out of range, or outcomes are missing where chance moves.
    """
    if outcomes is None:
        if trees.chance:
            raise ConfigError("chance moved: re-rooting needs the outcome that was observed", hint="see reuse.observed_outcomes")
        outcomes = np.zeros(trees.roots, np.int64)
    if len(actions) != trees.roots or len(outcomes) != trees.roots:
        raise ConfigError(f"{len(actions)} actions and {len(outcomes)} outcomes for {trees.roots} trees")
    if np.any((actions < 0) | (actions >= trees.actions)):
        raise ConfigError(f"an action is outside 0 … {trees.actions - 1}")
    old, places, kept = trees.arrays, np.full((trees.roots, trees.room), -1, np.int64), np.zeros(trees.roots, np.int64)
    for row in range(trees.roots):
        for node in _children(trees, row, int(actions[row])):
            if old.nodes[row, node, OUTCOME] == outcomes[row]:
                kept[row] = _mark(old.nodes[row], int(trees.used[row]), node, places[row])
    room = max(1, int(kept.max()))
    new = allocate(trees.roots, room, trees.actions, old.states.shape[2], trees.fanouts, NO_LIMIT)
    for row in np.flatnonzero(kept).tolist():
        _move(old, new.arrays, row, places[row], trees.chance)
    return new


def transplant(earlier: Trees, into: Trees, rows: NDArray[np.int64]) -> None:
    """Copy the earlier trees of these rows into freshly allocated ones with at least as much room."""
    for row in rows.tolist():
        used = int(earlier.used[row])
        for name in ("nodes", "edges", "states", *(("fan", "weights", "keys") if earlier.chance else ())):
            getattr(into.arrays, name)[row, :used] = getattr(earlier.arrays, name)[row, :used]
        into.arrays.control[row] = earlier.arrays.control[row]
