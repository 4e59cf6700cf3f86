"""The trunk read some rows at a time: what new moments add, from what is kept of the moments before.

With `causal="rows"` and `pairs="per_step"` nothing known of earlier rows ever changes when a new one comes. Only two modules look back at
all: column attention, of which keys and values are kept, and the outer product mean, of which the running sums are kept. The rest runs on
the new rows alone. Of rows that are only looked back at the last block's pairs are left away: nobody reads them.

The same sums in another order: equal to the pass over all rows up to rounding, and to the last bit from run to run as long as the rows are
cut alike, since the shapes depend on the cuts alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.nets.config import EvoformerConfig
from cryptoalpha.nets.evoformer.block import EvoformerBlock
from cryptoalpha.nets.evoformer.column_attention import ColumnAttention
from cryptoalpha.nets.evoformer.evoformer import Evoformer
from cryptoalpha.nets.evoformer.outer_product_mean import OuterProductMean


class TrunkByRow:
    """A trunk that reads one batch of at most S rows from the first on, some at a time.

    Args:
        trunk: with `causal="rows"` and `pairs="per_step"`, in evaluation mode.
        rows, columns: S, N.

    Raises:
        ConfigError: for a trunk in which a row may hear of later ones.
    """

    def __init__(self, trunk: Evoformer, *, rows: int, columns: int) -> None:
        if trunk.causal != "rows" or trunk.pairs != "per_step":
            raise ConfigError(
                'only a trunk with causal="rows" and pairs="per_step" can be read by row, '
                f'this one has causal="{trunk.causal}" and pairs="{trunk.pairs}"'
            )
        blocks = [block for block in trunk.blocks if isinstance(block, EvoformerBlock)]
        self._blocks = [_Block(block, rows, columns) for block in blocks]
        self._present = torch.zeros(1, rows, columns, dtype=torch.bool)
        self._ahead = ~torch.ones(rows, rows, dtype=torch.bool).tril()

    def read(self, first: int, m: Tensor, z: Tensor, present: Tensor, *, look_back: bool = False) -> tuple[Tensor, Tensor]:
        """m and z of R rows from row `first` on after the last block. All rows before have been read; later ones are forgotten.

        Args:
            look_back: these rows are there to be looked back at; what is returned may not be read.

        Shapes: m `[1, R, N, C]`, z `[1, R, N, N, Z]`, present `[1, R, N]` bool → m and z.
        """
        stop = first + m.shape[1]
        self._present[:, first:stop] = present
        seen = self._present[:, :stop]
        barred = self._ahead[first:stop, :stop] | ~seen.transpose(1, 2)[:, :, None, None]  # [1, N, 1, R, stop]
        alive = (seen.to(torch.int32).cumsum(1) > 0)[:, first:, :, None]  # a key at or before: [1, R, N, 1]
        for block in self._blocks:
            m, z = block.read(first, m, z, present, barred, alive, wants_pairs=not look_back or block is not self._blocks[-1])
        return m, z


def numbers_kept(config: EvoformerConfig, *, rows: int, columns: int, cuts: int) -> int:
    """Floats that one trunk keeps, to tell whether it pays."""
    keys_and_values = rows * columns * 2 * config.heads * config.head_width
    return config.blocks * (keys_and_values + (cuts + 1) * columns * columns * (config.pair_width + 1))


class _Block:
    """One block and what it keeps."""

    def __init__(self, block: EvoformerBlock, rows: int, columns: int) -> None:
        self.block = block
        self.column = _ColumnAttention(block.column_attention, rows, columns)
        self.outer = _OuterProduct(block.outer_product_mean, columns)

    def read(
        self, first: int, m: Tensor, z: Tensor, present: Tensor, barred: Tensor, alive: Tensor, *, wants_pairs: bool
    ) -> tuple[Tensor, Tensor]:
        m = self.block.row_attention(m, z, present)
        m = m + self.column.update(first, m, barred) * alive
        m = self.block.sequence_transition(m, present)
        update = self.outer.update(first, m, present)
        return m, self.block.among_pairs(z + update, present) if wants_pairs else z


class _ColumnAttention:
    """Keys and values of every row."""

    def __init__(self, module: ColumnAttention, rows: int, columns: int) -> None:
        self.module = module
        self.keys = torch.zeros(1, columns, module.heads, rows, module.head_width)
        self.values = torch.zeros_like(self.keys)

    def update(self, first: int, m: Tensor, barred: Tensor) -> Tensor:
        module, stop = self.module, first + m.shape[1]
        fused = module.qkvg(module.norm_m(m)).unflatten(-1, (4, module.heads, module.head_width))  # [1, R, N, 4, H, D]
        q, k, v, gate = fused.unbind(-3)
        q, k, v = (part.permute(0, 2, 3, 1, 4) for part in (q, k, v))  # [1, N, H, R, D]
        self.keys[:, :, :, first:stop], self.values[:, :, :, first:stop] = k, v
        logits = (q * module.head_width**-0.5) @ self.keys[:, :, :, :stop].transpose(-1, -2)
        weights = torch.softmax(logits.masked_fill(barred, torch.finfo(logits.dtype).min), dim=-1).masked_fill(barred, 0.0)
        found = (weights @ self.values[:, :, :, :stop]).permute(0, 3, 1, 2, 4)  # [1, R, N, H, D]
        update: Tensor = module.out((gate.sigmoid() * found).flatten(-2))
        return update


class _OuterProduct:
    """The running sums before each row at which a reading began."""

    def __init__(self, module: OuterProductMean, columns: int) -> None:
        self.module = module
        zeros = torch.zeros(1, columns, columns, module.out.out_features)
        self.before = {0: (zeros, zeros[..., 0])}

    def update(self, first: int, m: Tensor, present: Tensor) -> Tensor:
        total, count = self.module.sums(m, present)
        total_before, count_before = self.before[first]
        total, count = total + total_before[:, None], count + count_before[:, None]
        self.before[first + m.shape[1]] = total[:, -1], count[:, -1]
        return self.module.mean(total, count)
