"""Streaming detectors: known run lengths, oracles, compiled twins, restarts, and faults that must show."""

from __future__ import annotations

import json
from math import sqrt

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.core.seeds import stream
from cryptoalpha.monitoring.drift.adwin import Adwin
from cryptoalpha.monitoring.drift.calibrate import mean_run_length, records
from cryptoalpha.monitoring.drift.cusum import Cusum, cusum_run_length, cusum_threshold
from cryptoalpha.monitoring.drift.detector import Detector
from cryptoalpha.monitoring.drift.e_detector import EDetector
from cryptoalpha.monitoring.drift.page_hinkley import PageHinkley
from cryptoalpha.monitoring.drift.window_test import WindowTest

DAILY_TWO = 2.0 / sqrt(365.0)


def normal(seed, length):
    return stream(seed, "test", "drift").normal(size=length)


def detectors():
    return [
        Cusum(slack=0.25, threshold=9.0),
        Cusum(slack=0.25, threshold=9.0, side="down"),
        PageHinkley(slack=0.1, threshold=12.0),
        PageHinkley(slack=0.1, threshold=12.0, side="up"),
        Adwin(clock=8),
        EDetector(expected=0.6, run_length=200.0),
        EDetector(expected=0.4, run_length=200.0, worse="above", bet=0.5),
        WindowTest(reference=normal(9, 300), test="psi", window=40, threshold=20.0),
        WindowTest(reference=normal(9, 300), test="ks", window=40, threshold=1.4),
    ]


