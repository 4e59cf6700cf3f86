"""Triangle attention: the pair (i, j) attends to the pairs that share a node with it, biased by the third side of the triangle.

    starting node: query z_ij, keys and values z_ik, bias from z_jk       ending node: the same on transposed z and mask

x = LN z; the bias is a linear map of x, the same for every row i, so that the attention kernels never hold it once per row.
With `order="columns"` the starting node sees k ≤ j and the ending node k ≤ i. k ≤ max(i, j) would be allowed as well, but it depends on the
row; what is left away costs no knowledge that other modules would not bring.

Source: Jumper et al. (2021), Suppl. Alg. 13 and 14. Departure: the order; proteins have no future.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cryptoalpha.nets.evoformer.attention_kernel import attend
from cryptoalpha.nets.evoformer.initialisation import FusedQKVG, bias_linear, final_linear
from cryptoalpha.nets.evoformer.masks import Order


class TriangleAttention(nn.Module):
    """Pairs informed by the two other sides of each triangle, by attention.

    Args:
        pair_channels: width Z of the pair representation.
        heads, head_width: heads H and channels D of each.
        ending: attend around the ending node (j shared) instead of the starting one (i shared).
        order: "columns" if positions are moments: then z_ij is told of nothing after max(i, j).

    Shapes:
        z `[B, N, N, Z]`, pair_mask bool `[B, N, N]` (True = observed), factor (pre-drawn dropout, `dropout.dropout_factor`) any shape that
        broadcasts to z → `[B, N, N, Z]`. A row without any key gets the update of an attention that answered zeros.
    """

    def __init__(self, pair_channels: int, *, heads: int = 4, head_width: int = 32, ending: bool, order: Order = "none") -> None:
        super().__init__()
        self.heads, self.head_width = heads, head_width
        self.ending = ending
        self.order: Order = order
        self.norm = nn.LayerNorm(pair_channels)
        self.pair_bias = bias_linear(pair_channels, heads)
        self.qkvg = FusedQKVG(pair_channels, heads, head_width)
        self.out = final_linear(heads * head_width, pair_channels)

    def update(self, z: Tensor, pair_mask: Tensor | None = None) -> Tensor:
        """The update alone."""
        if self.ending:
            z, pair_mask = z.transpose(1, 2), None if pair_mask is None else pair_mask.transpose(1, 2)
        x = self.norm(z)
        bias = self.pair_bias(x).permute(0, 3, 1, 2)  # [B, H, N, N]
        q, k, v, gate = self.qkvg(x).unflatten(-1, (4, self.heads, self.head_width)).unbind(-3)  # [B, N, N, H, D] each
        q, k, v = (part.transpose(2, 3) for part in (q, k, v))  # [B, N, H, N, D]
        seen = attend(q, k, v, bias=bias, key_mask=pair_mask, causal=self.order == "columns").transpose(2, 3)
        found: Tensor = self.out((seen * torch.sigmoid(gate)).flatten(-2))
        return found.transpose(1, 2) if self.ending else found

    def forward(self, z: Tensor, pair_mask: Tensor | None = None, *, factor: Tensor | None = None) -> Tensor:
        """z with the update added, times `factor` if given."""
        update = self.update(z, pair_mask)
        return z + update if factor is None else z + update * factor
