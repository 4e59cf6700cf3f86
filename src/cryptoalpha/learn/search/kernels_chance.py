"""Chance without a generator: numbers that depend on the seed and on the path from the root, and on nothing else.

Every node has a key: the root's comes from the run's seed and the root's name, a child's from its parent's key, the action and the
outcome. From the key follow the node's uniforms, one per stratum and in random order, which sibling actions share so that luck does not
decide between them; and the order in which ties between outcomes are resolved. Asking again gives the same numbers.

Source: Steele et al. (2014), "Fast splittable pseudorandom number generators" (the mixing function, SplitMix64).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from cryptoalpha.learn.search.chance import WEIGHT_TOLERANCE
from cryptoalpha.learn.search.tree import VISITS

COMPILED_WITH = "176b70b8af21"
"""Digest of chance.py and tree.py; see kernels_select."""

STRIDE = np.uint64(0x9E3779B97F4A7C15)
FIRST, SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
SHIFT30, SHIFT27, SHIFT31, SHIFT11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)
ORDER, TIES, CHILDREN = np.uint64(1), np.uint64(1 << 20), np.uint64(1 << 40)
"""Where in a node's sequence the order of its strata, its tie breaks and its children's keys begin; 0 is its shift."""


@njit(cache=True, nogil=True)
def mixed(key: Any, place: Any) -> Any:
    """64 random bits: number `place` of the sequence that starts at `key`."""
    z = np.uint64(key) + STRIDE * (np.uint64(place) + np.uint64(1))
    z = (z ^ (z >> SHIFT30)) * FIRST
    z = (z ^ (z >> SHIFT27)) * SECOND
    return z ^ (z >> SHIFT31)


@njit(cache=True, nogil=True)
def child_key(key: Any, action: int, outcome: int) -> Any:
    """Key of the node that follows this action and outcome."""
    return mixed(mixed(key, CHILDREN + np.uint64(action)), np.uint64(outcome))


@njit(cache=True, nogil=True)
def write_uniforms(key: Any, m: int, out: Any) -> None:
    """(stratum + shift)/m for m strata in random order, each in (0, 1): one shift for all, as in the scenario tree."""
    shift = (np.float64(mixed(key, np.uint64(0)) >> SHIFT11) + 0.5) / 9007199254740992.0  # 53 bits, never 0 or 1
    for j in range(m):
        out[j] = (j + shift) / m
    for j in range(m - 1, 0, -1):
        other = np.int64(mixed(key, ORDER + np.uint64(j)) % np.uint64(j + 1))
        out[j], out[other] = out[other], out[j]


@njit(cache=True, nogil=True)
def pick_outcome(key: Any, weights: Any, m: int, visits: int, nodes: Any, fan: Any, b: int, edge: int) -> int:
    """The outcome furthest behind its share: argmax of w·(N + 1) − n, ties in the node's random order.

    `edge` < 0: nothing was visited yet.
    """
    best, choice, rank = np.float32(-np.inf), -1, np.uint64(0)
    for j in range(m):
        seen = 0
        if edge >= 0 and fan[b, edge, j] >= 0:
            seen = nodes[b, fan[b, edge, j], VISITS]
        score = weights[j] * np.float32(visits + 1) - np.float32(seen)
        if score > best:
            best, choice, rank = score, j, mixed(key, TIES + np.uint64(j))
        elif score == best and mixed(key, TIES + np.uint64(j)) > rank:
            choice, rank = j, mixed(key, TIES + np.uint64(j))
    return choice


@njit(cache=True, nogil=True)
def settle(t: Any, requests: Any, rows: Any, weights: Any, row: int, node: int, fall: int) -> int:
    """Choose the outcome of every new edge among `rows` of the requests, whose answers have `weights` `[len(rows), m]`.

    `row`, `node` and `fall` are columns of the requests. Returns the first of `rows` whose weights are no probabilities, or −1.
    """
    m = weights.shape[1]
    for k in range(rows.shape[0]):
        i = int(rows[k])
        total = 0.0
        for j in range(m):
            if not weights[k, j] >= 0.0:
                return i
            total += weights[k, j]
        if not abs(total - 1.0) <= WEIGHT_TOLERANCE:
            return i
        if requests[i, fall] < 0:
            b = requests[i, row]
            requests[i, fall] = pick_outcome(t.keys[b, requests[i, node]], weights[k], m, 0, t.nodes, t.fan, b, -1)
    return -1
