"""When a source tries again, what it says meanwhile, and when it gives up."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryptoalpha.core.errors import ConfigError, VenueError
from cryptoalpha.core.time import SECOND
from cryptoalpha.data.sources.contract import Health
from cryptoalpha.data.sources.reconnect import LaterError, Line, RefusedError, check_answer, lasting, retry_after_seconds

NOW = 1_700_000_000 * SECOND  # 2023-11-14T22:13:20Z


def test_waits_double_up_to_the_limit_and_start_anew_after_a_while_that_worked(virtual_time):
    health = Health()
    line = Line("one", health, first_seconds=1.0, limit_seconds=20.0, clock=virtual_time.clock, wait=virtual_time.wait)

    async def run():
        for _ in range(7):
            await line.failed("broken")
        assert (health.state, health.reason, health.reconnects) == ("waiting", "broken", 7)
        line.worked()
        assert (health.state, health.reason) == ("connected", "")
        virtual_time.clock.advance_to(virtual_time.clock.now() + 20 * SECOND)
        await line.failed("broken again")

    asyncio.run(run())
    for wait, whole in zip(virtual_time.waits, [1, 2, 4, 8, 16, 20, 20, 1], strict=True):
        assert whole / 2 <= wait <= whole


def test_a_publisher_that_accepts_and_drops_is_asked_ever_more_rarely(virtual_time):
    """Each connection brings a greeting and ends: that is no success to start anew from."""
    line = Line("one", Health(), first_seconds=1.0, limit_seconds=60.0, clock=virtual_time.clock, wait=virtual_time.wait)

    async def connect():
        yield "welcome"

    async def run():
        count = 0
        async for _ in lasting(connect, line):
            count += 1
            if count == 12:
                line.close()

    asyncio.run(run())
    for wait, whole in zip(virtual_time.waits, [1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60], strict=True):
        assert whole / 2 <= wait <= whole


def test_time_alone_does_not_make_the_waits_small_again(virtual_time):
    line = Line("one", Health(), first_seconds=1.0, limit_seconds=60.0, clock=virtual_time.clock, wait=virtual_time.wait)

    async def run():
        for _ in range(5):
            virtual_time.clock.advance_to(virtual_time.clock.now() + 100 * SECOND)  # each attempt takes long, and fails
            await line.failed("timeout")

    asyncio.run(run())
    assert virtual_time.waits[-1] >= 8.0


def test_two_sources_do_not_return_together_and_a_repeated_run_waits_the_same(virtual_time):
    async def waits(name):
        virtual_time.waits.clear()
        line = Line(name, Health(), wait=virtual_time.wait, seed=3)
        for _ in range(5):
            await line.failed("broken")
        return list(virtual_time.waits)

    one, two, again = (asyncio.run(waits(name)) for name in ("one", "two", "one"))
    assert one == again
    assert all(a != b for a, b in zip(one, two, strict=True))


def test_a_wait_that_was_asked_for_is_obeyed_but_not_for_days(virtual_time):
    line = Line("one", Health(), wait=virtual_time.wait)

    async def run():
        await line.failed(LaterError("later", wait_seconds=90.0))
        await line.failed("broken", 40.0)
        await line.failed(LaterError("much later", wait_seconds=1e9))

    asyncio.run(run())
    assert virtual_time.waits[0] >= 90.0
    assert virtual_time.waits[1] >= 40.0
    assert 6 * 3600 <= virtual_time.waits[2] <= 6 * 3600 + 4


def test_a_refused_key_ends_at_once_but_one_that_worked_gets_three_more_chances(virtual_time):
    async def refused(line):
        for count in range(10):
            try:
                await line.failed(RefusedError("no such key", hint="check it"))
            except ConfigError:
                return count
        return None

    async def run():
        fresh, health = Line("one", Health(), wait=virtual_time.wait), Health()
        worked = Line("one", health, wait=virtual_time.wait)
        worked.worked()
        counts = [await refused(fresh), await refused(worked)]
        assert (health.state, health.reason) == ("closed", "no such key")
        return counts

    assert asyncio.run(run()) == [0, 3]


def test_what_cannot_be_configured_ends_even_a_line_that_worked(virtual_time):
    line = Line("one", Health(), wait=virtual_time.wait)
    line.worked()
    with pytest.raises(ConfigError, match="no such pair"):
        asyncio.run(line.failed(ConfigError("no such pair")))


def test_closing_ends_a_wait_at_once():
    line = Line("one", Health(), first_seconds=3600.0, limit_seconds=3600.0)  # real time

    async def run():
        waiting = asyncio.create_task(line.failed("broken"))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        line.close()
        await asyncio.wait_for(waiting, 1.0)
        await asyncio.wait_for(line.pause(3600.0, "no matter"), 1.0)

    asyncio.run(run())
    assert line.closed


def test_a_lasting_connection_goes_on_after_every_kind_of_break(virtual_time):
    health, closed = Health(), []

    class LibraryError(Exception):
        pass

    line = Line("one", health, wait=virtual_time.wait)
    plays = [["a", VenueError("down")], [OSError("reset")], ["b", "c"], [LibraryError("cut")], ["d", TimeoutError()], ["e"]]

    async def connect():
        play = plays.pop(0)
        try:
            for step in play:
                if isinstance(step, Exception):
                    raise step
                yield step
        finally:
            closed.append(True)

    async def run():
        heard = []
        async for item in lasting(connect, line, catches=(LibraryError,)):
            heard.append(item)
            if item == "e":
                line.close()
        return heard

    assert asyncio.run(run()) == ["a", "b", "c", "d", "e"]
    assert (health.reconnects, len(closed)) == (5, 6)
    assert health.state == "closed"


def test_a_mistake_is_not_taken_for_a_broken_connection(virtual_time):
    async def connect():
        raise KeyError("a bug")
        yield

    async def run():
        async for _ in lasting(connect, Line("one", Health(), wait=virtual_time.wait)):
            pass

    with pytest.raises(KeyError):
        asyncio.run(run())


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (200, None), (204, None), (304, None),
        (400, RefusedError), (401, RefusedError), (403, RefusedError), (404, RefusedError), (410, RefusedError), (451, RefusedError),
        (408, LaterError), (429, LaterError), (503, LaterError),
        (500, VenueError), (502, VenueError), (302, VenueError), (100, VenueError),
    ],
)  # fmt: skip
def test_what_a_status_means(status, error):
    if error is None:
        check_answer(status, {}, what="the publisher", now=NOW)
        return
    with pytest.raises(VenueError if error is VenueError else error, match=str(status)) as told:
        check_answer(status, {"Retry-After": "12"}, what="the publisher", now=NOW)
    assert type(told.value) is error
    if error is LaterError:
        assert told.value.wait_seconds == 12.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0.0),
        ({"Retry-After": "7"}, 7.0),
        ({"retry-after": " 7.5 "}, 7.5),
        ({"Retry-After": "Tue, 14 Nov 2023 22:14:00 GMT"}, 40.0),
        ({"Retry-After": "Tue, 14 Nov 2023 22:00:00 GMT"}, 0.0),  # that was before now
        ({"x-rate-limit-reset": "1700000900"}, 900.0),
        ({"x-ratelimit-reset": "55"}, 55.0),
        ({"Retry-After": "3", "x-rate-limit-reset": "1700000900"}, 3.0),
        ({"Retry-After": "soon", "x-ratelimit-reset": "9"}, 9.0),
        ({"Retry-After": "-5"}, 0.0),
        ({"Retry-After": "nan"}, 0.0),
    ],
)
def test_how_long_an_answer_asks_to_wait(headers, seconds):
    assert retry_after_seconds(headers, NOW) == pytest.approx(seconds)


@given(text=st.text(max_size=40), name=st.sampled_from(["Retry-After", "x-rate-limit-reset", "x-ratelimit-reset"]))
def test_no_header_breaks_the_reading(text, name):
    assert retry_after_seconds({name: text}, NOW) >= 0.0
