"""Attention that never holds its weights: torch's flash kernel on the CPU, with one bias for all rows, in inference and in training.

torch's kernel takes 4-D tensors and a bias that asks for no gradient. So inference goes batch by batch, the bias expanded over the rows
without a copy; training is an autograd function, whose backward pass materialises the weights of a few rows at a time and adds the gradient
of the bias up in the order of the rows. A key mask that differs by row would end the sharing of the bias; it enters as one more channel: 1
in every query, and a very large negative number in the masked keys.

Source: Dao et al. (2022), "FlashAttention"; the gradients are those of softmax attention, written out.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

MASKED_CHANNEL = {torch.float16: -3e4, torch.bfloat16: -1e30, torch.float32: -1e30, torch.float64: -1e30}
"""What a masked key adds to a logit: far below any real logit, and above the lowest number, so that it can be added to."""
CHUNK_LOGITS = 2**20
"""Logits that the backward pass materialises at a time, four or five times over."""


def flash(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, key_mask: Tensor | None) -> Tensor:
    """Attention without gradients.

    Shapes:
        q, k, v `[B, R, H, N, D]`, not scaled yet; bias `[B, H or 1, N, N]`, key_mask bool `[B, R, N]` → `[B, R, H, N, D]`. A query
        without a key gets some mean of the values, which the caller takes away.
    """
    out = torch.empty((*q.shape[:2], q.shape[3], q.shape[2], q.shape[4]), dtype=q.dtype, device=q.device).transpose(2, 3)
    width = q.shape[-1]
    for batch in range(q.shape[0]):
        queries, keys, values = q[batch], k[batch], v[batch]
        if key_mask is not None:
            barred = (~key_mask[batch]).to(q.dtype).mul_(MASKED_CHANNEL[q.dtype] * width**0.5)
            queries, values = functional.pad(queries, (0, 1), value=1.0), functional.pad(values, (0, 1))
            keys = torch.cat([keys, barred[:, None, :, None].expand(-1, keys.shape[1], -1, 1)], dim=-1)
        shared = None if bias is None else bias[batch][None].expand(q.shape[1], -1, -1, -1)
        found = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=shared, scale=width**-0.5)
        out[batch].copy_(found[..., :width])
    return out


class FlashTraining(torch.autograd.Function):
    """`flash` with gradients for q, k, v and bias; backwards `CHUNK_LOGITS` weights are materialised at a time, or one row's."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, key_mask: Tensor | None) -> Tensor:
        ctx.save_for_backward(q, k, v, *(tensor for tensor in (bias, key_mask) if tensor is not None))
        ctx.there = bias is not None, key_mask is not None
        return flash(q, k, v, bias, key_mask)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, *rest = ctx.saved_tensors
        left = iter(rest)
        bias, key_mask = (next(left) if there else None for there in ctx.there)
        gradients = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        bias_sum = torch.zeros_like(bias) if bias is not None and ctx.needs_input_grad[3] else None
        rows = max(1, CHUNK_LOGITS // (q.shape[2] * q.shape[3] * q.shape[3]))
        for batch in range(q.shape[0]):
            for start in range(0, q.shape[1], rows):
                cut = batch, slice(start, start + rows)
                weights = _weights(q[cut], k[cut], None if bias is None else bias[batch], None if key_mask is None else key_mask[cut])
                slopes = _slopes(weights, grad[cut] @ v[cut].transpose(-1, -2))  # of the logits, [r, H, N, N]
                scale = q.shape[-1] ** -0.5
                gradients[0][cut].copy_(slopes @ k[cut]).mul_(scale)
                gradients[1][cut].copy_(slopes.transpose(-1, -2) @ q[cut]).mul_(scale)
                gradients[2][cut].copy_(weights.transpose(-1, -2) @ grad[cut])
                if bias_sum is not None:
                    bias_sum[batch].add_(slopes.sum(dim=0) if bias_sum.shape[1] > 1 else slopes.sum(dim=(0, 1))[None])
        return (*gradients, bias_sum, None)


def _weights(q: Tensor, k: Tensor, bias: Tensor | None, key_mask: Tensor | None) -> Tensor:
    """Softmax weights `[r, H, N, N]`; with a bias filled with the lowest number where nobody may look, and a mask of keys `[r, N]`."""
    logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if bias is not None:
        logits += bias
    if key_mask is not None:
        logits += (~key_mask).to(logits.dtype).mul_(MASKED_CHANNEL[q.dtype])[:, None, None, :]
    return torch.softmax(logits, dim=-1)


def _slopes(weights: Tensor, wanted: Tensor) -> Tensor:
    """Gradient of the logits from the weights' (`wanted`, overwritten): P · (dP − Σ P · dP)."""
    mean = torch.einsum("rhij,rhij->rhi", weights, wanted)
    return wanted.sub_(mean[..., None]).mul_(weights)
