"""Marks of an equity curve at increasing times."""

from __future__ import annotations

import numpy as np

from cryptoalpha.store.tables import Floats, Times


def newest_marks(times: Times, equity: Floats) -> tuple[Times, Floats]:
    """Marks at increasing times: of rows that became known together, after a bar that came late, only the newest counts. `[T]` each."""
    newest = np.append(np.diff(times) > 0, True) if len(times) else np.zeros(0, bool)
    return times[newest], equity[newest]
