"""What learns the OU chain in tests and benches: two small nets, episodes to play, and tables that stand for a net while planning.

The chain has 31 markets and 7 positions, so a net is asked about all 217 states once after each lesson, and planners read its answers from
a table: the same numbers, without a net call per simulation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cryptoalpha.core.seeds import stream
from cryptoalpha.learn.problems.ou_chain import OuChain, Policy
from cryptoalpha.learn.search.contract import Floats, Roots
from cryptoalpha.learn.self_play import Happened

VALUE_SCALE = 5.0
"""Typical size of a value of the chain (0.95 discount, rewards near a quarter)."""


def market_features(chain: OuChain, states: Floats) -> NDArray[np.float32]:
    """x/2σ of market states `[n, 1]` → `[n, 1]`."""
    scaled: NDArray[np.float32] = (chain.grid[states[:, :1].astype(np.int64)] / (2.0 * chain.spread)).astype(np.float32)
    return scaled


def play_features(chain: OuChain, states: Floats) -> NDArray[np.float32]:
    """x/2σ and the position of tree states `[n, 2]` → `[n, 2]`."""
    held = chain.positions[states[:, 1].astype(np.int64)].astype(np.float32)
    return np.stack([market_features(chain, states)[:, 0], held], axis=1)


class ValueNet(nn.Module):
    """V(x, ·): features `[n, 1]` → `[n, 7]`; a perceptron 1-64-64-7 whose output is multiplied by `VALUE_SCALE`."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(torch_seed(seed))
            self.layers = nn.Sequential(nn.Linear(1, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 7))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Values in the units of rewards."""
        values: torch.Tensor = VALUE_SCALE * self.layers(features)
        return values


class PlayNet(nn.Module):
    """Policy and value: features `[n, 2]` → logits `[n, 7]`, values `[n]`; a perceptron 2-64-64 with two heads."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(torch_seed(seed))
            self.trunk = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
            self.policy, self.value = nn.Linear(64, 7), nn.Linear(64, 1)

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits, and values in the units of rewards."""
        hidden = self.trunk(features)
        return self.policy(hidden), VALUE_SCALE * self.value(hidden)[:, 0]


def torch_seed(seed: int) -> int:
    """A seed for torch's generator, drawn from the run's."""
    return int(stream(seed, "ou chain", "net").integers(2**62))


class ValueTable:
    """A `ValueNet` as a table, for `OuChain(guess=table)`; `read()` copies the newest weights' answers."""

    def __init__(self, chain: OuChain, net: ValueNet) -> None:
        self.net = net
        self.features = market_features(chain, np.arange(chain.states, dtype=np.float32)[:, None])
        self.values = np.zeros((chain.states, len(chain.positions)), dtype=np.float32)

    def read(self) -> None:
        """Ask the net about every market."""
        with torch.no_grad():
            self.values = self.net(torch.from_numpy(self.features)).numpy()

    def __call__(self, states: Floats) -> Floats:
        return self.values[states[:, 0].astype(np.int64)]


class PlayTable:
    """A `PlayNet` as tables, for `OuChain(guess=table.guess, prior=table.prior)`; `read()` copies the newest weights' answers."""

    def __init__(self, chain: OuChain, net: PlayNet) -> None:
        self.net = net
        self.shape = (chain.states, len(chain.positions))
        every = np.stack(np.divmod(np.arange(chain.states * self.shape[1]), self.shape[1]), axis=1).astype(np.float32)
        self.features = play_features(chain, every)
        self.values = np.zeros(self.shape, dtype=np.float32)
        self.logits = np.zeros((*self.shape, self.shape[1]), dtype=np.float32)

    def read(self) -> None:
        """Ask the net about every market and position."""
        with torch.no_grad():
            logits, values = self.net(torch.from_numpy(self.features))
        self.logits, self.values = logits.numpy().reshape(*self.shape, -1), values.numpy().reshape(self.shape)

    def guess(self, states: Floats) -> Floats:
        """Values `[n, 7]`."""
        return self.values[states[:, 0].astype(np.int64)]

    def prior(self, states: Floats) -> Floats:
        """Logits `[n, 7, 7]`."""
        return self.logits[states[:, 0].astype(np.int64)]

    @property
    def policy(self) -> Policy:
        """What the net would do without search: `[31, 7]`."""
        return np.asarray(self.logits.argmax(axis=2))


class OuEpisodes:
    """Episodes of the chain side by side, with the rewards that really happened; implements `self_play.World`.

    Args:
        episodes: B.
        restart: chance per decision that an episode ends (truncated) and begins anew in a random market and position.
    """

    def __init__(self, chain: OuChain, episodes: int, *, seed: int, restart: float = 0.1) -> None:
        self.chain, self.restart = chain, restart
        self.random = stream(seed, "ou chain", "episodes")
        self.markets, self.held = self._anywhere(episodes)

    def observe(self) -> Roots:
        """States `[B, 2]`: market and position."""
        return Roots(np.stack([self.markets, self.held], axis=1).astype(np.float32))

    def act(self, actions: NDArray[np.int64]) -> Happened:
        """Hold these positions over one step."""
        chain, count = self.chain, len(actions)
        following = chain.follow(self.markets, self.random.random(count))
        target = chain.positions[actions]
        rewards = target * (chain.grid[following] - chain.grid[self.markets]) - chain.risk_aversion * target**2
        rewards -= chain.trade_costs[0, self.held, actions]
        reached = np.stack([following, actions], axis=1).astype(np.float32)
        ended = self.random.random(count) < self.restart
        anew = self._anywhere(count)
        self.markets, self.held = np.where(ended, anew[0], following), np.where(ended, anew[1], actions)
        return Happened(rewards, np.full(count, chain.discount), np.zeros(count, dtype=np.bool_), ended, reached)

    def state(self) -> dict[str, Any]:
        """Where the episodes stand and what chance will do."""
        return {"markets": self.markets, "held": self.held, "random": self.random.bit_generator.state}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.markets, self.held = state["markets"], state["held"]
        self.random.bit_generator.state = state["random"]

    def _anywhere(self, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return self.random.integers(self.chain.states, size=count), self.random.integers(len(self.chain.positions), size=count)
