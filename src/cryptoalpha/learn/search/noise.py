"""All the chance of a tree search, drawn from the run's seed and the name of the root, so that a root is planned alike in any batch.

Roots with names may stand in any row; without names a root is called by its row number. Roots of one name share their noise.

Source: Silver et al. (2017), "Mastering the game of Go without human knowledge" (Dirichlet noise at the root, temperature); Danihelka
et al. (2022) (Gumbel noise).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cryptoalpha.core.seeds import stream
from cryptoalpha.learn.search.contract import Roots, Rules
from cryptoalpha.learn.search.kernels_select import promote
from cryptoalpha.learn.search.tree import CODE, LEGAL, PRIOR, Trees


def _name(roots: Roots, row: int) -> str | int:
    return roots.names[row] if roots.names else row


def root_keys(seed: int, roots: Roots, count: int) -> NDArray[np.uint64]:
    """The key from which all outcomes of a tree follow, `[B]`."""
    rows = range(count)
    return np.array([stream(seed, "search", "chance", _name(roots, row)).integers(2**64, dtype=np.uint64) for row in rows], np.uint64)


def gumbel_noise(seed: int, roots: Roots, rules: Rules, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Gumbel(0, 1)·scale for every root and action, `[B, A]`."""
    noise = np.zeros(shape, np.float32)
    if rules.root == "gumbel" and rules.gumbel_scale > 0:
        for row in range(shape[0]):
            noise[row] = rules.gumbel_scale * stream(seed, "search", "gumbel", _name(roots, row)).gumbel(size=shape[1])
    return noise


def mix_dirichlet(seed: int, roots: Roots, rules: Rules, trees: Trees) -> None:
    """Mix Dirichlet noise into the priors of PUCT roots, over their legal actions."""
    if rules.root != "puct" or rules.dirichlet_fraction <= 0:
        return
    t = trees.arrays
    for row, legal in enumerate(t.nodes[:, 0, LEGAL].tolist()):
        noise = stream(seed, "search", "dirichlet", _name(roots, row)).dirichlet(np.full(legal, rules.dirichlet_alpha))
        prior, code = t.edge_floats[row, 0, :legal, PRIOR], t.edges[row, 0, :legal, CODE]
        prior *= 1.0 - rules.dirichlet_fraction
        prior += rules.dirichlet_fraction * noise[np.argsort(np.argsort(code))]  # the k-th number goes to the k-th legal action
        promote(t.nodes, t.node_floats, t.edges, t.edge_floats, row, 0)


def play_by_visits(seed: int, roots: Roots, rules: Rules, visits: NDArray[np.int64], q: NDArray[np.float64]) -> NDArray[np.int64]:
    """Actions of PUCT roots `[B]`: drawn ∝ visits^(1/temperature); at temperature 0 the most visited one, of equals the one of higher Q.

    The most visited, not the highest lower confidence bound: the bound needs the spread of an edge's values, which the arrays do not hold.
    """
    if rules.temperature <= 0:
        best: NDArray[np.int64] = np.where(visits == visits.max(axis=1, keepdims=True), q, -np.inf).argmax(axis=1)
        return best
    powers = np.where(visits > 0, (visits / visits.max(axis=1, keepdims=True)) ** (1.0 / rules.temperature), 0.0)  # 0⁰ = 1
    shares = np.cumsum(powers, axis=1) / powers.sum(axis=1, keepdims=True)
    draws = np.array([stream(seed, "search", "temperature", _name(roots, row)).random() for row in range(len(visits))])
    last = np.array([np.flatnonzero(row)[-1] for row in visits])
    drawn: NDArray[np.int64] = np.minimum((draws[:, None] >= shares).sum(axis=1), last)
    return drawn
