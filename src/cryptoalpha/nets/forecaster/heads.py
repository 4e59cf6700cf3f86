"""What the forecaster answers, from the sequence and the pair representation.

At the start, before any training, every head says what is true of a market about which nothing is known: directions equally likely,
volatility 1, quantiles of a standard normal distribution, every bin of correlation equally likely.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.nets.config import HeadsConfig

VOLATILITY_FLOOR = 1e-3
"""Least volatility answered, in the units of the target: the loss divides by it."""

SLOPE = 1.09
"""Logits of "up" gained per unit of expected move if moves are normal: φ(.43) / P(up) with a third of all moves above .43."""


class AssetHeads(nn.Module):
    """Direction, volatility, confidence, location and quantiles of every horizon, from one vector per asset and bar.

    Args:
        channels: width of that vector.
        horizons: number of horizons H.
        config: classes and quantiles.

    Shapes:
        cells `[…, C]`, skip `[…, H]` (a location from elsewhere, added) → direction `[…, H, classes]`, volatility `[…, H]`, confidence
        `[…, H]`, location `[…, H]`, quantiles `[…, H, Q]`.

    Raises:
        ConfigError: for another number of classes of direction than three.
    """

    temperature: Tensor
    start: Tensor

    def __init__(self, channels: int, horizons: int, config: HeadsConfig) -> None:
        super().__init__()
        if config.direction_classes != 3:
            raise ConfigError(f"nets.heads.direction_classes is {config.direction_classes}; directions are up, down, sideways: 3")
        self.horizons, self.classes, self.anchor = horizons, config.direction_classes, middle(config.quantiles)
        self.norm = nn.LayerNorm(channels)
        self.location = zero_linear(channels, horizons)
        self.direction = zero_linear(channels, horizons * self.classes)
        self.slope = nn.Parameter(torch.full((horizons,), SLOPE))
        self.volatility = zero_linear(channels, horizons)
        self.quantiles = zero_linear(channels, horizons * len(config.quantiles))
        self.confidence_hidden = nn.Linear(channels + self.classes, channels)
        self.confidence = zero_linear(channels, horizons)
        nn.init.constant_(self.confidence.bias, -math.log(self.classes - 1.0))  # the odds of one class among three
        self.register_buffer("temperature", torch.ones(horizons))
        self.register_buffer("start", quantile_start(config.quantiles))

    def forward(self, cells: Tensor, skip: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        h = self.norm(cells)
        location = self.location(h) + skip  # […, H]
        lean = (self.slope * location).unsqueeze(-1)
        direction = self.direction(h).unflatten(-1, (self.horizons, self.classes)) + torch.cat((lean, -lean, torch.zeros_like(lean)), -1)
        volatility = softplus(self.volatility(h) + _softplus_inverse(1.0 - VOLATILITY_FLOOR)) + VOLATILITY_FLOOR
        steps = self.quantiles(h).unflatten(-1, (self.horizons, -1))  # […, H, Q]
        quantiles = rising(location, steps + self.start, self.anchor)
        return direction, volatility, self._confidence(h.detach(), direction.detach()), location, quantiles

    def _confidence(self, h: Tensor, direction: Tensor) -> Tensor:
        chances = direction.softmax(dim=-1)  # […, H, classes]
        # One horizon after the other through the same hidden layer: each sees its own chances and what is known of the asset.
        seen = torch.cat((h.unsqueeze(-2).expand(*chances.shape[:-1], h.shape[-1]), chances), dim=-1)
        hidden = torch.relu(self.confidence_hidden(seen))
        logits = (hidden * self.confidence.weight).sum(dim=-1) + self.confidence.bias
        return logits / self.temperature


class SentimentHead(nn.Module):
    """Classes of sentiment from a text vector alone: `[…, D]` → logits `[…, classes]`.

    One linear layer on the vector brought to length √D, because encoders differ in the length of their vectors and labelled texts are few.
    """

    def __init__(self, text: int, classes: int) -> None:
        super().__init__()
        self.out = zero_linear(text, classes)

    def forward(self, text: Tensor) -> Tensor:
        length = text.square().mean(dim=-1, keepdim=True).clamp_min(1e-12).sqrt()  # added, the ONNX exporter would take it for 0
        logits: Tensor = self.out(text / length)
        return logits


class CorrelationHead(nn.Module):
    """Bins of the correlation ahead, symmetric in the assets: z `[…, N, N, Z]` → logits `[…, N, N, bins]`."""

    def __init__(self, channels: int, bins: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.out = zero_linear(channels, bins)

    def forward(self, pairs: Tensor) -> Tensor:
        logits: Tensor = self.out(self.norm(pairs))
        return logits + logits.transpose(-2, -3)


def middle(quantiles: tuple[float, ...]) -> int:
    """Place of the quantile nearest to one half: the one the others are measured from."""
    return min(range(len(quantiles)), key=lambda place: abs(quantiles[place] - 0.5))


def quantile_start(quantiles: tuple[float, ...]) -> Tensor:
    """Steps `[Q]` for `rising` that give the quantiles of a standard normal distribution around a location of 0."""
    normal = [NormalDist().inv_cdf(share) for share in quantiles]
    anchor = middle(quantiles)
    steps = [normal[anchor]] * len(normal)
    for place in range(len(normal)):
        if place != anchor:
            nearer = place + 1 if place < anchor else place - 1
            steps[place] = _softplus_inverse(abs(normal[place] - normal[nearer]))
    return torch.tensor(steps)


def rising(location: Tensor, steps: Tensor, anchor: int) -> Tensor:
    """Quantiles that rise whatever the steps are: the anchor lies at location + its step, each other one softplus(step) further out.

    Shapes:
        location `[…]`, steps `[…, Q]` → `[…, Q]`.
    """
    start = (location + steps[..., anchor]).unsqueeze(-1)
    below = start - softplus(steps[..., :anchor]).flip(-1).cumsum(dim=-1).flip(-1)
    above = start + softplus(steps[..., anchor + 1 :]).cumsum(dim=-1)
    return torch.cat((below, start, above), dim=-1)


def _softplus_inverse(value: float) -> float:
    return math.log(math.expm1(value))


def zero_linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer that answers 0 until it is taught."""
    layer = nn.Linear(inputs, outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
