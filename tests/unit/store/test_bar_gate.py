"""The bar gate: each fault planted once, found once, and treated as its policy says."""

from __future__ import annotations

import time
from dataclasses import replace

import duckdb
import numpy as np
import pytest
from pydantic import ValidationError

from cryptoalpha.core.errors import BarGateError
from cryptoalpha.core.time import DAY, HOUR, iso, parse_time
from cryptoalpha.store.bar_gate import BarGate, bars_sha256
from cryptoalpha.store.config import BarGateConfig
from cryptoalpha.store.tables import BarTable

START = parse_time("2022-01-03")  # a Monday
LATER = parse_time("2030-01-01")


def bars(n: int = 60, *, interval: int = HOUR, start: int = START) -> BarTable:
    """Calm bars: close 100, range 1 %, volume 10."""
    return BarTable(
        instrument="BTC/USDT",
        interval=interval,
        open_time=start + interval * np.arange(n),
        open=np.full(n, 100.0),
        high=np.full(n, 100.5),
        low=np.full(n, 99.5),
        close=np.full(n, 100.0),
        volume=np.full(n, 10.0),
        taker_buy_volume=np.full(n, 4.0),
    )


def planted(at: int, n: int = 60, **values: float) -> BarTable:
    """Calm bars with some fields of one bar changed."""
    table = bars(n)
    columns = {}
    for name, value in values.items():
        column = getattr(table, name).copy()
        column[at] = value
        columns[name] = column
    return replace(table, **columns)


def opens(at: int) -> int:
    return START + at * HOUR


def test_clean_bars_pass_as_they_came():
    table = bars()
    accepted, report = BarGate().check(table, now=LATER)
    assert len(accepted) == 60
    assert report.is_clean
    assert report.findings == ()
    assert report.accepted_sha256 == bars_sha256(table)
    assert report.lines() == ["BTC/USDT 1h: 60 of 60 bars accepted, 2022-01-03T00:00:00Z to 2022-01-05T11:00:00Z"]


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"close": np.nan}, "impossible_value"),
        ({"open": np.inf}, "impossible_value"),
        ({"low": 0.0}, "impossible_value"),
        ({"high": -1.0}, "impossible_value"),
        ({"volume": -1.0}, "impossible_value"),
        ({"volume": np.nan}, "impossible_value"),
        ({"high": 99.0}, "impossible_range"),
        ({"low": 100.2}, "impossible_range"),
        ({"high": 99.8, "low": 99.9}, "impossible_range"),
        ({"open": 101.0}, "impossible_range"),
    ],
)
def test_impossible_bars_are_dropped_and_reported_or_refused(values, fault):
    table = planted(30, **values)
    accepted, report = BarGate().check(table, now=LATER)
    assert opens(30) not in accepted.open_time
    assert len(accepted) == 59
    assert report.times(fault) == (opens(30),)
    assert report.count("gap") == 1  # what was dropped is absent, and says so
    assert not report.is_clean
    with pytest.raises(BarGateError, match=f"1 × {fault}") as caught:
        BarGate(BarGateConfig.strict()).check(table, now=LATER)
    assert fault in caught.value.hint


def test_equal_duplicates_leave_one_and_differing_ones_none():
    table = bars(10)
    twice = table.take(np.array([0, 1, 1, 2, 3, 3, 3, 4, 5]))
    close = twice.close.copy()
    close[5] = 100.1  # the second of three copies of bar 3
    accepted, report = BarGate().check(replace(twice, close=close), now=LATER)
    assert list(accepted.open_time) == [opens(i) for i in (0, 1, 2, 4, 5)]
    assert report.times("duplicate") == (opens(1),)
    assert report.times("conflicting_duplicate") == (opens(3),) * 3
    with pytest.raises(BarGateError, match=r"1 × duplicate .*; 3 × conflicting_duplicate"):
        BarGate(BarGateConfig.strict()).check(replace(twice, close=close), now=LATER)


def test_duplicates_without_taker_volume_are_equal():
    table = replace(bars(3), taker_buy_volume=np.full(3, np.nan)).take(np.array([0, 1, 1, 2]))
    accepted, report = BarGate().check(table, now=LATER)
    assert len(accepted) == 3
    assert report.count("duplicate") == 1


def test_unsorted_bars_are_sorted_and_keep_the_rows_they_came_from():
    table = bars(5).take(np.array([0, 3, 1, 2, 4]))
    accepted, report = BarGate().check(table, now=LATER)
    assert list(accepted.open_time) == [opens(i) for i in range(5)]
    assert list(accepted.row) == [0, 1, 2, 3, 4]
    assert report.times("unsorted") == (opens(1), opens(2))
    with pytest.raises(BarGateError, match="2 × unsorted"):
        BarGate(BarGateConfig.strict()).check(table, now=LATER)


