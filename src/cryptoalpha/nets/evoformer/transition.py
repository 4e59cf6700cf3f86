"""Transition: two linear layers with a ReLU between, cell by cell; the same module for sequences and for pairs.

    update = Linear(relu(Linear(LN x, W → 4W)), 4W → W), times the mask

`forward` adds it. Large pair representations go through in blocks of rows that fit the cache (`row_wise`), in training too: then the hidden
layer, four times as wide as what goes in, is never there at once.

Source: Jumper et al. (2021), Suppl. Alg. 9 and 15. Departure: the update is multiplied by the mask, as in the authors' code.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from cryptoalpha.nets.evoformer.initialisation import final_linear, relu_linear
from cryptoalpha.nets.evoformer.row_wise import Rows, blocks_pay, row_wise, rows_per_block

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
        if x.dim() < 3 or not blocks_pay(x.shape[-2], x.device):
            return x + self.update(x, mask)
        length, width = x.shape[-2:]
        seen = None if mask is None else mask.reshape(-1, length, 1).to(x.dtype)
        weights = (self.norm.weight, self.norm.bias, self.expand.weight, self.expand.bias, self.contract.weight, self.contract.bias)
        block = rows_per_block(length, FACTOR * width)
        return row_wise(_added, block, [Rows(x.reshape(-1, length, width)), Rows(seen)], weights).view(x.shape)


def _added(sliced: Sequence[Tensor | None], shared: Sequence[Tensor]) -> Tensor:
    x, seen = sliced
    norm_weight, norm_bias, expand, expand_bias, contract, contract_bias = shared
    assert x is not None
    hidden = functional.linear(functional.layer_norm(x, x.shape[-1:], norm_weight, norm_bias), expand, expand_bias)
    update = functional.linear(hidden.relu_(), contract, contract_bias)
    return x + (update if seen is None else update * seen)
