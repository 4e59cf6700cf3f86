"""The market as a planner sees it: a price taker's world of one instrument, built from nothing but a row of numbers.

From a state x, holding weight w over the next bar earns, before the cost of getting there,

    log:     log(1 + w r − w·carry) − ½ (γ − 1) w² σ²
    linear:  w r − w·carry − ½ γ w² σ²

with the simple return `r = σ (d + z)`, z drawn by one of the laws (`scenarios`) and matched by the planner to mean zero. Then the opinion
decays, `d' = φ d + κ z` (κ: how far the opinion answers to the return just made), volatility returns home or, with `garch`, reacts to the
shock, and the regime moves by its transition matrix. The model has no handle on any bar: what is to come is drawn, never read.

Going from weight v to w costs `rate · |w − v| + impact · |w − v|^1.5`: fee and half the spread per unit, and the square-root law of
`execution.costs`, with the share of daily volume that a setting names.

Beyond the tree a position is worth what a formula says, plus what a trained function has learned to add. The formula (`hold`): keep the
position until the opinion is gone, which happens with chance 1 − φ per bar, then close it at cost:
`(w (d σ − carry) − ½ γ w² σ² − γ_t (1 − φ) · cost(w → 0)) / (1 − γ_t φ)`, γ_t the discount. It is never above 0 where there is no drift.

Implements `learn.search.contract.MarketModel`. Source: Merton (1969) for log utility; Gârleanu & Pedersen (2013) for decaying opinions.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import numpy as np

from cryptoalpha.core.values import REGIMES
from cryptoalpha.decisions.alphazero.scenarios import Law
from cryptoalpha.decisions.alphazero.state import CARRY, COST_RATE, DRIFT, HOME, IMPACT, LOG_VOLATILITY, REGIME, UNIT, Array
from cryptoalpha.learn.search.contract import Booleans, Draws, Floats, Gains

RUIN = -20.0
"""Log growth booked when a position loses more than everything."""

LOG_VOLATILITY_BOUNDS = (-14.0, 3.0)
"""Volatilities of a bar between a millionth and 20: beyond, a model has run away."""


class LeafValue(Protocol):
    """What a trained function adds to the formula: states `[n, WIDTH]` → `[n, K]`, the same bits for a row whatever stands beside it."""

    def __call__(self, states: Floats) -> Floats: ...


@dataclass(frozen=True)
class Dynamics:
    """How a state moves on by itself, per bar. Shapes: transition `[R, R]`, rows sum to 1."""

    persistence: float
    """φ of the opinion, 0–1."""
    response: float
    """κ: change of the drift per unit of shock."""
    reversion: float
    """Share of its distance from home that log volatility keeps, 0–1."""
    transition: Array = field(default_factory=lambda: np.eye(len(REGIMES)), repr=False)
    garch: tuple[float, float] | None = None
    """Reaction α and memory β of the variance; None: volatility returns home instead."""

    def with_garch(self, alpha: float, beta: float) -> Dynamics:
        """The same, but the variance reacts to shocks."""
        return replace(self, garch=(alpha, beta))


@dataclass(frozen=True)
class Taste:
    """What a planner wants. `aversion` is γ, with what positions of a book add to each other's risk."""

    reward: Literal["log", "linear"]
    aversion: float
    discount: float
    leaf: Literal["hold", "zero"] = "hold"


