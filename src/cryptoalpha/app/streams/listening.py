"""Live sources of a session, in a thread of their own: what they bring goes through the bus and the sieve, and waits for the next bar.

The engine's thread never waits for a source, a broker or a disk of this side: it takes what is there. What it took is told back as stored
once the history holds it, and only then does the reader's place on the bus move: a session that is killed hears again what it had not
stored, and tells it apart by its id.

How each source fares is written into the state store now and then, where `cryptoalpha status` finds it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Self

import msgspec

from cryptoalpha.app.live.feed import End
from cryptoalpha.app.settings import Settings
from cryptoalpha.app.streams.opened import Notices, opened_sources
from cryptoalpha.app.streams.taking import Heard
from cryptoalpha.core.clock import Clock, SystemClock
from cryptoalpha.core.errors import CryptoAlphaError, DataError, StoreError, VenueError
from cryptoalpha.core.time import SECOND
from cryptoalpha.core.values import ChainReading, Post
from cryptoalpha.data.bus.contract import Bus, Consumer, Place, Progress, Record
from cryptoalpha.data.bus.dead import dead_letter
from cryptoalpha.data.bus.open import open_bus
from cryptoalpha.data.bus.own_group import own_group
from cryptoalpha.data.bus.worker import progress_of
from cryptoalpha.data.sources.contract import Health, Source
from cryptoalpha.data.sources.pump import Pump
from cryptoalpha.signals.agents.intake import Intake
from cryptoalpha.signals.agents.reading import ReadHere
from cryptoalpha.signals.agents.sieve import Sieve
from cryptoalpha.store.state.contract import StateStore
from cryptoalpha.store.state.open import open_state

TOPICS = ("texts", "chain", "readings")
"""What a book reads. Markets come to it as closed bars (`data.live`)."""

FOLDER = "streams"
BUS_FILE, STATE_FILE = "bus.sqlite", "state.sqlite"
HEALTH_AREA = "health"
_TAKEN_AT_ONCE = 1_000
_LOOK_SECONDS = 0.1
_HEALTH_SECONDS = 5.0
_PATIENCE_SECONDS = 20.0
"""How long opening and closing may take."""


class Listening:
    """A context manager around the thread.

    Args:
        home: the store; bus and state lie in its folder `streams`.
        instruments: what is traded.
        say: told about sources that run and that cannot.
        alert: told what people should know: a budget spent, a source ended, a log lost.
        sources: instead of those of the settings.

    Raises (on entering):
        CryptoAlphaError: if bus or state cannot be opened.
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
    ) -> None:
        self._settings, self._folder, self._instruments = settings, home / FOLDER, tuple(instruments)
        self._say, self._alert, self._clock, self._given = say, alert, clock or SystemClock(), sources
        assets = tuple(name.split("/")[0] for name in self._instruments)
        agents = settings.signals.agents
        self._sieve = Sieve(agents.sieve)
        self._intake = Intake(agents, self._sieve, ReadHere(assets), assets)
        self._reorder = round(agents.reorder_seconds * SECOND)
        self._heard: deque[Heard] = deque()
        self._read_at: deque[tuple[int, dict[Place, Progress]]] = deque()
        """How far was read, and when; texts read then may still wait in the intake."""
        self._passed: dict[Place, Progress] = {}
        self._handed: dict[Place, Progress] = {}
        self._lock = threading.Lock()
        self._health: Mapping[str, Health] = {}
        self.counts: dict[str, int] = {"messages": 0, "repeats": 0, "unreadable": 0, "dropped": 0, "lost_logs": 0, "outages": 0}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: asyncio.Event | None = None
        self._opened, self._over = threading.Event(), End()
        self._stored: dict[Place, Progress] = {}
        self._is_told = False
        self._prices: dict[str, float] = {}
        self._thread = threading.Thread(target=self._run, name="streams", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not (self._opened.wait(_LOOK_SECONDS) or self._over.is_reached):
            if time.monotonic() > deadline:
                raise VenueError("the live streams did not open in time", hint="see data.streams: the servers it names must answer")
        self.demand_well()
        return self

    def __exit__(self, *failure: object) -> None:
        if self._loop is not None and self._end is not None:
            with suppress(RuntimeError):  # the loop has ended by itself
                self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(_PATIENCE_SECONDS)

    def demand_well(self) -> None:
        """Raises what ended the thread, if anything did.

        Raises:
            CryptoAlphaError: if bus or state failed.
        """
        error = self._over.error
        if isinstance(error, CryptoAlphaError):
            raise error
        if error is not None:
            raise VenueError(
                f"the live streams ended with {type(error).__name__}: {error}",
                hint="start the run again: what was not stored is heard again",
            ) from error

    def take(self) -> list[Heard]:
        """What came since the last time. Where the thread has ended, a person is told once, and trading goes on without streams."""
        if self._over.error is not None and not self._is_told:
            self._is_told = True
            self._alert("streams", f"the live streams have ended, trading goes on without them: {self._over.error}")
        with self._lock:
            heard = list(self._heard)
            self._heard.clear()
            self._handed.update(self._passed)
            self._passed = {}
            return heard

    def priced(self, closes: Mapping[str, float]) -> None:
        """The newest closes by instrument: large transfers are told by what they are worth."""
        dollars = {name.split("/")[0]: close for name, close in closes.items() if name.split("/")[-1].startswith("USD")}
        self._prices = {**self._prices, **dollars}

    def stored(self) -> None:
        """What was taken lies in the history now: the place on the bus may move."""
        with self._lock:
            self._stored.update(self._handed)
            self._handed = {}

    def health(self) -> Mapping[str, Health]:
        """How each source fares, by name."""
        return self._health

    def _run(self) -> None:
        with self._over:
            asyncio.run(self._listen())

    async def _listen(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), (end := asyncio.Event())
        config = self._settings.data.streams
        where = self._folder / STATE_FILE
        async with (
            open_state(config.backend, path=where, address=config.redis_address, clock=self._clock) as state,
            open_bus(config, self._folder / BUS_FILE) as bus,
            await bus.subscribe(own_group(self._folder, "book"), TOPICS) as consumer,
        ):
            with opened_sources(
                self._settings, self._folder, state, self._instruments, say=self._say, alert=self._alert, clock=self._clock,
                given=self._given, prices=lambda: self._prices,
            ) as sources:  # fmt: skip
                await self._turn(bus, state, consumer, sources, end)

    async def _turn(self, bus: Bus, state: StateStore, consumer: Consumer, sources: Sequence[Source], end: asyncio.Event) -> None:
        """Until told to end."""
        now = asyncio.get_running_loop().time
        async with self._pump(bus, state, sources) as pump:
            pump.start()
            self._health = pump.health
            self._opened.set()
            written, notices = -_HEALTH_SECONDS, Notices(self._say)
            while not end.is_set():
                await self._look(bus, consumer)
                notices.look(pump.health)
                if now() - written >= _HEALTH_SECONDS:
                    await self._keep_health(state, pump)
                    written = now()
            await self._commit(consumer)
        await self._keep_health(state, pump)  # closed, so that `status` calls nobody connected

    def _pump(self, bus: Bus, state: StateStore, sources: Sequence[Source]) -> Pump:
        config = self._settings.data.streams.sources
        return Pump(
            bus,
            state,
            sources,
            position_seconds=config.position_seconds,
            most_waiting=config.most_waiting,
            alert=self._alert,
            seed=self._settings.engine.seed,
        )

    async def _look(self, bus: Bus, consumer: Consumer) -> None:
        """One turn: read what is there, let texts through that have waited long enough, move the place of what is stored.

        A broker that does not answer is asked again: what was heard goes on to the book meanwhile.
        """
        try:
            records = await consumer.take(_TAKEN_AT_ONCE, wait_seconds=_LOOK_SECONDS)
        except VenueError:
            self.counts["outages"] += 1
            await asyncio.sleep(_LOOK_SECONDS)
            records = ()
        now = self._clock.now()
        readings = [heard for record in records if (heard := await self._read(bus, record, now)) is not None]
        places = progress_of(records)
        texts = [Heard(one.post, one.weight) for one in await self._intake.ready(now)]
        with self._lock:
            self._heard.extend(readings)
            self._heard.extend(texts)
            while self._read_at and self._read_at[0][0] <= now - self._reorder:
                self._passed.update(self._read_at.popleft()[1])
        if places:
            self._read_at.append((now, places))
        for lost in consumer.regressed():
            self.counts["lost_logs"] += 1
            self._alert(
                "stream_log", f"{lost.place.topic}/{lost.place.partition}: {lost.kind}, wanted {lost.following}, goes on at {lost.resumed}"
            )
        await self._commit(consumer)

    async def _read(self, bus: Bus, record: Record, now: int) -> Heard | None:
        """A reading to be handed over at once; a text is left with the intake.

        What comes from a machine whose clock is ahead is known now: later stamps would hold it back, and those after it.
        """
        envelope = record.envelope
        try:
            if envelope is None:
                raise DataError(record.fault)
            self.counts["messages"] += 1
            if self._intake.knows(envelope.id):
                self.counts["repeats"] += 1
                return None
            value = envelope.value()
            self._intake.learn(envelope.id)
        except DataError as error:
            self.counts["unreadable"] += 1
            await self._put_away(bus, record, str(error), now)
            return None
        if isinstance(value, Post | ChainReading) and value.known_at > now:
            value = msgspec.structs.replace(value, known_at=now, happened_at=min(value.happened_at, now))
        if isinstance(value, Post):
            self.counts["dropped"] += self._intake.put(value)
        return Heard(value) if isinstance(value, ChainReading) else None

    async def _put_away(self, bus: Bus, record: Record, reason: str, now: int) -> None:
        """A dead letter, however long it takes: nothing may pass what is neither read nor put away."""
        place = record.place
        letter = dead_letter(
            topic=place.topic, source="", reason=reason, data=record.data, observed_time=now, place=place, offset=record.offset
        )
        while self._end is not None and not self._end.is_set():
            try:
                await bus.publish([letter])
                return
            except VenueError:
                self.counts["outages"] += 1
                await asyncio.sleep(_LOOK_SECONDS)

    async def _commit(self, consumer: Consumer) -> None:
        """Move the place; where the broker does not answer, with the next look."""
        with self._lock:
            stored, self._stored = self._stored, {}
        if not stored:
            return
        try:
            await consumer.commit(stored)
        except VenueError:
            self.counts["outages"] += 1
            with self._lock:
                self._stored = {**stored, **self._stored}

    async def _keep_health(self, state: StateStore, pump: Pump) -> None:
        """Write down how sources fare; a state that cannot be written holds nobody up, and `status` calls them not running."""
        try:
            await keep_health(state, pump.health, self._clock.now())
        except StoreError:
            self.counts["outages"] += 1


async def keep_health(state: StateStore, health: Mapping[str, Health], now: int) -> None:
    """Write down how sources fare; forgotten after an hour without news."""
    encode = msgspec.json.encode
    await state.put({f"{HEALTH_AREA}/{name}": encode({**asdict(one), "at": now}) for name, one in health.items()}, expires_seconds=3600.0)


async def kept_health(state: StateStore) -> dict[str, tuple[Health, int]]:
    """What `keep_health` wrote, by source: how it fares, and when that was written (UTC ns)."""
    names = await state.names(HEALTH_AREA)
    found: dict[str, tuple[Health, int]] = {}
    for name, data in zip(names, await state.get(names), strict=True):
        if data is not None:
            content = msgspec.json.decode(data)
            at = content.pop("at")
            found[name.removeprefix(f"{HEALTH_AREA}/")] = (msgspec.convert(content, Health), at)
    return found
