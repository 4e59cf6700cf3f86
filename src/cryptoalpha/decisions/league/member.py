"""A member of a trained league, read from its folder: what it was trained for, and the player it is.

What it is good for: it trades where its own orders and those of others like it move the price, and knows that. The book of the trading loop
is a price taker (its orders are far below what a bar trades), so nothing in the loop asks a league's member; it serves as an opponent, as a
baseline for agents in the shared market, and where size is large against liquidity.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cryptoalpha.core.errors import ModelError
from cryptoalpha.decisions.league.config import LeagueConfig
from cryptoalpha.decisions.league.players import Weights
from cryptoalpha.decisions.league.population import Population, Seat
from cryptoalpha.store.model_folder import ModelFolder

KIND = "league"


@dataclass(frozen=True, eq=False)
class TrainedLeague:
    """The population as it was when training ended; the newest member is its best answer."""

    config: LeagueConfig
    population: Population

    @classmethod
    def open(cls, folder: Path) -> TrainedLeague:
        """Read a folder that `train agent --league` wrote.

        Raises:
            ConfigError: if there is none.
            ModelError: if it is damaged or of another kind.
        """
        found = ModelFolder.open(folder, KIND)
        config = LeagueConfig.model_validate(found.description["config"])
        weights = Weights.of(found.read(0).arrays)
        if weights.policy[-1][0].shape[-1] != len(config.market.targets):
            raise ModelError(
                f"{folder} chooses between {weights.policy[-1][0].shape[-1]} inventories, its market has {config.market.targets}"
            )
        return cls(config, Population(config.market, weights))

    def player(self, episodes: int, member: int = -1) -> Seat:
        """A member (−1: the newest) for one seat of so many episodes."""
        return Seat(self.population.only(member), np.zeros(episodes, np.int64))
