"""Features: looks at what never changed believe as seldom as stated, slow features included; what changed is told."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest

from cryptoalpha.app.bench.drift_alarms import believed_shares
from cryptoalpha.core.errors import DataError
from cryptoalpha.core.seeds import stream
from cryptoalpha.core.time import DAY, HOUR
from cryptoalpha.monitoring.drift import baseline, feature_watch
from cryptoalpha.monitoring.drift.baseline import Baseline, largest_slope
from cryptoalpha.monitoring.drift.feature_watch import FeatureWatch, feature_p_value, gathered

RUNS = 30


def most(looks: int, rate: float = 0.1) -> float:
    return rate + 2.5 * sqrt(rate * (1.0 - rate) / looks)


@pytest.mark.parametrize("world", ["iid", "ar90", "ar98", "ar995", "garch_t"])
def test_daily_features_that_never_change_are_believed_to_one_look_in_ten_at_most(world):
    believed, _ = believed_shares(world, runs=RUNS)
    assert believed <= most(5 * RUNS)


@pytest.mark.slow
@pytest.mark.parametrize("world", ["iid", "ar98", "ar995", "garch_t"])
def test_hourly_features_that_never_change_are_believed_to_one_look_in_ten_at_most(world):
    believed, _ = believed_shares(world, runs=15, per_day=24)
    assert believed <= most(5 * 15)


@pytest.mark.parametrize(("world", "share"), [("iid", 0.4), ("garch_t", 0.7)])
def test_a_level_that_moves_by_a_standard_deviation_is_found_among_eight(world, share):
    assert believed_shares(world, runs=20, shift=1.0)[1] >= share


def test_the_likeliest_slope_would_believe_in_slow_features_every_other_look(monkeypatch):
    """Mutation: the return to the mean is taken for known."""
    monkeypatch.setattr(baseline, "largest_slope", lambda x: min(baseline.corrected_slope(lag_one(x), x.size), 0.999))
    believed, _ = believed_shares("ar98", runs=15)
    assert believed > 0.3


def test_volatility_that_comes_in_clusters_would_be_believed_to_be_change(monkeypatch):
    """Mutation: every surprise counts in full."""
    monkeypatch.setattr(feature_watch, "independent_share", lambda before, now: 1.0)
    believed, _ = believed_shares("garch_t", runs=15)
    assert believed > 0.2


def test_twice_the_smaller_p_value(monkeypatch):
    """Bonferroni over both tests: each alone is halved by the other."""
    rng = stream(2, "test", "twice")
    before, now = rng.normal(size=200), rng.normal(0.6, 1.0, 60)
    fitted = Baseline.fit(before, cautious=True)
    z, y = fitted.of_reference(before), fitted.surprises(now)
    share = feature_watch.independent_share(z, y)
    sizes = (share * z.size, share * y.size)
    smaller = min(feature_watch.psi(z, y, effective=sizes).p_value, feature_watch.ks_test(z, y, effective=sizes).p_value)
    assert 1e-6 < smaller < 0.3
    assert feature_p_value(before, now) == pytest.approx(2.0 * smaller)


def lag_one(x):
    d = x - x.mean()
    return float((d[1:] * d[:-1]).sum() / (d * d).sum())


def test_the_largest_slope_covers_the_true_one():
    short = np.array([baseline.corrected_slope(lag_one(x), 90) for x in slow_series(0.7, 400)])
    assert short.mean() == pytest.approx(0.7, abs=0.015)  # Kendall's correction: without it .66
    for slope, share in ((0.0, 0.75), (0.7, 0.75), (0.98, 0.95)):
        largest = np.array([largest_slope(x) for x in slow_series(slope, 200)])
        assert np.mean(largest >= slope) >= share
        assert np.mean(largest < 1.0) >= (0.9 if slope == 0.0 else 0.0)


def slow_series(slope, count):
    rng = stream(3, "test", "slow", round(100 * slope))
    e = rng.normal(size=(count, 90))
    e[:, 0] /= sqrt(1.0 - slope**2)
    x = e.copy()
    for day in range(1, 90):
        x[:, day] += slope * x[:, day - 1]
    return x


def test_features_of_every_kind_have_a_p_value_or_none():
    rng = stream(3, "test", "kinds")
    steady, steps = np.ones(200), rng.integers(0, 3, 400).astype(float)
    assert feature_p_value(steady, np.ones(50)) is None
    assert feature_p_value(steady, np.r_[np.ones(50), 2.0]) == pytest.approx(51 / 251)  # one new value: any day could have had it
    assert feature_p_value(steady, rng.normal(size=50)) < 1e-20  # it came to life
    assert feature_p_value(rng.normal(size=20), rng.normal(size=50)) is None
    assert feature_p_value(steps, rng.integers(0, 3, 100).astype(float)) > 1e-3
    assert feature_p_value(steps, np.zeros(100)) < 1e-6
    assert gathered(3, 2, 2) == pytest.approx(1 / 10)  # one of the ten pairs among five
    assert gathered(3, 2, 0) is None


def fed(watch, values):
    """All alarms of rows `[T]` of dicts, one a day."""
    return [alarm for day, row in enumerate(values) for alarm in watch.update(day * DAY, row)]


def test_a_feature_that_comes_later_learns_from_then_on():
    rng = stream(4, "test", "later")
    watch = FeatureWatch(reference_days=60.0, run_length_days=400.0, rate=0.1)
    rows = [{"old": x, "gone": float("nan")} | ({"new": y + 6.0 * (day > 190)} if day >= 100 else {})
            for day, (x, y) in enumerate(rng.normal(size=(260, 2)).tolist())]  # fmt: skip
    alarms = fed(watch, rows)
    assert {alarm.subject for alarm in alarms} == {"new"}
    assert min(alarm.known_at for alarm in alarms) > 190 * DAY
    assert 60 < watch.observed["old"] < 101  # those since the last look and the reference
    assert "gone" not in watch.observed
    for alarm in alarms:
        assert alarm.run_length == pytest.approx(400.0, rel=0.03)  # daily values: as many as days


def test_run_lengths_are_told_in_values():
    rng = stream(5, "test", "hourly")
    watch = FeatureWatch(reference_days=5.0, run_length_days=50.0, rate=0.1)
    alarms = [
        alarm
        for hour in range(24 * 30)
        for alarm in watch.update(hour * HOUR, {"x": float(rng.normal()) + 3.0 * (hour > 240)})
        + watch.update(hour * HOUR + 1, {"x": 1e9})  # within the hour: passed over
    ]
    assert alarms
    assert all(alarm.run_length == pytest.approx(24 * 50.0, rel=0.02) for alarm in alarms)


def test_infinity_is_refused():
    with pytest.raises(DataError, match="finite"):
        FeatureWatch(reference_days=1.0, run_length_days=10.0, rate=0.1).update(0, {"a": float("inf")})
