"""Gumbel root: sequential halving over the actions that noise and prior put first, and what follows from it.

Source: Danihelka et al. (2022), "Policy improvement by planning with Gumbel", ICLR, algorithm 1 and 2; Karnin et al. (2013), "Almost
optimal exploration in multi-armed bandits" (sequential halving); mctx `seq_halving.py`, `policies.py`.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


@lru_cache(maxsize=256)
def considered_visits(considered: int, simulations: int) -> tuple[int, ...]:
    """By simulation, how many visits an action must have to be considered: every pass visits each of the k best once more; after
    max(1, ⌊n/(⌈log2 m⌉·k)⌋) passes the better half stays, two at least."""
    if considered <= 1:
        return tuple(range(simulations))
    rounds = math.ceil(math.log2(considered))
    visits, sequence, k = [0] * considered, list[int](), considered
    while len(sequence) < simulations:
        for _ in range(max(1, simulations // (rounds * k))):
            sequence.extend(visits[:k])
            for i in range(k):
                visits[i] += 1
        k = max(2, k // 2)
    return tuple(sequence[:simulations])


def schedule(legal: NDArray[np.bool_], considered: int, simulations: NDArray[np.int64]) -> NDArray[np.int32]:
    """`considered_visits` of each root, `[B, S]`, for its legal actions `[B, A]` and its simulations `[B]`."""
    table = np.zeros((legal.shape[0], max(1, int(simulations.max()))), np.int32)
    for row, (count, n) in enumerate(zip(legal.sum(axis=1).tolist(), simulations.tolist(), strict=True)):
        table[row, :n] = considered_visits(min(considered, count), n)
    return table