class TradingModel:
    """A market model over the state's columns.

    Args:
        positions: the grid `[K]`, in units of the state's own `UNIT`.
        law: of the shocks.
        leaf: what a trained function adds at the leaves; None adds nothing.
        allowed: `[K, K]`, may position p become a; None = always.
    """

    def __init__(
        self,
        positions: Array,
        law: Law,
        dynamics: Dynamics,
        taste: Taste,
        *,
        leaf: LeafValue | None = None,
        allowed: Booleans | None = None,
    ) -> None:
        self.positions = np.asarray(positions, dtype=np.float64)
        self.law, self.dynamics, self.taste, self.leaf = law, dynamics, taste, leaf
        self.discount = taste.discount
        self.allowed = allowed
        self._steps = np.abs(self.positions[None, :] - self.positions[:, None])[None]  # [1, K, K]
        self._size, self._square = np.abs(self.positions), self.positions**2

    def draw(self, states: Floats, uniforms: Floats) -> Draws:
        """Next states and simple returns; `expected` is σ d exactly."""
        dynamics, m = self.dynamics, uniforms.shape[1]
        shocks = self.law.shocks(states, uniforms)
        drift = np.asarray(states[:, DRIFT], dtype=np.float64)
        log_volatility = np.asarray(states[:, LOG_VOLATILITY], dtype=np.float64)
        volatility = np.exp(log_volatility)
        returns = volatility[:, None] * (drift[:, None] + shocks.z)
        following = np.empty((len(states), m, states.shape[1]), dtype=np.float32)
        following[:] = states[:, None, :]
        following[:, :, DRIFT] = (dynamics.persistence * drift)[:, None] + dynamics.response * shocks.z
        following[:, :, LOG_VOLATILITY] = self._next_volatility(states, log_volatility, volatility, shocks.z, shocks.kicks)
        belief = np.asarray(states[:, REGIME], dtype=np.float64)
        moved = np.zeros(belief.shape)
        for r in range(belief.shape[1]):
            moved = moved + belief[:, r, None] * dynamics.transition[r]
        following[:, :, REGIME] = moved[:, None, :]
        return Draws(following, returns, volatility * drift, np.full(uniforms.shape, 1.0 / m))

    def _next_volatility(self, states: Floats, log_volatility: Array, volatility: Array, z: Array, kicks: Array | None) -> Array:
        home = np.asarray(states[:, HOME], dtype=np.float64)
        if self.dynamics.garch is not None:
            alpha, beta = self.dynamics.garch
            variance = volatility**2
            following = (np.exp(2.0 * home) * (1.0 - alpha - beta) + beta * variance)[:, None] + alpha * variance[:, None] * z**2
            moved = 0.5 * np.log(following)
        else:
            moved = (home + self.dynamics.reversion * (log_volatility - home))[:, None]
            moved = moved + (np.zeros(z.shape) if kicks is None else kicks)
        return np.asarray(np.clip(moved, *LOG_VOLATILITY_BOUNDS))

    def gains(self, states: Floats, returns: Floats) -> Gains:
        """What each position earns over the returns, risk charged."""
        unit = np.asarray(states[:, UNIT], dtype=np.float64)
        risk = 0.5 * (unit * np.exp(np.asarray(states[:, LOG_VOLATILITY], dtype=np.float64))) ** 2
        net = (returns - np.asarray(states[:, CARRY], dtype=np.float64)[:, None]) * unit[:, None]
        growth = net[:, :, None] * self.positions
        if self.taste.reward == "linear":
            return Gains(growth - (self.taste.aversion * risk)[:, None, None] * self._square)
        penalty = ((self.taste.aversion - 1.0) * risk)[:, None, None] * self._square
        if growth.size and growth.min() > -1.0:
            return Gains(np.log1p(growth) - penalty)
        alive = growth > -1.0
        return Gains(np.where(alive, np.log1p(np.where(alive, growth, 0.0)), RUIN) - penalty, alive)

    def costs(self, states: Floats) -> Array:
        """Cost of each change of position, fraction of equity, `[n, K, K]`."""
        unit = np.asarray(states[:, UNIT], dtype=np.float64)[:, None, None]
        rate = np.asarray(states[:, COST_RATE], dtype=np.float64)[:, None, None]
        impact = np.asarray(states[:, IMPACT], dtype=np.float64)[:, None, None]
        traded = unit * self._steps
        if not impact.any():
            return np.asarray(rate * traded)
        return np.asarray(traded * (rate + impact * np.sqrt(traded)))

    def values(self, states: Floats) -> Array:
        """What each position is worth beyond the tree `[n, K]`."""
        worth = np.zeros((len(states), len(self.positions))) if self.taste.leaf == "zero" else self._hold(states)
        return worth if self.leaf is None else worth + self.leaf(states)

    def _hold(self, states: Floats) -> Array:
        persistence, discount = self.dynamics.persistence, self.discount
        columns = np.asarray(states, dtype=np.float64)
        unit, volatility = columns[:, UNIT], np.exp(columns[:, LOG_VOLATILITY])
        pull = unit * (columns[:, DRIFT] * volatility - columns[:, CARRY])
        risk = 0.5 * self.taste.aversion * (unit * volatility) ** 2
        size = unit[:, None] * self._size
        close = size * (columns[:, COST_RATE, None] + columns[:, IMPACT, None] * np.sqrt(size))
        ended = discount * (1.0 - persistence)
        lasting = 1.0 / max(1.0 - discount * persistence, 1e-3)
        return np.asarray((pull[:, None] * self.positions - risk[:, None] * self._square - ended * close) * lasting)

    def logits(self, states: Floats) -> None:
        """No opinion on moves: they follow from values."""
        return
