"""An evolution strategy that stores seeds, not copies: mirrored noise, centred ranks, Adam, in place.

A generation: `evaluate` puts every member in place in turn (member p± = accepted weights ± σ e_p) and asks for its fitness on one common
batch, which the caller picks by the generation's number; `tell` moves the weights. Or, where a held-out goal must not fall, `propose` puts
the moved weights in place, and `accept` or `undo` decides.

    g = 1/(n σ) · Σ_p (u_p+ − u_p−) e_p      u: centred ranks of all n members in [−½, ½]
    w ← (1 − η·decay) w + η · m̂ / (√v̂ + ε)   ascending; β₁ .9, β₂ .999, ε 1e-8

Promises:
- Memory: beside the live weights the state is three copies (accepted weights, two Adam moments). Ask and tell need a few megabytes more,
  whatever the population: noise is regenerated, piece by piece, from its key (`noise.py`).
- After `evaluate` the live weights are the accepted ones bit for bit, also if the fitness raised.
- An update depends on (seed, generation, the fitness table) only: workers that exchange these numbers hold the same bits.
- `undo` leaves weights and moments as they were, bit for bit: until `accept`, moments are not touched. So `propose` + `accept` computes a
  gradient twice; `tell` once.

Departures: EGGROLL and Salimans et al. (2017) use plain or momentum ascent; here Adam, which forgives a step size that does not fit σ.

Source: Salimans et al. (2017), arXiv 1703.03864; Sarkar et al. (2025), arXiv 2511.16652 (low-rank noise); Kingma & Ba (2015), Adam;
Loshchilov & Hutter (2019), decoupled decay.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cryptoalpha.core.errors import ConfigError, ModelError
from cryptoalpha.learn.config import EvolutionConfig
from cryptoalpha.learn.evolution.noise import Single, members
from cryptoalpha.learn.evolution.population import Population, Together
from cryptoalpha.learn.evolution.ranks import centred_ranks
from cryptoalpha.learn.evolution.tensors import EvolvedTensor, chosen_tensors

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8
SIGNS = (1, -1)

Table = NDArray[np.float64]
Fitness = Callable[[int], float] | Together
"""Larger is better. A function of the generation that measures the live weights, or many members at once (`Together`)."""


class Evolution:
    """See the module.

    Args:
        parameters: a module, whose parameters that need a gradient are evolved, or tensors by name; changed in place. Buffers are left
            alone: put a module into evaluation mode.
        config: population, σ, rank, step size and decay.
        seed: of the run; with the names of the tensors it decides all noise.
        only: patterns of names to evolve (`head.*`); all by default.

    Raises:
        ConfigError: if nothing is to be evolved, a pattern matches nothing, or a tensor cannot be moved (integers, NaN, not contiguous).
    """

    def __init__(
        self,
        parameters: nn.Module | Mapping[str, torch.Tensor],
        config: EvolutionConfig,
        *,
        seed: int,
        only: Sequence[str] | None = None,
    ) -> None:
        self.config, self.seed = config, seed
        self.pairs = config.population // 2
        self.generation = 0
        """Number of the generation to evaluate next."""
        self.steps = 0
        """Updates taken, undone ones not counted."""
        found = chosen_tensors(parameters, only)
        self.tensors = tuple(EvolvedTensor(name, live, rank=config.rank, seed=seed) for name, live in found.items())
        self._proposed: Single | None = None

    @property
    def size(self) -> int:
        """Number of evolved weights."""
        return sum(tensor.size for tensor in self.tensors)

    @property
    def state_bytes(self) -> int:
        """Memory that is held between generations, beside the live weights."""
        return sum(tensor.state_bytes for tensor in self.tensors)

    def write(self, pair: int, sign: int) -> None:
        """Put one member's weights in place: accepted + sign · σ · e of that pair of this generation. `restore` takes them back.

        Raises:
            ConfigError: if this generation has no such pair, or the sign is not 1 or −1.
        """
        self._check_settled()
        self._check_pairs(range(pair, pair + 1))
        if sign not in SIGNS:
            raise ConfigError(f"the sign of a member is {sign}, expected 1 or −1")
        word = members(self.generation, self.pairs, range(pair, pair + 1))
        for tensor in self.tensors:
            tensor.write(word, sign * self.config.sigma)

    def restore(self) -> None:
        """Put the accepted weights in place, bit for bit."""
        for tensor in self.tensors:
            tensor.restore()

    @contextmanager
    def member(self, pair: int, sign: int) -> Iterator[None]:
        """One member's weights are in place inside the block, the accepted ones after it."""
        try:
            self.write(pair, sign)
            yield
        finally:
            self.restore()

    def population(self, pairs: range | None = None) -> Population:
        """The members of those pairs (of all by default), to be computed at once through shared weights.

        Raises:
            ConfigError: if noise has full rank (`rank` 0), or this generation has no such pairs.
        """
        self._check_settled()
        chosen = self._check_pairs(range(self.pairs) if pairs is None else pairs)
        if self.config.rank == 0:
            raise ConfigError("members with full noise share no weights", hint="set learn.evolution.rank to 1 or more")
        return Population(self.tensors, self.generation, chosen, members(self.generation, self.pairs, chosen), self.config.sigma)

    def evaluate(self, fitness: Fitness, pairs: range | None = None) -> Table:
        """F+ and F− of those pairs (of all by default), `[pairs, 2]`.

        Raises:
            ModelError: if a fitness is NaN; names generation, pair and sign. ±∞ is allowed: it ranks last or first.
            ConfigError: if this generation has no such pairs.
            Whatever the fitness raises.
        """
        chosen = self._check_pairs(range(self.pairs) if pairs is None else pairs)
        self._check_settled()
        found = np.zeros((len(chosen), 2))
        if isinstance(fitness, Together):
            for first in range(0, len(chosen), fitness.pairs):
                block = chosen[first : first + fitness.pairs]
                found[first : first + len(block)] = fitness.measure(self.population(block))
        else:
            try:
                for row, pair in enumerate(chosen):
                    for column, sign in enumerate(SIGNS):
                        self.write(pair, sign)
                        found[row, column] = float(fitness(self.generation))
                        self._check_fitness(found[row : row + 1], [pair])
            finally:
                self.restore()
        self._check_fitness(found, chosen)
        return found

    def tell(self, table: Table) -> None:
        """Move the weights by the fitness `[pairs, 2]` of this generation's members, and go on to the next generation."""
        self._take(self._weights(table))

    def propose(self, table: Table) -> None:
        """Put the weights in place that `tell` would give; `accept` or `undo` must follow."""
        self._proposed = self._weights(table)
        self._step(self._proposed, commit=False)

    def accept(self) -> None:
        """Keep what was proposed, and go on to the next generation."""
        if self._proposed is None:
            raise ConfigError("nothing was proposed that could be accepted", hint="call propose first")
        weights, self._proposed = self._proposed, None
        self._take(weights)

    def undo(self) -> None:
        """Weights and moments as before the proposal, bit for bit; the next generation draws other noise."""
        self._proposed = None
        self.restore()
        self.generation += 1

    @property
    def is_proposing(self) -> bool:
        """A proposal is neither accepted nor undone."""
        return self._proposed is not None

    def resume(self, *, generation: int, steps: int) -> None:
        """Go on from there, after the tensors' accepted values and moments were set: the live weights become the accepted ones."""
        self.generation, self.steps, self._proposed = generation, steps, None
        self.restore()

    def fingerprint(self) -> str:
        """Digest of everything that decides the rest of a run: settings, counters, weights and moments."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(repr((self.config, self.seed, self.generation, self.steps)).encode())
        for tensor in self.tensors:
            digest.update(repr((tensor.name, tuple(tensor.live.shape), tensor.accepted.dtype.str)).encode())
            for values in (tensor.accepted, tensor.first, tensor.second):
                digest.update(values.data)
        return digest.hexdigest()

    def _weights(self, table: Table) -> Single:
        """How strongly each pair's noise counts, `[pairs]`."""
        self._check_settled()
        if table.shape != (self.pairs, 2):
            raise ModelError(f"fitness of generation {self.generation} has the shape {table.shape}, expected {(self.pairs, 2)}")
        self._check_fitness(table, range(self.pairs))
        ranks = centred_ranks(np.asarray(table, np.float64))
        return ((ranks[:, 0] - ranks[:, 1]) / (2 * self.pairs * self.config.sigma)).astype(np.float32)

    def _take(self, weights: Single) -> None:
        self._step(weights, commit=True)
        self.steps += 1
        self.generation += 1

    def _step(self, weights: Single, *, commit: bool) -> None:
        rate, decay, step = self.config.learning_rate, self.config.weight_decay, self.steps + 1
        settings = (
            *(BETA_1, 1.0 - BETA_1, BETA_2, 1.0 - BETA_2),
            *(rate / (1.0 - BETA_1**step), 1.0 / (1.0 - BETA_2**step), EPSILON, 1.0 - rate * decay),
        )
        moved = members(self.generation, self.pairs)
        for tensor in self.tensors:
            tensor.step(weights, moved, settings, commit=commit)

    def _check_settled(self) -> None:
        if self._proposed is not None:
            raise ConfigError(f"the proposal of generation {self.generation} is neither accepted nor undone", hint="call accept or undo")

    def _check_pairs(self, pairs: range) -> range:
        """The same pairs, if they are this generation's: further ones would be another generation's noise."""
        if not pairs or min(pairs) < 0 or max(pairs) >= self.pairs:
            raise ConfigError(f"pairs {pairs} were asked for; a generation has the pairs 0 to {self.pairs - 1}")
        return pairs

    def _check_fitness(self, table: Table, pairs: Sequence[int]) -> None:
        for row, pair in enumerate(pairs):
            for column, sign in enumerate("+−"):
                if math.isnan(table[row, column]):
                    raise ModelError(
                        f"generation {self.generation}, pair {pair}{sign}: the fitness is NaN; the weights are as before the generation",
                        hint="a fitness that can fail should return −inf, which ranks last",
                    )
