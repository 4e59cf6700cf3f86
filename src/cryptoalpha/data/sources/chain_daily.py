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


async def daily(asking: Asking, position: str, fetch: Fetch, *, poll_minutes: float, days_kept: int) -> AsyncIterator[Arrival]:
    """What `fetch` brings, for ever, as far as it is news. What comes before its time waits for it.

    Args:
        fetch: asks once; readings, and (reason, bytes) of what cannot be read.
    """
    kept, clock = told(position), asking.tools.clock
    early: dict[tuple[str, str, int], ChainReading] = {}
    poll, asked_next = round(poll_minutes * MINUTE), 0
    async with closing(asking.hang_up):
        while not asking.line.closed:
            readings: list[ChainReading] = []
            faults: list[tuple[str, bytes]] = []
            if clock.now() >= asked_next:
                try:
                    readings, faults = await fetch()
                except (VenueError, DataError, RefusedError) as error:
                    if not asking.line.closed:
                        await asking.line.failed(error)
                    continue
                asked_next = clock.now() + poll
            now = clock.now()
            for reading in readings:
                key = (reading.asset, reading.metric, reading.happened_at)
                waiting = early.get(key)
                if reading.known_at > now and (waiting is None or waiting.value != reading.value):
                    early[key] = reading
            due = [reading for reading in (*early.values(), *readings) if reading.known_at <= now]
            early = {key: reading for key, reading in early.items() if reading.known_at > now}
            said, repeats = kept.news(due, name=asking.name, days_kept=days_kept)
            dead = tuple(DeadLetter(asking.name, why, data, now) for why, data in faults)
            asking.health.repeats += repeats
            if said or dead:
                note(asking.health, said, dead, now=now, event=max((one.event_time for one in said), default=now))
                yield Arrival(tuple(said), kept.position(), dead)
            upcoming = min(asked_next, *(reading.known_at for reading in early.values())) if early else asked_next
            await asking.rest((upcoming - now) / SECOND)
