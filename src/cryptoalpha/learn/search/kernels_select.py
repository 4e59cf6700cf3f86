"""Which action a node tries next: PUCT with values rescaled to 0–1, and the rules of Gumbel MuZero at the root and below it.

Floats are float32 where mctx 0.0.71 has them, and operations come in its order, so that visits are equal tree by tree. Ties go to the
lowest index (mctx's PUCT adds noise of 1e-7 instead). No fastmath, nothing parallel, no random numbers.

Source: Schrittwieser et al. (2020), "Mastering Atari, Go, chess and shogi by planning with a learned model", appendix B (PUCT, min-max);
Danihelka et al. (2022), "Policy improvement by planning with Gumbel", section 5 and appendix D; mctx `action_selection.py`,
`qtransforms.py`, `seq_halving.py`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cryptoalpha.learn.search.tree import COUNT, LOGIT, MEAN, PRIOR, RAW, VALUE, VISITS

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
    that a root action must have to be considered, by simulation; kept `[B, A]` visits that the roots brought along; completed and scaled
    `[A]` are scratch.
    """

    gumbel: bool
    depth_limit: int
    reduction: np.float32
    growth: NDArray[np.float32]
    noise: NDArray[np.float32]
    schedule: NDArray[np.int32]
    kept: NDArray[np.int32]
    completed: NDArray[np.float32]
    scaled: NDArray[np.float32]


@njit(cache=True, nogil=True)
def pick_puct(t: Any, b: int, node: int, actions: int, c: Any) -> int:
    """argmax of Q rescaled to 0–1 + growth[visits]·P/(N + 1), over the legal actions.

    Q is rescaled between the least and the largest of the node's mean value and the values of visited actions; an unvisited action
    counts as 0, or with a `reduction` r ≥ 0 as max(0, rescaled mean − r).
    """
    ints, floats = t.edges[b, node], t.edge_floats[b, node]
    mean = t.numbers[b, node, MEAN]
    low, high = mean, mean
    for a in range(actions):
        if ints[COUNT, a] > 0:
            q = floats[VALUE, a]
            low = min(low, q)
            high = max(high, q)
    span = max(high - low, EPSILON)
    fresh = ZERO if c.reduction < ZERO else max(ZERO, (mean - low) / span - c.reduction)
    weight = c.growth[t.links[b, node, VISITS]]
    best, choice = NEVER, -1
    for a in range(actions):
        prior = floats[PRIOR, a]
        if prior < ZERO:
            continue
        visits = ints[COUNT, a]
        score = (floats[VALUE, a] - low) / span if visits > 0 else fresh
        score += weight * prior / (np.float32(visits) + ONE)
        if score > best:
            best, choice = score, a
    return choice


@njit(cache=True, nogil=True)
def complete(t: Any, b: int, node: int, actions: int, completed: Any, scaled: Any) -> int:
    """Write Q̂, the values of visited actions and the mixed value for the others, and σ(Q̂) = .1·(50 + max N)·Q̂ rescaled to 0–1.

    The mixed value is [v + ΣN·(Σ P·Q / Σ P over visited)] / (1 + ΣN). Illegal actions are completed too, as in mctx. Returns ΣN.
    """
    ints, floats = t.edges[b, node], t.edge_floats[b, node]
    total, most, mass = 0, 0, ZERO
    for a in range(actions):
        visits = ints[COUNT, a]
        if visits > 0:
            total += visits
            most = max(most, visits)
            mass += max(TINY, floats[PRIOR, a])
    mixed = ZERO
    for a in range(actions):
        if ints[COUNT, a] > 0:
            mixed += max(TINY, floats[PRIOR, a]) * floats[VALUE, a] / mass
    mixed = (t.numbers[b, node, RAW] + np.float32(total) * mixed) / (np.float32(total) + ONE)
    low, high = np.float32(np.inf), NEVER
    for a in range(actions):
        q = floats[VALUE, a] if ints[COUNT, a] > 0 else mixed
        completed[a] = q
        low = min(low, q)
        high = max(high, q)
    span = max(high - low, EPSILON)
    scale = (VISITS_AT_FIRST + np.float32(most)) * VALUE_SCALE
    for a in range(actions):
        scaled[a] = scale * ((completed[a] - low) / span)
    return total


@njit(cache=True, nogil=True)
def pick_inner(t: Any, b: int, node: int, actions: int, c: Any) -> int:
    """argmax of softmax(logits + σ(Q̂)) − N/(1 + ΣN): visits that approach the improved policy without randomness."""
    visits = np.float32(complete(t, b, node, actions, c.completed, c.scaled)) + ONE
    ints, floats = t.edges[b, node], t.edge_floats[b, node]
    largest = NEVER
    for a in range(actions):
        c.scaled[a] += floats[LOGIT, a]
        largest = max(largest, c.scaled[a])
    total = ZERO
    for a in range(actions):
        c.scaled[a] = np.exp(c.scaled[a] - largest)
        total += c.scaled[a]
    best, choice = NEVER, -1
    for a in range(actions):
        if floats[PRIOR, a] >= ZERO:
            score = c.scaled[a] / total - np.float32(ints[COUNT, a]) / visits
            if score > best:
                best, choice = score, a
    return choice


@njit(cache=True, nogil=True)
def pick_considered(t: Any, b: int, actions: int, c: Any, considered: int) -> int:
    """argmax of Gumbel noise + logits + σ(Q̂) among the root's actions with `considered` visits in this plan."""
    complete(t, b, 0, actions, c.completed, c.scaled)
    ints, floats = t.edges[b, 0], t.edge_floats[b, 0]
    largest = NEVER
    for a in range(actions):
        largest = max(largest, floats[LOGIT, a])
    best, choice = NEVER, -1
    for a in range(actions):
        if floats[PRIOR, a] >= ZERO and ints[COUNT, a] - c.kept[b, a] == considered:
            score = max(LEAST_SCORE, c.noise[b, a] + (floats[LOGIT, a] - largest) + c.scaled[a])
            if score > best:
                best, choice = score, a
    return choice


@njit(cache=True, nogil=True)
def pick(t: Any, b: int, node: int, actions: int, c: Any) -> int:
    """The action that node tries next."""
    if not c.gumbel:
        return pick_puct(t, b, node, actions, c)
    if node > 0:
        return pick_inner(t, b, node, actions, c)
    simulation = 0
    for a in range(actions):
        simulation += t.edges[b, 0, COUNT, a] - c.kept[b, a]
    return pick_considered(t, b, actions, c, c.schedule[b, simulation])


@njit(cache=True, nogil=True)
def finish(t: Any, c: Any, actions: int, completed: Any, scaled: Any, chosen: Any) -> None:
    """Q̂ and σ(Q̂) of every root `[B, A]`; for a Gumbel root also the best action among those visited most in this plan `[B]`."""
    for b in range(completed.shape[0]):
        most = 0
        for a in range(actions):
            most = max(most, t.edges[b, 0, COUNT, a] - c.kept[b, a])
        if c.gumbel:
            chosen[b] = pick_considered(t, b, actions, c, most)
        else:
            complete(t, b, 0, actions, c.completed, c.scaled)
        completed[b] = c.completed
        scaled[b] = c.scaled
