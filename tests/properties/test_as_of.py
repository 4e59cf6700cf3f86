"""The as-of join, against DuckDB's `ASOF JOIN` and against the definition."""

from __future__ import annotations

import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from cryptoalpha.core.errors import DataError
from cryptoalpha.store.as_of import as_of_index, as_of_value

TIMES = st.lists(st.integers(-50, 50), max_size=30).map(lambda times: np.array(sorted(times), np.int64))
MOMENTS = st.lists(st.integers(-60, 60), max_size=30).map(lambda times: np.array(times, np.int64))


@settings(max_examples=50, deadline=None)
@given(known_at=TIMES.map(np.unique), at=MOMENTS)
def test_equals_duckdb_asof_join(known_at, at):
    rows = {"known_at": known_at, "value": np.arange(float(known_at.size))}
    moments = {"at": at, "place": np.arange(at.size)}
    connection = duckdb.connect()
    connection.register("rows", rows)
    connection.register("moments", moments)
    joined = connection.execute(
        "SELECT coalesce(value, -1) FROM moments ASOF LEFT JOIN rows ON moments.at >= rows.known_at ORDER BY place"
    ).fetchnumpy()
    connection.close()
    (expected,) = joined.values()
    assert_array_equal(as_of_index(known_at, at), np.asarray(expected, np.float64).astype(np.int64))


@settings(max_examples=50, deadline=None)
@given(known_at=TIMES, at=MOMENTS, max_age=st.none() | st.integers(0, 20))
def test_is_the_last_row_known_by_then_and_not_too_old(known_at, at, max_age):
    value = np.arange(float(known_at.size)) * 1.5
    expected = []
    for moment in at:
        known = [i for i in range(known_at.size) if known_at[i] <= moment]
        fresh = bool(known) and (max_age is None or moment - known_at[known[-1]] <= max_age)
        expected.append(value[known[-1]] if fresh else np.nan)
    assert_array_equal(as_of_value(known_at, value, at, max_age=max_age), np.array(expected))


@settings(max_examples=50, deadline=None)
@given(known_at=TIMES, at=MOMENTS, cut=st.integers(-60, 60))
def test_never_sees_a_row_known_later(known_at, at, cut):
    value = np.arange(float(known_at.size))
    early = at <= cut
    poisoned = np.where(known_at > cut, 1e9, value)
    assert_array_equal(as_of_value(known_at, poisoned, at)[early], as_of_value(known_at, value, at)[early])
    kept = known_at <= cut
    assert_array_equal(as_of_value(known_at[kept], value[kept], at)[early], as_of_value(known_at, value, at)[early])


def test_a_daily_reading_counts_from_when_it_was_published_not_from_its_day():
    day, hour = 86_400, 3_600
    known_at = np.array([day + hour, 2 * day + hour])  # rows of days 0 and 1, published an hour after each ended
    value = np.array([10.0, 11.0])
    moments = np.array([day, day + hour - 1, day + hour, 2 * day + hour])
    assert_array_equal(as_of_value(known_at, value, moments), [np.nan, np.nan, 10.0, 11.0])


def test_rows_out_of_order_are_refused():
    with pytest.raises(DataError, match="not in the order they became known"):
        as_of_index(np.array([2, 1]), np.array([3]))
