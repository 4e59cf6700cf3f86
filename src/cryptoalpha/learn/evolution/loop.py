"""Evolve in one call: ask, evaluate (here or on workers), tell, accept or undo, checkpoint, report.

    found = evolve(Evolution(net, config, seed=0), fitness, generations=60, accept=goal_on_the_third_split)

With workers each holds a replica of the strategy, built where it lives. What travels per generation is (generation, pairs) out,
(generation, pair, F+, F−) back and the whole table out once more, so that every replica takes the same update; weights travel once, when a
worker joins a run that has already begun. One worker or many, or none: bit-equal weights (`Workers.map` keeps the order of the items), also
if workers die and may be replaced: a member's fitness is a function of its generation and pair, so it is measured again.

    def build() -> Replica: ...                 # the net, its Evolution and its fitness; at the top of a module

    with LocalProcesses(4, build) as workers:
        here = build()
        evolve(here.strategy, here.fitness, generations=60, workers=workers)

Accept split: data that neither the fitness nor a selection by validation has seen. An update stays only if the goal there is no lower than
the best accepted value so far less `accept_tolerance`. The best, not the last: many small falls do not add up to a large one.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from math import inf, isfinite, isnan
from pathlib import Path
from typing import Any

import numpy as np

from cryptoalpha.core.errors import ConfigError, ModelError, WorkerDiedError
from cryptoalpha.learn.evolution.checkpoint import load, save
from cryptoalpha.learn.evolution.population import Together
from cryptoalpha.learn.evolution.strategy import Evolution, Fitness, Table
from cryptoalpha.learn.workers import Workers, outlive

Answer = tuple[int, int, float, float]
"""(generation, pair, F+, F−): all that a worker sends back."""


@dataclass(frozen=True)
class Generation:
    """What one generation brought."""

    number: int
    mean: float
    """Mean fitness of the members."""
    best: float
    """Fitness of the best member; it is not kept, its noise counts most."""
    accepted: bool
    goal: float | None = None
    """The goal on the accept split after the update; None without one."""
    floor: float | None = None
    """What that goal had to reach."""

    def __str__(self) -> str:
        text = f"generation {self.number}: mean {self.mean:.6g}, best {self.best:.6g}"
        if self.goal is None:
            return text
        return f"{text}; accept split {self.goal:.6g}, {'kept' if self.accepted else f'undone: below {self.floor:.6g}'}"


@dataclass(frozen=True)
class Evolved:
    """A run's history. The weights are in the strategy's tensors, that is, in the network."""

    history: tuple[Generation, ...]
    start_goal: float | None
    """The goal on the accept split before the first generation."""
    best_goal: float | None
    """The best accepted goal."""

    @property
    def undone(self) -> int:
        """Number of generations whose update was undone."""
        return sum(not generation.accepted for generation in self.history)


@dataclass(frozen=True)
class Replica:
    """What a worker holds: its own network inside a strategy, and the fitness that measures it."""

    strategy: Evolution
    fitness: Fitness


def evolve(
    strategy: Evolution,
    fitness: Fitness,
    *,
    generations: int,
    accept: Callable[[], float] | None = None,
    workers: Workers[Replica] | None = None,
    checkpoint: Path | None = None,
    checkpoint_every: int = 10,
    progress: Callable[[Generation], None] | None = None,
) -> Evolved:
    """Run until `generations` generations have been evaluated in all, those of a resumed checkpoint counted.

    Args:
        fitness: larger is better; gets the generation's number, by which it picks the batch that all members share.
        accept: the goal on the accept split, measured on the live weights; larger is better. None keeps every update.
        workers: who evaluate; None evaluates here.
        checkpoint: a file to resume from if it is there, written every `checkpoint_every` generations and at the end.
        progress: called after every generation.

    Raises:
        ModelError: if a fitness or the goal is NaN, the goal +∞ or its first value not finite, or a worker has other weights than this
            process. The accepted weights are back then.
        ConfigError: if the checkpoint belongs to another run, or `generations` or `checkpoint_every` is not positive.
        StoreError: if the checkpoint is damaged or cannot be written.
        WorkerDiedError: if workers died and were not to be replaced (again).
    """
    if generations < 1 or checkpoint_every < 1:
        raise ConfigError(f"generations {generations} and checkpoint_every {checkpoint_every} must be at least 1")
    run = _Run(strategy, fitness, accept, workers)
    run.begin(checkpoint)
    while strategy.generation < generations:
        made = run.generation()
        if checkpoint is not None and (strategy.generation % checkpoint_every == 0 or strategy.generation == generations):
            save(strategy, checkpoint, run.notes())
        if progress is not None:
            progress(made)
    return Evolved(tuple(run.history), run.start_goal, run.best_goal)


@dataclass
class _Run:
    """A run between two generations."""

    strategy: Evolution
    fitness: Fitness
    accept: Callable[[], float] | None
    workers: Workers[Replica] | None
    history: list[Generation] = field(default_factory=list)
    start_goal: float | None = None
    best_goal: float | None = None

    def begin(self, checkpoint: Path | None) -> None:
        """Resume if there is something to resume; measure the start; give the workers the same weights."""
        if checkpoint is not None and checkpoint.exists():
            notes = load(self.strategy, checkpoint)
            self.history = [Generation(**made) for made in notes["history"]]
            self.start_goal, self.best_goal = notes["start_goal"], notes["best_goal"]
        if self.accept is not None:
            if self.best_goal is None:
                self.start_goal = self.best_goal = self._goal("before the first generation")
            if not isfinite(self.best_goal):  # no fall could be told from it: a start of −∞ would accept −∞, one of +∞ nothing
                raise ModelError(
                    f"the goal on the accept split is {self.best_goal} before generation {self.strategy.generation}, expected a number",
                    hint="begin with weights whose goal can be measured",
                )
        self._bring_together()

    def notes(self) -> dict[str, Any]:
        """What a checkpoint holds beside the strategy."""
        return {"history": [asdict(made) for made in self.history], "start_goal": self.start_goal, "best_goal": self.best_goal}

    def generation(self) -> Generation:
        """Evaluate, update, decide."""
        number, table = self.strategy.generation, self._evaluate()
        goal, floor, accepted = None, None, True
        if self.accept is None:
            self.strategy.tell(table)
        else:
            assert self.best_goal is not None
            floor = self.best_goal - self.strategy.config.accept_tolerance
            self.strategy.propose(table)
            try:
                goal = self._goal("the update was undone")
                accepted = goal >= floor
            except BaseException:
                self.strategy.undo()
                raise
            if accepted:
                self.strategy.accept()
                self.best_goal = max(self.best_goal, goal)
            else:
                self.strategy.undo()
        if self.workers is not None:
            try:
                self.workers.each(follow, (number, table, accepted))
            except WorkerDiedError:
                if not self.workers.revive():
                    raise
                self._bring_together()  # who has followed and who has not is lost with them: the new ones get the weights
        made = Generation(number, float(table.mean()), float(table.max()), accepted, goal, floor)
        self.history.append(made)
        return made

    def _evaluate(self) -> Table:
        strategy = self.strategy
        if self.workers is None:
            return strategy.evaluate(self.fitness)
        at_once = (
            self.fitness.pairs if isinstance(self.fitness, Together) else 1
        )  # never by the number of workers: batches round differently
        items = [(strategy.generation, first, min(first + at_once, strategy.pairs)) for first in range(0, strategy.pairs, at_once)]
        table = np.full((strategy.pairs, 2), np.nan)
        workers = self.workers
        found = outlive(workers, lambda: workers.map(evaluate_pairs, items), prepare=lambda: _join(workers, strategy))
        for generation, pair, plus, minus in (answer for answers in found for answer in answers):
            assert generation == strategy.generation
            table[pair] = plus, minus
        return table

    def _bring_together(self) -> None:
        workers, strategy = self.workers, self.strategy
        if workers is not None:
            outlive(workers, lambda: _join(workers, strategy), prepare=lambda: None)

    def _goal(self, what: str) -> float:
        assert self.accept is not None
        goal = float(self.accept())
        if isnan(goal) or goal == inf:
            raise ModelError(
                f"generation {self.strategy.generation}: the goal on the accept split is {'NaN' if isnan(goal) else '+∞'}; {what}",
                hint="a goal that can fail should return −inf, which is never accepted",
            )
        return goal


def evaluate_pairs(replica: Replica, item: tuple[int, int, int]) -> list[Answer]:
    """In a worker: the fitness of pairs first … stop − 1 of a generation.

    Raises:
        ModelError: if the replica is at another generation, or a fitness is NaN.
    """
    generation, first, stop = item
    _check_generation(replica, generation)
    found = replica.strategy.evaluate(replica.fitness, range(first, stop))
    return [(generation, first + row, float(plus), float(minus)) for row, (plus, minus) in enumerate(found)]


def follow(replica: Replica, item: tuple[int, Table, bool]) -> None:
    """In a worker: take the update of a generation, or skip it where it was undone."""
    generation, table, accepted = item
    _check_generation(replica, generation)
    if accepted:
        replica.strategy.tell(table)
    else:
        replica.strategy.undo()


def fingerprint(replica: Replica, _: None) -> str:
    """In a worker: digest of its weights, moments and settings."""
    return replica.strategy.fingerprint()


def adopt(replica: Replica, state: tuple[bytes, int, int]) -> None:
    """In a worker: take over weights and moments of the run."""
    arrays, generation, steps = state
    with np.load(io.BytesIO(arrays), allow_pickle=False) as archive:
        found = [archive[str(number)] for number in range(len(archive.files))]
    sizes, own = [parts.shape[1] for parts in found], [tensor.size for tensor in replica.strategy.tensors]
    if sizes != own:
        raise ModelError(f"a worker's tensors have {own} elements, those of the run {sizes}", hint="build both with the same function")
    for parts, tensor in zip(found, replica.strategy.tensors, strict=True):
        tensor.accepted[:], tensor.first[:], tensor.second[:] = parts
    replica.strategy.resume(generation=generation, steps=steps)


def _join(workers: Workers[Replica], strategy: Evolution) -> None:
    """See that all workers hold the same strategy, and give them its state if they do not."""
    expected = strategy.fingerprint()
    if all(found == expected for found in workers.each(fingerprint, None)):
        return
    buffer = io.BytesIO()
    stacked = {str(number): np.stack([t.accepted, t.first, t.second]) for number, t in enumerate(strategy.tensors)}
    np.savez(buffer, allow_pickle=False, **stacked)
    workers.each(adopt, (buffer.getvalue(), strategy.generation, strategy.steps))
    if any(found != expected for found in workers.each(fingerprint, None)):
        raise ModelError(
            "the workers' strategy differs from the one here in its settings, its seed or its tensors",
            hint="build both with the same function",
        )


def _check_generation(replica: Replica, generation: int) -> None:
    if replica.strategy.generation != generation:
        raise ModelError(
            f"a worker is at generation {replica.strategy.generation}, asked for {generation}", hint="begin again with new workers"
        )
