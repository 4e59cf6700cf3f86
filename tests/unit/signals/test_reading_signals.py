"""Funding and mood: where a reading stands among its own past."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cryptoalpha.core.time import DAY, HOUR
from cryptoalpha.signals.funding import Funding
from cryptoalpha.signals.mood import FearGreed
from cryptoalpha.signals.readings import trailing_mean, trailing_standing


def test_trailing_mean_counts_what_became_known_in_the_window():
    known = np.array([0, 10, 20, 30, 30])
    mean = trailing_mean(known, np.array([1.0, 2.0, np.nan, 4.0, 6.0]), 20)
    assert mean.tolist() == [1.0, 1.5, 2.0, 4.0, 5.0]  # at 20: (0, 20] holds 2 and a missing one; at 30: (10, 30]


def test_standing_is_the_z_among_the_past_window():
    known, value = DAY * np.arange(100), np.sin(np.arange(100.0))
    z, share = trailing_standing(known, value, 60 * DAY)
    window = value[40:100]  # (39 d, 99 d]
    assert z[-1] == pytest.approx((value[-1] - window.mean()) / window.std(ddof=1))
    assert share[-1] == pytest.approx(59 / 60)
    assert np.isnan(z[:30]).all()  # 30 readings and half the window, whichever comes later
    assert np.isfinite(z[31:]).all()


def test_standing_needs_a_change_a_history_and_a_value():
    known = DAY * np.arange(100)
    assert np.isnan(trailing_standing(known, np.full(100, 3.0), 60 * DAY)[0]).all()
    assert np.isnan(trailing_standing(HOUR * np.arange(100), np.arange(100.0), 60 * DAY)[0]).all()  # four days are no history
    missing = np.where(np.arange(100) == 99, np.nan, np.arange(100.0))
    assert np.isnan(trailing_standing(known, missing, 60 * DAY)[0][-1])


def funding() -> Funding:
    return Funding(mean_days=1.0, history_days=30.0, horizon_days=3.0, stale_after_days=1.0, typical_ic=0.02)


def settlements(start: int, rates: np.ndarray) -> list[tuple[int, float]]:
    return [(start + 8 * HOUR * i, float(rate)) for i, rate in enumerate(rates)]


def test_dear_funding_is_sold_and_only_where_it_is_paid(make_frame, start):
    rates = 1e-4 * (1.0 + np.sin(np.arange(120.0)))
    rates[-3:] = 5e-4
    frame = make_frame({"A/USDT": [100.0] * 960, "B/USDT": [100.0] * 960}, readings={("A", "funding_rate"): settlements(start, rates)})
    formed = funding().compute(frame)
    means = np.array([rates[max(0, i - 2) : i + 1].mean() for i in range(120)])
    last = means[30:120]  # 30 days of three settlements
    z = (means[-1] - last.mean()) / last.std(ddof=1)
    at = 119 * 8 - 1  # the bar whose close is the last settlement
    assert formed.value[at, 0] == pytest.approx(-math.tanh(z / 2))
    assert formed.value[at - 1, 0] != formed.value[at, 0]
    assert formed.impact[at, 0] == pytest.approx(0.02 * formed.value[at, 0])
    assert np.isnan(formed.value[:, 1]).all()


def test_old_funding_is_no_evidence(make_frame, start):
    rates = 1e-4 * np.sin(np.arange(100.0))
    frame = make_frame({"A/USDT": [100.0] * 960}, readings={("A", "funding_rate"): settlements(start, rates)})
    value = funding().compute(frame).value[:, 0]
    last = 99 * 8 - 1
    assert np.isfinite(value[last : last + 25]).all()
    assert np.isnan(value[last + 25 :]).all()


def mood() -> FearGreed:
    return FearGreed(history_days=60.0, extreme=1.0, horizon_days=7.0, stale_after_days=3.0, typical_ic=0.02)


def test_between_the_extremes_mood_says_nothing_and_beyond_them_the_opposite(make_frame, start):
    index = 50.0 + 10.0 * np.sin(np.arange(80.0))
    index[-2:] = (50.0, 90.0)
    readings = {("*", "fear_greed"): [(start + DAY * i, float(v)) for i, v in enumerate(index)]}
    formed = mood().compute(make_frame({"A/USDT": [100.0] * 1_920, "B/USDT": [100.0] * 1_920}, readings=readings))
    window = index[20:80]
    z = (90.0 - window.mean()) / window.std(ddof=1)
    at = 79 * 24 - 1
    assert formed.value[at].tolist() == [pytest.approx(-math.tanh(z - 1.0))] * 2
    assert formed.value[at - 1].tolist() == [0.0, 0.0]
    assert formed.confidence[at - 1].tolist() == [0.0, 0.0]
    assert formed.confidence[at, 0] == pytest.approx(59 / 60 * abs(formed.value[at, 0]))


def test_mood_grows_stale(make_frame, start):
    readings = {("*", "fear_greed"): [(start + DAY * i, float(i % 7)) for i in range(60)]}
    value = mood().compute(make_frame({"A/USDT": [100.0] * 1_920}, readings=readings)).value[:, 0]
    last = 59 * 24 - 1
    assert np.isfinite(value[last : last + 73]).all()
    assert np.isnan(value[last + 73 :]).all()
