"""Which edge of a node is tried next: PUCT with values rescaled to 0–1, and the rules of Gumbel MuZero at the root and below it.

Floats are float32 where mctx 0.0.71 has them, and operations come in its order, so that visits are equal tree by tree; only the softmax
below a Gumbel root is summed differently, as prior·exp(σ(Q̂)) with one term for all untried actions. Ties go to the lowest action (mctx's
PUCT adds noise of 1e-7 instead). No fastmath, nothing parallel, no random numbers.

Source: Schrittwieser et al. (2020), "Mastering Atari, Go, chess and shogi by planning with a learned model", appendix B (PUCT, min-max);
Danihelka et al. (2022), "Policy improvement by planning with Gumbel", section 5 and appendix D; mctx `action_selection.py`,
`qtransforms.py`, `seq_halving.py`.

Helpers take the arrays they need, never the whole tuple: numba counts references to every array of a tuple at every call, which takes
longer than everything else that is done in a node.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cryptoalpha.learn.search.tree import CODE, COUNT, LEGAL, MEAN, PRIOR, RAW, REST, TRIED, VALUE, VISITS

COMPILED_WITH = "6f6abd9e5a52"
"""Digest of tree.py, whose columns are compiled in here: numba's cache looks at this file only, and would go on with what it compiled from
an older one (tests/unit/learn/test_compiled_kernels.py says what to write)."""

ZERO, ONE = np.float32(0.0), np.float32(1.0)
EPSILON = np.float32(1e-8)
TINY = np.finfo(np.float32).tiny
NEVER = np.float32(-np.inf)
VALUE_SCALE, VISITS_AT_FIRST = np.float32(0.1), np.float32(50.0)
LEAST_SCORE = np.float32(-1e9)
"""A considered action is never worse than this, so that it stays above one that is not considered."""


class Choice(NamedTuple):
    """How actions are chosen in one plan.

    Shapes: growth `[n]` weight of the PUCT prior by visits of the node, noise `[B, A]` Gumbel noise of the roots, schedule `[B, S]` visits
    that a root action must have to be considered, by simulation; kept `[B, A]` visits that the roots brought along; scratch `[A]`.
    """

    gumbel: bool
    depth_limit: int
    reduction: np.float32
    growth: NDArray[np.float32]
    noise: NDArray[np.float32]
    schedule: NDArray[np.int32]
    kept: NDArray[np.int32]
    scratch: NDArray[np.float32]


@njit(cache=True, nogil=True)
def pick_puct(nodes: Any, numbers: Any, edges: Any, values: Any, b: int, node: int, growth: Any, reduction: Any) -> int:
    """argmax of Q rescaled to 0–1 + growth[visits]·P/(N + 1), over the legal actions; returns the edge, −1 if nothing compares.

    Q is rescaled between the least and the largest of the node's mean value and the values of visited actions; an unvisited action
    counts as 0, or with a `reduction` r ≥ 0 as max(0, rescaled mean − r).
    """
    tried = nodes[b, node, TRIED]
    if tried == 0:
        return 0
    ints, floats = edges[b, node], values[b, node]
    mean = numbers[b, node, MEAN]
    low, high = mean, mean
    for s in range(tried):
        q = floats[s, VALUE]
        low = min(low, q)
        high = max(high, q)
    span = max(high - low, EPSILON)
    weight = growth[nodes[b, node, VISITS]]
    best, choice = NEVER, -1
    if tried < nodes[b, node, LEGAL]:
        fresh = ZERO if reduction < ZERO else max(ZERO, (mean - low) / span - reduction)
        best, choice = fresh + weight * floats[tried, PRIOR], tried
    for s in range(tried):
        score = (floats[s, VALUE] - low) / span + weight * floats[s, PRIOR] / (np.float32(ints[s, COUNT]) + ONE)
        if score > best or (score == best and choice >= 0 and ints[s, CODE] < ints[choice, CODE]):
            best, choice = score, s
    return choice


@njit(cache=True, nogil=True)
def complete(nodes: Any, numbers: Any, edges: Any, values: Any, b: int, node: int, scaled: Any) -> tuple[Any, Any, Any, Any]:
    """Write σ(Q̂) = .1·(50 + max N)·(Q̂ rescaled to 0–1) of the tried edges to `scaled`.

    Q̂ of untried actions is the mixed value [v + ΣN·(Σ P·Q / Σ P over visited)] / (1 + ΣN). Illegal actions count among them, as in mctx.
    Returns ΣN, the mixed value, its σ, and the largest σ.
    """
    ints, floats = edges[b, node], values[b, node]
    tried = nodes[b, node, TRIED]
    total, most, mass, mixed = 0, 0, ZERO, ZERO
    low, high = np.float32(np.inf), NEVER
    for s in range(tried):
        visits, q, prior = ints[s, COUNT], floats[s, VALUE], max(TINY, floats[s, PRIOR])
        total += visits
        most = max(most, visits)
        mass += prior
        mixed += prior * q
        low = min(low, q)
        high = max(high, q)
    if tried > 0:
        mixed /= mass
    mixed = (numbers[b, node, RAW] + np.float32(total) * mixed) / (np.float32(total) + ONE)
    if tried < ints.shape[0]:
        low = min(low, mixed)
        high = max(high, mixed)
    span = max(high - low, EPSILON)
    scale = (VISITS_AT_FIRST + np.float32(most)) * VALUE_SCALE
    for s in range(tried):
        scaled[s] = scale * ((floats[s, VALUE] - low) / span)
    return total, mixed, scale * ((mixed - low) / span), scale * ((high - low) / span)


@njit(cache=True, nogil=True)
def pick_inner(nodes: Any, numbers: Any, edges: Any, values: Any, b: int, node: int, e: Any) -> int:
    """argmax of softmax(logits + σ(Q̂)) − N/(1 + ΣN): visits that approach the improved policy without randomness. `e [A]` is scratch."""
    tried = nodes[b, node, TRIED]
    if tried == 0:
        return 0
    total, _, fresh, top = complete(nodes, numbers, edges, values, b, node, e)
    ints, floats = edges[b, node], values[b, node]
    untried = tried < nodes[b, node, LEGAL]  # if not, the mixed value may lie outside the range of the others, and exp would overflow
    fresh = np.exp(fresh - top) if untried else ZERO
    whole = fresh * numbers[b, node, REST]
    for s in range(tried):
        e[s] = floats[s, PRIOR] * np.exp(e[s] - top)
        whole += e[s]
    best, choice = NEVER, -1
    if untried:
        best, choice = floats[tried, PRIOR] * fresh / whole, tried
    visits = np.float32(total) + ONE
    for s in range(tried):
        score = e[s] / whole - np.float32(ints[s, COUNT]) / visits
        if score > best or (score == best and choice >= 0 and ints[s, CODE] < ints[choice, CODE]):
            best, choice = score, s
    return choice


@njit(cache=True, nogil=True)
def pick_considered(
    nodes: Any, numbers: Any, edges: Any, values: Any, b: int, logits: Any, noise: Any, kept: Any, considered: int, e: Any
) -> int:
    """argmax of Gumbel noise + logits + σ(Q̂) among the root's edges with `considered` visits in this plan."""
    _, _, fresh, _ = complete(nodes, numbers, edges, values, b, 0, e)
    ints, tried = edges[b, 0], nodes[b, 0, TRIED]
    best, choice = NEVER, -1
    for s in range(nodes[b, 0, LEGAL]):
        a = ints[s, CODE]
        if ints[s, COUNT] - kept[b, a] == considered:
            score = max(LEAST_SCORE, noise[b, a] + logits[b, a] + (e[s] if s < tried else fresh))
            if score > best or (score == best and choice >= 0 and a < ints[choice, CODE]):
                best, choice = score, s
    return choice


