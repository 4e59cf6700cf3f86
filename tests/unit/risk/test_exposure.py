"""Exposure, clusters and concentration, by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.risk.clusters import clusters
from cryptoalpha.risk.concentration import effective_bets, effective_number, hhi
from cryptoalpha.risk.exposure import cluster_exposure, liquidity_days, portfolio_heat, side_exposure


def test_sides_add_up():
    found = side_exposure([0.5, -0.2, 0.0, 0.1])
    assert (found.gross, found.net, found.long, found.short) == pytest.approx((0.8, 0.4, 0.6, 0.2))
    assert side_exposure([]) == side_exposure([0.0])


def test_a_chain_of_links_is_one_cluster_and_labels_follow_the_first_member():
    rho = np.eye(6)
    for i, j in ((0, 2), (2, 5), (1, 4)):
        rho[i, j] = rho[j, i] = 0.9
    assert_array_equal(clusters(rho, 0.8), [0, 1, 0, 2, 1, 0])
    assert_array_equal(clusters(rho, 0.9), range(6))  # above, not at
    rho[0, 3] = rho[3, 0] = -0.95  # a mirror image is the same bet
    assert_array_equal(clusters(rho, 0.8), [0, 1, 0, 0, 1, 0])


def test_a_long_chain_is_followed_to_its_end():
    n = 200
    order = np.random.default_rng(0).permutation(n)
    rho = np.eye(n)
    for i, j in itertools.pairwise(order):
        rho[i, j] = rho[j, i] = 0.9
    assert_array_equal(clusters(rho, 0.8), np.zeros(n))


def test_unknown_correlation_is_not_counted_as_apart():
    rho = np.array([[1.0, np.nan, 0.1], [np.nan, 1.0, 0.1], [0.1, 0.1, 1.0]])
    assert_array_equal(clusters(rho, 0.8), [0, 0, 1])
    assert clusters(np.empty((0, 0)), 0.8).shape == (0,)


@settings(max_examples=40)
@given(st.integers(1, 12), st.floats(0.0, 1.0), st.integers(0, 10_000))
def test_clusters_are_those_of_a_walk_along_links(n, threshold, seed):
    generator = np.random.default_rng(seed)
    rho = generator.uniform(-1, 1, (n, n))
    rho = (rho + rho.T) / 2
    np.fill_diagonal(rho, 1.0)
    expected, count = [-1] * n, 0
    for start in range(n):
        if expected[start] < 0:
            walk = [start]
            while walk:
                i = walk.pop()
                if expected[i] < 0:
                    expected[i] = count
                    walk += [j for j in range(n) if j != i and abs(rho[i, j]) > threshold]
            count += 1
    assert_array_equal(clusters(rho, threshold), expected)


def test_a_link_seen_from_one_side_is_a_link():
    assert_array_equal(clusters([[1.0, 0.1], [0.9, 1.0]], 0.8), clusters([[1.0, 0.9], [0.1, 1.0]], 0.8))
    assert_array_equal(clusters([[1.0, 0.1, 0.1], [0.1, 1.0, 0.1], [0.1, 0.9, 1.0]], 0.8), [0, 1, 1])


def test_cluster_exposure_counts_sizes_whatever_their_side():
    assert_allclose(cluster_exposure([0.3, -0.2, 0.1], [0, 0, 1]), [0.5, 0.1])
    with pytest.raises(DataError, match="one label"):
        cluster_exposure([0.3], [0, 1])


def test_heat_is_what_all_stops_together_cost():
    assert portfolio_heat([0.5, -0.2], [0.1, 0.05]) == pytest.approx(0.06)
    assert portfolio_heat([0.5, 0.0], [np.nan, np.nan]) == 0.5  # a long without a stop can lose itself
    assert portfolio_heat([-0.1], [np.nan]) == math.inf
    with pytest.raises(DataError, match="stop distances"):
        portfolio_heat([0.5], [-0.1])
    with pytest.raises(DataError, match="no array of numbers"):
        portfolio_heat([0.5], ["near"])


def test_days_to_leave_a_position():
    found = liquidity_days([1e6, -1e5, 0.0, 1.0, 1.0], [1e7, 1e7, np.nan, np.nan, 0.0], participation=0.05)
    assert_allclose(found, [2.0, 0.2, 0.0, np.nan, np.inf])
    with pytest.raises(ConfigError, match="participation"):
        liquidity_days([1.0], [1.0], participation=0.0)
    with pytest.raises(DataError, match="daily values"):
        liquidity_days([1.0], [-1.0])
    with pytest.raises(DataError, match="no array of numbers"):
        liquidity_days([1.0], ["much"])


def test_concentration_counts_equal_positions():
    assert hhi([0.25, -0.25, 0.25, 0.25]) == pytest.approx(0.25)
    assert effective_number([0.25, -0.25, 0.25, 0.25]) == pytest.approx(4.0)
    assert effective_number([0.5, 0.3, 0.2]) == pytest.approx(1 / 0.38)
    assert hhi([1e-200, 1e-200]) == 0.5
    assert math.isnan(hhi([0.0, 0.0]))
    assert effective_number([]) == 0.0


def test_ten_copies_of_one_coin_are_one_bet():
    assert effective_bets(np.full(10, 0.1), np.full((10, 10), 0.04)) == pytest.approx(1.0)
    assert effective_bets([0.1, 0.2], np.diag([0.04, 0.01])) == pytest.approx(2.0)  # equal risk in two directions
    # Worked by hand: directions (1, ±1)/√2 with λ = 1.5, .5; w = (1, 0) puts ¾ and ¼ of its risk into them
    expected = math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert effective_bets([1.0, 0.0], [[1.0, 0.5], [0.5, 1.0]]) == pytest.approx(expected)
    assert math.isnan(effective_bets([0.0, 0.0], np.eye(2)))
    with pytest.raises(DataError, match="weights for"):
        effective_bets([1.0], np.eye(2))


@settings(max_examples=40)
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=8), st.integers(0, 1000))
def test_bets_lie_between_one_and_the_number_of_assets(weights, seed):
    x = np.random.default_rng(seed).normal(size=(20, len(weights)))
    bets = effective_bets(weights, x.T @ x / 20)
    assert math.isnan(bets) or 1.0 - 1e-9 <= bets <= len(weights) + 1e-9
    number = effective_number(weights)
    assert number == 0.0 or 1.0 - 1e-12 <= number <= len(weights) + 1e-9


@pytest.mark.parametrize("bad", [[[1.0]], [np.nan], [np.inf]])
def test_weights_that_are_no_numbers_are_refused(bad):
    with pytest.raises(DataError, match="finite number"):
        side_exposure(bad)


def test_clusters_refuse_what_they_cannot_read():
    with pytest.raises(DataError, match="shape"):
        clusters(np.ones((2, 3)), 0.5)
    with pytest.raises(ConfigError, match="threshold"):
        clusters(np.eye(2), 1.5)
