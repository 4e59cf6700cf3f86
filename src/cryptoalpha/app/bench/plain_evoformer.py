"""The Evoformer block as one would write it down from the paper: what the benchmark of networks measures against.

One linear layer per projection, attention weights materialised, every step over all rows at once, autograd as it comes; nothing tuned and
nothing slowed down. `PlainPairStack` and `PlainBlock` copy the weights of ours, so that equal answers can be demanded before anything is
timed.

Source: Jumper et al. (2021), Suppl. Alg. 6–15.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cryptoalpha.nets.evoformer.block import EvoformerBlock
from cryptoalpha.nets.evoformer.column_attention import ColumnAttention
from cryptoalpha.nets.evoformer.initialisation import FusedQKVG
from cryptoalpha.nets.evoformer.outer_product_mean import OuterProductMean
from cryptoalpha.nets.evoformer.row_attention import RowAttentionWithPairBias
from cryptoalpha.nets.evoformer.transition import Transition
from cryptoalpha.nets.evoformer.triangle_attention import TriangleAttention
from cryptoalpha.nets.evoformer.triangle_multiplication import TriangleMultiplication


class PlainAttention(nn.Module):
    """Gated attention over axis −2 of x `[..., N, C]`, with a bias that broadcasts to the logits `[..., H, N, N]`."""

    def __init__(self, fused: FusedQKVG, out: nn.Linear, heads: int) -> None:
        super().__init__()
        self.heads = heads
        q, k, v, g = fused.weight.detach().chunk(4)
        self.q, self.k, self.v, self.g = _linear(q), _linear(k), _linear(v), _linear(g, fused.gate_bias.detach())
        self.out = _linear(out.weight.detach(), out.bias.detach())

    def forward(self, x: Tensor, mask: Tensor, bias: Tensor | None = None) -> Tensor:
        q, k, v = (self._by_head(layer(x)) for layer in (self.q, self.k, self.v))  # [..., H, N, D]
        q = q / q.shape[-1] ** 0.5
        logits = torch.matmul(q, k.transpose(-1, -2))
        logits = logits + (mask.to(x.dtype) - 1.0)[..., None, None, :] * 1e9
        if bias is not None:
            logits = logits + bias
        seen = torch.matmul(torch.softmax(logits, dim=-1), v).transpose(-2, -3)  # [..., N, H, D]
        gate = torch.sigmoid(self.g(x))
        found: Tensor = self.out(seen.flatten(-2) * gate)
        return found

    def _by_head(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:-1], self.heads, -1).transpose(-2, -3)


class PlainRowAttention(nn.Module):
    """Alg. 7."""

    def __init__(self, ours: RowAttentionWithPairBias) -> None:
        super().__init__()
        self.norm_m, self.norm_z = _norm(ours.norm_m), _norm(ours.norm_z)
        self.bias = _linear(ours.pair_bias.weight.detach())
        self.attention = PlainAttention(ours.qkvg, ours.out, ours.heads)

    def forward(self, m: Tensor, z: Tensor, mask: Tensor) -> Tensor:
        bias = self.bias(self.norm_z(z)).permute(0, 3, 1, 2).unsqueeze(1)
        found: Tensor = self.attention(self.norm_m(m), mask, bias)
        return found


class PlainColumnAttention(nn.Module):
    """Alg. 8."""

    def __init__(self, ours: ColumnAttention) -> None:
        super().__init__()
        self.norm_m = _norm(ours.norm_m)
        self.attention = PlainAttention(ours.qkvg, ours.out, ours.heads)

    def forward(self, m: Tensor, mask: Tensor) -> Tensor:
        found: Tensor = self.attention(self.norm_m(m).transpose(1, 2), mask.transpose(1, 2))
        return found.transpose(1, 2)


class PlainTransition(nn.Module):
    """Alg. 9 and 15."""

    def __init__(self, ours: Transition) -> None:
        super().__init__()
        self.norm = _norm(ours.norm)
        self.expand = _linear(ours.expand.weight.detach(), ours.expand.bias.detach())
        self.contract = _linear(ours.contract.weight.detach(), ours.contract.bias.detach())

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        found: Tensor = self.contract(torch.relu(self.expand(self.norm(x))))
        return found * mask[..., None]


class PlainOuterProductMean(nn.Module):
    """Alg. 10."""

    def __init__(self, ours: OuterProductMean) -> None:
        super().__init__()
        self.norm = _norm(ours.norm_m)
        a, b = ours.factors.weight.detach().chunk(2)
        a_bias, b_bias = ours.factors.bias.detach().chunk(2)
        self.a, self.b = _linear(a, a_bias), _linear(b, b_bias)
        self.out = _linear(ours.out.weight.detach(), ours.out.bias.detach())

    def forward(self, m: Tensor, mask: Tensor) -> Tensor:
        x, seen = self.norm(m), mask[..., None].to(m.dtype)
        a, b = self.a(x) * seen, self.b(x) * seen
        outer = torch.einsum("bsic,bsjd->bijcd", a, b).flatten(-2)
        count = torch.einsum("bsic,bsjc->bijc", seen, seen)
        found: Tensor = self.out(outer) / (count + 1e-3)
        return found


class PlainTriangleMultiplication(nn.Module):
    """Alg. 11 and 12."""

    def __init__(self, ours: TriangleMultiplication) -> None:
        super().__init__()
        self.outgoing = ours.outgoing
        self.norm_in, self.norm_out = _norm(ours.norm_in), _norm(ours.norm_out)
        pieces = [tensor.detach().chunk(2) for tensor in (ours.p_in.weight, ours.p_in.bias, ours.g_in.weight, ours.g_in.bias)]
        self.a_p, self.b_p = (_linear(pieces[0][half], pieces[1][half]) for half in (0, 1))
        self.a_g, self.b_g = (_linear(pieces[2][half], pieces[3][half]) for half in (0, 1))
        self.out = _linear(ours.p_out.weight.detach(), ours.p_out.bias.detach())
        self.gate = _linear(ours.g_out.weight.detach(), ours.g_out.bias.detach())

    def forward(self, z: Tensor, mask: Tensor) -> Tensor:
        x, seen = self.norm_in(z), mask[..., None].to(z.dtype)
        a = seen * torch.sigmoid(self.a_g(x)) * self.a_p(x)
        b = seen * torch.sigmoid(self.b_g(x)) * self.b_p(x)
        if self.outgoing:
            p = torch.matmul(a.permute(0, 3, 1, 2), b.permute(0, 3, 2, 1))  # [B, Z, N, N]
        else:
            p = torch.matmul(a.permute(0, 3, 2, 1), b.permute(0, 3, 1, 2))
        found: Tensor = self.out(self.norm_out(p.permute(0, 2, 3, 1)))
        return found * torch.sigmoid(self.gate(x))


class PlainTriangleAttention(nn.Module):
    """Alg. 13 and 14."""

    def __init__(self, ours: TriangleAttention) -> None:
        super().__init__()
        self.ending = ours.ending
        self.norm = _norm(ours.norm)
        self.bias = _linear(ours.pair_bias.weight.detach())
        self.attention = PlainAttention(ours.qkvg, ours.out, ours.heads)

    def forward(self, z: Tensor, mask: Tensor) -> Tensor:
        if self.ending:
            z, mask = z.transpose(1, 2), mask.transpose(1, 2)
        x = self.norm(z)
        found: Tensor = self.attention(x, mask, self.bias(x).permute(0, 3, 1, 2).unsqueeze(1))
        return found.transpose(1, 2) if self.ending else found


class PlainPairStack(nn.Module):
    """The five steps of z, each added to it: z `[B, N, N, Z]`, mask bool `[B, N, N]` → `[B, N, N, Z]`."""

    def __init__(self, ours: EvoformerBlock) -> None:
        super().__init__()
        self.triangles = nn.ModuleList(
            [
                PlainTriangleMultiplication(ours.triangle_outgoing),
                PlainTriangleMultiplication(ours.triangle_incoming),
                PlainTriangleAttention(ours.triangle_starting),
                PlainTriangleAttention(ours.triangle_ending),
                PlainTransition(ours.pair_transition),
            ]
        )

    def forward(self, z: Tensor, mask: Tensor) -> Tensor:
        for step in self.triangles:
            z = z + step(z, mask)
        return z


class PlainBlock(nn.Module):
    """The whole block without an order in time and without dropout: m `[B, S, N, C]`, z `[B, N, N, Z]` and their masks → m, z."""

    def __init__(self, ours: EvoformerBlock) -> None:
        super().__init__()
        self.row, self.column = PlainRowAttention(ours.row_attention), PlainColumnAttention(ours.column_attention)
        self.transition = PlainTransition(ours.sequence_transition)
        self.outer = PlainOuterProductMean(ours.outer_product_mean)
        self.pairs = PlainPairStack(ours)

    def forward(self, m: Tensor, z: Tensor, row_mask: Tensor, pair_mask: Tensor) -> tuple[Tensor, Tensor]:
        m = m + self.row(m, z, row_mask)
        m = m + self.column(m, row_mask)
        m = m + self.transition(m, row_mask)
        return m, self.pairs(z + self.outer(m, row_mask), pair_mask)


def _linear(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, dtype=weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
    return layer


def _norm(ours: nn.LayerNorm) -> nn.LayerNorm:
    layer = nn.LayerNorm(ours.normalized_shape, dtype=ours.weight.dtype)
    layer.load_state_dict(ours.state_dict())
    return layer