@njit(cache=True, nogil=True)
def finish(t: Any, c: Any, completed: Any, scaled: Any, chosen: Any) -> None:
    """Q̂ and σ(Q̂) of every root's legal actions `[B, A]`; for a Gumbel root also the best action among those visited most in this plan."""
    nodes, numbers, edges, values, e = t.nodes, t.node_floats, t.edges, t.edge_floats, c.scratch
    for b in range(completed.shape[0]):
        _, mixed, fresh, _ = complete(nodes, numbers, edges, values, b, 0, e)
        most = 0
        for s in range(nodes[b, 0, LEGAL]):
            a, old = edges[b, 0, s, CODE], s < nodes[b, 0, TRIED]
            completed[b, a] = values[b, 0, s, VALUE] if old else mixed
            scaled[b, a] = e[s] if old else fresh
            most = max(most, edges[b, 0, s, COUNT] - c.kept[b, a])
        if c.gumbel:
            chosen[b] = edges[b, 0, pick_considered(nodes, numbers, edges, values, b, t.logits, c.noise, c.kept, most, e), CODE]


@njit(cache=True, nogil=True)
def promote(nodes: Any, numbers: Any, edges: Any, values: Any, b: int, node: int) -> None:
    """Put the likeliest untried edge (of equals the lowest action) behind the tried ones, and sum the prior of all untried."""
    ints, floats = edges[b, node], values[b, node]
    tried, legal = nodes[b, node, TRIED], nodes[b, node, LEGAL]
    best, rest = tried, ZERO
    for s in range(tried, legal):
        rest += floats[s, PRIOR]
        if floats[s, PRIOR] > floats[best, PRIOR] or (floats[s, PRIOR] == floats[best, PRIOR] and ints[s, CODE] < ints[best, CODE]):
            best = s
    numbers[b, node, REST] = rest
    if best != tried:
        swap(edges, b, node, best, tried)


@njit(cache=True, nogil=True)
def swap(edges: Any, b: int, node: int, s: int, other: int) -> None:
    """Exchange two untried edges."""
    for column in range(edges.shape[3]):
        edges[b, node, s, column], edges[b, node, other, column] = edges[b, node, other, column], edges[b, node, s, column]
