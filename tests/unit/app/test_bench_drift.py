"""The benchmark of drift measures what it says: worlds without a shift, rules without a null at their known rates."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest

from cryptoalpha.app.bench.drift_alarms import alarms_per_run_length
from cryptoalpha.app.bench.drift_sketch import accuracy_rule_share, psi_shares, sharpe_rule_share, sketch_drifted, sketch_inaccurate
from cryptoalpha.app.bench.drift_world import DETECTORS, WORLDS, Trial, mean_delay
from cryptoalpha.core.seeds import stream
from cryptoalpha.monitoring.drift.watch import SeriesWatch


@pytest.mark.parametrize(("days", "share"), [(7, 0.48), (30, 0.45), (90, 0.42), (365, 0.34)])
def test_the_sketchs_rule_for_sharpe_ratios_fires_on_nothing(days, share):
    assert sharpe_rule_share(days, runs=4_000) == pytest.approx(share, abs=0.01 + 3.3 * sqrt(0.25 / 4_000))


@pytest.mark.parametrize(("predictions", "share"), [(4, 0.27), (12, 0.31), (60, 0.20)])
def test_the_sketchs_rule_for_accuracy_fires_on_nothing(predictions, share):
    assert accuracy_rule_share(predictions, runs=4_000) == pytest.approx(share, abs=0.01 + 3.3 * sqrt(0.25 / 4_000))


def test_the_sketchs_rules_are_the_sketchs():
    assert not sketch_drifted(-0.5, -2.0)  # a base below zero turns it round: worse is silent, better alarms
    assert sketch_drifted(-0.5, 2.0)
    with pytest.raises(ZeroDivisionError):
        sketch_drifted(0.0, 1.0)
    assert sketch_inaccurate(0.53, 0.47)
    assert not sketch_inaccurate(0.53, 0.49)


def test_worlds_are_what_they_are_called():
    for name, slope in (("iid", 0.0), ("ar98", 0.98), ("garch_t", 0.0)):
        x = WORLDS[name](stream(1, "test", name), 20_000)
        assert np.corrcoef(x[1:], x[:-1])[0, 1] == pytest.approx(slope, abs=0.06)
    assert np.corrcoef(x[1:] ** 2, x[:-1] ** 2)[0, 1] > 0.05


def test_a_trial_gives_the_same_ends_again_and_a_shift_is_found():
    first, second = (Trial("ar98", 0, length=3_000, fresh=2) for _ in range(2))
    for name in (*DETECTORS, "e_detector"):
        assert first.ends(name) == second.ends(name)
    assert all(not alarmed or end <= 3_000 for end, alarmed in first.ends("cusum"))
    assert mean_delay("cusum", 1.0, runs=10, length=2_000) < 30.0
    assert psi_shares(100, runs=40)[0] > psi_shares(100, runs=40)[1]


@pytest.mark.parametrize(
    ("watch", "world", "lives", "days"),
    [
        ("predictions", "iid", 8, 1_000),
        ("information_coefficient", "garch_t", 8, 1_550),
        ("returns", "iid", 60, 2_000),
        ("outcomes", "iid", 60, 1_000),
        ("features", "garch_t", 8, 1_000),
    ],
)
def test_all_alarms_in_use_come_no_more_often_than_stated(watch, world, lives, days):
    """One per run length, a fifth more at most beyond the noise of so few lives; and they do come."""
    each = alarms_per_run_length(watch, world, lives=lives, days=days)
    assert 0.0 < each.mean() < 1.2 + 2.0 * each.std() / sqrt(lives)
    assert each.std() / sqrt(lives) < 0.35


def test_a_watch_that_kept_its_reference_would_alarm_again_and_again(monkeypatch):
    """Mutation: the same lives, but an alarm only empties the sums."""
    now = alarms_per_run_length("information_coefficient", "iid", lives=8, days=2_500)
    learn = SeriesWatch.relearn

    def keep(watch: SeriesWatch) -> None:
        detector = getattr(watch, "_detector", None)
        learn(watch) if detector is None else detector.restart()

    monkeypatch.setattr(SeriesWatch, "relearn", keep)
    kept = alarms_per_run_length("information_coefficient", "iid", lives=8, days=2_500)
    assert kept.mean() > 1.5 * now.mean() > 0.0
    assert kept.max() > 5.0 > 2.5 > now.max()  # one unlucky reference
