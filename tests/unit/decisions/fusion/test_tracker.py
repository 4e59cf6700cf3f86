"""The performance tracker: verdicts only when a stretch has closed, and the figures that a pencil gives."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.seeds import stream
from cryptoalpha.core.time import DAY, DAYS_PER_YEAR, HOUR
from cryptoalpha.core.values import FusedSignal, MarketState
from cryptoalpha.decisions.fusion.tracker import Tracker

VOLATILITY = 0.8


def state(t, price, name="A"):
    return MarketState(happened_at=(t - 1) * HOUR, known_at=t * HOUR, instrument=name, price=price, volatility=VOLATILITY)


def said(t, direction, *, move=None, horizon=0, name="A"):
    return FusedSignal(
        happened_at=(t - 1) * HOUR, known_at=t * HOUR, instrument=name, sentiment=0.0, direction=direction, volatility=VOLATILITY,
        confidence=0.5, urgency=0.1, weights=(), expected_move=move, horizon=horizon,
    )  # fmt: skip


def tracker(**given):
    return Tracker(**({"book_size": 2, "interval": HOUR, "horizon_bars": 6} | given))


def test_a_decision_is_judged_at_the_end_of_its_stretch_and_not_a_bar_earlier():
    tracked = tracker()
    tracked.observe(HOUR, [state(1, 100.0)], [said(1, 0.5, move=0.2, horizon=6 * HOUR)])
    for t in range(2, 27):
        tracked.observe(t * HOUR, [state(t, 101.0)], [])
        found = tracked.figures()
        assert found["horizon"].judged == (t >= 7)
        assert found["day"].judged == (t >= 25)
    outcome = math.log(1.01) / (VOLATILITY * math.sqrt(6 * HOUR / (DAYS_PER_YEAR * DAY)))
    assert found["horizon"].hit_rate == 1.0
    assert found["horizon"].log_score == pytest.approx(0.5 * (outcome**2 - (outcome - 0.2) ** 2))
    assert math.isnan(found["day"].log_score)  # the move was expected over six hours, not over a day


def test_figures_are_those_of_numpy_over_all_verdicts():
    random, tracked = stream(0, "tracker"), tracker(half_life_bars=1e12)
    prices = 100.0 * np.exp(np.cumsum(0.01 * random.normal(size=(300, 2)), axis=0))
    directions, moves = random.uniform(-1.0, 1.0, size=(300, 2)), random.normal(scale=0.2, size=(300, 2))
    for t in range(300):
        states = [state(t, float(prices[t, i]), name) for i, name in enumerate("AB")]
        fused = [said(t, float(directions[t, i]), move=float(moves[t, i]), horizon=6 * HOUR, name=name) for i, name in enumerate("AB")]
        tracked.observe(t * HOUR, states, fused)
    scale = VOLATILITY * math.sqrt(6 * HOUR / (DAYS_PER_YEAR * DAY))
    outcomes = np.clip(np.log(prices[6:] / prices[:-6]) / scale, -4.0, 4.0)
    found = tracked.figures()["horizon"]
    assert found.judged == outcomes.size
    assert found.hit_rate == pytest.approx((np.sign(outcomes) == np.sign(directions[:-6])).mean())
    assert found.ic == pytest.approx(np.corrcoef(directions[:-6].ravel(), outcomes.ravel())[0, 1])
    assert found.log_score == pytest.approx((0.5 * (outcomes**2 - (outcomes - moves[:-6]) ** 2)).mean())


def test_a_foresight_of_what_comes_is_told_from_noise():
    random = stream(1, "tracker")
    steps = 0.01 * random.normal(size=600)
    prices = 100.0 * np.exp(np.concatenate([[0.0], np.cumsum(steps)]))
    tracked = tracker()
    for t in range(590):
        tracked.observe(t * HOUR, [state(t, float(prices[t]))], [said(t, 0.5 if prices[t + 6] > prices[t] else -0.5, horizon=6 * HOUR)])
    assert tracked.figures()["horizon"].hit_rate == 1.0
    assert tracked.figures()["horizon"].ic > 0.7
    assert abs(tracked.figures()["day"].ic) < 0.7


def test_a_decision_that_closes_in_a_gap_of_prices_gets_no_verdict():
    tracked = tracker()
    tracked.observe(HOUR, [state(1, 100.0)], [said(1, 0.5, horizon=2 * HOUR)])
    tracked.observe(3 * HOUR, [state(3, 5.0, "B")], [])
    tracked.observe(4 * HOUR, [state(4, 100.0)], [])
    assert tracked.figures()["horizon"].judged == 0
    tracked.observe(5 * HOUR, [state(5, 100.0)], [said(5, 0.5, horizon=2 * HOUR)])
    tracked.observe(20 * HOUR, [state(20, 120.0)], [])  # all of the book was away at 7
    assert tracked.figures()["horizon"].judged == 0
    assert math.isnan(tracked.figures()["horizon"].hit_rate)


def test_old_verdicts_are_forgotten_and_a_full_queue_says_so():
    tracked = tracker(half_life_bars=5.0)
    price = 100.0
    for t in range(80):
        price *= 1.01 if t < 40 else 0.99
        tracked.observe(t * HOUR, [state(t, price)], [said(t, 0.5, horizon=HOUR)])
    assert tracked.figures()["horizon"].hit_rate < 0.01
    with pytest.raises(ConfigError):
        tracker(half_life_bars=0.0)
    crowded = Tracker(book_size=1, interval=DAY, horizon_bars=1)
    with pytest.raises(ConfigError):
        crowded.observe(HOUR, [state(1, 100.0, name) for name in "ABCD"], [said(1, 0.1, name=name) for name in "ABCD"])