def test_gaps_are_counted_never_filled():
    accepted, report = BarGate().check(bars(10).take(np.array([0, 1, 4, 5, 7, 8, 9])), now=LATER)
    assert len(accepted) == 7
    assert report.count("gap") == 3
    assert report.times("gap") == (opens(2), opens(6))
    assert report.longest_gap == 2
    assert report.is_clean
    BarGate(BarGateConfig.strict()).check(bars(10).take(np.array([0, 2])), now=LATER)  # outages are the market's own
    with pytest.raises(BarGateError, match="1 × gap"):
        BarGate(BarGateConfig(gap="refuse")).check(bars(10).take(np.array([0, 2])), now=LATER)


def test_a_bar_counts_from_the_moment_it_has_closed():
    table = bars(10)
    gate = BarGate()
    accepted, report = gate.check(table, now=opens(10) - 1)
    assert len(accepted) == 9
    assert report.times("open_bar") == (opens(9),)
    assert len(gate.check(table, now=opens(10))[0]) == 10
    accepted, report = gate.check(table, now=opens(7))
    assert len(accepted) == 7
    assert report.times("open_bar") == (opens(7),)
    assert report.times("future") == (opens(8), opens(9))


def test_bars_off_the_grid_are_dropped_and_weeks_open_on_monday():
    table = bars(10)
    times = table.open_time.copy()
    times[4] += 1
    accepted, report = BarGate().check(replace(table, open_time=times, known_at=times + HOUR), now=LATER)
    assert report.times("off_grid") == (opens(4) + 1,)
    assert len(accepted) == 9
    assert len(BarGate().check(bars(5, interval=7 * DAY), now=LATER)[0]) == 5
    assert len(BarGate().check(bars(5, interval=7 * DAY, start=START + DAY), now=LATER)[0]) == 0


def test_a_bar_cannot_be_known_before_it_closes():
    table = bars(4)
    known = table.known_at.copy()
    known[1] = table.open_time[1]  # the classic: a bar stamped by its open
    known[2] += 5  # a venue's lag is kept
    accepted, report = BarGate().check(replace(table, known_at=known), now=LATER)
    assert list(accepted.known_at) == [opens(1), opens(2), opens(3) + 5, opens(4)]
    assert report.times("known_too_early") == (opens(1),)


def test_a_wick_to_nowhere_is_clipped_to_five_typical_ranges_beyond_the_body():
    table = planted(40, open=101.0, high=101.2, low=0.0001, close=99.0)
    accepted, report = BarGate().check(table, now=LATER)
    typical = np.log(100.5 / 99.5)
    assert accepted.low[40] == pytest.approx(99.0 * np.exp(-5 * typical), rel=1e-12)
    assert accepted.high[40] == 101.2
    assert report.times("bad_wick") == (opens(40),)
    assert "low 0.0001" in report.lines()[1]
    assert len(accepted) == 60


def test_a_spike_upwards_is_clipped_and_a_deep_but_possible_wick_stays():
    accepted, report = BarGate().check(planted(40, high=320.0), now=LATER)
    assert accepted.high[40] == pytest.approx(100.0 * np.exp(5 * np.log(100.5 / 99.5)), rel=1e-12)
    accepted, report = BarGate().check(planted(40, low=55.0), now=LATER)
    assert accepted.low[40] == 55.0
    assert report.is_clean


def test_a_bad_wick_in_the_first_bar_is_cut_to_its_body():
    accepted, _ = BarGate().check(planted(0, low=1.0), now=LATER)
    assert accepted.low[0] == 100.0


def test_a_bad_wick_may_be_left_or_refused():
    table = planted(40, low=1.0)
    accepted, report = BarGate(BarGateConfig(bad_wick="report")).check(table, now=LATER)
    assert accepted.low[40] == 1.0
    assert report.count("bad_wick") == 1
    with pytest.raises(BarGateError, match="1 × bad_wick"):
        BarGate(BarGateConfig(bad_wick="refuse")).check(table, now=LATER)


def test_a_close_that_jumps_and_reverts_is_quarantined():
    table = planted(40, high=1000.0, close=1000.0)
    accepted, report = BarGate().check(table, now=LATER)
    assert opens(40) not in accepted.open_time
    assert len(accepted) == 59
    assert report.times("jump") == (opens(40),)
    assert "close 100 → 1000" in report.lines()[1]


def test_a_new_level_is_believed_from_its_second_bar():
    table = bars(60)
    higher = np.where(np.arange(60) >= 40, 3.0, 1.0)
    moved = replace(table, **{name: getattr(table, name) * higher for name in ("open", "high", "low", "close")})
    accepted, report = BarGate().check(moved, now=LATER)
    assert report.times("jump") == (opens(40),)
    assert opens(41) in accepted.open_time


def test_a_second_wild_print_right_after_the_first_is_quarantined_too():
    table = planted(40, high=1000.0, close=1000.0)
    close, high = table.close.copy(), table.high.copy()
    close[41] = high[41] = 9000.0
    _, report = BarGate().check(replace(table, close=close, high=high), now=LATER)
    assert report.times("jump") == (opens(40), opens(41))


