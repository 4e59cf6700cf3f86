"""Triangle multiplication: the pair (i, j) hears from all pairs (i, k) and (j, k), or (k, i) and (k, j).

    a, b = Linear(LN z) · sigmoid(Linear(LN z)), times the pair mask
    outgoing: p_ij = Σ_k a_ik b_jk      incoming: p_ij = Σ_k a_ki b_kj
    update = Linear(LN p) · sigmoid(Linear(LN z))

Inside it is as wide as the pairs are, which is what the CUDA kernel wants, and its weights are laid out as that kernel's: `p_in`, `g_in`
`[2Z, Z]` (rows of a first), `g_out`, `p_out` `[Z, Z]`. With `order="columns"` only k ≤ min(i, j) is summed over: one 0/1 triangle on a and
b, so that it stays one matrix product per channel.

Source: Jumper et al. (2021), Suppl. Alg. 11 and 12. Departure: the order; proteins have no future.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cryptoalpha.nets.evoformer.initialisation import final_linear, gate_linear, linear
from cryptoalpha.nets.evoformer.masks import Order, triangle_factor


class TriangleMultiplication(nn.Module):
    """Pairs informed by the two other sides of each triangle, by products.

    Args:
        pair_channels: width Z of the pair representation, and of everything inside.
        outgoing: sum over k of (i, k) · (j, k); otherwise of (k, i) · (k, j).
        order: "columns" if positions are moments: then z_ij is told of nothing after max(i, j).

    Shapes:
        z `[B, N, N, Z]`, pair_mask bool `[B, N, N]` (True = observed), factor (pre-drawn dropout, `dropout.dropout_factor`) any shape that
        broadcasts to z → `[B, N, N, Z]`.
    """

    def __init__(self, pair_channels: int, *, outgoing: bool, order: Order = "none") -> None:
        super().__init__()
        self.outgoing = outgoing
        self.order: Order = order
        self.norm_in = nn.LayerNorm(pair_channels)
        self.p_in = linear(pair_channels, 2 * pair_channels)
        self.g_in = gate_linear(pair_channels, 2 * pair_channels)
        self.norm_out = nn.LayerNorm(pair_channels)
        self.p_out = final_linear(pair_channels, pair_channels)
        self.g_out = gate_linear(pair_channels, pair_channels)

    def update(self, z: Tensor, pair_mask: Tensor | None = None) -> Tensor:
        """The update alone."""
        x = self.norm_in(z)
        ab = self.p_in(x) * torch.sigmoid(self.g_in(x))  # [B, N, N, 2Z]
        kept = self._kept(z, pair_mask)
        if kept is not None:
            ab = ab * kept.unsqueeze(-1)
        a, b = ab.permute(0, 3, 1, 2).chunk(2, dim=1)  # [B, Z, N, N] each
        p = a @ b.transpose(-1, -2) if self.outgoing else a.transpose(-1, -2) @ b
        found: Tensor = self.p_out(self.norm_out(p.permute(0, 2, 3, 1))) * torch.sigmoid(self.g_out(x))
        return found

    def forward(self, z: Tensor, pair_mask: Tensor | None = None, *, factor: Tensor | None = None) -> Tensor:
        """z with the update added, times `factor` if given."""
        update = self.update(z, pair_mask)
        return z + update if factor is None else z + update * factor

    def _kept(self, z: Tensor, pair_mask: Tensor | None) -> Tensor | None:
        """What a and b are multiplied with, `[B or 1, N, N]` of z's dtype: mask and order in one."""
        mask = None if pair_mask is None else pair_mask.to(z.dtype)
        if self.order == "none":
            return mask
        triangle = triangle_factor(z.shape[-2], outgoing=self.outgoing, dtype=z.dtype, device=z.device).unsqueeze(0)
        return triangle if mask is None else mask * triangle
