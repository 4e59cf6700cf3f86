"""The Cournot check: the league's own loop, untouched, on the one-shot game whose equilibrium is known.

The market is one auction whose price lies 40 ticks below the fundamental, with an impact of one tick per lot and inventories of 0 to 40
lots: with q = lots / 40 a player earns q·(1 − Σq), times 1,600. Nobody tells the learner more than in any other market.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cryptoalpha.decisions.league.config import LeagueConfig, LeagueMarketConfig
from cryptoalpha.decisions.league.cournot_game import Cournot, Shares
from cryptoalpha.decisions.league.players import features
from cryptoalpha.decisions.league.population import Population
from cryptoalpha.decisions.league.training import League

LOTS = 40


@dataclass(frozen=True)
class CournotFound:
    """What the population came to: its mean quantity, how far that is from Nash, and the exploitability of its mixture (in units of q·(1 −
    Σq)) before any lesson and at the end."""

    players: int
    quantity: float
    distance: float
    exploitability_start: float
    exploitability_end: float


def cournot_settings(players: int, *, rounds: int = 60) -> LeagueConfig:
    """The game as a league's settings."""
    market = LeagueMarketConfig(
        steps=1,
        fundamental_volatility=0.0,
        mispricing_volatility=0.0,
        mispricing_start=-float(LOTS),
        permanent_impact=0.5,
        temporary_impact=0.5,
        half_spread=0,
        targets=tuple(range(LOTS + 1)),
        limit=LOTS,
        scripts=(),
    )
    return LeagueConfig(
        market=market, players=players, rounds=rounds, iterations=2, episodes=64, simulations=64, outcomes=(1,), hidden=(32,), steps=10,
        batch=64, judged_episodes=256,
    )  # fmt: skip


def learn_cournot(players: int, seed: int, *, rounds: int = 60) -> CournotFound:
    """Train a league on the game, and read off what its population does."""
    league, game = League(cournot_settings(players, rounds=rounds), seed=seed), Cournot(players)
    start = game.exploitability(mixture(league.population))
    while not league.is_done:
        league.round()
    shares = mixture(league.population)
    quantity = float(shares @ game.grid)
    return CournotFound(players, quantity, abs(quantity - game.nash), start, game.exploitability(shares))


def mixture(population: Population) -> Shares:
    """What a member drawn with equal chance chooses in the game's only state, shares `[41]`."""
    zero = np.zeros(1)
    read = features(population.market, 0, np.full(1, population.market.mispricing_start), zero, zero, zero, zero)
    return np.asarray(population.average(read)[0])
