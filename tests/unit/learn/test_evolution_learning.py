"""That it learns: a quadratic, a network, as well as a plain strategy; that it does no harm; that it needs no memory."""

from __future__ import annotations

import math
import subprocess
import sys
import textwrap
from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import nn

from cryptoalpha.core.errors import ModelError
from cryptoalpha.learn.config import EvolutionConfig
from cryptoalpha.learn.evolution import Evolution, Population, Together, evolve
from cryptoalpha.learn.evolution.ranks import centred_ranks


@pytest.mark.parametrize("rank", [0, 1])
def test_a_quadratic_is_climbed_to_its_top(rank):
    top = torch.linspace(-1, 1, 120).reshape(10, 12)
    w = {"w": torch.zeros(10, 12)}
    strategy = Evolution(w, EvolutionConfig(rank=rank, sigma=0.05, learning_rate=0.03), seed=0)
    evolve(strategy, lambda generation: -float((w["w"] - top).square().sum()), generations=200)
    assert float((w["w"] - top).norm() / top.norm()) < 0.05


class Regression:
    """A teacher of 8 → 16 → 1 with noise on its answers; batches by number."""

    def __init__(self, noise: float = 0.0) -> None:
        torch.manual_seed(1)
        self.teacher = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))
        self.noise = noise
        self.clean = self.batch(999_999, 1_024, noise=0.0)

    def batch(self, number: int, size: int, noise: float | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(number)
        x = torch.randn(size, 8, generator=generator)
        with torch.no_grad():
            y = 3.0 * self.teacher(x)[:, 0]
        return x, y + (self.noise if noise is None else noise) * torch.randn(size, generator=generator)

    def student(self) -> nn.Sequential:
        torch.manual_seed(2)
        return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))

    def loss(self, net: nn.Module, data: tuple[torch.Tensor, torch.Tensor] | None = None) -> float:
        x, y = self.clean if data is None else data
        with torch.no_grad():
            return float((net(x)[:, 0] - y).square().mean())

    def common(self, net: nn.Module, size: int) -> Together:
        def fitness(population: Population) -> torch.Tensor:
            x, y = self.batch(population.generation, size)
            found: torch.Tensor = net(population.spread(x))[..., 0]
            return -(found - y).square().mean(-1)

        return Together(fitness)


CONFIG = EvolutionConfig(sigma=0.05, learning_rate=0.02)


def plain_strategy(world: Regression, generations: int, size: int) -> float:
    """Mirrored full noise, copies of everything, torch's Adam: the textbook, with other random numbers."""
    net = world.student()
    mean = nn.Parameter(nn.utils.parameters_to_vector(net.parameters()).detach().clone())
    adam = torch.optim.Adam([mean], lr=CONFIG.learning_rate, maximize=True)
    generator = torch.Generator().manual_seed(5)
    for generation in range(generations):
        noise = torch.randn(25, len(mean), generator=generator)
        data = world.batch(generation, size)
        table = np.empty((25, 2))
        for pair in range(25):
            for column, sign in enumerate((1, -1)):
                nn.utils.vector_to_parameters(mean.detach() + sign * CONFIG.sigma * noise[pair], net.parameters())
                table[pair, column] = -world.loss(net, data)
        ranks = centred_ranks(table)
        mean.grad = torch.as_tensor(ranks[:, 0] - ranks[:, 1], dtype=torch.float32) @ noise / (50 * CONFIG.sigma)
        adam.step()
    nn.utils.vector_to_parameters(mean.detach(), net.parameters())
    return world.loss(net)


def test_from_scratch_it_learns_as_well_as_a_plain_strategy():
    world = Regression()
    start = world.loss(world.student())
    plain = plain_strategy(world, 100, 64)
    ends = {}
    for rank in (0, 1):
        net = world.student()
        strategy = Evolution(net, CONFIG.model_copy(update={"rank": rank}), seed=0)
        fitness = world.common(net, 64) if rank else (lambda g, net=net: -world.loss(net, world.batch(g, 64)))
        evolve(strategy, fitness, generations=100)
        ends[rank] = world.loss(net)
    assert plain < start / 10
    for rank, end in ends.items():
        assert end < 1.35 * plain, (rank, end, plain)