def test_a_jump_on_heavy_volume_is_believed_at_once_but_not_without_history():
    table = planted(40, high=180.0, close=180.0, volume=30.0)
    accepted, report = BarGate().check(table, now=LATER)
    assert opens(40) in accepted.open_time
    assert report.times("jump") == (opens(41),)  # it fell back without volume, and the next bar confirmed that
    assert opens(42) in accepted.open_time
    early = planted(10, high=180.0, close=180.0, volume=3000.0)
    assert BarGate().check(early, now=LATER)[1].times("jump") == (opens(10),)


def test_a_jump_may_be_left_as_it_is():
    accepted, report = BarGate(BarGateConfig(jump="report")).check(planted(40, high=1000.0, close=1000.0), now=LATER)
    assert len(accepted) == 60
    assert report.count("jump") == 1


@pytest.mark.parametrize("value", [-1.0, np.inf, 10.1])
def test_impossible_taker_volume_becomes_unknown(value):
    accepted, report = BarGate().check(planted(7, taker_buy_volume=value), now=LATER)
    assert np.isnan(accepted.taker_buy_volume[7])
    assert accepted.volume[7] == 10.0
    assert report.times("taker_volume") == (opens(7),)


def test_quiet_bars_are_kept_and_a_series_without_any_volume_is_called_an_index():
    accepted, report = BarGate().check(planted(7, volume=0.0, taker_buy_volume=0.0), now=LATER)
    assert len(accepted) == 60
    assert report.times("zero_volume") == (opens(7),)
    assert report.is_clean
    assert not report.volume_is_all_zero
    _, report = BarGate().check(replace(bars(60), volume=np.zeros(60), taker_buy_volume=np.zeros(60)), now=LATER)
    assert report.volume_is_all_zero
    assert "index or mark prices" in report.lines()[-1]


def test_no_bars_and_one_bar():
    accepted, report = BarGate().check(bars(0), now=LATER)
    assert len(accepted) == 0
    assert report.first is None
    assert report.lines() == ["BTC/USDT 1h: 0 of 0 bars accepted"]
    assert len(BarGate().check(bars(1), now=LATER)[0]) == 1
    assert len(BarGate().check(planted(0, 1, close=np.nan), now=LATER)[0]) == 0


def test_the_report_for_programs_holds_counts_actions_and_a_few_examples():
    table = planted(30, close=np.nan)
    close = table.close.copy()
    close[40:50] = np.nan
    _, report = BarGate(BarGateConfig(examples=2)).check(replace(table, close=close), now=LATER)
    told = report.to_dict()
    assert told["rows_in"] == 60
    assert told["rows_out"] == 49
    assert told["first"] == "2022-01-03T00:00:00Z"
    faults = told["faults"]
    assert isinstance(faults, dict)
    assert faults["impossible_value"]["count"] == 11
    assert faults["impossible_value"]["action"] == "dropped"
    assert len(faults["impossible_value"]["examples"]) == 2
    assert "and 9 more" in report.lines()[1]


def test_the_hash_is_of_what_the_bars_say_not_of_where_they_lay():
    table = bars(5)
    moved = replace(table, row=table.row + 7, partition=np.full(5, "a" * 16))
    assert bars_sha256(moved) == bars_sha256(table)
    assert bars_sha256(planted(2, 5, close=100.1)) != bars_sha256(table)


def test_a_policy_that_would_let_the_impossible_through_cannot_be_configured():
    with pytest.raises(ValidationError):
        BarGateConfig(impossible_value="report")  # type: ignore[arg-type]


def test_eight_long_tables_take_well_under_a_second():
    table = bars(55_000)
    started = time.process_time()
    for _ in range(8):
        BarGate().check(table, now=LATER)
    assert time.process_time() - started < 1.0


def test_real_history_has_two_misprints_and_keeps_its_real_jumps(market_data):
    found = {}
    for folder, name in (("price_1h", "LINKUSDT"), ("price_1h", "DOGEUSDT"), ("price_1h", "BTCUSDT"), ("perp_1h", "ETHUSDT")):
        path = market_data / folder / f"{name}.parquet"
        columns = duckdb.connect().execute(f"SELECT epoch_ns(ts) AS ts, open, high, low, close, volume FROM '{path}'").fetchnumpy()
        prices = [np.asarray(columns[field]) for field in ("open", "high", "low", "close", "volume")]
        accepted, report = BarGate().check(BarTable(name, HOUR, np.asarray(columns["ts"]), *prices), now=LATER)
        assert len(accepted) == report.rows_in
        assert report.count("jump") == 0
        found[name] = ([iso(moment) for moment in report.times("bad_wick")], report.count("gap"))
    assert found == {
        "LINKUSDT": (["2020-03-12T10:00:00Z"], 60),
        "DOGEUSDT": ([], 44),
        "BTCUSDT": ([], 128),
        "ETHUSDT": (["2020-03-13T02:00:00Z"], 0),
    }
