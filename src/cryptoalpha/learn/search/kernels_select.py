"""Which action a node tries next: PUCT with values rescaled to 0–1, and the rule of Gumbel MuZero.

Floats are float32 where mctx 0.0.71 has them, and operations come in its order, so that visits are equal tree by tree. Ties go to the
lowest index (mctx adds noise of 1e-7 instead). No fastmath, nothing parallel, no random numbers.

Source: Schrittwieser et al. (2020), "Mastering Atari, Go, chess and shogi by planning with a learned model", appendix B (PUCT, min-max);
Danihelka et al. (2022), "Policy improvement by planning with Gumbel", section 5 and appendix D; mctx `action_selection.py`,
`qtransforms.py`, `seq_halving.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from cryptoalpha.learn.search.tree import COUNT, MEAN, PRIOR, VALUE, VISITS

ZERO, ONE = np.float32(0.0), np.float32(1.0)
EPSILON = np.float32(1e-8)
NEVER = np.float32(-np.inf)


@njit(cache=True, nogil=True)
def pick_puct(t: Any, b: int, node: int, actions: int, growth: Any, reduction: Any) -> int:
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
    fresh = ZERO if reduction < ZERO else max(ZERO, (mean - low) / span - reduction)
    weight = growth[t.links[b, node, VISITS]]
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
