"""The two compiled steps of a simulation: down the trees to the edges that need the model, then new nodes and their values up again.

A simulation that ends where nothing is left to ask, in a terminal node or at the depth limit, is backed up at once, and its tree goes on
to the next one; so every row handed to the model is one it has not answered, and no tree waits for another.

Back-up: G ← reward + discount·G upward; a node's mean is the running mean of G. An edge's value is reward + discount·mean(child), as in
mctx; where chance moves it is the running mean of G over the edge, whatever the outcomes were.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from cryptoalpha.learn.search.kernels_select import NEVER, ONE, ZERO, pick_puct
from cryptoalpha.learn.search.tree import (
    ACTION,
    CHILD,
    COUNT,
    DEEPEST,
    DEPTH,
    DISCOUNT,
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

ROW, AT, MOVE, FALL = range(4)
"""Last axis of `requests`: the tree, the node, the action tried there, and the outcome (−1: not chosen yet)."""

FINE, BAD_REWARD, BAD_DISCOUNT, BAD_VALUE, BAD_LOGIT, NO_LEGAL, BAD_STATE, BAD_WEIGHT = range(8)
"""What `grow` found in the model's answers."""


@njit(cache=True, nogil=True)
def back_up(t: Any, b: int, leaf: int, value: Any) -> None:
    """Carry the value of a leaf to the root of tree b."""
    node, g = leaf, value
    while node != 0:
        parent, action = t.links[b, node, PARENT], t.links[b, node, ACTION]
        reward, discount = t.numbers[b, node, REWARD], t.numbers[b, node, DISCOUNT]
        g = reward + discount * g
        visits = np.float32(t.links[b, parent, VISITS])
        t.numbers[b, parent, MEAN] = (t.numbers[b, parent, MEAN] * visits + g) / (visits + ONE)
        t.links[b, parent, VISITS] += 1
        t.edge_floats[b, parent, VALUE, action] = reward + discount * t.numbers[b, node, MEAN]
        t.edges[b, parent, COUNT, action] += 1
        node = parent


@njit(cache=True, nogil=True)
def descend(t: Any, actions: int, depth_limit: int, growth: Any, reduction: Any, requests: Any, moves: Any, states: Any) -> int:
    """Walk each tree that has simulations left to an edge without a child; what to ask the model goes to the output arrays.

    Shapes: requests `[B, 4]`, moves `[B]`, states `[B, D]` (the state that the action is taken in). Returns how many rows were written.
    """
    n = 0
    for b in range(t.links.shape[0]):
        asked = False
        while not asked and t.control[b, LEFT] > 0:
            t.control[b, LEFT] -= 1
            node = 0
            while True:
                action = pick_puct(t, b, node, actions, growth, reduction)
                child = t.edges[b, node, CHILD, action]
                if child < 0:
                    requests[n, ROW], requests[n, AT], requests[n, MOVE], requests[n, FALL] = b, node, action, 0
                    moves[n] = action
                    states[n] = t.states[b, node]
                    n += 1
                    asked = True
                    break
                if t.links[b, child, KIND] == TERMINAL or t.links[b, child, DEPTH] >= depth_limit:
                    t.links[b, child, VISITS] += 1
                    back_up(t, b, child, t.numbers[b, child, RAW])
                    break
                node = child
    return n


@njit(cache=True, nogil=True)
def fill_edges(t: Any, b: int, node: int, actions: int, logits: Any, legal: Any, told: int, i: int) -> int:
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
def grow(
    t: Any,
    actions: int,
    requests: Any,
    n: int,
    states: Any,
    rewards: Any,
    discounts: Any,
    terminal: Any,
    legal: Any,
    values: Any,
    logits: Any,
) -> tuple[int, int]:
    """Give birth to what the model answered, and back its values up.

    Shapes: requests `[≥ n, 4]`, states `[n, D]`, rewards, discounts and terminal `[n]`, legal `[n, A]` or `[0, A]`; values and logits have
    a row for each answer that is not terminal, in order. A request at node −1 plants a root. Returns (FINE, n) or (what is wrong, its row).
    """
    told = 0
    for i in range(n):
        b, parent, action = requests[i, ROW], requests[i, AT], requests[i, MOVE]
        node = t.control[b, USED]
        links, numbers = t.links[b, node], t.numbers[b, node]
        links[VISITS], links[PARENT], links[ACTION], links[OUTCOME], links[KIND] = 1, parent, action, 0, OPEN
        links[DEPTH] = 0 if parent < 0 else t.links[b, parent, DEPTH] + 1
        if not np.isfinite(rewards[i]):
            return BAD_REWARD, i
        if not np.isfinite(discounts[i]):
            return BAD_DISCOUNT, i
        numbers[REWARD], numbers[DISCOUNT] = rewards[i], discounts[i]
        if terminal[i]:
            links[KIND] = TERMINAL
            numbers[RAW] = ZERO
        else:
            if not np.isfinite(values[told]):
                return BAD_VALUE, i
            numbers[RAW] = values[told]
            fault = fill_edges(t, b, node, actions, logits, legal, told, i)
            if fault != FINE:
                return fault, i
            told += 1
        numbers[MEAN] = numbers[RAW]
        t.states[b, node] = states[i]
        t.control[b, USED] = node + 1
        t.control[b, DEEPEST] = max(t.control[b, DEEPEST], links[DEPTH])
        if parent >= 0:
            t.edges[b, parent, CHILD, action] = node
            back_up(t, b, node, numbers[RAW])
    return FINE, n
