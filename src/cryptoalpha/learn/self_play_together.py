"""Self-play by many: workers play, one learner learns, and who played what can never be seen in the result.

The episodes are cut into groups. In each iteration every group is played on by whichever worker is free: it gets the group's world as it
stands and the seeds of its searches, and gives back the experience and the world as it stands then. Weights travel once per iteration. The
memory gets the groups in their order, so one worker or many, threads or a cluster, and also workers that died and were replaced: the same
bits. One group is `SelfPlay` itself.

    def build() -> Player: ...                            # net, world, search; at the top of a module

    with open_workers(settings.learn.runtime, 4, build) as workers:
        many = SelfPlayTogether(learner, workers, [world(seed).state() for seed in range(8)])
        lesson = many.iterate()

Source: Silver et al. 2018 (one learner, many players). Departure: players and learner take turns, so that a seed decides everything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.seeds import stream
from cryptoalpha.learn.replay.buffer import ReplayBuffer
from cryptoalpha.learn.self_play import Experience, Features, Lesson, Search, SelfPlay, World, experience
from cryptoalpha.learn.sent_weights import packed_weights, put_weights
from cryptoalpha.learn.workers import Workers, outlive


@dataclass(frozen=True)
class Player:
    """What a worker plays with: its own world, net and search, `publish` making the net's new weights visible to the search."""

    world: World
    search: Search
    net: nn.Module
    features: Features
    publish: Callable[[], None]


class Turns(NamedTuple):
    """What one group is to play: from this state of its world, one decision per seed."""

    world: dict[str, Any]
    seeds: tuple[int, ...]
    iteration: int


class Played(NamedTuple):
    """What came of it, decision by decision, and the world as it stands now."""

    lived: list[Experience]
    world: dict[str, Any]


class SelfPlayTogether:
    """One learner, whose episodes are played by workers.

    Args:
        learner: holds net, memory and recipe; its own world and search are not used.
        workers: who play, each with a `Player` whose net is built like the learner's.
        worlds: the state of each group's world; as many episodes in each.

    Raises:
        ConfigError: without a group.
    """

    def __init__(self, learner: SelfPlay, workers: Workers[Player], worlds: Sequence[dict[str, Any]]) -> None:
        if not worlds:
            raise ConfigError("no group of episodes was given to be played")
        self.learner, self.workers, self.worlds = learner, workers, list(worlds)

    def iterate(self) -> Lesson:
        """Play `decisions` times in every group, then learn.

        Raises:
            WorkerDiedError: if workers died and were not to be replaced (again); nothing was learned or remembered of this iteration.
            ModelError: from a search or a loss.
        """
        learner, workers = self.learner, self.workers
        weights = packed_weights(learner.net)
        items = [Turns(world, self._seeds(group), learner.iteration) for group, world in enumerate(self.worlds)]

        def ask() -> list[Played]:
            workers.each(adopt_weights, weights)
            return workers.map(play, items)

        played = outlive(workers, ask, prepare=lambda: None)
        self.worlds = [one.world for one in played]
        for turn in range(learner.recipe.decisions):
            for group, one in enumerate(played):
                lived = one.lived[turn]
                count = len(lived.surprise)
                learner.memory.add(lived.rows, lanes=group * count + np.arange(count), surprise=lived.surprise)
        return learner.learn(float(np.mean([lived.reward for one in played for lived in one.lived])))

    def state(self) -> dict[str, Any]:
        """What continues this run bit for bit, together with the memory's own file; see `SelfPlay.state`."""
        return {**self.learner.state(), "worlds": self.worlds}

    def load(self, state: dict[str, Any], memory: ReplayBuffer) -> None:
        """Continue from there; raises like `SelfPlay.load`."""
        if len(state.get("worlds", ())) != len(self.worlds):
            raise ConfigError(
                f"the state is of a run with {len(state.get('worlds', ()))} groups of episodes, this one has {len(self.worlds)}"
            )
        self.learner.load({name: value for name, value in state.items() if name != "worlds"}, memory)
        self.worlds = list(state["worlds"])

    def _seeds(self, group: int) -> tuple[int, ...]:
        """The first group is seeded as a run of its own."""
        learner = self.learner
        turns = range(learner.recipe.decisions)
        if group == 0:
            return tuple(learner.search_seed(turn) for turn in turns)
        return tuple(int(stream(learner.seed, "self-play", learner.iteration, turn, group).integers(2**62)) for turn in turns)


def adopt_weights(player: Player, weights: bytes) -> None:
    """In a worker: the learner's weights, seen by the search too."""
    put_weights(player.net, weights)
    player.publish()


def play(player: Player, turns: Turns) -> Played:
    """In a worker: play one group on."""
    player.world.load(turns.world)
    lived = []
    for seed in turns.seeds:
        roots = player.world.observe()
        plan = player.search(roots, seed=seed, iteration=turns.iteration)
        lived.append(experience(player.world, player.net, player.features, roots, plan, iteration=turns.iteration, seed=seed))
    return Played(lived, player.world.state())
