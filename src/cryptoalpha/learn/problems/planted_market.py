"""A market with an edge of known size, hidden between its assets: what a forecaster must find, and how much of it there is.

Assets belong to groups whose returns move together, and an asset catches up with its group: its next return leans towards what its peers
have done and it has not. Who belongs together is told to nobody, but trailing correlations show it, and from time to time the groups are
drawn anew, so that whoever learned names instead of relations is lost.

    r[t+1] = ρ·s[t] + √(1 − ρ²)·ε[t+1],   s[t] = A[t] r[t]

ε is normal with unit variances and the correlations of the groups (Σ). Row i of A weighs the peers of i alike, takes off the part of them
that i's own return explains, and scales the rest to variance 1 under the exact covariance of r[t], which follows
C[t+1] = ρ²·A C[t] Aᵀ + (1 − ρ²)·Σ. So every return has variance 1, its correlation with the oracle's opinion s is ρ exactly at every bar,
and with its own last return 0 exactly: own features are worth nothing, relations everything. With ρ = 0 it is pure noise with the same
correlations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.seeds import stream

Floats = NDArray[np.float64]

SETTLED = 40
"""Bars after which the covariance of a regime no longer changes: its distance to the limit falls by ρ² per bar."""


@dataclass(frozen=True, eq=False)
class PlantedMarket:
    """Returns and what an oracle knew of them."""

    returns: Floats
    """`[T, A]`, variance 1."""
    oracle: Floats
    """s: `[T, A]`, variance 1; row t is known with the returns of t and correlates with the returns of t + 1 by `ic`."""
    groups: NDArray[np.int64]
    """Group of each asset at each bar, `[T, A]`."""
    ic: float
    """Correlation of `oracle[t]` with `returns[t + 1]`, in expectation."""


def planted_market(
    *,
    ic: float,
    bars: int,
    seed: int,
    assets: int = 8,
    group_size: int = 4,
    market: float = 0.15,
    within: float = 0.35,
    regime_bars: int = 2_000,
) -> PlantedMarket:
    """Draw a market.

    Args:
        ic: ρ, 0 (pure noise) up to but not 1.
        bars: number of bars T.
        seed: of everything drawn.
        assets, group_size: how many there are, and how many belong together; groups are of equal size.
        market: correlation of assets of different groups.
        within: what assets of the same group correlate by beyond that.
        regime_bars: bars after which the groups are drawn anew.

    Raises:
        ConfigError: for groups that do not divide the assets, or numbers out of range.
    """
    if group_size < 2 or assets % group_size or not 0.0 <= ic < 1.0 or bars < 1 or regime_bars < 1:
        raise ConfigError(
            f"{ic=}, {bars=}, {regime_bars=}, {assets=} in groups of {group_size}: expected whole groups of 2 or more, ic < 1"
        )
    if min(market, within) < 0.0 or market + within >= 1.0:
        raise ConfigError(f"correlations {market} and {within} more within a group: expected 0 or more, together below 1")
    edge = f"edge {ic!r}"  # markets of one seed but another edge share no draw
    rng, noise = stream(seed, "planted market", edge, "groups"), stream(seed, "planted market", edge, "noise")
    returns, oracle = np.empty((bars, assets)), np.empty((bars, assets))
    groups = np.empty((bars, assets), dtype=np.int64)
    covariance, opinion, weigh = np.zeros((assets, assets)), np.zeros(assets), np.zeros((assets, assets))
    for begin in range(0, bars, regime_bars):
        end = min(begin + regime_bars, bars)
        groups[begin:end] = rng.permutation(np.repeat(np.arange(assets // group_size), group_size))
        together = groups[begin][:, None] == groups[begin][None, :]
        sigma = np.where(together, market + within, market)
        np.fill_diagonal(sigma, 1.0)
        innovations = np.sqrt(1.0 - ic**2) * noise.standard_normal((end - begin, assets)) @ np.linalg.cholesky(sigma).T
        for t in range(begin, end):
            # `opinion` is what the oracle held one bar ago, with the groups of that bar: so the correlation is ρ across a change too.
            last = ic * opinion + innovations[t - begin]
            if t == 0:
                last, covariance = last / np.sqrt(1.0 - ic**2), sigma
            elif t - begin <= SETTLED:
                covariance = ic**2 * weigh @ covariance @ weigh.T + (1.0 - ic**2) * sigma
            if t - begin <= SETTLED:
                weigh = catching_up(together, covariance)
            opinion = weigh @ last
            returns[t], oracle[t] = last, opinion
    return PlantedMarket(returns, oracle, groups, ic)


def catching_up(together: NDArray[np.bool_], covariance: Floats) -> Floats:
    """A `[A, A]`: for each asset the mean of its peers, less what its own return explains of it, scaled to variance 1."""
    weights = together.astype(np.float64)
    np.fill_diagonal(weights, 0.0)
    weights /= weights.sum(axis=1, keepdims=True)
    explained = np.diagonal(weights @ covariance) / np.diagonal(covariance)
    weights -= np.diag(explained)
    variance = np.einsum("ij,jk,ik->i", weights, covariance, weights)
    return np.asarray(weights / np.sqrt(variance)[:, None])
