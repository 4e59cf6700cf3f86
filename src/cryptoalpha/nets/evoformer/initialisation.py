"""First weights of the Evoformer, by the role of each linear layer.

A fresh block is the identity: the last layer of every module is zero, so depth costs nothing before training has begun. Every gate starts
open, the same everywhere, at sigmoid(1). Biases are zero unless said otherwise. All functions draw from torch's global generator and
change their argument in place; who wants a fixed start wraps them in `torch.random.fork_rng` with a seed.

Source: Jumper et al. (2021), Suppl. 1.11.4; the roles and constants as in the authors' code.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

TRUNCATED_STD = 0.87962566103423978
"""Standard deviation of a standard normal cut at ±2: what is drawn is divided by it, so that the variance is the one asked for."""


def lecun_(weight: Tensor, *, scale: float = 1.0) -> None:
    """Normal cut at two standard deviations, variance scale/fan_in. Most layers; `weight` is `[out, in]`."""
    std = math.sqrt(scale / weight.shape[1]) / TRUNCATED_STD
    nn.init.trunc_normal_(weight, std=std, a=-2.0 * std, b=2.0 * std)


def he_(weight: Tensor) -> None:
    """As `lecun_` with variance 2/fan_in: for a layer that a ReLU follows."""
    lecun_(weight, scale=2.0)


def glorot_(weight: Tensor) -> None:
    """Uniform on ±sqrt(6/(in + out)): queries, keys and values, each `[heads · width, in]` on its own."""
    nn.init.xavier_uniform_(weight)


def bias_projection_(weight: Tensor) -> None:
    """Normal with standard deviation 1/sqrt(fan_in), not cut: pairs → one number per head."""
    nn.init.normal_(weight, std=1.0 / math.sqrt(weight.shape[1]))


def linear(inputs: int, outputs: int, *, bias: bool = True) -> nn.Linear:
    """A layer with LeCun weights and zero bias."""
    layer = nn.Linear(inputs, outputs, bias=bias)
    lecun_(layer.weight)
    return _without_bias(layer)


def relu_linear(inputs: int, outputs: int) -> nn.Linear:
    """A layer before a ReLU: He weights, zero bias."""
    layer = nn.Linear(inputs, outputs)
    he_(layer.weight)
    return _without_bias(layer)


def final_linear(inputs: int, outputs: int) -> nn.Linear:
    """The last layer of a module: zero, so that a fresh module adds nothing."""
    layer = nn.Linear(inputs, outputs)
    nn.init.zeros_(layer.weight)
    return _without_bias(layer)


def gate_linear(inputs: int, outputs: int) -> nn.Linear:
    """A gate before its sigmoid: weight 0, bias 1."""
    layer = nn.Linear(inputs, outputs)
    nn.init.zeros_(layer.weight)
    nn.init.ones_(layer.bias)
    return layer


def bias_linear(pair_channels: int, heads: int) -> nn.Linear:
    """The projection of pairs to the bias of an attention, without a bias of its own."""
    layer = nn.Linear(pair_channels, heads, bias=False)
    bias_projection_(layer.weight)
    return layer


class FusedQKVG(nn.Module):
    """Queries, keys, values and gate of one attention in one matrix product; only the gate has a bias.

    Rows of `weight` `[4 · heads · width, channels]` are q, k, v, gate in this order, each laid out head by head (row `h · width + k`).

    Shapes:
        x `[..., channels]` → `[..., 4 · heads · width]`; `unbind` it as `[..., 4, heads, width]`.
    """

    def __init__(self, channels: int, heads: int, width: int) -> None:
        super().__init__()
        inner = heads * width
        self.inner = inner
        self.weight = nn.Parameter(torch.empty(4 * inner, channels))
        self.gate_bias = nn.Parameter(torch.ones(inner))
        with torch.no_grad():
            for part in range(3):
                glorot_(self.weight[part * inner : (part + 1) * inner])
            nn.init.zeros_(self.weight[3 * inner :])

    def forward(self, x: Tensor) -> Tensor:
        # The zeros are put before the gate's bias at each call, so that they are no parameter that training could move.
        return nn.functional.linear(x, self.weight, nn.functional.pad(self.gate_bias, (3 * self.inner, 0)))


def _without_bias(layer: nn.Linear) -> nn.Linear:
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
