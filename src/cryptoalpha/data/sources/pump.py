"""Runs live sources side by side: what they bring goes on the bus, then the place they have come to is kept.

The order is the promise: a position is written only after the messages before it are kept, so a crash in between fetches them again, with
the same ids, and nothing is lost. A source that fails is started again from its position, one that can never work is ended, and neither
stops another. While the bus does not take messages, they are offered again and the source is not read further.

Each source has a reader and a sender. What came while one publication was under way goes out with the next, so a busy source pays the
bus's commit once for many messages. Positions are written at most every `position_seconds`, and when the source ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, Final, Protocol, Self

from cryptoalpha.core.backoff import Backoff
from cryptoalpha.core.errors import ConfigError, CryptoAlphaError, DataError, StoreError, VenueError
from cryptoalpha.core.seeds import stream
from cryptoalpha.data.bus.dead import dead_letter
from cryptoalpha.data.bus.envelope import Envelope
from cryptoalpha.data.sources.contract import Arrival, Health, Source
from cryptoalpha.data.sources.limits import Alert
from cryptoalpha.data.sources.reconnect import Wait, until_either
from cryptoalpha.store.state.contract import StateStore

AREA: Final = "position"
_LOGGER = logging.getLogger(__name__)
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0
_PATIENCE: Final = 8
"""Failures in a row, without a message between them, after which a source that breaks by an error of its own is given up."""


class Publishes(Protocol):
    """The part of a bus that is needed."""

    async def publish(self, envelopes: Sequence[Envelope]) -> None: ...


class Pump:
    """Sources to bus; `async with Pump(...) as pump: await pump.run()`.

    Args:
        bus: where messages go.
        state: where positions are kept, as `position/SOURCE`.
        sources: of different names.
        position_seconds: how often at most a position is written.
        most_waiting: messages of a source that may wait for the bus; beyond that it is not read.
        wait: lets time pass between attempts.
        alert: told when a source has ended for good.

    Raises:
        ConfigError: if two sources share a name.
    """

    def __init__(
        self,
        bus: Publishes,
        state: StateStore,
        sources: Sequence[Source],
        *,
        position_seconds: float = 0.2,
        most_waiting: int = 2_000,
        wait: Wait = asyncio.sleep,
        alert: Alert = lambda subject, text: None,
        seed: int = 0,
    ) -> None:
        names = [source.name for source in sources]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ConfigError(f"two sources are named {', '.join(twice)}", hint="positions are kept by name: give each its own")
        self._end = asyncio.Event()
        self._alert = alert
        self._streams = {
            source.name: _Stream(
                source, bus, state, self._end, wait, position_seconds=position_seconds, most_waiting=most_waiting, seed=seed
            )
            for source in sources
        }
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    @property
    def health(self) -> Mapping[str, Health]:
        """How each source fares, by name; live objects."""
        return {name: one.source.health for name, one in self._streams.items()}

    @property
    def published(self) -> Mapping[str, int]:
        """Messages that are on the bus since the start, by source; dead letters not counted."""
        return {name: one.published for name, one in self._streams.items()}

    @property
    def ended(self) -> Mapping[str, str]:
        """Sources that have ended, and why; empty text: they were done."""
        return {name: one.ended for name, one in self._streams.items() if one.ended is not None}

    async def run(self) -> None:
        """Until all sources have ended, or `close`."""
        self.start()
        while running := {task for task in self._tasks.values() if not task.done()}:
            await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)

    def start(self) -> None:
        """Begin, without waiting. Called again, it does nothing."""
        if not self._tasks and not self._end.is_set():
            for name, one in self._streams.items():
                self._tasks[name] = asyncio.create_task(one.run(), name=f"source {name}")
                self._tasks[name].add_done_callback(lambda task, name=name: self._over(name, task))  # type: ignore[misc]

    async def close(self, timeout_seconds: float = 10.0) -> None:
        """Stop reading, put what has come on the bus, keep the positions, in at most so long. Called again, it does nothing."""
        self._end.set()
        closing = [asyncio.create_task(one.source.close()) for one in self._streams.values()]
        running = {task for task in (*self._tasks.values(), *closing) if not task.done()}
        if running:
            _, late = await asyncio.wait(running, timeout=timeout_seconds)
            for task in late:
                _LOGGER.warning("%s did not end within %g s; what it had not published is fetched again", task.get_name(), timeout_seconds)
                task.cancel()
        results = await asyncio.gather(*self._tasks.values(), *closing, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception) and not isinstance(result, CryptoAlphaError):
                _LOGGER.warning("closing a source: %s: %s", type(result).__name__, result)

    def _over(self, name: str, task: asyncio.Task[None]) -> None:
        one = self._streams[name]
        error = None if task.cancelled() else task.exception()
        one.ended = "" if error is None else f"{type(error).__name__}: {error}"
        one.source.health.state, one.source.health.reason = "closed", "" if error is None else str(error)
        if error is not None:
            level = logging.WARNING if isinstance(error, CryptoAlphaError) else logging.ERROR
            _LOGGER.log(level, "source %s has ended: %s", name, error, exc_info=None if level == logging.WARNING else error)
            hint = getattr(error, "hint", "")
            self._alert(f"source {name}", f"{name} has ended: {error}" + (f" → {hint}" if hint else ""))


class _Stream:
    """One source on its way to the bus."""

    def __init__(
        self,
        source: Source,
        bus: Publishes,
        state: StateStore,
        end: asyncio.Event,
        wait: Wait,
        *,
        position_seconds: float,
        most_waiting: int,
        seed: int,
    ) -> None:
        self.source = source
        self.published = 0
        self.ended: str | None = None
        self._bus, self._state, self._end, self._wait = bus, state, end, wait
        self._position_seconds, self._most_waiting = position_seconds, most_waiting
        self._seed = seed
        self._key = f"{AREA}/{source.name}"
        self._waiting: deque[Arrival] = deque()
        self._count = 0
        self._came, self._room = asyncio.Event(), asyncio.Event()
        self._read_all = False
        self._progressed = False
        self._position: str | None = None
        """Where the source has come to, if that is not written down yet."""
        self._unkept = False

    async def run(self) -> None:
        """Read and send until the source ends, the pump closes, or it can never work."""
        backoff = Backoff(_FIRST_WAIT, _LONGEST_WAIT, random=stream(self._seed, "pump", self.source.name))
        while not self._end.is_set():
            self._progressed = False
            error = await self._outcome()
            if error is None:
                return
            if isinstance(error, ConfigError):
                raise error
            if self._progressed:
                backoff.reset()
            if not isinstance(error, VenueError | DataError | OSError):
                # a mistake in the source: one message may have set it off, so it is tried again, but not for ever
                _LOGGER.error("source %s broke", self.source.name, exc_info=error)
                if backoff.failures >= _PATIENCE:
                    raise error
            self._say(f"{type(error).__name__}: {error}")
            await until_either(self._wait(backoff.wait()), self._end)

    async def _outcome(self) -> BaseException | None:
        """What a session ended with, whatever that is: no mistake in one source may reach another."""
        session = asyncio.create_task(self._session())
        try:
            await asyncio.wait({session})
            return session.exception()
        finally:
            session.cancel()
            await asyncio.gather(session, return_exceptions=True)

    async def _session(self) -> None:
        """From the position kept to the end of the iterator. Whatever ends the reader, what had come is sent first."""
        (kept,) = await self._state.get([self._key])
        self._waiting.clear()
        self._count, self._read_all = 0, False
        reader = asyncio.create_task(self._read("" if kept is None else kept.decode()))
        sender = asyncio.create_task(self._send())
        keeper = asyncio.create_task(self._keep())
        try:
            await asyncio.wait({reader, sender, keeper}, return_when=asyncio.FIRST_COMPLETED)
            if not reader.done():  # sender or keeper failed: the reader has nobody to read for
                reader.cancel()
            await asyncio.wait({reader})
            self._read_all = True
            self._came.set()
            await asyncio.wait({sender})
            keeper.cancel()
            await asyncio.wait({keeper})
            await self._write_position()
        finally:
            for task in (reader, sender, keeper):
                task.cancel()
            await asyncio.gather(reader, sender, keeper, return_exceptions=True)
        for task in (sender, keeper, reader):
            if not task.cancelled():
                task.result()

    async def _read(self, position: str) -> None:
        arrivals: Any = self.source.arrivals(position)
        async with aclosing(arrivals):
            async for arrival in arrivals:
                self._waiting.append(arrival)
                self._count += len(arrival.envelopes) + len(arrival.dead)
                self._came.set()
                while self._count >= self._most_waiting:
                    self._room.clear()
                    await self._room.wait()

    async def _send(self) -> None:
        while True:
            await self._came.wait()
            self._came.clear()
            arrivals = list(self._waiting)
            self._waiting.clear()
            self._count = 0
            self._room.set()
            if arrivals:
                await self._publish(arrivals)
            elif self._read_all:
                return
            if self._read_all:
                self._came.set()

    async def _publish(self, arrivals: Sequence[Arrival]) -> None:
        envelopes = [envelope for arrival in arrivals for envelope in (*arrival.envelopes, *self._sealed(arrival))]
        backoff = Backoff(_FIRST_WAIT, _LONGEST_WAIT, random=stream(self._seed, "pump", self.source.name, "bus"))
        while envelopes:
            try:
                await self._bus.publish(envelopes)
                break
            except (StoreError, VenueError) as error:
                if self._end.is_set():
                    raise  # they are fetched again at the next start
                self._say(f"the bus does not take messages: {error}")
                await until_either(self._wait(backoff.wait()), self._end)
        if backoff.failures:
            self.source.health.state, self.source.health.reason = "connected", ""
        self.published += sum(len(arrival.envelopes) for arrival in arrivals)
        self._position, self._progressed = arrivals[-1].position, True

    def _sealed(self, arrival: Arrival) -> list[Envelope]:
        topic = self.source.topics[0]
        return [
            dead_letter(topic=topic, source=letter.source, reason=letter.reason, data=letter.data, observed_time=letter.observed_time)
            for letter in arrival.dead
        ]

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(self._position_seconds)
            await self._write_position()

    async def _write_position(self) -> None:
        """A store that fails holds nobody up: messages go on, and after a restart more of them come again."""
        position = self._position
        if position is None:
            return
        try:
            await self._state.put({self._key: position.encode()})
        except StoreError as error:
            if not self._unkept:
                _LOGGER.warning("the position of %s is not kept: %s", self.source.name, error)
            self._unkept = True
            return
        self._unkept = False
        if self._position == position:
            self._position = None

    def _say(self, reason: str) -> None:
        if not self._end.is_set():
            self.source.health.state, self.source.health.reason = "waiting", reason
