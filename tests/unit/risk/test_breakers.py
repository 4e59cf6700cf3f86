"""Breakers open on faults, let one entry try after a quiet time, and close again; ticks, costs and rejects that trip them."""

from __future__ import annotations

import math
from decimal import Decimal

import numpy as np
import pytest

from cryptoalpha.core.time import DAY, HOUR, MINUTE, SECOND
from cryptoalpha.risk.breakers import Breakers, CircuitBreaker
from cryptoalpha.risk.config import BreakerConfig
from cryptoalpha.risk.order_limits import EntryRate, worst_price
from cryptoalpha.risk.slippage import SlippageMonitor, threshold
from cryptoalpha.risk.tick_filter import TickFilter

X = ("X",)


def test_a_breaker_opens_waits_tries_and_closes():
    breaker = CircuitBreaker("venue", 10)
    assert breaker.tick(5) is None
    assert (breaker.fault(5, "why").state, breaker.allows_entry, breaker.message) == ("open", False, "why")
    assert breaker.fault(9, "again") is None  # quiet counts from the last fault
    assert breaker.tick(18) is None
    assert breaker.success(18) is None  # nothing was tried
    assert (breaker.tick(19).state, breaker.allows_entry) == ("half_open", True)
    breaker.entered()
    assert not breaker.allows_entry
    assert (breaker.success(20).state, breaker.allows_entry) == ("closed", True)


def test_a_fault_while_trying_opens_it_again_and_quiet_closes_it():
    breaker = CircuitBreaker("venue", 10)
    breaker.fault(0, "why")
    breaker.tick(10)
    assert breaker.fault(11, "once more").state == "open"
    assert breaker.tick(21).state == "half_open"
    assert breaker.tick(30) is None
    assert breaker.tick(31).state == "closed"
    assert breaker.over(32, "") is None


def states(breakers, at):
    return [(event.rule, event.instrument, event.state) for event in breakers.tick(at)]


def test_so_many_refusals_within_a_minute_pause_entries():
    breakers = Breakers(BreakerConfig(rejects=5, quiet_minutes=60.0))
    for second in (0, 20, 30, 40, 60):  # five in a minute and no less
        breakers.note_reject(second * SECOND)
    assert states(breakers, MINUTE) == []
    breakers.note_reject(61 * SECOND)
    assert states(breakers, 62 * SECOND) == [("venue", "", "open")]
    assert breakers.block("X")[0] == "venue"
    assert not breakers.is_quiet
    assert states(breakers, 61 * SECOND + HOUR) == [("venue", "", "half_open")]
    assert breakers.block("X") is None
    breakers.entered()
    assert breakers.block("X")[0] == "venue"
    breakers.note_fill(2 * HOUR, 0.001, 0.001)
    assert states(breakers, 2 * HOUR) == [("venue", "", "closed")]
    assert breakers.is_quiet


def test_model_output_that_cannot_be_used_stops_entries_until_it_can():
    breakers = Breakers(BreakerConfig(quiet_minutes=60.0))
    breakers.note_output(0, "agent wants nan of X")
    assert states(breakers, 0) == [("model_output", "", "open")]
    breakers.note_output(MINUTE, "")
    assert states(breakers, MINUTE) == []
    assert states(breakers, HOUR) == [("model_output", "", "half_open")]
    breakers.note_output(HOUR, "")
    assert states(breakers, HOUR) == [("model_output", "", "closed")]


# ticks


def bars(prices, config=None):
    """What the breakers say of each bar of X, and what the memory is shown."""
    breakers, said, shown = Breakers(config or BreakerConfig()), [], []
    for hour, price in enumerate(prices):
        odd = breakers.ticks.observe(X, [price])
        close = breakers.take_in(hour * HOUR, X, [price], odd) if odd else [price]
        said.append([(event.rule, event.state) for event in breakers.tick(hour * HOUR)])
        shown.append(close[0])
    return said, shown, breakers


