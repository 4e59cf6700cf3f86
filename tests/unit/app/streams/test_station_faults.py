"""A station in trouble: it ends when it is told to or cannot go on, whoever waits for whom, and goes on with what is over at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cryptoalpha.app.settings import Settings
from cryptoalpha.app.streams import station as stations
from cryptoalpha.app.streams.servers import BUS_FILE, FOLDER, STATE_FILE, Servers, servers_of
from cryptoalpha.app.streams.standing import kept_health
from cryptoalpha.app.streams.station import Station
from cryptoalpha.core.errors import CryptoAlphaError, ModelError, StoreError, VenueError, WorkerDiedError
from cryptoalpha.core.values import Post
from cryptoalpha.data.bus.config import BusConfig
from cryptoalpha.data.bus.envelope import Envelope, sealed
from cryptoalpha.data.bus.memory import MemoryBus
from cryptoalpha.data.sources.contract import Arrival, Health
from cryptoalpha.store.state.sqlite_state import SqliteState
from cryptoalpha.store.tables import Dataset

SETTINGS = Settings.model_validate({"data": {"streams": {"worker": {"wait_seconds": 0.02}}}})


def envelope(number: int, topic: str) -> Envelope:
    post = Post(happened_at=1, known_at=1, post_id=f"{number}", source="s", text="Bitcoin rises")
    return sealed(post, topic=topic, key="k", source="s", native_id=post.post_id)


class Agent:
    """An agent that does what a test says."""

    def __init__(self, remembers: Callable[[], object] = lambda: None, due: Callable[[], list[Envelope]] = list) -> None:
        self._remembers, self._due = remembers, due

    async def __call__(self, envelopes: Sequence[Envelope]) -> list[Envelope]:
        return []

    async def due(self) -> list[Envelope]:
        return self._due()

    async def remember(self, messages: Iterable[Envelope], *, said_until: int | None = None) -> None:
        if asyncio.iscoroutine(waits := self._remembers()):
            await waits


class Quiet:
    """A source that brings one message, or none."""

    name, topics = "quiet", ("texts",)

    def __init__(self, count: int = 1) -> None:
        self.health, self._count = Health(), count
        self._closed = asyncio.Event()

    async def arrivals(self, position: str) -> AsyncIterator[Arrival]:
        self.health.state, self.health.messages = "connected", self._count
        for number in range(self._count):
            yield Arrival((envelope(number, "texts"),), "1")
        await self._closed.wait()

    async def close(self) -> None:
        self._closed.set()


@pytest.fixture
def station(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Station]:
    def make(agents: dict[str, Agent], count: int = 1, **more: object) -> Station:
        @asynccontextmanager
        async def opened(*given: object, **named: object) -> AsyncIterator[dict[str, Agent]]:
            yield agents

        monkeypatch.setattr(stations, "open_agents", opened)
        return Station(SETTINGS, tmp_path, instruments=(), start=Dataset("test", bars={}), sources=[Quiet(count)], **more)  # type: ignore[arg-type]

    return make


async def ended(station: Station, end: asyncio.Event) -> None:
    """Fails where the station does not end within a time that no loaded machine needs."""
    async with asyncio.timeout(20.0):
        await station.run(end)


def test_a_damaged_inbox_ends_the_station_although_other_agents_are_still_beginning(tmp_path: Path, station: Callable[..., Station]):
    """Those begin to work once the station has ended: nobody would tell them."""
    damaged = tmp_path / FOLDER / "inbox_first.sqlite"
    damaged.parent.mkdir()
    damaged.write_bytes(b"no database at all, and longer than a header of one hundred bytes " * 40)

    async def run() -> None:
        end = asyncio.Event()
        await ended(station({"first": Agent(), "second": Agent(end.wait), "third": Agent(end.wait)}), end)

    with pytest.raises(StoreError, match="inbox_first") as told:
        asyncio.run(run())
    assert "move it away" in told.value.hint
    assert told.value.exit_code == 3


def test_a_station_that_is_told_to_end_waits_for_no_agent_that_is_still_beginning(station: Callable[..., Station]):
    async def run() -> None:
        end, never = asyncio.Event(), asyncio.Event()
        asyncio.get_running_loop().call_later(0.2, end.set)
        await ended(station({"only": Agent(never.wait)}), end)

    asyncio.run(run())


@pytest.mark.parametrize("call", ["subscribe", "take"])
def test_a_station_that_is_told_to_end_waits_for_no_broker(tmp_path: Path, station: Callable[..., Station], call: str):
    """Its workers would ask again for ever."""
    real = servers_of(SETTINGS, tmp_path)
    asked, joined = asyncio.Event(), list[str]()

    async def away(*given: object, **named: object) -> None:
        asked.set()
        raise VenueError("the broker is away")

    @asynccontextmanager
    async def bus() -> AsyncIterator[object]:
        async with real.bus() as opened:
            subscribe = opened.subscribe

            async def subscribed(group: str, *given: object, **named: object) -> object:
                joined.append(group)
                works = group.startswith("agent/only") and joined.count(group) > 1  # once to begin
                if works and call == "subscribe":
                    await away()
                consumer = await subscribe(group, *given, **named)  # type: ignore[arg-type]
                if works:
                    consumer.take = away  # type: ignore[method-assign]
                return consumer

            opened.subscribe = subscribed  # type: ignore[method-assign]
            yield opened

    async def run() -> None:
        end = asyncio.Event()
        working = asyncio.create_task(ended(station({"only": Agent()}, servers=Servers(bus, real.state), patience_seconds=0.05), end))  # type: ignore[arg-type]
        async with asyncio.timeout(20.0):
            await asked.wait()
        end.set()
        await working

    asyncio.run(run())


def test_an_agent_that_can_speak_no_more_ends_the_station(station: Callable[..., Station]):
    def broken() -> list[Envelope]:
        raise ModelError("the model says NaN")

    with pytest.raises(ModelError, match="NaN"):
        asyncio.run(ended(station({"only": Agent(due=broken)}), asyncio.Event()))


def test_trouble_that_is_over_at_once_ends_no_station(
    tmp_path: Path, station: Callable[..., Station], unsteady_servers: Callable[..., Servers], monkeypatch: pytest.MonkeyPatch
):
    """State writes, looks at the lag, publications and agents fail in turn; every signal is said, and how sources fared is written down."""
    monkeypatch.setattr(stations, "HEALTH_SECONDS", 0.05)
    waiting = [envelope(number, "signals") for number in range(5)]
    said: list[int] = []

    def due() -> list[Envelope]:
        said.append(1)
        if len(said) % 3 == 0:
            raise WorkerDiedError("a node was lost")
        return [waiting.pop(0)] if waiting else []

    failed: list[str] = []
    servers = unsteady_servers(
        SETTINGS, tmp_path, of_bus=["publish"], of_readers=["lag"], of_state=["put"], failed=failed, begins_well=True
    )

    async def published() -> set[str]:
        async with MemoryBus(BusConfig(), tmp_path / FOLDER / BUS_FILE) as bus, await bus.subscribe("test", ["signals"]) as consumer:
            return {record.envelope.id for record in await consumer.take(100, wait_seconds=0.2) if record.envelope is not None}

    async def fared() -> Health:
        async with SqliteState(tmp_path / FOLDER / STATE_FILE) as state:
            return (await kept_health(state))["quiet"][0]

    async def run() -> Station:
        end, one = asyncio.Event(), station({"only": Agent(due=due)}, servers=servers)
        working = asyncio.create_task(ended(one, end))
        while not working.done() and (waiting or len(said) < 12 or {"publish", "put", "lag"} - set(failed)):
            await asyncio.sleep(0.01)
            if "only" in one.counts.handled:
                await one.count()
        end.set()
        await working
        return one

    counts = asyncio.run(run()).counts
    assert (counts.handled, counts.signals) == ({"only": 1}, {"only": 5})
    assert asyncio.run(published()) == {envelope(number, "signals").id for number in range(5)}
    assert asyncio.run(fared()).messages == 1


def test_a_log_that_was_lost_is_told_and_a_new_inbox_has_lost_nothing(
    tmp_path: Path, station: Callable[..., Station], monkeypatch: pytest.MonkeyPatch
):
    async def run() -> list[str]:
        told: list[str] = []
        end, one = asyncio.Event(), station({"only": Agent()}, alert=lambda subject, text: told.append(f"{subject} {text}"))
        working = asyncio.create_task(ended(one, end))
        while one.counts.handled.get("only", 0) < 1 and not working.done():
            await one.count()
            await asyncio.sleep(0.01)
        end.set()
        await working
        return told

    assert asyncio.run(run()) == []
    for file in (tmp_path / FOLDER).glob(f"{BUS_FILE}*"):
        file.unlink()

    async def at_once(*given: object, **named: object) -> int:
        """It would wait for what is gone."""
        return 0

    monkeypatch.setattr(stations, "rebuild", at_once)

    async def again() -> list[str]:
        told: list[str] = []
        end = asyncio.Event()
        one = station({"only": Agent()}, count=0, alert=lambda subject, text: (told.append(f"{subject} {text}"), end.set()))
        await ended(one, end)
        return told

    (text,) = asyncio.run(again())
    assert text.startswith("stream_log texts/")
    assert "log_regressed, wanted 1" in text


def test_a_failure_of_an_agent_is_the_station_s(station: Callable[..., Station]):
    async def refused() -> None:
        raise CryptoAlphaError("it remembers nothing")

    with pytest.raises(CryptoAlphaError, match="remembers nothing"):
        asyncio.run(ended(station({"only": Agent(refused)}), asyncio.Event()))
