"""The evolution strategy of the user's sketch, plain and honest: what `bench evolution` compares drift and loss with.

Every generation holds `population` copies of all weights, mean + σ · noise each, keeps the fitter half and moves the mean to theirs. No
mirrored noise, no ranks, no step size: without any signal the mean of h of them is a random walk of σ √(P / h) a generation. Given more
than the sketch gives itself: all members see the same batch, and the network ends with the mean instead of the last member.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class SketchEvolution:
    """Mean of the fitter half; see the module.

    Args:
        net: changed in place; holds the mean between generations.
        population, sigma: the sketch's 50 and 0.02.
    """

    def __init__(self, net: nn.Module, *, population: int, sigma: float, seed: int) -> None:
        self.parameters = list(net.parameters())
        self.population, self.sigma = population, sigma
        self.generator = torch.Generator().manual_seed(seed)
        self.mean = [parameter.detach().clone() for parameter in self.parameters]

    def generation(self, fitness: Callable[[], float]) -> None:
        """Evaluate all members and move the mean."""
        copies: list[list[Tensor]] = []
        values: list[float] = []
        for _ in range(self.population):
            member = [part + self.sigma * torch.randn(part.shape, generator=self.generator) for part in self.mean]
            self._put(member)
            copies.append(member)
            values.append(fitness())
        best = torch.tensor(values).argsort(descending=True)[: self.population // 2].tolist()
        self.mean = [torch.stack([copies[row][part] for row in best]).mean(0) for part in range(len(self.mean))]
        self._put(self.mean)

    def _put(self, weights: list[Tensor]) -> None:
        with torch.no_grad():
            for parameter, values in zip(self.parameters, weights, strict=True):
                parameter.copy_(values)
