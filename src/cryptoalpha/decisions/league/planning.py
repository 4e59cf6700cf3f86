"""The shared market as one learner plans in it: its own trades move the price, the others move by the population's policies.

A state is what is public, and what follows from it: number of the auction, the filter's estimate of the mispricing, impact so far, last
change, last pressure, own inventory, and the inventory that another member is assumed to hold. The learner does not see who sits across:
it expects a member drawn with equal chance, and follows what such a member would hold by now if it had seen the same prices. It knows no
noise and no fundamental: those enter as innovations with mean 0 (`belief`).

Rewards are expected ones: what a trade of Δq earns by delivery, as the public expects it,

    Δq·(−(estimate + impact) − κ·E[Σ Δq]) − half spread·|Δq|

which is exact for linear impact, since an expectation of the others' flow is all that is needed. Drawn flows and innovations are matched to
their means node by node, so that luck in the draw is no gain. Known departures: the others' inventories are one average; scripted players
are expected without rounding, limits, dice and the maker's own inventory.

The unit of rewards and values is `players.profit_unit`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from cryptoalpha.decisions.league.belief import PublicFilter
from cryptoalpha.decisions.league.config import LeagueMarketConfig
from cryptoalpha.decisions.league.market import Numbers, View
from cryptoalpha.decisions.league.players import Script, Weights, features, profit_unit
from cryptoalpha.decisions.league.population import Population
from cryptoalpha.learn.search.contract import Floats, Integers, Outcomes

NUMBER, ESTIMATE, IMPACT, CHANGE, PRESSURE, HELD, OTHERS = range(7)
"""Columns of a state."""

GOLDEN, PLASTIC = 0.6180339887498949, 0.7548776662466927
"""Irrational steps that spread the others' draws over outcomes and seats."""


@dataclass(eq=False)
class LeagueModel:
    """Implements `learn.search.contract.ChanceModel` for one learner among `members` members of a population and the scripted players."""

    market: LeagueMarketConfig
    members: int
    population: Population
    weights: Weights
    """The learner's own net as it is now: prior and leaf values."""

    def __post_init__(self) -> None:
        self.actions = len(self.market.targets)
        self.targets = np.asarray(self.market.targets, np.float64)
        self.filter = PublicFilter.of(self.market)
        self.scripts = [Script(name, self.market) for name in self.market.scripts]
        self.unit = profit_unit(self.market)

    def evaluate(self, states: Floats) -> tuple[Floats, Floats]:
        """Prior logits `[n, A]` and values `[n]` of the learner's net."""
        logits, values = self.weights.answers(read(self.market, states, HELD))
        return logits[0], values[0]

    def expected(self, states: Floats) -> tuple[Numbers, Numbers, Numbers]:
        """What another member chooses, shares `[n, A]`, and the lots expected of all members and of all scripted players, `[n]` each."""
        s = np.asarray(states, np.float64)
        shares = self.population.average(read(self.market, s, OTHERS))
        members = self.members * (shares @ self.targets - s[:, OTHERS])
        public = s[:, ESTIMATE], s[:, IMPACT], s[:, CHANGE], s[:, PRESSURE]
        scripts = np.sum([script.flow(*public) for script in self.scripts], axis=0) if self.scripts else np.zeros(len(s))
        return shares, members, scripts

    def rewards(self, states: Floats, traded: Numbers, others: Numbers) -> Numbers:
        """Expected profit `[n]` of trading `traded` lots while all others together trade `others` on average."""
        s = np.asarray(states, np.float64)
        edge = -(s[:, ESTIMATE] + s[:, IMPACT]) - self.market.impact * (traded + others)
        return np.asarray((traded * edge - self.market.half_spread * np.abs(traded)) / self.unit)

    def outcomes(self, states: Floats, actions: Integers, uniforms: Floats) -> Outcomes:
        """One auction. Shapes as in `ChanceModel`."""
        market, s, u = self.market, np.asarray(states, np.float64), np.asarray(uniforms, np.float64)
        shares, members, scripts = self.expected(s)
        goal = self.targets[actions]
        traded = goal - s[:, HELD]
        drawn = self._drawn(shares, s[:, OTHERS], u)  # [n, m] lots of all members
        drawn += (members - drawn.mean(axis=1))[:, None]
        following = s[:, NUMBER].astype(np.int64) + 1
        surprise = torch.special.ndtri(torch.from_numpy(u)).numpy() * self.filter.innovation_sd[following][:, None]
        surprise -= surprise.mean(axis=1, keepdims=True)
        moved = market.permanent_impact * (traded[:, None] + drawn + scripts[:, None])
        phi, estimate = market.mispricing_persistence, s[:, ESTIMATE, None]
        reached = np.empty((*u.shape, 7), np.float32)
        reached[..., NUMBER] = following[:, None]
        reached[..., ESTIMATE] = phi * estimate + self.filter.gain[following][:, None] * surprise
        reached[..., IMPACT] = s[:, IMPACT, None] + moved
        reached[..., CHANGE] = moved + (phi - 1.0) * estimate + surprise
        reached[..., PRESSURE] = moved
        reached[..., HELD] = goal[:, None]
        reached[..., OTHERS] = s[:, OTHERS, None] + drawn / max(self.members, 1)
        over = np.broadcast_to((following >= market.steps)[:, None], u.shape)
        rewards = self.rewards(s, traded, members + scripts).astype(np.float32)
        return Outcomes(
            reached, np.full(u.shape, 1.0 / u.shape[1], np.float32), rewards, np.ones(u.shape, np.float32), np.ascontiguousarray(over)
        )

    def _drawn(self, shares: Numbers, held: Numbers, u: Numbers) -> Numbers:
        """Lots `[n, m]` that the members trade, each drawn from the average policy; a pure function of the uniforms."""
        n, m = u.shape
        stratum, inside = np.divmod(u * m, 1.0)
        bounds = np.cumsum(shares, axis=1)[:, None, :-1]  # [n, 1, A − 1]
        lots = np.zeros((n, m))
        for seat in range(self.members):
            v = np.mod(inside + stratum * GOLDEN + (seat + 1) * PLASTIC, 1.0)
            lots += self.targets[(bounds < v[:, :, None]).sum(axis=2)] - held[:, None]
        return lots


def states_of(view: View, held: NDArray[np.int64], others: Numbers) -> NDArray[np.float32]:
    """Where B learners stand, `[B, 7]`."""
    number = np.full(len(held), view.number)
    return np.stack([number, view.estimate, view.impact, view.change, view.pressure, held, others], axis=1).astype(np.float32)


def read(market: LeagueMarketConfig, states: Floats, holder: int) -> NDArray[np.float32]:
    """What a policy reads of states `[n, 7]` when the inventory in column `holder` is its own."""
    s = np.asarray(states, np.float64)
    return features(market, s[:, NUMBER], s[:, ESTIMATE], s[:, IMPACT], s[:, CHANGE], s[:, PRESSURE], s[:, holder])
