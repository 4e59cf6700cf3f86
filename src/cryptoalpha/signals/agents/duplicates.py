"""Repeats among the texts of the last days, found in fixed memory and in microseconds.

The newest `remembered` texts lie in a ring, each with the hashes of its shingles; a table of chains per band leads from a key to the texts
that have it. A new text is compared exactly with the newest of every chain it belongs to, a few links deep.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from cryptoalpha.signals.agents.shingles import BANDS, MOST, Hashes, band_keys, jaccard, seeds, shingle_hashes
from cryptoalpha.store.tables import Times

LINKS = 8
"""Texts looked at per chain."""

Places = npt.NDArray[np.int64]


class NearDuplicates:
    """The texts that were let through, and whether a new one repeats one of them.

    Args:
        likeness: Jaccard likeness (0–1) from which a text is a repeat; above 1 nothing is.
        remembered: texts kept.
        window: ns after which a text is forgotten.
    """

    def __init__(self, *, likeness: float, remembered: int, window: int) -> None:
        self._likeness, self._window = likeness, window
        buckets = 1 << max(4, (2 * remembered - 1).bit_length())
        self._hashes = np.zeros((remembered, MOST), np.uint64)
        self._counts = np.zeros(remembered, np.int64)
        self._times: Times = np.full(remembered, np.iinfo(np.int64).min, np.int64)
        self._heads = np.full((BANDS, buckets), -1, np.int64)
        self._before = np.full((remembered, BANDS), -1, np.int64)
        self._seeds, self._keys, self._row = seeds(), np.zeros(BANDS, np.uint64), np.zeros(MOST, np.uint64)
        self._length = 0
        self._added = 0

    def __len__(self) -> int:
        return min(self._added, len(self._counts))

    @property
    def nbytes(self) -> int:
        """Memory held; it never grows."""
        return sum(array.nbytes for array in (self._hashes, self._counts, self._times, self._heads, self._before))

    def is_repeat(self, text: str, known_at: int) -> bool:
        """Whether a text let through within the window before `known_at` says the same. `add` it if it is let through."""
        self._length = shingle_hashes(text, self._row)
        if not self._length:
            return False
        band_keys(self._row, self._length, self._seeds, self._keys)
        return bool(
            _find(
                self._row, self._length, self._keys, self._hashes, self._counts, self._times, self._heads, self._before,
                self._added, known_at - self._window, self._likeness,
            )
        )  # fmt: skip

    def add(self, known_at: int) -> None:
        """Remember the text that was asked about last."""
        if self._length:
            _add(
                self._row, self._length, self._keys, self._hashes, self._counts, self._times, self._heads, self._before,
                self._added, known_at,
            )  # fmt: skip
            self._added += 1


@njit(cache=True)
def _find(
    row: Hashes, length: int, keys: Hashes, hashes: Hashes, counts: Places, times: Times, heads: Places, before: Places,
    added: int, opens: int, likeness: float,
) -> bool:  # fmt: skip
    """Whether a remembered text known after `opens` is as like as that. Numbers of texts rise for ever; the ring holds the newest."""
    size = counts.size
    for band in range(BANDS):
        number = heads[band, keys[band] % np.uint64(heads.shape[1])]
        for _ in range(LINKS):
            if number < 0 or number < added - size:
                break  # forgotten, and so is whatever it leads to
            place = number % size
            if times[place] > opens and jaccard(row, length, hashes[place], counts[place]) >= likeness:
                return True
            number = before[place, band]
    return False


@njit(cache=True)
def _add(
    row: Hashes, length: int, keys: Hashes, hashes: Hashes, counts: Places, times: Times, heads: Places, before: Places,
    added: int, known_at: int,
) -> None:  # fmt: skip
    place = added % counts.size
    for i in range(length):
        hashes[place, i] = row[i]
    counts[place], times[place] = length, known_at
    for band in range(BANDS):
        bucket = keys[band] % np.uint64(heads.shape[1])
        before[place, band] = heads[band, bucket]
        heads[band, bucket] = added
