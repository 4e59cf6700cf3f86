"""The monitor: silent while nothing changes, each tier heard when its thing does, the same alarms for the same values."""

from __future__ import annotations

from itertools import pairwise
from math import sqrt

import numpy as np
import pytest
from pydantic import ValidationError

from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.core.seeds import stream
from cryptoalpha.core.time import DAY, HOUR, MINUTE
from cryptoalpha.monitoring.drift.config import DriftConfig
from cryptoalpha.monitoring.drift.cusum import cusum_run_length, cusum_threshold
from cryptoalpha.monitoring.drift.monitor import DriftMonitor
from cryptoalpha.monitoring.drift.outcome_watch import OutcomeWatch
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


def feed(monitor, *, days, change_day, seed=0):
    """An hourly life in which everything changes on `change_day`."""
    rng = stream(seed, "test", "monitor")
    alarms = []
    for hour in range(24 * days):
        at, changed = hour * HOUR, hour >= 24 * change_day
        noise = rng.normal(size=4)
        alarms += monitor.observe_features(at, {"calm": noise[0], "moves": noise[1] + 1.5 * changed})
        alarms += monitor.observe_prediction(at, "BTC", 0.1 * noise[2] + 0.1 * changed)
        alarms += monitor.observe_outcome(at, "BTC", 0.6, bool(rng.random() < (0.45 if changed else 0.62)), horizon=2 * HOUR)
        if hour % 24 == 0:
            alarms += monitor.observe_return(at, 0.02 * (noise[3] + (-0.5 if changed else 3.0 / sqrt(365.0))))
            alarms += monitor.observe_ic(at, 0.05 * noise[3] + (0.0 if changed else 0.06))
    return alarms


@pytest.fixture(scope="module")
def life():
    return feed(DriftMonitor(CONFIG, seed=1), days=200, change_day=120, seed=1)


def test_each_thing_that_changed_is_told_and_what_did_not_is_not(life):
    alarms = life
    subjects = {alarm.subject for alarm in alarms if alarm.known_at >= 120 * DAY}
    expected = {"moves", "prediction:BTC", "calibration:BTC", "returns"}
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


def test_the_same_values_give_the_same_alarms(life):
    """What a replayed journal rests on."""
    assert feed(DriftMonitor(CONFIG, seed=1), days=150, change_day=120, seed=1) == [one for one in life if one.known_at < 150 * DAY]


def test_after_an_alarm_it_is_silent_for_the_cooldown_and_then_speaks_again(life):
    by_subject = {}
    for alarm in life:
        by_subject.setdefault((alarm.detector, alarm.subject), []).append(alarm.known_at)
    gaps = [b - a for times in by_subject.values() for a, b in pairwise(times)]
    assert gaps
    assert min(gaps) >= 10 * DAY


def test_a_lasting_change_is_told_once_and_then_is_the_new_normal():
    """Forty lives with a shift of half a standard deviation on day 150: none goes without an alarm."""
    delays, later = [], 0
    for seed in range(40):
        rng = stream(seed, "test", "lasting")
        settings = WatchSettings("x", "retrain", 90.0, 1_000.0, 14.0, 0.5, runs=50, seed=seed)
        watch, told = SeriesWatch(settings), []
        for day, noise in enumerate(rng.normal(size=520).tolist()):
            if watch.update(day * DAY, noise + (0.5 if day >= 150 else 0.0)) is not None:
                told.append(day)
                assert watch.update(day * DAY, 0.0) is None  # that day is taken already
        assert told  # a false alarm just before the shift counts: what comes while it learns is normal
        assert all(b - a >= 90 for a, b in pairwise(told))
        if told[0] >= 150:
            delays.append(told[0] - 150)
            later += len(told) - 1
    assert len(delays) >= 34
    assert 15 <= np.median(delays) <= 60
    assert later <= 20  # in about 220 days each; references that are kept go on every 30 days or so


def test_switched_off_it_says_nothing():
    alarms = feed(DriftMonitor(DriftConfig(enabled=False)), days=10, change_day=1)
    assert alarms == []
    with pytest.raises(ValidationError):
        DriftConfig(false_discovery_rate=1.0)


def returns_watch_fed(values, config=CONFIG, **named):
    """The watch after days of these returns, and its alarms with their day."""
    watch, told = ReturnsWatch(config), []
    for day, value in enumerate(values, start=1):
        alarm = watch.update(day * DAY, value, **named)
        if alarm is not None:
            told.append((day, alarm))
    return watch, told


def test_the_returns_watch_keeps_its_two_years():
    config = DriftConfig(expected_sharpe=2.0, cooldown_days=0.0)
    alarms = total = 0
    for seed in range(25):
        rng = stream(seed, "test", "returns")
        alarms += len(returns_watch_fed((0.02 * rng.normal(2.0 / sqrt(365.0), 1.0, 5_000)).tolist(), config)[1])
        total += 5_000
    assert total / alarms == pytest.approx(730.0, rel=3.3 / sqrt(alarms) + 0.05)
    assert returns_watch_fed([-0.05 + 0.01 * (day % 2) for day in range(400)], DriftConfig(expected_sharpe=0.0))[1] == []