CALM = [100.0 * (1.0 + 0.001 * (-1) ** (i // 2)) for i in range(200)]


def test_a_spike_is_not_believed_and_not_remembered():
    said, shown, breakers = bars([*CALM, 140.0, 100.0, 100.1])
    assert said[:200] == [[]] * 200
    assert said[200:] == [[("bad_tick", "open")], [("bad_tick", "closed")], []]
    assert math.isnan(shown[200])
    assert shown[201:] == [100.0, 100.1]
    assert breakers.block("X") is None


def test_a_move_that_the_next_bar_confirms_is_real():
    said, shown, _ = bars([*CALM, 140.0, 140.05, 140.0])
    assert said[200:] == [[("bad_tick", "open")], [("bad_tick", "closed")], []]
    assert shown[201:] == [140.05, 140.0]


def test_two_errors_in_a_row_that_disagree_are_both_kept_out():
    said, shown, breakers = bars([*CALM, 140.0, 60.0])
    assert said[200:] == [[("bad_tick", "open")], []]
    assert all(math.isnan(price) for price in shown[200:])
    assert breakers.block("X")[0] == "bad_tick"
    assert breakers.block("Y") is None


def test_with_little_history_only_a_jump_counts():
    said, _, _ = bars([100.0, 149.0, 100.0, 151.0])
    assert said == [[], [], [], [("bad_tick", "open")]]


def test_three_missing_bars_are_a_stale_feed_until_one_comes():
    said, _, breakers = bars([100.0, math.nan, math.nan, 100.0, math.nan, math.nan, math.nan])
    assert said[:6] == [[]] * 6
    assert said[6] == [("stale_feed", "open")]
    assert breakers.block("X")[0] == "stale_feed"
    said, _, breakers = bars([100.0, math.nan, math.nan, math.nan, math.nan, 101.0, 101.0])
    assert said[3:] == [[("stale_feed", "open")], [], [("stale_feed", "closed")], []]
    assert breakers.is_quiet


def test_a_move_over_a_gap_may_be_larger():
    bound = TickFilter(10.0, 0.5)
    for price in CALM:
        bound.observe(X, [price])
    low, high = bound._bounds(bound._rows[0])
    jump = CALM[-1] * (1.0 + 1.5 * high)
    assert bound.observe(X, [math.nan]) == bound.observe(X, [math.nan]) == {}
    assert bound.observe(X, [jump]) == {}
    assert bound.observe(X, [jump * (1.0 + 1.5 * high)])[0][0] == "bad_tick"
    assert low < 0.0 < high


def test_false_alarms_of_fat_tailed_minutes_are_rare():
    rng = np.random.default_rng(4)
    moves = rng.standard_t(4, 100_000) * 0.001
    ticks = TickFilter(10.0, 0.5)
    alarms = sum(bool(ticks.observe(X, [price])) for price in (100.0 * np.exp(np.cumsum(moves))).tolist())
    # P(|t4| > 10 · 1.4826 · 0.741) = P(|t4| > 10.98) = 3.9e-4; each alarm is told twice, open and closed
    assert 40 < alarms < 160


# costs


@pytest.mark.parametrize("run_length", [50.0, 365.0, 3650.0])
def test_the_threshold_solves_siegmunds_formula(run_length):
    b = threshold(run_length) + 1.166
    assert (math.exp(b) - b - 1.0) / 0.5 == pytest.approx(run_length)


def test_fills_that_cost_what_they_should_alarm_as_rarely_as_stated():
    rng, lengths = np.random.default_rng(2), []
    for _ in range(60):
        monitor = SlippageMonitor(200.0)
        for fill in range(4_000):
            if monitor.update(fill * DAY, float(rng.normal(0.0, 1e-3))):
                break
        lengths.append(fill)
    assert 0.6 * 200 < np.mean(lengths) < 1.8 * 200  # 60 runs: a standard error of 13 %; 20 fills come first


def test_fills_that_cost_more_are_noticed_soon_and_cheaper_ones_never():
    rng = np.random.default_rng(3)
    dear, cheap = SlippageMonitor(365.0), SlippageMonitor(365.0)
    for fill in range(100):
        usual = float(rng.normal(0.0, 1e-3))
        dear.update(fill * DAY, usual)
    found = next(fill for fill in range(100) if dear.update((100 + fill) * DAY, float(rng.normal(2e-3, 1e-3))))
    assert found < 12
    assert not any(cheap.update(fill * DAY, float(rng.normal(-5e-4, 1e-3))) for fill in range(2_000))
    assert dear.update(0, math.nan) == ""


def test_costs_beyond_the_model_stop_entries():
    breakers = Breakers(BreakerConfig())
    for fill in range(40):
        breakers.note_fill(fill * HOUR, 0.001 + 1e-4 * (-1) ** fill, 0.001)
    assert states(breakers, 40 * HOUR) == []
    for fill in range(40, 60):
        breakers.note_fill(fill * HOUR, 0.01, 0.001)
    assert states(breakers, 60 * HOUR)[0] == ("slippage", "", "open")


# single orders


def test_the_hour_holds_so_many_entries():
    rate = EntryRate(2)
    rate.count(0)
    assert not rate.is_spent(1)
    rate.count(1)
    assert rate.is_spent(HOUR - 1)
    assert not rate.is_spent(HOUR)
    endless = EntryRate(None)
    endless.count(0)
    assert not endless.is_spent(0)


@pytest.mark.parametrize(
    ("price", "tick", "buy", "sell"),
    [
        (100.0, "0.01", "110.00", "90.00"),
        (100.05, "0.1", "110.0", "90.1"),  # 110.055 down, 90.045 up
        (100.05, "7", "105", "91"),  # 98 is the tick below it: 110.055 → 105, 90.045 → 91
        (0.5, "0.1", "0.6", "0.4"),  # a tenth is half a tick: at least one tick is left
        (0.05, "0.1", "0.1", None),
    ],
)
def test_the_worst_price_of_an_entry_lies_within_the_collar_on_the_venues_grid(price, tick, buy, sell):
    assert worst_price(price, 0.1, Decimal(tick), is_buy=True) == Decimal(buy)
    assert worst_price(price, 0.1, Decimal(tick), is_buy=False) == (sell if sell is None else Decimal(sell))
    assert worst_price(price, None, Decimal(tick), is_buy=True) is None
    assert worst_price(price, 1.0, Decimal(tick), is_buy=False) is None
