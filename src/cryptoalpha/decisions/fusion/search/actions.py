"""What the fusion's search may do with its weights: nothing, a step towards or away from one family, or a jump to a known point.

Weights of the families are `gross` times a point of the simplex, gross at most 1: gross is the part of what is believed known that is
acted on. Pure functions; action numbers are fixed, because a trained network belongs to them.

| number | action | weights become |
|---|---|---|
| 0 | hold | the same |
| 1 … K | +family | δ more on it, gross up by δ to at most 1, the rest shrunk to fit |
| K+1 … 2K | −family | δ less on it, given to the others; gross falls where there are no others |
| 2K+1 | reset | the prior: what the statistics alone would weigh |
| 2K+2 | equal | all families that speak alike, gross 1 |
| 2K+3 | shrink | gross down by 2δ of itself |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryptoalpha.store.tables import Floats

FAMILIES = 10
"""K: places for families of evidence."""

HOLD, RESET, EQUAL, SHRINK = 0, 2 * FAMILIES + 1, 2 * FAMILIES + 2, 2 * FAMILIES + 3
ACTIONS = 2 * FAMILIES + 4
LEAST_GROSS = 0.05
"""Gross below which nothing shrinks any more: from nothing no step leads back to where one was."""


@dataclass(frozen=True)
class Moves:
    """What every action does in one bar, as arrays over actions. Shapes: step and goal `[A, K]`, the others `[A]`."""

    step: Floats
    goal: Floats
    jumps: NDArray[np.bool_]
    grows: Floats
    shrinks: Floats

    @classmethod
    def of(cls, delta: float, prior: Floats, speaking: NDArray[np.bool_]) -> Moves:
        """The moves of a bar from the prior weights `[K]` (summing to 1) and which families speak `[K]`."""
        step, goal = np.zeros((ACTIONS, FAMILIES)), np.zeros((ACTIONS, FAMILIES))
        grows, shrinks = np.zeros(ACTIONS), np.ones(ACTIONS)
        for k in range(FAMILIES):
            step[1 + k, k], step[1 + FAMILIES + k, k] = delta, -delta
        grows[1 : 1 + FAMILIES] = delta
        goal[RESET], goal[EQUAL] = prior, equal_weights(speaking)
        shrinks[SHRINK] = 1.0 - 2.0 * delta
        jumps = np.zeros(ACTIONS, np.bool_)
        jumps[[RESET, EQUAL]] = True
        return cls(step, goal, jumps, grows, shrinks)

    def apply(self, weights: Floats, actions: NDArray[np.int64]) -> Floats:
        """Weights `[n, K]` after `actions` `[n]`; always ≥ 0 with a sum of at most 1."""
        before = weights.sum(axis=1)
        moved = np.maximum(weights + self.step[actions], 0.0)
        wanted = np.where(actions == HOLD, before, np.minimum(1.0, before + self.grows[actions]))  # rounding must not make holding cost
        total = moved.sum(axis=1)
        alone = (weights > 0.0).sum(axis=1) <= 1  # − on the only family: nobody takes what it gives up
        wanted = np.where(alone, np.minimum(wanted, total), wanted) * self.shrinks[actions]
        moved *= (wanted / np.where(total > 0.0, total, 1.0))[:, None]
        return np.where(self.jumps[actions][:, None], self.goal[actions], moved)

    def legal(self, weights: Floats, speaking: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """`[n, A]` from weights `[n, K]` and families that speak `[K]`: what does nothing new is not offered, except to hold."""
        legal = np.zeros((len(weights), ACTIONS), np.bool_)
        legal[:, [HOLD, RESET, EQUAL]] = True
        legal[:, 1 : 1 + FAMILIES] = speaking & (weights < 1.0)
        legal[:, 1 + FAMILIES : 1 + 2 * FAMILIES] = weights > 0.0
        legal[:, SHRINK] = weights.sum(axis=1) > LEAST_GROSS
        return legal


def equal_weights(speaking: NDArray[np.bool_]) -> Floats:
    """Alike over the families that speak `[K]`; over all where none does."""
    chosen = speaking if speaking.any() else np.ones(FAMILIES, np.bool_)
    return np.asarray(chosen / chosen.sum(), np.float64)


def action_names(families: Sequence[str]) -> tuple[str, ...]:
    """What to call the actions; places without a family are called by their number."""
    named = [*families, *(f"place {k}" for k in range(len(families), FAMILIES))]
    return ("hold", *(f"+{name}" for name in named), *(f"-{name}" for name in named), "reset", "equal", "shrink")
