"""The monitor: silent while nothing changes, each tier heard when its thing does, the same alarms after a restart."""

from __future__ import annotations

import json
from itertools import pairwise
from math import isnan, sqrt

import numpy as np
import pytest
from pydantic import ValidationError

from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.core.seeds import stream
from cryptoalpha.core.time import DAY, HOUR
from cryptoalpha.monitoring.drift.config import DriftConfig
from cryptoalpha.monitoring.drift.feature_watch import FeatureWatch, feature_p_value
from cryptoalpha.monitoring.drift.monitor import DriftMonitor
from cryptoalpha.monitoring.drift.outcome_watch import OutcomeWatch, lowest_rate
from cryptoalpha.monitoring.drift.returns_watch import ReturnsWatch
from cryptoalpha.monitoring.drift.watch import SeriesWatch, WatchSettings

CONFIG = DriftConfig(
    reference_days=20,
    retrain_run_length_days=150.0,
    champion_run_length_days=300.0,
    cooldown_days=10.0,
    simulated_runs=50,
    expected_sharpe=3.0,
)


def feed(monitor, *, days, change_day, seed=0, cut=None):
    """An hourly life in which everything changes on `change_day`; taken down and up again at hour `cut`."""
    rng = stream(seed, "test", "monitor")
    alarms = []
    for hour in range(24 * days):
        at, changed = hour * HOUR, hour >= 24 * change_day
        if hour == cut:
            monitor = DriftMonitor.from_state(json.loads(json.dumps(monitor.state())), monitor.config, seed=monitor.seed)
        noise = rng.normal(size=4)
        alarms += monitor.observe_features(at, ["calm", "moves"], [noise[0], noise[1] + 1.5 * changed])
        alarms += monitor.observe_prediction(at, "BTC", 0.1 * noise[2] + 0.1 * changed)
        alarms += monitor.observe_outcome(at, "BTC", 0.6, bool(rng.random() < (0.45 if changed else 0.62)), horizon=2 * HOUR)
        if hour % 24 == 0:
            alarms += monitor.observe_return(at, 0.02 * (noise[3] + (-0.5 if changed else 3.0 / sqrt(365.0))))
            alarms += monitor.observe_ic(at, 0.05 * noise[3] + (0.0 if changed else 0.06))
    return alarms, monitor


@pytest.fixture(scope="module")
def life():
    return feed(DriftMonitor(CONFIG, seed=1), days=200, change_day=120, seed=1)


def test_each_thing_that_changed_is_told_and_what_did_not_is_not(life):
    alarms, monitor = life
    subjects = {alarm.subject for alarm in alarms if alarm.known_at >= 120 * DAY}
    expected = {"moves", "prediction:BTC", "accuracy:BTC", "calibration:BTC", "returns"}
    assert expected <= subjects
    told = [alarm.subject for alarm in alarms if alarm.detector == "psi_ks" and alarm.known_at >= 130 * DAY]
    assert told.count("moves") == 4  # looks on days 140, 155, 170 and 185: all of them
    assert told.count("calm") <= 2  # beside a true discovery each look may be wrong one time in ten
    # seven watches, 100 days, run lengths of 150 and 300 days from a reference of 20: five by the run lengths, more by so short a reference
    assert len([alarm for alarm in alarms if alarm.known_at < 120 * DAY]) <= 8
    tiers = {alarm.subject: alarm.tier for alarm in alarms}
    assert tiers["returns"] == "champion"
    assert {tiers[name] for name in expected - {"returns"}} == {"retrain"}
    for alarm in alarms:
        assert alarm.statistic >= alarm.threshold
        assert alarm.run_length >= 10.0
        assert alarm.message
    assert monitor.feature_p_values["moves"] < 1e-6 < monitor.feature_p_values["calm"]
    assert monitor.rolling_sharpe < 3.0
    assert 0.0 < monitor.probability_of_skill < 1.0


def test_a_restart_anywhere_changes_no_alarm_and_no_state(life):
    for cut in (24 * 10 + 5, 24 * 125):  # while it learns, and after the change
        alarms, monitor = feed(DriftMonitor(CONFIG, seed=1), days=200, change_day=120, seed=1, cut=cut)
        assert alarms == life[0]
        assert monitor.state() == life[1].state()


def test_after_an_alarm_it_is_silent_for_the_cooldown_and_then_speaks_again(life):
    by_subject = {}
    for alarm in life[0]:
        by_subject.setdefault((alarm.detector, alarm.subject), []).append(alarm.known_at)
    gaps = [b - a for times in by_subject.values() for a, b in pairwise(times)]
    assert gaps
    assert min(gaps) >= 10 * DAY


def test_a_lasting_change_is_told_once_and_then_is_the_new_normal():
    """Forty lives with a shift of half a standard deviation on day 150: none goes without an alarm, a restart changes nothing."""
    delays, later = [], 0
    for seed in range(40):
        rng = stream(seed, "test", "lasting")
        settings = WatchSettings("x", "retrain", 90.0, 1_000.0, 14.0, 0.5, runs=50, seed=seed)
        watch, told = SeriesWatch(settings), []
        for day, noise in enumerate(rng.normal(size=520).tolist()):
            if watch.update(day * DAY, noise + (0.5 if day >= 150 else 0.0)) is not None:
                told.append(day)
                assert not watch.is_watching
                watch = SeriesWatch.from_state(settings, json.loads(json.dumps(watch.state())))
                assert watch.update(day * DAY, 0.0) is None  # that day is taken already
        assert told  # a false alarm just before the shift counts: what comes while it learns is normal
        assert all(b - a >= 90 for a, b in pairwise(told))
        if told[0] >= 150:
            delays.append(told[0] - 150)
            later += len(told) - 1
    assert len(delays) >= 34
    assert 15 <= np.median(delays) <= 60
    assert later <= 20  # in about 220 days each; references that are kept go on every 30 days or so


