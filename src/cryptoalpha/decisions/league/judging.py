"""What members are worth: paired pay-offs on the same luck, the pay-off matrix, and what a best response would gain.

Everything here is played out in the shared market itself and measured in wealth at delivery (ticks · lots of one episode). A comparison is
paired: the same luck, the same company, only seat 0 differs.

**Exploitability** of a population: what the best responder found earns more than a member drawn with equal chance, both sitting in seat 0
among members drawn with equal chance. The family of responders (`responders`) is the dynamic programme of `best_response`, the newest
member itself, and a grid of linear rules; the best is chosen on one set of episodes and measured on another. What it finds is a lower
bound: a better responder may exist. It is measured against the population as it was at that moment of training.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np
from numpy.typing import NDArray

from cryptoalpha.core.seeds import stream
from cryptoalpha.decisions.league.best_response import best_response
from cryptoalpha.decisions.league.config import LeagueMarketConfig
from cryptoalpha.decisions.league.market import Lots, Luck, Numbers, View
from cryptoalpha.decisions.league.players import Player
from cryptoalpha.decisions.league.population import Population, Seat, play, scripted
from cryptoalpha.decisions.league.ratings import Estimate, Matrix, elo

GAINS = (0.01, 0.02, 0.04, 0.06, 0.08, 0.12, 0.2)
"""Lots per tick of premium that a linear responder wants to hold."""

PACES = (0.34, 0.67, 1.0)
"""Share of the way to the wanted inventory that it goes in one auction."""

WEIGHTS = (0.0, 0.5, 1.0)
"""How much of the impact it counts as mispricing."""


@dataclass(frozen=True)
class LinearResponder:
    """Goes `pace` of the way to −gain·(estimate + weight·impact), on the learner's own targets; implements `Player`."""

    market: LeagueMarketConfig
    gain: float
    pace: float
    weight: float
    knows_fundamental: bool = False

    @property
    def name(self) -> str:
        return f"linear {self.gain} {self.pace} {self.weight}"

    def wants(self, view: View, held: Lots, luck: Numbers) -> Lots:
        targets = np.asarray(self.market.targets, np.int64)
        goal = held + self.pace * (-self.gain * (view.estimate + self.weight * view.impact) - held)
        return np.asarray(targets[np.abs(targets[None, :] - goal[:, None]).argmin(axis=1)])


@dataclass(frozen=True)
class Exploitability:
    """`gain` of the best responder over a member, paired; `member` and `responder` what they earn; `name` of the responder."""

    gain: Estimate
    member: Estimate
    responder: Estimate
    name: str


@dataclass(frozen=True, eq=False)
class Company:
    """Who sits on the other seats in judged episodes, and the luck of all: the same for everyone who is judged on seat 0."""

    market: LeagueMarketConfig
    beside: list[Player]
    luck: Luck
    random: np.random.Generator

    @classmethod
    def draw(cls, population: Population, members: int, episodes: int, seed: int, *names: str | int) -> Company:
        """Members drawn with equal chance, and the scripted players."""
        market, random = population.market, stream(seed, "league", "judging", *names)
        beside: list[Player] = [Seat(population, row) for row in population.draw((members, episodes), random)]
        beside += scripted(market)
        return cls(market, beside, Luck.draw(market, episodes, 1 + len(beside), random), random)

    def wealth(self, player: Player) -> Lots:
        """What `player` on seat 0 has at delivery, `[B]`."""
        return self.all_wealth(player)[:, 0]

    def all_wealth(self, player: Player) -> Lots:
        """What everybody has at delivery, `[B, seats]`."""
        return play(self.market, [player, *self.beside], self.luck)[0]

    def seat(self, population: Population) -> Seat:
        """Members drawn with equal chance for seat 0; the draw goes on from one call to the next."""
        return Seat(population, population.draw((self.luck.lots.shape[1],), self.random))


def exploitability(population: Population, members: int, *, episodes: int, seed: int) -> Exploitability:
    """What a best responder gains against the population (see the module)."""
    few = max(episodes // 2, 2)
    chosen_on = Company.draw(population, members, few, seed, "choose")
    family = responders(population, members)
    best = family[int(np.argmax([chosen_on.wealth(seated(few)).mean() for seated in family]))](episodes)
    company = Company.draw(population, members, episodes, seed, "measure")
    member, responder = company.wealth(company.seat(population)), company.wealth(best)
    return Exploitability(Estimate.of(responder - member), Estimate.of(member), Estimate.of(responder), best.name)


def responders(population: Population, members: int) -> list[Callable[[int], Player]]:
    """The family that a best response is looked for in; each answers to a number of episodes with a player for them."""
    newest, market = population.only(-1), population.market
    grid = best_response(population, members)
    family: list[Callable[[int], Player]] = [lambda _: grid, lambda episodes: Seat(newest, np.zeros(episodes, np.int64), "newest member")]
    family += [partial(_linear, LinearResponder(market, *numbers)) for numbers in product(GAINS, PACES, WEIGHTS)]
    return family


def _linear(responder: LinearResponder, episodes: int) -> Player:
    return responder


def gate(newcomer: Population, population: Population, members: int, *, episodes: int, seed: int, number: int) -> Estimate:
    """How much more the newcomer earns than the newest member, in the same seat with the same luck among members of the population."""
    company = Company.draw(population, members, episodes, seed, "gate", number)
    everyone = np.zeros(episodes, np.int64)
    return Estimate.of(company.wealth(Seat(newcomer, everyone)) - company.wealth(Seat(population.only(-1), everyone)))


@dataclass(frozen=True, eq=False)
class Table:
    """Pay-offs between members. Shapes: who `[k]` (rounds they joined at, oldest first), payoffs and errors `[k, k]` = mean wealth of the
    row's member on seat 0 while the column's sits on all other members' seats; scores `[k, k]` = how often the row's earns more than the
    column's side by side; ratings `[k]` Elo."""

    who: NDArray[np.int64]
    payoffs: Matrix
    errors: Matrix
    scores: Matrix
    ratings: Matrix


def payoff_table(population: Population, members: int, *, most: int, episodes: int, seed: int) -> Table:
    """Play everyone against everyone, at most `most` members, evenly spread from the oldest to the newest."""
    who = np.unique(np.linspace(0, len(population) - 1, min(most, len(population))).round().astype(np.int64))
    k = len(who)
    payoffs, errors, scores = np.zeros((k, k)), np.zeros((k, k)), np.full((k, k), 0.5)
    company = Company.draw(population, members, episodes, seed, "table")
    rest = company.beside[members:]
    for i, j in product(range(k), range(k)):
        others: list[Player] = [Seat(population, np.full(episodes, who[j]))] * members
        wealth = Company(company.market, [*others, *rest], company.luck, company.random).all_wealth(
            Seat(population, np.full(episodes, who[i]))
        )
        found = Estimate.of(wealth[:, 0])
        payoffs[i, j], errors[i, j] = found.mean, found.error
        if i != j:
            neighbours = [Seat(population, np.full(episodes, who[j])), *company.beside[1:]]
            side = Company(company.market, neighbours, company.luck, company.random).all_wealth(Seat(population, np.full(episodes, who[i])))
            scores[i, j] = float(np.mean((side[:, 0] > side[:, 1]) + 0.5 * (side[:, 0] == side[:, 1])))
    scores = (scores + 1.0 - scores.T) / 2.0  # each pair was played in both orders
    return Table(who, payoffs, errors, scores, elo(scores))
