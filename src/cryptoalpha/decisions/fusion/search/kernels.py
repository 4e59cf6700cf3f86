"""One step of the fusion's world, compiled: `world.FusionWorld.outcomes` without a Python call per array.

The formulas are those of `world` and `actions`, written out over families and instruments; `world.plain_outcomes` says the same in NumPy
and is what a test holds this against. No random numbers are drawn here.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from cryptoalpha.decisions.fusion.search.actions import EQUAL, FAMILIES, HOLD, LEAST_GROSS, RESET, SHRINK
from cryptoalpha.decisions.fusion.search.state import GROSS_AT, HELD_AT, MOVE_AT, NET_AT, WEIGHT_AT

COMPILED_WITH = "d3ada2071a67"
"""Digest of actions.py and state.py, whose constants are compiled in here: numba's cache looks at this file only."""


class Bar(NamedTuple):
    """What is fixed during one bar's search. Families K, instruments I, scenarios P."""

    delta: float
    discount: float
    scale: float
    unit: float
    """a: log growth per instrument at full conviction and one volatility's move."""
    caution: float
    """½ (1 + λ): what a unit of variance costs."""
    turnover: float
    goals: Any
    """`[2, K]`: weights after reset and after equal."""
    speaking: Any
    """`[K]` bool."""
    signs: Any
    spread: Any
    """`[K, K]`: second moment of the families, signed."""
    covered: Any
    slopes: Any
    held_at_all: Any
    """`[I]` bool: instruments whose volatility is known."""
    costs: Any
    """`[I]`: cost of trading a full position."""
    covariance: Any
    persistence: Any
    moves: Any
    """`[P, I, K]`."""


@njit(cache=True, nogil=True)
def reweigh(bar: Any, before: Any, action: int, after: Any) -> None:
    """`actions.Moves.apply` for one row."""
    if action in (RESET, EQUAL):
        after[:] = bar.goals[0 if action == RESET else 1]
        return
    after[:] = before
    if action == HOLD:
        return
    gross, number = 0.0, 0
    for k in range(FAMILIES):
        gross += before[k]
        number += before[k] > 0.0
    wanted = gross
    if HOLD < action <= FAMILIES:
        after[action - 1] += bar.delta
        wanted += bar.delta
    elif FAMILIES < action <= 2 * FAMILIES:
        after[action - 1 - FAMILIES] = max(0.0, after[action - 1 - FAMILIES] - bar.delta)
    wanted = min(1.0, wanted)
    total = 0.0
    for k in range(FAMILIES):
        total += after[k]
    if number <= 1:
        wanted = min(wanted, total)
    if action == SHRINK:
        wanted *= 1.0 - 2.0 * bar.delta
    ratio = wanted / total if total > 0.0 else 0.0
    for k in range(FAMILIES):
        after[k] *= ratio


@njit(cache=True, nogil=True)
def slope_of(bar: Any, weights: Any) -> float:
    """`world.Fuser.slope` for one row."""
    spread, covered, gross = 0.0, 0.0, 0.0
    for k in range(FAMILIES):
        gross += weights[k]
        covered += weights[k] * bar.covered[k]
        for j in range(FAMILIES):
            spread += weights[k] * weights[j] * bar.spread[k, j]
    return covered * gross / spread if spread > 0.0 else 0.0


@njit(cache=True, nogil=True)
def reward_of(bar: Any, values: Any, held: Any, taken: Any) -> float:
    """Expected log growth of the positions less risk and the cost of reaching them."""
    mean, variance, cost = 0.0, 0.0, 0.0
    n = taken.shape[0]
    for i in range(n):
        claimed = 0.0
        for k in range(FAMILIES):
            claimed += values[i * FAMILIES + k] * bar.slopes[k]
        mean += bar.unit * taken[i] * claimed
        cost += abs(taken[i] - held[i]) * bar.costs[i]
        for j in range(n):
            variance += taken[i] * taken[j] * bar.covariance[i, j]
    return float(mean - 0.5 * mean * mean - bar.caution * bar.unit * bar.unit * variance - cost)


@njit(cache=True, nogil=True)
def advance(bar: Any, states: Any, actions: Any, drawn: Any, nexts: Any, rewards: Any, legal: Any) -> None:
    """Rewards `[n]`, next states `[n, m, D]`, what is legal there `[n, m, A]`: from states `[n, D]`, actions `[n]`, scenarios `[n, m]`."""
    instruments = bar.costs.shape[0]
    cut = instruments * FAMILIES
    weights, before = np.zeros(FAMILIES), np.zeros(FAMILIES)
    values, held, taken = np.zeros(cut), np.zeros(instruments), np.zeros(instruments)
    for row in range(states.shape[0]):
        values[:] = states[row, :cut]
        held[:] = states[row, cut : cut + instruments]
        before[:] = states[row, cut + instruments :]
        reweigh(bar, before, actions[row], weights)
        slope, moved, gross = slope_of(bar, weights), 0.0, 0.0
        for k in range(FAMILIES):
            moved += abs(weights[k] - before[k])
            gross += weights[k]
        for i in range(instruments):
            opinion = 0.0
            for k in range(FAMILIES):
                opinion += values[i * FAMILIES + k] * weights[k] * bar.signs[k]
            taken[i] = np.tanh(slope * opinion / bar.scale) if bar.held_at_all[i] else 0.0
        rewards[row] = reward_of(bar, values, held, taken) - bar.turnover * moved
        for j in range(drawn.shape[1]):
            move = bar.moves[drawn[row, j]]
            for i in range(instruments):
                for k in range(FAMILIES):
                    later = bar.persistence[k] * values[i * FAMILIES + k] + move[i, k]
                    nexts[row, j, i * FAMILIES + k] = min(1.0, max(-1.0, later))
                nexts[row, j, cut + i] = taken[i]
            for k in range(FAMILIES):
                nexts[row, j, cut + instruments + k] = weights[k]
                legal[row, j, 1 + k] = bar.speaking[k] and weights[k] < 1.0
                legal[row, j, 1 + FAMILIES + k] = weights[k] > 0.0
            legal[row, j, HOLD] = legal[row, j, RESET] = legal[row, j, EQUAL] = True
            legal[row, j, SHRINK] = gross > LEAST_GROSS


@njit(cache=True, nogil=True)
def show(bar: Any, state: Any, row: Any) -> None:
    """`state.features` of one state `[D]` into a row `[100]`, less what is the same in all states: those places are not written."""
    instruments = bar.costs.shape[0]
    cut = instruments * FAMILIES
    held, net, moved, gross = 0.0, 0.0, 0.0, 0.0
    for i in range(instruments):
        claimed = 0.0
        for k in range(FAMILIES):
            claimed += state[i * FAMILIES + k] * bar.slopes[k]
        moved += claimed * claimed
        held += abs(state[cut + i])
        net += state[cut + i]
    for k in range(FAMILIES):
        opinion = 0.0
        for i in range(instruments):
            opinion += state[i * FAMILIES + k]
        row[k] = opinion / instruments
        row[WEIGHT_AT + k] = state[cut + instruments + k]
        gross += state[cut + instruments + k]
    row[GROSS_AT], row[HELD_AT], row[NET_AT] = gross, held / instruments, net / instruments
    row[MOVE_AT] = 10.0 * np.sqrt(moved / instruments)
