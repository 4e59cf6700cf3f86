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
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from cryptoalpha.app.settings import Settings
from cryptoalpha.app.streams.hearing import told_of_loss
from cryptoalpha.app.streams.opened import Notices, opened_pump
from cryptoalpha.app.streams.servers import FOLDER, Servers, runtime_of, servers_of
from cryptoalpha.app.streams.standing import HEALTH_SECONDS, keep_health
from cryptoalpha.core.clock import Clock, SystemClock
from cryptoalpha.core.errors import ConfigError, StoreError, VenueError, WorkerDiedError
from cryptoalpha.core.seeds import stream
from cryptoalpha.core.values import Signal
from cryptoalpha.data.bus.contract import Bus, Place, Progress, Regress
from cryptoalpha.data.bus.envelope import Envelope
from cryptoalpha.data.bus.inbox import Inbox
from cryptoalpha.data.bus.own_group import own_group
from cryptoalpha.data.bus.worker import Worker
from cryptoalpha.data.sources.contract import Health, Source
from cryptoalpha.signals.agents.anywhere import Agent, open_agents
from cryptoalpha.signals.agents.opening import sources_by_agent
from cryptoalpha.signals.agents.rebuilding import rebuild
from cryptoalpha.store.state.contract import StateStore
from cryptoalpha.store.tables import Dataset

