"""Folds in time: walk-forward, which only ever learns from the past, and purged k-fold, which uses every sample on both sides.

Everything is deterministic: there is nothing to shuffle in time.

Source: López de Prado (2018), chapters 7 (purged k-fold) and 11–12 (walk-forward and what it cannot tell).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.learn.splits.labels import Split, earlier, labels, not_empty, span


def walk_forward(
    known_at: ArrayLike,
    label_ends_at: ArrayLike,
    *,
    folds: int,
    first_train_share: float | None = None,
    window_ns: int | None = None,
    embargo_ns: int = 0,
) -> Iterator[Split]:
    """Learn from the past, judge on the block that follows, move on.

    Args:
        known_at, label_ends_at: `[n]` UTC nanoseconds, in any order.
        folds: number of test blocks, of equally many moments each.
        first_train_share: share of all moments that lie before the first test block; 1 / (folds + 1) without it.
        window_ns: how far back training reaches from the start of its test block (rolling); without it, to the beginning (expanding).
        embargo_ns: what must lie between the end of a training label and the start of the test block, beside it being before.

    Raises:
        ConfigError: for arguments out of range, or a fold without samples to learn from.
    """
    samples = labels(known_at, label_ends_at)
    moments = np.unique(samples.known_at)
    share = 1.0 / (folds + 1) if folds > 0 and first_train_share is None else first_train_share
    if folds < 1 or share is None or not 0.0 < share < 1.0:
        raise ConfigError(f"walk-forward with {folds} folds and a first share of {share}, expected folds ≥ 1 and a share between 0 and 1")
    embargo = span("embargo_ns", embargo_ns)
    window = None if window_ns is None else span("window_ns", window_ns, least=1)
    first = round(len(moments) * share)
    if first < 1 or len(moments) - first < folds:
        raise ConfigError(f"{len(moments)} moments are too few for {folds} folds after a first share of {share:.3f}")
    parts = np.array_split(moments[first:], folds)
    splits = []
    for number, part in enumerate(parts):
        start = part[0]
        train = samples.ends_at < earlier(start, embargo)  # then known_at lies before it too
        if window is not None:
            train &= samples.known_at >= earlier(start, window)
        test = (samples.known_at >= start) & (samples.known_at <= part[-1])
        splits.append(not_empty(Split(np.flatnonzero(train), np.flatnonzero(test)), f"walk-forward fold {number + 1} of {folds}"))
    return iter(splits)


def purged_kfold(known_at: ArrayLike, label_ends_at: ArrayLike, *, folds: int, embargo_ns: int = 0) -> Iterator[Split]:
    """Each of `folds` blocks in time is the test once; training is the rest, without what touches a test label and without what begins
    within `embargo_ns` after one ends.

    Raises:
        ConfigError: for arguments out of range, or a fold without samples to learn from.
    """
    if folds < 2:
        raise ConfigError(f"purged k-fold with {folds} folds, expected 2 or more")
    samples = labels(known_at, label_ends_at)
    block = samples.blocks(folds)
    embargo = span("embargo_ns", embargo_ns)
    splits = []
    for number in range(folds):
        test = block == number
        train = ~test & ~samples.touching(test, after=embargo)
        splits.append(not_empty(Split(np.flatnonzero(train), np.flatnonzero(test)), f"fold {number + 1} of {folds}"))
    return iter(splits)
