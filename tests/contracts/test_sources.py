"""What every live source promises, held against a publisher on loopback that fails in every way publishers do.

Each source has a file in `sources/` with a Case: how its publisher serves messages of given numbers, and which ids they must get.
Time is virtual: waits are noted and pass at once.

    name               of the test
    faults             of "429", "500", "cut", "drop", "401": those that make sense here
    keyed              a refused key ends it
    extra              module it needs, or ""
    repeats, disorder, garbage, skew     False where it cannot happen; the case says why
    open(fake, tools) → source
    serve(fake, numbers, first="", garbage=False)     what the publisher has from now on; `first` goes wrong once
    ids(numbers) → the ids these messages must get
"""

from __future__ import annotations

import asyncio
import os
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import pytest

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.time import SECOND
from cryptoalpha.data.bus.envelope import Envelope
from cryptoalpha.data.sources.contract import Arrival, DeadLetter
from cryptoalpha.data.sources.opening import Tools
from cryptoalpha.store.state.sqlite_state import SqliteState

REAL_SECONDS = 10.0


@dataclass
class Heard:
    """What a source said."""

    envelopes: list[Envelope] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)
    places: list[tuple[str, int]] = field(default_factory=list)
    """Positions, and how many messages lay before each."""

    @property
    def ids(self) -> set[str]:
        return {envelope.id for envelope in self.envelopes}

    def take(self, arrival: Arrival) -> None:
        self.envelopes.extend(arrival.envelopes)
        self.dead.extend(arrival.dead)
        self.places.append((arrival.position, len(self.envelopes)))


async def hear(source: Any, wanted: set[str], *, position: str = "", dead: int = 0) -> Heard:
    """Until all ids that are wanted have come, and so many dead letters; the source is closed then."""
    heard = Heard()
    try:
        async with asyncio.timeout(REAL_SECONDS):
            async with aclosing(source.arrivals(position)) as arrivals:
                async for arrival in arrivals:
                    heard.take(arrival)
                    if wanted <= heard.ids and len(heard.dead) >= dead:
                        break
    except TimeoutError:
        pytest.fail(f"missing after {REAL_SECONDS} s: {sorted(wanted - heard.ids)[:5]}, dead {len(heard.dead)} of {dead}: {source.health}")
    finally:
        await source.close()
    return heard


@pytest.fixture(autouse=True)
def needed(request):
    asked = next((name for name in request.fixturenames if name == "case" or name.endswith("_case")), "")
    if asked and (extra := request.getfixturevalue(asked).extra):
        try:
            __import__(extra)
        except ImportError:
            assert not os.environ.get("TESTS_SKIP_NOTHING"), f"{extra} is not installed"
            pytest.skip(f"{extra} is not installed: pip install 'cryptoalpha[streams]'")


@pytest.fixture
def stage(publisher, virtual_time):
    """Run a play with the publisher and what a source is given."""

    def run(play):
        async def whole():
            async with publisher() as fake, SqliteState(None, clock=virtual_time.clock) as state:
                tools = Tools(state, clock=virtual_time.clock, wait=virtual_time.wait, environment={}, instruments=("BTC/USDT", "ETH/USDT"))
                return await play(fake, tools)

        return asyncio.run(whole())

    return run


def same(one: Envelope, other: Envelope) -> bool:
    """The same message, whenever it came."""
    return (one.id, one.topic, one.key, one.source, one.kind, one.schema) == (
        other.id,
        other.topic,
        other.key,
        other.source,
        other.kind,
        other.schema,
    )


def test_a_refetch_gives_the_same_messages_the_same_ids(case, stage):
    numbers = range(10)

    async def play(fake, tools):
        found = []
        for _ in range(2):
            case.serve(fake, numbers)
            found.append(await hear(case.open(fake, tools), case.ids(numbers)))
        return found

    one, two = stage(play)
    assert case.ids(numbers) <= one.ids & two.ids
    assert len(one.envelopes) == len(one.ids), "an id stands for one message"
    again = {envelope.id: envelope for envelope in two.envelopes}
    assert all(same(envelope, again[envelope.id]) for envelope in one.envelopes if envelope.id in again)
    for envelope in one.envelopes:
        assert envelope.id.startswith(f"{envelope.source}/")
        value = envelope.value()
        assert (value.happened_at, value.known_at) == (envelope.event_time, envelope.observed_time)
        assert envelope.event_time <= envelope.observed_time


