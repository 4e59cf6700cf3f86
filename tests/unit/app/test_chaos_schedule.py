"""What the schedules of `make chaos` aim at: every kill point and every fault, where each can strike."""

from __future__ import annotations

from collections import Counter

import numpy as np

from cryptoalpha.app.chaos.schedule import CANCEL_POINTS, draw_schedule, market_bars
from cryptoalpha.execution.fake_exchange.fault_schedule import WEIGHTS
from cryptoalpha.execution.live.points import Point

DRAWN = [draw_schedule(seed) for seed in range(320)]


def test_every_point_and_every_fault_is_aimed_at_often():
    first = Counter(schedule.kills[0].point for schedule in DRAWN)
    faults = Counter(strike.fault.action for schedule in DRAWN for strike in schedule.strikes)
    assert min(first[point] for point in Point) >= 20
    assert min(faults[action] for action in WEIGHTS) >= 8


def test_where_cancels_are_aimed_at_orders_are_left_to_cancel():
    """Entries that are given up at once, in a market that has enough for all, leave nothing to cancel."""
    for schedule in DRAWN:
        of_cancels = [strike for strike in schedule.strikes if strike.fault.action in ("cancel_race", "late_fill")]
        if of_cancels or schedule.kills[0].point in CANCEL_POINTS:
            assert (schedule.thin, schedule.waits, schedule.change) == (True, True, 1.0)
        assert all((strike.bar, strike.fault.nth) == (0, 1) for strike in of_cancels)
        volume = market_bars(schedule)[:, 0, 4]
        assert np.all(volume[schedule.quiet_from :] > 5.0)
        if schedule.waits:
            assert volume[: schedule.quiet_from].max() <= 4.0
            assert volume[schedule.quiet_from :].min() >= 5_000.0


def test_the_same_seed_is_the_same_schedule():
    assert draw_schedule(17) == DRAWN[17]
    assert DRAWN[17] != DRAWN[18]
