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
from cryptoalpha.learn.search.kernels_select import NEVER, ONE, ZERO, pick
from cryptoalpha.learn.search.tree import (
    ACTION,
    CHILD,
    COUNT,
    DEEPEST,
    DEPTH,
    DISCOUNT,
    FANOUT,
    ILLEGAL,
    KIND,
    LEFT,
    LOGIT,
    MEAN,
    OPEN,
    OUTCOME,
    PARENT,
    PRIOR,
    RAW,
    REWARD,
    TERMINAL,
    USED,
    VALUE,
    VISITS,
)

LOWEST = np.float32(np.finfo(np.float32).min)
"""Logit of an illegal action: −inf would make the softmax NaN where nothing is legal."""

ROW, AT, MOVE, FALL, FAN = range(5)
"""Last axis of `requests`: the tree, the node, the action tried there, the outcome (−1: not chosen yet) and how many there are."""

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
        parent, action = t.links[b, node, PARENT], t.links[b, node, ACTION]
        reward, discount = t.numbers[b, node, REWARD], t.numbers[b, node, DISCOUNT]
        g = reward + discount * g
        visits = np.float32(t.links[b, parent, VISITS])
        t.numbers[b, parent, MEAN] = (t.numbers[b, parent, MEAN] * visits + g) / (visits + ONE)
        t.links[b, parent, VISITS] += 1
        if chance:
            taken = np.float32(t.edges[b, parent, COUNT, action])
            t.edge_floats[b, parent, VALUE, action] = (t.edge_floats[b, parent, VALUE, action] * taken + g) / (taken + ONE)
        else:
            t.edge_floats[b, parent, VALUE, action] = reward + discount * t.numbers[b, node, MEAN]
        t.edges[b, parent, COUNT, action] += 1
        node = parent


@njit(cache=True, nogil=True)
def descend(t: Any, c: Any, actions: int, chance: bool, requests: Any, moves: Any, states: Any, uniforms: Any) -> int:
    """Walk each tree that has simulations left to an edge without a child; what to ask the model goes to the output arrays.

    Shapes: requests `[B, 5]`, moves `[B]`, states `[B, D]` (the state that the action is taken in), uniforms `[B, m]` (chance only).
    Returns how many rows were written, or −1 − b where tree b compares values that are no longer numbers.
    """
    n = 0
    for b in range(t.links.shape[0]):
        asked = False
        while not asked and t.control[b, LEFT] > 0:
            t.control[b, LEFT] -= 1
            node = 0
            while True:
                action = pick(t, b, node, actions, c)
                if action < 0:
                    return -1 - b
                child, outcome = t.edges[b, node, CHILD, action], 0
                if chance:
                    outcome = -1
                    if child >= 0:
                        edge, m = child, t.links[b, node, FANOUT]
                        outcome = pick_outcome(t.keys[b, node], t.weights[b, edge], m, t.edges[b, node, COUNT, action], t, b, edge)
                        child = t.fan[b, edge, outcome]
                if child < 0:
                    requests[n, ROW], requests[n, AT], requests[n, MOVE], requests[n, FALL] = b, node, action, outcome
                    moves[n] = action
                    states[n] = t.states[b, node]
                    if chance:
                        requests[n, FAN] = t.links[b, node, FANOUT]
                        write_uniforms(t.keys[b, node], t.links[b, node, FANOUT], uniforms[n])
                    n += 1
                    asked = True
                    break
                if t.links[b, child, KIND] == TERMINAL or t.links[b, child, DEPTH] >= c.depth_limit:
                    t.links[b, child, VISITS] += 1
                    back_up(t, b, child, t.numbers[b, child, RAW], chance)
                    break
                node = child
    return n


@njit(cache=True, nogil=True)
def fill_edges(t: Any, b: int, node: int, actions: int, logits: Any, told: int, legal: Any, i: int) -> int:
    """Softmax of the legal logits as prior, no visits, no children. Returns FINE, or what is wrong."""
    ints, floats = t.edges[b, node], t.edge_floats[b, node]
    masked = legal.shape[0] > 0
    largest = NEVER
    for a in range(ints.shape[1]):
        ints[CHILD, a], ints[COUNT, a] = -1, 0
        floats[VALUE, a], floats[LOGIT, a] = ZERO, LOWEST
        if a < actions and (not masked or legal[i, a]):
            if not np.isfinite(logits[told, a]):
                return BAD_LOGIT
            floats[LOGIT, a] = logits[told, a]
            largest = max(largest, logits[told, a])
    if largest == NEVER:
        return NO_LEGAL
    total = ZERO
    for a in range(ints.shape[1]):
        floats[PRIOR, a] = ILLEGAL
        if a < actions and (not masked or legal[i, a]):
            floats[PRIOR, a] = np.exp(floats[LOGIT, a] - largest)
            total += floats[PRIOR, a]
    for a in range(actions):
        if floats[PRIOR, a] >= ZERO:
            floats[PRIOR, a] /= total
    return FINE


