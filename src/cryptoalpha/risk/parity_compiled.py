"""`parity.descend`, compiled. A file of its own because loading the compiler takes a second that small books need not pay."""

from __future__ import annotations

from numba import njit

from cryptoalpha.risk.parity import descend

descend_compiled = njit(cache=True)(descend)
