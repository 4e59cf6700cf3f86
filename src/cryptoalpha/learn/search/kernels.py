"""The two compiled steps of a simulation: down the trees to the edges that need the model, then new nodes and their values up again.

A simulation that ends where nothing is left to ask, in a terminal node or at the depth limit, is backed up at once, and its tree goes on
to the next one; so every row handed to the model is one it has not answered, and no tree waits for another.

Back-up: G ← reward + discount·G upward; a node's mean is the running mean of G. An edge's value is reward + discount·mean(child), as in
mctx; where chance moves it is the running mean of G over the edge, whatever the outcomes were.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cryptoalpha.learn.search.kernels_chance import child_key, pick_outcome, write_uniforms
from cryptoalpha.learn.search.kernels_select import NEVER, ONE, ZERO, pick, promote, swap
from cryptoalpha.learn.search.tree import (
    ACTION,
    CHILD,
    CODE,
    COUNT,
    DEEPEST,
    DEPTH,
    DISCOUNT,
    FANOUT,
    KIND,
    LEFT,
    LEGAL,
    MEAN,
    OPEN,
    OUTCOME,
    PARENT,
    PRIOR,
    RAW,
    REWARD,
    SLOT,
    TERMINAL,
    TRIED,
    USED,
    VALUE,
    VISITS,
)

ROW, AT, EDGE, MOVE, FALL, FAN = range(6)
"""Last axis of `requests`: the tree, the node, its edge and action tried, the outcome (−1: not chosen yet) and how many there are."""

FINE, BAD_REWARD, BAD_DISCOUNT, BAD_VALUE, BAD_LOGIT, NO_LEGAL, BAD_STATE, BAD_WEIGHT = range(8)
"""What `grow` found in the model's answers."""


class Answers(NamedTuple):
    """What the model said to n requests.

    Shapes: states `[n, D]`, rewards, discounts and terminal `[n]`, legal `[n, A]` or `[0, A]` (all legal), weights `[n, m]` (chance only);
    values `[k]` and logits `[k, A]` of the k states that are not terminal, in order.
    """

    states: NDArray[np.float32]
    rewards: NDArray[np.float32]
    discounts: NDArray[np.float32]
    terminal: NDArray[np.bool_]
    legal: NDArray[np.bool_]
    weights: NDArray[np.float32]
    values: NDArray[np.float32]
    logits: NDArray[np.float32]


@njit(cache=True, nogil=True)
def back_up(t: Any, b: int, leaf: int, value: Any, chance: bool) -> None:
    """Carry the value of a leaf to the root of tree b."""
    node, g = leaf, value
    while node != 0:
        parent, s = t.nodes[b, node, PARENT], t.nodes[b, node, SLOT]
        reward, discount = t.node_floats[b, node, REWARD], t.node_floats[b, node, DISCOUNT]
        g = reward + discount * g
        visits = np.float32(t.nodes[b, parent, VISITS])
        t.node_floats[b, parent, MEAN] = (t.node_floats[b, parent, MEAN] * visits + g) / (visits + ONE)
        t.nodes[b, parent, VISITS] += 1
        if chance:
            taken = np.float32(t.edges[b, parent, s, COUNT])
            t.edge_floats[b, parent, s, VALUE] = (t.edge_floats[b, parent, s, VALUE] * taken + g) / (taken + ONE)
        else:
            t.edge_floats[b, parent, s, VALUE] = reward + discount * t.node_floats[b, node, MEAN]
        t.edges[b, parent, s, COUNT] += 1
        node = parent


@njit(cache=True, nogil=True)
def descend(t: Any, c: Any, chance: bool, requests: Any, moves: Any, states: Any, uniforms: Any) -> int:
    """Walk each tree that has simulations left to an edge without a child; what to ask the model goes to the output arrays.

    Shapes: requests `[B, 6]`, moves `[B]`, states `[B, D]` (the state that the action is taken in), uniforms `[B, m]` (chance only).
    Returns how many rows were written, or −1 − b where tree b compares values that are no longer numbers.
    """
    n = 0
    for b in range(t.nodes.shape[0]):
        asked = False
        while not asked and t.control[b, LEFT] > 0:
            t.control[b, LEFT] -= 1
            node = 0
            while True:
                s = pick(t, b, node, c)
                if s < 0:
                    return -1 - b
                child, outcome = t.edges[b, node, s, CHILD], 0
                if chance:
                    outcome = -1
                    if child >= 0:
                        edge, m = child, t.nodes[b, node, FANOUT]
                        outcome = pick_outcome(t.keys[b, node], t.weights[b, edge], m, t.edges[b, node, s, COUNT], t, b, edge)
                        child = t.fan[b, edge, outcome]
                if child < 0:
                    moves[n] = t.edges[b, node, s, CODE]
                    requests[n, ROW], requests[n, AT], requests[n, EDGE] = b, node, s
                    requests[n, MOVE], requests[n, FALL] = moves[n], outcome
                    states[n] = t.states[b, node]
                    if chance:
                        requests[n, FAN] = t.nodes[b, node, FANOUT]
                        write_uniforms(t.keys[b, node], t.nodes[b, node, FANOUT], uniforms[n])
                    n += 1
                    asked = True
                    break
                if t.nodes[b, child, KIND] == TERMINAL or t.nodes[b, child, DEPTH] >= c.depth_limit:
                    t.nodes[b, child, VISITS] += 1
                    back_up(t, b, child, t.node_floats[b, child, RAW], chance)
                    break
                node = child
    return n


