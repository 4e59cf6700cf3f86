"""One step of an optimiser down a loss, refused when the loss or its gradient is not a number."""

from __future__ import annotations

import math

import torch
from torch import nn

from cryptoalpha.core.errors import ModelError


def descend(net: nn.Module, optimiser: torch.optim.Optimizer, loss: torch.Tensor, *, clip: float, what: str) -> float:
    """Clip the gradient of `loss` to this norm, take one step, return the loss.

    Raises:
        ModelError: loss or gradient is NaN or infinite; the weights are untouched.
    """
    value = float(loss.detach())
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    norm = float(nn.utils.clip_grad_norm_(net.parameters(), clip))
    if not (math.isfinite(value) and math.isfinite(norm)):
        raise ModelError(f"{what}: loss {value} with gradient norm {norm}, expected finite numbers; the weights were left as they were")
    optimiser.step()
    return value
