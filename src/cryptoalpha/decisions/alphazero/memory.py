"""What a planner remembers of the past it was handed: residuals, and how opinions, volatility and regimes moved on.

Fed once per bar with what is known then; nothing in it reaches ahead. A residual belongs to the bar that has just closed and is
standardised by the volatility and drift that were believed before it: `z = r / σ − d`. Persistence, response and reversion are least
squares through the origin over consecutive bars, drawn towards what the settings say by a prior worth `PRIOR_BARS` bars; the response
must also pass the garrote (two standard errors) or is zero. The transition of regime beliefs is a ridge regression of each belief on the
one before, drawn towards staying.

Sums run forward in a fixed order: the same bars give the same bits.
"""

from __future__ import annotations

import math

import numpy as np

from cryptoalpha.core.values import REGIMES
from cryptoalpha.decisions.alphazero.config import AlphaZeroConfig
from cryptoalpha.decisions.alphazero.market import Dynamics
from cryptoalpha.decisions.alphazero.scenarios import Pool, make_pool
from cryptoalpha.decisions.alphazero.state import Array

PRIOR_BARS = 500.0
"""Weight of the settings against history, in bars."""

GARROTE = 4.0
"""Square of the t statistic below which a response is none."""

FRESH = 20
"""The pool is summed up anew, at the next look, once one in so many of its residuals is new."""

LARGEST_PERSISTENCE = 0.999
LARGEST_RESIDUAL = 12.0
"""Residuals are cut here: beyond, a volatility was wrong."""

Past = tuple[int, float, float, float, float, Array]
"""happened_at, price, move, drift, log volatility, belief."""


