"""The best response to a population by dynamic programming on a grid of what is public.

State: auction, estimate of the mispricing, impact, own inventory (one of the targets). The others move by the population's average policy,
holding what the impact says they hold together, shared evenly; scripted players by what is expected of them, the last change and pressure
being taken as 0. Backward from the delivery, where nothing is left to earn:

    V_t(e, I, q) = max_a  r(e, I, q → a) + E[V_{t+1}(e', I', a)]

over Gauss–Hermite nodes of the innovation, with linear interpolation between grid points. In a market of one auction this is exact but for
the interpolation of e; with more it is the optimum of a simplified game, hence a lower bound when it is played in the real one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryptoalpha.decisions.league.market import Lots, Numbers, View
from cryptoalpha.decisions.league.planning import LeagueModel
from cryptoalpha.decisions.league.players import price_unit
from cryptoalpha.decisions.league.population import Population

POINTS = 19
"""Grid points of the estimate and of the impact; with `REACH` 3, one unit of price lies on the grid."""

REACH = 3.0
"""Units of price (`players.price_unit`) to which the grid goes, both sides."""

NODES = 5
"""Nodes of the innovation."""


@dataclass(frozen=True, eq=False)
class GridResponder:
    """Plays the action that the programme found at the nearest grid point; implements `Player`.

    Shapes: axis `[G]` ticks, actions `[steps, G, G, A]` by estimate, impact and inventory held (index into targets).
    """

    targets: NDArray[np.int64]
    axis: Numbers
    actions: NDArray[np.int64]
    name: str = "grid"
    knows_fundamental: bool = False

    def wants(self, view: View, held: Lots, luck: Numbers) -> Lots:
        index = np.abs(self.targets[None, :] - held[:, None]).argmin(axis=1)
        found = self.actions[view.number, nearest(self.axis, view.estimate), nearest(self.axis, view.impact), index]
        return np.asarray(self.targets[found])


def best_response(population: Population, members: int) -> GridResponder:
    """Solve the game of one responder against `members` members drawn with equal chance."""
    market = population.market
    model = LeagueModel(market, members, population, population.weights)
    axis = np.linspace(-REACH, REACH, POINTS) * price_unit(market)
    targets = np.asarray(market.targets, np.float64)
    A, steps = len(targets), market.steps
    estimate, impact, held = (part.ravel() for part in np.meshgrid(axis, axis, targets, indexing="ij"))
    ahead = np.zeros((POINTS, POINTS, A))
    actions = np.zeros((steps, POINTS, POINTS, A), np.int64)
    points, weights = np.polynomial.hermite_e.hermegauss(NODES)
    weights = weights / weights.sum()
    bought = impact / market.permanent_impact if market.permanent_impact > 0 else np.zeros_like(impact)
    most = float(np.abs(targets).max())
    others = np.clip((bought - held) / max(members, 1), -most, most)
    for number in reversed(range(steps)):
        states = np.stack([np.full_like(held, number), estimate, impact, 0 * held, 0 * held, held, others], axis=1)
        _, lots, scripts = model.expected(states)
        q = np.empty((len(held), A))
        for a in range(A):
            traded = targets[a] - held
            q[:, a] = model.rewards(states, traded, lots + scripts)
            if number + 1 < steps:
                moved = impact + market.permanent_impact * (traded + lots + scripts)
                for point, weight in zip(points, weights, strict=True):
                    surprise = model.filter.innovation_sd[number + 1] * point
                    faded = market.mispricing_persistence * estimate + model.filter.gain[number + 1] * surprise
                    q[:, a] += weight * between(ahead[:, :, a], axis, faded, moved)
        actions[number] = q.argmax(axis=1).reshape(POINTS, POINTS, A)
        ahead = q.max(axis=1).reshape(POINTS, POINTS, A)
    return GridResponder(np.asarray(market.targets, np.int64), axis, actions)


def nearest(axis: Numbers, x: Numbers) -> NDArray[np.int64]:
    """Index of the nearest point of an even axis; beyond its ends, the end."""
    step = axis[1] - axis[0]
    return np.asarray(np.clip(np.rint((x - axis[0]) / step), 0, len(axis) - 1), np.int64)


def between(table: Numbers, axis: Numbers, x: Numbers, y: Numbers) -> Numbers:
    """Bilinear interpolation of `table` `[G, G]` at `[n]` points; beyond the ends, the ends."""
    step, last = axis[1] - axis[0], len(axis) - 1
    fx, fy = (np.clip((v - axis[0]) / step, 0.0, last) for v in (x, y))
    i, j = (np.minimum(f.astype(np.int64), last - 1) for f in (fx, fy))
    u, v = fx - i, fy - j
    low = (1 - v) * table[i, j] + v * table[i, j + 1]
    high = (1 - v) * table[i + 1, j] + v * table[i + 1, j + 1]
    return np.asarray((1 - u) * low + u * high)
