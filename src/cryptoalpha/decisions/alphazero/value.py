"""The trained value function: what a state is worth beyond the formula, as plain NumPy.

`leaf(x, ·) = μ + s · net(features(x))`, one value per position of the grid: a perceptron of two hidden layers of 32. It is asked about
hundreds of leaves per bar in a loop that plans; NumPy needs a third of a millisecond for them and no torch in the process.

Blocks: products of matrices may round differently for different numbers of rows, so rows go through in blocks of fixed size, padded. With
as many rows per block as a root has leaves, a root's values have the same bits whatever is planned beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryptoalpha.core.errors import ModelError
from cryptoalpha.decisions.alphazero.state import CARRY, COST_RATE, DRIFT, HOME, LOG_VOLATILITY, REGIME, UNIT
from cryptoalpha.learn.search.contract import Floats

Array32 = NDArray[np.float32]
"""Any shape."""

HIDDEN = (32, 32)
"""Widths of the hidden layers."""

FEATURES = 12
"""Numbers that the net reads of a state."""

USUAL_RISK = 0.003
"""Volatility of a full position per bar about which its logarithm is centred: a tenth of a per cent to one per cent of equity."""


def features(states: Floats) -> Array32:
    """What the net reads of states `[n, WIDTH]`: `[n, 12]`, each about −3 to 3.

    Drift and its size (in tenths of a volatility per bar), volatility over its home, six beliefs, risk of a full position, cost of a trade
    and carry in volatilities of a bar. Confidence is left out: it only repeats the drift's size.
    """
    x = np.asarray(states, dtype=np.float64)
    volatility = np.exp(x[:, LOG_VOLATILITY])
    drift = np.clip(10.0 * x[:, DRIFT], -5.0, 5.0)
    parts = [
        drift,
        np.abs(drift),
        np.clip(x[:, LOG_VOLATILITY] - x[:, HOME], -3.0, 3.0),
        *x[:, REGIME].T,
        np.clip(np.log(np.maximum(x[:, UNIT] * volatility, 1e-9) / USUAL_RISK), -5.0, 5.0),
        np.clip(x[:, COST_RATE] / volatility, 0.0, 5.0),
        np.clip(10.0 * x[:, CARRY] / volatility, -5.0, 5.0),
    ]
    read: Array32 = np.stack(parts, axis=1).astype(np.float32)
    return read


@dataclass(frozen=True)
class ValueFunction:
    """A trained net; implements `market.LeafValue`.

    Args:
        weights: `[inputs, outputs]` and bias `[outputs]` of each layer.
        mean, scale: μ and s `[K]`, in the units of rewards.
        block: rows that go through at once.
    """

    weights: tuple[tuple[Array32, Array32], ...]
    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    block: int

    def __call__(self, states: Floats) -> NDArray[np.float64]:
        count = len(states)
        blocks = -(-count // self.block)
        hidden: Array32 = np.zeros((blocks * self.block, FEATURES), dtype=np.float32)
        hidden[:count] = features(states)
        hidden = hidden.reshape(blocks, self.block, FEATURES)
        for place, (matrix, bias) in enumerate(self.weights):
            hidden = np.matmul(hidden, matrix) + bias
            if place < len(self.weights) - 1:
                np.maximum(hidden, 0.0, out=hidden)
        values: NDArray[np.float64] = self.mean + self.scale * hidden.reshape(blocks * self.block, -1)[:count]
        return values

    def arrays(self, prefix: str) -> dict[str, NDArray[Any]]:
        """Everything as arrays, for a file."""
        named: dict[str, NDArray[Any]] = {f"{prefix}/mean": self.mean, f"{prefix}/scale": self.scale}
        for place, (matrix, bias) in enumerate(self.weights):
            named |= {f"{prefix}/w{place}": matrix, f"{prefix}/b{place}": bias}
        return named

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]], prefix: str, *, block: int) -> ValueFunction:
        """What `arrays` wrote.

        Raises:
            ModelError: if layers do not fit each other or what the net is fed with.
        """
        layers: list[tuple[Array32, Array32]] = []
        while f"{prefix}/w{len(layers)}" in arrays:
            layers.append((arrays[f"{prefix}/w{len(layers)}"], arrays[f"{prefix}/b{len(layers)}"]))
        widths = [FEATURES, *(matrix.shape[1] for matrix, _ in layers)]
        fits = layers and all(m.shape == (a, b) and bias.shape == (b,) for (m, bias), a, b in zip(layers, widths, widths[1:], strict=False))
        if not fits or arrays[f"{prefix}/mean"].shape != (widths[-1],):
            raise ModelError(f"the layers of {prefix} do not fit together: {[m.shape for m, _ in layers]}", hint="train the agent anew")
        return cls(tuple(layers), arrays[f"{prefix}/mean"], arrays[f"{prefix}/scale"], block)
