"""What people hear of a source that has trouble: once, why, when it is over, and no more than once a minute."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cryptoalpha.app.settings import Settings
from cryptoalpha.app.streams.listening import Listening
from cryptoalpha.app.streams.opened import Notices
from cryptoalpha.app.streams.servers import FOLDER, STATE_FILE
from cryptoalpha.app.streams.standing import kept_health
from cryptoalpha.app.streams.station import Station
from cryptoalpha.core.errors import ConfigError
from cryptoalpha.data.sources.contract import Arrival, Health
from cryptoalpha.store.state.sqlite_state import SqliteState

REASON = "the publisher does not answer"


def test_trouble_is_said_once_with_its_reason_and_so_is_its_end():
    said: list[str] = []
    clock = [0.0]
    notices, one = Notices(said.append, lambda: clock[0]), Health()
    one.state, one.reason = "waiting", REASON
    notices.look({"one": one})
    assert not said, "it may be over in a moment"
    for _ in range(3):
        clock[0] += 1.0
        notices.look({"one": one})
    one.state, one.reason = "connected", ""
    notices.look({"one": one})
    notices.look({"one": one})
    assert said == [f"one waits: {REASON}", "one is well again"]
    one.state, one.reason = "waiting", REASON
    for clock[0] in (58.0, 60.0):
        notices.look({"one": one})
    assert len(said) == 2
    clock[0] = 61.0
    notices.look({"one": one})
    assert said[2:] == [f"one waits: {REASON}"]


class Silent:
    """A source whose publisher never answers."""

    name, topics = "silent", ("texts",)

    def __init__(self) -> None:
        self.health = Health()
        self._closed = asyncio.Event()

    async def arrivals(self, position: str) -> AsyncIterator[Arrival]:
        self.health.state, self.health.reason = "waiting", REASON
        await self._closed.wait()
        for arrival in ():
            yield arrival

    async def close(self) -> None:
        self._closed.set()
        self.health.state, self.health.reason = "closed", ""


def stood(home: Path) -> str:
    async def read() -> str:
        async with SqliteState(home / FOLDER / STATE_FILE) as state:
            return (await kept_health(state))["silent"][0].state

    return asyncio.run(read())


def until(said: list[str]) -> None:
    deadline = time.monotonic() + 10.0
    while not said and time.monotonic() < deadline:
        time.sleep(0.02)


def test_a_session_says_why_a_source_waits_and_leaves_it_closed(tmp_path: Path):
    said: list[str] = []
    with Listening(Settings(), tmp_path, ("BTC/USDT",), say=said.append, sources=[Silent()]):
        until(said)
    assert said == [f"silent waits: {REASON}"]
    assert stood(tmp_path) == "closed"


def test_a_station_says_why_a_source_waits_and_counts_it_so(tmp_path: Path):
    said: list[str] = []

    async def run() -> Station:
        end = asyncio.Event()
        station = Station(Settings(), tmp_path, instruments=("BTC/USDT",), start=None, sources=[Silent()], say=said.append)
        working = asyncio.create_task(station.run(end))
        async with asyncio.timeout(10.0):
            while not said:
                await asyncio.sleep(0.02)
        end.set()
        await working
        return station

    health = asyncio.run(run()).counts.health["silent"]
    assert said == [f"silent waits: {REASON}"]
    assert (health.state, health.reason) == ("waiting", REASON)
    assert stood(tmp_path) == "closed"


def test_a_station_that_could_do_nothing_does_not_wait_for_ever(tmp_path: Path):
    with pytest.raises(ConfigError, match="no live source can run"):
        asyncio.run(Station(Settings(), tmp_path, instruments=(), start=None, sources=[]).run(asyncio.Event()))
