"""From the bus to what a book takes: texts through the sieve, readings as they come, and how far the book's group has come.

A place on the bus moves only when what lay before it was handed over (`take`) and then kept (`stored`): a session that is killed hears
again what it had not stored, and tells it apart by its id. One thread reads, another takes.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections import deque
from collections.abc import Callable

import msgspec

from cryptoalpha.app.streams.heard_before import remember
from cryptoalpha.app.streams.taking import Heard, demand_place
from cryptoalpha.core.clock import Clock
from cryptoalpha.core.errors import DataError, VenueError
from cryptoalpha.core.time import SECOND
from cryptoalpha.core.values import ChainReading, Post
from cryptoalpha.data.bus.contract import Bus, Consumer, Place, Progress, Record, Regress, progress_of
from cryptoalpha.data.bus.dead import dead_letter
from cryptoalpha.signals.agents.config import AgentsConfig
from cryptoalpha.signals.agents.intake import Intake
from cryptoalpha.signals.agents.reading import ReadHere
from cryptoalpha.signals.agents.sieve import Sieve
from cryptoalpha.store.state.contract import StateStore

_TAKEN_AT_ONCE = 1_000
_LOOK_SECONDS = 0.1


class Hearing:
    """What a book hears; it outlives the bus it is read from.

    Args:
        assets: what texts and readings may be about.
        alert: told of a log that was lost.
    """

    def __init__(self, config: AgentsConfig, assets: tuple[str, ...], clock: Clock, alert: Callable[[str, str], None]) -> None:
        self.counts: dict[str, int] = {"messages": 0, "repeats": 0, "unreadable": 0, "dropped": 0, "lost_logs": 0, "outages": 0}
        self._clock, self._alert = clock, alert
        self._intake = Intake(config, Sieve(config.sieve), ReadHere(assets), assets)
        self._remembers = False
        self._reorder = round(config.reorder_seconds * SECOND)
        self._lock = threading.Lock()
        self._heard: deque[Heard] = deque()
        self._read_at: deque[tuple[int, dict[Place, Progress]]] = deque()
        """How far was read, and when; texts read then may still wait in the intake."""
        self._passed: dict[Place, Progress] = {}
        self._handed: dict[Place, Progress] = {}
        self._stored: dict[Place, Progress] = {}

    def take(self) -> list[Heard]:
        """What came since the last time."""
        with self._lock:
            heard = list(self._heard)
            self._heard.clear()
            self._handed.update(self._passed)
            self._passed = {}
            return heard

    def stored(self) -> None:
        """What was taken is kept: the place on the bus may move."""
        with self._lock:
            self._stored.update(self._handed)
            self._handed = {}

    async def remember(self, bus: Bus, state: StateStore, group: str) -> None:
        """Stand where the session before stood (`heard_before`); before the first look, and not again after an outage."""
        if not self._remembers:
            await remember(self._intake, bus, state, group)
            self._remembers = True

    async def look(self, bus: Bus, consumer: Consumer, end: asyncio.Event) -> None:
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
        readings = [heard for record in records if (heard := await self._read(bus, record, now, end)) is not None]
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
            self._alert("stream_log", told_of_loss(lost))
        await self.commit(consumer)

    async def commit(self, consumer: Consumer) -> None:
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

    async def _read(self, bus: Bus, record: Record, now: int, end: asyncio.Event) -> Heard | None:
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
            if isinstance(value, ChainReading) and not math.isfinite(value.value):
                raise DataError(f"{value.metric} of {value.asset} from {value.source} is {value.value}, no number")
            if isinstance(value, Post | ChainReading):
                demand_place(value)
            self._intake.learn(envelope.id)
        except DataError as error:
            self.counts["unreadable"] += 1
            await self._put_away(bus, record, str(error), now, end)
            return None
        if isinstance(value, Post | ChainReading) and value.known_at > now:
            value = msgspec.structs.replace(value, known_at=now, happened_at=min(value.happened_at, now))
        if isinstance(value, Post):
            self.counts["dropped"] += self._intake.put(value)
        return Heard(value) if isinstance(value, ChainReading) else None

    async def _put_away(self, bus: Bus, record: Record, reason: str, now: int, end: asyncio.Event) -> None:
        """A dead letter, however long it takes: nothing may pass what is neither read nor put away."""
        place = record.place
        letter = dead_letter(
            topic=place.topic, source="", reason=reason, data=record.data, observed_time=now, place=place, offset=record.offset
        )
        while not end.is_set():
            try:
                await bus.publish([letter])
                return
            except VenueError:
                self.counts["outages"] += 1
                await asyncio.sleep(_LOOK_SECONDS)


def told_of_loss(lost: Regress) -> str:
    """A lost log, in words."""
    return (
        f"{lost.place.topic}/{lost.place.partition}: {lost.kind}, wanted {lost.following}, the log holds {lost.start} to {lost.end}, "
        f"goes on at {lost.resumed}"
    )
