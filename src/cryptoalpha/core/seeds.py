"""One seed for a run, and an independent random stream for every name in it.

A stream depends on the run's seed and on its name, never on how many numbers others drew: adding a component changes no other one.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """A NumPy generator (PCG64) for this seed and path of names; the same arguments always give the same numbers."""
    import numpy as np

    digest = hashlib.blake2b(repr((seed, *names)).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))
