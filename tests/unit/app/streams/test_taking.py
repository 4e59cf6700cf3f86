"""A data set that grows: nothing known before is touched, nothing enters twice, and the store gives back the same."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalpha.app.streams.taking import Heard, Taken, taken_in
from cryptoalpha.core.time import HOUR
from cryptoalpha.core.values import ChainReading, Post
from cryptoalpha.store.history import History
from cryptoalpha.store.home import Home
from cryptoalpha.store.lock import StoreLock
from cryptoalpha.store.tables import BarTable, Dataset, PostTable, ReadingTable


def post(number: int, at: int, text: str = "bitcoin rises") -> Post:
    return Post(happened_at=at - 1, known_at=at, post_id=f"p{number:03d}", source="x", text=text)


def reading(at: int, value: float, *, of: int = 0, source: str = "chain") -> ChainReading:
    return ChainReading(happened_at=of, known_at=at, asset="BTC", metric="fees", value=value, source=source)


def grown(dataset, values, *, since: int) -> Taken:
    return taken_in(dataset, [Heard(value) for value in values], since=since)


def _bars() -> BarTable:
    one = np.ones(1)
    return BarTable("BTC/USDT", HOUR, np.zeros(1, np.int64), one, one, one, one, one, known_at=np.full(1, HOUR))


EMPTY = Dataset("test", bars={"BTC/USDT": _bars()})


def same(one: PostTable | ReadingTable, other: PostTable | ReadingTable) -> bool:
    names = [name for name in one.columns() if name not in ("partition", "row")]
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in names)


posts = st.lists(st.tuples(st.integers(0, 12), st.integers(1, 50)), max_size=20).map(lambda made: [post(n, at) for n, at in made])


@settings(max_examples=40, deadline=None)
@given(first=posts, second=posts, decided=st.integers(0, 60))
def test_what_was_decided_on_never_changes_and_no_post_enters_twice(first, second, decided):
    before = grown(EMPTY, first, since=0).dataset
    after = grown(before, second, since=decided)
    ids = [one for table in after.dataset.posts.values() for one in table.post_id.tolist()]
    assert sorted(ids) == sorted({one.post_id for one in (*first, *second)})
    for source, table in after.dataset.posts.items():
        old = before.posts.get(source)
        kept = 0 if old is None else len(old)
        assert old is None or same(table.take(slice(0, kept)), old)
        assert (np.diff(table.known_at) >= 0).all()
        assert (table.known_at[kept:] > decided).all()


def test_a_text_without_words_is_left_out():
    assert grown(EMPTY, [post(1, 5, " \n"), post(2, 6)], since=0).dataset.posts["x"].post_id.tolist() == ["p002"]


def test_a_reading_enters_again_only_with_another_value():
    once = grown(EMPTY, [reading(5, 1.0), reading(6, 1.0), reading(7, 2.0)], since=0).dataset
    table = once.readings["BTC", "fees"]
    assert table.value.tolist() == [1.0, 2.0]
    assert grown(once, [reading(9, 2.0)], since=8).readings == ()
    late = grown(once, [reading(6, 3.0, of=2)], since=8)
    assert late.readings[0].known_at.tolist() == [9]


@settings(max_examples=10, deadline=None)
@given(first=posts, second=posts, decided=st.integers(0, 60))
def test_the_store_gives_back_what_was_traded_on(tmp_path_factory, first, second, decided):
    home = Home(Path(tmp_path_factory.mktemp("home")))
    parts = [grown(EMPTY, first, since=0)]
    parts.append(grown(parts[0].dataset, second, since=decided))
    with StoreLock(home) as lock, History(home, lock=lock) as history:
        for part in parts:
            for table in part.posts:
                history.write_posts(table, origin="test")
        for source, table in parts[-1].dataset.posts.items():
            assert same(_stored(history, source), table)


def test_revisions_that_are_heard_again_after_a_restart_are_no_news():
    values = [reading(5, 1.0), reading(6, 2.0), reading(7, 1.0), reading(8, 3.0)]
    once = grown(EMPTY, values, since=0).dataset
    assert once.readings["BTC", "fees"].value.tolist() == [1.0, 2.0, 1.0, 3.0]
    assert grown(once, values, since=20).readings == ()
    late = grown(EMPTY, values, since=6).dataset  # the first two reached the book after its bar
    assert grown(late, values, since=20).readings == ()
    assert grown(late, [*values, reading(30, 1.0)], since=8).readings[0].value.tolist() == [1.0]


readings = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 8), st.sampled_from([1.0, 2.0, 3.0])), max_size=8).map(
    lambda made: [reading(at, value, of=of) for of, at, value in made]
)


@settings(max_examples=25, deadline=None)
@given(first=readings, second=readings, decided=st.integers(0, 10))
def test_the_store_gives_back_the_readings_that_were_traded_on(tmp_path_factory, first, second, decided):
    """Revisions that came late, too: the store tells them apart by when they were known."""
    home = Home(Path(tmp_path_factory.mktemp("home")))
    parts = [grown(EMPTY, first, since=0)]
    parts.append(grown(parts[0].dataset, second, since=decided))
    with StoreLock(home) as lock, History(home, lock=lock) as history:
        for part in parts:
            part.store(history, origin="test")
        history.write_bars("test", _bars(), origin="test")
        stored = history.load(interval=HOUR, venue="test").readings
    for key, table in parts[-1].dataset.readings.items():
        assert same(stored[key], table)


venues = st.lists(st.tuples(st.integers(0, 20), st.integers(1, 20), st.sampled_from(["okx", "binanceusdm", "bybit"])), max_size=16).map(
    lambda made: [reading(at, float(VENUES.index(source)), of=of, source=source) for of, at, source in made]
)
VENUES = ("okx", "binanceusdm", "bybit")


@settings(max_examples=25, deadline=None)
@given(first=venues, second=venues)
def test_two_venues_never_stand_in_one_series_and_the_store_has_the_same_series(tmp_path_factory, first, second):
    """The value of a reading is its venue's number. What a later backtest loads is what was traded on, series by series."""
    home = Home(Path(tmp_path_factory.mktemp("home")))
    parts = [grown(EMPTY, first, since=0)]
    parts.append(grown(parts[0].dataset, second, since=25))
    with StoreLock(home) as lock, History(home, lock=lock) as history:
        history.write_bars("test", _bars(), origin="test")
        for part in parts:
            part.store(history, origin="test")
        stored = history.load(interval=HOUR, venue="test").readings
    taken = parts[-1].dataset.readings
    assert taken.keys() == stored.keys()
    for key, table in taken.items():
        assert same(stored[key], table)
        assert stored[key].source == table.source
        assert len(set(table.value.tolist())) == 1
    assert {value for table in taken.values() for value in table.value.tolist()} == {one.value for one in (*first, *second)}


