"""Baselines and calibrated thresholds: surprises are white, thresholds hold on fresh data, and what a finite reference costs is said."""

from __future__ import annotations

import json
from dataclasses import replace
from math import sqrt

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.core.seeds import stream
from cryptoalpha.monitoring.drift.adwin import Adwin
from cryptoalpha.monitoring.drift.baseline import Baseline, Standardised
from cryptoalpha.monitoring.drift.calibrate import bootstrap_draw, calibrate_threshold, mean_run_length, records
from cryptoalpha.monitoring.drift.cusum import Cusum, cusum_run_length, cusum_threshold


def normal(rng, length):
    return rng.normal(size=length)


def autoregressive(rng, length, slope=0.98):
    found, level = np.empty(length), rng.normal() / sqrt(1.0 - slope**2)
    for i, surprise in enumerate(rng.normal(size=length).tolist()):
        found[i] = level
        level = slope * level + surprise
    return found


def first_correlation(x):
    d = x - x.mean()
    return float((d[1:] * d[:-1]).sum() / (d * d).sum())


def two_sided(reference):
    return Standardised(Cusum(slack=0.25, threshold=1.0), reference)


def test_surprises_are_white_and_one_by_one_they_have_the_same_bits():
    rng = stream(1, "test", "baseline")
    x = 100.0 + 7.0 * autoregressive(rng, 6_000)
    baseline = Baseline.fit(x[:4_000])
    reference, fresh = baseline.of_reference(x[:4_000]), baseline.surprises(x[4_000:])
    assert baseline.slope == pytest.approx(0.98, abs=0.01)
    assert reference.mean() == pytest.approx(0.0, abs=1e-12)
    assert reference.std(ddof=1) == pytest.approx(1.0, abs=1e-12)
    assert abs(first_correlation(fresh)) < 3.3 / sqrt(2_000)
    assert abs(fresh.mean()) < 3.3 * sqrt(1 / 2_000 + 1 / 4_000)
    followed = replace(baseline, variance=baseline.usual, last=float(x[0]))
    assert_array_equal([followed.update(value) for value in x[1:4_000].tolist()], reference)
    assert (followed.variance, followed.last) == (baseline.variance, baseline.last)
    one_by_one = []
    for place, value in enumerate(x[4_000:].tolist()):
        if place == 500:
            baseline = Baseline.from_state(json.loads(json.dumps(baseline.state())))
        one_by_one.append(baseline.update(value))
    assert_array_equal(one_by_one, fresh)


def test_a_shift_of_a_dependent_series_keeps_its_independent_share():
    """δ in AR(φ) becomes δ √((1 − φ) / (1 + φ)) in surprises: .1 δ at .98, as the module promises."""
    rng = stream(2, "test", "baseline")
    x = autoregressive(rng, 60_000)
    baseline = Baseline.fit(x[:20_000])
    calm, moved = baseline.surprises(x[20_000:]), baseline.surprises(x[20_000:] + 3.0 * x[:20_000].std())
    assert (moved - calm).mean() == pytest.approx(3.0 * sqrt(0.02 / 1.98), rel=0.1)


def test_volatility_that_comes_in_clusters_is_taken_out_and_a_bad_print_is_clipped():
    rng = stream(3, "test", "baseline")
    x, variance = [], 1.0
    for shock in rng.standard_t(5, size=8_000).tolist():
        value = sqrt(variance * 0.6) * shock
        x.append(value)
        variance = 0.03 + 0.1 * value * value + 0.87 * variance
    series = np.array(x)
    assert first_correlation(series**2) > 0.1
    baseline = Baseline.fit(series)
    assert baseline.reaction > 0.0
    assert abs(first_correlation(baseline.of_reference(series) ** 2)) < 0.05
    assert baseline.update(1e6) < 5.0
    constant = Baseline.fit(rng.normal(size=3_000))
    assert constant.reaction <= 0.02  # nothing to follow


@pytest.mark.parametrize("reference", [np.ones(100), np.arange(10.0), np.r_[np.ones(50), np.nan]])
def test_a_reference_that_says_nothing_is_refused(reference):
    with pytest.raises(DataError):
        Baseline.fit(reference)
    with pytest.raises(DataError):
        calibrate_threshold(two_sided, reference, 100.0, seed=0)


