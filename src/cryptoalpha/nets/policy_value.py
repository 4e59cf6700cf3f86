"""The network that guides a search: one trunk, a head of logits and a head of values.

A plain multilayer perceptron, because the planner asks it hundreds of times per decision: a leaf costs a megaflop, not a transformer.
The value head has no Tanh. A bar's return is a few basis points and a discounted sum of them has no bound known beforehand, so the head
answers μ + s·net instead, with μ and s kept as buffers beside the weights: whoever fits the net sets them from its targets.

Source: Silver et al. (2018), "A general reinforcement learning algorithm that masters chess, shogi, and Go through self-play" (the two
heads). Departures: no convolution, no Tanh, and on request one value per position held, V(x, ·), for a scenario tree.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from cryptoalpha.core.errors import ConfigError, ModelError
from cryptoalpha.nets.config import PolicyValueConfig


class PolicyValueNet(nn.Module):
    """Logits of a prior over actions, and the value of a state (or of a state with each position).

    Args:
        config: widths; the defaults are 100 → 512 → 512 → 256, then 256 → 128 → A and 256 → 64 → 1.
        actions: number of actions A.
        value_outputs: None for one value per state; K for V(x, ·), one value per position on a grid.
        seed: seed of the initial weights; the same seed gives the same weights and no other random stream is touched.

    Shapes:
        states `[n, D]` float32 → logits `[n, A]`, values `[n]` (or `[n, K]` with `value_outputs=K`).

    Raises:
        ConfigError: if `actions` or `value_outputs` is below 1.
    """

    value_mean: Tensor
    value_scale: Tensor

    def __init__(self, config: PolicyValueConfig, actions: int, *, value_outputs: int | None = None, seed: int = 0) -> None:
        super().__init__()
        if actions < 1 or (value_outputs is not None and value_outputs < 1):
            raise ConfigError(f"a policy/value net needs at least one action and one value, got {actions} and {value_outputs}")
        self.state_width = config.state_width
        self.actions = actions
        self.value_outputs = value_outputs
        last = config.hidden[-1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.trunk = perceptron((config.state_width, *config.hidden), end_with_relu=True)
            self.policy = perceptron((last, config.policy_hidden, actions))
            self.value = perceptron((last, config.value_hidden, value_outputs or 1))
        self.register_buffer("value_mean", torch.zeros(value_outputs or 1))
        self.register_buffer("value_scale", torch.ones(value_outputs or 1))

    def forward(self, states: Tensor) -> tuple[Tensor, Tensor]:
        features = self.trunk(states)  # [n, last hidden]
        values = self.value_mean + self.value_scale * self.value(features)  # [n, 1 or K]
        return self.policy(features), values if self.value_outputs is not None else values.squeeze(-1)

    def scale_values(self, mean: float | Tensor, scale: float | Tensor) -> None:
        """Set μ and s (in the values' own unit, one number or one per value output) without moving the weights.

        Raises:
            ModelError: if one is not finite or a scale is not positive: every value would be NaN or the same.
        """
        wanted = torch.as_tensor(mean, dtype=torch.float32), torch.as_tensor(scale, dtype=torch.float32)
        if not all(bool(torch.isfinite(number).all()) for number in wanted) or bool((wanted[1] <= 0).any()):
            raise ModelError(f"the value scale must be finite and positive, got mean {mean} and scale {scale}")
        self.value_mean.copy_(wanted[0])
        self.value_scale.copy_(wanted[1])


def perceptron(widths: tuple[int, ...], *, end_with_relu: bool = False) -> nn.Sequential:
    """Linear layers of these widths with ReLU between them."""
    layers: list[nn.Module] = []
    for position, (inputs, outputs) in enumerate(pairwise(widths)):
        layers.append(nn.Linear(inputs, outputs))
        if end_with_relu or position < len(widths) - 2:
            layers.append(nn.ReLU())
    return nn.Sequential(*layers)
