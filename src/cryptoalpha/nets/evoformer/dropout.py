"""Dropout whose mask is shared along one axis, as the Evoformer wants it.

A whole row (or column) of one channel is kept or dropped together, so that what was dropped cannot be read off the neighbours.

Source: Jumper et al. (2021), Suppl. Alg. 6 (DropoutRowwise, DropoutColumnwise). Row-wise shares the mask over axis −3, column-wise over −2.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from cryptoalpha.core.errors import ConfigError

Axis = Literal["rows", "columns"]
SHARED: dict[Axis, int] = {"rows": -3, "columns": -2}


def dropout_factor(x: Tensor, rate: float, axis: Axis) -> Tensor:
    """Draw what `x` `[..., I, J, C]` is to be multiplied with: 0 where dropped, 1/(1 − rate) where kept, size 1 along the shared axis.

    One draw for the whole tensor: a path that works in slices draws first and slices this too, and so agrees with the path that does not.
    """
    shape = list(x.shape)
    shape[SHARED[axis]] = 1
    return torch.empty(shape, dtype=x.dtype, device=x.device).bernoulli_(1.0 - rate).div_(1.0 - rate)


class SharedDropout(nn.Module):
    """Draws, in training, the factor of an update `[..., I, J, C]`, shared along `axis` ("rows" −3, "columns" −2).

    Raises:
        ConfigError: if `rate` is not in [0, 1).
    """

    def __init__(self, rate: float, axis: Axis) -> None:
        super().__init__()
        if not 0.0 <= rate < 1.0:
            raise ConfigError(f"a dropout rate is a share below one, got {rate}")
        self.rate = rate
        self.axis: Axis = axis

    def factor(self, x: Tensor) -> Tensor | None:
        """What an update of the shape of `x` is to be multiplied with now; None if nothing is dropped."""
        return dropout_factor(x, self.rate, self.axis) if self.training and self.rate > 0.0 else None

    def extra_repr(self) -> str:
        return f"rate={self.rate}, axis={self.axis!r}"
