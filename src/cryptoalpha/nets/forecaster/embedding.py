"""What enters the forecaster: one vector per asset and bar, and one per pair of assets and bar.

Nothing here knows which asset is which, so permuted assets give permuted vectors. What was not observed is replaced before it is used: a
feature by a learned constant of its own, a whole modality by a learned vector, so that NaN or anything else in its place changes nothing.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from cryptoalpha.nets.forecaster.values import ForecastInputs

POSITION_CHANNELS = 16
"""Sines and cosines that say where in its block a bar stands."""


class FeatureEmbedding(nn.Module):
    """Features of one modality → C channels, by a perceptron with one hidden layer of C.

    Shapes:
        values `[…, F]`, seen `[…, F]` bool → `[…, C]`. Where no feature is seen: one learned vector.
    """

    def __init__(self, features: int, channels: int) -> None:
        super().__init__()
        self.missing = nn.Parameter(torch.zeros(features))
        self.absent = nn.Parameter(0.02 * torch.randn(channels))
        self.hidden = nn.Linear(features, channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, values: Tensor, seen: Tensor) -> Tensor:
        filled = torch.where(seen, values, self.missing)
        embedded = self.out(torch.relu(self.hidden(filled)))
        return torch.where(seen.any(dim=-1, keepdim=True), embedded, self.absent)


class TextEmbedding(nn.Module):
    """Mean text vector → C channels, the more of it the more text there was: weight/(1 + weight). Without text: one learned vector.

    Shapes:
        text `[…, D]`, weight `[…]` ≥ 0 → `[…, C]`.
    """

    def __init__(self, text: int, channels: int) -> None:
        super().__init__()
        self.absent = nn.Parameter(0.02 * torch.randn(channels))
        self.out = nn.Linear(text, channels)

    def forward(self, text: Tensor, weight: Tensor) -> Tensor:
        there = (weight > 0).unsqueeze(-1)
        share = torch.where(weight > 0, weight / (1.0 + weight), 0.0).unsqueeze(-1)
        embedded = self.out(torch.where(there, text, 0.0)) * share
        return torch.where(there, embedded, self.absent)


class CellEmbedding(nn.Module):
    """The sequence representation m at the entrance: price + chain + text + the bar's place in its block.

    Absent bars are zero. The place is given as sines and cosines, so that blocks may have any length.

    Shapes:
        inputs of the rows from `first` of their blocks on → `[B, S, N, C]`.
    """

    def __init__(self, price: int, chain: int, text: int, channels: int) -> None:
        super().__init__()
        self.price = FeatureEmbedding(price, channels)
        self.chain = FeatureEmbedding(chain, channels)
        self.text = TextEmbedding(text, channels)
        self.age = nn.Linear(POSITION_CHANNELS, channels)

    def forward(self, inputs: ForecastInputs, *, first: int = 0) -> Tensor:
        place = places(first + inputs.price.shape[1], inputs.price)[first:]
        cells = self.price(inputs.price, inputs.price_seen) + self.chain(inputs.chain, inputs.chain_seen)
        cells = cells + self.text(inputs.text, inputs.text_weight) + self.age(place)[:, None, :]
        return torch.where(inputs.present.unsqueeze(-1), cells, 0.0)


class PairEmbedding(nn.Module):
    """The pair representation z at the entrance, one per bar.

    Shapes:
        values `[B, S, N, N, F]`, seen alike bool → `[B, S, N, N, Z]`.
    """

    def __init__(self, features: int, channels: int) -> None:
        super().__init__()
        self.missing = nn.Parameter(torch.zeros(features))
        self.out = nn.Linear(features, channels)

    def forward(self, values: Tensor, seen: Tensor) -> Tensor:
        embedded: Tensor = self.out(torch.where(seen, values, self.missing))
        return embedded


def places(rows: int, like: Tensor) -> Tensor:
    """Sines and cosines of 0 … rows − 1 at wavelengths from 4 to 512 bars, `[rows, POSITION_CHANNELS]`."""
    half = POSITION_CHANNELS // 2
    rates = 2.0 * math.pi / 4.0 * 128.0 ** (-torch.arange(half, dtype=like.dtype, device=like.device) / (half - 1))
    angles = torch.arange(rows, dtype=like.dtype, device=like.device)[:, None] * rates
    return torch.cat((angles.sin(), angles.cos()), dim=-1)
