"""The market environment of gymnasium: one instrument, target positions on a grid, honest fills.

See `lanes` for the clock and `account` for the rules. gymnasium is imported with this module, so import it where it is needed.

Source: the interface of Towers et al. 2024, "Gymnasium: a standard interface for reinforcement learning environments".
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from cryptoalpha.decisions.market_env.config import EnvironmentConfig
from cryptoalpha.decisions.market_env.lanes import Lanes
from cryptoalpha.decisions.market_env.market import Market
from cryptoalpha.execution.config import CostConfig

Observation = NDArray[np.float32]
ONLY = np.zeros(1, dtype=np.int64)


class MarketEnv(gymnasium.Env[Observation, np.int64]):
    """One episode after another in a market.

    Actions are targets on the grid (`Discrete(K)`): the bucket held, or a target that `info["action_mask"]` does not offer, trades
    nothing. Observations `[F + 1]` float32 are the market's features and the position held. Ruin and the market's own end terminate, the
    horizon truncates. `reset` takes `options={"place": ..., "position": ...}` to start from somewhere; all else is drawn from `np_random`.

    Args:
        market: what stands behind (`market`, `bars`).
        config: grid, horizon, reward.
        costs: what a trade costs.
    """

    def __init__(self, market: Market, config: EnvironmentConfig, costs: CostConfig) -> None:
        self.lanes = Lanes(market, config, costs, 1)
        self.observation_space = spaces.Box(self.lanes.low, self.lanes.high, dtype=np.float32)
        self.action_space = spaces.Discrete(config.positions)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode; with a seed the same one every time."""
        super().reset(seed=seed)
        self.lanes.reset(ONLY, [self.np_random], options)
        return self.lanes.observations()[0], self._first(self.lanes.info(None))

    def step(self, action: np.int64) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Choose a target; observation, reward, terminated, truncated, info."""
        stepped = self.lanes.step(np.array([action], dtype=np.int64))
        info = self._first(self.lanes.info(stepped.settled))
        reward, terminated, truncated = float(stepped.settled.rewards[0]), bool(stepped.terminated[0]), bool(stepped.truncated[0])
        return self.lanes.observations()[0], reward, terminated, truncated, info

    @staticmethod
    def _first(info: dict[str, Any]) -> dict[str, Any]:
        return {name: value[0] for name, value in info.items()}
