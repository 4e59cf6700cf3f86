"""Calibration error and Brier score on cases worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.monitoring.accuracy import wilson_interval
from cryptoalpha.monitoring.calibration import (
    brier_score,
    classwise_calibration_error,
    expected_calibration_error,
    reliability_curve,
)


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


# ── reliability curve and error by class ───────────────────────────────────────────────────────────────────────────────────────────


def test_reliability_curve_of_two_levels_by_hand():
    # .6 four times, right twice; .9 four times, right four times
    curve = reliability_curve([0.6] * 4 + [0.9] * 4, [1, 1, 0, 0, 1, 1, 1, 1], bins=2)
    assert curve.confidence.tolist() == pytest.approx([0.6, 0.9])
    assert curve.accuracy.tolist() == [0.5, 1.0]
    assert curve.count.tolist() == [4, 4]
    assert (curve.lower.tolist(), curve.upper.tolist()) == ([0.6, 0.9], [0.6, 0.9])
    assert (curve.low[0], curve.high[0]) == wilson_interval(2, 4)
    assert curve.expected_error == pytest.approx(0.1)  # .1 in both
    assert curve.consistent.tolist() == [True, True]


@settings(max_examples=50, deadline=None)
@given(
    pairs=st.lists(st.tuples(st.floats(0, 1).map(lambda x: round(x, 2)), st.booleans()), min_size=1, max_size=80), bins=st.integers(1, 20)
)
def test_the_curve_has_the_bins_of_the_error(pairs, bins):
    p, hit = np.array([a for a, _ in pairs]), np.array([b for _, b in pairs])
    curve = reliability_curve(p, hit, bins=bins)
    assert curve.expected_error == pytest.approx(expected_calibration_error(p, hit, bins=bins), abs=1e-12)
    assert curve.count.sum() == len(p)
    assert np.sum(curve.count * curve.accuracy) == pytest.approx(hit.sum())
    assert np.all(curve.lower <= curve.confidence)
    assert np.all(curve.confidence <= curve.upper)
    assert np.all(curve.upper[:-1] < curve.lower[1:])  # bins do not overlap
    assert np.all((curve.low <= curve.accuracy + 1e-12) & (curve.accuracy <= curve.high + 1e-12))


def test_a_calibrated_predictor_lies_in_most_of_its_intervals_and_a_boastful_one_in_few():
    rng = np.random.default_rng(2)
    p = rng.uniform(0.5, 1.0, 20_000)
    assert reliability_curve(p, rng.random(p.size) < p).consistent.mean() >= 0.8
    assert reliability_curve(p, rng.random(p.size) < 0.5 + (p - 0.5) / 2).consistent.mean() <= 0.2


def test_an_empty_curve_has_no_bins_and_no_error():
    curve = reliability_curve([], [])
    assert curve.count.size == 0
    assert math.isnan(curve.expected_error)
    assert math.isnan(classwise_calibration_error(np.empty((0, 3)), []))


def test_the_error_by_class_sees_what_the_predicted_class_hides():
    # class 0 is predicted and right half of the time as claimed; the rest is split .4 / .1 but happens the other way round
    table = np.tile([0.5, 0.4, 0.1], (10, 1))
    outcomes = [0] * 5 + [1] + [2] * 4
    assert expected_calibration_error([0.5] * 10, [1] * 5 + [0] * 5) == pytest.approx(0.0)
    assert classwise_calibration_error(table, outcomes) == pytest.approx((0.0 + 0.3 + 0.3) / 3)


def test_a_curve_needs_outcomes_that_can_be_counted():
    with pytest.raises(DataError, match="0 or 1"):
        reliability_curve([0.5], [0.5])
