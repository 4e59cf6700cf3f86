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
from cryptoalpha.learn.search.kernels_select import NEVER, ONE, ZERO, pick_considered, pick_inner, pick_puct, promote, swap
from cryptoalpha.learn.search.tree import (
    ACTION,
    ASKED,
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

COMPILED_WITH = "d42c35c4d9a2"
"""Digest of kernels_chance.py, kernels_select.py and tree.py; see kernels_select."""

EXPONENT = np.int32(0x7F800000)

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
def back_up(nodes: Any, numbers: Any, edges: Any, values: Any, b: int, leaf: int, value: Any, chance: bool) -> None:
    """Carry the value of a leaf to the root of tree b."""
    node, g = leaf, value
    while node != 0:
        parent, s = nodes[b, node, PARENT], nodes[b, node, SLOT]
        reward, discount = numbers[b, node, REWARD], numbers[b, node, DISCOUNT]
        g = reward + discount * g
        visits = np.float32(nodes[b, parent, VISITS])
        numbers[b, parent, MEAN] = (numbers[b, parent, MEAN] * visits + g) / (visits + ONE)
        nodes[b, parent, VISITS] += 1
        if chance:
            taken = np.float32(edges[b, parent, s, COUNT])
            values[b, parent, s, VALUE] = (values[b, parent, s, VALUE] * taken + g) / (taken + ONE)
        else:
            values[b, parent, s, VALUE] = reward + discount * numbers[b, node, MEAN]
        edges[b, parent, s, COUNT] += 1
        node = parent


@njit(cache=True, nogil=True)
def descend(t: Any, c: Any, chance: bool, requests: Any, moves: Any, states: Any, uniforms: Any) -> int:
    """Walk each tree that has simulations left to an edge without a child; what to ask the model goes to the output arrays.

    Shapes: requests `[B, 6]`, moves `[B]`, states `[B, D]` (the state that the action is taken in), uniforms `[B, m]` (chance only).
    Returns how many rows were written, or −1 − b where tree b compares values that are no longer numbers.
    """
    nodes, numbers, edges, values, control = t.nodes, t.node_floats, t.edges, t.edge_floats, t.control
    fan, weights, keys, logits, kept_states = t.fan, t.weights, t.keys, t.logits, t.states
    gumbel, growth, reduction, noise, schedule, kept, scratch = c.gumbel, c.growth, c.reduction, c.noise, c.schedule, c.kept, c.scratch
    n = 0
    for b in range(nodes.shape[0]):
        asked = False
        while not asked and control[b, LEFT] > 0:
            node, depth = 0, 0
            while True:
                if not gumbel:
                    s = pick_puct(nodes, numbers, edges, values, b, node, growth, reduction)
                elif node > 0:
                    s = pick_inner(nodes, numbers, edges, values, b, node, scratch)
                else:
                    considered = schedule[b, control[b, ASKED] - control[b, LEFT]]
                    s = pick_considered(nodes, numbers, edges, values, b, logits, noise, kept, considered, scratch)
                if s < 0:
                    return -1 - b
                child, outcome, depth = edges[b, node, s, CHILD], 0, depth + 1
                if chance:
                    outcome = -1
                    if child >= 0:
                        edge, m = child, nodes[b, node, FANOUT]
                        outcome = pick_outcome(keys[b, node], weights[b, edge], m, edges[b, node, s, COUNT], nodes, fan, b, edge)
                        child = fan[b, edge, outcome]
                if child < 0:
                    moves[n] = edges[b, node, s, CODE]
                    requests[n, ROW], requests[n, AT], requests[n, EDGE] = b, node, s
                    requests[n, MOVE], requests[n, FALL] = moves[n], outcome
                    for k in range(states.shape[1]):
                        states[n, k] = kept_states[b, node, k]
                    if chance:
                        requests[n, FAN] = nodes[b, node, FANOUT]
                        write_uniforms(keys[b, node], nodes[b, node, FANOUT], uniforms[n])
                    n += 1
                    asked = True
                    break
                if depth >= c.depth_limit or nodes[b, child, KIND] == TERMINAL:
                    nodes[b, child, VISITS] += 1
                    back_up(nodes, numbers, edges, values, b, child, numbers[b, child, RAW], chance)
                    break
                node = child
            control[b, LEFT] -= 1
    return n


@njit(cache=True, nogil=True)
def fill_edges(nodes: Any, numbers: Any, edges: Any, values: Any, b: int, node: int, logits: Any, told: int, legal: Any, i: int) -> int:
    """An untried edge for each legal action, with the softmax of their logits as prior. Returns FINE, or what is wrong."""
    ints, floats = edges[b, node], values[b, node]
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
    nodes[b, node, TRIED], nodes[b, node, LEGAL] = 0, count
    promote(nodes, numbers, edges, values, b, node)
    return FINE


@njit(cache=True, nogil=True)
def open_edge(nodes: Any, numbers: Any, edges: Any, values: Any, b: int, parent: int, s: int) -> Any:
    """Put edge s behind those tried so far and count it among them; returns where it is now."""
    tried = nodes[b, parent, TRIED]
    if s != tried:  # a Gumbel root tries in an order of its own
        swap(edges, b, parent, s, tried)
    nodes[b, parent, TRIED] = tried + 1
    promote(nodes, numbers, edges, values, b, parent)
    return tried


@njit(cache=True, nogil=True)
def branch(fan: Any, weights: Any, keys: Any, b: int, edge: int, node: int, requests: Any, i: int, told: Any) -> None:
    """Enter the new node as an outcome of its edge; the first one brings the weights of all."""
    if edge == node:
        for j in range(requests[i, FAN]):
            fan[b, edge, j] = -1
            weights[b, edge, j] = told[i, j]
    fan[b, edge, requests[i, FALL]] = node
    keys[b, node] = child_key(keys[b, requests[i, AT]], requests[i, MOVE], requests[i, FALL])


@njit(cache=True, nogil=True)
def all_finite(bits: Any, i: int) -> bool:
    """No float32 of row i is NaN or infinite: not all bits of its exponent are set. Over integers, because that loop is vectorised."""
    special = 0
    for k in range(bits.shape[1]):
        special |= (bits[i, k] & EXPONENT) == EXPONENT
    return special == 0


@njit(cache=True, nogil=True)
def grow(t: Any, chance: bool, fanouts: Any, requests: Any, n: int, said: Any) -> tuple[int, int]:
    """Give birth to what the model answered, and back its values up.

    A request at node −1 plants a root. fanouts: outcomes of an edge by depth. Returns (FINE, n), or (what is wrong, its row).
    """
    nodes, numbers, edges, values, control, states = t.nodes, t.node_floats, t.edges, t.edge_floats, t.control, t.states
    fan, weights, keys = t.fan, t.weights, t.keys
    rewards, discounts, terminal, legal, guesses, logits, born = (
        said.rewards,
        said.discounts,
        said.terminal,
        said.legal,
        said.values,
        said.logits,
        said.states,
    )
    bits, told = born.view(np.int32), 0
    for i in range(n):
        b, parent = requests[i, ROW], requests[i, AT]
        node = control[b, USED]
        depth = 0 if parent < 0 else nodes[b, parent, DEPTH] + 1
        nodes[b, node, VISITS], nodes[b, node, PARENT], nodes[b, node, SLOT] = 1, parent, -1
        nodes[b, node, ACTION], nodes[b, node, OUTCOME], nodes[b, node, KIND] = requests[i, MOVE], requests[i, FALL], OPEN
        nodes[b, node, DEPTH], nodes[b, node, FANOUT] = depth, fanouts[min(depth, fanouts.shape[0] - 1)]
        nodes[b, node, TRIED] = nodes[b, node, LEGAL] = 0
        value = ZERO
        if not np.isfinite(rewards[i]):
            return BAD_REWARD, i
        if not np.isfinite(discounts[i]):
            return BAD_DISCOUNT, i
        if terminal[i]:
            nodes[b, node, KIND] = TERMINAL
        else:
            if not all_finite(bits, i):
                return BAD_STATE, i
            value = guesses[told]
            if not np.isfinite(value):
                return BAD_VALUE, i
            fault = fill_edges(nodes, numbers, edges, values, b, node, logits, told, legal, i)
            if fault != FINE:
                return fault, i
            told += 1
        numbers[b, node, REWARD], numbers[b, node, DISCOUNT] = rewards[i], discounts[i]
        numbers[b, node, RAW] = numbers[b, node, MEAN] = value
        for k in range(states.shape[2]):
            states[b, node, k] = born[i, k]
        control[b, USED] = node + 1
        control[b, DEEPEST] = max(control[b, DEEPEST], depth)
        if parent >= 0:
            s = requests[i, EDGE]
            edge = edges[b, parent, s, CHILD]
            if edge < 0:
                s, edge = open_edge(nodes, numbers, edges, values, b, parent, s), node
                edges[b, parent, s, CHILD] = node
            nodes[b, node, SLOT] = s
            if chance:
                branch(fan, weights, keys, b, edge, node, requests, i, said.weights)
            back_up(nodes, numbers, edges, values, b, node, value, chance)
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
