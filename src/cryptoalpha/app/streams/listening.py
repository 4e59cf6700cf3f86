"""Live sources of a session, in a thread of their own: what they bring goes through the bus and the sieve, and waits for the next bar.

The engine's thread never waits for a source, a broker or a disk of this side: it takes what is there (`hearing`). Nothing here ends a
session that trades: where bus or state cannot be opened, or fail, people are told once and they are opened again after a while, as often as
it takes; a file that is moved away, or a server that comes back, mends it without a restart.

How each source fares is written into the state store now and then, where `cryptoalpha status` finds it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Self

from cryptoalpha.app.live.feed import End
from cryptoalpha.app.settings import Settings
from cryptoalpha.app.streams.heard_before import Kept
from cryptoalpha.app.streams.hearing import Hearing
from cryptoalpha.app.streams.opened import Notices, opened_pump
from cryptoalpha.app.streams.servers import FOLDER, Servers, servers_of
from cryptoalpha.app.streams.standing import HEALTH_SECONDS, keep_health
from cryptoalpha.app.streams.taking import Heard
from cryptoalpha.core.clock import Clock, SystemClock
from cryptoalpha.core.errors import ConfigError, StoreError, VenueError
from cryptoalpha.data.bus.contract import Bus, Consumer
from cryptoalpha.data.bus.own_group import own_group
from cryptoalpha.data.sources.contract import Health, Source
from cryptoalpha.data.sources.pump import Pump
from cryptoalpha.store.state.contract import StateStore

TOPICS = ("texts", "chain", "readings")
"""What a book reads. Markets come to it as closed bars (`data.live`)."""

_LOOK_SECONDS = 0.1
_PATIENCE_SECONDS = 20.0
"""How long the first opening, and closing, may take."""


class Listening:
    """A context manager around the thread.

    Args:
        home: the store; what is kept lies in its folder `streams`.
        instruments: what is traded.
        say: told about sources that run and that cannot.
        alert: told what people should know: a budget spent, a source ended, a log lost, streams that cannot be opened.
        sources: instead of those of the settings.
        servers: where messages and state are kept, instead of those of the settings.
        again_seconds: wait before what failed is opened again.

    Raises (on entering):
        ConfigError: if bus, state or sources can never work as they are configured.
    """

    def __init__(
        self,
        settings: Settings,
        home: Path,
        instruments: Sequence[str],
        *,
        say: Callable[[str], None],
        alert: Callable[[str, str], None] = lambda subject, text: None,
        clock: Clock | None = None,
        sources: Sequence[Source] | None = None,
        servers: Servers | None = None,
        again_seconds: float = 30.0,
    ) -> None:
        self._settings, self._folder, self._instruments = settings, home / FOLDER, tuple(instruments)
        self._say, self._alert, self._clock, self._given = say, alert, clock or SystemClock(), sources
        self._servers = servers or servers_of(settings, home, clock=self._clock)
        self._again_seconds = again_seconds
        assets = tuple(name.split("/")[0] for name in self._instruments)
        self._hearing = Hearing(settings.signals.agents, assets, self._clock, alert)
        self.counts = self._hearing.counts
        self._health: Mapping[str, Health] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: asyncio.Event | None = None
        self._tried, self._over = threading.Event(), End()
        self._trouble = ""
        self._is_told = False
        self._prices: dict[str, float] = {}
        self._thread = threading.Thread(target=self._run, name="streams", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not (self._tried.wait(_LOOK_SECONDS) or self._over.is_reached):
            if time.monotonic() > deadline:
                self._alert("streams", "the live streams are not open yet; trading goes on without them until they are")
                break
        if isinstance(error := self._over.error, ConfigError):
            raise error
        return self

    def __exit__(self, *failure: object) -> None:
        if self._loop is not None and self._end is not None:
            with suppress(RuntimeError):  # the loop has ended by itself
                self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(_PATIENCE_SECONDS)

    def take(self) -> list[Heard]:
        """What came since the last time. Where the thread has ended, a person is told once, and trading goes on without streams."""
        if (error := self._over.error) is not None and not self._is_told:
            self._is_told = True
            self._alert("streams", f"the live streams have ended, trading goes on without them: {type(error).__name__}: {error}")
        return self._hearing.take()

    def stored(self) -> None:
        """What was taken lies in the history now: the place on the bus may move."""
        self._hearing.stored()

    def priced(self, closes: Mapping[str, float]) -> None:
        """The newest closes by instrument: large transfers are told by what they are worth."""
        dollars = {name.split("/")[0]: close for name, close in closes.items() if name.split("/")[-1].startswith("USD")}
        self._prices = {**self._prices, **dollars}

    def health(self) -> Mapping[str, Health]:
        """How each source fares, by name."""
        return self._health

    @property
    def trouble(self) -> str:
        """Why nothing is heard now; empty while bus and state are open."""
        return self._trouble if self._over.error is None else str(self._over.error)

    def _run(self) -> None:
        with self._over:
            asyncio.run(self._lasting())

    async def _lasting(self) -> None:
        """Listen, and again after each failure of bus or state, until told to end."""
        self._loop, self._end = asyncio.get_running_loop(), (end := asyncio.Event())
        while not end.is_set():
            try:
                await self._listen(end)
            except (StoreError, VenueError) as error:
                self._troubled(f"{error} → {error.hint}" if error.hint else f"{error}")
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._again_seconds):
                        await end.wait()

    def _troubled(self, why: str) -> None:
        if why != self._trouble:
            self._alert("streams", f"the live streams cannot be heard, trading goes on without them until they can: {why}")
        self._trouble = why
        self._tried.set()

    async def _listen(self, end: asyncio.Event) -> None:
        async with self._servers.state() as state, self._servers.bus() as bus, AsyncExitStack() as stack:
            group = own_group(self._folder, "book")
            consumer = Kept(await bus.subscribe(group, TOPICS), state, group)
            stack.push_async_callback(consumer.close)
            async with opened_pump(
                self._settings, self._folder, bus, state, self._instruments, say=self._say, alert=self._alert, clock=self._clock,
                given=self._given, prices=lambda: self._prices,
            ) as pump:  # fmt: skip
                if self._trouble:
                    self._trouble = ""
                    self._say("the live streams are heard again")
                self._health = pump.health
                self._tried.set()
                await self._hearing.remember(bus, state, group)
                await self._turn(bus, state, consumer, pump, end)
            await self._keep_health(state, pump.health)  # closed, so that `status` calls nobody connected

    async def _turn(self, bus: Bus, state: StateStore, consumer: Consumer, pump: Pump, end: asyncio.Event) -> None:
        """Until told to end."""
        now = asyncio.get_running_loop().time
        written, notices = -HEALTH_SECONDS, Notices(self._say)
        while not end.is_set():
            await self._hearing.look(bus, consumer, end)
            notices.look(pump.health)
            if now() - written >= HEALTH_SECONDS:
                await self._keep_health(state, pump.health)
                written = now()
        await self._hearing.commit(consumer)

    async def _keep_health(self, state: StateStore, health: Mapping[str, Health]) -> None:
        """Write down how sources fare; a state that cannot be written holds nobody up, and `status` calls them not running."""
        try:
            await keep_health(state, health, self._clock.now())
        except StoreError:
            self.counts["outages"] += 1
