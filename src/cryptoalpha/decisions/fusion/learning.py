"""How the fusion's network learns: from what its decisions earned, and from what the search made of its proposals.

Lessons are matured experience (`experience.Lessons`). The actor-critic part rewards actions that earned more than the value expected
(advantages by GAE along chains of decisions one search step apart, the ratio to the policy that really acted clipped); the distillation
part draws the policy towards the search's. Both are one loss, one guarded step (`learn.actor_critic`): a step that would lead to numbers
that are not finite, or move the policy too far, does not happen.

Chains: the reward of a decision closes a horizon of h bars later, so the state it led to is the one decided on h bars later. Decisions t,
t + h, t + 2h, … form a chain; h of them lie side by side. The last decision of a chain has not seen what follows, so it teaches nothing
itself; its value stands for the rest (truncation, bootstrapped).

Source: Mnih et al. (2016), A2C; Schulman et al. (2016), GAE; Silver et al. (2017), learning from a search's policy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cryptoalpha.core.errors import ConfigError, LookAheadError
from cryptoalpha.core.seeds import stream
from cryptoalpha.core.time import iso
from cryptoalpha.decisions.fusion.experience import Lessons
from cryptoalpha.decisions.fusion.learning_config import FusionLearningConfig
from cryptoalpha.decisions.fusion.network import is_unscaled, scale_from
from cryptoalpha.learn.actor_critic.gae import gae
from cryptoalpha.learn.actor_critic.learner import ActorCritic, UpdateReport
from cryptoalpha.learn.actor_critic.loss import Batch
from cryptoalpha.nets.policy_value import PolicyValueNet


@dataclass(frozen=True, eq=False)
class Chained:
    """What lessons teach after their chains have been followed. Shapes: all `[M]`; `rows` counts the lessons they came from."""

    rows: NDArray[np.int64]
    advantages: NDArray[np.float64]
    returns: NDArray[np.float64]

    def of(self, chosen: NDArray[np.bool_]) -> Chained:
        """Some of them."""
        return Chained(self.rows[chosen], self.advantages[chosen], self.returns[chosen])


@dataclass(frozen=True)
class Lesson:
    """What one call of `teach` did."""

    taught: int
    """Decisions that taught: those whose successor in the chain is known too."""
    updates: int
    """Steps kept in this call."""
    rollbacks: int
    """Steps undone in this call."""
    policy_loss: float
    """Mean over the last pass; so are the next four. NaN where nothing taught."""
    value_loss: float
    distillation_loss: float
    entropy: float
    explained_variance: float
    why: str = ""
    """Why the newest undone step was undone."""


class _Policy(nn.Module):
    """The network's logits alone."""

    def __init__(self, net: PolicyValueNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, states: Tensor) -> Tensor:
        logits: Tensor = self.net.policy(self.net.trunk(states))
        return logits


class _Value(nn.Module):
    """The network's value before its scale: squared errors of a few basis points would teach nothing."""

    def __init__(self, net: PolicyValueNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, states: Tensor) -> Tensor:
        values: Tensor = self.net.value(self.net.trunk(states))
        return values


