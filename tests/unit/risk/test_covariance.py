"""Covariance estimates: by hand, against slow second ways, and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.risk.covariance import COMPILED_FROM, EwmaCovariance, absorb, ewma_covariance, ledoit_wolf, nearest_psd
from cryptoalpha.risk.matrices import checked_square, correlation_of, refuse_indefinite


def rows(seed: int, periods: int, assets: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    common = generator.normal(size=(periods, 1))
    return (0.7 * common + generator.normal(size=(periods, assets))) * generator.uniform(0.005, 0.05, assets)


def test_one_row_then_another_by_hand():
    running = EwmaCovariance(2, decay=0.6)
    assert np.isnan(running.covariance).all()
    running.update([0.02, -0.01])
    assert_allclose(running.covariance, [[4e-4, -2e-4], [-2e-4, 1e-4]])
    running.update([0.0, 0.03])  # half and half: 1/2 is still more than 1 − 0.6
    assert_allclose(running.covariance, [[2e-4, -1e-4], [-1e-4, 5e-4]])
    running.update([0.01, 0.01])  # 1/3 is less: from here on 0.6 and 0.4
    assert_allclose(running.covariance, [[1.6e-4, -2e-5], [-2e-5, 3.4e-4]])


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(1, 6), st.integers(0, 60))
def test_stopping_and_going_on_changes_no_bit(seed, periods, assets, cut):
    x = rows(seed, periods, assets)
    first = EwmaCovariance(assets)
    for row in x[:cut]:
        first.update(row)
    second = EwmaCovariance(assets)
    second.load_state_dict(first.state_dict())
    for row in x[cut:]:
        second.update(row)
    assert_array_equal(second.covariance, ewma_covariance(x))
    assert_array_equal(second.covariance, second.covariance.T)


def test_the_recursion_is_a_weighted_mean_of_products():
    x, decay = rows(1, 200, 4), 0.94
    weights = np.empty(200)
    left = 1.0
    for t in range(199, -1, -1):  # from the newest back: what each later row left of it
        weights[t] = left * max(1.0 / (t + 1), 1.0 - decay)
        left *= 1.0 - max(1.0 / (t + 1), 1.0 - decay)
    assert weights.sum() == pytest.approx(1.0)
    assert_allclose(ewma_covariance(x, decay=decay), np.einsum("t,ti,tj->ij", weights, x, x), rtol=1e-12, atol=1e-18)


def test_the_compiled_update_gives_the_same_bits():
    x = rows(2, 30, COMPILED_FROM)
    plain = np.zeros((COMPILED_FROM, COMPILED_FROM))
    for number, row in enumerate(x, start=1):
        weight = max(1.0 / number, 1.0 - 0.94)
        absorb(plain, row, 1.0 - weight, weight)
    assert_array_equal(ewma_covariance(x), plain)


@pytest.mark.parametrize(("periods", "assets"), [(5, 3), (50, 1), (40, 80), (2, 3), (300, 20)])
def test_shrinkage_by_the_sum_over_all_pairs(periods, assets):
    x = rows(periods, periods, assets)
    found = ledoit_wolf(x)
    x = x - x.mean(axis=0)
    s = x.T @ x / periods
    m = np.trace(s) / assets
    d2 = np.sum((s - m * np.eye(assets)) ** 2) / assets
    b2 = np.sum((x**2).T @ x**2 / periods - s * s) / (periods * assets)
    delta = min(b2, d2) / d2 if d2 > 1e-30 else 0.0
    assert found.shrinkage == pytest.approx(delta, rel=1e-9)
    assert_allclose(found.covariance, (1 - delta) * s + delta * m * np.eye(assets), rtol=1e-9, atol=1e-18)
    assert 0.0 <= found.shrinkage <= 1.0


def test_where_rows_say_nothing_all_variances_become_their_mean():
    x = [[0.01, 0.0], [0.0, 0.01], [-0.01, 0.0], [0.0, -0.011]]  # almost a circle: b² is far larger than d²
    found = ledoit_wolf(x)
    assert found.shrinkage == 1.0
    assert found.covariance[0, 0] == pytest.approx(found.covariance[1, 1])
    assert found.covariance[0, 1] == 0.0


def test_shrinkage_is_that_of_scikit_learn():
    oracle = pytest.importorskip("sklearn.covariance")
    for seed, (periods, assets) in enumerate([(5, 3), (50, 1), (40, 80), (500, 30)]):
        x = rows(seed, periods, assets)
        covariance, shrinkage = oracle.ledoit_wolf(x)
        found = ledoit_wolf(x)
        assert found.shrinkage == pytest.approx(shrinkage, rel=1e-12)
        assert_allclose(found.covariance, covariance, rtol=1e-12, atol=1e-18)


def test_more_assets_than_days_can_be_inverted_once_shrunk():
    x = rows(3, 20, 60)
    assert np.linalg.eigvalsh(np.cov(x.T))[0] < 1e-12
    refuse_indefinite(ledoit_wolf(x).covariance)
    assert np.linalg.eigvalsh(ledoit_wolf(x).covariance)[0] > 0.0


def test_repair_keeps_variances_and_leaves_what_is_sound():
    broken = 4.0 * np.array([[1.0, 0.9, 0.9], [0.9, 1.0, -0.9], [0.9, -0.9, 1.0]])  # the eigenvalues are 4 · (−0.8, 1.9, 1.9)
    with pytest.raises(DataError, match=r"eigenvalue -0\.8"):
        refuse_indefinite(broken)
    mended = nearest_psd(broken)
    assert_array_equal(np.diagonal(mended), np.diagonal(broken))
    assert_allclose(correlation_of(mended)[0, 1], 0.5, atol=1e-6)  # what is left of .9 once all three can hold
    refuse_indefinite(mended)
    sound = ledoit_wolf(rows(4, 50, 5)).covariance
    assert_array_equal(nearest_psd(sound), sound)


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.integers(2, 15), st.floats(1e-8, 0.01))
def test_whatever_pairs_claim_the_repair_is_a_covariance(seed, n, floor):
    generator = np.random.default_rng(seed)
    rho = np.clip(generator.normal(0.0, 1.0, (n, n)), -1, 1)
    rho = (rho + rho.T) / 2
    np.fill_diagonal(rho, 1.0)
    sd = generator.uniform(0.01, 1.0, n)
    mended = nearest_psd(rho * sd[:, None] * sd[None, :], floor=floor)
    assert np.linalg.eigvalsh(correlation_of(mended))[0] >= floor * (1.0 - 1e-6) - 1e-14
    assert_allclose(np.sqrt(np.diagonal(mended)), sd)


def test_what_cannot_be_used_is_refused():
    with pytest.raises(DataError, match=r"returns\[1, 0\] is nan"):
        ledoit_wolf([[0.1, 0.2], [np.nan, 0.1]])
    with pytest.raises(DataError, match="at least two"):
        ledoit_wolf([[0.1, 0.2]])
    for text in ("returns", [["a", "b"]], [[0.1], [0.1, 0.2]]):
        with pytest.raises(DataError, match="no array of numbers"):
            ledoit_wolf(text)
    with pytest.raises(DataError, match="shape"):
        ewma_covariance(np.empty((0, 3)))
    with pytest.raises(ConfigError, match="decay"):
        EwmaCovariance(2, decay=1.0)
    with pytest.raises(ConfigError, match="assets"):
        EwmaCovariance(0)
    running = EwmaCovariance(2)
    with pytest.raises(DataError, match="finite"):
        running.update([0.1, np.inf])
    assert running.rows == 0
    with pytest.raises(DataError, match="state of 3 assets"):
        running.load_state_dict(EwmaCovariance(3).state_dict())
    with pytest.raises(ConfigError, match="floor"):
        nearest_psd(np.eye(2), floor=0.0)
    with pytest.raises(DataError, match="not symmetric"):
        checked_square([[1.0, 0.5], [0.4, 1.0]])
    with pytest.raises(DataError, match="NaN"):
        checked_square([[1.0, np.nan], [np.nan, 1.0]])
    with pytest.raises(DataError, match="shape"):
        checked_square([1.0, 2.0])
    with pytest.raises(DataError, match=r"covariance\[1, 1\] is 0"):
        correlation_of([[1.0, 0.0], [0.0, 0.0]])
    assert_array_equal(checked_square([[1.0, 0.5], [0.5 + 1e-14, 1.0]]), checked_square([[1.0, 0.5 + 1e-14], [0.5, 1.0]]))
