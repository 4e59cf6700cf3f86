"""The one attention primitive: every attention of the Evoformer asks it, and it alone chooses the kernel.

    out[b, r, h, i] = Σ_j softmax_j(q_i · k_j / √D + bias[b, h, i, j]) v_j        over the keys j that are allowed

A key is allowed if `key_mask` says it was observed and, with `causal`, if j ≤ i. A query without an allowed key gets zeros, never NaN and
never the mean of what it must not see. What is not allowed has a weight of exactly 0.0, whatever finite number stands there.

| kernel | where | weights `[B, R, H, N, N]` |
|---|---|---|
| `plain` | CPU below 64 positions (128 in training), small blocks in training, every exported graph | materialised |
| `flash` | CPU, inference from 64 positions | never there |
| `flash_training` | CPU, training from 128 positions | some rows at a time, in the backward pass |
| `cuequivariance` | CUDA, 16 or 32 bit, with a bias, if `cuequivariance_torch` is installed | never there |
| `sdpa` | CUDA otherwise, and every other device | as torch decides (its memory-efficient kernel takes a bias) |

All take the same weights, so one state_dict feeds them all. What could not be run while this was written, for want of a GPU: the kernels
`cuequivariance` and `sdpa` on CUDA; the latter is tested on the CPU, of the former only when it is chosen and what it is handed.

Source: Jumper et al. (2021), Suppl. Alg. 7, 8, 13, 14. Departure: a query with nothing to see gets 0; the authors' code adds −1e9, which
answers with a mean over the masked keys.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from cryptoalpha.nets.evoformer.flash import FlashTraining, flash
from cryptoalpha.nets.evoformer.masks import has_key, not_ahead

Kernel = Literal["plain", "flash", "flash_training", "sdpa", "cuequivariance"]
FLASH_INFERENCE, FLASH_TRAINING = 64, 128
"""Positions from which flash attention is faster on one core."""
PLAIN_LOGITS = 2**20
"""Logits that training may materialise at any length: what a cache-blocked row function asks for at a time."""
SHORT = 16
"""Below as many keys torch's softmax, which works row by row, takes five times as long as its parts one by one."""


def attend(q: Tensor, k: Tensor, v: Tensor, *, bias: Tensor | None = None, key_mask: Tensor | None = None, causal: bool = False) -> Tensor:
    """Masked softmax attention; scales by 1/√D itself.

    Args:
        bias: `[B, H, N, N]`, the same for all rows of a batch, added to the scaled logits.
        key_mask: bool `[B, R, N]` or `[B, 1, N]` (the same for all rows), True = observed.
        causal: keys j ≤ i only.

    Shapes:
        q, k, v `[B, R, H, N, D]` (batch, rows that do not see each other, heads, positions, channels) → `[B, R, H, N, D]`.
    """
    given = [tensor for tensor in (q, k, v, bias) if tensor is not None]
    training = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given)
    kernel = choose_kernel(
        q.device.type,
        q.dtype,
        positions=q.shape[-2],
        logits=q.shape[:-1].numel() * q.shape[-2],
        training=training,
        biased=bias is not None,
        exporting=torch.compiler.is_compiling(),
    )
    if kernel == "plain":
        return _plain(q, k, v, bias, _barred(key_mask, q.shape[-2], causal, q.device))
    if kernel == "cuequivariance":
        assert bias is not None
        return _alive(_cuequivariance(q, k, v, _filled(bias, None, causal), key_mask), key_mask, causal)
    if kernel == "sdpa":
        return _alive(_sdpa(q, k, v, bias, key_mask, causal), key_mask, causal)
    shared = _shared_bias(q, bias, key_mask, causal)
    differing = key_mask if key_mask is not None and key_mask.shape[1] > 1 else None
    function: Any = FlashTraining.apply if kernel == "flash_training" else flash
    return _alive(function(q, k, v, shared, differing), key_mask, causal)


def choose_kernel(
    device: str, dtype: torch.dtype, *, positions: int, logits: int, training: bool, biased: bool, exporting: bool = False
) -> Kernel:
    """Which kernel attends. It depends on sizes and never on contents: equal shapes always go the same way to the same bits.

    Args:
        positions: keys and queries N; logits: B · R · H · N · N.
        training: gradients are wanted; biased: there is a bias.
    """
    if exporting:
        return "plain"
    if device == "cuda" and biased and dtype in (torch.float32, torch.bfloat16, torch.float16) and has_cuequivariance():
        return "cuequivariance"
    if device != "cpu":
        return "sdpa"
    if training:
        return "flash_training" if positions >= FLASH_TRAINING and logits > PLAIN_LOGITS else "plain"
    return "flash" if positions >= FLASH_INFERENCE else "plain"


