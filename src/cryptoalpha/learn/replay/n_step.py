"""What a state was worth, in hindsight: a few rewards as they came, the rest from the value of the state reached.

    z_t = r_t + d_t r_{t+1} + … + d_t ⋯ d_{t+n−2} r_{t+n−1} + d_t ⋯ d_{t+n−1} v(s_{t+n})

with fewer terms where the episode ends sooner: a terminated one is worth nothing more, a truncated one (or one whose next row is not there
yet) goes on from the value of the state that its last step reached. No target reads past the end of its episode.

Source: Schrittwieser et al. (2020), MuZero, appendix G; Pardo et al. (2018), "Time limits in reinforcement learning", for truncation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.store.array_file import Array


@dataclass(frozen=True)
class Trail:
    """Rows linked in time. Shapes: all `[N]`; row `next_row mod N` follows, or none where it is −1. Only rows walked over are read.

    `values` are those of the states in which was acted, `values_after` those of the states that the steps reached (read where a row is
    truncated or has no successor).
    """

    rewards: Array
    discounts: Array
    terminated: Array
    truncated: Array
    values: Array
    values_after: Array
    next_row: NDArray[np.int64]


def follow(trail: Trail, start: NDArray[np.int64], n: int) -> NDArray[np.float64]:
    """Targets `[len(start)]` of the rows `start`, counting at most `n` rewards each."""
    target, factor = np.zeros(len(start)), np.ones(len(start))
    open_, at = np.arange(len(start)), start  # rows whose target is unfinished, and where each of them stands
    for step in range(n):
        target[open_] += factor[open_] * trail.rewards[at]
        factor[open_] *= trail.discounts[at]
        following = trail.next_row[at]
        terminated = trail.terminated[at].astype(np.bool_)
        last = trail.truncated[at].astype(np.bool_) | (following < 0)
        going_on = ~terminated & ~last
        stops = ~terminated & last
        target[open_[stops]] += factor[open_[stops]] * trail.values_after[at[stops]]
        open_, at = open_[going_on], following[going_on] % len(trail.next_row)
        if step == n - 1:
            target[open_] += factor[open_] * trail.values[at]
    return target


def n_step_targets(
    rewards: ArrayLike,
    values: ArrayLike,
    values_after: ArrayLike,
    terminated: ArrayLike,
    truncated: ArrayLike,
    *,
    discount: ArrayLike,
    n: int,
) -> NDArray[np.float64]:
    """Targets `[T, B]` of B episodes side by side, each possibly several ones in a row.

    Args:
        rewards, terminated, truncated: `[T, B]`, what followed the step.
        values: `[T, B]`, of the state before the step (root values of a search).
        values_after: `[T, B]`, of the state the step reached, before any reset; read only where a row is truncated, and at T − 1.
        discount: one number, or `[T, B]`; negative where an opponent moves next.
        n: rewards counted at most, ≥ 1.

    Raises:
        ConfigError: if shapes differ or `n` is below 1.
    """
    arrays = [np.asarray(array, np.float64) for array in (rewards, values, values_after)]
    flags: list[NDArray[Any]] = [np.asarray(array, np.bool_) for array in (terminated, truncated)]
    shape = arrays[0].shape
    if len(shape) != 2 or any(array.shape != shape for array in (*arrays, *flags)) or n < 1:
        shapes = [array.shape for array in (*arrays, *flags)]
        raise ConfigError(f"n-step targets: shapes {shapes} with n = {n}, expected five equal shapes [T, B] and n ≥ 1")
    steps, lanes = shape
    rows = np.arange(steps * lanes).reshape(shape)
    following = np.full(shape, -1)
    following[:-1] = rows[1:]
    discounts = np.broadcast_to(np.asarray(discount, np.float64), shape)
    trail = Trail(
        arrays[0].ravel(), discounts.ravel(), flags[0].ravel(), flags[1].ravel(), arrays[1].ravel(), arrays[2].ravel(), following.ravel()
    )
    return follow(trail, rows.ravel(), n).reshape(shape)
