"""The AlphaZero loop: play with search, remember what the search thought and what came of it, teach the net, play better.

B episodes run side by side, so that every search is one batch. A row holds the state, the search's policy and value, and the reward; its
value target is a few rewards and then the search's value of the state reached (`learn.replay.n_step`): a terminated episode is worth
nothing more, a truncated one goes on from the net's value of its last state. Loss = cross-entropy(policy target, net) + c_v·squared error
of the value in units of `value_scale`; both are means over the batch.

World, search and net are the caller's. Episodes must come from data that the evaluation does not see.

Source: Silver et al. 2018, "A general reinforcement learning algorithm that masters chess, shogi and Go"; Schrittwieser et al. 2020
(MuZero) for n-step targets with discounts. Departure: one process, playing and learning in turns, so that a seed decides everything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.seeds import stream
from cryptoalpha.learn.config import ReplayConfig
from cryptoalpha.learn.descent import descend
from cryptoalpha.learn.replay.buffer import ReplayBuffer, policy_surprise
from cryptoalpha.learn.replay.schema import Column
from cryptoalpha.learn.replay.settings import refuse_other_settings
from cryptoalpha.learn.search.contract import Booleans, Floats, PlanResult, Roots

Features = Callable[[Floats], Floats]
"""States `[n, D]` → what the net reads, `[n, F]` float32."""

MASKED = -1e9
"""Logit of an illegal action while learning; its share of the policy is 0 in float32."""


class Happened(NamedTuple):
    """What followed the actions of B episodes. Shapes: rewards, discounts, terminated, truncated `[B]`; reached `[B, D]` the states that
    the actions led to, before an ended episode begins anew."""

    rewards: Floats
    discounts: Floats
    terminated: Booleans
    truncated: Booleans
    reached: Floats


class World(Protocol):
    """B episodes side by side, each beginning anew by itself when it ends."""

    def observe(self) -> Roots:
        """Where the episodes stand: states `[B, D]`, legal `[B, A]` or None."""
        ...

    def act(self, actions: NDArray[np.int64]) -> Happened:
        """Take one action in each."""
        ...

    def state(self) -> dict[str, Any]:
        """All that is needed to go on from here."""
        ...

    def load(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        ...


class Search(Protocol):
    """A plan with exploration, by the net's newest weights; `iteration` counts from 0, for temperatures that fall."""

    def __call__(self, roots: Roots, *, seed: int, iteration: int) -> PlanResult: ...


@dataclass(frozen=True)
class PlayRecipe:
    """One iteration: so many decisions, then so many steps of learning."""

    decisions: int = 6
    """Decisions of every episode between two lessons."""

    steps: int = 20
    """Steps of Adam per lesson."""

    batch: int = 256
    """Rows of one step."""

    learning_rate: float = 3e-3
    value_weight: float = 1.0
    """Weight c_v of the value's error against the policy's."""

    value_scale: float = 1.0
    """Typical size of a value, by which errors are divided."""

    gradient_clip: float = 1.0
    """Largest norm of the gradient."""


class Lesson(NamedTuple):
    """What one iteration looked like: mean reward of its decisions, means of both losses over its steps, rows remembered."""

    reward: float
    policy_loss: float
    value_loss: float
    rows: int


class Experience(NamedTuple):
    """One decision of B episodes: rows of the memory `[B]` by column, how much the search changed the net's mind `[B]`, mean reward."""

    rows: dict[str, Any]
    surprise: NDArray[np.float64]
    reward: float