@njit(cache=True, nogil=True)
def link(t: Any, b: int, node: int, requests: Any, i: int, weights: Any, chance: bool) -> None:
    """Hang the new node below its parent."""
    parent, action, outcome = requests[i, AT], requests[i, MOVE], requests[i, FALL]
    edge = t.edges[b, parent, CHILD, action]
    if edge < 0:
        t.edges[b, parent, CHILD, action] = node
        edge = node
        if chance:
            for j in range(requests[i, FAN]):
                t.fan[b, edge, j] = -1
                t.weights[b, edge, j] = weights[i, j]
    if chance:
        t.fan[b, edge, outcome] = node
        t.keys[b, node] = child_key(t.keys[b, parent], action, outcome)


@njit(cache=True, nogil=True)
def grow(t: Any, actions: int, chance: bool, fanouts: Any, requests: Any, n: int, said: Any) -> tuple[int, int]:
    """Give birth to what the model answered, and back its values up.

    A request at node −1 plants a root. fanouts: outcomes of an edge by depth. Returns (FINE, n), or (what is wrong, its row).
    """
    told = 0
    for i in range(n):
        b, parent = requests[i, ROW], requests[i, AT]
        node = t.control[b, USED]
        depth = 0 if parent < 0 else t.links[b, parent, DEPTH] + 1
        links, numbers = t.links[b, node], t.numbers[b, node]
        links[VISITS], links[PARENT], links[ACTION], links[OUTCOME] = 1, parent, requests[i, MOVE], requests[i, FALL]
        links[KIND], links[DEPTH], links[FANOUT] = OPEN, depth, fanouts[min(depth, fanouts.shape[0] - 1)]
        numbers[REWARD], numbers[DISCOUNT], numbers[RAW] = said.rewards[i], said.discounts[i], ZERO
        if not np.isfinite(numbers[REWARD]):
            return BAD_REWARD, i
        if not np.isfinite(numbers[DISCOUNT]):
            return BAD_DISCOUNT, i
        if said.terminal[i]:
            links[KIND] = TERMINAL
        else:
            numbers[RAW] = said.values[told]
            if not np.isfinite(numbers[RAW]):
                return BAD_VALUE, i
            fault = fill_edges(t, b, node, actions, said.logits, told, said.legal, i)
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
def trace(t: Any, actions: int, chance: bool, first: Any, steps: Any, worths: Any) -> None:
    """The line that each tree expects after its root plays `first` `[B]`: then the action and the outcome visited most.

    Shapes: steps `[B, L, 3]` action, outcome, visits (action −1: the line has ended); worths `[B, L, 2]` prior, Q.
    """
    for b in range(first.shape[0]):
        node, action = 0, first[b]
        for i in range(steps.shape[1]):
            steps[b, i, 0] = -1
            child = t.edges[b, node, CHILD, action] if action >= 0 else -1
            if child < 0:
                break
            if chance:
                edge, most = child, 0
                for j in range(t.links[b, node, FANOUT]):
                    seen = t.fan[b, edge, j]
                    if seen >= 0 and t.links[b, seen, VISITS] > most:
                        most, child = t.links[b, seen, VISITS], seen
            steps[b, i, 0], steps[b, i, 1], steps[b, i, 2] = action, t.links[b, child, OUTCOME], t.edges[b, node, COUNT, action]
            worths[b, i, 0], worths[b, i, 1] = t.edge_floats[b, node, PRIOR, action], t.edge_floats[b, node, VALUE, action]
            node, action = child, -1
            if t.links[b, node, KIND] != TERMINAL:
                for a in range(actions):
                    visits = t.edges[b, node, COUNT, a]
                    if visits > 0 and (
                        action < 0
                        or visits > t.edges[b, node, COUNT, action]
                        or (
                            visits == t.edges[b, node, COUNT, action]
                            and t.edge_floats[b, node, VALUE, a] > t.edge_floats[b, node, VALUE, action]
                        )
                    ):
                        action = a
