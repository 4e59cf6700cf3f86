"""The planted edge is as large as stated, and nowhere but where it was planted."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.learn.problems.planted_market import SETTLED, catching_up, planted_market


def correlation(opinion, returns):
    """Pooled over bars and assets; both have mean 0."""
    return float((opinion * returns).mean() / np.sqrt((opinion**2).mean() * (returns**2).mean()))


@pytest.mark.parametrize(("ic", "regime_bars", "bars"), [(0.05, 2_000, 40_000), (0.10, 2_000, 40_000), (0.5, 7, 10_000)])
def test_the_oracle_has_the_stated_correlation(ic, regime_bars, bars):
    market = planted_market(ic=ic, bars=bars, seed=3, regime_bars=regime_bars)
    # Groups of correlated assets: bars × 8 assets are worth at least bars × 2 independent looks.
    error = 4.0 / np.sqrt(2 * bars)
    assert_allclose(correlation(market.oracle[:-1], market.returns[1:]), ic, atol=error)
    assert_allclose(correlation(market.returns[:-1], market.returns[1:]), 0.0, atol=error)
    assert_allclose(market.returns.var(axis=0), np.ones(8), atol=6.0 / np.sqrt(bars))
    assert_allclose(market.oracle.var(axis=0), np.ones(8), atol=6.0 / np.sqrt(bars))


def test_the_covariance_is_followed_exactly():
    # Second way: many short markets, one bar after the groups have changed. There the covariance is still that of the groups before.
    markets = [planted_market(ic=0.6, bars=7, seed=seed, assets=4, group_size=2, regime_bars=3) for seed in range(1_500)]
    for bar in (0, 2, 3, 4, 6):
        assert_allclose(np.mean([market.oracle[bar] ** 2 for market in markets]), 1.0, atol=0.1)
        assert_allclose(np.mean([market.returns[bar] ** 2 for market in markets]), 1.0, atol=0.1)
    for bar in (0, 2, 3, 5):
        assert_allclose(np.mean([market.oracle[bar] * market.returns[bar + 1] for market in markets]), 0.6, atol=0.08)


def test_trailing_correlations_show_who_belongs_together():
    market = planted_market(ic=0.1, bars=4_000, seed=0)
    for regime in (slice(0, 2_000), slice(2_000, 4_000)):
        found = np.corrcoef(market.returns[regime].T)
        groups = market.groups[regime][0]
        together = groups[:, None] == groups[None, :]
        others = ~np.eye(8, dtype=bool)
        assert_allclose(found[together & others].mean(), 0.5, atol=0.05)
        assert_allclose(found[~together].mean(), 0.15, atol=0.05)
    assert not np.array_equal(market.groups[0], market.groups[2_000])


def test_with_no_edge_nothing_foretells_returns():
    market = planted_market(ic=0.0, bars=30_000, seed=1)
    assert_allclose(correlation(market.oracle[:-1], market.returns[1:]), 0.0, atol=4.0 / np.sqrt(60_000))
    found = np.corrcoef(market.returns[:2_000].T)
    together = market.groups[0][:, None] == market.groups[0][None, :]
    assert_allclose(found[together & ~np.eye(8, dtype=bool)].mean(), 0.5, atol=0.05)  # the same covariance as with an edge


def test_the_opinion_is_about_peers_and_uncorrelated_with_the_own_return():
    together = np.array([[1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 1]], dtype=bool) | np.eye(4, dtype=bool)
    together[3, 2] = together[2, 3] = True
    covariance = np.full((4, 4), 0.3) + 0.7 * np.eye(4)
    weights = catching_up(together, covariance)
    assert_allclose(np.diag(weights @ covariance @ weights.T), np.ones(4), atol=1e-12)
    assert_allclose(np.diag(weights @ covariance), np.zeros(4), atol=1e-12)
    assert weights[0, 3] == 0.0
    # Two peers of variance 1 at correlation .3: their mean has variance .65, of which own explains .09; so ½ / √.56 each.
    assert_allclose(weights[0, :3], np.array([-0.3, 0.5, 0.5]) / np.sqrt(0.56), atol=1e-12)


def test_the_same_seed_gives_the_same_market_and_a_longer_one_begins_alike():
    short, long, other = (planted_market(ic=0.1, bars=bars, seed=seed) for bars, seed in ((300, 5), (700, 5), (300, 6)))
    assert_array_equal(short.returns, planted_market(ic=0.1, bars=300, seed=5).returns)
    assert_allclose(short.returns, long.returns[:300], atol=1e-12)
    assert not np.array_equal(short.returns, other.returns)
    assert SETTLED < 300


def test_markets_that_cannot_be_are_refused():
    for wrong in ({"ic": 1.0}, {"group_size": 3}, {"group_size": 1}, {"within": 0.9}, {"bars": 0}, {"market": -0.1}):
        with pytest.raises(ConfigError):
            planted_market(**{"ic": 0.1, "bars": 10, "seed": 0, **wrong})
