"""Joint scenarios of the past: how opinions of the whole book moved over a horizon, and what outcome came with it.

A scenario is one bar of the past with the opinions of all families about all instruments then, their opinions a horizon later, and the
outcomes in between: what happened together stays together. The last `pool` of them are kept, and count by the likeness of their regime to
the present one.

Opinions persist: `v(t+h) = φ v(t) + ξ` with one φ per family; a scenario carries its ξ. Outcomes are moment-matched: what a regression on
the opinions finds in the pool is taken out and the posterior mean `v · β` of `statistics` put in its place, so that in the pool, as in the
reward, `E[outcome | opinions]` is exactly what is claimed, and nothing more.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cryptoalpha.decisions.fusion.ridge import inverse
from cryptoalpha.decisions.fusion.search.actions import FAMILIES
from cryptoalpha.decisions.fusion.search.config import SearchConfig
from cryptoalpha.decisions.fusion.search.state import UNIFORM
from cryptoalpha.store.tables import Floats

FEWEST = 16
"""Scenarios below which nothing is drawn: opinions are then taken to stay, and instruments to move together as assumed."""


@dataclass(frozen=True)
class Drawable:
    """Scenarios ready to be drawn from. Shapes: shares `[P]` cumulative to 1, moves (ξ) `[P, I, K]`, persistence (φ) `[K]`, covariance of
    outcomes that nobody foresaw `[I, I]`."""

    shares: Floats
    moves: Floats
    persistence: Floats
    covariance: Floats


class ScenarioPool:
    """The newest scenarios, oldest overwritten."""

    def __init__(self, config: SearchConfig) -> None:
        self._config = config
        self._then: Floats = np.zeros((0, 0, FAMILIES))
        self._later: Floats = np.zeros((0, 0, FAMILIES))
        self._outcomes: Floats = np.zeros((0, 0))
        self._regimes: Floats = np.zeros((0, len(UNIFORM)))
        self._next = 0
        self._moves: Floats = self._then
        self._persistence: Floats = np.ones(FAMILIES)
        self._residuals: Floats = self._outcomes

    @property
    def then(self) -> Floats:
        """Opinions of the scenarios, `[P, I, K]`."""
        return self._then

    @property
    def outcomes(self) -> Floats:
        """What came after them, `[P, I]`; NaN where there is no verdict."""
        return self._outcomes

    @property
    def residuals(self) -> Floats:
        """What of that a regression on the opinions does not explain, `[P, I]`; 0 where there is no verdict."""
        return self._residuals

    def _assumed(self, instruments: int) -> Floats:
        """Covariance of outcomes that nobody has seen, `[I, I]`."""
        return (1.0 - self._config.assumed_correlation) * np.eye(instruments) + self._config.assumed_correlation

    def __len__(self) -> int:
        return len(self._then)

    def follow(self, config: SearchConfig) -> None:
        """Go on with other settings; the size stays."""
        self._config = config

    def add(self, then: Floats, later: Floats, outcomes: Floats, regime: Floats) -> None:
        """Keep one scenario. Shapes: then and later `[I, K]`, outcomes `[I]` (NaN = no verdict), regime `[C]`. I may grow."""
        missing = len(outcomes) - self._outcomes.shape[1]
        if missing:
            self._then = np.pad(self._then, ((0, 0), (0, missing), (0, 0)))
            self._later = np.pad(self._later, ((0, 0), (0, missing), (0, 0)))
            self._outcomes = np.pad(self._outcomes, ((0, 0), (0, missing)), constant_values=np.nan)
        if len(self) < self._config.pool:
            self._then = np.concatenate([self._then, then[None]])
            self._later = np.concatenate([self._later, later[None]])
            self._outcomes = np.concatenate([self._outcomes, outcomes[None]])
            self._regimes = np.concatenate([self._regimes, regime[None]])
        else:
            at = self._next
            self._then[at], self._later[at], self._outcomes[at], self._regimes[at] = then, later, outcomes, regime
        self._next = (self._next + 1) % self._config.pool
        self._refresh()

    def _refresh(self) -> None:
        """φ, ξ and residuals of all that is kept: by least squares over the pool, `[P, I, K]` and `[P, I]`."""
        square = (self._then**2).sum(axis=(0, 1))
        product = (self._then * self._later).sum(axis=(0, 1))
        self._persistence = np.clip(np.where(square > 0.0, product / np.where(square > 0.0, square, 1.0), 1.0), 0.0, 1.0)
        self._moves = self._later - self._persistence * self._then
        self._residuals = self._unforeseen()

    def _unforeseen(self) -> Floats:
        """Outcomes less their mean and what a regression on the opinions explains in the pool; 0 where there is no verdict."""
        told = np.isfinite(self._outcomes)
        y, x = self._outcomes[told], np.concatenate([self._then[told], np.ones((int(told.sum()), 1))], axis=1)
        used = np.flatnonzero((x**2).sum(axis=0) > 0.0)
        x = x[:, used]
        residuals = np.zeros_like(self._outcomes)
        if len(y) > 2 * len(used):
            gram = (x[:, :, None] * x[:, None, :]).sum(axis=0)
            gram += 1e-9 * np.diag(np.diagonal(gram))  # families that say the same are no reason to fail
            weights = (inverse(gram) * (x * y[:, None]).sum(axis=0)).sum(axis=1)
            residuals[told] = y - (x * weights).sum(axis=1)
        else:
            residuals[told] = y
        return residuals

    def matched(self, slopes: Floats) -> Floats:
        """Outcomes of the pool with what is claimed in place of what a regression finds, `[P, I]`, from β `[K]`."""
        return np.asarray(self._residuals + (self._then * slopes).sum(axis=2))

    def drawable(self, regime: Floats, instruments: int) -> Drawable:
        """What may be drawn in a regime `[C]`. A new instrument is not free of risk: where scenarios have no verdict, what is assumed
        stands in for them, among those without."""
        if len(self) < FEWEST:
            return Drawable(np.ones(1), np.zeros((1, instruments, FAMILIES)), np.ones(FAMILIES), self._assumed(instruments))
        share = self._config.regime_share
        weights = 1.0 - share + share * len(regime) * (self._regimes * regime).sum(axis=1)
        weights /= weights.sum()
        moves, residuals, untold = self._moves, self._residuals, ~np.isfinite(self._outcomes)
        missing = instruments - residuals.shape[1]
        if missing:
            moves, residuals = np.pad(moves, ((0, 0), (0, missing), (0, 0))), np.pad(residuals, ((0, 0), (0, missing)))
            untold = np.pad(untold, ((0, 0), (0, missing)), constant_values=True)
        covariance = (weights[:, None, None] * (residuals[:, :, None] * residuals[:, None, :])).sum(axis=0)
        covariance += self._assumed(instruments) * (weights[:, None, None] * (untold[:, :, None] & untold[:, None, :])).sum(axis=0)
        return Drawable(np.cumsum(weights), moves, self._persistence, covariance)
