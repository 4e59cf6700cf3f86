"""Bars from another thread, and who has fallen silent."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from cryptoalpha.app.live.feed import Feed, SilenceWatch
from cryptoalpha.core.errors import BarGateError, VenueError
from cryptoalpha.core.time import HOUR, SECOND
from cryptoalpha.data.candles import Wait
from cryptoalpha.data.live import LiveBatch
from cryptoalpha.store.tables import BarTable


def batch(hour: int, *names: str) -> LiveBatch:
    one = np.ones(1)
    bars = {name: BarTable(name, HOUR, np.array([hour * HOUR]), one, one, one, one, one, one) for name in names}
    return LiveBatch(hour * HOUR, (hour + 1) * HOUR, bars, ())


def test_batches_come_in_order_and_the_end_is_told():
    def make(wait: Wait) -> Iterator[LiveBatch]:
        yield from (batch(hour) for hour in range(3))

    with Feed(make) as feed:
        assert [found.open_time // HOUR for _ in range(3) if (found := feed.next(5.0)) is not None] == [0, 1, 2]
        assert feed.next(0.05) is None
        assert feed.is_over


def test_a_feed_that_hangs_keeps_nobody_waiting_and_ends_with_the_session():
    begun, ended = threading.Event(), threading.Event()

    def make(wait: Wait) -> Iterator[LiveBatch]:
        begun.set()
        try:
            while True:
                wait(60.0)
                yield batch(0)
        finally:
            ended.set()

    with Feed(make) as feed:
        assert begun.wait(5.0)
        before = time.monotonic()
        assert feed.next(0.05) is None
        assert time.monotonic() - before < 2.0
        assert not feed.is_over
    assert ended.wait(5.0)
    assert not any(thread.name == "feed" for thread in threading.enumerate())


@pytest.mark.parametrize(
    ("raised", "expected", "words"),
    [
        (BarGateError("a bar at -1"), BarGateError, "a bar at -1"),
        (ZeroDivisionError("odd"), VenueError, "ended with ZeroDivisionError: odd"),
    ],
)
def test_what_ends_the_feed_is_raised_where_bars_are_taken_after_those_that_came(raised, expected, words):
    def make(wait: Wait) -> Iterator[LiveBatch]:
        yield batch(0)
        raise raised

    with Feed(make) as feed:
        assert feed.next(5.0) is not None
        for _ in range(2):
            with pytest.raises(expected, match=words):
                feed.next(0.3)


def test_silence_is_told_once_per_instrument_and_so_is_its_end():
    watch = SilenceWatch({"A": 0, "B": 0}, HOUR, 3.0, slack_seconds=10.0, now=0)
    assert watch.look(3 * HOUR + 10 * SECOND) == [], "three bars and the slack are allowed"
    watch.hear(batch(2, "A"), 3 * HOUR)
    (silent,) = watch.look(3 * HOUR + 11 * SECOND)
    assert (silent.instrument, silent.is_silent, silent.since) == ("B", True, 0)
    assert watch.look(4 * HOUR) == []
    assert watch.silent == {"B"}
    (back,) = watch.hear(batch(3, "A", "B"), 4 * HOUR)
    assert (back.instrument, back.is_silent) == ("B", False)
    assert watch.silent == set()


def test_what_was_missed_while_nothing_ran_is_no_silence():
    watch = SilenceWatch({"A": 0}, HOUR, 3.0, slack_seconds=0.0, now=100 * HOUR)
    assert watch.look(103 * HOUR) == []
    (silent,) = watch.look(103 * HOUR + 1)
    assert silent.since == 100 * HOUR


def test_what_people_are_told_names_whole_seconds():
    watch = SilenceWatch({"A": 0}, HOUR, 3.0, slack_seconds=0.0, now=HOUR + 123_456_789)
    (silent,) = watch.look(10 * HOUR)
    assert silent.text.startswith("no bar of A since 1970-01-01T01:00:00Z:")
