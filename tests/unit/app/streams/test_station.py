"""A station: what agents say over the bus is what the signal book says of the same history, once, also after it was ended in between."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from cryptoalpha.app.settings import Settings
from cryptoalpha.app.streams.servers import BUS_FILE, FOLDER
from cryptoalpha.app.streams.station import Station
from cryptoalpha.core.clock import VirtualClock
from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.time import HOUR
from cryptoalpha.core.values import Signal
from cryptoalpha.data.bus.config import BusConfig
from cryptoalpha.data.bus.envelope import Envelope
from cryptoalpha.data.bus.memory import MemoryBus
from cryptoalpha.data.simulated import simulate
from cryptoalpha.data.sources.contract import Arrival, Health
from cryptoalpha.signals.agents.replay import messages_of, without_taker_volume
from cryptoalpha.signals.book import SignalBook
from cryptoalpha.store.tables import Dataset

SETTINGS = Settings.model_validate(
    {
        "data": {"simulated": {"assets": 2, "bars": 1500, "posts_per_day": 24.0}},
        "signals": {
            "sources": ["momentum", "news_tone", "funding"],
            "keep_features": False,
            "agents": {
                # hours pass in milliseconds here: a bar that is still on its way must not be taken for a missing one
                "grace_seconds": 7200.0,
                "sieve": {"relevance_threshold": 0.0, "near_duplicate": 1.0, "posts_per_author": 0, "full_reach": 0.0, "languages": []},
            },
        },
    }
)
BARS = 12


class Replayed:
    """The market's own messages, in batches of one bar, as a source."""

    name, topics = "replayed", ("texts",)

    def __init__(self, messages: Sequence[Envelope], clock: VirtualClock, until: int) -> None:
        self.health = Health()
        self._messages, self._clock, self._until = messages, clock, until
        self._closed = asyncio.Event()

    async def arrivals(self, position: str) -> AsyncIterator[Arrival]:
        for number in range(int(position or 0), self._until):
            message = self._messages[number]
            if message.observed_time > self._clock.now():
                await asyncio.sleep(0.02)  # agents read what came before time goes on
                self._clock.advance_to(message.observed_time)
            yield Arrival((message,), str(number + 1))
        await self._closed.wait()

    async def close(self) -> None:
        self._closed.set()


@pytest.fixture(scope="module")
def market() -> Dataset:
    return without_taker_volume(simulate(SETTINGS.data.simulated, 3).dataset)


def cut(market: Dataset) -> int:
    return int(next(iter(market.bars.values())).open_time[-BARS])


async def run_until_said(home: Path, market: Dataset, *, upto: float = 1.0, before: int = 0) -> Station:
    """A station that hears the first part of the messages, and a while later is ended; `before` of them it had handled earlier."""
    begin = cut(market)
    messages = list(messages_of(market, after=begin, until=begin + BARS * HOUR))
    clock = VirtualClock(begin)
    wanted = int(upto * len(messages))
    source = Replayed(messages, clock, wanted)
    start = market.known_until(begin)
    station = Station(SETTINGS, home, instruments=tuple(start.bars), start=start, sources=[source], clock=clock)
    end = asyncio.Event()
    working = asyncio.create_task(station.run(end))
    deadline = time.monotonic() + 30.0
    while not working.done() and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
        await station.count()
        if len(station.counts.handled) == 3 and min(station.counts.handled.values()) >= wanted - before:
            break
    clock.advance_to(clock.now() + 60 * 1_000_000_000)
    await asyncio.sleep(0.3)  # some ticks, in which what is due now is said
    end.set()
    await working
    return station


async def said(home: Path) -> list[Envelope]:
    async with MemoryBus(BusConfig(), home / FOLDER / BUS_FILE) as bus:
        consumer = await bus.subscribe(f"test{time.monotonic_ns()}", ["signals"])
        found: list[Envelope] = []
        while records := await consumer.take(1000, wait_seconds=0.2):
            found += [record.envelope for record in records if record.envelope is not None]
        return found


def expected(market: Dataset) -> dict[tuple[int, str, str], float]:
    begin = cut(market)
    tape = SignalBook(SETTINGS.signals).prepare(market, since=begin, until=begin + BARS * HOUR)
    signals = [signal for t in range(len(tape)) for signal in tape.signals_at(t)]
    return {(signal.known_at, signal.source, signal.instrument): signal.value for signal in signals}


def found(envelopes: Sequence[Envelope]) -> dict[tuple[int, str, str], float]:
    values = {envelope.id: envelope.value() for envelope in envelopes}
    return {(one.known_at, one.source, one.instrument): one.value for one in values.values() if isinstance(one, Signal)}


def test_agents_say_over_the_bus_what_the_book_says(tmp_path: Path, market: Dataset):
    station = asyncio.run(run_until_said(tmp_path, market))
    assert found(asyncio.run(said(tmp_path))) == expected(market)
    assert set(station.counts.handled) == {"text", "price", "chain"}
    assert all(station.counts.dead[name] == 0 for name in station.counts.dead)
    assert sum(station.counts.signals.values()) == len(expected(market))


def test_a_station_that_was_ended_goes_on_where_it_stood(tmp_path: Path, market: Dataset):
    """The history agents begin with is the old one: what they had read since they read again from the bus."""
    half = asyncio.run(run_until_said(tmp_path, market, upto=0.75))
    first = found(asyncio.run(said(tmp_path)))
    assert 0 < len(first) < len(expected(market))
    asyncio.run(run_until_said(tmp_path, market, before=half.counts.handled["text"]))
    envelopes = asyncio.run(said(tmp_path))
    assert found(envelopes) == expected(market)


def test_an_agent_whose_inbox_is_gone_reads_all_that_the_bus_holds(tmp_path: Path, market: Dataset):
    """The bus remembers how far its group had come, and the agent nothing of it: going on there, it would speak of the rest alone."""
    half = asyncio.run(run_until_said(tmp_path, market, upto=0.75))
    for file in (tmp_path / FOLDER).glob("inbox_text.sqlite*"):
        file.unlink()
    whole = asyncio.run(run_until_said(tmp_path, market, before=half.counts.handled["price"]))
    assert whole.counts.handled["text"] == half.counts.handled["text"] + whole.counts.handled["price"]
    assert found(asyncio.run(said(tmp_path))) == expected(market)


def test_one_agent_that_cannot_be_opened_is_a_clear_error(tmp_path: Path, market: Dataset):
    signals = SETTINGS.signals.model_copy(update={"sources": ("forecast",)})
    start = market.known_until(cut(market))
    station = Station(replace_signals(SETTINGS, signals), tmp_path, instruments=tuple(start.bars), start=start, sources=[])
    with pytest.raises(ConfigError, match="forecast"):
        asyncio.run(station.run(asyncio.Event()))


def replace_signals(settings: Settings, signals: object) -> Settings:
    return settings.model_copy(update={"signals": signals})


def test_a_market_without_messages_says_nothing(tmp_path: Path, market: Dataset):
    quiet = replace(market, posts={}, readings={})
    asyncio.run(run_until_said(tmp_path, quiet, upto=0.0))
    assert asyncio.run(said(tmp_path)) == []
