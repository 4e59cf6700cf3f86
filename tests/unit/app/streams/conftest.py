"""Servers that fail now and then, for whoever listens to them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cryptoalpha.app.settings import Settings
from cryptoalpha.app.streams.servers import Servers, servers_of
from cryptoalpha.core.clock import Clock
from cryptoalpha.core.errors import StoreError, VenueError
from cryptoalpha.data.bus.contract import Bus
from cryptoalpha.store.state.contract import StateStore


class Unsteady:
    """What fails at every second call of some names, as servers do that are started again."""

    def __init__(self, inner: object, names: Collection[str], error: type[Exception], failed: list[str], calls: int) -> None:
        self._inner, self._names, self._error, self._failed, self._calls = inner, names, error, failed, calls

    def __getattr__(self, name: str) -> object:
        found = getattr(self._inner, name)
        if name not in self._names:
            return found

        async def unsteady(*given: object, **named: object) -> object:
            self._calls += 1
            if self._calls % 2:
                self._failed.append(name)
                raise self._error("the server is started again")
            return await found(*given, **named)

        return unsteady


@pytest.fixture
def unsteady_servers() -> Callable[..., Servers]:
    """The servers of some settings, whose bus, readers and state fail at every second of the calls named; `failed` is told what did."""

    def servers(
        settings: Settings,
        home: Path,
        *,
        of_bus: Collection[str] = (),
        of_readers: Collection[str] = (),
        of_state: Collection[str] = (),
        failed: list[str] | None = None,
        clock: Clock | None = None,
        begins_well: bool = False,
    ) -> Servers:
        real, noted = servers_of(settings, home, clock=clock), [] if failed is None else failed

        before = int(begins_well)

        class Opened(Unsteady):
            async def subscribe(self, *given: object, **named: object) -> Unsteady:
                return Unsteady(await self._inner.subscribe(*given, **named), of_readers, VenueError, noted, before)  # type: ignore[attr-defined]

        @asynccontextmanager
        async def bus() -> AsyncIterator[Bus]:
            async with real.bus() as opened:
                yield Opened(opened, of_bus, VenueError, noted, before)  # type: ignore[misc]

        @asynccontextmanager
        async def state() -> AsyncIterator[StateStore]:
            async with real.state() as opened:
                yield Unsteady(opened, of_state, StoreError, noted, before)  # type: ignore[misc]

        return Servers(bus, state)

    return servers
