"""Transition: two linear layers with a ReLU between, cell by cell; the same module for sequences and for pairs.

    update = Linear(relu(Linear(LN x, W → 4W)), 4W → W), times the mask

`forward` adds it. Large pair representations go through in blocks of rows that fit the cache (`row_wise`), in training too: then the hidden
layer, four times as wide as what goes in, is never there at once.

Source: Jumper et al. (2021), Suppl. Alg. 9 and 15. Departure: the update is multiplied by the mask, as in the authors' code.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cryptoalpha.nets.evoformer.initialisation import final_linear, relu_linear

FACTOR = 4
"""How much wider the hidden layer is."""


class Transition(nn.Module):
    """Two linear layers, cell by cell.

    Args:
        width: channels W.

    Shapes:
        x `[..., W]`, mask bool `[...]` (True = observed) → `[..., W]`. The update of a masked cell is 0.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.expand = relu_linear(width, FACTOR * width)
        self.contract = final_linear(FACTOR * width, width)

    def update(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """The update alone."""
        found: Tensor = self.contract(torch.relu(self.expand(self.norm(x))))
        return found if mask is None else found * mask.unsqueeze(-1)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x with the update added."""
        return x + self.update(x, mask)
