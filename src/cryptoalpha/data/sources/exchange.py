"""Live exchanges: one source per venue, one connection per family of streams, and REST for what a connection lost.

A connection that dies is opened again after a growing wait and stops no other. Trades are resumed by number where the venue counts them, by
time where it does not; candles by their opens; a book waits for a whole one. What came over REST has the ids it would have had over the
socket. Everything is recorded before it is read, answers too, and a replay reads it by the same code (`market_reader`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import aiohttp

from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.core.time import parse_interval
from cryptoalpha.data.bus.envelope import Envelope
from cryptoalpha.data.sources.contract import Arrival, DeadLetter, Health
from cryptoalpha.data.sources.exchange_config import ExchangeSection
from cryptoalpha.data.sources.exchange_mending import Mender
from cryptoalpha.data.sources.exchange_sockets import Heard, Sockets
from cryptoalpha.data.sources.market_reader import MARKET, READINGS, MarketReader
from cryptoalpha.data.sources.opening import Tools
from cryptoalpha.data.sources.reconnect import Line, lasting
from cryptoalpha.data.sources.section import SourceSection
from cryptoalpha.data.sources.venues.wiring import Plan, wiring_of

_MOST_WAITING: Final = 5_000
"""Raw messages that wait to be read; beyond that connections are not read, and TCP tells the venue."""
_MOST_TOGETHER: Final = 256
_CLOCK_SECONDS: Final = 0.25
"""How far our clock may be behind a venue's before people are told."""
_LOG = logging.getLogger(__name__)


def open_source(section: SourceSection, tools: Tools) -> Sequence[ExchangeSource]:
    """One source per configured venue.

    Raises:
        ConfigError: if an instrument is none, or there is none.
    """
    if not isinstance(section, ExchangeSection):
        raise ConfigError(f"{type(section).__name__} are no settings of exchanges")
    return [ExchangeSource(venue, section, tools) for venue in section.venues]


class _PartHealth(Health):
    """The health of one family of streams; every change of state is told to the source's own."""

    def __init__(self, source: ExchangeSource) -> None:
        super().__init__()
        self._source: ExchangeSource | None = source

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name in ("state", "reason", "reconnects") and getattr(self, "_source", None) is not None:
            self._source.sum_up()  # type: ignore[union-attr]


