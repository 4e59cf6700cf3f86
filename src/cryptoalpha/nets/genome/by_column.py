"""The genome read column by column: the answers of a new bar, from what is kept of the bars before (`nets.evoformer.by_column`)."""

from __future__ import annotations

import torch
from torch import Tensor

from cryptoalpha.nets.evoformer.by_column import TrunkByColumn, numbers_kept
from cryptoalpha.nets.genome.embedding import FARTHEST
from cryptoalpha.nets.genome.market_genome import MarketGenome
from cryptoalpha.nets.genome.values import ColumnAnswers, GenomeInputs

MOST_NUMBERS = 2**26
"""Floats that all windows may keep together: a quarter of a gigabyte. Beyond, a window is read whole: a thousand bars of the `seed` preset
would keep a hundred times as much."""


class GenomeByColumn:
    """B windows of N columns that grow by one column at a time.

    `read(inputs, until)` answers the columns up to `until` that were not read yet. Columns whose inputs are others than those that were
    read, and all after them, are read anew: so what is answered is a function of the inputs alone, whatever was read before.

    Args:
        net: in evaluation mode, its weights fixed.
        batch, columns: B, N.
    """

    def __init__(self, net: MarketGenome, *, batch: int, columns: int) -> None:
        self._net, self.batch = net, batch
        self._trunk = TrunkByColumn(net.trunk, batch=batch, rows=net.frames, columns=columns)
        self._inputs: GenomeInputs | None = None
        self._read = 0
        self._answers: list[ColumnAnswers] = []

    @staticmethod
    def pays(net: MarketGenome, *, batch: int, columns: int) -> bool:
        """Whether what must be kept fits `MOST_NUMBERS`. A rule of sizes alone."""
        return batch * numbers_kept(net.trunk.config, rows=net.frames, columns=columns) <= MOST_NUMBERS

    @torch.inference_mode()
    def read(self, inputs: GenomeInputs, until: int) -> list[ColumnAnswers]:
        """The answers at the columns 0 … `until` − 1; columns from `until` on may hold anything.

        Shapes: `GenomeInputs` with B windows of N columns → `[B, …]` for each column.
        """
        start = min(self._read, until, self._same_columns(inputs))
        del self._answers[start:]
        embedded = self._net.embedding(inputs)
        for t in range(start, until):
            m = self._trunk.read(t, embedded[:, :, t], self._pairs(inputs, t), inputs.present[:, :, t])
            self._answers.append(self._net.answers(m, inputs.present[:, :, t]))
        self._inputs, self._read = inputs, until
        return self._answers

    def _same_columns(self, inputs: GenomeInputs) -> int:
        """How many columns, from the first on, hold in every window what was read."""
        if self._inputs is None:
            return 0
        old, new = self._inputs, inputs
        cells = ((old.tokens != new.tokens) | (old.missing != new.missing)).any(-1) | (old.present != new.present)  # [B, S, N]
        differs = (cells.any(1) | (old.hidden != new.hidden)).any(0)  # [N]
        pairs = (old.pair != new.pair).any(-1).any(0)  # [N, N]
        differs |= pairs.tril().any(1) | pairs.triu().any(0)
        return int(differs.logical_not().long().cumprod(0).sum())

    def _pairs(self, inputs: GenomeInputs, t: int) -> Tensor:
        """`PairEmbedding` of the cells that column t adds. → `[B, 2t + 1, Z]`."""
        module = self._net.pairs
        apart = torch.arange(t, 0, -1).clamp(max=FARTHEST)
        position = module.position[torch.cat((FARTHEST + apart, FARTHEST - apart, torch.full((1,), FARTHEST)))]
        known = inputs.present[:, :, : t + 1].any(1) & ~inputs.hidden[:, : t + 1]
        both = known & known[:, t:]
        there = torch.cat((both[:, :t], both), 1)[..., None]
        features = torch.cat((inputs.pair[:, t, :t], inputs.pair[:, : t + 1, t]), 1).to(position.dtype).masked_fill(~there, 0.0)
        pairs: Tensor = position + module.known(features) * there
        return pairs
