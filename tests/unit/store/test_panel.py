"""The panel: one grid for all instruments, gaps marked and never filled."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from cryptoalpha.core.errors import DataError, DataMissingError
from cryptoalpha.core.time import DAY, HOUR, MINUTE
from cryptoalpha.store.panel import FIELDS, Panel, build_panel
from cryptoalpha.store.tables import BarTable, Dataset

START = 480 * HOUR


def bars(name: str, hours: list[int], *, interval: int = HOUR, shift: int = 0, lag: int = 0) -> BarTable:
    """Bars at these hours after the start; the close tells the hour."""
    times = START + shift + HOUR * np.array(hours, np.int64)
    price = 100.0 + np.array(hours, np.float64)
    return BarTable(name, interval, times, price, price + 1, price - 1, price, price, known_at=times + interval + lag)


def dataset(*tables: BarTable) -> Dataset:
    return Dataset("test", {table.instrument: table for table in tables})


def panel(data: Dataset, *, since: int = 0, until: int = 10_000, instruments: list[str] | None = None) -> Panel:
    return build_panel(data, since=START + since * HOUR, until=START + until * HOUR, instruments=instruments)


def test_gaps_and_late_listings_are_absent_not_filled():
    made = panel(dataset(bars("B/Q", [2, 3]), bars("A/Q", [0, 1, 3])))
    assert made.instruments == ("A/Q", "B/Q")
    assert_array_equal(made.open_time, START + HOUR * np.arange(4))
    assert_array_equal(made.present, [[True, False], [True, False], [False, True], [True, True]])
    assert_array_equal(made.close, [[100, np.nan], [101, np.nan], [np.nan, 102], [103, 103]])
    assert_array_equal(made.source_row, [[0, -1], [1, -1], [-1, 0], [2, 1]])
    for field in FIELDS:
        assert np.isnan(getattr(made, field)[~made.present]).all()
    assert len(made) == 4


def test_an_outage_of_everything_still_has_its_rows():
    made = panel(dataset(bars("A/Q", [0, 5])))
    assert len(made) == 6
    assert made.present.sum() == 2
    assert_array_equal(made.known_at, START + HOUR * np.arange(1, 7))  # that nothing came is known when it would have


def test_a_row_is_known_when_its_last_bar_is():
    made = panel(dataset(bars("A/Q", [0, 1]), bars("B/Q", [1], lag=7)))
    assert list(made.known_at - made.open_time) == [HOUR, HOUR + 7]


def test_since_is_inclusive_and_until_exclusive_and_the_order_of_instruments_is_the_caller_s():
    data = dataset(bars("A/Q", [0, 1, 2, 3]), bars("B/Q", [0, 1, 2, 3]))
    made = panel(data, since=1, until=3, instruments=["B/Q", "A/Q"])
    assert made.instruments == ("B/Q", "A/Q")
    assert_array_equal(made.open_time, START + HOUR * np.array([1, 2]))
    assert_array_equal(made.rows(1, 2).close, [[102.0, 102.0]])
    assert made.rows(1, 2).interval == HOUR


def test_what_cannot_be_aligned_is_refused_by_name():
    with pytest.raises(DataError, match="bars of different lengths in one book: 1d, 1h"):
        panel(dataset(bars("A/Q", [0]), bars("B/Q", [0], interval=DAY)))
    with pytest.raises(DataError, match="B/Q: the 1h bar at 1970-01-21T00:05:00Z opens off the grid"):
        panel(dataset(bars("B/Q", [0], shift=5 * MINUTE)))
    with pytest.raises(DataError, match="is doubled or comes after a later one"):
        panel(dataset(bars("A/Q", [0, 1, 1])))
    with pytest.raises(DataError, match="is doubled or comes after a later one"):
        panel(dataset(bars("A/Q", [0, 2, 1])))


def test_absent_instruments_and_empty_periods_say_what_there_is():
    data = dataset(bars("A/Q", [0, 1]))
    with pytest.raises(DataMissingError, match="no bars for X/Q") as caught:
        panel(data, instruments=["A/Q", "X/Q"])
    assert "A/Q" in caught.value.hint
    with pytest.raises(DataMissingError, match=r"no bars between .*; the history goes from "):
        panel(data, since=5)
    with pytest.raises(DataMissingError, match="no bars for A/Q") as caught:
        panel(dataset(), instruments=["A/Q"])
    assert "nothing" in caught.value.hint


@settings(max_examples=50, deadline=None)
@given(
    hours=st.lists(st.lists(st.integers(0, 30), min_size=1, unique=True).map(sorted), min_size=1, max_size=3),
    cut=st.integers(0, 30),
)
def test_rows_do_not_depend_on_what_comes_later(hours, cut):
    data = dataset(*[bars(f"{a}/Q", places) for a, places in enumerate(hours)])
    whole = panel(data)
    seen = data.known_until(START + (cut + 1) * HOUR)
    if not any(len(table) for table in seen.bars.values()):
        return
    part = panel(seen)
    head = whole.rows(0, len(part))
    assert_array_equal(head.open_time, part.open_time)
    assert_array_equal(head.known_at, part.known_at)
    for field in (*FIELDS, "present", "source_row"):
        assert_array_equal(getattr(head, field), getattr(part, field))
