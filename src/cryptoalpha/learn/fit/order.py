"""Which samples a step sees, and the seed of what is random inside it: pure functions of the run's seed and the step.

Nothing is carried from step to step, so where a run stands is one number, and a resumed run meets the batches and the dropout of a run that
was never interrupted.
"""

from __future__ import annotations

import math

import torch

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.seeds import stream


class Order:
    """Every sample once per epoch, in an order of that epoch's own; the last batch of an epoch holds what is left.

    Args:
        samples: how many there are, ≥ 1.
        batch: samples per step, all processes together; at most all.
        epochs: passes over the samples.
        rank: the process whose dropout seeds these are. The batches are those of all processes together.

    Raises:
        ConfigError: if there are no samples.
    """

    def __init__(self, samples: int, batch: int, epochs: int, *, seed: int, rank: int = 0) -> None:
        if samples < 1:
            raise ConfigError("there are no samples to train on")
        self._samples, self._batch, self._seed, self._rank = samples, batch, seed, rank
        self.steps_per_epoch = math.ceil(samples / batch)
        self.steps = self.steps_per_epoch * epochs
        self._epoch = -1
        self._indices = torch.empty(0, dtype=torch.int64)
        self._noise: list[int] = []

    def epoch(self, step: int) -> int:
        """The epoch (from 0) that `step` (from 0) belongs to."""
        return step // self.steps_per_epoch

    def ends_epoch(self, step: int) -> bool:
        """Whether `step` is the last of its epoch."""
        return (step + 1) % self.steps_per_epoch == 0

    def batch(self, step: int) -> torch.Tensor:
        """Indices of the samples of `step`: int64 `[batch]`, fewer in the last step of an epoch."""
        self._enter(self.epoch(step))
        begin = step % self.steps_per_epoch * self._batch
        return self._indices[begin : begin + self._batch]

    def noise_seed(self, step: int) -> int:
        """Seed of the model's own randomness (dropout) in `step`, in this process."""
        self._enter(self.epoch(step))
        return self._noise[step % self.steps_per_epoch]

    def _enter(self, epoch: int) -> None:
        if epoch != self._epoch:
            self._indices = torch.from_numpy(stream(self._seed, "fit", "order", epoch).permutation(self._samples))
            self._noise = stream(self._seed, "fit", "noise", epoch, self._rank).integers(2**63, size=self.steps_per_epoch).tolist()
            self._epoch = epoch
