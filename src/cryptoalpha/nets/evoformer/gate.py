"""A value behind a gate: value · sigmoid(gate)."""

from __future__ import annotations

import torch
from torch import Tensor


def gated(value: Tensor, gate: Tensor) -> Tensor:
    """`value` times sigmoid(`gate`), any equal shapes. Without gradients it is written over `gate`, which the caller must not use again."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return value * torch.sigmoid(gate)
    return gate.sigmoid_().mul_(value)