class MarketMemory:
    """Residual pool and fitted dynamics of a book, pooled over its instruments.

    Args:
        config: lengths, priors and refresh.
        book_size: instruments in the book.
        pools: whether residuals are summed up at every look; a law that draws none needs no pool.
    """

    def __init__(self, config: AlphaZeroConfig, *, book_size: int, pools: bool = True) -> None:
        self.config, self._pools = config, pools
        most = config.memory_bars * book_size
        self._z, self._kicks, self._beliefs = np.zeros(most), np.zeros(most), np.zeros((most, len(REGIMES)))
        self._rows = self._summed = 0
        self.bars = 0
        self._past: dict[str, Past] = {}
        self._home: dict[str, tuple[float, int]] = {}
        self._variance: dict[str, float] = {}
        self._sums = np.zeros(8)
        self._moved = np.zeros((2, len(REGIMES), len(REGIMES)))
        self._renewed = -1
        self._pool: Pool | None = None
        self.ghosts: Pool | None = None
        """Residuals of a training, with which the pool begins; None begins with Student shocks."""
        self.garch = (config.garch_alpha, config.garch_beta)
        self._is_fixed = False
        self._dynamics = self._prior()

    def observe(self, instrument: str, happened_at: int, bar: int, price: float, log_volatility: float, belief: Array) -> None:
        """Take in the close of one bar, before anything is decided on it."""
        past = self._past.get(instrument)
        mean, seen = self._home.get(instrument, (log_volatility, 0))
        seen += 1
        self._home[instrument] = (mean + (log_volatility - mean) / min(seen, self.config.memory_bars), seen)
        if past is None or happened_at - past[0] != bar or not (price > 0.0 and past[1] > 0.0):
            self._variance[instrument] = math.exp(2.0 * log_volatility)
            return
        _, before, _, drift, old, held = past
        change = price / before - 1.0
        z = max(-LARGEST_RESIDUAL, min(LARGEST_RESIDUAL, change / math.exp(old) - drift))
        kick = log_volatility - (mean + self._dynamics.reversion * (old - mean))
        row = self._rows % len(self._z)
        self._z[row], self._kicks[row], self._beliefs[row] = z, kick, held
        self._rows += 1
        alpha, beta = self.garch
        home = math.exp(2.0 * mean)
        self._variance[instrument] = (1.0 - alpha - beta) * home + alpha * change * change + beta * self._variance[instrument]
        away = old - mean
        self._sums[0] += away * away
        self._sums[1] += away * (log_volatility - mean)
        if held.any() and belief.any():
            self._moved[0] += held[:, None] * held
            self._moved[1] += held[:, None] * belief

    def believed(self, instrument: str, happened_at: int, bar: int, price: float, move: float, drift: float, log_volatility: float,
                 belief: Array) -> None:  # fmt: skip
        """Keep what was believed of the next bar, once the opinion on it is known."""
        past = self._past.get(instrument)
        if past is not None and happened_at - past[0] == bar:
            self._sums[2] += past[2] * past[2]
            self._sums[3] += past[2] * move
            if self._rows:
                shock = (price / past[1] - 1.0) / math.exp(past[4]) - past[3] if past[1] > 0.0 else 0.0
                rest = drift - self._dynamics.persistence * past[3]
                self._sums[4] += shock * shock
                self._sums[5] += shock * rest
                self._sums[6] += rest * rest
        self._past[instrument] = (happened_at, price, move, drift, log_volatility, belief)

    def end_bar(self) -> None:
        """One bar of the book is over: forget what is too old, and look anew at pool and dynamics when it is time."""
        self.bars += 1
        if self.bars // self.config.refresh_bars != self._renewed:
            self._renewed = self.bars // self.config.refresh_bars
            if self._pools and (self._rows - self._summed) * FRESH >= min(self._rows, len(self._z)):
                self._pool = self._summed_up()  # now, not when somebody asks: nothing may hang on who asks when
            self._dynamics = self._dynamics if self._is_fixed else self.fitted()

    def home(self, instrument: str) -> float:
        """Long-run log volatility of a bar."""
        return self._home[instrument][0]

    def garch_log_volatility(self, instrument: str) -> float:
        """Log volatility of the next bar by the GARCH filter."""
        return 0.5 * math.log(max(self._variance[instrument], 1e-14))

    def pool(self) -> Pool:
        """Residuals known at the last look."""
        if self._pool is None:
            self._pool = self._summed_up()
        return self._pool

    def _summed_up(self) -> Pool:
        there, config = min(self._rows, len(self._z)), self.config
        self._summed = self._rows
        z, kicks, beliefs = self._z[:there], self._kicks[:there], self._beliefs[:there]
        return make_pool(
            z, kicks, beliefs, bins=config.pool_bins, prior=config.pool_prior, ghosts=self.ghosts, degrees=config.student_degrees
        )

    def dynamics(self) -> Dynamics:
        """How states move on, as far as history tells."""
        return self._dynamics

    def _prior(self) -> Dynamics:
        config = self.config
        return Dynamics(0.5 ** (1.0 / config.persistence_half_life_bars), 0.0, 0.5 ** (1.0 / config.volatility_half_life_bars))

    def fix(self, dynamics: Dynamics, garch: tuple[float, float]) -> None:
        """States move on like this from now, whatever history tells."""
        self._dynamics, self.garch, self._is_fixed = dynamics, garch, True
        self._pool = self._summed_up() if self._pools else None

    def fitted(self) -> Dynamics:
        """What history tells of how states move on."""
        prior, sums = self._prior(), self._sums
        share = PRIOR_BARS / max(self.bars, 1)
        moves, away = share * sums[2], share * sums[0]
        persistence = (sums[3] + moves * prior.persistence) / (sums[2] + moves) if sums[2] > 0.0 else prior.persistence
        reversion = (sums[1] + away * prior.reversion) / (sums[0] + away) if sums[0] > 0.0 else prior.reversion
        response = 0.0
        if sums[4] > 0.0 and sums[6] > 0.0:
            slope = sums[5] / sums[4]
            error = max(sums[6] - slope * sums[5], 1e-30) / sums[4] / max(self.bars, 1)  # instruments move together: bars count, not pairs
            response = slope * max(0.0, 1.0 - GARROTE * error / (slope * slope)) if slope != 0.0 else 0.0
        kept = self._moved[0] + PRIOR_BARS * np.eye(len(REGIMES))
        moved = np.maximum(np.linalg.solve(kept, self._moved[1] + PRIOR_BARS * np.eye(len(REGIMES))), 0.0)
        return Dynamics(
            min(max(float(persistence), 0.0), LARGEST_PERSISTENCE), float(response), min(max(float(reversion), 0.0), LARGEST_PERSISTENCE),
            moved / moved.sum(axis=1, keepdims=True),
        )  # fmt: skip