@cache
def has_cuequivariance() -> bool:
    """Whether NVIDIA's kernels for triangles are installed (`pip install cuequivariance-torch cuequivariance-ops-torch-cu12`)."""
    return find_spec("cuequivariance_torch") is not None and find_spec("cuequivariance_ops_torch") is not None


def _barred(key_mask: Tensor | None, length: int, causal: bool, device: torch.device) -> Tensor | None:
    """Keys that a query may not see, of a key mask `[B, R, N]` and time: bool, broadcasts to `[B, R, H, N, N]`; None if it may see all."""
    ahead = ~not_ahead(length, device) if causal else None
    if key_mask is None:
        return ahead
    missing = ~key_mask[:, :, None, None, :]
    return missing if ahead is None else missing | ahead


def _plain(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, barred: Tensor | None) -> Tensor:
    """The weights materialised."""
    logits = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-1, -2))  # [B, R, H, N, N]
    if bias is not None:
        logits = logits + bias.unsqueeze(1)
    if barred is None:
        return torch.matmul(_softmax(logits), v)
    # The lowest finite number and not −inf: the gradient of a softmax over nothing but −inf is NaN.
    weights = _softmax(logits.masked_fill(barred, torch.finfo(logits.dtype).min))
    return torch.matmul(weights.masked_fill(barred, 0.0), v)


def _softmax(logits: Tensor) -> Tensor:
    if logits.shape[-1] >= SHORT or logits.device.type != "cpu" or torch.compiler.is_compiling():
        return torch.softmax(logits, dim=-1)
    powers = torch.exp(logits - logits.detach().amax(dim=-1, keepdim=True))
    return powers / powers.sum(dim=-1, keepdim=True)


def _alive(out: Tensor, key_mask: Tensor | None, causal: bool) -> Tensor:
    """Zeros for a query without a key; out `[B, R, H, N, D]`."""
    return out if key_mask is None else out * has_key(key_mask, ordered=causal)[:, :, None, :, None]


def _filled(bias: Tensor, keys: Tensor | None, causal: bool) -> Tensor:
    """The bias `[B, H, N, N]` with the lowest number where no row may look: keys bool `[B, 1, N]`."""
    barred = _barred(keys, bias.shape[-1], causal, bias.device)
    if barred is None:
        return bias
    return bias.masked_fill(barred if barred.dim() == 2 else barred.squeeze(1), torch.finfo(bias.dtype).min)


def _shared_bias(q: Tensor, bias: Tensor | None, key_mask: Tensor | None, causal: bool) -> Tensor | None:
    """All that the rows share, in one bias `[B, H or 1, N, N]`: the bias itself, time, and a key mask that is the same for all."""
    keys = key_mask if key_mask is not None and key_mask.shape[1] == 1 else None
    if bias is None:
        if keys is None and not causal:
            return None
        bias = q.new_zeros((q.shape[0], 1, q.shape[-2], q.shape[-2]))
    return _filled(bias, keys, causal)


def _sdpa(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, key_mask: Tensor | None, causal: bool) -> Tensor:
    """torch's own choice: rows folded into the batch, everything that bars a key in one additive bias."""
    batch, rows, heads, length, _ = q.shape
    added: Tensor | None = None if bias is None else _filled(bias, None, causal).unsqueeze(1).expand(-1, rows, -1, -1, -1)
    if added is None and causal:
        added = _filled(q.new_zeros((1, 1, length, length)), None, causal).expand(batch, rows, heads, length, length)
    if key_mask is not None:
        barred = ~key_mask[:, :, None, None, :]
        start = q.new_zeros((batch, rows, 1, 1, length)) if added is None else added
        added = start.masked_fill(barred, torch.finfo(q.dtype).min)
    mask = None if added is None else added.expand(batch, rows, -1, -1, -1).reshape(batch * rows, *added.shape[2:])
    found = functional.scaled_dot_product_attention(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), attn_mask=mask)
    return found.view(batch, rows, *found.shape[1:])


def _cuequivariance(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, key_mask: Tensor | None) -> Tensor:
    """NVIDIA's triangle attention: q `[B, R, H, N, D]`, bias `[B, 1, H, N, N]` in float32, mask `[B, R, 1, 1, N]`, True = observed."""
    mask = key_mask
    if mask is None:
        mask = torch.ones((q.shape[0], q.shape[1], q.shape[3]), dtype=torch.bool, device=q.device)
    mask = mask.expand(-1, q.shape[1], -1)[:, :, None, None, :]
    kernel = import_module("cuequivariance_torch").triangle_attention
    found: Tensor = kernel(q, k, v, bias.unsqueeze(1).float(), mask, scale=q.shape[-1] ** -0.5)
    return found
