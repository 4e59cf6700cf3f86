"""Weights of several named things over time, as a report draws them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryptoalpha.core.errors import ConfigError


@dataclass(frozen=True, eq=False)
class WeightHistory:
    """Weights of several named things over time: sources of the fusion, positions of the book, members of the council.

    Shapes: `times [T]` (increasing), `values [T, K]` finite, one column per name.
    """

    names: tuple[str, ...]
    times: NDArray[np.int64]
    values: NDArray[np.float64]

    def __post_init__(self) -> None:
        if self.values.shape != (self.times.size, len(self.names)):
            raise ConfigError(f"weights {self.values.shape} for {self.times.size} times and {len(self.names)} names")
        if not np.isfinite(self.values).all():
            raise ConfigError("weights hold NaN or infinity", hint="a weight that is not set is 0")
