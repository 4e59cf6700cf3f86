"""Many small matrices times their vectors, on what a trunk keeps of the columns it has read (`by_column`).

A library's batched product spends half a microsecond on each matrix, and there are a thousand of sixty-four by eight per step. Sums run in
the order that the compiler's vectors give, which depends on their length alone: equal shapes give equal bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

Floats32 = npt.NDArray[np.float32]


@njit(cache=True)
def scores(keys: Floats32, queries: Floats32, length: int) -> Any:
    """Σ_d keys[b, i, h, d, k] · queries[b, i, h, d] for k below `length`. `[B, N, H, D, N]`, `[B, n, H, D]` → `[B, n, H, length]`."""
    batch, count, heads, width = queries.shape
    out = np.zeros((batch, count, heads, length), np.float32)
    for b in range(batch):
        for i in range(count):
            for h in range(heads):
                for d in range(width):
                    q = queries[b, i, h, d]
                    for k in range(length):
                        out[b, i, h, k] += keys[b, i, h, d, k] * q
    return out


@njit(cache=True, fastmath={"reassoc", "contract"})
def mixed(values: Floats32, weights: Floats32) -> Any:
    """Σ_k values[b, i, h, d, k] · weights[b, i, h, k]. `[B, N, H, D, N]`, `[B, n, H, length]` → `[B, n, H, D]`."""
    batch, count, heads, length = weights.shape
    width = values.shape[3]
    out = np.empty((batch, count, heads, width), np.float32)
    for b in range(batch):
        for i in range(count):
            for h in range(heads):
                for d in range(width):
                    total = np.float32(0.0)
                    for k in range(length):
                        total += values[b, i, h, d, k] * weights[b, i, h, k]
                    out[b, i, h, d] = total
    return out


@njit(cache=True, fastmath={"reassoc", "contract"})
def products(factors: Floats32, other: Floats32, count: int) -> Any:
    """Σ_k factors[b, z, i, k] · other[b, z, k] for i below `count`. `[B, Z, N, N]`, `[B, Z, length]` → `[B, Z, count]`."""
    batch, width, length = other.shape
    out = np.empty((batch, width, count), np.float32)
    for b in range(batch):
        for z in range(width):
            for i in range(count):
                total = np.float32(0.0)
                for k in range(length):
                    total += factors[b, z, i, k] * other[b, z, k]
                out[b, z, i] = total
    return out
