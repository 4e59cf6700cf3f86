"""Live sources and signal agents without a book: what a machine of a cluster runs, or one that only wants to look.

Sources put their messages on the bus; agents read them there and put signals on it, each agent a group of its own with an inbox of its own,
so that every message takes effect once and a killed station goes on where it stood. With `data.streams.backend: servers` sources and agents
may run on different machines, and with `learn.runtime.backend: ray` agents live on a Ray cluster; nothing else changes.

An agent reads everything: its group carries the identity of its home, so stations of two homes each read all that the bus holds, and say
the same signals under the same ids.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from cryptoalpha.app.settings import Settings
from cryptoalpha.app.streams.listening import BUS_FILE, FOLDER, STATE_FILE, keep_health
from cryptoalpha.app.streams.opened import Notices, opened_sources
from cryptoalpha.core.clock import Clock, SystemClock
from cryptoalpha.core.errors import ConfigError, StoreError, VenueError
from cryptoalpha.core.seeds import stream
from cryptoalpha.core.values import Signal
from cryptoalpha.data.bus.contract import Bus
from cryptoalpha.data.bus.envelope import Envelope
from cryptoalpha.data.bus.inbox import Inbox
from cryptoalpha.data.bus.open import open_bus
from cryptoalpha.data.bus.own_group import own_group
from cryptoalpha.data.bus.worker import Worker
from cryptoalpha.data.sources.contract import Health, Source
from cryptoalpha.data.sources.pump import Pump
from cryptoalpha.signals.agents.anywhere import Agent, open_agents
from cryptoalpha.signals.agents.opening import sources_by_agent
from cryptoalpha.signals.agents.rebuilding import rebuild
from cryptoalpha.store.state.contract import StateStore
from cryptoalpha.store.state.open import open_state
from cryptoalpha.store.tables import Dataset

READ_BY_AGENTS = ("market", "texts", "chain", "readings")
_TICK_SECONDS, _LOOK_SECONDS, _HEALTH_SECONDS = 0.05, 0.5, 5.0
_LOGGER = logging.getLogger(__name__)


@dataclass
class StationCounts:
    """What a station has done."""

    health: Mapping[str, Health] = field(default_factory=dict)
    handled: dict[str, int] = field(default_factory=dict)
    """Messages by agent."""
    repeats: dict[str, int] = field(default_factory=dict)
    dead: dict[str, int] = field(default_factory=dict)
    lag: dict[str, int] = field(default_factory=dict)
    """Messages that wait for an agent."""
    signals: dict[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, object]:
        return {
            "sources": {
                name: {"messages": one.messages, "state": one.state, "why": one.reason, "dead": one.dead}
                for name, one in self.health.items()
            },
            "agents": {
                name: {
                    "handled": self.handled[name],
                    "repeats": self.repeats[name],
                    "dead": self.dead[name],
                    "waiting": self.lag.get(name, 0),
                    "signals": self.signals[name],
                }
                for name in self.handled
            },
        }


class Station:
    """Runs sources, agents or both until told to end; an asynchronous context manager.

    Args:
        home: the store; bus, state and inboxes lie in its folder `streams`.
        start: what agents know at the beginning; None runs no agents.
        listens: whether sources run here.
        sources: instead of those of the settings.
        heard: told every signal.

    Raises (on entering):
        CryptoAlphaError: if bus, state or a model cannot be opened, or nothing would run.
    """

    def __init__(
        self,
        settings: Settings,
        home: Path,
        *,
        instruments: Sequence[str],
        start: Dataset | None,
        listens: bool = True,
        sources: Sequence[Source] | None = None,
        say: Callable[[str], None] = lambda text: None,
        alert: Callable[[str, str], None] = lambda subject, text: None,
        heard: Callable[[Signal], None] = lambda signal: None,
        clock: Clock | None = None,
    ) -> None:
        self._settings, self._folder, self._instruments = settings, home / FOLDER, tuple(instruments)
        self._start, self._listens, self._given = start, listens, sources
        self._say, self._alert, self._heard, self._clock = say, alert, heard, clock or SystemClock()
        self.counts = StationCounts()
        self._workers: dict[str, Worker] = {}

    async def run(self, end: asyncio.Event) -> None:
        """Work until `end` is set.

        Raises:
            CryptoAlphaError: if an agent or the bus fails for good.
        """
        config = self._settings.data.streams
        async with AsyncExitStack() as stack:
            state = open_state(config.backend, path=self._folder / STATE_FILE, address=config.redis_address, clock=self._clock)
            bus = open_bus(config, self._folder / BUS_FILE)
            async with state, bus, self._sources(state, bus):
                agents: Mapping[str, Agent] = {}
                if self._start is not None:
                    names = sources_by_agent(self._settings.signals)
                    opened = open_agents(names, self._settings.signals, self._start, self._settings.learn.runtime, clock=self._clock)
                    agents = await stack.enter_async_context(opened)
                tasks = [asyncio.create_task(self._agent(name, agent, bus, end), name=f"agent {name}") for name, agent in agents.items()]
                tasks.append(asyncio.create_task(self._watch(state, end), name="watch"))
                waiting = asyncio.create_task(end.wait())
                await asyncio.wait({*tasks, waiting}, return_when=asyncio.FIRST_COMPLETED)
                end.set()
                for worker in self._workers.values():
                    worker.stop()
                results = await asyncio.gather(*tasks, waiting, return_exceptions=True)
                await self.count()
                for result in results:
                    if isinstance(result, BaseException):
                        raise result

    @asynccontextmanager
    async def _sources(self, state: StateStore, bus: Bus) -> AsyncIterator[None]:
        if not self._listens:
            if self._settings.data.streams.backend == "embedded":
                self._say("no source runs here, and nobody else reaches a bus in this process's files: agents read what it holds, no more")
            yield
            return
        config = self._settings.data.streams.sources
        with opened_sources(
            self._settings, self._folder, state, self._instruments, say=self._say, alert=self._alert, clock=self._clock, given=self._given
        ) as sources:
            if not sources and self._start is None:
                raise ConfigError(
                    "no live source can run here, and no agents would", hint="switch one on, or see `check --set data.streams.listen=true`"
                )
            async with Pump(
                bus,
                state,
                sources,
                position_seconds=config.position_seconds,
                most_waiting=config.most_waiting,
                alert=self._alert,
                seed=self._settings.engine.seed,
            ) as pump:
                self.counts.health = pump.health
                pump.start()
                try:
                    yield
                finally:  # as they fared, not that they were closed
                    self.counts.health = {name: replace(one) for name, one in pump.health.items()}
            await self._keep(state, pump.health)

    async def _agent(self, name: str, agent: Agent, bus: Bus, end: asyncio.Event) -> None:
        """One agent: its worker, and the clock that lets it speak while nothing comes."""
        config = self._settings.data.streams.worker
        self.counts.signals[name] = 0

        async def handle(envelopes: Sequence[Envelope]) -> Sequence[Envelope]:
            return self._told(name, await agent(envelopes))

        group = own_group(self._folder, f"agent/{name}")
        async with Inbox(self._folder / f"inbox_{name}.sqlite", group, config, clock=self._clock) as inbox:
            handled = await inbox.progress()
            await rebuild(agent, self._settings.signals.agents, bus, READ_BY_AGENTS, handled, group=f"rebuild/{group}")
            random = stream(self._settings.engine.seed, "station", name)
            worker = Worker(bus, inbox, handle, topics=READ_BY_AGENTS, config=config, random=random)
            self._workers[name] = worker
            ticking = asyncio.create_task(self._tick(name, agent, bus, end))
            try:
                await worker.run()
            finally:
                end.set()
                await ticking

    async def _tick(self, name: str, agent: Agent, bus: Bus, end: asyncio.Event) -> None:
        """Signals that became due because time passed. Their ids are made of what they are about: said twice, they are recognised."""
        due: list[Envelope] = []
        while not end.is_set():
            await asyncio.sleep(_TICK_SECONDS)
            due += self._told(name, await agent.due())
            if due:
                try:
                    await bus.publish(due)
                except (StoreError, VenueError) as error:  # a broker that comes back takes them
                    _LOGGER.debug("signals of %s wait: %s", name, error)
                else:
                    due = []

    def _told(self, name: str, said: list[Envelope]) -> list[Envelope]:
        self.counts.signals[name] += len(said)
        for envelope in said:
            value = envelope.value()
            if isinstance(value, Signal):
                self._heard(value)
        return said

    async def _watch(self, state: StateStore, end: asyncio.Event) -> None:
        """Say how sources fare where that changes, write it down now and then, and count what agents did."""
        notices, now = Notices(self._say), asyncio.get_running_loop().time
        written = -_HEALTH_SECONDS
        while not end.is_set():
            notices.look(self.counts.health)
            if now() - written >= _HEALTH_SECONDS:
                written = now()
                await self.count()
                await self._keep(state, self.counts.health)
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await end.wait()

    async def _keep(self, state: StateStore, health: Mapping[str, Health]) -> None:
        """Write down how sources fare; a state that cannot be written holds nobody up, and `status` calls them not running."""
        try:
            await keep_health(state, health, self._clock.now())
        except StoreError as error:
            _LOGGER.debug("how sources fare is not written down: %s", error)

    async def count(self) -> None:
        """Bring `counts` up to date."""
        for name, worker in self._workers.items():
            self.counts.handled[name] = worker.counts.handled
            self.counts.repeats[name] = worker.counts.repeats
            self.counts.dead[name] = worker.counts.dead
            with suppress(StoreError, VenueError):  # a broker that is away does not say
                self.counts.lag[name] = await worker.lag()
