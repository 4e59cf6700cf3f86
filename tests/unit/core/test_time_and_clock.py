"""Times are UTC nanoseconds; anything that would have to be guessed is refused."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryptoalpha.core.clock import SystemClock, VirtualClock
from cryptoalpha.core.errors import ConfigError, LookAheadError
from cryptoalpha.core.time import (
    DAY,
    HOUR,
    MINUTE,
    SECOND,
    day_of,
    from_datetime,
    grid_anchor,
    interval_name,
    iso,
    parse_interval,
    parse_time,
)


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [("1s", SECOND), ("15m", 15 * MINUTE), ("1h", HOUR), ("4h", 4 * HOUR), ("1d", DAY), ("2w", 14 * DAY)],
)
def test_intervals_are_a_count_and_a_unit(text, nanoseconds):
    assert parse_interval(text) == nanoseconds


@pytest.mark.parametrize("text", ["", "h", "0h", "01h", "-1h", "1.5h", "1M", "1 h", "60"])
def test_other_intervals_are_refused_with_an_example(text):
    with pytest.raises(ConfigError, match="is not a bar length") as caught:
        parse_interval(text)
    assert "1h" in caught.value.hint


@pytest.mark.parametrize(("nanoseconds", "name"), [(HOUR, "1h"), (90 * MINUTE, "90m"), (DAY, "1d"), (7 * DAY, "7d"), (61 * SECOND, "61s")])
def test_interval_names_are_the_shortest_exact_ones(nanoseconds, name):
    assert interval_name(nanoseconds) == name
    assert parse_interval(name) == nanoseconds


def test_an_interval_below_a_second_has_no_name():
    with pytest.raises(ConfigError, match="not a whole number of seconds"):
        interval_name(SECOND + 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-02", DAY),
        ("1970-01-01T00:00:01", SECOND),
        ("1970-01-01T00:00:01Z", SECOND),
        ("1970-01-01T02:00:00+02:00", 0),
        ("1969-12-31T23:00", -HOUR),
        ("2021-11-05T04:00:00.000001", 1_636_084_800_000_001_000),
    ],
)
def test_iso_times_are_utc_unless_they_say_otherwise(text, expected):
    assert parse_time(text) == expected


@pytest.mark.parametrize("text", ["", "yesterday", "2021-13-01", "05/11/2021", "2021-11-05T25:00"])
def test_what_is_no_date_is_refused(text):
    with pytest.raises(ConfigError, match="is not a date"):
        parse_time(text)


def test_a_naive_datetime_is_refused():
    with pytest.raises(ConfigError, match="has no time zone"):
        from_datetime(datetime(2021, 11, 5))
    there = datetime(2021, 11, 5, 6, tzinfo=timezone(timedelta(hours=2)))
    assert from_datetime(there) == from_datetime(datetime(2021, 11, 5, 4, tzinfo=UTC))


@given(st.integers(-(10**18), 4 * 10**18))
def test_iso_and_parse_are_inverse_down_to_the_microsecond(nanoseconds):
    whole = nanoseconds // 1000 * 1000
    assert parse_time(iso(whole)) == whole


def test_iso_shows_fractions_only_where_there_are_any():
    assert iso(0) == "1970-01-01T00:00:00Z"
    assert iso(1_500_000_000) == "1970-01-01T00:00:01.5Z"
    assert iso(1) == "1970-01-01T00:00:00.000000001Z"
    assert day_of(parse_time("2021-11-05T23:59")) == "2021-11-05"


def test_weeks_open_on_monday_everything_else_at_the_epoch():
    assert grid_anchor(HOUR) == grid_anchor(DAY) == 0
    assert datetime.fromtimestamp(grid_anchor(7 * DAY) // SECOND, UTC).strftime("%A") == "Monday"


def test_a_virtual_clock_only_moves_forward():
    clock = VirtualClock(start=HOUR)
    clock.advance_to(HOUR)
    clock.advance_to(2 * HOUR)
    assert clock.now() == 2 * HOUR
    with pytest.raises(LookAheadError, match="reads 1970-01-01T02:00:00Z and was asked to go back to 1970-01-01T01:00:00Z"):
        clock.advance_to(HOUR)
    assert clock.now() == 2 * HOUR


def test_the_system_clock_is_the_machine_s():
    before = time.time_ns()
    assert before <= SystemClock().now() <= time.time_ns()
