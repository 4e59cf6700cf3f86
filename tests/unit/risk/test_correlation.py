"""The correlation tracker and DCC: by hand, against slow second ways, and on simulated markets whose parameters are known."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.core.seeds import stream
from cryptoalpha.risk.correlation import METHODS, CorrelationTracker, expected_correlation, fitted_dcc
from cryptoalpha.risk.covariance import ewma_covariance, ledoit_wolf
from cryptoalpha.risk.dcc import dcc_correlation, dcc_log_likelihood, fit_dcc, long_run_target, standardise
from cryptoalpha.risk.matrices import correlation_of


def market(seed: int, periods: int, assets: int) -> np.ndarray:
    generator = stream(seed, "market")
    common = generator.normal(size=(periods, 1))
    return (common + generator.normal(size=(periods, assets))) * np.linspace(0.01, 0.04, assets)


def dcc_market(seed: int, periods: int, a: float, b: float, target: np.ndarray) -> np.ndarray:
    """Standardised returns whose correlation follows a DCC with these parameters."""
    generator, q = stream(seed, "dcc"), target.copy()
    z = np.empty((periods, len(target)))
    for t in range(periods):
        sd = np.sqrt(np.diagonal(q))
        z[t] = np.linalg.cholesky(q / np.outer(sd, sd)) @ generator.normal(size=len(target))
        q = (1 - a - b) * target + a * np.outer(z[t], z[t]) + b * q
    return z


def tracker(method: str, x: np.ndarray, **settings_: object) -> CorrelationTracker:
    return CorrelationTracker(x.shape[1], method=method, fitted=fitted_dcc(x) if method == "dcc" else None, **settings_)


def test_two_steps_of_dcc_by_hand():
    target = np.array([[1.0, 0.5], [0.5, 1.0]])
    found = dcc_correlation([[2.0, -1.0]], 0.1, 0.8, target=target)
    assert_array_equal(found[0], target)
    # Q = .1 S + .1 (4, −2; −2, 1) + .8 S = (1.3, .25; .25, 1.0)
    assert found[1, 0, 1] == pytest.approx(0.25 / math.sqrt(1.3))


def test_the_likelihood_of_a_pair_in_closed_form():
    z = market(0, 60, 2) * 30.0
    rho = dcc_correlation(z, 0.05, 0.9)[:-1, 0, 1]
    u, v = z.T
    exact = -0.5 * np.sum(np.log(1 - rho**2) + (u**2 - 2 * rho * u * v + v**2) / (1 - rho**2) - u**2 - v**2)
    assert dcc_log_likelihood(z, 0.05, 0.9) == pytest.approx(exact, rel=1e-10)


def test_the_likelihood_by_determinants_and_inverses():
    z = market(1, 80, 5) * 30.0
    slow = 0.0
    for r, row in zip(dcc_correlation(z, 0.03, 0.94), z, strict=False):
        slow -= 0.5 * (np.linalg.slogdet(r)[1] + row @ np.linalg.inv(r) @ row - row @ row)
    assert dcc_log_likelihood(z, 0.03, 0.94) == pytest.approx(slow, rel=1e-10)


def test_the_fit_finds_what_the_market_was_made_with():
    target = np.full((3, 3), 0.5) + 0.5 * np.eye(3)
    z = dcc_market(0, 2_500, 0.05, 0.9, target)
    fit = fit_dcc(z)
    assert fit.a in (0.03, 0.05, 0.08)
    assert fit.b in (0.8, 0.9, 0.94)
    assert fit.log_likelihood == pytest.approx(dcc_log_likelihood(z, fit.a, fit.b), rel=1e-12)
    still = dcc_log_likelihood(z, 0.0, 0.0)
    assert fit.log_likelihood - still > 10.0  # a likelihood ratio of 20 for two parameters
    # and what it then says is closer to the truth than a correlation that never moves
    truth = dcc_correlation(z, 0.05, 0.9, target=target)[:-1]
    error, error_still = dcc_correlation(z, fit.a, fit.b)[:-1] - truth, long_run_target(z) - truth
    assert np.mean(error**2) < 0.5 * np.mean(error_still**2)


def test_a_market_whose_correlation_never_moves_is_hardly_given_a_reaction():
    z = dcc_market(1, 2_000, 0.0, 0.0, np.array([[1.0, 0.6], [0.6, 1.0]]))
    assert fit_dcc(z).a <= 0.02


def test_each_return_is_divided_by_what_was_known_before_it():
    x = market(2, 50, 3)
    z = standardise(x, decay=0.9)
    for t in (1, 7, 49):
        assert_allclose(z[t - 1], x[t] / np.sqrt(np.diagonal(ewma_covariance(x[:t], decay=0.9))), rtol=1e-12)
    assert_array_equal(standardise([[0.0], [-0.3]]), [[-1.0]])


def test_the_trackers_say_what_their_estimators_say():
    x = market(3, 300, 4)
    found = {}
    for method in METHODS:
        running = tracker(method, x, window=100, decay=0.95)
        for row in x:
            running.update(row)
        found[method] = running.correlation()
    assert_allclose(found["ewma"], correlation_of(ewma_covariance(x, decay=0.95)), rtol=1e-12)
    assert_allclose(found["shrunk"], correlation_of(ledoit_wolf(x[-100:]).covariance), rtol=1e-12)
    fit = fitted_dcc(x)
    assert_allclose(found["dcc"], dcc_correlation(standardise(x, decay=0.95), fit.a, fit.b, target=fit.target)[-1], rtol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_stopping_and_going_on_changes_no_bit(method):
    x = market(4, 120, 3)
    whole, first = tracker(method, x, window=30), tracker(method, x, window=30)
    for row in x[:70]:
        whole.update(row)
        first.update(row)
    second = tracker(method, x, window=30)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for row in x[70:]:
        whole.update(row)
        second.update(row)
    assert_array_equal(whole.correlation(), second.correlation())


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.sampled_from(METHODS), st.integers(2, 6))
def test_what_is_tracked_is_a_correlation(seed, method, assets):
    x = market(seed, 40, assets)
    running = tracker(method, x)
    for number, row in enumerate(x):
        if number == 10:
            assert np.isnan(running.correlation()).sum() == assets * (assets - 1)
        running.update(row)
    rho = running.correlation()
    assert_array_equal(np.diagonal(rho), np.ones(assets))
    assert_array_equal(rho, rho.T)
    assert np.max(np.abs(rho)) <= 1.0
    assert np.linalg.eigvalsh(rho)[0] > -1e-9


def test_an_asset_that_never_moved_has_no_correlation():
    x = market(5, 40, 3)
    x[:, 1] = 0.0
    running = CorrelationTracker(3)
    for row in x:
        running.update(row)
    rho = running.correlation()
    assert np.isnan(rho[[0, 2], 1]).all()
    assert rho[1, 1] == 1.0
    assert not math.isnan(rho[0, 2])


def test_correlation_with_the_rest_of_the_book():
    rho = np.array([[1.0, 0.5, 0.2], [0.5, 1.0, 0.1], [0.2, 0.1, 1.0]])
    found = expected_correlation(rho, [0.2, 0.1, 0.0], [0.5, 1.0, 0.8])
    assert_allclose(found, [0.5, 0.5, (0.2 * 0.1 + 0.1 * 0.1) / math.sqrt(0.03)])  # the third is compared with both
    assert np.isnan(expected_correlation(rho, [0.2, 0.0, 0.0], [0.5, 1.0, 0.8])[0])
    assert expected_correlation(rho, [0.2, -0.1, 0.0], [0.5, 1.0, 0.8])[0] == pytest.approx(-0.5)


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.integers(2, 7))
def test_it_is_what_simulated_books_show(seed, assets):
    generator = np.random.default_rng(seed)
    x = market(seed, 60, assets)
    x = x - x.mean(axis=0)
    w = generator.uniform(-1, 1, assets)
    found = expected_correlation(correlation_of(np.cov(x.T, bias=True)), w, x.std(axis=0))
    for i in range(assets):
        rest = np.delete(x * w, i, axis=1).sum(axis=1)
        assert found[i] == pytest.approx(np.corrcoef(x[:, i], rest)[0, 1], abs=1e-9)


def test_the_tracker_tells_the_same_with_the_rest_of_the_book():
    x = market(6, 60, 3)
    running = CorrelationTracker(3)
    for row in x:
        running.update(row)
    sizes, sd = [0.3, 0.2, 0.1], [0.5, 0.6, 0.7]
    assert_array_equal(running.expected_correlation(sizes, sd), expected_correlation(running.correlation(), sizes, sd))


def test_what_cannot_be_tracked_is_refused():
    with pytest.raises(ConfigError, match="copula"):
        CorrelationTracker(2, method="copula")
    with pytest.raises(ConfigError, match="target for 2 assets"):
        CorrelationTracker(2, method="dcc")
    with pytest.raises(ConfigError, match="window"):
        CorrelationTracker(2, window=1)
    with pytest.raises(ConfigError, match="sum below 1"):
        dcc_correlation([[1.0, 1.0]], 0.2, 0.8)
    with pytest.raises(ConfigError, match="no pair"):
        fit_dcc([[1.0, 1.0]], reactions=(0.5,), persistences=(0.6,))
    with pytest.raises(DataError, match="at least two"):
        standardise([[0.1]])
    with pytest.raises(DataError, match="one size"):
        expected_correlation(np.eye(2), [0.1], [0.1])
    with pytest.raises(DataError, match="tracker by 'ewma'"):
        CorrelationTracker(2, method="shrunk").load_state_dict(CorrelationTracker(2).state_dict())
    running = CorrelationTracker(2)
    with pytest.raises(DataError, match="finite"):
        running.update([np.nan, 0.1])
    assert running.rows == 0