class ExchangeSource:
    """One venue.

    Args:
        venue: its name in `venues.wiring`.
        section: what to listen to.
        tools: what sources share; `tools.instruments` where the section names none.

    Raises:
        ConfigError: if there is no instrument, or nothing of what is wanted is streamed there.
    """

    topics: tuple[str, ...] = (MARKET, READINGS)

    def __init__(self, venue: str, section: ExchangeSection, tools: Tools) -> None:
        self.name, self.health = venue, Health()
        self._section, self._tools, self._wiring = section, tools, wiring_of(venue)
        parse_interval(section.bar_interval)
        wanted = section.instruments or tools.instruments
        listed = (self._wiring.instrument(name) for name in wanted)
        self.instruments = tuple(dict.fromkeys(name for name in listed if name))
        families = tuple(family for family in section.streams if family in self._wiring.families)
        if not self.instruments or not families:
            raise ConfigError(
                f"{venue}: {len(self.instruments)} instruments and {len(families)} streams to listen to",
                hint="name both in data.streams.sources.exchange, or leave the venue out",
            )
        self.plans: list[Plan] = self._wiring.plans(families, self.instruments, section.bar_interval)
        self.streams: dict[str, Health] = {}
        """Health of every family of streams."""
        self.health.parts = self.streams
        self.reader = MarketReader(venue, levels=section.book_levels, health=self.health)
        self._mending, self._is_behind = Health(), False
        self._lines: dict[str, Line] = {}
        self._queue: asyncio.Queue[Heard] = asyncio.Queue(_MOST_WAITING)
        self._stirred = asyncio.Event()
        self._end = asyncio.Event()
        self._dead: dict[str, ConfigError] = {}

    async def arrivals(self, position: str) -> AsyncIterator[Arrival]:
        """Everything from `position` on: what was missed meanwhile is asked for, as far back as the venue goes."""
        section, tools = self._section, self._tools
        self.reader = MarketReader(
            self.name, levels=section.book_levels, position=position, most_missed=section.most_missed, health=self.health
        )
        self._queue, self._dead = asyncio.Queue(_MOST_WAITING), {}
        for plan in self.plans:
            self.streams[plan.family] = _PartHealth(self)
            self._lines[plan.family] = tools.line(f"{self.name}.{plan.family}", section, self.streams[plan.family])
        self._mending = _PartHealth(self)
        line = self._lines["mending"] = tools.line(f"{self.name}.mending", section, self._mending)
        limiter = tools.limiter(self.name, section, self.health, line=line)
        tasks: list[asyncio.Task[None]] = []
        async with aiohttp.ClientSession() as session:
            sockets = Sockets(session, tools.clock, endpoint=section.endpoint, quiet_seconds=section.quiet_seconds)
            mender = Mender(
                self.reader,
                self._wiring,
                section,
                self.instruments,
                clock=tools.clock,
                sockets=sockets,
                limiter=limiter,
                line=line,
                wait=tools.wait,
                put=self._put,
            )
            try:
                await mender.prepare(tuple(self.streams))
                tasks += [asyncio.create_task(self._watch(plan, sockets)) for plan in self.plans]
                tasks.append(asyncio.create_task(mender.run()))
                tasks.append(asyncio.create_task(mender.run_regularly(tuple(self.streams))))
                for task in tasks:
                    task.add_done_callback(self._stir)
                while (together := await self._next(tasks)) is not None:
                    envelopes, dead = self._read(together, mender)
                    mender.look()
                    if envelopes or dead:
                        yield Arrival(tuple(envelopes), self.reader.position, tuple(dead))
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self) -> None:
        """Let go of every connection; the iterator ends."""
        self._end.set()
        for line in self._lines.values():
            line.close()
        self._stirred.set()
        self.health.state, self.health.reason = "closed", ""

    def sum_up(self) -> None:
        """The source's state out of those of its streams: connected while one of them is, and why not the others."""
        if self._end.is_set():
            return
        parts = self.streams
        why: dict[str, list[str]] = {}
        for name, part in sorted(parts.items()):
            if part.state != "connected":
                why.setdefault(part.reason or part.state, []).append(name)
        told = [f"{', '.join(names)}: {reason}" for reason, names in why.items()]
        connected = any(part.state == "connected" for part in parts.values())
        told += [f"{name}: refused {text}" for name, text in sorted(self.reader.refusals.items())]
        if self._is_behind:
            told.append(f"our clock is at least {-(self.reader.least_lag or 0.0):.2f} s behind the venue's")
        if connected or all(part.state == "starting" for part in parts.values()):
            self.health.state = "connected" if connected else "starting"
        else:
            self.health.state = "waiting"
        self.health.reason = "; ".join(told) if connected or self.health.state == "waiting" else ""
        self.health.reconnects = sum(part.reconnects for part in (*parts.values(), self._mending))

    async def _watch(self, plan: Plan, sockets: Sockets) -> None:
        """One family of streams, for ever."""
        try:
            async for heard in lasting(lambda: sockets.connection(plan), self._lines[plan.family], catches=(aiohttp.ClientError,)):
                await self._put(heard)
        except ConfigError as error:
            self._dead[plan.family] = error
            _LOG.warning("%s.%s ended: %s", self.name, plan.family, error)

    async def _put(self, heard: Heard) -> None:
        if self._tools.record is not None and heard.raw:
            self._tools.record(f"{self.name}.{heard.family}", heard.received_at, heard.raw)
        await self._queue.put(heard)
        self._stirred.set()

    def _stir(self, task: asyncio.Task[None]) -> None:
        self._stirred.set()

    async def _next(self, tasks: Sequence[asyncio.Task[None]]) -> list[Heard] | None:
        """What waits to be read; None when the source was closed.

        Raises:
            ConfigError: if no stream of this venue can ever work.
        """
        while not self._end.is_set():
            together: list[Heard] = []
            while len(together) < _MOST_TOGETHER and not self._queue.empty():
                together.append(self._queue.get_nowait())
            if together:
                return together
            if self._dead and len(self._dead) == len(self.plans):
                raise next(iter(self._dead.values()))
            for task in tasks:
                if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                    raise error  # a fault of ours: whoever runs the source hears of it
            self._stirred.clear()
            if self._queue.empty():
                await self._stirred.wait()
        return None

    def _read(self, together: Sequence[Heard], mender: Mender) -> tuple[list[Envelope], list[DeadLetter]]:
        envelopes: list[Envelope] = []
        dead: list[DeadLetter] = []
        reader, health = self.reader, self.health
        for heard in together:
            if heard.opened:
                reader.opened(heard.family, self.instruments if heard.family == "books" else ())
                if heard.family == "trades":
                    mender.want_recent()
                continue
            stream = self.streams.get(heard.family)
            found: list[Envelope] = []
            try:
                found = reader.read(heard.raw, heard.received_at, connection=heard.family)
                envelopes += found
            except DataError as error:
                health.dead += 1
                dead.append(DeadLetter(self.name, str(error), heard.raw, heard.received_at))
            if stream is not None:
                stream.messages += len(found)
                stream.last_message, stream.last_event, stream.lag_seconds = heard.received_at, health.last_event, health.lag_seconds
            if heard.done is not None:
                heard.done.set()
        health.least_lag_seconds = reader.least_lag
        if ((reader.least_lag or 0.0) < -_CLOCK_SECONDS) != self._is_behind:
            self._is_behind = not self._is_behind
            self.sum_up()
        return envelopes, dead
