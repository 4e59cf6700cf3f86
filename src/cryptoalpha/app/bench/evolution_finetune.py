"""Does evolution destroy what it is given? Fine-tuning from a trained optimum, the project's strategy beside the sketch's.

A network 32 → 256 → 256 → 1 (74,497 weights) is trained by Adam to imitate a teacher of the same shape. From that optimum no step can help:
what a strategy does there is harm, and what matters is how little. Fitness is minus the squared error on a batch that all members of a
generation share; the loss that is reported is on 2,048 samples that nothing was chosen by, the drift is |w − w₀| / |w₀|.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cryptoalpha.app.bench.sketch_evolution import SketchEvolution
from cryptoalpha.learn.config import EvolutionConfig
from cryptoalpha.learn.evolution import Evolution, Population, Replica, Together, evolve

INPUTS, WIDTH, BATCH, HELD_OUT = 32, 256, 128, 2_048
POPULATION, GENERATIONS = 50, 60
TRAINING_STEPS, START_NOISE = 400, 0.002


@dataclass(frozen=True)
class Outcome:
    """Where a strategy ended."""

    loss: float
    drift: float
    undone: int = 0


@dataclass(frozen=True)
class Task:
    """A teacher to imitate, and a network that does."""

    teacher: nn.Module
    net: nn.Module

    def batch(self, kind: str, number: int, size: int) -> tuple[Tensor, Tensor]:
        """Inputs `[size, 32]` and answers `[size]`: `kind` is the split, `number` the batch in it."""
        generator = torch.Generator().manual_seed({"train": 1, "accept": 2, "test": 3}[kind] * 1_000_000 + number)
        x = torch.randn(size, INPUTS, generator=generator)
        with torch.no_grad():
            return x, self.teacher(x)[:, 0]

    def loss(self, kind: str = "test", number: int = 0, size: int = HELD_OUT) -> float:
        x, y = self.batch(kind, number, size)
        with torch.no_grad():
            return float((self.net(x)[:, 0] - y).square().mean())


def network(seed: int) -> nn.Sequential:
    """32 → 256 → 256 → 1 with tanh between; its weights depend on `seed` only."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(INPUTS, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, 1))


def trained_task(seed: int = 0, steps: int = TRAINING_STEPS) -> Task:
    """The task at its optimum: started beside the teacher and trained, so that training ends in seconds and generalises."""
    task = Task(network(seed), network(seed))
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in task.net.parameters():
            parameter.add_(START_NOISE * torch.randn(parameter.shape, generator=generator))
    optimiser = torch.optim.Adam(task.net.parameters(), lr=3e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for step in range(steps):
        x, y = task.batch("train", step, BATCH)
        optimiser.zero_grad()
        (task.net(x)[:, 0] - y).square().mean().backward()
        optimiser.step()
        schedule.step()
    return task


def fitness_of(task: Task) -> Together:
    """Minus the squared error of every member on the generation's batch."""

    def fitness(population: Population) -> Tensor:
        x, y = task.batch("train", 100_000 + population.generation, BATCH)
        found: Tensor = task.net(population.spread(x))[..., 0]
        return -(found - y).square().mean(-1)

    return Together(fitness)


def fine_tune(start: Task, config: EvolutionConfig, *, accept: bool) -> Outcome:
    """The project's strategy from there."""
    task = Task(start.teacher, deepcopy(start.net))
    found = evolve(
        Evolution(task.net, config, seed=0),
        fitness_of(task),
        generations=GENERATIONS,
        accept=(lambda: -task.loss("accept")) if accept else None,
    )
    return Outcome(task.loss(), _drift(task.net, start.net), found.undone)


def fine_tune_as_sketched(start: Task, sigma: float) -> Outcome:
    """The sketch's strategy from there."""
    task = Task(start.teacher, deepcopy(start.net))
    strategy = SketchEvolution(task.net, population=POPULATION, sigma=sigma, seed=0)
    for generation in range(GENERATIONS):
        strategy.generation(_on_batch(task, 100_000 + generation))
    return Outcome(task.loss(), _drift(task.net, start.net))


def replica() -> Replica:
    """A small untrained task for the comparison of workers; each builds its own."""
    task = Task(network(0), network(1))

    def fitness(generation: int) -> float:
        return -task.loss("train", generation, BATCH)

    return Replica(Evolution(task.net, EvolutionConfig(population=10), seed=5), fitness)


def _on_batch(task: Task, number: int) -> Callable[[], float]:
    x, y = task.batch("train", number, BATCH)

    def fitness() -> float:
        with torch.no_grad():
            return -float((task.net(x)[:, 0] - y).square().mean())

    return fitness


def _drift(net: nn.Module, start: nn.Module) -> float:
    moved = nn.utils.parameters_to_vector(net.parameters()).detach()
    begin = nn.utils.parameters_to_vector(start.parameters()).detach()
    return float((moved - begin).norm() / begin.norm())