class SelfPlay:
    """Plays, remembers, learns.

    Args:
        net: features `[n, F]` → (logits `[n, A]`, values `[n]` in the units of rewards).
        publish: makes new weights visible to `search`; called once at the beginning and after every lesson.
        replay: capacity and n_steps of the memory.
        seed: of searches and batches; the world has its own.

    Raises:
        ConfigError: a recipe that teaches nothing.
        ModelError: from the search, or from a loss that is not finite.
    """

    def __init__(
        self,
        world: World,
        search: Search,
        net: nn.Module,
        features: Features,
        *,
        publish: Callable[[], None],
        seed: int,
        replay: ReplayConfig,
        recipe: PlayRecipe = PlayRecipe(),
    ) -> None:
        if (
            min(recipe.decisions, recipe.steps, recipe.batch) < 1
            or min(recipe.learning_rate, recipe.value_scale, recipe.gradient_clip) <= 0
        ):
            raise ConfigError(f"{recipe} teaches nothing: counts must be ≥ 1, sizes above 0")
        self.world, self.search, self.net, self.features = world, search, net, features
        self.publish, self.seed, self.recipe = publish, seed, recipe
        self.optimiser = torch.optim.Adam(net.parameters(), lr=recipe.learning_rate, fused=True)
        self.iteration = 0
        """Iterations completed."""
        roots = world.observe()
        with torch.no_grad():
            logits, _ = net(_read(features, roots.states))
        self.memory = ReplayBuffer(row_schema(roots.states.shape[1], logits.shape[1]), replay, seed=seed, name="self-play")
        publish()

    def iterate(self) -> Lesson:
        """Play `decisions` times, then learn `steps` times."""
        rewards = []
        for turn in range(self.recipe.decisions):
            roots, seed = self.world.observe(), self.search_seed(turn)
            rewards.append(self.take(roots, self.search(roots, seed=seed, iteration=self.iteration), seed=seed))
        return self.learn(float(np.mean(rewards)))

    def search_seed(self, turn: int) -> int:
        """Seed of the search for this decision of the current iteration."""
        return int(stream(self.seed, "self-play", self.iteration, turn).integers(2**62))

    def learn(self, reward: float) -> Lesson:
        """The lesson that ends an iteration whose decisions earned `reward` on average."""
        policy_losses, value_losses = zip(*(self._learn() for _ in range(self.recipe.steps)), strict=True)
        self.iteration += 1
        self.publish()
        return Lesson(reward, float(np.mean(policy_losses)), float(np.mean(value_losses)), len(self.memory))

    def take(self, roots: Roots, plan: PlanResult, *, seed: int) -> float:
        """Act as planned from `roots` and remember it; the mean reward."""
        lived = experience(self.world, self.net, self.features, roots, plan, iteration=self.iteration, seed=seed)
        self.memory.add(lived.rows, lanes=np.arange(len(plan.action)), surprise=lived.surprise)
        return lived.reward

    def state(self) -> dict[str, Any]:
        """What continues this run bit for bit, together with the memory's own file (`memory.save`, `ReplayBuffer.restore`)."""
        return {
            "settings": self._settings(),
            "net": self.net.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "iteration": self.iteration,
            "world": self.world.state(),
        }

    def load(self, state: dict[str, Any], memory: ReplayBuffer) -> None:
        """Continue from `state` with the memory that was saved beside it.

        Raises:
            ConfigError: if it is of a run with another seed, recipe or replay settings; what differs is named, and nothing has changed.
        """
        refuse_other_settings("the state of self-play", state.get("settings", {}), self._settings())
        refuse_other_settings("its memory", memory.config.model_dump(), self.memory.config.model_dump(), "learn.replay.")
        if memory.schema != self.memory.schema:
            raise ConfigError(f"the memory holds columns {memory.schema}, expected {self.memory.schema}")
        self.net.load_state_dict(state["net"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.iteration = state["iteration"]
        self.world.load(state["world"])
        self.memory = memory
        self.publish()

    def _settings(self) -> dict[str, Any]:
        recipe = {f"recipe.{name}": value for name, value in asdict(self.recipe).items()}
        replay = {f"learn.replay.{name}": value for name, value in self.memory.config.model_dump().items()}
        return {"seed": self.seed, **recipe, **replay}

    def _learn(self) -> tuple[float, float]:
        ids, rows, weights = self.memory.sample(self.recipe.batch)
        targets = torch.from_numpy(self.memory.targets(ids).astype(np.float32))
        importance = torch.from_numpy(weights.astype(np.float32))
        logits, values = masked_answers(self.net, self.features, rows["state"], rows["legal"])
        policy_loss = -(importance * (torch.from_numpy(rows["policy_target"]) * torch.log_softmax(logits, dim=1)).sum(dim=1)).mean()
        value_loss = (importance * ((values - targets) / self.recipe.value_scale).square()).mean()
        loss = policy_loss + self.recipe.value_weight * value_loss
        descend(self.net, self.optimiser, loss, clip=self.recipe.gradient_clip, what=f"self-play, iteration {self.iteration}")
        return float(policy_loss.detach()), float(value_loss.detach())


def experience(
    world: World, net: nn.Module, features: Features, roots: Roots, plan: PlanResult, *, iteration: int, seed: int
) -> Experience:
    """Act as planned from `roots`, and what is worth remembering of it."""
    happened = world.act(plan.action)
    count, rows = len(plan.action), np.arange(len(plan.action))
    legal = np.ones(plan.policy_target.shape, dtype=np.bool_) if roots.legal is None else roots.legal
    with torch.no_grad():
        logits, _ = masked_answers(net, features, roots.states, legal)
        after = net(_read(features, happened.reached))[1].numpy()
    remembered = {
        "state": roots.states,
        "legal": legal,
        "policy_target": plan.policy_target,
        "value": plan.value,
        "value_after": after,
        "reward": happened.rewards,
        "discount": happened.discounts,
        "terminated": happened.terminated,
        "truncated": happened.truncated,
        "action": plan.action,
        "behaviour": plan.policy_target[rows, plan.action],
        "model_version": np.full(count, iteration),
        "seed": np.full(count, seed),
    }
    surprise = policy_surprise(plan.policy_target, torch.softmax(logits.double(), dim=1).numpy())
    return Experience(remembered, surprise, float(np.mean(happened.rewards)))


def masked_answers(net: nn.Module, features: Features, states: Floats, legal: Booleans) -> tuple[torch.Tensor, torch.Tensor]:
    """The net's logits `[n, A]`, illegal actions masked, and values `[n]`."""
    logits, values = net(_read(features, states))
    return logits.masked_fill(~torch.from_numpy(legal), MASKED), values


def _read(features: Features, states: Floats) -> torch.Tensor:
    return torch.from_numpy(np.asarray(features(states), dtype=np.float32))


def iterate_together(players: Sequence[SelfPlay], search: Search) -> list[Lesson]:
    """One iteration of several runs in lockstep, with one search for the roots of all of them, in their order.

    Small nets on small worlds spend their time on calls, not on numbers; several seeds at once cost little more than one. The search must
    know which root is whose (a column of the state) and is seeded by the first run. All runs must have the same recipe.
    """
    rewards = np.zeros((players[0].recipe.decisions, len(players)))
    for turn, earned in enumerate(rewards):
        asked = [player.world.observe() for player in players]
        seed = players[0].search_seed(turn)
        ends = np.cumsum([len(roots.states) for roots in asked])[:-1]
        legal = None if asked[0].legal is None else np.concatenate([roots.legal for roots in asked if roots.legal is not None])
        plan = search(Roots(np.concatenate([roots.states for roots in asked]), legal=legal), seed=seed, iteration=players[0].iteration)
        parts = (np.split(array, ends) for array in (plan.action, plan.policy_target, plan.q, plan.value))
        for i, (player, roots, action, target, q, value) in enumerate(zip(players, asked, *parts, strict=True)):
            earned[i] = player.take(roots, PlanResult(action, target, q, value, None, plan.stats), seed=seed)
    return [player.learn(float(mean)) for player, mean in zip(players, rewards.mean(axis=0), strict=True)]


def row_schema(numbers: int, actions: int) -> dict[str, Column]:
    """Columns of a row for states of so many numbers and so many actions.

    `behaviour` is the target's share of the action taken: its probability with a PUCT root at temperature 1, else near it.
    """
    return {
        "state": Column((numbers,)),
        "legal": Column((actions,), "bool"),
        "policy_target": Column((actions,)),
        "value": Column(),
        "value_after": Column(),
        "reward": Column(),
        "discount": Column(),
        "terminated": Column(dtype="bool"),
        "truncated": Column(dtype="bool"),
        "action": Column(dtype="int64"),
        "behaviour": Column(),
        "model_version": Column(dtype="int64"),
        "seed": Column(dtype="int64"),
    }
