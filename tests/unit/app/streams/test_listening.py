"""Live sources in their own thread: everything is handed over, nothing twice, and what was not stored is heard again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from cryptoalpha.app.settings import Settings
from cryptoalpha.app.streams.listening import BUS_FILE, FOLDER, STATE_FILE, Listening, kept_health
from cryptoalpha.app.streams.taking import Heard
from cryptoalpha.core.clock import VirtualClock
from cryptoalpha.core.errors import ConfigError, StoreError, VenueError
from cryptoalpha.core.time import SECOND
from cryptoalpha.core.values import ChainReading, Post
from cryptoalpha.data.bus.config import BusConfig
from cryptoalpha.data.bus.dead import Dead, read_dead
from cryptoalpha.data.bus.envelope import Envelope, sealed
from cryptoalpha.data.bus.memory import MemoryBus
from cryptoalpha.data.sources.contract import Arrival, Health
from cryptoalpha.store.state.sqlite_state import SqliteState

SETTINGS = Settings.model_validate({"signals": {"agents": {"reorder_seconds": 0.0, "sieve": {"near_duplicate": 1.0}}}})


class Numbers:
    """A source of numbered posts, each of them sent twice, and a reading after every tenth."""

    topics = ("texts",)

    def __init__(self, count: int, name: str = "numbers", fails_after: int | None = None) -> None:
        self.name, self._count, self._fails_after = name, count, fails_after
        self.health = Health()
        self._closed = asyncio.Event()

    async def arrivals(self, position: str) -> AsyncIterator[Arrival]:
        for number in range(int(position or 0), self._count):
            if number == self._fails_after:
                raise ConfigError("the key is refused", hint="get another")
            now = time.time_ns()
            text = f"Bitcoin rises to {20_000 + number} dollars"
            post = Post(happened_at=now, known_at=now, post_id=f"{number}", source=self.name, text=text)
            envelopes = [sealed(post, topic="texts", key=self.name, source=self.name, native_id=post.post_id)] * 2
            if number % 10 == 0:
                reading = ChainReading(happened_at=number, known_at=now, asset="BTC", metric="fees", value=1.0 * number, source=self.name)
                envelopes.append(sealed(reading, topic="readings", key="BTC", source=self.name, native_id=f"r{number}"))
            self.health.messages += 1
            yield Arrival(tuple(envelopes), position=str(number + 1))
        await self._closed.wait()

    async def close(self) -> None:
        self._closed.set()


def gather(listening: Listening, count: int, *, store: bool = True) -> list[str]:
    """Ids of posts handed over until there are so many, or fifteen seconds have passed."""
    found: list[str] = []
    deadline = time.monotonic() + 15.0
    while len(found) < count and time.monotonic() < deadline:
        found += [one.value.post_id for one in listening.take() if isinstance(one.value, Post)]
        if store:
            listening.stored()
        time.sleep(0.02)
    return found


def listen(home: Path, *sources: Numbers, told: list[str] | None = None) -> Listening:
    said = [] if told is None else told
    return Listening(
        SETTINGS, home, ("BTC/USDT",), say=said.append, alert=lambda subject, text: said.append(f"{subject}: {text}"), sources=sources
    )


def test_everything_is_handed_over_once_and_in_order(tmp_path: Path):
    with listen(tmp_path, Numbers(200)) as listening:
        assert gather(listening, 200) == [str(number) for number in range(200)]
        assert listening.counts["repeats"] == 200
        assert listening.health()["numbers"].messages == 200


def test_what_was_stored_is_not_heard_again_and_what_was_not_is(tmp_path: Path):
    with listen(tmp_path, Numbers(50)) as listening:
        gather(listening, 50)
        time.sleep(0.5)  # the place moves with the next look
        listening.take()
        listening.stored()
    with listen(tmp_path, Numbers(120)) as listening:
        taken = gather(listening, 70, store=False)
    assert set(taken) >= {str(number) for number in range(50, 120)}
    with listen(tmp_path, Numbers(120)) as listening:
        again = gather(listening, 70)
    assert set(again) >= {str(number) for number in range(50, 120)}


def test_one_source_that_fails_stops_no_other_and_people_are_told(tmp_path: Path):
    told: list[str] = []
    with listen(tmp_path, Numbers(100), Numbers(100, "broken", fails_after=7), told=told) as listening:
        found = gather(listening, 107)
        assert len(found) == 107
    assert any("broken" in text and "the key is refused" in text and "get another" in text for text in told)


def test_how_sources_fare_is_found_by_another_process(tmp_path: Path):
    with listen(tmp_path, Numbers(10)) as listening:
        gather(listening, 10)

    async def read() -> dict[str, tuple[Health, int]]:
        async with SqliteState(tmp_path / FOLDER / STATE_FILE) as state:
            return await kept_health(state)

    (health, at) = asyncio.run(read())["numbers"]
    assert health.messages == 10
    assert abs(time.time_ns() - at) < 60e9


class OnTheBus(Numbers):
    """Brings envelopes as they are."""

    topics = ("texts", "readings")

    def __init__(self, *envelopes: Envelope) -> None:
        super().__init__(1, "bus")
        self._envelopes = envelopes

    async def arrivals(self, position: str) -> AsyncIterator[Arrival]:
        if not position:
            yield Arrival(self._envelopes, position="1")
        await self._closed.wait()


def test_a_text_of_a_clock_that_is_ahead_is_known_when_it_comes(tmp_path: Path):
    """Held back until its own time, it would let the place pass it; in the book, all later texts of its source would wait for it."""
    ahead = time.time_ns() + 3_600 * SECOND
    post = Post(happened_at=ahead, known_at=ahead, post_id="early", source="bus", text="Bitcoin rises")
    with listen(tmp_path, OnTheBus(sealed(post, topic="texts", key="bus", source="bus", native_id="early"))) as listening:
        found: list[Heard] = []
        deadline = time.monotonic() + 5.0
        while not found and time.monotonic() < deadline:
            time.sleep(0.02)
            found += listening.take()
    assert [one.value.known_at <= time.time_ns() for one in found] == [True]
    assert found[0].value.happened_at <= found[0].value.known_at


def test_what_is_no_message_is_put_away_with_where_it_lay(tmp_path: Path):
    broken = msgspec.structs.replace(
        sealed(ChainReading(happened_at=1, known_at=2, asset="BTC", metric="m", value=1.0, source="s"), topic="readings", key="BTC",
               source="s", native_id="1"), payload=b"\xc1"
    )  # fmt: skip
    with listen(tmp_path, OnTheBus(broken)) as listening:
        deadline = time.monotonic() + 5.0
        while not listening.counts["unreadable"] and time.monotonic() < deadline:
            time.sleep(0.02)
            listening.take()

    async def letters() -> list[Dead]:
        async with MemoryBus(BusConfig(), tmp_path / FOLDER / BUS_FILE) as bus, await bus.subscribe("test", ["readings.dead"]) as consumer:
            records = await consumer.take(10, wait_seconds=0.5)
        return [read_dead(record.envelope) for record in records if record.envelope is not None]

    (letter,) = asyncio.run(letters())
    assert letter.origin.startswith("readings/")
    assert "holds no" in letter.reason


class Unsteady:
    """A reader of a bus, and a state, that fail at every second call, as brokers do that are started again."""

    def __init__(self, inner: object, *names: str, error: type[Exception] = VenueError) -> None:
        self._inner, self._names, self._error, self._calls = inner, names, error, 0

    def __getattr__(self, name: str) -> object:
        found = getattr(self._inner, name)
        if name not in self._names:
            return found

        async def unsteady(*given: object, **named: object) -> object:
            self._calls += 1
            if self._calls % 2:
                raise self._error("the server is started again")
            return await found(*given, **named)

        return unsteady


def test_a_broker_and_a_state_that_come_back_end_nothing(tmp_path: Path):
    listening = listen(tmp_path, Numbers(60))
    look, keep = listening._look, listening._keep_health
    readers: dict[int, Unsteady] = {}

    async def looked(bus, consumer):
        await look(bus, readers.setdefault(id(consumer), Unsteady(consumer, "take", "commit")))

    async def kept(state, pump):
        await keep(Unsteady(state, "put", error=StoreError), pump)

    listening._look, listening._keep_health = looked, kept
    with listening:
        assert gather(listening, 60) == [str(number) for number in range(60)]
        deadline = time.monotonic() + 5.0
        while listening._stored and time.monotonic() < deadline:
            listening.take()
            listening.stored()
            time.sleep(0.1)
        assert listening.counts["outages"] > 2
        listening.demand_well()


def begun(home: Path, *envelopes: Envelope, clock: VirtualClock, reorder_seconds: float = 0.0) -> Listening:
    patient = Settings.model_validate({"signals": {"agents": {"reorder_seconds": reorder_seconds, "sieve": {"near_duplicate": 1.0}}}})
    return Listening(patient, home, ("BTC/USDT",), say=lambda text: None, sources=[OnTheBus(*envelopes)], clock=clock)


def heard_within(listening: Listening, seconds: float, *, store: bool) -> list[str]:
    """Everything handed over in that time."""
    found: list[str] = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found += [one.value.post_id for one in listening.take() if isinstance(one.value, Post)]
        if store:
            listening.stored()
        time.sleep(0.02)
    return found


def numbered(number: int, at: int) -> Envelope:
    post = Post(happened_at=at, known_at=at, post_id=f"{number}", source="bus", text=f"Bitcoin rises to {20_000 + number}")
    return sealed(post, topic="texts", key="bus", source="bus", native_id=post.post_id)


def test_the_place_does_not_pass_a_text_that_still_waits_for_earlier_ones(tmp_path: Path):
    """A kill between reading and handing over loses nothing: the source has passed it on and will not bring it again."""
    clock = VirtualClock(1_000 * SECOND)
    with begun(tmp_path, numbered(1, clock.now()), clock=clock, reorder_seconds=60.0) as listening:
        assert heard_within(listening, 0.8, store=True) == []
        assert listening.counts["messages"] == 1
    with begun(tmp_path, clock=clock, reorder_seconds=60.0) as listening:
        heard_within(listening, 0.3, store=True)
        clock.advance_to(clock.now() + 61 * SECOND)
        assert heard_within(listening, 0.8, store=True) == ["1"]
    with begun(tmp_path, clock=clock, reorder_seconds=60.0) as listening:
        heard_within(listening, 0.3, store=True)
        clock.advance_to(clock.now() + 61 * SECOND)
        assert heard_within(listening, 0.6, store=True) == []


def test_what_was_taken_and_never_stored_is_heard_again(tmp_path: Path):
    clock = VirtualClock(1_000 * SECOND)
    with begun(tmp_path, numbered(1, clock.now()), clock=clock) as listening:
        assert heard_within(listening, 0.8, store=False) == ["1"]
    with begun(tmp_path, clock=clock) as listening:
        assert heard_within(listening, 0.6, store=False) == ["1"]


def test_a_place_that_a_broker_did_not_take_moves_with_the_next_look(tmp_path: Path):
    clock = VirtualClock(1_000 * SECOND)
    listening = begun(tmp_path, numbered(1, clock.now()), clock=clock)
    look, readers = listening._look, []

    async def looked(bus, consumer):
        readers.append(readers[0] if readers else Unsteady(consumer, "commit"))
        await look(bus, readers[0])

    listening._look = looked
    with listening:
        assert heard_within(listening, 0.8, store=True) == ["1"]
        assert listening.counts["outages"] == 1
    with begun(tmp_path, clock=clock) as listening:
        assert heard_within(listening, 0.6, store=True) == []


def test_a_bus_that_cannot_be_opened_is_said_at_the_start(tmp_path: Path):
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / BUS_FILE).write_bytes(b"this is no database, whatever it looks like" * 100)
    with pytest.raises(StoreError, match="bus"), listen(tmp_path, Numbers(1)):
        pass
