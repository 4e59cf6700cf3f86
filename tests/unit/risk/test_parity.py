"""Risk parity and hierarchical risk parity: known numbers, identities, properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.risk.covariance import ledoit_wolf
from cryptoalpha.risk.hierarchical import correlation_distance, hrp
from cryptoalpha.risk.linkage import leaf_order, merges
from cryptoalpha.risk.matrices import correlation_of
from cryptoalpha.risk.parity import COMPILED_FROM, TOLERANCE, descend, risk_contributions, risk_parity
from cryptoalpha.risk.parity_compiled import descend_compiled

seeds = st.integers(0, 10_000)


def covariance(seed: int, n: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    x = (generator.normal(size=(3 * n + 5, 1)) + generator.normal(size=(3 * n + 5, n))) * generator.uniform(0.005, 0.1, n)
    return np.cov(x.T).reshape(n, n)


def test_known_weights():
    assert_allclose(risk_parity([[0.04, 0.03], [0.03, 0.09]]), [0.6, 0.4], atol=1e-12)  # two assets: inverse volatility
    sd, rho = np.array([1.0, 2.0, 3.0]), np.array([[1.0, 0.5, 0.2], [0.5, 1.0, 0.1], [0.2, 0.1, 1.0]])
    assert_allclose(risk_parity(rho * np.outer(sd, sd)), [0.52029434, 0.27432491, 0.20538075], atol=5e-9)
    assert_array_equal(risk_parity([[0.3]]), [1.0])


def test_uncorrelated_assets_weigh_by_the_root_of_their_budget():
    # w_i² v_i ∝ b_i
    expected = np.sqrt(np.array([0.5, 0.3, 0.2]) / [0.01, 0.04, 0.09])
    assert_allclose(risk_parity(np.diag([0.01, 0.04, 0.09]), [0.5, 0.3, 0.2]), expected / expected.sum(), rtol=1e-10)


@settings(max_examples=40)
@given(seeds, st.integers(1, 30))
def test_contributions_equal_the_budget(seed, n):
    c = covariance(seed, n)
    budget = np.random.default_rng(seed).uniform(0.1, 1.0, n)
    budget /= budget.sum()
    weights = risk_parity(c, budget)
    assert weights.sum() == pytest.approx(1.0)
    assert bool(np.all(weights > 0.0))
    # a second way: the gradient of volatility, by Euler's theorem, from a matrix product
    share = weights * (c @ weights) / (weights @ c @ weights)
    assert np.max(np.abs(share / budget - 1.0)) <= 2 * TOLERANCE
    assert_allclose(risk_contributions(weights, c), share, rtol=1e-12)


@settings(max_examples=40)
@given(seeds, st.integers(2, 20), st.floats(1e-6, 1e6))
def test_neither_scale_nor_order_matters(seed, n, scale):
    c = covariance(seed, n)
    order = np.random.default_rng(seed).permutation(n)
    assert_allclose(risk_parity(c * scale), risk_parity(c), rtol=1e-8)
    assert_allclose(risk_parity(c[np.ix_(order, order)]), risk_parity(c)[order], rtol=1e-8)


def test_compiled_and_plain_descents_give_the_same_bits():
    c = covariance(1, COMPILED_FROM)
    arguments = (c, np.full(len(c), 1.0 / len(c)), 1.0 / np.sqrt(np.diag(c)), 1e-10, 500)
    plain, compiled = descend(*arguments), descend_compiled(*arguments)
    assert_array_equal(plain[0], compiled[0])
    assert plain[1] == compiled[1] <= 1e-10
    assert_allclose(risk_parity(c), plain[0] / plain[0].sum(), rtol=1e-14)


def test_a_hundred_assets_that_hedge_each_other_still_meet_the_tolerance():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(500, 5)) @ generator.normal(size=(5, 100)) + generator.normal(size=(500, 100))
    weights = risk_parity(np.cov(x.T))
    assert np.max(np.abs(100 * risk_contributions(weights, np.cov(x.T)) - 1.0)) <= 2 * TOLERANCE


@pytest.mark.parametrize(
    ("matrix", "says"),
    [
        ([[1.0, 2.0], [2.0, 1.0]], r"not positive semi-definite.*eigenvalue -1"),
        ([[1.0, 0.0], [0.0, 0.0]], r"covariance\[1, 1\] is 0"),
        ([[1.0, -1.0], [-1.0, 1.0]], "no long-only weights"),
        ([[1.0, np.nan], [np.nan, 1.0]], "NaN"),
    ],
)
def test_a_matrix_that_is_no_covariance_is_refused(matrix, says):
    with pytest.raises(DataError, match=says):
        risk_parity(matrix)


@pytest.mark.parametrize("budget", [[0.5, 0.6], [1.0, 0.0], [1.5, -0.5], [1.0], [np.nan, 0.5]])
def test_a_budget_that_is_none_is_refused(budget):
    with pytest.raises(ConfigError, match="budget"):
        risk_parity(np.eye(2), budget)


def test_contributions_of_a_book_without_risk_are_undefined():
    assert np.isnan(risk_contributions([0.0, 0.0], np.eye(2))).all()
    with pytest.raises(DataError, match="weights of shape"):
        risk_contributions([1.0], np.eye(2))


def test_two_assets_split_by_inverse_variance():
    assert_allclose(hrp([[0.04, 0.01], [0.01, 0.09]]), [0.09 / 0.13, 0.04 / 0.13])
    assert_array_equal(hrp([[0.2]]), [1.0])


def test_copies_are_near_and_mirror_images_far():
    assert_allclose(correlation_distance(np.array([1.0, 0.5, 0.0, -1.0])), [0.0, 0.5, np.sqrt(0.5), 1.0])


def test_four_assets_in_two_pairs_by_hand():
    rho = np.array([[1.0, 0.1, 0.8, 0.0], [0.1, 1.0, 0.0, 0.7], [0.8, 0.0, 1.0, 0.0], [0.0, 0.7, 0.0, 1.0]])
    joins = merges(correlation_distance(rho))
    assert joins == [(0, 2), (1, 3), (4, 5)]
    assert leaf_order(joins) == [0, 2, 1, 3]
    # equal variances: halves of each pair are equal; the pairs' variances are 1.8 / 2 and 1.7 / 2, the calmer gets 1.8 / 3.5
    assert_allclose(hrp(rho), [0.85 / 3.5, 0.9 / 3.5, 0.85 / 3.5, 0.9 / 3.5])


@pytest.mark.parametrize("linkage", ["single", "ward"])
@pytest.mark.parametrize("n", [2, 7, 40])
def test_the_tree_is_that_of_scipy(linkage, n):
    hierarchy = pytest.importorskip("scipy.cluster.hierarchy")
    distance = correlation_distance(correlation_of(covariance(n, n)))
    oracle = hierarchy.linkage(distance[np.triu_indices(n, 1)], linkage)
    assert merges(distance, linkage) == [(int(a), int(b)) for a, b in oracle[:, :2]]
    assert leaf_order(merges(distance, linkage)) == hierarchy.leaves_list(oracle).tolist()


@settings(max_examples=40)
@given(seeds, st.integers(1, 20), st.sampled_from(["single", "ward"]))
def test_hierarchical_weights_are_positive_and_sum_to_one(seed, n, linkage):
    weights = hrp(covariance(seed, n), linkage=linkage)
    assert weights.sum() == pytest.approx(1.0)
    assert bool(np.all(weights > 0.0))


def test_an_unknown_linkage_is_refused():
    with pytest.raises(ConfigError, match="linkage"):
        hrp(np.eye(2), linkage="median")


def test_twenty_stocks_and_the_libraries():
    datasets = pytest.importorskip("skfolio.datasets")
    returns = datasets.load_sp500_dataset().pct_change().iloc[1:]
    assert list(returns.columns[:5]) == ["AAPL", "AMD", "BAC", "BBY", "CVX"]
    c = np.cov(returns.to_numpy().T)
    assert_allclose(risk_parity(c)[:5], [0.04218575, 0.03137503, 0.03431620, 0.03805518, 0.05415024], atol=5e-9)
    assert_allclose(hrp(c)[:5], [0.03450817, 0.01880323, 0.02526106, 0.02555333, 0.04869545], atol=5e-9)
    assert ledoit_wolf(returns.to_numpy()).shrinkage == pytest.approx(0.004896666830, abs=5e-13)
    from skfolio.optimization import RiskBudgeting

    theirs = RiskBudgeting().fit(returns).weights_
    assert_allclose(risk_parity(c), theirs, atol=1e-5)
    budget = np.arange(1.0, 21.0) / 210.0
    theirs = RiskBudgeting(risk_budget=budget).fit(returns).weights_
    assert_allclose(risk_parity(c, budget), theirs, atol=1e-5)


def test_hierarchical_weights_of_pyportfolioopt():
    datasets, pypfopt = pytest.importorskip("skfolio.datasets"), pytest.importorskip("pypfopt")
    returns = datasets.load_sp500_dataset().pct_change().iloc[1:]
    theirs = pypfopt.HRPOpt(returns).optimize()
    assert_allclose(hrp(np.cov(returns.to_numpy().T)), [theirs[name] for name in returns.columns], atol=1e-12)


def test_weights_of_riskfolio():
    datasets, riskfolio = pytest.importorskip("skfolio.datasets"), pytest.importorskip("riskfolio")
    returns = datasets.load_sp500_dataset().pct_change().iloc[1:]
    c = np.cov(returns.to_numpy().T)
    tree = riskfolio.HCPortfolio(returns=returns).optimization(model="HRP", codependence="pearson", linkage="single", leaf_order=False)
    assert_allclose(hrp(c), tree["weights"], atol=1e-12)
    book = riskfolio.Portfolio(returns=returns)
    book.assets_stats(method_mu="hist", method_cov="hist")
    assert_allclose(risk_parity(c), book.rp_optimization(model="Classic", rm="MV")["weights"], atol=1e-5)
