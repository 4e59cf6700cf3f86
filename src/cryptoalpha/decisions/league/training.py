"""Training in the league: a learner plays against its own past and the scripted players, and joins the population when it is not worse.

    league = League(config, seed=1)
    while not league.is_done:
        league.round()          # lessons of self-play (AlphaZero), then the gate

A round is `iterations` lessons of `learn.self_play`: Gumbel tree search in `planning.LeagueModel`, where the learner's trades move the
price and the others move by the population's average policy; memory; n-step targets; Adam. Then learner and newest member sit in the same
seat with the same luck: the learner is frozen and joins unless it is worse with `gate_confidence`. So it always answers the time average of
the population (fictitious play), never its latest self alone.

The whole run is one seed: `save` after any round and `load` give the rounds that an uninterrupted run would have had, bit for bit.

Source: Silver et al. (2018), AlphaZero; Heinrich, Lanctot & Silver (2015), fictitious self-play; Lanctot et al. (2017), "A unified
game-theoretic approach to multiagent reinforcement learning", for populations. Departures: members play without search.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cryptoalpha.core.seeds import stream
from cryptoalpha.decisions.league.config import LeagueConfig
from cryptoalpha.decisions.league.episodes import LeagueEpisodes
from cryptoalpha.decisions.league.judging import gate
from cryptoalpha.decisions.league.planning import HELD, LeagueModel, read
from cryptoalpha.decisions.league.players import FEATURES, Weights
from cryptoalpha.decisions.league.population import Population
from cryptoalpha.learn.config import ReplayConfig
from cryptoalpha.learn.fit import checkpoint
from cryptoalpha.learn.replay.buffer import ReplayBuffer
from cryptoalpha.learn.search.contract import Budget, PlanResult, Roots, Rules
from cryptoalpha.learn.search.plan import plan
from cryptoalpha.learn.self_play import PlayRecipe, SelfPlay
from cryptoalpha.nets.config import PolicyValueConfig
from cryptoalpha.nets.policy_value import PolicyValueNet

EXPLORING = Rules(root="gumbel", gumbel_scale=1.0)


@dataclass(frozen=True)
class Round:
    """What a round came to: mean reward and losses of its last lesson, the paired gain over the newest member (ticks · lots) with its
    standard error, and whether the learner joined."""

    number: int
    reward: float
    policy_loss: float
    value_loss: float
    gain: float
    error: float
    joined: bool


class League:
    """One training, round by round.

    Raises:
        ModelError: from a search or a loss that is not finite.
    """

    def __init__(self, config: LeagueConfig, *, seed: int) -> None:
        self.config, self.seed, market = config, seed, config.market
        actions, members = len(market.targets), config.players - 1
        sizes = PolicyValueConfig(
            state_width=FEATURES, hidden=config.hidden, policy_hidden=config.hidden[-1], value_hidden=config.hidden[-1]
        )
        self.net = PolicyValueNet(sizes, actions, seed=int(stream(seed, "league", "net").integers(2**62)))
        self.population = Population(market, weights_of(self.net))
        """Past selves; the first one is untrained."""
        self.rounds: list[Round] = []
        self.members = members
        self.model = LeagueModel(market, members, self.population, self.population.weights)
        world = LeagueEpisodes(market, self.population, members=members, episodes=config.episodes, seed=seed)
        recipe = PlayRecipe(decisions=market.steps, steps=config.steps, batch=config.batch, learning_rate=config.learning_rate)
        replay = ReplayConfig(capacity=config.remembered_lessons * market.steps * config.episodes, n_steps=min(3, market.steps))
        self.budget = Budget(simulations=config.simulations, outcomes=config.outcomes)
        self.player = SelfPlay(
            world, self._search, self.net, lambda states: read(market, states, HELD),
            publish=self._publish, seed=seed, replay=replay, recipe=recipe,
        )  # fmt: skip
        self.world = world

    @property
    def is_done(self) -> bool:
        """Whether all rounds were played."""
        return len(self.rounds) >= self.config.rounds

    def round(self) -> Round:
        """Learn, then ask at the gate."""
        lesson = [self.player.iterate() for _ in range(self.config.iterations)][-1]
        newcomer = Population(self.config.market, weights_of(self.net))
        number = len(self.rounds) + 1
        gain = gate(newcomer, self.population, self.members, episodes=self.config.judged_episodes, seed=self.seed, number=number)
        joins = gain.mean >= -NormalDist().inv_cdf(self.config.gate_confidence) * gain.error
        if joins:
            self._seat(self.population.joined(newcomer.weights))
        self.rounds.append(Round(number, lesson.reward, lesson.policy_loss, lesson.value_loss, gain.mean, gain.error, bool(joins)))
        return self.rounds[-1]

    def save(self, place: Path) -> None:
        """Write a checkpoint into the folder `place`; killed at any moment, the one before it stays whole.

        Raises:
            StoreError: if it cannot be written.
        """
        memory = f"memory_{len(self.rounds):04d}.safetensors"
        self.player.memory.save(place / memory)
        state = self.player.state()
        content = {
            "identity": self._identity(),
            "memory": memory,
            "rounds": [asdict(one) for one in self.rounds],
            "population": {name: torch.from_numpy(array) for name, array in self.population.weights.arrays().items()},
            "player": state | {"world": _tensors(state["world"])},
        }
        checkpoint.write(place / "league.checkpoint", checkpoint.encode(content))
        for old in place.glob("memory_*.safetensors"):
            if old.name != memory:
                old.unlink(missing_ok=True)

    def load(self, place: Path) -> bool:
        """Go on from the checkpoint in `place`; False if there is none.

        Raises:
            ConfigError: if it belongs to another training.
            StoreError: if it is damaged.
        """
        file = place / "league.checkpoint"
        content = checkpoint.read(file)
        if content is None:
            return False
        kept = checkpoint.decode(content, str(file))
        checkpoint.check_identity(kept["identity"], self._identity(), str(file))
        memory = ReplayBuffer.restore(place / kept["memory"], config=self.player.memory.config)
        self._seat(Population(self.config.market, Weights.of({name: tensor.numpy() for name, tensor in kept["population"].items()})))
        self.player.load(kept["player"] | {"world": _arrays(kept["player"]["world"])}, memory)
        self.rounds = [Round(**one) for one in kept["rounds"]]
        return True

    def _identity(self) -> dict[str, Any]:
        return {"seed": self.seed, **self.config.model_dump(mode="json", exclude={"rounds"})}

    def _seat(self, population: Population) -> None:
        self.population = self.model.population = self.world.population = population

    def _publish(self) -> None:
        self.model.weights = weights_of(self.net)

    def _search(self, roots: Roots, *, seed: int, iteration: int) -> PlanResult:
        found = plan(roots, self.model, self.budget, seed=seed, rules=EXPLORING)
        # A Gumbel root visits what it then rejects; the value of its improved policy is what the state is worth to whoever follows it.
        return replace(found, value=(found.policy_target * found.q).sum(axis=1))


def weights_of(net: PolicyValueNet) -> Weights:
    """A copy of the net's weights as one member; the scale of its values is folded into the last layer."""

    def layers(part: torch.nn.Module) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        linear = [layer for layer in part.modules() if isinstance(layer, torch.nn.Linear)]
        return [(layer.weight.detach().numpy().T[None].copy(), layer.bias.detach().numpy()[None, None].copy()) for layer in linear]

    value = layers(net.value)
    scale, mean = net.value_scale.numpy(), net.value_mean.numpy()
    value[-1] = (value[-1][0] * scale, value[-1][1] * scale + mean)
    return Weights(tuple(layers(net.trunk)), tuple(layers(net.policy)), tuple(value))


def _tensors(value: Any) -> Any:
    """Arrays inside as tensors, which a checkpoint may hold."""
    if isinstance(value, dict):
        return {name: _tensors(entry) for name, entry in value.items()}
    return torch.from_numpy(np.array(value)) if isinstance(value, np.ndarray) else value


def _arrays(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _arrays(entry) for name, entry in value.items()}
    return value.numpy() if isinstance(value, torch.Tensor) else value
