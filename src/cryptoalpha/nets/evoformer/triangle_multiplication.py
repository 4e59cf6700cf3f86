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
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from cryptoalpha.nets.evoformer.gate import gated
from cryptoalpha.nets.evoformer.initialisation import final_linear, gate_linear, linear
from cryptoalpha.nets.evoformer.masks import Order, triangle_factor
from cryptoalpha.nets.evoformer.row_wise import Rows, blocks_pay, by_batch, row_wise, row_wise_gradients, rows_per_block


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
        return gated(self.p_out(self.norm_out(_products(a, b, outgoing=self.outgoing).permute(0, 2, 3, 1))), self.g_out(x))

    def forward(self, z: Tensor, pair_mask: Tensor | None = None, *, factor: Tensor | None = None) -> Tensor:
        """z with the update added, times `factor` if given."""
        if blocks_pay(z.shape[-2], z.device):
            kept = self._kept(z, pair_mask)
            norm_in, norm_out = (self.norm_in.weight, self.norm_in.bias), (self.norm_out.weight, self.norm_out.bias)
            into = (self.p_in.weight, self.p_in.bias, self.g_in.weight, self.g_in.bias)
            out = (self.p_out.weight, self.p_out.bias, self.g_out.weight, self.g_out.bias)
            weights, apply = (*norm_in, *into, *norm_out, *out), cast(Any, _InBlocks.apply)
            return by_batch([apply(self.outgoing, z[b], _of_batch(kept, b), _of_batch(factor, b), *weights) for b in range(len(z))])
        update = self.update(z, pair_mask)
        return z + update if factor is None else z + update * factor

    def _kept(self, z: Tensor, pair_mask: Tensor | None) -> Tensor | None:
        """What a and b are multiplied with, `[B or 1, N, N]` of z's dtype: mask and order in one."""
        mask = None if pair_mask is None else pair_mask.to(z.dtype)
        if self.order == "none":
            return mask
        triangle = triangle_factor(z.shape[-2], outgoing=self.outgoing, dtype=z.dtype, device=z.device).unsqueeze(0)
        return triangle if mask is None else mask * triangle


class _InBlocks(torch.autograd.Function):
    """The module on one batch `[N, N, Z]`: rows of a and b in blocks, one matrix product per channel, rows of the answer in blocks.

    Only z is kept for the backward pass: a, b and the product, four times as much, are computed again.
    """

    @staticmethod
    def forward(ctx: Any, outgoing: bool, z: Tensor, kept: Tensor | None, factor: Tensor | None, *weights: Tensor) -> Tensor:
        ctx.outgoing, ctx.there = outgoing, (kept is not None, factor is not None)
        ctx.save_for_backward(z, *(tensor for tensor in (kept, factor) if tensor is not None), *weights)
        ab = _factor_rows(z, kept, weights)
        p = _products(*ab.chunk(2), outgoing=outgoing)
        del ab
        return row_wise(_answer, *_answer_rows(z, p, factor, weights))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        z, *tensors = ctx.saved_tensors
        kept, factor = (tensors.pop(0) if there else None for there in ctx.there)
        needs = ctx.needs_input_grad
        z = z.detach().requires_grad_(needs[1])
        weights = [tensor.detach().requires_grad_(need) for tensor, need in zip(tensors, needs[4:], strict=True)]
        with torch.no_grad():
            ab = _factor_rows(z, kept, weights)
            p = _products(*ab.chunk(2), outgoing=ctx.outgoing)
        second = row_wise_gradients(_answer, *_answer_rows(z, p.requires_grad_(True), factor, weights), grad)
        slope, second = second[1], [second[0], *second[-8:]]  # of p; of z and the weights of the second half
        del p
        assert slope is not None
        slopes = torch.empty_like(ab)
        _product_slopes(slopes, ab, slope, outgoing=ctx.outgoing)
        del ab, slope
        first = row_wise_gradients(_factors, *_factor_parts(z, kept, weights), slopes, out_dim=1)
        first = [first[0], *first[-6:]]
        both = [_sum(one, two) for one, two in zip(first[:3], second[:3], strict=True)]  # z and the first norm are in both halves
        return (None, both[0], None, None, *both[1:], *first[3:], *second[3:])


def _sum(one: Tensor | None, two: Tensor | None) -> Tensor | None:
    return two if one is None else one if two is None else one.add_(two)


def _product_slopes(into: Tensor, ab: Tensor, slope: Tensor, *, outgoing: bool) -> None:
    """Gradient of a and b `[2Z, N, N]` from that of their product `[Z, N, N]`, written into `into`."""
    (a, b), (of_a, of_b) = ab.chunk(2), into.chunk(2)
    if outgoing:  # p = a bᵀ
        torch.bmm(slope, b, out=of_a)
        torch.bmm(slope.transpose(-1, -2), a, out=of_b)
    else:  # p = aᵀ b
        torch.bmm(b, slope.transpose(-1, -2), out=of_a)
        torch.bmm(a, slope, out=of_b)


def _factor_parts(z: Tensor, kept: Tensor | None, weights: Sequence[Tensor]) -> tuple[int, list[Rows], Sequence[Tensor]]:
    """What `row_wise` wants for the first half: rows of a block, sliced, shared."""
    length, width = z.shape[-2:]
    return rows_per_block(length, 6 * width), [Rows(z), Rows(kept)], weights[:6]


def _factor_rows(z: Tensor, kept: Tensor | None, weights: Sequence[Tensor]) -> Tensor:
    """a and b, channels first: `[2Z, N, N]`."""
    return row_wise(_factors, *_factor_parts(z, kept, weights), out_dim=1)


def _answer_rows(z: Tensor, p: Tensor, factor: Tensor | None, weights: Sequence[Tensor]) -> tuple[int, list[Rows], tuple[Tensor, ...]]:
    """What `row_wise` wants for the second half: rows of a block, sliced, shared."""
    length, width = z.shape[-2:]
    return rows_per_block(length, 4 * width), [Rows(z), Rows(p, 1), Rows(factor)], (*weights[:2], *weights[6:])


def _products(a: Tensor, b: Tensor, *, outgoing: bool) -> Tensor:
    """Sums over the third node, channels first: `[..., N, N]` twice → `[..., N, N]`."""
    return a @ b.transpose(-1, -2) if outgoing else a.transpose(-1, -2) @ b


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
