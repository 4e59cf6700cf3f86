"""The trees of one plan as arrays: B trees side by side, one block of memory each, allocated once.

A node's edges lie together (`edges [B, M, 5, W]`: child, visits, value, prior, logit of each action), because choosing an action reads
them all; W is the number of actions rounded up to a multiple of eight, so that the loops of the kernels have no ragged end, and the lanes
beyond the last action are marked as illegal ones are. Reward and discount of an edge are kept with the child that it leads to.

Integers and floats are two views of the same bytes: a kernel is called with few arrays, which is what a call from Python costs.

Where chance moves (`fan`), an edge leads to several children, one per outcome seen. What belongs to the edge alone, its children and the
weights of its outcomes, is kept in the row of the child that was born first; `child` of the edge is that row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cryptoalpha.core.errors import ConfigError

CHILD, COUNT, VALUE, PRIOR, LOGIT = range(5)
"""Second-last axis of `edges`: index of the child (−1: none yet), visits, Q, prior (−1: illegal), logit."""

VISITS, PARENT, ACTION, OUTCOME, KIND, FANOUT, DEPTH = range(7)
"""Last axis of `links`: visits (1 at birth), parent, action and outcome that led here, kind, outcomes of each edge, decisions from the
root."""

RAW, MEAN, REWARD, DISCOUNT = range(4)
"""Last axis of `numbers`: value guessed at birth, mean of all values backed up, reward and discount of the edge that leads here."""

OPEN, TERMINAL = range(2)
"""Kinds of nodes. A terminal one is worth 0 exactly and has no edges."""

USED, LEFT, DEEPEST = range(3)
"""Last axis of `control`: nodes in use, simulations left, decisions to the deepest node looked at."""

LANES = 8
ILLEGAL = np.float32(-1.0)


class Arrays(NamedTuple):
    """What the kernels read and write. M nodes of each tree, W lanes of actions, m outcomes at most.

    Shapes: edges and edge_floats `[B, M, 5, W]` (same bytes), links `[B, M, 7]`, numbers `[B, M, 4]`, states `[B, M, D]`,
    control `[B, 3]`; with chance fan and weights `[B, M, m]`, keys `[B, M]`, else these have one element.
    """

    edges: NDArray[np.int32]
    edge_floats: NDArray[np.float32]
    links: NDArray[np.int32]
    numbers: NDArray[np.float32]
    states: NDArray[np.float32]
    control: NDArray[np.int64]
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
        return int(self.arrays.links.shape[0])

    @property
    def nodes(self) -> int:
        """Nodes that each tree has room for."""
        return int(self.arrays.links.shape[1])

    @property
    def used(self) -> NDArray[np.int64]:
        """Nodes in use, `[B]`."""
        return self.arrays.control[:, USED]

    @property
    def memory_bytes(self) -> int:
        return sum(array.nbytes for array in self.arrays) - self.arrays.edge_floats.nbytes


def lanes(actions: int) -> int:
    """Actions rounded up to whole vectors."""
    return -(-actions // LANES) * LANES


def bytes_per_node(actions: int, numbers: int, outcomes: int) -> int:
    """Memory of one node: `actions` A, `numbers` D of its state, `outcomes` m of its edges (0 without chance)."""
    edges, links, floats = 5 * 4 * lanes(actions), 7 * 4, 4 * 4
    return edges + links + floats + 4 * numbers + (8 * outcomes + 8 if outcomes else 0)


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
    needed = roots * (nodes * bytes_per_node(actions, numbers, outcomes) + 24)
    if needed > memory_bytes:
        raise ConfigError(
            f"{roots} tree(s) of {nodes} nodes, {actions} actions and {numbers} numbers per state need {needed / 2**20:,.1f} MiB, "
            f"but budget.memory_bytes allows {memory_bytes / 2**20:,.1f} MiB; nothing was searched",
            hint="plan fewer roots at once, lower budget.simulations"
            + (" or budget.outcomes" if outcomes else "")
            + f", or raise budget.memory_bytes to {needed}",
        )
    edges = np.empty((roots, nodes, 5, lanes(actions)), np.int32)
    many = (roots, nodes) if outcomes else (1, 1)
    arrays = Arrays(
        edges,
        edges.view(np.float32),
        np.empty((roots, nodes, 7), np.int32),
        np.empty((roots, nodes, 4), np.float32),
        np.empty((roots, nodes, numbers), np.float32),
        np.zeros((roots, 3), np.int64),
        np.empty((*many, max(outcomes, 1)), np.int32),
        np.empty((*many, max(outcomes, 1)), np.float32),
        np.zeros(many, np.uint64),
    )
    return Trees(arrays, actions, bool(outcomes), fanouts)
