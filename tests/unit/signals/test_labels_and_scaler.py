"""Labels end at an open that was known, and scalers see training rows only."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.time import HOUR
from cryptoalpha.signals.labels import NEVER, forward_return
from cryptoalpha.signals.scaler import fit_scaler


def test_a_label_runs_from_the_next_open_to_the_open_h_later(make_frame, start):
    panel = make_frame({"A/USDT": [100, 110, 121, 133.1, 146.41, 161.051]}).panel
    labels = forward_return(panel, 2, np.full((6, 1), 0.05))
    # opens are 100, 100, 110, 121, 133.1, 146.41: label 0 runs from the open of bar 1 to that of bar 3
    assert labels.value[0, 0] == pytest.approx(math.log(121 / 100) / (0.05 * math.sqrt(2)))
    assert labels.value[2, 0] == pytest.approx(math.log(146.41 / 121) / (0.05 * math.sqrt(2)))
    assert np.isnan(labels.value[3:]).all()


def test_a_label_is_known_when_the_bar_of_its_last_open_is(make_frame, start):
    labels = forward_return(make_frame({"A/USDT": [100.0] * 6}).panel, 2, np.full((6, 1), 0.05))
    assert labels.known_at[:3].tolist() == [start + 4 * HOUR, start + 5 * HOUR, start + 6 * HOUR]
    assert (labels.known_at[3:] == NEVER).all()


def test_a_label_over_an_absent_open_is_missing(make_frame):
    nan = math.nan
    labels = forward_return(make_frame({"A/USDT": [1, 2, nan, 4, 5, 6, 7], "B/USDT": [1.0] * 7}).panel, 1, np.full((7, 2), 1.0))
    assert np.isnan(labels.value[:, 0]).tolist() == [True, True, False, False, False, True, True]


def test_a_horizon_longer_than_the_panel_has_no_labels(make_frame):
    labels = forward_return(make_frame({"A/USDT": [1, 2, 3]}).panel, 24, np.full((3, 1), 0.1))
    assert np.isnan(labels.value).all()
    assert (labels.known_at == NEVER).all()


def test_scaler_uses_median_and_median_distance():
    scaler = fit_scaler(np.array([[1.0, 5.0], [2.0, 5.0], [3.0, np.nan], [4.0, 5.0], [100.0, 5.0]]), fitted_until=7)
    assert scaler.centre.tolist() == [3.0, 5.0]
    assert_allclose(scaler.scale, [1.4826, 0.0])
    assert scaler.fitted_until == 7


def test_scaled_values_are_cut_and_missing_ones_are_zero_and_masked():
    scaler = fit_scaler(np.array([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]]), fitted_until=0)
    scaled, observed = scaler.apply(np.array([[1.0 + 1.4826, 1.0], [1e9, 2.0], [-np.inf, 1.0], [np.nan, np.nan]]))
    assert_allclose(scaled[:, 0], [1.0, 8.0, 0.0, 0.0])
    assert observed[:, 0].tolist() == [True, True, False, False]
    assert (scaled[:, 1] == 0.0).all()  # never varied in training
    assert not observed[:, 1].any()


def test_a_feature_that_is_mostly_one_value_takes_its_deviation():
    scaler = fit_scaler(np.array([[0.0], [0.0], [0.0], [4.0]]), fitted_until=0)
    assert scaler.scale[0] == pytest.approx(np.std([0, 0, 0, 4]))


def test_scaling_nothing_but_missing_values_gives_zero():
    scaled, observed = fit_scaler(np.full((3, 2), np.nan), fitted_until=0).apply(np.ones((2, 2)))
    assert (scaled == 0.0).all()
    assert not observed.any()


def test_rows_of_the_wrong_shape_are_refused():
    with pytest.raises(ConfigError, match="shape"):
        fit_scaler(np.ones((2, 3, 4)), fitted_until=0)
