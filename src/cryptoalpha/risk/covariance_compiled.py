"""`covariance.absorb`, compiled; see `parity_compiled` for why it is a file of its own."""

from __future__ import annotations

from numba import njit

from cryptoalpha.risk.covariance import absorb

absorb_compiled = njit(cache=True)(absorb)
