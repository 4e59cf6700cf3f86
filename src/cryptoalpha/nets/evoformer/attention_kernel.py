"""The one attention primitive: every attention of the Evoformer asks it, and it alone chooses the kernel.

    out[b, r, h, i] = Σ_j softmax_j(q_i · k_j / √D + bias[b, h, i, j]) v_j        over the keys j that are allowed

A key is allowed if `key_mask` says it was observed and, with `causal`, if j ≤ i. A query without an allowed key gets zeros, never NaN and
never the mean of what it must not see. What is not allowed has a weight of exactly 0.0, whatever finite number stands there.

Kernels (`choose_kernel`): `plain` materialises the weights `[B, R, H, N, N]`; `flash` never does. On the CPU torch's flash kernel takes
4-D tensors and a bias that asks for no gradient, so it runs batch by batch, the bias expanded over the rows without a copy.

Source: Jumper et al. (2021), Suppl. Alg. 7, 8, 13, 14 (softmax attention with a bias per pair). Departure: a query with nothing to see
gets 0; the reference code adds −1e9, which answers with a mean over the masked keys.
"""

from __future__ import annotations

import torch
from torch import Tensor


def attend(q: Tensor, k: Tensor, v: Tensor, *, bias: Tensor | None = None, key_mask: Tensor | None = None, causal: bool = False) -> Tensor:
    """Masked softmax attention; scales by 1/√D itself.

    Args:
        bias: `[B, H, N, N]`, the same for all rows of a batch, added to the scaled logits.
        key_mask: bool `[B, R, N]` or `[B, 1, N]` (the same for all rows), True = observed.
        causal: keys j ≤ i only.

    Shapes:
        q, k, v `[B, R, H, N, D]` (batch, rows that do not see each other, heads, positions, channels) → `[B, R, H, N, D]`.
    """
    logits = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-1, -2))  # [B, R, H, N, N]
    if bias is not None:
        logits = logits + bias.unsqueeze(1)
    fill = torch.finfo(logits.dtype).min
    if key_mask is not None:
        logits = logits.masked_fill(~key_mask[:, :, None, None, :], fill)
    if causal:
        logits = logits.masked_fill(~causal_mask(q.shape[-2], q.device), fill)
    out = torch.matmul(torch.softmax(logits, dim=-1), v)
    return out if key_mask is None else out * sees_something(key_mask, causal=causal)[:, :, None, :, None]


def causal_mask(positions: int, device: torch.device | None = None) -> Tensor:
    """Bool `[N, N]`, True where key j ≤ query i."""
    return torch.ones(positions, positions, dtype=torch.bool, device=device).tril()


def sees_something(key_mask: Tensor, *, causal: bool) -> Tensor:
    """Whether each query has an allowed key: bool `[B, R, 1]`, or `[B, R, N]` with `causal`. Shapes: key_mask `[B, R, N]`."""
    return key_mask.cummax(dim=-1).values if causal else key_mask.any(dim=-1, keepdim=True)
