"""The arithmetic of an evolution strategy on one piece of one tensor: write a member, add up a gradient, take an Adam step.

Every element is computed on its own and sums run in the order of the pairs, so the result does not depend on how a tensor is cut into
pieces. Nothing is contracted or reordered (no fast-math, no BLAS): the same bits for any number of workers, on any processor.

Shapes: a piece of a vector `[n]`; rows of a matrix `[rows, columns]`; left factors A `[K, rows]` and right factors B `[K, columns]`, one
line per pair and rank; weights `[K]`. Noise is float32; weights and moments are float32, or float64 if the parameters are.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from cryptoalpha.learn.evolution.noise import BLOCK, normal_block

COMPILED_WITH = "82b931754cde"
"""Digest of noise.py, whose block and noise are compiled in here: numba's cache looks at this file only, and would go on with what it
compiled from an older one (tests/unit/learn/test_evolution_kernels.py says what to write)."""


@njit(cache=True, nogil=True)
def write_full(out, base, scale, key, member, start):  # type: ignore[no-untyped-def]
    """out = base + scale · e, for elements from `start` on, a multiple of the block."""
    block = np.empty(BLOCK, np.float32)
    done = 0
    while done < out.size:
        take = min(BLOCK, out.size - done)
        normal_block(block, key[0], key[1], member, (start + done) // BLOCK)
        for j in range(take):
            out[done + j] = base[done + j] + scale * block[j]
        done += take


@njit(cache=True, nogil=True)
def write_low_rank(out, base, scale, left, right):  # type: ignore[no-untyped-def]
    """out = base + scale · A Bᵀ for one member: `left [r, rows]`, `right [r, columns]`."""
    for i in range(out.shape[0]):
        first = scale * left[0, i]
        for j in range(out.shape[1]):
            out[i, j] = base[i, j] + first * right[0, j]
        for k in range(1, left.shape[0]):
            factor = scale * left[k, i]
            for j in range(out.shape[1]):
                out[i, j] += factor * right[k, j]


@njit(cache=True, nogil=True)
def sum_full(out, weights, key, member, start):  # type: ignore[no-untyped-def]
    """out = Σ_p weights[p] · e_p, for elements from `start` on, a multiple of the block."""
    block = np.empty(BLOCK, np.float32)
    done = 0
    while done < out.size:
        take = min(BLOCK, out.size - done)
        for j in range(take):
            out[done + j] = 0.0
        for p in range(weights.size):
            if weights[p] == 0.0:
                continue
            normal_block(block, key[0], key[1], member[p], (start + done) // BLOCK)
            for j in range(take):
                out[done + j] += weights[p] * block[j]
        done += take


@njit(cache=True, nogil=True)
def add_low_rank(out, weights, left, right):  # type: ignore[no-untyped-def]
    """out += Σ_k weights[k] · A[k]ᵀ B[k]: the one matrix product of an update. Four lines at a time, added from the left."""
    lines, rows, columns = right.shape[0], out.shape[0], out.shape[1]
    for i in range(rows):
        k = 0
        while k + 4 <= lines:
            c0, c1, c2, c3 = (
                weights[k] * left[k, i],
                weights[k + 1] * left[k + 1, i],
                weights[k + 2] * left[k + 2, i],
                weights[k + 3] * left[k + 3, i],
            )
            for j in range(columns):
                out[i, j] = (((out[i, j] + c0 * right[k, j]) + c1 * right[k + 1, j]) + c2 * right[k + 2, j]) + c3 * right[k + 3, j]
            k += 4
        while k < lines:
            factor = weights[k] * left[k, i]
            for j in range(columns):
                out[i, j] += factor * right[k, j]
            k += 1


@njit(cache=True, nogil=True, error_model="numpy")
def adam(out, weights, first, second, gradient, settings, commit):  # type: ignore[no-untyped-def]
    """out = weights after one ascending Adam step along the gradient; with `commit` weights and moments take it too.

    settings: β₁, 1 − β₁, β₂, 1 − β₂, step size over 1 − β₁ᵗ, one over 1 − β₂ᵗ, ε, what decay leaves (1 − step size · decay).
    """
    b1, a1, b2, a2, rate, unbias, epsilon, kept = settings
    if commit:
        for j in range(out.size):
            g = gradient[j]
            m = b1 * first[j] + a1 * g
            v = b2 * second[j] + a2 * (g * g)
            w = weights[j] * kept + rate * m / (np.sqrt(v * unbias) + epsilon)
            first[j] = m
            second[j] = v
            weights[j] = w
            out[j] = w
    else:
        for j in range(out.size):
            g = gradient[j]
            m = b1 * first[j] + a1 * g
            v = b2 * second[j] + a2 * (g * g)
            out[j] = weights[j] * kept + rate * m / (np.sqrt(v * unbias) + epsilon)
