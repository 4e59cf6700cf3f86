"""Triangle attention: the pair (i, j) attends to the pairs that share a node with it, biased by the third side of the triangle.

    starting node: query z_ij, keys and values z_ik, bias from z_jk       ending node: the same on transposed z and mask

x = LN z; the bias is a linear map of x, the same for every row i, so that the attention kernels never hold it once per row.
With `order="columns"` the starting node sees k ≤ j and the ending node k ≤ i. k ≤ max(i, j) would be allowed as well, but it depends on the
row; what is left away costs no knowledge that other modules would not bring.

Source: Jumper et al. (2021), Suppl. Alg. 13 and 14. Departure: the order; proteins have no future.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from cryptoalpha.nets.evoformer.attention_kernel import attend
from cryptoalpha.nets.evoformer.gate import gated
from cryptoalpha.nets.evoformer.initialisation import FusedQKVG, bias_linear, final_linear
from cryptoalpha.nets.evoformer.masks import Order, has_key, not_ahead, pairs_of
from cryptoalpha.nets.evoformer.row_wise import Body, Rows, blocks_pay, by_batch, row_wise, rows_per_block


class TriangleAttention(nn.Module):
    """Pairs informed by the two other sides of each triangle, by attention.

    Args:
        pair_channels: width Z of the pair representation.
        heads, head_width: heads H and channels D of each.
        ending: attend around the ending node (j shared) instead of the starting one (i shared).
        order: "columns" if positions are moments: then z_ij is told of nothing after max(i, j).

    Shapes:
        z `[B, N, N, Z]`, pair_mask bool `[B, N, N]` (True = observed), factor (pre-drawn dropout, `dropout.dropout_factor`) any shape that
        broadcasts to z → `[B, N, N, Z]`. A query without any key gets an update of zero. A mask of positions `[B, N]` stands for the
        pairs of two that are there, and is faster: it is one for all rows. Its shape says so, since a look at its content would let what
        becomes known later decide the path, and with it the last bit of what was said before.
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
        if pair_mask is not None and pair_mask.dim() == 2:
            pair_mask = pairs_of(pair_mask)
        if self.ending:
            z, pair_mask = z.transpose(1, 2), None if pair_mask is None else pair_mask.transpose(1, 2)
        x = self.norm(z)
        bias = self.pair_bias(x).permute(0, 3, 1, 2)  # [B, H, N, N]
        q, k, v, gate = self.qkvg(x).unflatten(-1, (4, self.heads, self.head_width)).unbind(-3)  # [B, N, N, H, D] each
        q, k, v = (part.transpose(2, 3) for part in (q, k, v))  # [B, N, H, N, D]
        seen = attend(q, k, v, bias=bias, key_mask=pair_mask, causal=self.order == "columns").transpose(2, 3)
        found: Tensor = self.out(gated(seen, gate).flatten(-2))
        if pair_mask is not None:
            found = found * has_key(pair_mask, ordered=self.order == "columns").unsqueeze(-1)
        return found.transpose(1, 2) if self.ending else found

    def forward(self, z: Tensor, pair_mask: Tensor | None = None, *, factor: Tensor | None = None) -> Tensor:
        """z with the update added, times `factor` if given."""
        if blocks_pay(z.shape[-2], z.device):
            return by_batch([self._in_blocks(z[b], _of_batch(pair_mask, b), _of_batch(factor, b)) for b in range(len(z))])
        update = self.update(z, pair_mask)
        return z + update if factor is None else z + update * factor

    def _in_blocks(self, z: Tensor, mask: Tensor | None, factor: Tensor | None) -> Tensor:
        """`forward` of one batch `[N, N, Z]`, mask `[N, N]` or `[N]`: the bias in blocks, then rows (columns, for the ending node)."""
        length, width = z.shape[-2:]
        norm = self.norm.weight, self.norm.bias
        bias = row_wise(_pair_bias, rows_per_block(length, width), [Rows(z)], (*norm, self.pair_bias.weight), out_dim=1)  # [H, N, N]
        ordered, fill = self.order == "columns", torch.finfo(bias.dtype).min  # under autocast the bias is narrower than z
        if self.ending:
            bias = bias.transpose(1, 2).contiguous()
        if ordered:
            bias = bias.masked_fill(~not_ahead(length, z.device), fill)
        alive = None
        if mask is not None:
            seen = pairs_of(mask) if mask.dim() == 1 else mask.t().contiguous() if self.ending else mask
            alive = has_key(seen, ordered=ordered).unsqueeze(-1).to(z.dtype)  # [N, 1 or N, 1]
            if mask.dim() == 1:
                bias, mask = bias.masked_fill(~mask, fill), None
            else:
                mask = seen
        body: Body = partial(_attended, heads=self.heads, ending=self.ending)
        shared = (*norm, bias, self.qkvg.weight, self.qkvg.gate_bias, self.out.weight, self.out.bias)
        along = 1 if self.ending else 0
        sliced = [Rows(z, along), Rows(mask), Rows(alive), Rows(factor, along)]
        return row_wise(body, rows_per_block(length, 3 * self.heads * self.head_width), sliced, shared, out_dim=along)


def _of_batch(x: Tensor | None, batch: int) -> Tensor | None:
    return None if x is None else x[batch if len(x) > 1 else 0]


def _pair_bias(sliced: Sequence[Tensor | None], shared: Sequence[Tensor]) -> Tensor:
    """z `[r, N, Z]` → `[H, r, N]`."""
    (z,) = sliced
    norm_weight, norm_bias, weight = shared
    assert z is not None
    return functional.linear(functional.layer_norm(z, z.shape[-1:], norm_weight, norm_bias), weight).permute(2, 0, 1)


def _attended(sliced: Sequence[Tensor | None], shared: Sequence[Tensor], *, heads: int, ending: bool) -> Tensor:
    """z with the update added, some rows: z and factor `[r, N, Z]` (`[N, r, Z]` if ending), mask `[r, N]`, alive `[r, 1 or N, 1]`."""
    z, mask, alive, factor = sliced
    norm_weight, norm_bias, bias, weight, gate_bias, out_weight, out_bias = shared
    assert z is not None
    rows = z.transpose(0, 1) if ending else z
    x = functional.layer_norm(rows, rows.shape[-1:], norm_weight, norm_bias)
    inner = gate_bias.shape[0]
    q, k, v, gate = functional.linear(x, weight, functional.pad(gate_bias, (3 * inner, 0))).chunk(4, dim=-1)  # [r, N, H · D] each
    q, k, v = (part.view(*part.shape[:2], heads, -1).transpose(1, 2).unsqueeze(0) for part in (q, k, v))  # [1, r, H, N, D]
    seen = attend(q, k, v, bias=bias.unsqueeze(0), key_mask=None if mask is None else mask.unsqueeze(0))
    found = gated(seen[0].transpose(1, 2).flatten(-2), gate)
    update = functional.linear(found, out_weight, out_bias)
    if alive is not None:
        update = update * alive
    if ending:
        update = update.transpose(0, 1)
    return z + (update if factor is None else update * factor)