def test_relearning_makes_the_new_normal():
    rng = stream(2, "test", "relearn")
    monitor = DriftMonitor(CONFIG, seed=1)
    for hour in range(24 * 30):
        monitor.observe_prediction(hour * HOUR, "BTC", rng.normal())
    monitor.relearn()
    alarms = []
    for hour in range(24 * 30, 24 * 80):
        alarms += monitor.observe_prediction(hour * HOUR, "BTC", 2.0 + rng.normal())
    assert alarms == []


def test_switched_off_it_says_nothing():
    alarms, _ = feed(DriftMonitor(DriftConfig(enabled=False)), days=10, change_day=1)
    assert alarms == []
    with pytest.raises(ValidationError):
        DriftConfig(false_discovery_rate=1.0)


def test_features_that_never_change_alarm_one_look_in_ten_at_most():
    looks = alarmed = 0
    for seed in range(30):
        rng = stream(seed, "test", "features")
        watch = FeatureWatch(reference_days=30.0, run_length_days=100.0, rate=0.1)
        x = rng.normal(size=(24 * 52, 6))
        for t in range(1, x.shape[0]):
            x[t, :3] += 0.9 * x[t - 1, :3]
        x[rng.random(x.shape) < 0.05] = np.nan  # not observed
        for hour, row in enumerate(x):
            before = dict(watch.p_values)
            found = watch.update(hour * HOUR, list("abcdef"), row)
            looks += watch.p_values != before
            alarmed += bool(found)
    assert looks == 60
    assert alarmed <= 6 + 3.3 * sqrt(60 * 0.1 * 0.9)


def test_features_of_every_kind_have_a_p_value_or_none():
    rng = stream(3, "test", "kinds")
    steady, steps = np.ones(200), rng.integers(0, 3, 400).astype(float)
    assert feature_p_value(steady, np.ones(50)) is None
    assert feature_p_value(steady, np.r_[np.ones(50), 2.0]) == 0.0
    assert feature_p_value(rng.normal(size=20), rng.normal(size=50)) is None
    assert feature_p_value(steps, rng.integers(0, 3, 100).astype(float)) > 1e-3
    assert feature_p_value(steps, np.zeros(100)) < 1e-6
    watch = FeatureWatch(reference_days=1.0, run_length_days=10.0, rate=0.1)
    watch.update(0, ["a"], [1.0])
    with pytest.raises(DataError, match="no longer the same"):
        watch.update(HOUR, ["b"], [1.0])
    with pytest.raises(DataError):
        watch.update(HOUR, ["a"], [np.inf])


def test_the_returns_watch_keeps_its_two_years():
    config = DriftConfig(expected_sharpe=2.0, cooldown_days=0.0)
    alarms = total = 0
    for seed in range(25):
        rng, watch = stream(seed, "test", "returns"), ReturnsWatch(config)
        for day, z in enumerate(rng.normal(2.0 / sqrt(365.0), 1.0, 5_000).tolist()):
            alarms += watch.update(day * DAY, 0.02 * z) is not None
        total += 5_000
    assert total / alarms == pytest.approx(730.0, rel=3.3 / sqrt(alarms) + 0.05)
    quiet = ReturnsWatch(DriftConfig(expected_sharpe=0.0))
    assert all(quiet.update(day * DAY, -0.05 + 0.01 * (day % 2)) is None for day in range(400))
    assert quiet.rolling_sharpe < -5.0
    assert isnan(ReturnsWatch(config).rolling_sharpe)


def test_outcomes_that_overlap_are_passed_over():
    watch = OutcomeWatch(CONFIG, "BTC", 4 * HOUR)
    for hour in range(40):
        watch.update(hour * HOUR, 0.6, True)
    assert watch.state()["outcomes"] == 10
    with pytest.raises(DataError):
        watch.update(50 * HOUR, 1.2, True)
    with pytest.raises(ConfigError):
        OutcomeWatch(CONFIG, "BTC", 0)
    assert lowest_rate(530, 1_000) == pytest.approx(0.503993, abs=1e-6)
    p, z = 0.530, 1.6448536269514722
    low = (p + z * z / 2_000 - z * sqrt(p * (1 - p) / 1_000 + z * z / 4e6)) / (1 + z * z / 1_000)
    assert lowest_rate(530, 1_000) == pytest.approx(low, rel=1e-12)


def test_a_kept_state_of_another_kind_is_refused():
    settings = WatchSettings("x", "retrain", 20.0, 100.0, 5.0, 0.5)
    with pytest.raises(ConfigError, match="other entries"):
        SeriesWatch.from_state(settings, {"reference": []})
    with pytest.raises(ConfigError, match="other entries"):
        ReturnsWatch.from_state(CONFIG, {"returns": []})
    with pytest.raises(ConfigError, match="other entries"):
        FeatureWatch.from_state({"names": []}, reference_days=1.0, run_length_days=10.0, rate=0.1)
    with pytest.raises(ConfigError, match="other entries"):
        OutcomeWatch.from_state(CONFIG, "x", {"horizon": 1})
    with pytest.raises(DataError, match="expected a finite number"):
        SeriesWatch(settings).update(0, float("nan"))
