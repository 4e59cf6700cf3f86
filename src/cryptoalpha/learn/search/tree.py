"""The trees of one plan as arrays: B trees side by side, one block of memory each, allocated once.

A node is one row of sixteen numbers, which is one line of a processor's cache, and a block of edges. Edges stand in the order in which they
were first tried, then comes the likeliest untried one, then the other legal ones: all untried actions of a node have the same value, so
that only the likeliest of them can be the next, and choosing an action costs as much as were tried, not as many as there are.

Integers and floats are two views of the same bytes: a kernel is called with few arrays, which is what a call from Python costs. Reward and
discount of an edge are kept with the child that it leads to.

Where chance moves (`fan`), an edge leads to several children, one per outcome seen. What belongs to the edge alone, its children and the
weights of its outcomes, is kept in the row of the child that was born first; CHILD of the edge is that row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cryptoalpha.core.errors import ConfigError

CHILD, COUNT, VALUE, PRIOR, CODE = range(5)
"""Last axis of `edges`: the child (−1: none yet), visits, Q, prior, and which action this is."""

VISITS, PARENT, SLOT, ACTION, OUTCOME, KIND, FANOUT, DEPTH, TRIED, LEGAL = range(10)
"""Last axis of `nodes`, integers: visits (1 at birth); parent, edge of the parent, action and outcome that led here; kind; outcomes of each
edge; decisions from the root; edges tried and edges in all."""

RAW, MEAN, REWARD, DISCOUNT, REST = range(10, 15)
"""Last axis of `nodes`, floats: value guessed at birth, mean of all values backed up, reward and discount of the edge that leads here, and
the prior of all untried actions together."""

COLUMNS = 16
OPEN, TERMINAL = range(2)
"""Kinds of nodes. A terminal one is worth 0 exactly and has no edges."""

USED, LEFT, DEEPEST, ASKED = range(4)
"""Last axis of `control`: nodes in use, simulations left, decisions to the deepest node looked at, simulations asked for."""


class Arrays(NamedTuple):
    """What the kernels read and write. M nodes of each tree, m outcomes at most.

    Shapes: nodes and node_floats `[B, M, 16]` (same bytes), edges and edge_floats `[B, M, A, 5]` (same bytes), states `[B, M, D]`,
    control `[B, 4]`, logits `[B, A]` of the roots; with chance fan and weights `[B, M, m]`, keys `[B, M]`, else these have one element.
    """

    nodes: NDArray[np.int32]
    node_floats: NDArray[np.float32]
    edges: NDArray[np.int32]
    edge_floats: NDArray[np.float32]
    states: NDArray[np.float32]
    control: NDArray[np.int64]
    logits: NDArray[np.float32]
    fan: NDArray[np.int32]
    weights: NDArray[np.float32]
    keys: NDArray[np.uint64]


@dataclass(frozen=True)
class Trees:
    """B trees and what they were grown for."""

    arrays: Arrays
    actions: int
    chance: bool
    fanouts: tuple[int, ...]
    """Outcomes of an edge by depth; empty without chance."""

    @property
    def roots(self) -> int:
        return int(self.arrays.nodes.shape[0])

    @property
    def room(self) -> int:
        """Nodes that each tree has room for."""
        return int(self.arrays.nodes.shape[1])

    @property
    def used(self) -> NDArray[np.int64]:
        """Nodes in use, `[B]`."""
        return self.arrays.control[:, USED]

    @property
    def memory_bytes(self) -> int:
        return sum(array.nbytes for array in self.arrays) - self.arrays.node_floats.nbytes - self.arrays.edge_floats.nbytes

    def root_edges(self, column: int, empty: float) -> NDArray[np.float32]:
        """One column of the roots' edges by action, `[B, A]`; `empty` where an action is illegal or a tree has no node yet.

        Integers below 2^24 are exact.
        """
        t = self.arrays
        out = np.full((self.roots, self.actions), empty, np.float32)
        source = t.edges if column in (CHILD, COUNT, CODE) else t.edge_floats
        for row in np.flatnonzero(self.used).tolist():  # the root of an empty tree is memory that nobody has written
            legal = int(t.nodes[row, 0, LEGAL])
            out[row, t.edges[row, 0, :legal, CODE]] = source[row, 0, :legal, column]
        return out


def bytes_per_node(actions: int, numbers: int, outcomes: int) -> int:
    """Memory of one node: `actions` A, `numbers` D of its state, `outcomes` m of its edges (0 without chance)."""
    return 4 * COLUMNS + 20 * actions + 4 * numbers + (8 * outcomes + 8 if outcomes else 0)


def allocate(roots: int, nodes: int, actions: int, numbers: int, fanouts: tuple[int, ...], memory_bytes: int) -> Trees:
    """Room for `roots` trees of `nodes` nodes each; nothing is written yet, a node is initialised when it is born.

    Args:
        numbers: D numbers of a state.
        fanouts: outcomes of an edge by depth; empty where chance does not move.
        memory_bytes: what all trees together may take.

    Raises:
        ConfigError: if they would take more. Nothing has been allocated then.
    """
    outcomes = max(fanouts, default=0)
    needed = roots * (nodes * bytes_per_node(actions, numbers, outcomes) + 4 * actions + 32) + (0 if outcomes else 16)
    if needed > memory_bytes:
        raise ConfigError(
            f"{roots} tree(s) of {nodes} nodes, {actions} actions and {numbers} numbers per state need {needed / 2**20:,.1f} MiB, "
            f"but budget.memory_bytes allows {memory_bytes / 2**20:,.1f} MiB; nothing was searched",
            hint="plan fewer roots at once, lower budget.simulations"
            + (" or budget.outcomes" if outcomes else "")
            + f", or raise budget.memory_bytes to {needed}",
        )
    rows = np.empty((roots, nodes, COLUMNS), np.int32)
    edges = np.empty((roots, nodes, actions, 5), np.int32)
    many = (roots, nodes) if outcomes else (1, 1)
    arrays = Arrays(
        rows,
        rows.view(np.float32),
        edges,
        edges.view(np.float32),
        np.empty((roots, nodes, numbers), np.float32),
        np.zeros((roots, 4), np.int64),
        np.zeros((roots, actions), np.float32),
        np.empty((*many, max(outcomes, 1)), np.int32),
        np.empty((*many, max(outcomes, 1)), np.float32),
        np.zeros(many, np.uint64),
    )
    return Trees(arrays, actions, bool(outcomes), fanouts)