def test_the_returns_watch_by_hand():
    """Second way: the running variance, the clipped z and the sum written out; then silence for the cooldown."""
    values = (0.02 * stream(7, "test", "by hand").standard_t(2, 400)).tolist()
    expected, variance, total, quiet, told, rising = 3.0 / sqrt(365.0), 0.0, 0.0, 0, [], 0
    for day, r in enumerate(values, start=1):
        before = variance
        variance = sum(v * v for v in values[:day]) / day if day <= 20 else 0.94 * before + 0.06 * r * r
        if day <= 20 or day < quiet:
            continue
        z = min(max(r / sqrt(before), -4.0), 4.0) - expected
        total = max(0.0, total - z - expected / 2.0)
        rising = rising + 1 if total > 0.0 else 0
        if total > 11.0:
            told.append((day, rising))
            total, rising, quiet = 0.0, 0, day + 10
    watch = ReturnsWatch(CONFIG)
    watch._cusum.threshold = 11.0
    found = [(day, watch.update(day * DAY, r)) for day, r in enumerate(values, start=1)]
    found = [(day, alarm) for day, alarm in found if alarm is not None]
    assert [day for day, _ in found] == [day for day, _ in told]
    assert len(told) >= 2
    assert [alarm.message.split()[2] for _, alarm in found] == [str(count) for _, count in told]


def test_a_fall_from_a_sharpe_ratio_of_one_takes_as_long_as_the_guide_says():
    slack = 0.5 / sqrt(365.0)
    assert cusum_run_length(slack, cusum_threshold(slack, 730.0), shift=2 * slack) == pytest.approx(340, abs=5)
    assert cusum_run_length(2 * slack, cusum_threshold(2 * slack, 730.0), shift=4 * slack) == pytest.approx(200, abs=5)


def test_a_day_is_one_of_the_calendar():
    """Looks at 24 h, 48 h 5 min, 72 h: all three days count; a second look at one day does not."""
    watch = ReturnsWatch(CONFIG)
    for at in (DAY, 2 * DAY + 5 * MINUTE, 3 * DAY, 3 * DAY + HOUR, 4 * DAY - 1):
        watch.update(at, 0.01)
    assert watch.taken == 3


def test_a_return_over_several_days_weighs_as_so_many():
    """Nine days at three times the daily volatility are usual: the same sums as one day's, but for a mean three times as large."""
    one, nine = ReturnsWatch(CONFIG), ReturnsWatch(CONFIG)
    for day in range(1, 40):
        one.update(day * DAY, 0.02 * (-1) ** day)
        nine.update(day * DAY, 0.02 * (-1) ** day)
    one.update(40 * DAY, -0.02)
    nine.update(49 * DAY, -0.06, days=9)
    expected = 3.0 / sqrt(365.0)
    assert nine._variance == pytest.approx(one._variance)
    assert nine._cusum.statistic - one._cusum.statistic == pytest.approx((3 - 1) * expected)
    with pytest.raises(DataError, match="one or more"):
        one.update(50 * DAY, 0.0, days=0)


def test_outcomes_that_overlap_are_passed_over():
    watch = OutcomeWatch(CONFIG, "BTC", 4 * HOUR)
    for hour in range(40):
        watch.update(hour * HOUR, 0.6, True)
    assert watch.taken == 10
    with pytest.raises(DataError):
        watch.update(50 * HOUR, 1.2, True)
    with pytest.raises(ConfigError):
        OutcomeWatch(CONFIG, "BTC", 0)
    late = OutcomeWatch(CONFIG, "BTC", DAY)
    looks = (DAY, 2 * DAY + 5 * MINUTE, 3 * DAY)  # each predicted at the one before
    for since, at in pairwise((0, *looks)):
        late.update(at, 0.6, True, since=since)
    assert late.taken == 3
    late.update(4 * DAY, 0.6, True, since=3 * DAY - 1)
    assert late.taken == 3


def outcome_delay(claimed, rate, *, before=0, runs=40, margin=0.01):
    """Median daily outcomes from a fall to `rate`, after `before` with .53, until the alarm; lives with an earlier one left out."""
    delays = []
    for seed in range(runs):
        rng, watch = stream(seed, "test", "outcomes"), OutcomeWatch(DriftConfig(accuracy_margin=margin), "x", DAY)
        hits = (rng.random(3_000) < np.where(np.arange(3_000) < before, 0.53, rate)).tolist()
        told = next((day for day, hit in enumerate(hits) if watch.update(day * DAY, claimed, hit) is not None), 3_000)
        delays += [told - before] if told >= before else []
    return float(np.median(delays))


def test_what_is_hit_less_often_than_claimed_is_found_in_the_time_stated():
    assert 100 <= outcome_delay(0.5, 0.47, before=200) <= 220
    assert outcome_delay(0.44, 0.47, before=200) > 300  # what a reference of 90 days would promise
    assert outcome_delay(0.5, 0.5) > outcome_delay(0.5, 0.5, margin=0.0)  # the margin gives leave


def test_values_that_are_no_numbers_are_refused():
    with pytest.raises(DataError, match="expected a finite number"):
        SeriesWatch(WatchSettings("x", "retrain", 20.0, 100.0, 5.0, 0.5)).update(0, float("nan"))
    with pytest.raises(DataError, match="expected a finite number"):
        DriftMonitor(CONFIG).observe_return(DAY, float("inf"))


def test_coefficients_alarm_where_they_fall_only_and_predictions_either_way():
    def subjects(observe):
        rng = stream(9, "test", "sides")
        return [alarm for day in range(160) for alarm in observe(day * DAY, float(rng.normal()) * 0.1 + 0.3 * (day >= 60))]

    rising, falling, either = (DriftMonitor(CONFIG, seed=1) for _ in range(3))
    assert subjects(rising.observe_ic) == []
    assert subjects(lambda at, x: falling.observe_ic(at, -x)) != []
    assert subjects(lambda at, x: either.observe_prediction(at, "x", x)) != []
