"""Readings that are published once a day and revised later: asked for again and again, told when they are new or have changed.

A value is known when it has come, but never before the time at which the same row of history counts as published: so a live run and a
backtest over the same days see the same values at the same moments, to the last bit, wherever the publisher kept to that time. A changed
value is a new revision, known when it came. Ids are asset, metric, day and revision.

What was told of the newest days is the position.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Final

import msgspec

from cryptoalpha.core.errors import DataError, VenueError
from cryptoalpha.core.time import MINUTE, SECOND, day_of
from cryptoalpha.core.values import ChainReading
from cryptoalpha.data.bus.envelope import Envelope, sealed
from cryptoalpha.data.sources.chain_asking import Asking, closing, note
from cryptoalpha.data.sources.contract import Arrival, DeadLetter
from cryptoalpha.data.sources.reconnect import RefusedError
from cryptoalpha.store.tables import ReadingTable

TOPIC: Final = "readings"

Fetch = Callable[[], Awaitable[tuple[list[ChainReading], list[tuple[str, bytes]]]]]


class Told(msgspec.Struct):
    """What was told: value and revision, by day (UTC ns), by `asset/metric`."""

    days: dict[str, dict[int, tuple[float, int]]] = {}

    def position(self) -> str:
        """As text; `told` reads it."""
        return msgspec.json.encode(self).decode()

    def news(self, readings: Iterable[ChainReading], *, name: str, days_kept: int) -> tuple[list[Envelope], int]:
        """Of readings, those not told as they are, and how many were. Moves on.

        A reading older than all that is kept of its metric is left out: whether it is news cannot be told.
        """
        said: list[Envelope] = []
        repeats = 0
        for reading in sorted(readings, key=lambda reading: (reading.known_at, reading.happened_at, reading.asset, reading.metric)):
            kept = self.days.setdefault(f"{reading.asset}/{reading.metric}", {})
            before = kept.get(reading.happened_at)
            if before is None and len(kept) >= days_kept and reading.happened_at < min(kept):
                continue
            if before is not None and before[0] == reading.value:
                repeats += 1
                continue
            revision = 0 if before is None else before[1] + 1
            kept[reading.happened_at] = (reading.value, revision)
            for day in sorted(kept)[: max(0, len(kept) - days_kept)]:
                del kept[day]
            native = f"{reading.asset}/{reading.metric}/{day_of(reading.happened_at)}/{revision}"
            said.append(sealed(reading, topic=TOPIC, key=reading.asset, source=name, native_id=native))
        return said, repeats


_TOLD = msgspec.json.Decoder(Told)


def told(position: str) -> Told:
    """The inverse of `Told.position`; empty for an empty one.

    Raises:
        DataError: if it is none.
    """
    if not position:
        return Told()
    try:
        return _TOLD.decode(position)
    except msgspec.MsgspecError as error:
        raise DataError(f"{position[:40]!r}… is no position of daily readings: {error}", hint="remove it from the state store") from None


def readings_of(tables: Iterable[ReadingTable], *, received_at: int) -> list[ChainReading]:
    """Rows of tables as they are known live: when they have come, and not before their own time."""
    return [
        ChainReading(
            happened_at=int(happened),
            known_at=max(int(known), received_at),
            asset=table.asset,
            metric=table.metric,
            value=float(value),
            source=table.source,
        )
        for table in tables
        for happened, known, value in zip(table.happened_at, table.known_at, table.value, strict=True)
    ]


class Early:
    """What was fetched and told, and what came before its time and waits for it.

    Args:
        kept: moves on.
        fetch: asks once; readings, and (reason, bytes) of what cannot be read.
    """

    def __init__(self, asking: Asking, kept: Told, fetch: Fetch, *, days_kept: int) -> None:
        self._asking, self._kept, self._fetch, self._days_kept = asking, kept, fetch, days_kept
        self._waiting: dict[tuple[str, str, int], ChainReading] = {}

    @property
    def next_at(self) -> int:
        """When the first that waits is due, UTC ns; 0: none waits."""
        return min((reading.known_at for reading in self._waiting.values()), default=0)

    async def ask(self) -> Arrival | None:
        """What is news of what the publisher says now."""
        readings, faults = await self._fetch()
        now = self._asking.heard_at
        for reading in readings:
            if reading.known_at > now:
                self._waiting[reading.asset, reading.metric, reading.happened_at] = reading
        return self.due(now, [reading for reading in readings if reading.known_at <= now], faults)

    def due(self, now: int, readings: Iterable[ChainReading] = (), faults: Iterable[tuple[str, bytes]] = ()) -> Arrival | None:
        """What of these, and of those that waited, is news now."""
        due = [*(reading for reading in self._waiting.values() if reading.known_at <= now), *readings]
        self._waiting = {key: reading for key, reading in self._waiting.items() if reading.known_at > now}
        said, repeats = self._kept.news(due, name=self._asking.name, days_kept=self._days_kept)
        dead = tuple(DeadLetter(self._asking.name, why, data, now) for why, data in faults)
        self._asking.health.repeats += repeats
        if not said and not dead:
            return None
        note(self._asking.health, said, dead, now=now, event=max((one.event_time for one in said), default=now))
        return Arrival(tuple(said), self._kept.position(), dead)


async def daily(asking: Asking, position: str, fetch: Fetch, *, poll_minutes: float, days_kept: int) -> AsyncIterator[Arrival]:
    """What `fetch` brings, for ever, as far as it is news. What comes before its time waits for it."""
    early, clock = Early(asking, told(position), fetch, days_kept=days_kept), asking.tools.clock
    poll, asked_next = round(poll_minutes * MINUTE), 0
    async with closing(asking.hang_up):
        while not asking.line.closed:
            arrival = early.due(clock.now())
            if arrival is None and clock.now() >= asked_next:
                try:
                    arrival = await early.ask()
                except (VenueError, DataError, RefusedError) as error:
                    if not asking.line.closed:
                        await asking.line.failed(error)
                    continue
                asked_next = clock.now() + poll
            if arrival is not None:
                yield arrival
            else:
                upcoming = min(asked_next, early.next_at or asked_next)
                await asking.rest(max(upcoming - clock.now(), 0) / SECOND)
