"""The learner's episodes: seat 0 is its own, members drawn for the whole episode sit beside it, then the scripted players.

Implements `learn.self_play.World`. All episodes stand at the same auction and begin anew together. The reward of an auction is what its
trade earned by the public's expectation of the delivery, Δq·(expected fundamental − paid): summed over an episode it has the mean of the
wealth at delivery and none of the luck in the fundamental's walk.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryptoalpha.core.seeds import stream
from cryptoalpha.decisions.league.config import LeagueMarketConfig
from cryptoalpha.decisions.league.market import Luck, Numbers, SharedMarket
from cryptoalpha.decisions.league.planning import OTHERS, read, states_of
from cryptoalpha.decisions.league.players import Player, profit_unit
from cryptoalpha.decisions.league.population import Population, Seat, orders, scripted
from cryptoalpha.learn.search.contract import Roots
from cryptoalpha.learn.self_play import Happened


class LeagueEpisodes:
    """B episodes of one learner and `members` members; `population` may be exchanged at any time and sits down at the next beginning."""

    table: SharedMarket
    others: Numbers
    """Inventory that another member is assumed to hold, `[B]` lots."""

    def __init__(self, market: LeagueMarketConfig, population: Population, *, members: int, episodes: int, seed: int) -> None:
        self.market, self.population, self.members, self.episodes, self.seed = market, population, members, episodes, seed
        self.unit, self.targets = profit_unit(market), np.asarray(market.targets, np.int64)
        self.begun = 0
        self._begin()

    def observe(self) -> Roots:
        """Where the learners stand: states `[B, 7]` (`planning`)."""
        return Roots(states_of(self.table.view(), self.table.inventories[:, 0], self.others))

    def act(self, actions: NDArray[np.int64]) -> Happened:
        """Hold one auction in every episode."""
        table, states = self.table, self.observe().states
        worth = table.price - table.estimate - table.impact  # what the public expects to be delivered
        wanted = orders(table, [_Wanted(self.targets[actions]), *self.beside])
        held = table.trade(wanted)
        traded = held.traded[:, 0]
        rewards = traded * (worth - held.paid[:, 0]) / self.unit
        self.others = self.seated.average(read(self.market, states, OTHERS)) @ self.targets.astype(np.float64)
        reached = states_of(table.view(), table.inventories[:, 0], self.others)
        over = np.full(len(actions), table.is_over)
        if table.is_over:
            self._begin()
        return Happened(rewards, np.ones(len(actions)), over, np.zeros(len(actions), np.bool_), reached)

    def state(self) -> dict[str, Any]:
        """All but the population that is needed to go on; which part of it is seated is a count, since it only grows."""
        return {"begun": self.begun, "seated": len(self.seated), "who": self.who, "others": self.others, "table": self.table.state()}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from there; the population must hold at least the members that were seated."""
        self.begun = int(state["begun"])
        self._seat(self.population.first(int(state["seated"])), np.asarray(state["who"]))
        self.others = np.asarray(state["others"])
        self.table = SharedMarket.restored(self.market, state["table"])

    def _begin(self) -> None:
        random = stream(self.seed, "league", "episodes", self.begun)
        self.begun += 1
        self._seat(self.population, self.population.draw((self.members, self.episodes), random))
        self.others = np.zeros(self.episodes)
        self.table = SharedMarket(self.market, Luck.draw(self.market, self.episodes, 1 + len(self.beside), random))

    def _seat(self, population: Population, who: NDArray[np.int64]) -> None:
        self.seated, self.who = population, who
        self.beside: list[Player] = [*(Seat(population, row) for row in who), *scripted(self.market)]


class _Wanted:
    """A player whose inventories were decided elsewhere."""

    name, knows_fundamental = "learner", False

    def __init__(self, wanted: NDArray[np.int64]) -> None:
        self.wanted = wanted

    def wants(self, view: object, held: object, luck: object) -> NDArray[np.int64]:
        return self.wanted
