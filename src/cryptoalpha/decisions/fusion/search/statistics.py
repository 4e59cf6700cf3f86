"""What families of evidence have been worth: their correlation with what came after, how sure that is, and what may be claimed from it.

With v the opinions of an instrument and y the outcome in volatility units, forgetting sums of `v vᵀ`, `v y` and `y²` are kept for every
cell of the regime belief. Seen from a regime belief b, the past counts by its likeness, `(1 − η) + η · C ⟨b_then, b_now⟩`: linear in the
cells, so six sums serve every belief.

How sure: instruments of a bar are one cluster, `g_t = Σ_a v_a y_a`. Outcomes overlap over the horizon h, so the variance of Σ g is taken
from sums over blocks of 2h bars: a block sees the autocovariance up to its length, with triangular weights that take up to a sixth off a
fully overlapping one, which is put back. No correlation is assumed surer than independent observations would make it, and few blocks widen
it.

What is claimed: a family knows nothing with probability 1 − π, or has a correlation drawn from N(0, τ²) with probability π. With r the
correlation seen and s its standard error, the claimed correlation is the posterior mean given that it knows something, times the part of
the posterior odds above even, `r · τ²/(τ² + s²) · max(0, 2P − 1)`: exactly 0 unless it is likelier than not that it knows something. So
noise claims nothing, except for the rare lucky family.

Source: Mitchell & Beauchamp (1988), spike and slab. Departures: the part above even instead of the mean over both, so that zero is reached;
claimed correlations are turned into slopes by the families' own covariance, with a ridge.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cryptoalpha.core.values import REGIMES
from cryptoalpha.decisions.fusion.ridge import inverse
from cryptoalpha.decisions.fusion.search.config import SearchConfig
from cryptoalpha.store.tables import Floats

CELLS = len(REGIMES)
FEW_BLOCKS = 6.0
"""Variance of a correlation is widened by 1 + this / number of blocks: Student's t with few blocks has such tails."""


@dataclass(frozen=True)
class Belief:
    """What is believed of the families in one bar. Shapes `[K]`, second_moment `[K, K]`."""

    ic: Floats
    """Correlation with the outcome, as seen."""
    error: Floats
    """Its standard error; infinite before there is evidence."""
    chance: Floats
    """Posterior probability that the family knows anything."""
    slopes: Floats
    """β: expected outcome = v · β. 0 where nothing is claimed."""
    second_moment: Floats
    """Mean of v vᵀ over instruments and bars."""