READ_BY_AGENTS = ("market", "texts", "chain", "readings")
_TICK_SECONDS, _LOOK_SECONDS, _ANSWER_SECONDS = 0.05, 0.5, 2.0
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
    """Runs sources, agents or both until told to end.

    Args:
        home: the store; bus, state and inboxes lie in its folder `streams`.
        start: what agents know at the beginning; None runs no agents.
        listens: whether sources run here.
        sources: instead of those of the settings.
        heard: told every signal.
        servers: where messages and state are kept, instead of those of the settings.
        patience_seconds: how long agents may take to finish what they have in hand once the station is told to end.
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
        servers: Servers | None = None,
        patience_seconds: float = 5.0,
    ) -> None:
        self._settings, self._folder, self._instruments = settings, home / FOLDER, tuple(instruments)
        self._servers, self._patience_seconds = servers or servers_of(settings, home, clock=clock), patience_seconds
        self._start, self._listens, self._given = start, listens, sources
        self._say, self._alert, self._heard, self._clock = say, alert, heard, clock or SystemClock()
        self.counts = StationCounts()
        self._workers: dict[str, Worker] = {}

    async def run(self, end: asyncio.Event) -> None:
        """Work until `end` is set.

        Raises:
            CryptoAlphaError: if bus, state, an inbox or a model cannot be opened, nothing would run, or an agent fails for good.
        """
        async with self._servers.state() as state, self._servers.bus() as bus, self._sources(state, bus):
            if self._start is None:
                await self._together({}, bus, state, end)
                return
            config = self._settings.signals
            runtime = runtime_of(self._settings)
            async with open_agents(sources_by_agent(config), config, self._start, runtime, clock=self._clock) as agents:
                await self._together(agents, bus, state, end)

    async def _together(self, agents: Mapping[str, Agent], bus: Bus, state: StateStore, end: asyncio.Event) -> None:
        """Agents and the watch, until told to end or one of them fails.

        Agents then finish the batch in hand. One that has not begun to work, or that waits for a broker or a store, is cancelled: what it
        had in hand comes again, and whoever told the station to end does not wait for a server that is away.
        """
        tasks = {name: asyncio.create_task(self._agent(name, agent, bus, end), name=f"agent {name}") for name, agent in agents.items()}
        everything = [*tasks.values(), asyncio.create_task(self._watch(state, end), name="watch")]
        waiting = asyncio.create_task(end.wait())
        try:
            await asyncio.wait({*everything, waiting}, return_when=asyncio.FIRST_COMPLETED)
            end.set()
            await self.count()
            for name, task in tasks.items():
                if name in self._workers:
                    self._workers[name].stop()
                else:
                    task.cancel()
            await asyncio.wait(everything, timeout=self._patience_seconds)
        finally:
            waiting.cancel()
            await _ended(everything)
            self._add_up()

    @asynccontextmanager
    async def _sources(self, state: StateStore, bus: Bus) -> AsyncIterator[None]:
        if not self._listens:
            if self._settings.data.streams.backend == "embedded":
                self._say("no source runs here, and nobody else reaches a bus in this process's files: agents read what it holds, no more")
            yield
            return
        async with opened_pump(
            self._settings, self._folder, bus, state, self._instruments, say=self._say, alert=self._alert, clock=self._clock,
            given=self._given,
        ) as pump:  # fmt: skip
            if not pump.health and self._start is None:
                raise ConfigError(
                    "no live source can run here, and no agents would", hint="switch one on, or see `check --set data.streams.listen=true`"
                )
            self.counts.health = pump.health
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
            handled = await inbox.progress() or await self._begun(inbox, bus)
            await rebuild(agent, self._settings.signals.agents, bus, READ_BY_AGENTS, handled, group=f"rebuild/{group}")
            random = stream(self._settings.engine.seed, "station", name)
            worker = Worker(bus, inbox, handle, topics=READ_BY_AGENTS, config=config, random=random, on_regress=self._lost)
            self._workers[name] = worker
            both = [asyncio.create_task(worker.run()), asyncio.create_task(self._tick(name, agent, bus, end))]
            try:
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                end.set()  # one of them failed, or was told to
                worker.stop()
                await asyncio.wait(both)
            finally:
                await _ended(both)

    async def _begun(self, inbox: Inbox, bus: Bus) -> dict[Place, Progress]:
        """A new inbox reads all that the bus holds, whatever the bus remembers of its group: an agent that remembers nothing of what the
        group had read would speak of half. What it says again has the ids it had."""
        settings = self._settings.data.streams.bus
        topics = [name for name in READ_BY_AGENTS if settings.topic(name).start == "earliest"]
        if not topics:
            return {}
        consumer = await bus.subscribe(inbox.group, topics)
        try:
            while not (places := dict.fromkeys(await consumer.lag(), Progress(0))):
                await consumer.take(1, wait_seconds=_LOOK_SECONDS)  # partitions are given to who asks
            await consumer.commit(places)
        finally:
            await consumer.close()
        await inbox.settle([], places, [])
        return places

    def _lost(self, lost: Regress) -> None:
        if lost.following:  # a new inbox has lost nothing
            self._alert("stream_log", told_of_loss(lost))

    async def _tick(self, name: str, agent: Agent, bus: Bus, end: asyncio.Event) -> None:
        """Signals that became due because time passed. Their ids are made of what they are about: said twice, they are recognised."""
        due: list[Envelope] = []
        while not end.is_set():
            await asyncio.sleep(_TICK_SECONDS)
            try:
                due += self._told(name, await agent.due())
                await bus.publish(due)
            except (StoreError, VenueError, WorkerDiedError) as error:  # a broker that comes back takes them, an agent is built again
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
        written = -HEALTH_SECONDS
        while not end.is_set():
            notices.look(self.counts.health)
            if now() - written >= HEALTH_SECONDS:
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
        self._add_up()
        for name, worker in self._workers.items():
            with suppress(StoreError, VenueError, TimeoutError):  # a broker that is away does not say
                async with asyncio.timeout(_ANSWER_SECONDS):
                    self.counts.lag[name] = await worker.lag()

    def _add_up(self) -> None:
        for name, worker in self._workers.items():
            self.counts.handled[name] = worker.counts.handled
            self.counts.repeats[name] = worker.counts.repeats
            self.counts.dead[name] = worker.counts.dead


async def _ended(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel what still runs; raises the first failure there was."""
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            raise result
