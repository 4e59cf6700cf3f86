"""Episodes in a market model, and the gate: does a challenger plan better than the champion on the same held-out scenarios?

Episodes begin in given states, flat, and live through returns drawn from the model itself at given uniforms; two planners who are given
the same uniforms meet the same market, whatever they hold. What an episode earns is summed undiscounted after costs, the position closed
at its end. What the return was above or below its expectation is taken out (a control variate of mean zero): luck judges nobody, and on
the mean-reverting chain of the tests the interval becomes five times narrower.
The paired differences stand in the order of their starting states, so that a block bootstrap keeps what neighbours share.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryptoalpha.core.seeds import stream
from cryptoalpha.decisions.alphazero.market import TradingModel
from cryptoalpha.decisions.alphazero.state import UNIT, Array
from cryptoalpha.learn.search.contract import Budget, Floats, Roots
from cryptoalpha.learn.search.scenario_dp import plan_all_positions
from cryptoalpha.monitoring.bootstrap import Interval, bootstrap_interval

EPISODE_BARS = 96
"""Length of an episode, bars. Four days of hours: in a shorter one the closing at its end outweighs what lasting opinions earn."""


@dataclass(frozen=True)
class Gate:
    """What a comparison said. `interval` is that of the mean paired difference per episode."""

    passed: bool
    interval: Interval


def flat_place(positions: Array) -> int:
    """Index of the position nearest to none."""
    return int(np.argmin(np.abs(positions)))


def play(planner: TradingModel, world: TradingModel, states: Floats, budget: Budget, *, bars: int, seed: int) -> Array:
    """What episodes from states `[E, WIDTH]` earn `[E]`, decided by one model and lived through in another.

    Args:
        planner: decides, by scenario trees of this budget.
        world: draws what happens; its law and dynamics are the truth.
        seed: of what happens and of the scenarios; the same seed gives the same world.
    """
    count, rows = len(states), np.arange(len(states))
    held = np.full(count, flat_place(planner.positions))
    earned = np.zeros(count)
    for bar in range(bars):
        table = plan_all_positions(Roots(states), planner, budget, seed=seed + bar)
        chosen = table.actions[rows, held]
        uniforms = stream(seed, "episodes", bar).random((count, 1)).clip(1e-9, 1.0 - 1e-9)
        draws = world.draw(states, uniforms)
        weights = states[:, UNIT].astype(np.float64) * planner.positions[chosen]
        luck = weights * (np.asarray(draws.returns, np.float64)[:, 0] - np.asarray(draws.expected, np.float64))
        earned += world.gains(states, draws.returns).rewards[rows, 0, chosen] - luck - world.costs(states)[rows, held, chosen]
        states, held = draws.states[:, 0], chosen
    earned -= world.costs(states)[rows, held, flat_place(planner.positions)]
    return earned


def judged(challenger: Array, champion: Array, *, seed: int) -> Gate:
    """Whether the challenger earned more than the champion on the same episodes `[E]`, beyond chance at 95 %."""
    differences: NDArray[np.float64] = challenger - champion
    interval = bootstrap_interval(differences, lambda r: float(r.mean()), seed=seed, name="agent gate", resamples=1_000)
    return Gate(bool(interval.low > 0.0), interval)
