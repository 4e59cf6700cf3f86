"""Many tests at once: which of them to believe, so that at most a stated share of those believed is chance.

With nothing wrong anywhere, the chance of believing even one is at most that share: which is why looks `rate × run length` apart have that
run length.

Source: Benjamini & Hochberg (1995); holds for independent tests and for those that depend positively.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from cryptoalpha.core.errors import DataError
from cryptoalpha.monitoring.daily import Floats


def adjusted_p_values(p_values: ArrayLike) -> Floats:
    """The rate at which each test would be the last one believed, `[k]` → `[k]`.

    Raises:
        DataError: for values outside 0–1 or NaN.
    """
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not bool(np.all((p >= 0.0) & (p <= 1.0))):
        raise DataError("p-values must be one series between 0 and 1 without NaN")
    order = np.argsort(p, kind="stable")
    scaled = p[order] * p.size / np.arange(1, p.size + 1)
    found = np.empty_like(p)
    found[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return found
