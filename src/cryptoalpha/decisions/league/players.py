"""Who sits in the shared market: scripted players, and frozen policies that read what is public and their own inventory.

A scripted player orders lots from one thing it believes in (half of a lot rounds to even):

    value      Δq = +g·(fundamental − price)         knows the fundamental; g = 0.05 lots per tick
    momentum   Δq = +g·(last change of the price)    g = 0.05
    maker      Δq = −½·(what the last auction bought, all together) − ¼·(own inventory)
    noise      Δq ∈ {−s, 0, +s}, each with chance ⅓; s = 4 lots

`Script.flow` is the same before rounding and limits, as far as public knowledge goes: what a planner expects of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cryptoalpha.core.errors import ConfigError, ModelError
from cryptoalpha.decisions.league.config import LeagueMarketConfig
from cryptoalpha.decisions.league.config import Script as ScriptName
from cryptoalpha.decisions.league.market import Lots, Numbers, View

VALUE_GAIN = MOMENTUM_GAIN = 0.05
"""Lots per tick."""

MAKER_SHARE, MAKER_UNWIND = 0.5, 0.25
NOISE_LOTS = 4
MOST_LOTS = 6
"""Largest order of a scripted player, lots."""

FEATURES = 7
"""Numbers that a policy reads: see `features`."""


class Player(Protocol):
    """Decides inventories for B episodes at once."""

    @property
    def name(self) -> str: ...

    @property
    def knows_fundamental(self) -> bool: ...

    def wants(self, view: View, held: Lots, luck: Numbers) -> Lots:
        """The inventory `[B]` it would like to hold after this auction, holding `held` `[B]`; `luck` `[B]` are its dice."""
        ...


@dataclass(frozen=True)
class Script:
    """A player that follows one rule."""

    name: ScriptName
    market: LeagueMarketConfig

    @property
    def knows_fundamental(self) -> bool:
        return self.name == "value"

    def wants(self, view: View, held: Lots, luck: Numbers) -> Lots:
        if self.name == "noise":
            order = NOISE_LOTS * (np.floor(3.0 * luck) - 1.0)
        elif self.name == "value":
            if view.fundamental is None:
                raise ConfigError("the value player was not told the fundamental", hint="give it a view with knows_fundamental=True")
            order = VALUE_GAIN * (view.fundamental - view.price)
        else:
            order = self.flow(view.estimate, view.impact, view.change, view.pressure)
            if self.name == "maker":
                order = order - MAKER_UNWIND * held
        return held + np.clip(np.rint(order), -MOST_LOTS, MOST_LOTS).astype(np.int64)

    def flow(self, estimate: Numbers, impact: Numbers, change: Numbers, pressure: Numbers) -> Numbers:
        """Lots that the public expects of it, any shape; without rounding and, for the maker, without its inventory, which it hides."""
        lots: Numbers
        if self.name == "value":
            lots = -VALUE_GAIN * (estimate + impact)
        elif self.name == "momentum":
            lots = MOMENTUM_GAIN * change
        elif self.name == "maker" and self.market.permanent_impact > 0.0:
            lots = -MAKER_SHARE * pressure / self.market.permanent_impact
        else:
            lots = np.zeros_like(estimate)
        return np.clip(lots, -MOST_LOTS, MOST_LOTS)


def features(
    market: LeagueMarketConfig, number: int | Numbers, estimate: Numbers, impact: Numbers, change: Numbers, pressure: Numbers, held: Numbers
) -> NDArray[np.float32]:
    """What a policy reads, `[n, 7]`: premium (estimate + impact), estimate, impact, change and pressure in units of the noise in prices,
    share of auctions left, own inventory in units of the limit."""
    unit = price_unit(market)
    left = np.broadcast_to((market.steps - np.asarray(number, np.float64)) / market.steps, estimate.shape)
    columns = ((estimate + impact) / unit, estimate / unit, impact / unit, change / unit, pressure / unit, left, held / market.limit)
    return np.stack(columns, axis=-1).astype(np.float32)


def price_unit(market: LeagueMarketConfig) -> float:
    """Ticks that count as one: the size of the mispricing."""
    return max(abs(market.mispricing_start or 0.0), market.mispricing_volatility, 1.0)


def profit_unit(market: LeagueMarketConfig) -> float:
    """Ticks · lots that count as one: what a monopolist trading against one unit of mispricing would earn, four times."""
    return price_unit(market) ** 2 / max(market.impact, 1e-9)


@dataclass(frozen=True, eq=False)
class Weights:
    """K policy/value nets of one shape as arrays, asked all at once: what a frozen player, a tree and a file hold.

    Shapes: each layer `[K, in, out]` and `[K, 1, out]`. Layers are ReLU'd but for the last of each head, as in `nets.PolicyValueNet`.
    """

    trunk: tuple[tuple[NDArray[np.float32], NDArray[np.float32]], ...]
    policy: tuple[tuple[NDArray[np.float32], NDArray[np.float32]], ...]
    value: tuple[tuple[NDArray[np.float32], NDArray[np.float32]], ...]

    @property
    def count(self) -> int:
        return int(self.trunk[0][0].shape[0])

    def logits(self, read: NDArray[np.float32]) -> NDArray[np.float32]:
        """`[n, F]` → `[K, n, A]`."""
        return _through(self.policy, _through(self.trunk, read, end_with_relu=True))

    def answers(self, read: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """`[n, F]` → logits `[K, n, A]` and values `[K, n]`, in the net's own unit."""
        hidden = _through(self.trunk, read, end_with_relu=True)
        return _through(self.policy, hidden), _through(self.value, hidden)[..., 0]

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """By name, for a file."""
        return {
            f"{part}.{i}.{kind}": array
            for part in _PARTS
            for i, layer in enumerate(getattr(self, part))
            for kind, array in zip("wb", layer, strict=True)
        }

    @classmethod
    def of(cls, arrays: dict[str, NDArray[np.float32]]) -> Weights:
        """From what `arrays` gave.

        Raises:
            ModelError: if a layer is missing.
        """
        parts = []
        for part in _PARTS:
            count = sum(name.startswith(f"{part}.") and name.endswith(".w") for name in arrays)
            parts.append(tuple((arrays[f"{part}.{i}.w"], arrays[f"{part}.{i}.b"]) for i in range(count)))
        if not all(parts):
            raise ModelError(f"these are no weights of a league's player: {sorted(arrays)}")
        return cls(*parts)

    @classmethod
    def stacked(cls, members: Sequence[Weights]) -> Weights:
        """Several as one, in order."""
        names = members[0].arrays()
        return cls.of({name: np.concatenate([member.arrays()[name] for member in members]) for name in names})


_PARTS = ("trunk", "policy", "value")


def _through(
    layers: tuple[tuple[NDArray[np.float32], NDArray[np.float32]], ...], read: NDArray[np.float32], *, end_with_relu: bool = False
) -> NDArray[np.float32]:
    for i, (weight, bias) in enumerate(layers):
        read = read @ weight + bias
        if end_with_relu or i < len(layers) - 1:
            read = np.maximum(read, 0.0)
    return read


def softmax(logits: NDArray[np.float32]) -> Numbers:
    """Shares along the last axis, float64."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))


def pick(shares: Numbers, luck: Numbers) -> NDArray[np.int64]:
    """Index drawn from `shares` `[n, A]` by uniforms `[n]`."""
    below = np.cumsum(shares, axis=-1) < luck[:, None]
    return np.asarray(np.minimum(below.sum(axis=-1), shares.shape[-1] - 1), np.int64)
