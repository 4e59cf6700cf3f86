"""The drawdown ladder by hand, and against the simulated chances that its rungs were chosen by."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cryptoalpha.core.time import DAY, HOUR
from cryptoalpha.risk.config import BreakerConfig, LadderConfig
from cryptoalpha.risk.daily_loss import DailyLoss
from cryptoalpha.risk.ladder import DrawdownLadder, regime_exposure

TARGET = 0.15
"""Annual volatility of the simulated book; `max_drawdown` is 1.5 times that, so the rungs lie at 0.5, 0.75 and 1.0 of it."""


def ladder(**changes):
    return DrawdownLadder(LadderConfig(**changes), 0.3)


def test_down_at_once_and_up_one_rung_at_a_time():
    rungs = ladder()
    assert rungs.depths == pytest.approx((0.1, 0.15, 0.2))
    assert rungs.update(1, 0.0999) is None
    event = rungs.update(2, 0.16)
    assert (event.rule, event.state, rungs.exposure) == ("drawdown_ladder", "2", 0.5)
    # a rung is left 0.02 above it and a day after it was reached
    assert rungs.update(DAY, 0.0) is None
    assert rungs.update(3 * DAY, 0.131) is None
    assert rungs.update(3 * DAY + 1, 0.0).state == "1"
    assert rungs.update(3 * DAY + 2, 0.0) is None
    assert rungs.update(4 * DAY + 1, 0.0).state == "0"
    assert (rungs.exposure, rungs.update(9 * DAY, 0.0)) == (1.0, None)
    assert rungs.update(10 * DAY, 0.9).state == "3"
    assert rungs.exposure == 0.25
    assert rungs.restart(11 * DAY).state == "0"
    assert rungs.restart(12 * DAY) is None


def test_at_the_edge_of_a_rung_nothing_flutters():
    rungs = ladder()
    changes = [rungs.update(hour * HOUR, 0.1 + 0.005 * (-1) ** hour) for hour in range(500)]
    assert sum(change is not None for change in changes) == 1


def test_without_rungs_everything_is_left():
    assert ladder(rungs=()).exposure == 1.0


def test_regimes_are_weighed_by_belief():
    assert regime_exposure((0.1, 0.2, 0.0, 0.3, 0.4, 0.0), LadderConfig().regime_exposure) == pytest.approx(0.675)  # .075 + .05 + .15 + .4
    exposures = (1.0, 0.5, 0.25)
    assert regime_exposure((0.5, 0.25, 0.25), exposures) == pytest.approx(0.6875)
    assert regime_exposure((), exposures) == regime_exposure((0.5, 0.5), exposures) == 1.0
    assert regime_exposure((1.0 + 1e-12, 0.0, 0.0), exposures) == 1.0
    assert regime_exposure((math.nan, 0.5, 0.5), exposures) == 0.25


# a year of many books at once: the ladder's rule on arrays, tied to the real one below


def simulate(sharpe, paths, seed, *, active=True, config=LadderConfig(), days=365):  # noqa: B008  (frozen)
    """Rung reached at most in a year, `[paths]` (4: `max_drawdown`), for iid Student-t days with 4 degrees of freedom."""
    rng = np.random.default_rng(seed)
    rungs = DrawdownLadder(config, 1.5 * TARGET)
    depths = np.array([*rungs.depths, 1.5 * TARGET])
    left = np.array([1.0, 0.75, 0.5, 0.25, 0.0]) if active else np.ones(5)
    step = config.step_up_share * 1.5 * TARGET
    equity, peak, rung, worst = np.ones(paths), np.ones(paths), np.zeros(paths, int), np.zeros(paths, int)
    for _ in range(days):
        day = rng.standard_t(4, paths) / math.sqrt(2.0) * TARGET / math.sqrt(365) + sharpe * TARGET / 365
        equity = equity * (1.0 + left[rung] * day)
        peak = np.maximum(peak, equity)
        depth = 1.0 - equity / peak
        deeper = (depth[:, None] >= depths).sum(axis=1)
        up = (deeper <= rung) & (rung > 0) & (rung < 4) & (depth <= depths[rung - 1] - step)
        rung = np.where(rung == 4, 4, np.where(deeper > rung, deeper, rung - up))
        worst = np.maximum(worst, np.maximum(rung, deeper))
    return worst


def test_the_arrays_do_what_the_ladder_does():
    rng, rungs, days = np.random.default_rng(5), DrawdownLadder(LadderConfig(), 1.5 * TARGET), 365
    moves = rng.standard_t(4, (days, 1))[:, 0] / math.sqrt(2.0) * TARGET / math.sqrt(365)
    equity = peak = 1.0
    worst = 0
    for day, move in enumerate(moves, start=1):
        equity *= 1.0 + rungs.exposure * move
        peak = max(peak, equity)
        rungs.update(day * DAY, 1.0 - equity / peak)
        worst = max(worst, rungs.rung)
    assert worst == simulate(0.0, 1, 5)[0] >= 1


PUBLISHED = {0.0: (0.96, 0.74, 0.36, 0.001), 1.0: (0.86, 0.44, 0.12, 0.001), 2.0: (0.67, 0.21, 0.03, 0.001)}
"""Chance to touch each rung and the limit within a year, by Sharpe ratio, of a ladder that is climbed as soon as equity is above a rung."""

OURS = {0.0: (0.96, 0.72, 0.32, 0.001), 1.0: (0.86, 0.43, 0.10, 0.001), 2.0: (0.67, 0.20, 0.03, 0.001)}
"""The same where one waits for the step, `simulate` with 20,000 paths. Deeper rungs are touched less, because less is at stake."""

WITHOUT = {0.0: 0.166, 1.0: 0.034, 2.0: 0.006}
"""Chance to touch the limit without a ladder, published."""

AT_ONCE = LadderConfig(step_up_share=0.0, step_up_hours=0.0)


def within(found, expected, paths, digits):
    """Whether a share agrees with one that was rounded, four binomial deviations wide."""
    return abs(found - expected) <= 0.5 * 10.0**-digits + 4.0 * math.sqrt(max(expected, 1e-3) * (1.0 - expected) / paths)


def demand_table(paths):
    for sharpe, published in PUBLISHED.items():
        for config, expected in ((AT_ONCE, published), (LadderConfig(), OURS[sharpe])):
            worst = simulate(sharpe, paths, seed=int(sharpe), config=config)
            for rung, chance in enumerate(expected, start=1):
                found = np.mean(worst >= rung)
                assert within(found, chance, paths, 3 if rung == 4 else 2), (sharpe, rung, found)
        bare = simulate(sharpe, paths, seed=10 + int(sharpe), active=False)
        assert within(np.mean(bare == 4), WITHOUT[sharpe], paths, 3), (sharpe, np.mean(bare == 4))


def test_the_chances_the_rungs_were_chosen_by():
    demand_table(4_000)


@pytest.mark.slow
def test_the_chances_the_rungs_were_chosen_by_in_full():
    demand_table(20_000)


# the daily loss


def test_a_bad_day_ends_at_midnight():
    unit = 0.3 / math.sqrt(365)
    day = DailyLoss(BreakerConfig(), 0.3)
    assert (day.reduce, day.kill) == (pytest.approx(4 * unit), pytest.approx(8 * unit))
    assert day.update(DAY + HOUR, 100.0, math.nan) is None
    event = day.update(DAY + 2 * HOUR, 100.0 * (1 - 4.01 * unit), 100.0)
    assert (event.state, day.is_reduce_only, day.is_fatal) == ("reduce_only", True, False)
    assert day.update(DAY + 3 * HOUR, 100.0, 93.0) is None
    assert day.is_reduce_only  # recovered or not: until the day is over
    assert day.update(2 * DAY, 100.0, 100.0).state == "normal"
    assert not day.is_reduce_only


def test_the_day_starts_with_the_last_equity_known_before_it():
    unit = 0.3 / math.sqrt(365)
    day = DailyLoss(BreakerConfig(), 0.3)
    day.update(DAY + HOUR, 100.0, math.nan)
    # nothing was heard for hours over midnight: the gap belongs to the new day
    event = day.update(2 * DAY + 5 * HOUR, 100.0 * (1 - 5 * unit), 100.0)
    assert event.state == "reduce_only"
    # a bar known at midnight ends its own day, and may still be fatal
    other = DailyLoss(BreakerConfig(), 0.3)
    other.update(DAY, 100.0, math.nan)
    assert other.update(2 * DAY, 100.0 * (1 - 8.01 * unit), 100.0) is None
    assert other.is_fatal
    assert (other.start, other.loss, other.is_reduce_only) == (100.0 * (1 - 8.01 * unit), 0.0, False)
    other.update(2 * DAY + HOUR, 84.0, 84.0)
    assert not other.is_fatal


def test_without_a_target_or_a_limit_no_day_is_bad():
    for day in (DailyLoss(BreakerConfig(), None), DailyLoss(BreakerConfig(daily_loss_reduce=None, daily_loss_kill=None), 0.3)):
        day.update(DAY, 100.0, math.nan)
        assert day.update(DAY + 1, 1.0, 100.0) is None
        assert not day.is_fatal


def test_how_often_a_day_is_bad_on_fat_tailed_days():
    years = 400
    days = np.random.default_rng(1).standard_t(4, years * 365) / math.sqrt(2.0) * 0.3 / math.sqrt(365)
    guard, reduced, killed = DailyLoss(BreakerConfig(), 0.3), 0, 0
    for number, move in enumerate(days.tolist(), start=1):
        guard.update(number * DAY, 1.0, 1.0)
        event = guard.update(number * DAY + 12 * HOUR, 1.0 + move, 1.0)
        reduced += event is not None and event.state == "reduce_only"
        killed += guard.is_fatal
    # 0.88 and 0.06 a year; three Poisson deviations
    assert abs(reduced / years - 0.88) < 0.005 + 3 * math.sqrt(0.88 / years)
    assert abs(killed / years - 0.06) < 0.005 + 3 * math.sqrt(0.06 / years)
