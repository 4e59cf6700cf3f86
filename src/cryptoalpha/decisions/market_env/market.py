"""What stands behind the environment: a market that moves by itself, as a pure function of places and uniforms.

A place `[P]` is all that a market needs to go on from somewhere: a row and an instrument of history, the state of a model. The
environment keeps one per lane; a market keeps nothing, so that lanes, episodes and copies never disturb each other, and whoever holds a
market without a place cannot ask it what comes next.

Everything is told relative to the last known close of the lane, 1: prices are ratios to it, volumes quote units at it.

Axes: n lanes, P numbers of a place, F features.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.learn.search.contract import Floats, MarketModel

Array = NDArray[np.float64]

WIDEST = 1e6
"""Largest feature of a model whose bounds are not told; an observation space must be bounded."""


SMALLEST_UNIFORM = 2.0**-54
"""Models are asked for quantiles above 0; generators may draw a 0."""


class Known(NamedTuple):
    """What is known when a decision is made. Shapes: features `[n, F]`; variance `[n]` of the next return; daily_volatility `[n]` and
    daily_turnover `[n]` (quote units) as impact needs them, NaN where too little has been seen."""

    features: Floats
    variance: Array
    daily_volatility: Array
    daily_turnover: Array


class Period(NamedTuple):
    """What happens until the next decision. All `[n]`: prices as ratios to the last close; `turnover` what the bar traded at that close,
    in quote units (NaN or 0: unknown, inf: no limit); funding rates settled at the open and inside the bar, 0 where none; `ended`: the
    market stops here."""

    open: Array
    high: Array
    low: Array
    close: Array
    turnover: Array
    funding_at_open: Array
    funding_inside: Array
    ended: NDArray[np.bool_]


class Market(Protocol):
    """A market for any number of lanes."""

    low: Array
    """Smallest values of the features `[F]`."""

    high: Array
    """Largest values of the features `[F]`."""

    by_chance: bool
    """Whether `follow` reads its uniforms."""

    def begin(self, uniforms: Array, horizon: int) -> Array:
        """Places `[n, P]` to start from, one per uniform in [0, 1), from which `horizon` steps can be taken."""
        ...

    def known(self, places: Array) -> Known:
        """What can be seen from there."""
        ...

    def follow(self, places: Array, uniforms: Array) -> tuple[Array, Period]:
        """The next places and what happened on the way."""
        ...


class ModelMarket:
    """A scenario model as a market to live in: each step draws one outcome by its conditional quantile function.

    Prices move by the model's returns; nothing gaps, nothing is paid for funding and any size can be traded, but for the costs of the
    environment. The model's own `gains`, `costs` and `values` are not asked: the environment does the accounting.

    Args:
        model: any `learn.search.contract.MarketModel` whose single outcome at a uniform u is its conditional u-quantile.
        start: uniforms `[n]` → market states `[n, X]`.
        variance: states `[n, X]` → variance of the next return `[n]`; None = 0, for a reward without risk penalty.
        low, high: bounds of a market state `[X]`; None = ±`WIDEST`.
    """

    by_chance = True

    def __init__(
        self,
        model: MarketModel,
        start: Callable[[Array], Floats],
        *,
        variance: Callable[[Floats], Array] | None = None,
        low: Floats | None = None,
        high: Floats | None = None,
    ) -> None:
        self.model, self._start, self._variance = model, start, variance
        width = np.asarray(start(np.full(1, 0.5))).shape[1]
        self.low = np.full(width, -WIDEST) if low is None else np.asarray(low, dtype=np.float64)
        self.high = np.full(width, WIDEST) if high is None else np.asarray(high, dtype=np.float64)
        if self.low.shape != (width,) or self.high.shape != (width,) or not (self.low < self.high).all():
            raise ConfigError(f"bounds of shapes {self.low.shape} and {self.high.shape} for states of {width} numbers, low below high")

    def begin(self, uniforms: Array, horizon: int) -> Array:
        """States drawn by `start`; a model never runs out."""
        return np.asarray(self._start(uniforms), dtype=np.float64)

    def known(self, places: Array) -> Known:
        """The state itself. Impact is nothing: turnover is without limit."""
        count = len(places)
        variance = np.zeros(count) if self._variance is None else self._variance(places)
        return Known(places, variance, np.zeros(count), np.full(count, np.inf))

    def follow(self, places: Array, uniforms: Array) -> tuple[Array, Period]:
        """One drawn outcome each."""
        draws = self.model.draw(places.astype(np.float32), np.maximum(uniforms, SMALLEST_UNIFORM)[:, None])
        count = len(places)
        close = 1.0 + np.asarray(draws.returns[:, 0], dtype=np.float64)
        opened, nothing = np.ones(count), np.zeros(count)
        ended = np.zeros(count, dtype=np.bool_) if draws.terminal is None else np.asarray(draws.terminal[:, 0], dtype=np.bool_)
        high, low = np.maximum(opened, close), np.minimum(opened, close)
        period = Period(opened, high, low, close, np.full(count, np.inf), nothing, nothing, ended)
        return np.asarray(draws.states[:, 0], dtype=np.float64), period
