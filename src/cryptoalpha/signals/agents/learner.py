"""Learning what acting on texts is worth, from outcomes that have matured.

An action is a position: strong sell −1, sell −½, hold 0, buy ½, strong buy 1. What came of it is

    r = position × z − cost × |position|        z: return over the horizon in units of its volatility, open to open; cost in the same units

and is known when the bar that ends the horizon is. One step, no discount: the value is what the policy earns from a state, the advantage
what an action earned beyond that (A2C, `learn.actor_critic`). Until their outcomes are known, decisions wait in `learn.delayed`; an outcome
from the future is refused there and again by the learner.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from cryptoalpha.learn.actor_critic.delayed import DelayedRewards
from cryptoalpha.learn.actor_critic.learner import ActorCritic, UpdateReport
from cryptoalpha.learn.actor_critic.loss import Batch
from cryptoalpha.learn.config import ActorCriticConfig
from cryptoalpha.learn.replay.schema import Column
from cryptoalpha.nets.text_agent import text_networks
from cryptoalpha.signals.agents.text_states import Inputs
from cryptoalpha.store.tables import Floats, Times

POSITIONS = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
"""Of strong sell, sell, hold, buy, strong buy (`signals.tape.ACTIONS`)."""

REPORTS = 1_000
"""Reports of updates kept, the newest."""

Actions = npt.NDArray[np.int64]


def outcome(actions: Actions, move: Floats, cost: Floats) -> Floats:
    """What came of actions. `[n]`: moves and costs in units of volatility over the horizon → `[n]`."""
    position = POSITIONS[actions]
    earned: Floats = position * move - cost * np.abs(position)
    return earned


@dataclass(frozen=True)
class LearnerSettings:
    """How it learns.

    Args:
        inputs: numbers of a state.
        batch: outcomes of one update.
        capacity: decisions that may wait for their outcomes.
    """

    inputs: int
    batch: int = 256
    capacity: int = 1 << 14


@dataclass
class TextLearner:
    """Decides, waits, learns.

    Args:
        name: tells its random stream from those of others of the same run.
    """

    settings: LearnerSettings
    config: ActorCriticConfig
    seed: int
    name: str = "text agent"
    reports: list[UpdateReport] = field(default_factory=list)

    def __post_init__(self) -> None:
        config = self.config
        self.policy, self.value, self.projection = text_networks(
            self.settings.inputs, config.policy_widths, config.value_widths, seed=self.seed
        )
        self.learner = ActorCritic(self.policy, self.value, config, seed=self.seed, name=self.name)
        schema = {
            "inputs": Column((self.settings.inputs,), "float32"),
            "action": Column((), "int64"),
            "log_behaviour": Column((), "float32"),
        }
        memory = self.settings.capacity * (4 * self.settings.inputs + 64)
        self.waiting = DelayedRewards(schema, self.settings.capacity, memory_bytes=memory)

    def fit_scaler(self, inputs: Inputs) -> None:
        """Scale by what was seen before learning begins."""
        self.projection.fit_scaler(torch.from_numpy(inputs))

    def decide(self, inputs: Inputs, *, decided_at: Times, due_at: Times) -> tuple[Actions, npt.NDArray[np.int64]]:
        """Draw an action for every state `[n, D]` and let it wait for its outcome; actions and tickets `[n]`."""
        acted = self.learner.act(torch.from_numpy(inputs))
        actions = acted.actions.numpy().astype(np.int64)
        rows: dict[str, npt.NDArray[Any]] = {
            "inputs": inputs,
            "action": actions,
            "log_behaviour": acted.log_behaviour.numpy().astype(np.float32),
        }
        return actions, self.waiting.decide(rows, decided_at=decided_at, due_at=due_at)

    def settle(self, tickets: npt.NDArray[np.int64], rewards: Floats, *, known_at: Times) -> None:
        """Say what came of decisions, and when that was known."""
        self.waiting.settle(tickets, rewards, known_at=known_at)

    def learn(self, now: int) -> int:
        """Learn from every outcome known by now; how many there were.

        Raises:
            LookAheadError: if an outcome is known only later (none leaves the queue before, so this is a fault of the clock).
        """
        matured = self.waiting.mature(now)
        for start in range(0, len(matured), self.settings.batch):
            part = slice(start, start + self.settings.batch)
            inputs = torch.from_numpy(matured.rows["inputs"][part])
            rewards = torch.from_numpy(matured.rewards[part].astype(np.float32))
            with torch.no_grad():
                expected = self.value(inputs).squeeze(1)
            batch = Batch(
                features=inputs,
                actions=torch.from_numpy(matured.rows["action"][part]),
                log_behaviour=torch.from_numpy(matured.rows["log_behaviour"][part]),
                advantages=rewards - expected,
                returns=rewards,
                known_at=matured.known_at[part],
            )
            self.reports.append(self.learner.update(batch, now=now))
            del self.reports[:-REPORTS]
        return len(matured)

    def answers(self, inputs: Inputs) -> tuple[Floats, Floats]:
        """Value `[n]` and probabilities of the actions `[n, 5]`."""
        return answers(self.policy, self.value, inputs)

    def save(self, path: Path) -> None:
        """Write networks, optimiser and whoever waits, beside each other."""
        self.waiting.save(path.with_suffix(".waiting"))
        self.learner.save(path)

    def restore(self, path: Path) -> None:
        """Become the learner that was saved, bit for bit.

        Raises:
            DataMissingError, StoreError, ConfigError: as `ActorCritic.restore`.
        """
        self.learner.restore(path)
        self.waiting = DelayedRewards.restore(
            path.with_suffix(".waiting"), schema=self.waiting.schema, memory_bytes=self.settings.capacity * (4 * self.settings.inputs + 64)
        )


def answers(policy: torch.nn.Module, value: torch.nn.Module, inputs: Inputs) -> tuple[Floats, Floats]:
    """Value `[n]` and probabilities of the actions `[n, 5]`, state by state: what a state gets does not depend on those beside it."""
    if not len(inputs):
        return np.empty(0), np.empty((0, len(POSITIONS)))
    with torch.no_grad():
        rows = [(value(row), torch.softmax(policy(row).double(), dim=1)) for row in torch.split(torch.from_numpy(inputs), 1)]
    return (
        torch.cat([one for one, _ in rows]).double().squeeze(1).numpy(),
        torch.cat([shares for _, shares in rows]).numpy(),
    )


def arrays_of(policy: torch.nn.Module, value: torch.nn.Module) -> dict[str, npt.NDArray[Any]]:
    """The weights of both, by name."""
    named = {f"policy/{name}": tensor for name, tensor in policy.state_dict().items()}
    named |= {f"value/{name}": tensor for name, tensor in value.state_dict().items()}
    return {name: tensor.detach().numpy().copy() for name, tensor in named.items()}
