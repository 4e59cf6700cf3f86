"""How much the news of one asset moves another: a straight line over pairs, past the trunk's attention.

What an asset's own features say goes along the straight line of `model`; what its peers' features say goes along this one. Each asset is
read by R linear maps of its features; how much of each reading of j is added to the expected move of i is linear in the pair's
representation z_ij. Nothing is squashed on the way, so a lead-lag edge is learned as fast as a regression learns it: through attention the
same edge has to pass two layers that both begin at zero, and at the edges markets have that costs most of the data.

It begins at zero, because how much is added does; the readings begin random, so that there is something to add.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

READINGS = 8
"""Linear maps R of an asset's features, by which its peers know it."""


class PeerLine(nn.Module):
    """Expected moves from the features of the other assets, by what is known of each pair.

    Args:
        features: width F of an asset's features.
        pair_channels: width Z of the pair representation.
        horizons: number of horizons H.

    Shapes:
        features `[B, S, N, F]` (0 where not seen), pairs z `[B, S, N, N, Z]`, present `[B, S, N]` bool → `[B, S, N, H]`: the sum over all
        present assets j ≠ i, divided by √(their number), so that it is of one size in small and large books.
    """

    def __init__(self, features: int, pair_channels: int, horizons: int, *, readings: int = READINGS) -> None:
        super().__init__()
        self.horizons, self.readings = horizons, readings
        self.norm = nn.LayerNorm(pair_channels)
        self.read = nn.Linear(features, readings, bias=False)
        self.weigh = nn.Linear(pair_channels, readings * horizons)
        nn.init.normal_(self.read.weight, std=features**-0.5)
        nn.init.zeros_(self.weigh.weight)
        nn.init.zeros_(self.weigh.bias)

    def forward(self, features: Tensor, pairs: Tensor, present: Tensor) -> Tensor:
        assets = present.shape[-1]
        readings = self.read(features) * present.unsqueeze(-1)  # [B, S, N, R]
        weights = self.weigh(self.norm(pairs)).unflatten(-1, (self.horizons, self.readings))  # [B, S, N, N, H, R]
        others = (~torch.eye(assets, dtype=torch.bool, device=present.device)).to(features.dtype)
        number = (present.unsqueeze(-2) * others).sum(dim=-1).clamp_min(1.0)  # [B, S, N]
        added = torch.einsum("bsijhr,bsjr->bsih", weights * others[:, :, None, None], readings)
        return added * number.rsqrt().unsqueeze(-1)