class FamilyStatistics:
    """Forgetting sums over outcomes, one set per regime cell.

    Args:
        width: K, number of families.
        horizon_bars: h, over which outcomes overlap.
    """

    def __init__(self, config: SearchConfig, width: int, horizon_bars: int) -> None:
        self._config = config
        self._forget = 0.5 ** (1.0 / config.half_life_bars)
        self._length = 2 * horizon_bars
        self._taper = taper(horizon_bars)
        self._moment: Floats = np.zeros((CELLS, width, width))
        self._cross: Floats = np.zeros((CELLS, width))
        self._power: Floats = np.zeros((CELLS, width))
        self._rows: Floats = np.zeros(CELLS)
        self._open: Floats = np.zeros((CELLS, width))
        self._meat: Floats = np.zeros((CELLS, CELLS, width))
        self._count = self._count_squared = 0.0
        self._steps = 0

    def follow(self, config: SearchConfig) -> None:
        """Go on with other settings."""
        self._config, self._forget = config, 0.5 ** (1.0 / config.half_life_bars)

    def learn(self, values: Floats, heard: Floats, outcomes: Floats, regime: Floats) -> None:
        """Add the outcomes of one bar. Shapes: values (0 where silent) and heard `[M, K]`, outcomes `[M]`, regime then `[C]`."""
        for kept in (self._moment, self._cross, self._power, self._rows, self._open):
            kept *= self._forget
        self._meat *= self._forget**2
        moved = (values * outcomes[:, None]).sum(axis=0)
        self._moment += regime[:, None, None] * (values[:, :, None] * values[:, None, :]).sum(axis=0)
        self._cross += regime[:, None] * moved
        self._power += regime[:, None] * (heard * outcomes[:, None] ** 2).sum(axis=0)
        self._rows += regime * len(outcomes)
        self._open += regime[:, None] * moved
        self._count = self._forget * self._count + 1.0
        self._count_squared = self._forget**2 * self._count_squared + 1.0
        self._steps += 1
        if self._steps % self._length == 0:
            self._meat += self._open[:, None, :] * self._open[None, :, :]
            self._open[:] = 0.0

    def belief(self, regime: Floats) -> Belief:
        """What is believed in a regime `[C]` (uniform: whatever the regime)."""
        likeness = 1.0 - self._config.regime_share + self._config.regime_share * CELLS * regime
        moment = (likeness[:, None, None] * self._moment).sum(axis=0)
        cross = (likeness[:, None] * self._cross).sum(axis=0)
        power = (likeness[:, None] * self._power).sum(axis=0)
        rows = float((likeness * self._rows).sum())
        square = (likeness[:, None, None] * likeness[None, :, None] * self._meat).sum(axis=(0, 1))
        scale = np.sqrt(np.diagonal(moment) * power)
        known = (scale > 0.0) & (self._steps >= 4 * self._length)
        safe = np.where(known, scale, 1.0)
        ic = np.where(known, cross / safe, 0.0)
        bars = self._count**2 / self._count_squared if self._steps else 1.0
        blocks = max(1.0, bars / self._length)
        variance = np.maximum(self._taper * square / safe**2, 1.0 / max(1.0, rows / max(self._count, 1.0) * bars)) * (
            1.0 + FEW_BLOCKS / blocks
        )
        error = np.where(known, np.sqrt(variance), np.inf)
        claimed, chance = claim(ic, error, self._config)
        mean = moment / max(rows, 1e-12)
        return Belief(ic, error, chance, self._slopes(claimed * scale / max(rows, 1e-12), mean), mean)

    def _slopes(self, covariance: Floats, moment: Floats) -> Floats:
        """β of the families that claim something, from their claimed covariance with the outcome; 0 for the others."""
        slopes, at = np.zeros(len(covariance)), np.flatnonzero(covariance)
        if len(at):
            block = moment[np.ix_(at, at)]
            slopes[at] = (inverse(block + self._config.ridge_share * np.diag(np.diagonal(block))) * covariance[at]).sum(axis=1)
        return slopes


def taper(horizon_bars: int) -> float:
    """What blocks of 2h must be multiplied by: outcomes that overlap over h have autocovariance 1 − l/h at lag l, seen with 1 − l/2h."""
    lags = np.arange(1, horizon_bars) / horizon_bars
    return float((1.0 + 2.0 * (1.0 - lags).sum()) / (1.0 + 2.0 * ((1.0 - lags) * (1.0 - lags / 2.0)).sum()))


def claim(ic: Floats, error: Floats, config: SearchConfig) -> tuple[Floats, Floats]:
    """Claimed correlation and chance of knowing anything from the correlation seen and its standard error, each `[K]`."""
    finite = np.isfinite(error)
    variance = np.where(finite, error, 1.0) ** 2
    kept = np.where(finite, config.prior_ic**2 / (config.prior_ic**2 + variance), 0.0)
    odds = 0.5 * np.where(finite, ic**2 / variance, 0.0) * kept + 0.5 * np.log1p(-kept)
    odds += math.log(config.prior_share) - (math.log1p(-config.prior_share) if config.prior_share < 1.0 else -50.0)
    chance = 1.0 / (1.0 + np.exp(-np.clip(odds, -50.0, 50.0)))
    return ic * kept * np.maximum(0.0, 2.0 * chance - 1.0), chance
