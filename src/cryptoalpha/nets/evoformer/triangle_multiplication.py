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

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from cryptoalpha.nets.evoformer.gate import gated
from cryptoalpha.nets.evoformer.initialisation import final_linear, gate_linear, linear
from cryptoalpha.nets.evoformer.masks import Order, triangle_factor
from cryptoalpha.nets.evoformer.row_wise import Rows, blocks_pay, row_wise, rows_per_block


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
        ab = gated(self.p_in(x), self.g_in(x))  # [B, N, N, 2Z]
        kept = self._kept(z, pair_mask)
        if kept is not None:
            ab = ab * kept.unsqueeze(-1)
        a, b = ab.permute(0, 3, 1, 2).chunk(2, dim=1)  # [B, Z, N, N] each
        return gated(self.p_out(self.norm_out(self._products(a, b).permute(0, 2, 3, 1))), self.g_out(x))

    def forward(self, z: Tensor, pair_mask: Tensor | None = None, *, factor: Tensor | None = None) -> Tensor:
        """z with the update added, times `factor` if given."""
        if blocks_pay(z.shape[-2], z.device):
            kept = self._kept(z, pair_mask)
            return torch.stack([self._in_blocks(z[b], _of_batch(kept, b), _of_batch(factor, b)) for b in range(len(z))])
        update = self.update(z, pair_mask)
        return z + update if factor is None else z + update * factor

    def _in_blocks(self, z: Tensor, kept: Tensor | None, factor: Tensor | None) -> Tensor:
        """`forward` of one batch `[N, N, Z]`: rows of a and b in blocks, one matrix product per channel, rows of the answer in blocks."""
        length, width = z.shape[-2:]
        norm = self.norm_in.weight, self.norm_in.bias
        factors = (*norm, self.p_in.weight, self.p_in.bias, self.g_in.weight, self.g_in.bias)
        ab = row_wise(_factors, rows_per_block(length, 4 * width), [Rows(z), Rows(kept)], factors, out_dim=1)  # [2Z, N, N]
        p = self._products(ab[:width], ab[width:])  # [Z, N, N]
        answer = (*norm, self.norm_out.weight, self.norm_out.bias, self.p_out.weight, self.p_out.bias, self.g_out.weight, self.g_out.bias)
        return row_wise(_answer, rows_per_block(length, 2 * width), [Rows(z), Rows(p, 1), Rows(factor)], answer)

    def _products(self, a: Tensor, b: Tensor) -> Tensor:
        """Sums over the third node, channels first: `[..., N, N]` twice → `[..., N, N]`."""
        return a @ b.transpose(-1, -2) if self.outgoing else a.transpose(-1, -2) @ b

    def _kept(self, z: Tensor, pair_mask: Tensor | None) -> Tensor | None:
        """What a and b are multiplied with, `[B or 1, N, N]` of z's dtype: mask and order in one."""
        mask = None if pair_mask is None else pair_mask.to(z.dtype)
        if self.order == "none":
            return mask
        triangle = triangle_factor(z.shape[-2], outgoing=self.outgoing, dtype=z.dtype, device=z.device).unsqueeze(0)
        return triangle if mask is None else mask * triangle


def _of_batch(x: Tensor | None, batch: int) -> Tensor | None:
    return None if x is None else x[batch if len(x) > 1 else 0]


def _factors(sliced: Sequence[Tensor | None], shared: Sequence[Tensor]) -> Tensor:
    """a and b of some rows, channels first: z `[r, N, Z]`, kept `[r, N]` → `[2Z, r, N]`."""
    z, kept = sliced
    norm_weight, norm_bias, p_in, p_bias, g_in, g_bias = shared
    assert z is not None
    cells = functional.layer_norm(z, z.shape[-1:], norm_weight, norm_bias).flatten(0, 1).t()  # [Z, r · N]
    # The weights from the left: the product lies channels first already.
    ab = gated(torch.addmm(p_bias[:, None], p_in, cells), torch.addmm(g_bias[:, None], g_in, cells))
    if kept is not None:
        ab = ab * kept.flatten()
    return ab.view(-1, *z.shape[:2])


def _answer(sliced: Sequence[Tensor | None], shared: Sequence[Tensor]) -> Tensor:
    """z with the update added, some rows: z `[r, N, Z]`, p `[Z, r, N]`, factor `[1 or r, 1 or N, Z]` → `[r, N, Z]`."""
    z, p, factor = sliced
    norm_weight, norm_bias, out_weight, out_bias, p_out, p_bias, g_out, g_bias = shared
    assert z is not None
    assert p is not None
    gate = functional.linear(functional.layer_norm(z, z.shape[-1:], norm_weight, norm_bias), g_out, g_bias)
    summed = functional.layer_norm(p.permute(1, 2, 0), z.shape[-1:], out_weight, out_bias)
    update = gated(functional.linear(summed, p_out, p_bias), gate)
    return z + (update if factor is None else update * factor)
