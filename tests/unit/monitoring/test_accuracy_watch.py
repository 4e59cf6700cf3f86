"""Accuracy label by label: what counts as one, and how often and how late the test speaks."""

from __future__ import annotations

import numpy as np
import pytest

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.time import HOUR, MINUTE
from cryptoalpha.monitoring.accuracy_watch import WINDOW, AccuracyWatch


def watch(promise: float = 0.45, run_length: float = 1e9, horizon: int = HOUR) -> AccuracyWatch:
    return AccuracyWatch(promise=promise, run_length=run_length, horizon=horizon)


def test_a_label_is_what_was_said_a_horizon_ago_over_the_book_and_labels_do_not_overlap():
    made = watch()
    assert made.take(0, {"BTC": 1.0, "ETH": -0.5}, {"BTC": 100.0, "ETH": 10.0}) is None
    assert made.take(30 * MINUTE, {"BTC": -1.0}, {"BTC": 1.0, "ETH": 1.0}) is None  # within the horizon: neither judged nor said
    assert made.take(HOUR, {"BTC": 1.0}, {"BTC": 101.0, "ETH": 10.1}) is True  # 1 · 1 % − 0.5 · 1 %
    assert made.take(2 * HOUR, {"BTC": 1.0}, {"BTC": 100.0, "ETH": 99.0}) is False
    assert made.take(3 * HOUR, {}, {"BTC": 100.0}) is None  # nothing moved
    assert made.take(4 * HOUR, {"BTC": 1.0}, {"BTC": 200.0}) is None  # nothing was said
    assert made.take(6 * HOUR, {"BTC": 1.0}, {"BTC": 300.0}) is None  # a gap: of another horizon
    assert (made.labels, made.hits, made.rate) == (2, 1, 0.5)


def test_evidence_is_the_gamblers_wealth_by_hand():
    made = watch(promise=0.45, run_length=10.0)
    assert (made.evidence, made.rate) == (0.0, None)
    price = 100.0
    made.take(0, {"BTC": 1.0}, {"BTC": price})
    wealth = 0.0
    for hour, rises in enumerate((False, False, True, False), 1):
        price *= 1.01 if rises else 0.99
        made.take(hour * HOUR, {"BTC": 1.0}, {"BTC": price})
        wealth = (wealth + 1.0) * (1.0 + 0.2 * (0.45 - rises))
        assert made.evidence == pytest.approx(wealth / 10.0)


def test_an_alarm_is_kept_by_its_time_and_the_test_begins_anew():
    made = watch(promise=1.0, run_length=1.0)
    made.take(0, {"BTC": 1.0}, {"BTC": 100.0})
    made.take(HOUR, {"BTC": 1.0}, {"BTC": 99.0})  # (0 + 1)(1 + 0.2) ≥ 1
    assert (made.raised_at, made.evidence) == (HOUR, 0.0)


def alarms(chance: float, runs: int, labels: int, run_length: float) -> list[int | None]:
    """The label at which each of so many runs first alarms, by the watch itself."""
    found: list[int | None] = []
    for seed in range(runs):
        made, price = watch(0.45, run_length, 1), 100.0
        for label, rises in enumerate(np.random.default_rng(seed).random(labels) < chance):
            made.take(label, {"BTC": 1.0}, {"BTC": price})
            price *= 1.001 if rises else 0.999
            if made.raised_at is not None:
                break
        found.append(None if made.raised_at is None else made.labels)
    return found


def test_a_model_just_fine_alarms_no_more_often_than_promised_and_one_that_is_not_is_found():
    """Run length 200 instead of 8,760 hours, that it may be seen: the mean of first alarms, those cut off at 2,000 taken as then."""
    fine = [2_000 if at is None else at for at in alarms(0.45, 60, 2_000, 200.0)]
    assert float(np.mean(fine)) > 200.0
    bad = alarms(0.25, 60, 2_000, 200.0)
    assert None not in bad
    assert float(np.mean([at for at in bad if at is not None])) < 90.0


def test_the_share_told_is_of_the_newest_week_and_a_horizon_must_be_positive():
    made = watch(run_length=1e300)
    for hour in range(WINDOW + 11):
        made.take(hour * HOUR, {"BTC": 1.0}, {"BTC": 1000.0 + (hour if hour <= 10 else -hour)})
    assert (made.labels, made.rate) == (WINDOW + 10, 0.0)
    with pytest.raises(ConfigError):
        watch(horizon=0)
