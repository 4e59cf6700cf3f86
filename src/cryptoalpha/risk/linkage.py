"""Agglomerative clustering: which groups are joined in which order, from distances.

Ties are joined in the order of their lowest members, so the tree depends on nothing but the distances. Two ways to build it: single
linkage is the minimum spanning tree, by Prim's algorithm in `A²` steps; Ward's joins the pair that adds least variance, distances updated
after each join.

Sources: Lance & Williams (1967); Gower & Ross (1969). The order of rows and children is SciPy's, whose `linkage` is the oracle.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.risk.matrices import Floats

LinkageName = Literal["single", "ward"]
Merges = list[tuple[int, int]]
"""Pairs of clusters joined, in order: 0 … A − 1 are the assets, A + k is what join k made; the lower number comes first."""


def merges(distance: Floats, linkage: LinkageName = "single") -> Merges:
    """The A − 1 joins of `distance [A, A]`, nearest first.

    Raises:
        ConfigError: for a linkage that is not known.
    """
    if linkage == "single":
        return _single(distance)
    if linkage == "ward":
        return _ward(distance)
    raise ConfigError(f"no linkage is called {linkage!r}", hint="known: single, ward")


def leaf_order(joins: Merges) -> list[int]:
    """Assets as they stand below the tree, from left to right."""
    n = len(joins) + 1
    order: list[int] = []
    waiting = [2 * n - 2]
    while waiting:
        node = waiting.pop()
        if node < n:
            order.append(node)
        else:
            left, right = joins[node - n]
            waiting += [right, left]
    return order


def _single(distance: Floats) -> Merges:
    n = len(distance)
    edges: list[tuple[float, int, int]] = []
    nearest = np.full(n, np.inf)
    outside = np.ones(n, dtype=np.bool_)
    here = 0
    for _ in range(n - 1):
        outside[here] = False
        nearest = np.minimum(nearest, distance[here])
        there = int(np.argmin(np.where(outside, nearest, np.inf)))
        edges.append((float(nearest[there]), here, there))
        here = there
    # An edge joins whatever cluster was reached so far; any member of it will do, so the one reached last stands for it.
    edges.sort(key=lambda edge: edge[0])  # stable: ties stay in the order in which they were found
    cluster, joins = list(range(n)), []
    top = list(range(n))

    def root(i: int) -> int:
        while cluster[i] != i:
            cluster[i] = cluster[cluster[i]]
            i = cluster[i]
        return i

    for number, (_, i, j) in enumerate(edges):
        a, b = root(i), root(j)
        joins.append((min(top[a], top[b]), max(top[a], top[b])))
        cluster[b] = a
        top[a] = n + number
    return joins


def _ward(distance: Floats) -> Merges:
    n = len(distance)
    squares = np.array(distance, dtype=np.float64) ** 2
    np.fill_diagonal(squares, np.inf)
    size: NDArray[np.float64] = np.ones(n)
    top = list(range(n))
    joins: Merges = []
    for number in range(n - 1):
        i, j = divmod(int(np.argmin(squares)), n)
        joins.append((min(top[i], top[j]), max(top[i], top[j])))
        both = size[i] + size[j] + size
        with np.errstate(invalid="ignore"):  # clusters that are gone lie infinitely far away
            row = ((size[i] + size) * squares[i] + (size[j] + size) * squares[j] - size * squares[i, j]) / both
        row[[i, j]] = np.inf
        squares[i], squares[:, i] = row, row
        squares[j], squares[:, j] = np.inf, np.inf
        size[i] += size[j]
        top[i] = n + number
    return joins
