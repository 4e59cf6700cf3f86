"""Whether a frame goes on where the last one ended: live, each bar adds one row to thousands that stay as they were.

What a source computed of a bar it may keep for the next frame only if that frame shows the very same past. This is where that is checked,
once for all sources: every byte of the bars both frames hold, every reading and text known by the end of the earlier one. A bar that was
corrected or a text that came late begins another history, and whoever kept something must forget it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from cryptoalpha.store.panel import FIELDS, Panel
from cryptoalpha.store.tables import Dataset, PostTable, ReadingTable

Table = ReadingTable | PostTable

_BARS = ("open_time", "known_at", "present", *FIELDS)
_READING, _POST = ("known_at", "happened_at", "value"), ("known_at", "happened_at", "text", "weight")


class History:
    """Frames one after the other."""

    def __init__(self) -> None:
        self._last: tuple[Panel, Dataset] | None = None
        self._mark = object()

    def mark(self, panel: Panel, dataset: Dataset) -> object:
        """The mark of the history that this frame belongs to: that of the frame before if this one goes on from it, else a new one."""
        if self._last is None or not _goes_on(*self._last, panel, dataset):
            self._mark = object()
        self._last = panel, dataset
        return self._mark


def _goes_on(old: Panel, old_data: Dataset, new: Panel, new_data: Dataset) -> bool:
    """Whether the new frame begins and ends no earlier, and shows what the old one showed."""
    if (old.instruments, old.interval, old_data.rules) != (new.instruments, new.interval, new_data.rules):
        return False
    shift = int(new.open_time[0] - old.open_time[0]) // old.interval
    both = len(old) - shift
    if shift < 0 or not 0 < both <= len(new):
        return False
    bars = ((getattr(old, name)[shift:], getattr(new, name)[:both]) for name in _BARS)
    known = int(old.known_at[-1])
    return (
        all(_same(one, other) for one, other in bars)
        and _same_tables(old_data.readings, new_data.readings, _READING, known)
        and _same_tables(old_data.posts, new_data.posts, _POST, known)
    )


def _same_tables(
    old: Mapping[Any, ReadingTable | PostTable], new: Mapping[Any, ReadingTable | PostTable], columns: tuple[str, ...], known: int
) -> bool:
    """Whether all that was known at that moment is the same in both."""
    for key in old.keys() | new.keys():
        one, other = old.get(key), new.get(key)
        if one is other:
            continue  # tables never change
        ends = [0 if table is None else int(np.searchsorted(table.known_at, known, side="right")) for table in (one, other)]
        if ends[0] != ends[1]:
            return False
        if ends[0] and not all(_same(getattr(one, name)[: ends[0]], getattr(other, name)[: ends[0]]) for name in columns):
            return False
    return True


def _same(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> bool:
    """Equal to the last bit; a NaN equals itself."""
    if one.dtype.kind == "f":
        one, other = one.view(np.int64), other.view(np.int64)
    return bool(np.array_equal(one, other))
