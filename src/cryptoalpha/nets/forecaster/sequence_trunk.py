"""The trunk without its pair representation: what is left of the Evoformer is a transformer over assets and bars.

Only for the ablation that asks what the pair representation adds. The modules are the Evoformer's own; z is zero, so that row attention
has no bias, and outer product mean, triangles and pair transition are not there.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cryptoalpha.nets.config import EvoformerConfig
from cryptoalpha.nets.evoformer import ColumnAttention, RowAttentionWithPairBias, Transition
from cryptoalpha.nets.evoformer.dropout import SharedDropout


class SequenceTrunk(nn.Module):
    """Blocks of row attention, causal column attention and transition.

    Shapes:
        m `[B, S, N, C]`, row_mask `[B, S, N]` bool → `[B, S, N, C]`.
    """

    def __init__(self, sizes: EvoformerConfig, *, seed: int) -> None:
        super().__init__()
        width, heads, head_width = sizes.sequence_width, sizes.heads, sizes.head_width
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.rows = nn.ModuleList(RowAttentionWithPairBias(width, 1, heads=heads, head_width=head_width) for _ in range(sizes.blocks))
            self.columns = nn.ModuleList(
                ColumnAttention(width, heads=heads, head_width=head_width, causal="rows") for _ in range(sizes.blocks)
            )
            self.transitions = nn.ModuleList(Transition(width) for _ in range(sizes.blocks))
        for row in self.rows:  # a bias that is the same for all keys changes no weight: nothing to learn
            row.norm_z.requires_grad_(False)
            row.pair_bias.requires_grad_(False)
        self.dropout = SharedDropout(sizes.row_dropout, "rows")

    def forward(self, m: Tensor, row_mask: Tensor) -> Tensor:
        assets = m.shape[-2]
        nothing = m.new_zeros(m.shape[0], assets, assets, 1)
        for row, column, transition in zip(self.rows, self.columns, self.transitions, strict=True):
            m = row(m, nothing, row_mask, factor=self.dropout.factor(m))
            m = transition(column(m, row_mask), row_mask)
        return m
