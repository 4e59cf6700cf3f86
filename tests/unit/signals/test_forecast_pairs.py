"""Pair features against NumPy's own correlation, from any start, with gaps, and in any order of the assets."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cryptoalpha.signals.forecast.pairs import pair_feature_names, pair_features, trailing_correlation

WINDOWS = (24, 96, 40)
C24, C96, C40, BETA, FOLLOWS, LEADS, OVERLAP = range(7)


@pytest.fixture(scope="module")
def returns() -> np.ndarray:
    """Four assets that move together, the third one bar after the first; the fourth has holes."""
    rng = np.random.default_rng(7)
    common = rng.normal(size=400)
    made = 0.01 * (0.7 * common[:, None] + 0.7 * rng.normal(size=(400, 4))) + 0.001
    made[1:, 2] = 0.9 * made[:-1, 0] + 0.002 * rng.normal(size=399)
    made[rng.random(400) < 0.1, 3] = np.nan
    made[150:190, 3] = np.nan
    return made


@pytest.fixture(scope="module")
def features(returns) -> np.ndarray:
    return pair_features(returns, WINDOWS)


def slow(y: np.ndarray, x: np.ndarray) -> tuple[float, float]:
    """Correlation and slope by NumPy over the rows that both have."""
    both = np.isfinite(y) & np.isfinite(x)
    covariance = np.cov(y[both], x[both])
    return covariance[0, 1] / math.sqrt(covariance[0, 0] * covariance[1, 1]), covariance[0, 1] / covariance[1, 1]


def test_names_say_which_feature_is_which():
    assert pair_feature_names((24, 96)) == ("correlation_24", "correlation_96", "beta_96", "follows_96", "leads_96", "overlap_96")


@pytest.mark.parametrize("t", [99, 130, 250, 320, 399])
def test_each_feature_is_what_numpy_finds(t, returns, features):
    for i in range(4):
        for j in range(4):
            y, x = returns[: t + 1, i], returns[: t + 1, j]
            if not (np.isfinite(y[-1]) and np.isfinite(x[-1])):
                assert np.isnan(features[t, i, j]).all()
                continue
            shared = float((np.isfinite(y[-96:]) & np.isfinite(x[-96:])).mean())
            assert features[t, i, j, OVERLAP] == pytest.approx(shared)
            for window, place in ((24, C24), (40, C40), (96, C96)):
                enough = (np.isfinite(y[-window:]) & np.isfinite(x[-window:])).mean() >= 0.8
                expected = slow(y[-window:], x[-window:])[0] if enough else math.nan
                assert features[t, i, j, place] == pytest.approx(expected, rel=1e-5, abs=1e-6, nan_ok=True)
            if shared >= 0.8:
                assert features[t, i, j, BETA] == pytest.approx(slow(y[-96:], x[-96:])[1], rel=1e-5, abs=1e-6)
            if np.isfinite(features[t, i, j, FOLLOWS]):
                assert features[t, i, j, FOLLOWS] == pytest.approx(slow(y[-96:], returns[t - 96 : t, j])[0], rel=1e-5, abs=1e-6)


def test_who_goes_first_is_seen_from_both_sides(features):
    assert features[300, 2, 0, FOLLOWS] > 0.95
    assert features[300, 0, 2, LEADS] == features[300, 2, 0, FOLLOWS]
    assert abs(features[300, 0, 2, FOLLOWS]) < 0.4


def test_an_asset_beside_itself(features):
    itself = features[300, 1, 1]
    assert itself[[C24, C96, C40, BETA, OVERLAP]].tolist() == [1.0] * 5
    assert itself[FOLLOWS] == itself[LEADS]


def test_the_symmetric_ones_are_symmetric(features):
    for place in (C24, C96, C40, OVERLAP):
        assert np.array_equal(features[..., place], features[..., place].transpose(0, 2, 1), equal_nan=True)


@pytest.mark.parametrize("start", [1, 37, 200, 303])
def test_the_same_bits_from_whatever_row_the_history_starts(start, returns, features):
    """Window and lag reach 97 rows back. Running sums would fail here, which `cumsum` shows."""
    assert pair_features(returns[start:], WINDOWS)[96:].tobytes() == features[start + 96 :].tobytes()
    assert pair_features(returns, WINDOWS, begin=start).tobytes() == features[start:].tobytes()


def test_running_sums_would_not_keep_that_promise(returns):
    square = returns[:, 0] ** 2
    whole, cut = np.cumsum(square), np.cumsum(square[37:])
    assert ((whole[37 + 96 :] - whole[37:-96]) != (cut[96:] - cut[:-96])).any()


@pytest.mark.parametrize("poison", [np.nan, 1e3, 1e200])
def test_later_rows_change_nothing(poison, returns, features):
    spoilt = returns.copy()
    spoilt[300:] = poison
    found = pair_features(spoilt, WINDOWS)
    assert found[:300].tobytes() == features[:300].tobytes()
    assert not np.isinf(found).any()


def test_other_order_same_pairs(returns, features):
    order = [2, 0, 3, 1]
    assert np.array_equal(pair_features(returns[:, order], WINDOWS), features[:, order][:, :, order], equal_nan=True)


def test_what_never_varies_has_no_correlation(returns):
    still = returns.copy()
    still[:, 1] = 0.0
    found = pair_features(still, WINDOWS)[300]
    assert np.isnan(found[0, 1, [C24, C96, C40, BETA, FOLLOWS]]).all()
    assert found[0, 1, OVERLAP] == 1.0


def test_trailing_correlation_is_the_feature_without_a_diagonal(returns, features):
    found = trailing_correlation(returns, 24)
    assert np.isnan(np.diagonal(found, axis1=1, axis2=2)).all()
    there = np.isfinite(features[:, 0, 1, C24])
    assert np.array_equal(found[there, 0, 1].astype(np.float32), features[there, 0, 1, C24])
