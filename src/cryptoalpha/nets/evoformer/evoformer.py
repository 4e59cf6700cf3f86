"""The trunk: Evoformer blocks, a time axis that cannot see ahead, and masks that are checked once.

Source: Jumper et al. (2021), Suppl. Alg. 6. Departures: `causal` and `pairs`, described at `Evoformer`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cryptoalpha.core.errors import ConfigError, ModelError
from cryptoalpha.nets.config import EvoformerConfig
from cryptoalpha.nets.evoformer.block import EvoformerBlock
from cryptoalpha.nets.evoformer.masks import Causal, Pairs


class Evoformer(nn.Module):
    """Sequences m and pairs z that inform each other, block after block.

    Args:
        config: widths, heads, dropout, number of blocks.
        causal: which axis is time.
            "none": no axis is, everything sees everything.
            "columns": after every block `m[s, i]` knows moments ≤ i and `z[i, j]` moments ≤ max(i, j); z must come in like that.
            "rows": rows are moments, columns are things (assets).
        pairs: "shared", one z for all rows. With `causal="rows"` it is then fed by the whole window, and through it earlier rows hear of
            later ones: **only the last row may be read**. "per_step", one z for each row, fed by rows up to its own: every row may be read.
            It costs S times the pair work and wants `causal="rows"`.
        recompute: keep only what enters each block and run it again in the backward pass: the memory of one block instead of all.
        seed: seed of the initial weights; the same seed gives the same weights and no other random stream is touched.

    Shapes:
        m `[B, S, N, C]`; z `[B, N, N, Z]`, "per_step" `[B, S, N, N, Z]`; row_mask `[B, S, N]` bool; pair_mask bool, as z without channels;
        True where observed, None where all is. Where a pair is there if both its positions are, their mask is enough and faster: `[B, N]`,
        "per_step" `[B, S, N]`. → m and z of the same shapes. What is masked may hold any finite number: it changes nothing
        that is observed, if the pair mask excludes every pair of which one side is masked in all rows. Nothing is ever NaN.

    Raises:
        ConfigError: for `pairs="per_step"` where rows are not time.
        ModelError: for tensors of other shapes or a mask that is not boolean.

    Source: Jumper et al. (2021), Suppl. Alg. 6.
    """

    def __init__(
        self, config: EvoformerConfig, *, causal: Causal = "none", pairs: Pairs = "shared", recompute: bool = False, seed: int = 0
    ) -> None:
        super().__init__()
        if causal not in ("none", "columns", "rows") or pairs not in ("shared", "per_step"):
            raise ConfigError(f"causal is none, columns or rows and pairs shared or per_step, got {causal!r} and {pairs!r}")
        self.config = config
        self.causal: Causal = causal
        self.pairs: Pairs = pairs
        self.recompute = recompute
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.blocks = nn.ModuleList(EvoformerBlock(config, causal=causal, pairs=pairs) for _ in range(config.blocks))

    def forward(self, m: Tensor, z: Tensor, row_mask: Tensor | None = None, pair_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self._check(m, z, row_mask, pair_mask)
        for block in self.blocks:
            if self.recompute and torch.is_grad_enabled():
                m, z = checkpoint(block, m, z, row_mask, pair_mask, use_reentrant=False)
            else:
                m, z = block(m, z, row_mask, pair_mask)
        return m, z

    def _check(self, m: Tensor, z: Tensor, row_mask: Tensor | None, pair_mask: Tensor | None) -> None:
        """A mask over the wrong axis broadcasts silently where two sizes happen to be equal, so every shape is compared in full."""
        if m.dim() != 4 or m.shape[-1] != self.config.sequence_width:
            raise ModelError(f"m must be [B, S, N, {self.config.sequence_width}], got {list(m.shape)}")
        batch, rows, columns = m.shape[:3]
        grid = (batch, rows, columns, columns) if self.pairs == "per_step" else (batch, columns, columns)
        if tuple(z.shape) != (*grid, self.config.pair_width):
            raise ModelError(
                f"beside m {list(m.shape)} z must be {[*grid, self.config.pair_width]} (pairs={self.pairs!r}), got {list(z.shape)}"
            )
        pairs = grid if pair_mask is None or pair_mask.dim() != z.dim() - 2 else grid[:-1]
        for name, mask, shape in (("row_mask", row_mask, (batch, rows, columns)), ("pair_mask", pair_mask, pairs)):
            if mask is not None and (mask.dtype != torch.bool or tuple(mask.shape) != shape):
                raise ModelError(f"{name} must be bool {list(shape)}, True where observed; got {mask.dtype} {list(mask.shape)}")
