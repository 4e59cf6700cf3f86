"""The two small networks of a text agent: what acting on a text is worth, and which of five market actions it asks for.

    vector and readings `[n, D]` → scaled → linear → tanh → 768 ─┬─ 256 → 256 → 1      value
                                                                 └─ 256 → 128 → 5      policy: strong sell … strong buy

The projection from the encoder's width is shared; with the widths of another encoder it is another model.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.nets.policy_value import perceptron


class TextProjection(nn.Module):
    """Scaled inputs, projected to the width that both networks begin with.

    Shapes:
        inputs `[n, D]` → `[n, width]`.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, width)
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("scale", torch.ones(inputs))

    def fit_scaler(self, inputs: Tensor) -> None:
        """Centre and scale of each number, from training inputs `[n, D]`; one that never varies is left alone."""
        deviation = inputs.std(dim=0, unbiased=False)
        self.mean.copy_(inputs.mean(dim=0))
        self.scale.copy_(torch.where(deviation > 1e-6, deviation, torch.ones_like(deviation)))

    def forward(self, inputs: Tensor) -> Tensor:
        scaled = ((inputs - self.mean) / self.scale).clamp(-5.0, 5.0)
        return torch.tanh(self.linear(scaled))


class _Headed(nn.Module):
    """The projection and the layers of one of the two."""

    def __init__(self, projection: TextProjection, head: nn.Sequential) -> None:
        super().__init__()
        self.projection, self.head = projection, head

    def forward(self, inputs: Tensor) -> Tensor:
        out: Tensor = self.head(self.projection(inputs))
        return out


def text_networks(inputs: int, policy: Sequence[int], value: Sequence[int], *, seed: int) -> tuple[nn.Module, nn.Module, TextProjection]:
    """Policy (inputs → logits `[n, 5]`), value (inputs → `[n, 1]`) and the projection they share.

    Args:
        inputs: numbers that describe a text: the encoder's width and the readings beside it.
        policy, value: widths of the layers, input to output (`learn.actor_critic`); the first is that of the projection.
        seed: of the first weights; no other random stream is touched.

    Raises:
        ConfigError: if the two do not begin with one width, or the value is more than one number.
    """
    if policy[0] != value[0] or value[-1] != 1 or inputs < 1:
        raise ConfigError(
            f"a policy of widths {tuple(policy)} and a value of {tuple(value)} do not share a projection of {inputs} inputs",
            hint="let learn.actor_critic.policy_widths and value_widths begin alike, and the latter end with 1",
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        projection = TextProjection(inputs, policy[0])
        heads = [perceptron(tuple(widths)) for widths in (policy, value)]
    return _Headed(projection, heads[0]), _Headed(projection, heads[1]), projection
