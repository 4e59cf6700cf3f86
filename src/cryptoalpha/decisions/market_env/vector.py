"""The same environment for B episodes at once, in whole arrays: what learning runs on.

Lane i is `MarketEnv` seeded with seed + i, bit for bit (a test compares with gymnasium's own `SyncVectorEnv`). An ended episode begins
anew within the step that ended it: its last observation and info are in `infos["final_obs"]` and `infos["final_info"]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.decisions.market_env.config import EnvironmentConfig
from cryptoalpha.decisions.market_env.lanes import Lanes
from cryptoalpha.decisions.market_env.market import Market
from cryptoalpha.execution.config import CostConfig
from cryptoalpha.learn.search.contract import Booleans, Integers

Observations = NDArray[np.float32]


class VectorMarketEnv(VectorEnv[Observations, NDArray[np.int64], NDArray[Any]]):
    """B episodes side by side. Arguments as of `MarketEnv`, and `num_envs`, B.

    Observations `[B, F + 1]`, rewards, terminations and truncations `[B]`; infos hold arrays `[B, ...]`.
    """

    def __init__(self, market: Market, config: EnvironmentConfig, costs: CostConfig, *, num_envs: int) -> None:
        self.num_envs = num_envs
        self.metadata = {"render_modes": [], "autoreset_mode": AutoresetMode.SAME_STEP}
        self.lanes = Lanes(market, config, costs, num_envs)
        self.single_observation_space = spaces.Box(self.lanes.low, self.lanes.high, dtype=np.float32)
        self.single_action_space = spaces.Discrete(config.positions)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.generators: list[np.random.Generator] = []
        """One per lane, made by the first reset."""

    @property  # type: ignore[misc]
    def np_random(self) -> tuple[np.random.Generator, ...]:  # type: ignore[override]
        """The generator of each lane, as gymnasium's own vectors give them; none before the first reset."""
        return tuple(self.generators)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observations, dict[str, Any]]:
        """Begin all episodes; lane i with `seed + i`, or with the i-th of several seeds, or going on with its own generator.

        Raises:
            ConfigError: another number of seeds than lanes, or options nobody knows.
        """
        seeds = [seed + i for i in range(self.num_envs)] if isinstance(seed, int) else list(seed or [None] * self.num_envs)
        if len(seeds) != self.num_envs:
            raise ConfigError(f"{len(seeds)} seeds for {self.num_envs} lanes")
        if not self.generators:
            self.generators = [seeding.np_random(one)[0] for one in seeds]
        else:
            self.generators = [old if one is None else seeding.np_random(one)[0] for old, one in zip(self.generators, seeds, strict=True)]
        self.lanes.reset(np.arange(self.num_envs), self.generators, options)
        return self.lanes.observations(), self._told(self.lanes.info(None), np.ones(self.num_envs, dtype=np.bool_))

    def step(self, actions: Integers) -> tuple[Observations, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """One decision per lane; ended ones begin anew."""
        everywhere = np.ones(self.num_envs, dtype=np.bool_)
        stepped = self.lanes.step(np.asarray(actions, dtype=np.int64))
        observations, infos = self.lanes.observations(), self.lanes.info(stepped.settled)
        ended = stepped.terminated | stepped.truncated
        told = self._told(infos, everywhere)
        if ended.any():
            final = self._told({name: np.where(_beside(ended, value), value, 0) for name, value in infos.items()}, ended)
            last = np.full(self.num_envs, None, dtype=object)
            for lane in np.flatnonzero(ended):
                last[lane] = observations[lane].copy()
            self.lanes.reset(np.flatnonzero(ended), self.generators)
            fresh = self.lanes.info(None)
            told = self._told({name: np.where(_beside(ended, value), fresh[name], value) for name, value in infos.items()}, everywhere)
            told |= {"final_obs": last, "_final_obs": ended.copy(), "final_info": final, "_final_info": ended.copy()}
            observations = self.lanes.observations()
        return observations, stepped.settled.rewards, np.array(stepped.terminated), np.array(stepped.truncated), told

    @staticmethod
    def _told(values: dict[str, NDArray[Any]], where: NDArray[np.bool_]) -> dict[str, Any]:
        """Infos as gymnasium's vectors tell them: beside each array, where it holds."""
        return {key: told for name, value in values.items() for key, told in ((name, value), (f"_{name}", where.copy()))}


def _beside(flags: Booleans, value: NDArray[Any]) -> Booleans:
    """Flags `[B]` shaped to select rows of `value` `[B, ...]`."""
    return flags.reshape(-1, *(1,) * (value.ndim - 1))
