"""Combinatorial purged cross-validation: many backtests of the same history instead of one.

The samples are cut into N blocks in time; every choice of k of them is a test once, so there are C(N, k) splits, and their tests can be
joined to φ = k/N · C(N, k) paths, each of which passes every sample exactly once. What is judged is the distribution over the paths.

Source: López de Prado (2018), "Advances in Financial Machine Learning", chapter 12.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.learn.splits.labels import Labels, Split, labels, not_empty, span


@dataclass(frozen=True)
class CombinatorialSplit(Split):
    """A split and the blocks that it tests: `blocks` (k numbers, ascending), `block_of_test` `[len(test)]`."""

    blocks: tuple[int, ...]
    block_of_test: NDArray[np.int64]


def split_count(blocks: int, tested: int) -> int:
    """C(N, k)."""
    return comb(blocks, tested)


def path_count(blocks: int, tested: int) -> int:
    """φ = k/N · C(N, k) = C(N − 1, k − 1)."""
    return comb(blocks - 1, tested - 1)


def combinatorial_purged_cv(
    known_at: ArrayLike, label_ends_at: ArrayLike, *, blocks: int, tested: int, embargo_ns: int = 0
) -> Iterator[CombinatorialSplit]:
    """Every choice of `tested` of `blocks` blocks as the test, in lexicographic order; training is the rest, purged and with an embargo
    after each test block.

    One split is made at a time: there may be many.

    Raises:
        ConfigError: for arguments out of range; while iterating, for a split without samples to learn from.
    """
    _check(blocks, tested)
    samples = labels(known_at, label_ends_at)
    return _splits(samples, samples.blocks(blocks), blocks, tested, span("embargo_ns", embargo_ns))


def _splits(samples: Labels, block: NDArray[np.int64], blocks: int, tested: int, embargo: int) -> Iterator[CombinatorialSplit]:
    # What a split must drop is the union of what each of its test blocks drops.
    touched = np.stack([samples.touching(block == number, after=embargo) for number in range(blocks)])
    for chosen in combinations(range(blocks), tested):
        in_test = np.isin(block, chosen)
        train = np.flatnonzero(~in_test & ~touched[list(chosen)].any(axis=0))
        test = np.flatnonzero(in_test)
        yield _checked(CombinatorialSplit(train, test, chosen, block[test]))


def _checked(split: CombinatorialSplit) -> CombinatorialSplit:
    not_empty(split, f"the split that tests blocks {split.blocks}")
    return split


def backtest_paths(blocks: int, tested: int) -> NDArray[np.int64]:
    """`[φ, N]`: the number of the split whose test speaks for each block on each path. The j-th split that tests a block is on path j."""
    _check(blocks, tested)
    number = [[split for split, chosen in enumerate(combinations(range(blocks), tested)) if block in chosen] for block in range(blocks)]
    return np.array(number, np.int64).T


def along_path(path: ArrayLike, splits: Sequence[CombinatorialSplit], outputs: Sequence[ArrayLike]) -> NDArray[Any]:
    """What the models said along one path, in the order of the samples `[n, …]`.

    Args:
        path: one row of `backtest_paths`.
        splits: all of them, in order.
        outputs: per split, what its model said about its test samples, `[len(test), …]`.

    Raises:
        ConfigError: if an output has another length than its test.
    """
    numbers = np.asarray(path)
    size = 1 + max(int(split.test.max()) for split in splits)
    joined: NDArray[Any] | None = None
    for block, number in enumerate(numbers):
        split, said = splits[number], np.asarray(outputs[number])
        if said.shape[:1] != split.test.shape:
            raise ConfigError(f"split {number} has {len(split.test)} test samples, but its output has shape {said.shape}")
        here = split.block_of_test == block
        if joined is None:
            joined = np.empty((size, *said.shape[1:]), said.dtype)
        joined[split.test[here]] = said[here]
    assert joined is not None  # a path has at least two blocks
    return joined


def _check(blocks: int, tested: int) -> None:
    if not 1 <= tested < blocks:
        raise ConfigError(f"{tested} of {blocks} blocks cannot be tested, expected at least 1 and at most {blocks - 1}")
