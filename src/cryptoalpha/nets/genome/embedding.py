"""How the market genome's tokens and pairs of bars become the two representations of the trunk.

One position per bar and time frame. A cell is the sum of the vectors of the tokens it carries (an embedding bag), of those whose source was
missing, and of its time frame; a cell without a token is "quiet", which is something other than absent. Ids 0–15 are the named tokens, 16
PAD (no closed bar: whatever else the cell holds never counts), 17 MASK (a hidden column, in every row, since a coarser row would give it
away) and 18 CLS, which marks the first bar of the window instead of taking a position of its own.

The pair of bars (i, j) knows nothing after max(i, j): the relative position knows no prices at all, and the pair features are taken at the
later bar. Features of a pair with a hidden or an absent bar are left out: prices within half an ATR would tell of the hidden bar.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cryptoalpha.nets.genome.values import GenomeInputs

FARTHEST = 32
"""Bars beyond which all relative positions look alike; AlphaFold's number."""


class TokenEmbedding(nn.Module):
    """Cells of tokens to vectors.

    Args:
        vocabulary: number of named tokens V.
        frames: number of time frames S.
        width: channels C.

    Shapes:
        `GenomeInputs` → `[B, S, N, C]`.
    """

    def __init__(self, vocabulary: int, frames: int, width: int) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        # A cell carries a handful of vectors: with a quarter of the variance each it begins near unit variance.
        self.bag = nn.Parameter(torch.randn(vocabulary + 3, width) / 2.0)
        self.quiet = nn.Parameter(torch.randn(width) / 2.0)
        self.source_missing = nn.Parameter(torch.randn(vocabulary, width) / 2.0)
        self.row = nn.Parameter(torch.randn(frames, width) / 2.0)

    def forward(self, inputs: GenomeInputs) -> Tensor:
        pad, mask, start = self.bag[self.vocabulary :]
        kind = self.bag.dtype
        cells = inputs.tokens.to(kind) @ self.bag[: self.vocabulary] + inputs.missing.to(kind) @ self.source_missing  # [B, S, N, C]
        cells = cells + (~inputs.tokens.any(-1, keepdim=True)).to(kind) * self.quiet
        cells = torch.where(inputs.hidden[:, None, :, None], mask, cells)
        cells = torch.where(inputs.present[..., None], cells, pad)
        seen = inputs.present.any(1)  # [B, N]
        first = seen & (seen.long().cumsum(-1) == 1)
        embedded: Tensor = cells + first[:, None, :, None].to(kind) * start + self.row[:, None, :]
        return embedded


class PairEmbedding(nn.Module):
    """Relative position and features of two bars to the pair representation.

    Args:
        features: number F of pair features.
        width: channels Z.

    Shapes:
        `GenomeInputs` → `[B, N, N, Z]`.
    """

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.randn(2 * FARTHEST + 1, width) / 2.0)
        self.known = nn.Linear(features, width)

    def forward(self, inputs: GenomeInputs) -> Tensor:
        bars = torch.arange(inputs.present.shape[-1], device=inputs.present.device)
        apart = (bars[:, None] - bars[None, :]).clamp(-FARTHEST, FARTHEST) + FARTHEST  # [N, N]
        open_column = inputs.present.any(1) & ~inputs.hidden  # [B, N]
        both = (open_column[:, :, None] & open_column[:, None, :])[..., None]  # [B, N, N, 1]
        # Cleared before the layer and not after it: a gradient of 0 times a NaN would still be a NaN.
        features = inputs.pair.to(self.position.dtype).masked_fill(~both, 0.0)
        pairs: Tensor = self.position[apart] + self.known(features) * both
        return pairs
