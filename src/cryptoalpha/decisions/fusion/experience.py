"""What the fusion's search leaves behind for learning: what it saw, what it wanted, what it did, and later what came of it.

A decision waits in a queue until the horizon of its reward has closed; only then does it become a lesson. Who learns gets lessons and
nothing else, so an unmatured label cannot teach: the queue refuses a reward that claims to be known before it falls due, and the learner
refuses lessons that are known later than its own clock.

No torch here: the loop that decides imports this, the learner runs elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.learn.actor_critic.delayed import DelayedRewards
from cryptoalpha.learn.replay.schema import Column
from cryptoalpha.store.array_file import Array

STATE_WIDTH = 100
"""Numbers that describe a state of the fusion to its network; what is not used is zero. The width of `nets.policy_value`."""


@dataclass(frozen=True)
class Experience:
    """One decision of the search for the whole book.

    Shapes: features `[100]`, legal `[A]`, policy_target `[A]` (sums to 1 over what is legal).
    """

    decided_at: int
    """UTC ns."""
    due_at: int
    """When the horizon of its reward closes, UTC ns."""
    features: NDArray[np.float32]
    legal: NDArray[np.bool_]
    policy_target: NDArray[np.float32]
    """What the search would do: the target of distillation."""
    action: int
    """What was done."""
    behaviour: float
    """Probability (above 0, at most 1) with which the policy that acted took this action."""
    root_value: float
    """What the search expected, in the unit of its rewards."""


@dataclass(frozen=True, eq=False)
class Lessons:
    """Decisions whose reward is known, oldest decision first.

    Shapes: features `[N, 100]`, legal and policy_target `[N, A]`, all others `[N]`. Rewards are the realised counterpart of what the search
    expects of one step, in the same unit.
    """

    features: NDArray[np.float32]
    legal: NDArray[np.bool_]
    policy_target: NDArray[np.float32]
    actions: NDArray[np.int64]
    behaviour: NDArray[np.float64]
    root_values: NDArray[np.float64]
    rewards: NDArray[np.float64]
    decided_at: NDArray[np.int64]
    due_at: NDArray[np.int64]
    known_at: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.actions)

    def rows(self, chosen: NDArray[np.int64] | NDArray[np.bool_] | slice) -> Lessons:
        """Some of them, in the order chosen."""
        return Lessons(**{name: array[chosen] for name, array in self.arrays().items()})

    def known_by(self, now: int) -> Lessons:
        """Those whose reward is known at `now` (UTC ns)."""
        return self.rows(self.known_at <= now)

    def arrays(self) -> dict[str, Array]:
        """All columns by name, as `store.array_file` keeps them."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @staticmethod
    def joined(parts: Sequence[Lessons]) -> Lessons:
        """One after the other, then by the moment of the decision.

        Raises:
            ConfigError: without parts, or if they are of different widths.
        """
        if not parts or len({(part.features.shape[1:], part.legal.shape[1:]) for part in parts}) > 1:
            raise ConfigError("lessons to be joined must be some, of one width and one number of actions")
        columns = {name: np.concatenate([part.arrays()[name] for part in parts]) for name in parts[0].arrays()}
        order = np.argsort(columns["decided_at"], kind="stable")
        return Lessons(**{name: column[order] for name, column in columns.items()})


@dataclass(frozen=True, eq=False)
class MaturedBar:
    """How a bar turned out, for several fusions side by side.

    Shapes: predictions `[F, I]` (expected outcomes) and outcomes `[I]` (NaN without a verdict), in units of the volatility over the
    horizon; scores `[F]`, log score of the predictions less that of expecting nothing.
    """

    decided_at: int
    known_at: int
    predictions: NDArray[np.float64]
    outcomes: NDArray[np.float64]
    scores: NDArray[np.float64]
    reward: float
    """What the searched weights earned by the end of the horizon, in the search's unit; NaN where that is not known."""


class ExperienceQueue:
    """Decisions that wait for their reward.

    Args:
        actions: number of actions A.
        capacity: decisions that may wait at once: above the bars of one horizon.
        width: numbers of a state.

    Raises:
        ConfigError: if there is no action, or no room for a decision.
    """

    def __init__(self, actions: int, *, capacity: int = 4_096, width: int = STATE_WIDTH) -> None:
        if actions < 1:
            raise ConfigError(f"experience of {actions} actions cannot be kept; at least 1 is needed")
        self.actions, self.width = actions, width
        schema = {
            "features": Column((width,)),
            "legal": Column((actions,), "bool"),
            "policy_target": Column((actions,)),
            "actions": Column((), "int64"),
            "behaviour": Column((), "float64"),
            "root_values": Column((), "float64"),
            "due_at": Column((), "int64"),
        }
        self._queue = DelayedRewards(schema, capacity)

    def __len__(self) -> int:
        return len(self._queue)

    def remember(self, experience: Experience) -> int:
        """Let a decision wait; returns its ticket.

        Raises:
            ConfigError: if it does not fit, its action is illegal or its probability none, or the queue is full.
            LookAheadError: if its reward would be due before its decision.
            ModelError: if a number is not finite.
        """
        legal = np.asarray(experience.legal, np.bool_)
        if not 0 <= experience.action < self.actions or not legal[experience.action] or not 0.0 < experience.behaviour <= 1.0 + 1e-6:
            raise ConfigError(
                f"action {experience.action} of {self.actions} with probability {experience.behaviour} is illegal or could not be taken"
            )
        rows = {
            "features": np.asarray(experience.features, np.float32)[None],
            "legal": legal[None],
            "policy_target": np.asarray(experience.policy_target, np.float32)[None],
            "actions": np.array([experience.action]),
            "behaviour": np.array([min(experience.behaviour, 1.0)]),
            "root_values": np.array([experience.root_value], np.float64),
            "due_at": np.array([experience.due_at]),
        }
        return int(self._queue.decide(rows, decided_at=experience.decided_at, due_at=experience.due_at)[0])

    def settle(self, ticket: int, reward: float, *, known_at: int) -> None:
        """Say what came of a decision, and when that was known (UTC ns).

        Raises:
            LookAheadError: if it claims to be known before it falls due.
            ModelError: if the reward is not finite.
            ConfigError: for a ticket that does not wait.
        """
        self._queue.settle([ticket], [reward], known_at=known_at)

    def drop(self, ticket: int) -> None:
        """Give up a decision whose reward will never be known."""
        self._queue.drop([ticket])

    def take(self, now: int) -> Lessons:
        """The decisions whose reward is known by `now` (UTC ns); each leaves once."""
        matured = self._queue.mature(now)
        order = np.argsort(matured.decided_at, kind="stable")
        return Lessons(
            **{name: matured.rows[name][order] for name in matured.rows},
            rewards=matured.rewards[order],
            decided_at=matured.decided_at[order],
            known_at=matured.known_at[order],
        )
