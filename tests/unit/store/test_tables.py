"""Tables: frozen columns of one length, in the order they became known."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from cryptoalpha.core.errors import DataError
from cryptoalpha.core.time import HOUR
from cryptoalpha.store.tables import BarTable, Dataset, PostTable, ReadingTable


def bars(n: int = 4) -> BarTable:
    one = np.ones(n)
    return BarTable("BTC/USDT", HOUR, HOUR * np.arange(n), one, one, one, one, one)


def readings(known_at: list[int]) -> ReadingTable:
    times = np.array(known_at, np.int64)
    return ReadingTable("BTC", "fees_usd", "chain", times - 1, times, np.arange(float(len(times))))


def posts(known_at: list[int]) -> PostTable:
    times = np.array(known_at, np.int64)
    text = np.array([f"text {i}" for i in range(len(times))], object)
    return PostTable("news", times - 1, times, text, text)


def test_a_bar_is_known_when_it_closes_and_names_its_row():
    table = bars()
    assert list(table.known_at) == [HOUR, 2 * HOUR, 3 * HOUR, 4 * HOUR]
    assert np.isnan(table.taker_buy_volume).all()
    assert list(table.row) == [0, 1, 2, 3]
    assert list(table.take(slice(1, 3)).row) == [1, 2]
    assert list(table.take(np.array([True, False, False, True])).row) == [0, 3]


@pytest.mark.parametrize("table", [bars(), readings([1, 2]), posts([1, 2])], ids=["bars", "readings", "posts"])
def test_a_table_cannot_be_changed_not_even_through_the_array_it_was_made_of(table):
    with pytest.raises(ValueError, match="read-only"):
        table.known_at[0] = 0
    with pytest.raises(FrozenInstanceError):
        table.known_at = np.zeros(2)
    source = np.ones(1)
    made = BarTable("X/Y", HOUR, np.zeros(1, np.int64), source, source, source, source, source)
    source[0] = 9.0
    assert made.close[0] == 1.0


def test_ragged_columns_are_refused():
    one = np.ones(2)
    with pytest.raises(DataError, match="columns differ in shape"):
        BarTable("X/Y", HOUR, np.arange(2), one, one, one, np.ones(3), one)
    with pytest.raises(DataError, match="columns differ in shape"):
        BarTable("X/Y", HOUR, np.zeros((2, 1), np.int64), *[np.ones((2, 1))] * 5)


def test_readings_and_posts_out_of_order_are_refused():
    with pytest.raises(DataError, match="BTC/fees_usd: rows are not in the order"):
        readings([2, 1])
    with pytest.raises(DataError, match="news: rows are not in the order"):
        posts([2, 1])
    assert len(readings([1, 1])) == 2


def test_known_until_keeps_what_was_known_and_nothing_else():
    dataset = Dataset(
        "test",
        {"BTC/USDT": bars()},
        {("BTC", "fees_usd"): readings([HOUR, HOUR + 1, 3 * HOUR])},
        {"news": posts([1, 5 * HOUR])},
        fingerprint="f",
    )
    cut = dataset.known_until(2 * HOUR)
    assert list(cut.bars["BTC/USDT"].open_time) == [0, HOUR]
    assert list(cut.readings["BTC", "fees_usd"].known_at) == [HOUR, HOUR + 1]
    assert list(cut.posts["news"].text) == ["text 0"]
    assert cut.fingerprint == "f"
    assert len(dataset.known_until(0).bars["BTC/USDT"]) == 0