@njit(cache=True, nogil=True)
def fill_edges(t: Any, b: int, node: int, logits: Any, told: int, legal: Any, i: int) -> int:
    """An untried edge for each legal action, with the softmax of their logits as prior. Returns FINE, or what is wrong."""
    ints, floats = t.edges[b, node], t.edge_floats[b, node]
    masked = legal.shape[0] > 0
    largest, count = NEVER, 0
    for a in range(ints.shape[0]):
        if masked and not legal[i, a]:
            continue
        logit = logits[told, a]
        if not np.isfinite(logit):
            return BAD_LOGIT
        largest = max(largest, logit)
        ints[count, CHILD], ints[count, COUNT], ints[count, CODE] = -1, 0, a
        floats[count, VALUE], floats[count, PRIOR] = ZERO, logit
        count += 1
    if count == 0:
        return NO_LEGAL
    total = ZERO
    for s in range(count):
        floats[s, PRIOR] = np.exp(floats[s, PRIOR] - largest)
        total += floats[s, PRIOR]
    for s in range(count):
        floats[s, PRIOR] /= total
    t.nodes[b, node, TRIED], t.nodes[b, node, LEGAL] = 0, count
    promote(t, b, node)
    return FINE


@njit(cache=True, nogil=True)
def link(t: Any, b: int, node: int, requests: Any, i: int, weights: Any, chance: bool) -> None:
    """Hang the new node below its parent."""
    parent, s, outcome = requests[i, AT], requests[i, EDGE], requests[i, FALL]
    edge = t.edges[b, parent, s, CHILD]
    if edge < 0:
        if s != t.nodes[b, parent, TRIED]:  # a Gumbel root tries in an order of its own
            swap(t, b, parent, s, t.nodes[b, parent, TRIED])
            s = t.nodes[b, parent, TRIED]
        t.nodes[b, parent, TRIED] += 1
        promote(t, b, parent)
        t.edges[b, parent, s, CHILD] = node
        edge = node
        if chance:
            for j in range(requests[i, FAN]):
                t.fan[b, edge, j] = -1
                t.weights[b, edge, j] = weights[i, j]
    t.nodes[b, node, SLOT] = s
    if chance:
        t.fan[b, edge, outcome] = node
        t.keys[b, node] = child_key(t.keys[b, parent], requests[i, MOVE], outcome)


@njit(cache=True, nogil=True)
def grow(t: Any, chance: bool, fanouts: Any, requests: Any, n: int, said: Any) -> tuple[int, int]:
    """Give birth to what the model answered, and back its values up.

    A request at node −1 plants a root. fanouts: outcomes of an edge by depth. Returns (FINE, n), or (what is wrong, its row).
    """
    told = 0
    for i in range(n):
        b, parent = requests[i, ROW], requests[i, AT]
        node = t.control[b, USED]
        depth = 0 if parent < 0 else t.nodes[b, parent, DEPTH] + 1
        row, numbers = t.nodes[b, node], t.node_floats[b, node]
        row[VISITS], row[PARENT], row[SLOT], row[ACTION], row[OUTCOME] = 1, parent, -1, requests[i, MOVE], requests[i, FALL]
        row[KIND], row[DEPTH], row[FANOUT] = OPEN, depth, fanouts[min(depth, fanouts.shape[0] - 1)]
        row[TRIED] = row[LEGAL] = 0
        numbers[REWARD], numbers[DISCOUNT], numbers[RAW] = said.rewards[i], said.discounts[i], ZERO
        if not np.isfinite(numbers[REWARD]):
            return BAD_REWARD, i
        if not np.isfinite(numbers[DISCOUNT]):
            return BAD_DISCOUNT, i
        if said.terminal[i]:
            row[KIND] = TERMINAL
        else:
            numbers[RAW] = said.values[told]
            if not np.isfinite(numbers[RAW]):
                return BAD_VALUE, i
            fault = fill_edges(t, b, node, said.logits, told, said.legal, i)
            if fault != FINE:
                return fault, i
            told += 1
        numbers[MEAN] = numbers[RAW]
        t.states[b, node] = said.states[i]
        t.control[b, USED] = node + 1
        t.control[b, DEEPEST] = max(t.control[b, DEEPEST], depth)
        if parent >= 0:
            link(t, b, node, requests, i, said.weights, chance)
            back_up(t, b, node, numbers[RAW], chance)
    return FINE, n


@njit(cache=True, nogil=True)
def trace(t: Any, chance: bool, first: Any, steps: Any, worths: Any) -> None:
    """The line that each tree expects after its root plays `first` `[B]`: then the action (of equals the better) and outcome visited most.

    Shapes: steps `[B, L, 3]` action, outcome, visits (action −1: the line has ended); worths `[B, L, 2]` prior, Q.
    """
    for b in range(first.shape[0]):
        node = 0
        for i in range(steps.shape[1]):
            steps[b, i, 0] = -1
            ints, floats = t.edges[b, node], t.edge_floats[b, node]
            best = -1
            for s in range(t.nodes[b, node, TRIED]):
                if i == 0:
                    better = ints[s, CODE] == first[b]
                elif best < 0 or ints[s, COUNT] != ints[best, COUNT]:
                    better = best < 0 or ints[s, COUNT] > ints[best, COUNT]
                else:
                    better = floats[s, VALUE] > floats[best, VALUE]
                if better:
                    best = s
            if best < 0:
                break
            child = edge = ints[best, CHILD]
            if chance:
                most = 0
                for j in range(t.nodes[b, node, FANOUT]):
                    seen = t.fan[b, edge, j]
                    if seen >= 0 and t.nodes[b, seen, VISITS] > most:
                        most, child = t.nodes[b, seen, VISITS], seen
            steps[b, i, 0], steps[b, i, 1], steps[b, i, 2] = ints[best, CODE], t.nodes[b, child, OUTCOME], ints[best, COUNT]
            worths[b, i, 0], worths[b, i, 1] = floats[best, PRIOR], floats[best, VALUE]
            node = child
