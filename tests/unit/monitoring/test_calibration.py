"""Calibration error and Brier score on cases worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.monitoring.calibration import brier_score, expected_calibration_error


def test_a_predictor_as_sure_as_it_is_right_has_no_calibration_error():
    confidence = np.repeat([0.25, 0.75], 4)
    assert expected_calibration_error(confidence, [1, 0, 0, 0, 1, 1, 1, 0]) == 0.0


def test_overconfidence_is_the_mean_gap():
    # claimed .60, true .53: the seed's Kelly bets .20 instead of .06 on this
    assert expected_calibration_error(np.full(100, 0.60), np.arange(100) < 53) == pytest.approx(0.07)


def test_bins_hold_equal_mass_and_gaps_do_not_cancel_between_them():
    confidence = [0.2, 0.2, 0.8, 0.8]
    assert expected_calibration_error(confidence, [1, 1, 0, 0], bins=2) == pytest.approx(0.8)
    assert expected_calibration_error(confidence, [1, 1, 0, 0], bins=1) == pytest.approx(0.0)


def test_ties_fall_into_one_bin_whatever_their_order():
    confidence = np.full(10, 0.5)
    sorted_hits = np.repeat([0, 1], 5)
    assert expected_calibration_error(confidence, sorted_hits, bins=5) == 0.0
    assert expected_calibration_error(confidence, sorted_hits[::-1], bins=5) == 0.0


def test_brier_score_of_two_and_of_three_classes():
    assert brier_score([1.0, 0.5], [1, 0]) == pytest.approx((0.0 + 0.5) / 2)
    assert brier_score([[0.2, 0.3, 0.5]], [2]) == pytest.approx(0.04 + 0.09 + 0.25)
    assert brier_score([[0.5, 0.5]], [1]) == brier_score([0.5], [1])


def test_nothing_predicted_is_undefined():
    assert math.isnan(expected_calibration_error([], []))
    assert math.isnan(brier_score([], []))


def test_what_is_no_probability_is_refused():
    with pytest.raises(DataError, match="between 0 and 1"):
        expected_calibration_error([1.2], [1])
    with pytest.raises(DataError, match="between 0 and 1"):
        brier_score([math.nan], [1])
    with pytest.raises(DataError, match="sum to 1"):
        brier_score([[0.2, 0.2]], [1])
    with pytest.raises(DataError, match="classes 0 to 1"):
        brier_score([[0.5, 0.5]], [2])
    with pytest.raises(DataError, match="one length"):
        expected_calibration_error([0.5], [1, 0])
    with pytest.raises(DataError, match="expected \\[n, K\\]"):
        brier_score([0.5], [1, 0])
    with pytest.raises(ConfigError, match="bins"):
        expected_calibration_error([0.5], [1], bins=0)