class FusionLearner:
    """Teaches one network.

    Args:
        net: taught in place.
        config: step size, weights and limits.
        discount: worth of one step of the search later, as the search has it.
        seed: of the run; the order of the lessons is drawn from `stream(seed, "fusion-learner", updates so far)`.

    Raises:
        ModelError: if a weight of `net` is not finite.
    """

    def __init__(self, net: PolicyValueNet, config: FusionLearningConfig, *, discount: float, seed: int) -> None:
        self.net, self.config, self.discount, self.seed = net, config, discount, seed
        self._critic = ActorCritic(
            _Policy(net),
            _Value(net),
            config.actor_critic(),
            seed=seed,
            name="fusion",
            distillation_weight=config.distillation_weight,
        )

    @property
    def updates(self) -> int:
        """Steps kept so far."""
        return self._critic.updates

    def values(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """What the network says states `[N, 100]` are worth, `[N]`, in the rewards' unit."""
        with torch.no_grad():
            _, values = self.net(torch.from_numpy(np.ascontiguousarray(features, np.float32)))
        return np.asarray(values.double().numpy())

    def teach(
        self,
        lessons: Lessons,
        *,
        now: int,
        passes: int | None = None,
        only: NDArray[np.bool_] | None = None,
        told: Callable[[UpdateReport], None] | None = None,
    ) -> Lesson:
        """Learn from `lessons` in random order, `passes` times (as configured without it).

        Args:
            now: UTC ns: what the learner's clock reads.
            only: `[N]`, those that teach; the others say what followed. All teach without it.
            told: called after every step.

        Raises:
            LookAheadError: if a reward is known only after `now`.
            ConfigError: if `lessons` have another number of actions.
        """
        refuse_unmatured(lessons, now)
        if lessons.legal.shape[1:] != (self.net.actions,):
            raise ConfigError(f"lessons of {lessons.legal.shape[1:]} actions for a network of {self.net.actions}")
        reports: list[UpdateReport] = []
        newest: list[UpdateReport] = []
        count = 0
        for _ in range(self.config.passes if passes is None else passes):
            chained = self._chained(lessons, only)
            count, newest = len(chained.rows), []
            order = stream(self.seed, "fusion-learner", self._critic.updates, self._critic.rollbacks).permutation(count)
            for start in range(0, count, self.config.batch):
                chosen = order[start : start + self.config.batch]
                if len(chosen) < 2:  # nothing to compare an advantage with
                    continue
                report = self._critic.update(self._batch(lessons, chained, chosen), now=now)
                newest.append(report)
                if told is not None:
                    told(report)
            reports.extend(newest)
        return _summed(count, reports, newest)

    def save(self, path: Path) -> None:
        """Write everything that the next step depends on (`array_file`: atomic, checked on reading)."""
        self._critic.save(path)

    def restore(self, path: Path) -> None:
        """Become the learner that was saved, bit for bit.

        Raises:
            DataMissingError: if there is no such file.
            StoreError: if it is damaged, or of another network.
            ConfigError: if it learned under other settings.
        """
        self._critic.restore(path)

    def _chained(self, lessons: Lessons, only: NDArray[np.bool_] | None) -> Chained:
        """Advantages by the values as they are now. The very first lessons set the value's scale: until then it knows no unit."""
        if is_unscaled(self.net) and len(lessons):
            scale_from(self.net, lessons.rewards, discount=self.discount)
        found = chained(lessons, self.values(lessons.features), discount=self.discount, trace=self.config.gae_lambda)
        return found if only is None else found.of(only[found.rows])

    def _batch(self, lessons: Lessons, chained: Chained, chosen: NDArray[np.int64]) -> Batch:
        rows = chained.rows[chosen]
        mean, scale = float(self.net.value_mean), float(self.net.value_scale)
        return Batch(
            features=torch.from_numpy(lessons.features[rows]),
            actions=torch.from_numpy(lessons.actions[rows]),
            log_behaviour=torch.from_numpy(np.log(lessons.behaviour[rows]).astype(np.float32)),
            advantages=torch.from_numpy(chained.advantages[chosen].astype(np.float32)) / scale,
            returns=torch.from_numpy(((chained.returns[chosen] - mean) / scale).astype(np.float32)),
            legal=torch.from_numpy(lessons.legal[rows]),
            policy_target=torch.from_numpy(lessons.policy_target[rows]) if self.config.distillation_weight > 0.0 else None,
            known_at=lessons.known_at[rows],
        )


def refuse_unmatured(lessons: Lessons, now: int) -> None:
    """Refuse rewards from the future.

    Raises:
        LookAheadError: if a reward is known only after `now`, or before it falls due; the decision is named.
    """
    early = (lessons.known_at > now) | (lessons.known_at < lessons.due_at)
    if early.any():
        row = int(np.argmax(early))
        raise LookAheadError(
            f"the reward of the decision at {iso(int(lessons.decided_at[row]))} is due at {iso(int(lessons.due_at[row]))} and known at "
            f"{iso(int(lessons.known_at[row]))}, but the clock reads {iso(now)}: it cannot teach yet",
            hint="learn from what ExperienceQueue.take(now) hands out",
        )


def chained(lessons: Lessons, values: NDArray[np.float64], *, discount: float, trace: float) -> Chained:
    """Advantages and returns along the chains of decisions. `values` `[N]`: what each decision's state is worth.

    Raises:
        ModelError: if a reward or a value is not finite.
    """
    decided, due = lessons.decided_at, lessons.due_at
    at = np.minimum(np.searchsorted(decided, due), max(len(decided) - 1, 0))
    follows = np.where(decided[at] == due, at, -1) if len(decided) else np.empty(0, np.int64)
    if (follows >= 0).any():
        rows, truncated = _in_chains(follows)
        after = values[follows[rows]]
        column = [part[:, None] for part in (lessons.rewards[rows], values[rows], after, np.zeros(len(rows), np.bool_), truncated)]
        found = gae(*column, discount=discount, trace=trace)
        return Chained(rows, found.advantages[:, 0], found.returns[:, 0])
    nothing = np.empty(0)
    return Chained(np.empty(0, np.int64), nothing, nothing)


def _in_chains(follows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Decisions with a successor, chain after chain, each in the order of time; and which of them is the last of its chain."""
    led_to = np.zeros(len(follows), np.bool_)
    led_to[follows[follows >= 0]] = True
    rows, truncated = [], []
    for first in np.flatnonzero(~led_to & (follows >= 0)).tolist():
        row = first
        while follows[row] >= 0:
            rows.append(row)
            row = int(follows[row])
            truncated.append(follows[row] < 0)
    return np.array(rows, np.int64), np.array(truncated, np.bool_)


def _summed(taught: int, reports: list[UpdateReport], last: list[UpdateReport]) -> Lesson:
    undone = [report for report in reports if report.rolled_back]

    def mean(name: str) -> float:
        return float(np.mean([getattr(report, name) for report in last])) if last else math.nan

    return Lesson(
        taught=taught,
        updates=len(reports) - len(undone),
        rollbacks=len(undone),
        policy_loss=mean("policy_loss"),
        value_loss=mean("value_loss"),
        distillation_loss=mean("distillation_loss"),
        entropy=mean("entropy"),
        explained_variance=mean("explained_variance"),
        why=undone[-1].rolled_back if undone else "",
    )