def test_a_batch_of_its_own_for_every_member_is_worse():
    """The mutation of the specification: without a common batch the ranks order the batches, not the members."""
    world = Regression(noise=2.0)

    def end(*, common: bool) -> float:
        net, calls = world.student(), iter(range(10_000, 1_000_000))
        strategy = Evolution(net, CONFIG, seed=0)
        evolve(
            strategy, lambda generation: -world.loss(net, world.batch(generation if common else next(calls), 16)), generations=60
        )  # fmt: skip
        return world.loss(net)

    assert end(common=False) > 1.5 * end(common=True)


def trained(world: Regression) -> nn.Module:
    net = deepcopy(world.teacher)
    with torch.no_grad():
        for parameter in (net[2].weight, net[2].bias):
            parameter *= 3.0
    return net


def test_the_accept_split_blocks_what_harms_and_keeps_an_optimum():
    world = Regression(noise=1.0)
    free, held = trained(world), trained(world)
    before = {name: value.clone() for name, value in held.state_dict().items()}
    evolve(Evolution(free, CONFIG, seed=0), world.common(free, 16), generations=20)
    found = evolve(
        Evolution(held, CONFIG, seed=0), world.common(held, 16), generations=20, accept=lambda: -world.loss(held)
    )  # fmt: skip
    assert world.loss(free) > 0.01  # the mutation: without the split the optimum is lost
    assert found.undone == 20  # the start cannot be improved: its loss on clean answers is 0
    assert found.best_goal == found.start_goal
    assert all(torch.equal(value, before[name]) for name, value in held.state_dict().items())
    assert all(made.goal is not None and made.goal < made.floor for made in found.history)


def test_a_fall_within_the_tolerance_is_kept_but_falls_do_not_add_up():
    w = {"w": torch.zeros(4, 4)}
    goals = iter([1.0, 0.95, 0.91, 0.89, 2.0, 1.95, 1.85])
    strategy = Evolution(w, EvolutionConfig(population=4, accept_tolerance=0.1), seed=0)
    found = evolve(strategy, lambda g: float(w["w"].sum()), generations=6, accept=goals.__next__)
    assert [made.accepted for made in found.history] == [True, True, False, True, True, False]
    assert found.best_goal == 2.0


def test_a_goal_that_is_nan_undoes_and_raises():
    w = {"w": torch.zeros(4, 4)}
    goals = iter([0.0, math.nan])
    strategy = Evolution(w, EvolutionConfig(population=4), seed=0)
    with pytest.raises(ModelError, match="generation 0: the goal on the accept split is NaN"):
        evolve(strategy, lambda g: float(w["w"].sum()), generations=2, accept=goals.__next__)
    assert torch.equal(w["w"], torch.zeros(4, 4))
    assert not strategy.is_proposing


MEMORY = """
    import tracemalloc
    import numpy as np, torch
    from cryptoalpha.learn.config import EvolutionConfig
    from cryptoalpha.learn.evolution import Evolution

    def generation(side, rank, count=1):
        w = {str(n): torch.zeros(side, side) for n in range(count)}
        strategy = Evolution(w, EvolutionConfig(population=50, rank=rank), seed=0)
        assert strategy.state_bytes == 12 * strategy.size
        tracemalloc.start()
        strategy.evaluate(lambda g: float(w["0"][0, 0]), range(2))
        strategy.tell(np.random.default_rng(0).normal(size=(25, 2)))
        strategy.propose(np.random.default_rng(1).normal(size=(25, 2)))
        strategy.accept()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    for rank in (0, 1):
        generation(64, rank)  # compile
        print(generation(1000, rank, count=10) / 1e6)
"""


def test_a_generation_of_ten_million_weights_needs_megabytes():
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(MEMORY)], capture_output=True, text=True, check=True)
    peaks = [float(line) for line in done.stdout.split()]
    assert len(peaks) == 2
    assert max(peaks) < 10.0  # MB that NumPy allocates; fifty copies would be 2,000