def test_settlements_that_were_fetched_go_on_with_those_of_the_same_venue(tmp_path):
    """The perpetuals of a venue are listened to as `binanceusdm` and fetched as `binance`: one series, here and in the store."""
    fetched = ReadingTable("BTC", "fees", "binance", np.array([1]), np.array([1]), np.array([0.5]))
    with StoreLock(Home(tmp_path)) as lock, History(Home(tmp_path), lock=lock) as history:
        history.write_bars("test", _bars(), origin="test")
        history.write_readings(fetched, origin="test")
        start = history.load(interval=HOUR, venue="test")
        values = [reading(9, 1.0, of=8, source="binanceusdm"), reading(9, 7.0, of=8, source="okx")]
        taken = grown(start, values, since=0)
        taken.store(history, origin="test")
        stored = history.load(interval=HOUR, venue="test").readings
    assert {key: (table.source, table.value.tolist()) for key, table in stored.items()} == {
        ("BTC", "fees"): ("binance", [0.5, 1.0]),
        ("BTC", "fees.okx"): ("okx", [7.0]),
    }


def test_two_venues_that_say_the_same_are_both_heard():
    taken = grown(EMPTY, [reading(5, 1.0, source="okx"), reading(6, 1.0, source="bybit")], since=0)
    assert {table.source: table.value.tolist() for table in taken.readings} == {"okx": [1.0], "bybit": [1.0]}


def test_what_says_no_number_is_left_out():
    assert grown(EMPTY, [reading(5, 1.0), reading(6, math.nan), reading(7, 1.0)], since=0).readings[0].value.tolist() == [1.0]
    taken = grown(EMPTY, [reading(5, math.nan), reading(6, math.inf), reading(7, -math.inf), reading(8, 2.0)], since=0)
    assert [table.value.tolist() for table in taken.readings] == [[2.0]]


def _stored(history: History, source: str) -> PostTable:
    history.write_bars("test", _bars(), origin="test")
    return history.load(interval=HOUR, venue="test").posts[source]
