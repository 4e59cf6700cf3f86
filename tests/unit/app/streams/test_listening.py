"""Live sources in their own thread: everything is handed over, nothing twice, and what was not stored is heard again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from cryptoalpha.app.settings import Settings
from cryptoalpha.app.streams.listening import Listening
from cryptoalpha.app.streams.servers import BUS_FILE, FOLDER, STATE_FILE, Servers, runtime_of, servers_of
from cryptoalpha.app.streams.standing import kept_health
from cryptoalpha.app.streams.taking import Heard
from cryptoalpha.core.clock import VirtualClock
from cryptoalpha.core.errors import ConfigError, StoreError
from cryptoalpha.core.time import SECOND
from cryptoalpha.core.values import ChainReading, Post
from cryptoalpha.data.bus.config import BusConfig
from cryptoalpha.data.bus.contract import Bus
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


def listen(home: Path, *sources: Numbers, told: list[str] | None = None, **more: object) -> Listening:
    said = [] if told is None else told
    return Listening(
        SETTINGS, home, ("BTC/USDT",), say=said.append, alert=lambda subject, text: said.append(f"{subject}: {text}"), sources=sources,
        **more,
    )  # fmt: skip


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


def test_a_broker_and_a_state_that_come_back_end_nothing(tmp_path: Path, unsteady_servers: Callable[..., Servers]):
    told: list[str] = []
    servers = unsteady_servers(SETTINGS, tmp_path, of_readers=["take", "commit"], of_state=["put"])
    with listen(tmp_path, Numbers(60), told=told, servers=servers) as listening:
        assert gather(listening, 60) == [str(number) for number in range(60)]
        deadline = time.monotonic() + 5.0
        while listening.counts["outages"] < 4 and time.monotonic() < deadline:
            listening.take()
            listening.stored()
            time.sleep(0.02)
        assert listening.counts["outages"] >= 4
        assert (listening.trouble, told) == ("", [])


def begun(home: Path, *envelopes: Envelope, clock: VirtualClock, reorder_seconds: float = 0.0, **more: object) -> Listening:
    patient = Settings.model_validate({"signals": {"agents": {"reorder_seconds": reorder_seconds, "sieve": {"near_duplicate": 1.0}}}})
    return Listening(patient, home, ("BTC/USDT",), say=lambda text: None, sources=[OnTheBus(*envelopes)], clock=clock, **more)


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


def test_a_place_that_a_broker_did_not_take_moves_with_the_next_look(tmp_path: Path, unsteady_servers: Callable[..., Servers]):
    clock = VirtualClock(1_000 * SECOND)
    servers = unsteady_servers(SETTINGS, tmp_path, of_readers=["commit"], clock=clock)
    with begun(tmp_path, numbered(1, clock.now()), clock=clock, servers=servers) as listening:
        assert heard_within(listening, 0.8, store=True) == ["1"]
        assert listening.counts["outages"] == 1
    with begun(tmp_path, clock=clock) as listening:
        assert heard_within(listening, 0.6, store=True) == []


def until(claim: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 15.0
    while not claim() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert claim()


def damage(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"this is no database, whatever it looks like" * 100)


@pytest.mark.parametrize("name", [BUS_FILE, STATE_FILE])
def test_a_damaged_file_ends_no_session_and_is_told_once_until_it_is_moved_away(tmp_path: Path, name: str):
    """Positions of a book want watching more than streams want hearing: the session goes on, and mends itself when the file is gone."""
    damage(file := tmp_path / FOLDER / name)
    told: list[str] = []
    attempts: list[float] = []
    real = servers_of(SETTINGS, tmp_path)

    def state():
        attempts.append(time.monotonic())
        return real.state()

    with listen(tmp_path, Numbers(5), told=told, servers=Servers(real.bus, state), again_seconds=0.01) as listening:
        assert listening.take() == []
        assert str(file) in listening.trouble
        until(lambda: len(attempts) > 3)
        assert [str(file) in text and "move it away" in text for text in told] == [True], told
        file.unlink()
        assert gather(listening, 5) == [str(number) for number in range(5)]
        assert listening.trouble == ""
    assert told[1:] == ["the live streams are heard again"]


def test_a_bus_that_fails_later_is_opened_again_and_nothing_is_heard_twice(tmp_path: Path):
    real = servers_of(SETTINGS, tmp_path)
    broken: list[object] = []

    @asynccontextmanager
    async def bus() -> AsyncIterator[Bus]:
        async with real.bus() as opened:
            subscribe = opened.subscribe

            async def subscribed(*given: object, **named: object) -> object:
                consumer = await subscribe(*given, **named)
                return consumer if broken else FullAfter(consumer, broken)

            opened.subscribe = subscribed
            yield opened

    class FullAfter:
        """A disk that is full once something was read."""

        def __init__(self, inner: object, broken: list[object]) -> None:
            self._inner, self._broken, self._takes = inner, broken, 0

        def __getattr__(self, name: str) -> object:
            return getattr(self._inner, name)

        async def take(self, most: int, *, wait_seconds: float) -> object:
            records = await self._inner.take(most, wait_seconds=wait_seconds)
            self._takes += bool(records)
            if self._takes > 1:
                self._broken.append(self)
                raise StoreError("the disk is full")
            return records

    told: list[str] = []

    class Anew(Numbers):
        """A source that can be begun again, as those of the settings are made anew."""

        async def arrivals(self, position: str) -> AsyncIterator[Arrival]:
            self._closed = asyncio.Event()
            async for arrival in super().arrivals(position):
                yield arrival
                await asyncio.sleep(0.002)

    with listen(tmp_path, Anew(80), told=told, servers=Servers(bus, real.state), again_seconds=0.01) as listening:
        found = gather(listening, 80)
    assert broken
    assert found == [str(number) for number in range(80)]
    assert [text for text in told if "the disk is full" in text] == [text for text in told if text.startswith("streams:")]
    assert told[-1] == "the live streams are heard again"


@pytest.mark.parametrize(
    "setting", [{"redis_address": "nowhere"}, {"redis_address": "http://localhost:6379"}, {"redis_address": "localhost:abc"}]
)
def test_an_address_that_is_none_is_said_at_the_start(tmp_path: Path, setting: dict[str, str]):
    settings = Settings.model_validate({"data": {"streams": {"backend": "servers", **setting}}})
    with (
        pytest.raises(ConfigError, match=r"redis_address: .* is not host:port"),
        Listening(settings, tmp_path, ("BTC/USDT",), say=lambda text: None, sources=[]),
    ):
        pass


@pytest.mark.parametrize("address", ["host", "host:abc", "http://localhost:9092", "localhost:9092,host", "localhost:0", ""])
def test_an_address_of_kafka_that_is_none_is_a_fault_of_usage(tmp_path: Path, address: str):
    settings = Settings.model_validate({"data": {"streams": {"backend": "servers", "kafka_servers": address}}})

    async def run() -> None:
        async with servers_of(settings, tmp_path).bus():
            pass

    with pytest.raises(ConfigError, match=r"kafka_servers: .* is not host:port"):
        asyncio.run(run())


def test_agents_on_ray_are_where_the_servers_are_shared_unless_told_another():
    def address(streams: str, runtime: dict[str, str]) -> str:
        return runtime_of(
            Settings.model_validate(
                {"data": {"streams": {"backend": streams, "ray_address": "ray://a:10001"}}, "learn": {"runtime": runtime}}
            )
        ).address

    assert address("servers", {"backend": "ray"}) == "ray://a:10001"
    assert address("servers", {"backend": "ray", "address": "b:6379"}) == "b:6379"
    assert address("embedded", {"backend": "ray"}) == ""
    assert address("servers", {"backend": "local"}) == ""
