"""How the next return may turn out: three laws of the shock z in `return = σ (d + z)`, drawn at uniforms that the planner gives.

- `bootstrap`: past standardised residuals, those of similar regimes weighing more, each with the volatility it left behind (a block of two
  bars). Longer blocks would tell a node deeper in the tree which residual comes next: variance known beforehand is clairvoyance too.
- `quantiles`: the forecast's own quantiles, straight between levels and with exponential tails; the bootstrap where there are none.
- `garch`: Student shocks of variance one, and a variance that reacts to them.

All answer only to states and uniforms: nothing here can look at a bar. Means need not be exact, the planner matches them.

Source: Politis & Romano (1994), "The stationary bootstrap", for blocks; Barone-Adesi, Giannopoulos & Vosper (1999), "VaR without
correlations for portfolios of derivative securities", for filtered residuals; Bollerslev (1987) for Student shocks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np

from cryptoalpha.core.values import REGIMES
from cryptoalpha.decisions.alphazero.state import REGIME, SHAPE, Array, inverse_law
from cryptoalpha.learn.search.contract import Floats

GHOSTS = 2_000
"""Residuals that a trained pool counts for beside the agent's own."""


@dataclass(frozen=True)
class Shocks:
    """What chance does in a node. Shapes: z `[n, m]`; kicks `[n, m]` added to the next log volatility."""

    z: Array
    kicks: Array | None


class Law(Protocol):
    """A law of shocks."""

    name: str

    def shocks(self, states: Floats, uniforms: Floats) -> Shocks:
        """Shocks of states `[n, WIDTH]` at uniforms `[n, m]`."""
        ...


@dataclass(frozen=True)
class Pool:
    """Past residuals summed up. Shapes: z and kicks `[G]` rising in z; ladder `[R + 1, G]` cumulated shares, one row per regime and the
    last of all regimes together; regimes `[R]` mean belief in each."""

    z: Array
    kicks: Array
    ladder: Array
    regimes: Array


@lru_cache(maxsize=16)
def student_table(degrees: float, points: int = 4001) -> tuple[Array, Array]:
    """Cumulated shares and values of Student's law scaled to variance one, by the trapezoid rule on a grid that is fine in the middle."""
    x = np.sinh(np.linspace(-9.0, 9.0, points))
    log_density = -(degrees + 1.0) / 2.0 * np.log1p(x * x / degrees)
    log_density += math.lgamma((degrees + 1.0) / 2.0) - math.lgamma(degrees / 2.0) - 0.5 * math.log(degrees * math.pi)
    density = np.exp(log_density)
    share = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2.0 * np.diff(x))])
    return share / share[-1], x * math.sqrt((degrees - 2.0) / degrees)


def student_quantile(uniforms: Floats, degrees: float) -> Array:
    """Value of a Student shock of variance one below which a share `uniforms` lies."""
    share, value = student_table(degrees)
    found: Array = np.interp(uniforms, share, value)
    return found


def make_pool(z: Array, kicks: Array, beliefs: Array, *, bins: int, prior: float, degrees: float, ghosts: Pool | None = None) -> Pool:
    """Sum up residuals `[P]`, the kicks of log volatility that went with them `[P]` and the regimes believed in then `[P, R]`.

    Residuals stand in bins that are narrower in both tails; a bin is its mean. A number of others is mixed in, so that a young pool has a
    law too: Student shocks, or the residuals of an earlier pool (`ghosts`, then `GHOSTS` of them). `prior` is what a regime borrows.
    """
    if ghosts is None:
        borrowed = int(min(max(prior, bins), 1_000))
        drawn = student_quantile((np.arange(borrowed) + 0.5) / borrowed, degrees)
        kicked, believed = np.zeros(borrowed), np.zeros((borrowed, beliefs.shape[1]))
    else:
        borrowed = GHOSTS
        place = np.searchsorted(ghosts.ladder[-1], (np.arange(borrowed) + 0.5) / borrowed).clip(0, len(ghosts.z) - 1)
        drawn, kicked = ghosts.z[place], ghosts.kicks[place]
        masses = np.diff(ghosts.ladder, axis=1, prepend=0.0)
        believed = ghosts.regimes * (masses[:-1] / masses[-1])[:, place].T
    values, moved = np.concatenate([z, drawn]), np.concatenate([kicks, kicked])
    order = np.argsort(values, kind="stable")
    edge = np.sin(np.linspace(-np.pi / 2.0, np.pi / 2.0, bins + 1)) / 2.0 + 0.5  # narrower bins in the tails
    cuts = np.unique(np.round(edge * len(values)).astype(np.int64))
    sizes = np.diff(cuts).astype(np.float64)
    starts = cuts[:-1]
    centre = np.add.reduceat(values[order], starts) / sizes
    kick = np.add.reduceat(moved[order], starts) / sizes
    centre = centre - (centre * sizes).sum() / sizes.sum()
    centre = centre / math.sqrt(float((centre**2 * sizes).sum() / sizes.sum()))
    held = np.concatenate([beliefs, believed])[order]
    by_regime = np.add.reduceat(held, starts, axis=0).T  # [R, G]
    shares = sizes / sizes.sum()
    weighed = (by_regime + max(prior, 1e-9) * shares) / (by_regime.sum(axis=1, keepdims=True) + max(prior, 1e-9))
    ladder = np.cumsum(np.concatenate([weighed, shares[None, :]]), axis=1)
    return Pool(centre, kick, ladder, by_regime.sum(axis=1) / sizes.sum())


class Bootstrap:
    """Shocks from the pool, mixed over regimes as the belief says."""

    name = "bootstrap"

    def __init__(self, pool: Pool) -> None:
        self.pool = pool

    def shocks(self, states: Floats, uniforms: Floats) -> Shocks:
        pool = self.pool
        belief = np.asarray(states[:, REGIME], dtype=np.float64)
        ladder = np.maximum(1.0 - belief.sum(axis=1), 0.0)[:, None] * pool.ladder[-1]
        for r in range(len(REGIMES)):  # a sum in fixed order: a row's bits do not depend on the rows beside it
            ladder = ladder + belief[:, r, None] * pool.ladder[r]
        place = np.minimum((ladder[:, None, :] < uniforms[:, :, None]).sum(axis=2), len(pool.z) - 1)
        return Shocks(pool.z[place], pool.kicks[place])


class Quantiles:
    """Shocks from the quantiles in the state; from the pool where it has none."""

    name = "quantiles"

    def __init__(self, pool: Pool) -> None:
        self._fallback = Bootstrap(pool)

    def shocks(self, states: Floats, uniforms: Floats) -> Shocks:
        shape = np.asarray(states[:, SHAPE], dtype=np.float64)
        told = shape[:, -1] > shape[:, 0]
        if not told.any():
            return self._fallback.shocks(states, uniforms)
        z = inverse_law(shape, np.asarray(uniforms, dtype=np.float64))
        kicks = np.zeros(uniforms.shape)
        if not told.all():
            other = self._fallback.shocks(states[~told], uniforms[~told])
            z[~told] = other.z
            if other.kicks is not None:
                kicks[~told] = other.kicks
        return Shocks(z, kicks)


class Garch:
    """Student shocks; the market model lets the variance react to them."""

    name = "garch"

    def __init__(self, degrees: float) -> None:
        self.degrees = degrees

    def shocks(self, states: Floats, uniforms: Floats) -> Shocks:
        return Shocks(student_quantile(uniforms, self.degrees), None)
