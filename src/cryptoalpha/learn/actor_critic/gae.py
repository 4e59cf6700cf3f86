"""Generalised advantage estimation: how much better an action was than expected, between one step's view and the whole episode's.

    δ_t = r_t + γ v(s_{t+1}) − v(s_t)        A_t = δ_t + γλ A_{t+1}        R̂_t = A_t + v(s_t)

A terminated step has no v(s_{t+1}); a truncated one has, read from the state that it really reached, before any reset; neither looks at
A_{t+1}, which belongs to the next episode.

Source: Schulman et al. (2016), "High-dimensional continuous control using generalized advantage estimation"; Pardo et al. (2018), "Time
limits in reinforcement learning". Stable-Baselines3 reaches the same numbers by adding γ v(s_{t+1}) to the reward of a truncated step.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cryptoalpha.core.errors import ConfigError, ModelError


class Advantages(NamedTuple):
    """Shapes: both `[T, B]`, float64. `returns` are what the values should have been."""

    advantages: NDArray[np.float64]
    returns: NDArray[np.float64]


def gae(
    rewards: ArrayLike,
    values: ArrayLike,
    values_after: ArrayLike,
    terminated: ArrayLike,
    truncated: ArrayLike,
    *,
    discount: ArrayLike,
    trace: float,
) -> Advantages:
    """Advantages and returns of B episodes side by side, each possibly several ones in a row.

    Args:
        rewards, terminated, truncated: `[T, B]`, what followed the step.
        values: `[T, B]`, of the state before the step.
        values_after: `[T, B]`, of the state the step reached, before any reset; read only where a row is truncated, and at T − 1.
        discount: γ, one number or `[T, B]`.
        trace: λ, 0 (one step) to 1 (the whole episode).

    Raises:
        ConfigError: if shapes differ or λ lies outside 0–1.
        ModelError: if an advantage is not finite; the message names step and episode.
    """
    reward, value, after = (np.asarray(array, np.float64) for array in (rewards, values, values_after))
    ends, cuts = np.asarray(terminated, np.bool_), np.asarray(truncated, np.bool_)
    shapes = [array.shape for array in (reward, value, after, ends, cuts)]
    if len(reward.shape) != 2 or len(set(shapes)) > 1 or not 0.0 <= trace <= 1.0:
        raise ConfigError(f"advantages: shapes {shapes} with λ = {trace}, expected five equal shapes [T, B] and λ between 0 and 1")
    gamma = np.broadcast_to(np.asarray(discount, np.float64), reward.shape)
    last = np.zeros(reward.shape, np.bool_)
    last[-1:] = True
    following = np.where(cuts | last, after, np.roll(value, -1, axis=0))
    gain = reward + np.where(ends, 0.0, gamma * np.where(ends, 0.0, following)) - value
    advantage, carried = np.empty(reward.shape), np.zeros(reward.shape[1])
    for t in range(len(reward) - 1, -1, -1):
        carried = gain[t] + np.where(ends[t] | cuts[t], 0.0, gamma[t] * trace * carried)
        advantage[t] = carried
    if not np.isfinite(advantage).all():
        step, episode = np.argwhere(~np.isfinite(gain if not np.isfinite(gain).all() else advantage))[0]
        raise ModelError(
            f"the advantage at step {step} of episode {episode} is not finite", hint="find the reward or the value that made it"
        )
    return Advantages(advantage, advantage + value)
