"""Order books by each venue's rule, against a book that a dictionary keeps."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalpha.core.streamed import Book
from cryptoalpha.data.sources.market_reader import MarketReader
from cryptoalpha.data.sources.venues.books import OrderBook, Rule, Side
from cryptoalpha.data.sources.venues.reading import Change

NOW = 1_700_000_100_000_000_000
levels = st.lists(st.tuples(st.integers(1, 12).map(float), st.sampled_from([0.0, 1.0, 2.5])), max_size=6).map(tuple)


def _change(first: int, last: int, *, whole: bool = False, before: int = -1, bids=(), asks=()) -> Change:
    return Change("BTC/USDT", whole, tuple(bids), tuple(asks), NOW, first, last, before)


@settings(max_examples=40)
@given(st.lists(levels, max_size=20), st.booleans())
def test_a_side_is_what_a_dictionary_says(changes, bids):
    side, kept = Side(bids=bids), {}
    for change in changes:
        side.put(change, None)
        kept |= dict(change)
    wanted = sorted(((price, amount) for price, amount in kept.items() if amount), reverse=bids)
    assert side.best(100) == tuple(wanted)
    assert side.best(2) == tuple(wanted[:2])
    side.cut(3)
    assert side.best(100) == tuple(wanted[:3])


def test_levels_beyond_the_depth_are_forgotten_for_good():
    book = OrderBook("trusted", depth=2)
    book.apply(_change(-1, -1, whole=True, bids=[(10.0, 1.0), (9.0, 1.0)]))
    book.apply(_change(-1, -1, bids=[(11.0, 1.0)]))  # 9 leaves; the venue says no more of it
    book.apply(_change(-1, -1, bids=[(11.0, 0.0)]))
    assert book.bids.best(5) == ((10.0, 1.0),)


@pytest.mark.parametrize(
    ("rule", "numbers", "outcomes"),
    [
        ("counted", [(8, 10), (11, 12), (12, 12), (11, 13), (15, 15)], ["old", "applied", "old", "applied", "gap"]),
        ("chained", [(3, 9, 2), (8, 12, 7), (14, 20, 12), (14, 20, 12), (25, 30, 22)], ["old", "applied", "applied", "old", "gap"]),
        ("chained", [(20, 30, 15)], ["gap"]),
        ("timed", [(9, 9), (10, 10), (11, 11), (500, 500)], ["old", "old", "applied", "applied"]),
        ("trusted", [(-1, -1), (-1, -1)], ["applied", "applied"]),
    ],
)
def test_what_follows_what(rule: Rule, numbers, outcomes):
    book = OrderBook(rule)
    assert book.apply(_change(1, 1)) == "waiting"
    book.forget()
    assert book.apply(_change(10, 10, whole=True, bids=[(5.0, 1.0)])) == "applied"
    found = [book.apply(_change(first, last, before=before[0] if before else -1)) for first, last, *before in numbers]
    assert found == outcomes
    assert book.is_known == (outcomes[-1] != "gap")


def test_a_venue_that_counts_anew_after_maintenance_says_so_and_is_believed():
    book = OrderBook("chained")  # OKX: the number before is named, and the next one is smaller
    book.apply(_change(100, 100, whole=True))
    assert book.apply(_change(3, 3, before=100, bids=[(5.0, 1.0)])) == "applied"
    assert book.apply(_change(4, 4, before=3, bids=[(6.0, 1.0)])) == "applied"
    assert book.bids.best(2) == ((6.0, 1.0), (5.0, 1.0))


@settings(max_examples=40)
@given(levels, st.lists(levels, min_size=1, max_size=12), st.data())
def test_a_whole_book_that_comes_late_leads_to_the_same(whole, changes, data):
    """Changes 1 … n, and a whole book taken after k of them that arrives after m ≥ k: as if nothing had been late."""
    taken = data.draw(st.integers(0, len(changes)))
    arrives = data.draw(st.integers(taken, len(changes)))
    truth: dict[float, float] = dict(whole)
    for change in changes[:taken]:
        truth |= dict(change)
    book = OrderBook("counted")
    for number, change in enumerate(changes[:arrives], 1):
        assert book.apply(_change(number, number, bids=change)) == "waiting"
    book.apply(_change(taken, taken, whole=True, bids=[(price, amount) for price, amount in truth.items()]))
    for number, change in enumerate(changes[arrives:], arrives + 1):
        assert book.apply(_change(number, number, bids=change)) == "applied"
    for change in changes[taken:]:
        truth |= dict(change)
    assert book.bids.best(100) == tuple(sorted(((p, a) for p, a in truth.items() if a), reverse=True))


def test_a_book_that_stays_crossed_is_shown_to_nobody_and_not_believed():
    reader = MarketReader("coinbase")

    def message(kind: str, **more: object) -> bytes:
        return json.dumps({"type": kind, "product_id": "BTC-USD", "time": "2023-11-14T22:13:20Z", **more}).encode()

    assert reader.read(message("snapshot", bids=[["99", "1"]], asks=[["101", "1"]]), NOW)
    assert not reader.read(message("l2update", changes=[["buy", "101", "1"]]), NOW)  # the seller's level goes in the next message
    (shown,) = reader.read(message("l2update", changes=[["sell", "101", "0"], ["sell", "102", "1"]]), NOW)
    book = shown.value()
    assert isinstance(book, Book)
    assert (book.bids[0], book.asks[0]) == ((101.0, 1.0), (102.0, 1.0))
    reader.read(message("l2update", changes=[["buy", "103", "1"]]), NOW)
    for amount in range(2, 101):
        assert not reader.broken
        assert not reader.read(message("l2update", changes=[["buy", "103", str(amount)]]), NOW)
    assert reader.broken == {"BTC/USD"}
    reader.opened("books", ("BTC/USD",))
    assert not reader.read(message("l2update", changes=[["buy", "90", "1"]]), NOW)  # of a book nobody knows
    assert reader.read(message("snapshot", bids=[["99", "1"]], asks=[["101", "1"]]), NOW)
