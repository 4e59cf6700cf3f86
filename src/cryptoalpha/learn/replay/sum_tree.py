"""Draws in proportion to weights that change: logarithmic time for both, no drift.

Inner nodes are always the sum of their two children, never adjusted by differences, so a restored tree equals the old one bit for bit.

Source: Schaul et al. (2016), "Prioritized Experience Replay", appendix B.2.1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class SumTree:
    """Weights ≥ 0 of `capacity` slots, all 0 at first.

    Args:
        capacity: number of slots.
    """

    def __init__(self, capacity: int) -> None:
        self._leaves = leaves(capacity)
        self._nodes = np.zeros(2 * self._leaves)  # node 1 is the root; the children of i are 2i and 2i + 1

    @property
    def total(self) -> float:
        return float(self._nodes[1])

    def get(self, slots: NDArray[np.int64]) -> NDArray[np.float64]:
        return self._nodes[self._leaves + slots]

    def set(self, slots: NDArray[np.int64], weights: NDArray[np.float64]) -> None:
        """Give `slots` `[n]` these weights `[n]`; of a slot named twice the last weight counts."""
        nodes = self._leaves + slots
        self._nodes[nodes] = weights
        while len(nodes) and nodes[0] > 1:  # all lie on one level
            nodes = np.unique(nodes >> 1)
            self._nodes[nodes] = self._nodes[2 * nodes] + self._nodes[2 * nodes + 1]

    def find(self, points: NDArray[np.float64]) -> NDArray[np.int64]:
        """The slots under `points` `[n]` in [0, total): the first whose cumulative weight exceeds the point. Never one of weight 0."""
        nodes, rest = np.ones(len(points), np.int64), points.copy()
        for _ in range(self._leaves.bit_length() - 1):
            left = self._nodes[2 * nodes]
            # Rounding may leave a remainder where nothing is left to the right; such a point belongs to the last slot that has weight.
            right = (rest >= left) & (self._nodes[2 * nodes + 1] > 0.0)
            rest = np.where(right, rest - left, rest)
            nodes = 2 * nodes + right
        return nodes - self._leaves


def leaves(capacity: int) -> int:
    """The power of two of slots that a tree for `capacity` slots really has."""
    return 1 << max(0, capacity - 1).bit_length()


def tree_bytes(capacity: int) -> int:
    return 16 * leaves(capacity)
