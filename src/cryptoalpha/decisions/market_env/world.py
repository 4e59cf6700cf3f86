"""The vectorised environment as the world of `learn.self_play`, and as a source of states for `learn.expert_iteration`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryptoalpha.decisions.market_env.vector import VectorMarketEnv
from cryptoalpha.learn.search.contract import Floats, Roots
from cryptoalpha.learn.self_play import Happened


class EnvironmentWorld:
    """Episodes of an environment side by side; implements `self_play.World`.

    A state is the market's features with the bucket held behind them, `[x…, p]`, as `learn.search.market_tree` has it.

    Args:
        environment: lanes to play in.
        discount: of what follows a step; the environment itself does not discount.
        seed: of its episodes.
    """

    def __init__(self, environment: VectorMarketEnv, *, discount: float, seed: int) -> None:
        self.environment, self.discount = environment, discount
        environment.reset(seed=seed)

    def observe(self) -> Roots:
        """States `[B, F + 1]`, and which targets are on offer."""
        lanes = self.environment.lanes
        return Roots(self._states(), legal=lanes.masks())

    def act(self, actions: NDArray[np.int64]) -> Happened:
        """Hold these positions over one step."""
        _, rewards, terminated, truncated, infos = self.environment.step(actions)
        reached = self._states()
        ended = terminated | truncated
        if ended.any():
            reached[ended, :-1] = np.stack(infos["final_obs"][ended])[:, :-1]
            reached[ended, -1] = infos["final_info"]["bucket"][ended]
        return Happened(rewards, np.full(len(rewards), self.discount), terminated, truncated, reached)

    def state(self) -> dict[str, Any]:
        """Where the episodes stand and what chance will do."""
        return self.environment.lanes.state() | {"random": [one.bit_generator.state for one in self.environment.generators]}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.environment.lanes.load(state)
        for one, drawn in zip(self.environment.generators, state["random"], strict=True):
            one.bit_generator.state = drawn

    def _states(self) -> Floats:
        lanes = self.environment.lanes
        return np.concatenate([lanes.known.features, lanes.buckets()[:, None]], axis=1).astype(np.float32)


class VisitedStates:
    """Market states met while acting: what expert iteration plans from.

    Args:
        environment: lanes to act in.
        act: features `[B, F]` and buckets held `[B]` → targets `[B]`, by what is known now.
        seed: of the episodes.
    """

    def __init__(self, environment: VectorMarketEnv, act: Callable[[Floats, NDArray[np.int64]], NDArray[np.int64]], *, seed: int) -> None:
        self.environment, self._act = environment, act
        environment.reset(seed=seed)

    def next(self, steps: int) -> NDArray[np.float32]:
        """Act so many times; the states decided in `[B · steps, F]`, in the order met."""
        lanes, met = self.environment.lanes, []
        for _ in range(steps):
            features = lanes.known.features.astype(np.float32)
            met.append(features)
            self.environment.step(self._act(features, lanes.buckets()))
        return np.concatenate(met)
