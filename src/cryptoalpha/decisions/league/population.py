"""The population: frozen past selves, drawn with equal chance, whose average is what a learner plays against.

To answer the average of all past selves is fictitious play (Brown 1951): in a game such as Cournot's it converges where answering the
latest self alone cycles (from three players on). A member is a net whose policy is sampled; it plays without search, so that a thousand
episodes are a few matrix products. Nothing is ever removed: an average over the newest alone could cycle again.

Source: Brown (1951), "Iterative solution of games by fictitious play"; Heinrich, Lanctot & Silver (2015), "Fictitious self-play in
extensive-form games", for averaging over whole games: a member is drawn for an episode, not for an auction.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryptoalpha.decisions.league.config import LeagueMarketConfig
from cryptoalpha.decisions.league.market import Lots, Luck, Numbers, SharedMarket, View
from cryptoalpha.decisions.league.players import Player, Script, Weights, features, pick, softmax


@dataclass(frozen=True, eq=False)
class Population:
    """K members, oldest first; grows by `joined`."""

    market: LeagueMarketConfig
    weights: Weights

    def __len__(self) -> int:
        return self.weights.count

    def joined(self, newcomer: Weights) -> Population:
        """With one member more."""
        return Population(self.market, Weights.stacked([self.weights, newcomer]))

    def only(self, member: int) -> Population:
        """One member alone; −1 is the newest."""
        chosen = np.arange(len(self))[member]
        return Population(self.market, Weights.of({name: array[chosen : chosen + 1] for name, array in self.weights.arrays().items()}))

    def first(self, count: int) -> Population:
        """The oldest `count` members."""
        return Population(self.market, Weights.of({name: array[:count] for name, array in self.weights.arrays().items()}))

    def draw(self, shape: tuple[int, ...], random: np.random.Generator) -> NDArray[np.int64]:
        """Members, each with equal chance."""
        return random.integers(len(self), size=shape)

    def policies(self, read: NDArray[np.float32]) -> Numbers:
        """What each member does, `[n, F]` → shares `[K, n, A]`."""
        return softmax(self.weights.logits(read))

    def shares(self, read: NDArray[np.float32], who: NDArray[np.int64]) -> Numbers:
        """What member `who[i]` does where it reads `read[i]`: `[n, F]`, `[n]` → shares `[n, A]`."""
        arrays = self.weights.arrays()
        found = np.empty((len(read), len(self.market.targets)))
        for member in np.unique(who):
            rows = who == member
            one = Weights.of({name: array[member : member + 1] for name, array in arrays.items()})
            found[rows] = softmax(one.logits(read[rows])[0])
        return found

    def average(self, read: NDArray[np.float32]) -> Numbers:
        """What a member drawn with equal chance does, `[n, F]` → shares `[n, A]`."""
        return np.asarray(self.policies(read).mean(axis=0))


@dataclass(frozen=True, eq=False)
class Seat:
    """Members of a population sitting on one seat of B episodes, member `who[b]` in episode b; implements `Player`."""

    population: Population
    who: NDArray[np.int64]
    name: str = "member"
    knows_fundamental: bool = False

    def wants(self, view: View, held: Lots, luck: Numbers) -> Lots:
        market = self.population.market
        read = features(market, view.number, view.estimate, view.impact, view.change, view.pressure, held.astype(np.float64))
        shares = self.population.shares(read, self.who)
        return np.asarray(market.targets, np.int64)[pick(shares, luck)]


def scripted(market: LeagueMarketConfig) -> list[Player]:
    """The scripted players of a market, in the order of its settings."""
    return [Script(name, market) for name in market.scripts]


def play(market: LeagueMarketConfig, players: list[Player], luck: Luck) -> tuple[Lots, Lots]:
    """All auctions and the delivery: wealth `[B, seats]` and of the liquidity account `[B]`, ticks · lots; together 0 in every episode."""
    table = SharedMarket(market, luck)
    while not table.is_over:
        table.trade(orders(table, players))
    return table.deliver()


def orders(table: SharedMarket, players: list[Player]) -> Lots:
    """What each player wants, decided side by side: nobody sees another's order. `[B, seats]`."""
    wanted = [
        player.wants(
            table.view(knows_fundamental=player.knows_fundamental), table.inventories[:, seat], table.luck.lots[table.number, :, seat]
        )
        for seat, player in enumerate(players)
    ]
    return np.stack(wanted, axis=1)