def test_whoever_goes_on_from_any_position_loses_nothing(case, stage):
    async def play(fake, tools):
        case.serve(fake, range(8))
        first = await hear(case.open(fake, tools), case.ids(range(8)))
        places = first.places[:: max(1, len(first.places) // 4)] + first.places[-1:]
        found = []
        for position, before in places:
            had = {envelope.id for envelope in first.envelopes[:before]}
            case.serve(fake, range(12))  # the publisher has gone on meanwhile
            wanted = case.ids(range(12)) - had
            found.append((wanted, (await hear(case.open(fake, tools), wanted, position=position)).ids))
        return first, found

    first, found = stage(play)
    assert case.ids(range(8)) <= first.ids
    assert all(position for position, _ in first.places)
    assert all(wanted <= ids for wanted, ids in found)


def test_the_same_source_goes_on_after_its_reader_was_dropped(case, stage):
    """As the pump does after a failure: a new iterator from the last position, without closing the source."""

    async def play(fake, tools):
        case.serve(fake, range(8))
        source, heard = case.open(fake, tools), Heard()
        async with asyncio.timeout(REAL_SECONDS), aclosing(source.arrivals("")) as arrivals:
            async for arrival in arrivals:
                heard.take(arrival)
                if heard.envelopes:
                    break
        case.serve(fake, range(12))
        wanted = case.ids(range(12)) - heard.ids
        return wanted, (await hear(source, wanted, position=heard.places[-1][0])).ids

    wanted, ids = stage(play)
    assert wanted <= ids


def test_after_a_failure_everything_comes(case, stage, virtual_time, fault):
    numbers = range(8)

    async def play(fake, tools):
        case.serve(fake, numbers, first=fault)
        source = case.open(fake, tools)
        return await hear(source, case.ids(numbers)), source.health, len(fake.asked)

    heard, health, asked = stage(play)
    assert len(heard.envelopes) == len(heard.ids), "nothing is said twice"
    assert health.reconnects >= 1
    assert asked <= 60
    assert max(virtual_time.waits) <= 24 * 3600
    if fault == "429":
        assert max(virtual_time.waits) >= 7.0


def test_a_publisher_that_stays_down_is_asked_ever_more_rarely(case, stage, virtual_time):
    numbers = range(6)

    async def play(fake, tools):
        case.serve(fake, numbers)
        fake.fails = fake.Reply(status=500)
        source = case.open(fake, tools)
        begun = tools.clock.now()
        hearing = asyncio.create_task(hear(source, case.ids(numbers)))
        async with asyncio.timeout(REAL_SECONDS):
            while len(fake.asked) < 25 and not hearing.done():
                await asyncio.sleep(0.001)
        elapsed, waits, state = (tools.clock.now() - begun) / SECOND, list(virtual_time.waits), source.health.state
        fake.fails = None
        return elapsed, waits, state, source.health.reason, await hearing

    elapsed, waits, state, _, heard = stage(play)
    assert elapsed >= 100.0, "25 questions at waits of 1, 2, 4 … s take longer than that"
    assert len({round(wait, 6) for wait in waits}) > 5, "waits are spread by chance"
    assert state in ("waiting", "starting")
    assert case.ids(numbers) <= heard.ids


def test_a_refused_key_ends_it(keyed_case, stage):

    async def play(fake, tools):
        keyed_case.serve(fake, range(3))
        fake.key = ("Authorization", "one that nobody has")
        source = keyed_case.open(fake, tools)
        with pytest.raises(ConfigError) as told:
            await hear(source, keyed_case.ids(range(3)))
        return told.value, source.health.state, len(fake.asked)

    error, state, asked = stage(play)
    assert error.hint
    assert state == "closed"
    assert asked <= 4


def test_what_the_publisher_says_twice_is_said_once(repeats_case, stage, as_publishers_do):
    numbers = range(12)

    async def play(fake, tools):
        repeats_case.serve(fake, as_publishers_do.duplicated(numbers))
        source = repeats_case.open(fake, tools)
        return await hear(source, repeats_case.ids(numbers)), source.health

    heard, health = stage(play)
    assert len(heard.envelopes) == len(heard.ids)
    assert health.repeats >= 1


def test_messages_out_of_order_all_come(disorder_case, stage, as_publishers_do):

    async def play(fake, tools):
        disorder_case.serve(fake, as_publishers_do.disordered(range(12)))
        return await hear(disorder_case.open(fake, tools), disorder_case.ids(range(12)))

    heard = stage(play)
    assert len(heard.envelopes) == len(heard.ids)


def test_what_cannot_be_read_goes_to_the_dead_letters_with_a_reason(garbage_case, stage):
    numbers = range(8)

    async def play(fake, tools):
        garbage_case.serve(fake, numbers, garbage=True)
        source = garbage_case.open(fake, tools)
        return await hear(source, garbage_case.ids(numbers), dead=1), source

    heard, source = stage(play)
    assert len({letter.data for letter in heard.dead}) == 1
    (letter, *_) = heard.dead
    assert letter.reason
    assert letter.data
    assert letter.source == source.name
    assert source.health.dead >= 1


def test_a_clock_behind_the_publishers_never_sees_the_future(skew_case, publisher, virtual_time):
    """Ours is 100 s behind: nothing is known before it happened, and the skew is measured."""
    time = type(virtual_time)(virtual_time.clock.now() - 100 * SECOND)

    async def play():
        async with publisher() as fake, SqliteState(None, clock=time.clock) as state:
            tools = Tools(state, clock=time.clock, wait=time.wait, environment={}, instruments=("BTC/USDT", "ETH/USDT"))
            skew_case.serve(fake, range(6))
            source = skew_case.open(fake, tools)
            return await hear(source, skew_case.ids(range(6))), source.health.lag_seconds

    heard, lag = asyncio.run(play())
    assert all(envelope.event_time <= envelope.observed_time for envelope in heard.envelopes)
    assert lag < 0.0


def test_health_moves_and_closing_ends_a_silent_source(case, stage):
    async def play(fake, tools):
        case.serve(fake, range(5))
        source = case.open(fake, tools)
        before = (source.health.state, source.health.messages)
        heard = Heard()

        async def listen():
            async for arrival in source.arrivals(""):
                heard.take(arrival)

        listening = asyncio.create_task(listen())
        async with asyncio.timeout(REAL_SECONDS):
            while not case.ids(range(5)) <= heard.ids:
                assert not listening.done(), listening.exception()
                await asyncio.sleep(0.001)
        during = (source.health.state, source.health.messages, source.health.last_message)
        async with asyncio.timeout(5.0):
            await source.close()
            await listening
        await source.close()  # again, it does nothing
        return source, before, during, heard

    source, before, during, heard = stage(play)
    assert before == ("starting", 0)
    assert during[0] in ("connected", "waiting", "paused")
    assert during[1] == len(heard.envelopes) >= 5
    assert during[2] > 0
    assert source.health.state == "closed"
    assert source.topics
    assert {envelope.topic for envelope in heard.envelopes} <= set(source.topics)
