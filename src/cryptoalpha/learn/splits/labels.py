"""From when to when a sample's label looks, and which samples may therefore not train beside which tests.

A sample made at `known_at` whose label is settled at `label_ends_at` shares information with every sample whose interval
[known_at, label_ends_at] touches its own: both have seen the same prices. Purging drops such samples from training; an embargo also drops
those that begin shortly after a test label ends, because features look back and markets remember.

Source: López de Prado (2018), "Advances in Financial Machine Learning", chapter 7, snippets 7.1–7.3. Departure: the embargo is a time,
not a share of the sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cryptoalpha.core.errors import ConfigError

Indices = NDArray[np.int64]

FIRST, LAST = int(np.iinfo(np.int64).min), int(np.iinfo(np.int64).max)
"""The first and the last moment there are; a label that ends at LAST is open for ever."""


@dataclass(frozen=True)
class Split:
    """Positions of the samples to learn from and of those to be judged on, ascending, in the caller's arrays."""

    train: Indices
    test: Indices


@dataclass(frozen=True)
class Labels:
    """When each sample was made and when its label is settled, UTC nanoseconds, both `[n]`, in any order (`labels` checks them)."""

    known_at: NDArray[np.int64]
    ends_at: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.known_at)

    def blocks(self, count: int) -> NDArray[np.int64]:
        """Number `[n]` of the block (0 … count − 1, in time) that each sample belongs to. Blocks have equally many moments; samples of one
        moment, such as several instruments at one bar, stay together.

        Raises:
            ConfigError: if there are fewer moments than blocks.
        """
        moments, moment_of = np.unique(self.known_at, return_inverse=True)
        if not 1 <= count <= len(moments):
            raise ConfigError(
                f"{len(moments)} moments cannot be cut into {count} blocks", hint="ask for fewer folds, or bring more samples"
            )
        sizes = [len(part) for part in np.array_split(moments, count)]
        return np.repeat(np.arange(count), sizes)[moment_of]

    def touching(self, test: NDArray[np.bool_], *, after: int = 0) -> NDArray[np.bool_]:
        """Which samples' intervals `[n]` touch that of any sample in `test` `[n]`, were the test intervals `after` ns longer."""
        # No further than the last moment there is: a label that is open for ever ends there, and a longer one would wrap to the past.
        starts, ends = self.known_at[test], np.minimum(self.ends_at[test], LAST - after) + after
        order = np.argsort(starts, kind="stable")
        starts, latest = starts[order], np.maximum.accumulate(ends[order])
        # Of the tests that start before this label ends, does the one that lasts longest reach this sample's beginning?
        begun = np.searchsorted(starts, self.ends_at, side="right")
        touched: NDArray[np.bool_] = (begun > 0) & (latest[np.maximum(begun, 1) - 1] >= self.known_at)
        return touched


def labels(known_at: ArrayLike, label_ends_at: ArrayLike) -> Labels:
    """Checked intervals.

    Raises:
        ConfigError: for arrays that are not whole numbers of one length ≥ 1, or a label that ends before its sample is made.
    """
    known, ends = _moments("known_at", known_at), _moments("label_ends_at", label_ends_at)
    if known.shape != ends.shape or not len(known):
        raise ConfigError(
            f"known_at {known.shape} and label_ends_at {ends.shape} differ in shape or are empty, expected one entry per sample"
        )
    if (ends < known).any():
        row = int(np.argmax(ends < known))
        raise ConfigError(
            f"sample {row} is made at {known[row]}, after its label ended at {ends[row]}", hint="swap the two, or mend the label"
        )
    return Labels(known, ends)


def not_empty(split: Split, name: str) -> Split:
    """The same split, if it has samples on both sides.

    Raises:
        ConfigError: if it has not; nothing could be learned or judged.
    """
    for side, indices in (("train", split.train), ("test", split.test)):
        if not len(indices):
            raise ConfigError(
                f"{name} has no {side} samples left after purge and embargo", hint="use fewer folds, a shorter embargo, or more samples"
            )
    return split


def span(name: str, nanoseconds: int, *, least: int = 0) -> int:
    """A length of time: a whole number of nanoseconds, `least` … 2⁶³ − 1.

    Raises:
        ConfigError: for anything else, NaN among it, which would switch off whatever it is compared with.
    """
    if isinstance(nanoseconds, bool) or not isinstance(nanoseconds, int | np.integer):
        raise ConfigError(f"{name} is {nanoseconds!r}, expected a whole number of nanoseconds")
    if not least <= nanoseconds <= LAST:
        raise ConfigError(f"{name} is {nanoseconds} ns, expected {least} to {LAST}")
    return int(nanoseconds)


def earlier(moment: int | np.int64, by: int) -> int:
    """The moment `by` ns before, no earlier than the first there is."""
    return max(FIRST, int(moment) - by)


def _moments(name: str, given: ArrayLike) -> NDArray[np.int64]:
    array: NDArray[Any] = np.asarray(given)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ConfigError(f"{name} is {array.dtype} of shape {array.shape}, expected whole nanoseconds [n]")
    if array.size and array.max() > LAST:
        raise ConfigError(f"{name} holds {array.max()}, which is after the last moment there is, {LAST}")
    return array.astype(np.int64)