def values_for(detector, length=700):
    x = normal(3, length)
    x[length // 2 :] += 0.8
    return (x > 0.0).astype(np.float64) if isinstance(detector, EDetector) else x


@pytest.mark.parametrize("detector", detectors(), ids=lambda d: type(d).__name__ + str(getattr(d, "side", getattr(d, "worse", ""))))
def test_the_compiled_twin_has_the_same_bits_and_a_restart_changes_nothing(detector):
    assert isinstance(detector, Detector)
    values = values_for(detector)
    slow, cut = [], 333
    for place, value in enumerate(values.tolist()):
        if place == cut:  # taken down and up again in the middle
            detector = type(detector).from_state(json.loads(json.dumps(detector.state())))
        alarmed = detector.update(value)
        slow.append(detector.statistic)
        over = detector.statistic >= detector.threshold if isinstance(detector, EDetector) else detector.statistic > detector.threshold
        assert alarmed == (over and (not isinstance(detector, WindowTest) or (place + 1) % detector.window == 0))
    assert max(slow) > 0.0
    assert_array_equal(detector.statistics(values), slow)
    detector.restart()
    again = []
    for value in values.tolist():
        detector.update(value)
        again.append(detector.statistic)
    assert_array_equal(again, slow)


@pytest.mark.parametrize("detector", detectors()[:7:2], ids=lambda d: type(d).__name__)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_a_number_is_refused(detector, bad):
    with pytest.raises(DataError, match="expected a finite number"):
        detector.update(bad)


def test_settings_outside_their_ranges_are_refused():
    for make in (
        lambda: Cusum(slack=0.0, threshold=1.0),
        lambda: Cusum(slack=1.0, threshold=1.0, side="sideways"),
        lambda: PageHinkley(slack=1.0, threshold=-1.0),
        lambda: PageHinkley(slack=1.0, threshold=1.0, least=0),
        lambda: Adwin(clock=0),
        lambda: EDetector(expected=1.2, run_length=10.0),
        lambda: EDetector(expected=0.5, run_length=10.0, bet=0.0),
        lambda: WindowTest(reference=normal(0, 40), test="chi", window=10),
        lambda: cusum_threshold(0.5, 1.0),
    ):
        with pytest.raises(ConfigError):
            make()
    with pytest.raises(DataError):
        WindowTest(reference=np.empty(0), test="ks", window=10)
    with pytest.raises(DataError, match="between 0 and 1"):
        EDetector(expected=0.5, run_length=10.0).update(1.5)


# ── CUSUM ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_thresholds_of_the_facts_page():
    # two years between false alarms: Sharpe ratio 2 → 0 and 2 → −2, looked at daily; the same hourly
    assert cusum_threshold(DAILY_TWO / 2.0, 730.0) == pytest.approx(17.34, abs=0.005)
    assert cusum_threshold(DAILY_TWO, 730.0) == pytest.approx(13.14, abs=0.005)
    assert cusum_run_length(0.05234, 17.34, shift=0.10468) == pytest.approx(197.0, abs=0.6)
    assert cusum_run_length(0.10468, 13.14, shift=0.20936) == pytest.approx(93.0, abs=0.6)
    hourly = 2.0 / sqrt(8760.0)
    assert cusum_threshold(hourly / 2.0, 17_520.0) == pytest.approx(89.47, abs=0.01)
    assert cusum_threshold(hourly, 17_520.0) == pytest.approx(68.93, abs=0.01)


def test_the_formula_is_continuous_where_shift_equals_slack():
    assert cusum_run_length(0.1, 10.0, shift=0.1) == pytest.approx(11.166**2)
    assert cusum_run_length(0.1, 10.0, shift=0.1 + 1e-5) == pytest.approx(11.166**2, rel=1e-3)


def simulated_run_length(detector, shift, *, runs=300, length=6_000):
    rng = stream(7, "test", "cusum")
    return mean_run_length([records(detector.statistics(rng.normal(shift, 1.0, length))) for _ in range(runs)], detector.threshold)


def test_two_years_between_false_alarms_and_two_hundred_days_to_the_fall():
    h = cusum_threshold(DAILY_TWO / 2.0, 730.0)
    detector = Cusum(slack=DAILY_TWO / 2.0, threshold=h, side="down")
    found, alarms = simulated_run_length(detector, 0.0)
    assert found == pytest.approx(730.0, abs=3.3 * 730.0 / sqrt(alarms))  # exponential: the error is the mean over √alarms
    delay, alarms = simulated_run_length(detector, -DAILY_TWO, length=2_000)
    assert delay == pytest.approx(198.5, abs=3.3 * 125.0 / sqrt(alarms) + 3.0)  # ~200 measured, 197 by the formula, spread ~120
    # mutations: looking the wrong way never finds it; without a reset at zero (a plain sum) the run length is another
    wrong, _ = simulated_run_length(Cusum(slack=DAILY_TWO / 2.0, threshold=h, side="up"), -DAILY_TWO, length=2_000)
    assert wrong > 20.0 * delay
    rng = stream(7, "test", "cusum")
    plain = [records(np.cumsum(-rng.normal(0.0, 1.0, 6_000) - detector.slack)) for _ in range(300)]
    assert mean_run_length(plain, h)[0] != pytest.approx(730.0, rel=0.5)


def test_a_two_sided_cusum_is_wrong_twice_as_often():
    detector = Cusum(slack=0.25, threshold=cusum_threshold(0.25, 500.0, side="both"))
    found, alarms = simulated_run_length(detector, 0.0)
    assert found == pytest.approx(500.0, abs=500.0 * (3.3 / sqrt(alarms) + 0.03))
    one_sided = Cusum(slack=0.25, threshold=detector.threshold, side="up")
    assert simulated_run_length(one_sided, 0.0)[0] > 1.6 * found


# ── against river ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("delta", [0.002, 0.05, 0.3])
def test_adwin_cuts_where_river_does(delta):
    drift = pytest.importorskip("river.drift")
    cuts = 0
    for seed in range(12):
        values = normal(seed, 4_000)
        for place in range(1_000, 4_000, 1_000):
            values[place:] += 0.25 * (seed % 4)
        theirs, ours = drift.ADWIN(delta=delta), Adwin(threshold=-float(np.log(delta)))
        for value in values.tolist():
            theirs.update(value)
            assert ours.update(value) == theirs.drift_detected
            assert ours.width == theirs.width or theirs.drift_detected
            if theirs.drift_detected:
                cuts += 1
                ours.restart()
    assert cuts >= 15


def test_page_hinkley_is_rivers_without_forgetting():
    drift = pytest.importorskip("river.drift")
    alarms = 0
    for seed in range(8):
        values = normal(seed, 2_000)
        values[1_000:] += 0.5
        theirs = drift.PageHinkley(min_instances=30, delta=0.1, threshold=15.0, alpha=1.0, mode="up")
        ours = PageHinkley(slack=0.1, threshold=15.0, side="up", least=30)
        for value in values.tolist():
            theirs.update(value)
            assert ours.update(value) == theirs.drift_detected
            if theirs.drift_detected:
                alarms += 1
                ours.restart()
    assert alarms >= 8


# ── e-detector ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def hits(rate, runs, length):
    rng = stream(11, "test", "hits", round(1_000 * rate))
    return [(rng.random(length) < rate).astype(np.float64) for _ in range(runs)]


def test_the_e_detector_is_wrong_no_oftener_than_stated_and_finds_what_the_facts_page_says():
    detector = EDetector(expected=0.53, run_length=8_760.0, bet=0.2)
    found, alarms = mean_run_length([records(detector.statistics(x)) for x in hits(0.53, 200, 60_000)], 8_760.0)
    assert found >= 8_760.0
    assert found == pytest.approx(10_202.0, rel=3.5 / sqrt(alarms) + 0.05)
    slow, alarms = mean_run_length([records(detector.statistics(x)) for x in hits(0.50, 200, 20_000)], 8_760.0)
    assert slow == pytest.approx(1_224.0, rel=3.5 / sqrt(alarms) + 0.03)
    fast, alarms = mean_run_length([records(detector.statistics(x)) for x in hits(0.47, 200, 20_000)], 8_760.0)
    assert fast == pytest.approx(545.0, rel=3.5 / sqrt(alarms) + 0.03)


def test_a_rate_that_wanders_above_its_promise_raises_no_more_alarms():
    """Any conditional rate of at least p₀ will do: this one depends on the past hits."""
    detector = EDetector(expected=0.5, run_length=300.0, bet=0.2)
    rng = stream(12, "test", "wander")
    ends = []
    for _ in range(150):
        last, place = 1.0, 0
        detector.restart()
        while place < 6_000:
            place += 1
            last = float(rng.random() < (0.5 if last else 0.6))
            if detector.update(last):
                break
        ends.append(place)
    assert np.mean(ends) >= 300.0
    # mutation: bets on the other side, as if hits were losses, break the promise at once
    wrong = EDetector(expected=0.5, run_length=300.0, bet=0.2, worse="above")
    found, _ = mean_run_length([records(wrong.statistics(x)) for x in hits(0.6, 50, 3_000)], 300.0)
    assert found < 150.0


def test_promises_may_differ_from_outcome_to_outcome():
    detector = EDetector(expected=0.5, run_length=100.0, bet=0.5)
    detector.update(0.0, 0.8)
    assert detector.statistic == pytest.approx(1.4)  # (0 + 1) (1 + ½ · 0.8)
    detector.update(1.0, 0.6)
    assert detector.statistic == pytest.approx(2.4 * 0.8)  # (1.4 + 1) (1 − ½ · 0.4)
