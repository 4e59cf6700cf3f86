"""The as-of view: what was known, when. The only way rows of different clocks are joined.

A row counts at time t if its `known_at` ≤ t; event time plays no part. Where several rows share a `known_at`, the last one counts.
DuckDB's `ASOF JOIN` on `known_at` is the oracle in the tests.
"""

from __future__ import annotations

import numpy as np

from cryptoalpha.core.errors import DataError
from cryptoalpha.store.tables import Floats, Times


def as_of_index(known_at: Times, at: Times) -> Times:
    """For each moment the place of the newest row known by then, −1 where none was.

    Shapes: `known_at` `[n]` ascending, `at` `[m]` in any order → `[m]`.

    Raises:
        DataError: if `known_at` is not ascending.
    """
    if known_at.size > 1 and not bool(np.all(known_at[1:] >= known_at[:-1])):
        raise DataError("as-of join on rows that are not in the order they became known", hint="sort by known_at")
    return np.searchsorted(known_at, at, side="right").astype(np.int64) - 1


def as_of_value(known_at: Times, value: Floats, at: Times, *, max_age: int | None = None) -> Floats:
    """The newest value known at each moment; NaN where none was, or where the newest became known more than `max_age` ns before.

    Shapes: `known_at`, `value` `[n]`, `at` `[m]` → `[m]`.
    """
    index = as_of_index(known_at, at)
    if value.size == 0:
        return np.full(at.shape, np.nan)
    joined = np.where(index >= 0, value[np.maximum(index, 0)], np.nan)
    if max_age is not None:
        age = at - known_at[np.maximum(index, 0)]
        joined = np.where((index >= 0) & (age <= max_age), joined, np.nan)
    return joined