def test_thresholds_of_independent_values_agree_with_the_closed_form():
    found = calibrate_threshold(lambda _: Cusum(slack=0.5, threshold=1.0), normal, 500.0, seed=1, runs=600)
    exact = cusum_threshold(0.5, 500.0, side="both")
    assert found.threshold == pytest.approx(exact, abs=4.0 * found.error)  # d ln ARL / d h = 2k = 1 here
    assert found == calibrate_threshold(lambda _: Cusum(slack=0.5, threshold=1.0), normal, 500.0, seed=1, runs=600)
    other = calibrate_threshold(lambda _: Cusum(slack=0.5, threshold=1.0), normal, 500.0, seed=2, runs=600)
    assert other.threshold != found.threshold


@pytest.mark.parametrize("make", [two_sided, lambda reference: Standardised(Adwin(), reference)], ids=["cusum", "adwin"])
@pytest.mark.parametrize("world", [normal, autoregressive], ids=["iid", "ar98"])
def test_run_lengths_hold_on_fresh_values(make, world):
    """Twelve references, each with its own threshold; the mean over them within 20 % beyond the noise of so few."""
    stated, ends = 1_500.0, []
    for seed in range(12):
        rng = stream(seed, "test", "fresh", world.__name__)
        x = world(rng, 4_000)
        baseline = Baseline.fit(x)
        white = baseline.of_reference(x)
        threshold = calibrate_threshold(make, white, stated, seed=seed, runs=80).threshold
        detector = make(white)
        for _ in range(4):
            y = world(rng, 9_001)
            baseline.last = float(y[0])
            ends.append(records(detector.statistics(baseline.surprises(y[1:]))).until(threshold))
    alarms = sum(alarmed for _, alarmed in ends)
    ratio = sum(end for end, _ in ends) / alarms / stated
    assert 0.8 / (1.0 + 2.0 / sqrt(alarms)) < ratio < 1.2 * (1.0 + 2.0 / sqrt(alarms))


def test_what_was_not_whitened_has_another_run_length():
    """Mutation: the iid threshold on raw AR(.98) values fires almost at once."""
    threshold = cusum_threshold(0.25, 1_500.0, side="both")
    runs = []
    for seed in range(20):
        x = autoregressive(stream(seed, "test", "raw"), 5_000)
        runs.append(records(two_sided(x).statistics(x)))
    assert mean_run_length(runs, threshold)[0] < 0.3 * 1_500.0


def test_the_threshold_pays_for_a_short_reference_and_says_what_it_costs():
    rng = stream(5, "test", "short")
    one_sided = {}
    for size in (200, 20_000):
        x = rng.normal(size=size)
        one_sided[size] = calibrate_threshold(
            lambda reference: Standardised(Cusum(slack=0.25, threshold=1.0, side="up"), reference),
            x,
            1_000.0,
            seed=0,
            runs=200,
            with_wrong_means=True,
        )
    short, long = one_sided[200], one_sided[20_000]
    unasked = calibrate_threshold(two_sided, rng.normal(size=200), 100.0, seed=0, runs=20)
    assert (unasked.if_mean_is_low, unasked.if_mean_is_high) == (None, None)
    assert (short.reference_length, long.reference_length) == (200, 20_000)
    # a mean one standard error higher brings alarms of rising means sooner; with 20,000 values hardly
    assert short.if_mean_is_high < 600.0 < 1_300.0 < short.if_mean_is_low
    assert 0.6 < long.if_mean_is_high / 1_000.0 < 1.2
    assert 0.8 < long.if_mean_is_low / 1_000.0 < 1.8
    # by hand: a mean off by 200^(−1/2) is a shift by so much of a CUSUM whose threshold is the short one's, on normal values
    for found, shift in ((short.if_mean_is_high, 1.0), (short.if_mean_is_low, -1.0)):
        assert found == pytest.approx(cusum_run_length(0.25, short.threshold, shift=shift * 200**-0.5), rel=0.35)


def test_bootstrap_draws_whole_blocks_of_the_reference():
    x = np.arange(1_000.0)
    drawn = bootstrap_draw(x, 50.0)(stream(6, "test", "blocks"), 20_000)
    steps = np.diff(drawn) % 1_000.0
    assert np.mean(steps != 1.0) == pytest.approx(1.0 / 50.0, rel=0.2)
    assert drawn.mean() == pytest.approx(499.5, abs=60.0)
    assert bootstrap_draw(x, 50.0)(stream(6), 7).size == 7


def test_settings_that_cannot_be_are_refused():
    for settings in ({"run_length": 5.0}, {"run_length": 100.0, "runs": 3}, {"run_length": 100.0, "block_length": 0.2}):
        with pytest.raises(ConfigError):
            calibrate_threshold(two_sided, np.arange(100.0) % 7.0, seed=0, **settings)
