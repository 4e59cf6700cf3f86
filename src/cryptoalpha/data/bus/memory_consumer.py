"""A reader of the embedded bus: one member of a group."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Self

from cryptoalpha.data.bus.contract import Place, Progress, Record, Regress
from cryptoalpha.data.bus.resume import Extent, decide, marks

if TYPE_CHECKING:
    from cryptoalpha.data.bus.memory import MemoryBus


class MemoryConsumer:
    """One member of a group; made by `MemoryBus.subscribe`. An asynchronous context manager."""

    def __init__(self, bus: MemoryBus, group: str, topics: Sequence[str], kept: dict[Place, Progress]) -> None:
        self._bus, self._group, self.topics, self._kept = bus, group, frozenset(topics), kept
        self._news = asyncio.Event()
        self._positions: dict[Place, int] = {}
        self._turns: dict[Place, int] = {}
        self._regressed: list[Regress] = []
        self._first = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def wake(self) -> None:
        """There may be something to read."""
        self._news.set()

    async def take(self, most: int, *, wait_seconds: float) -> Sequence[Record]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_seconds
        while True:
            self._hand_over()
            self._news.clear()
            records = await self._read(most)
            left = deadline - loop.time()
            if records or left <= 0:
                return records
            try:
                async with asyncio.timeout(left):
                    await self._news.wait()
            except TimeoutError:
                pass

    async def _read(self, most: int) -> list[Record]:
        sharing = self._bus.sharing(self._group)
        places = sorted(sharing.owned(self))
        self._positions = {
            place: position for place, position in self._positions.items() if place in places and self._turns[place] == sharing.turn(place)
        }
        if not places:
            self._bus.demand_open()
            return []
        self._first = (self._first + 1) % len(places)
        taken: list[Record] = []
        for place in places[self._first :] + places[: self._first]:
            if place not in self._positions:
                await self._begin(place)
            if len(taken) < most:
                taken += await self._read_one(place, most - len(taken))
        return taken

    async def _begin(self, place: Place) -> None:
        """Find out where to go on in a partition that is newly ours."""
        bus = self._bus
        log, config = bus.log, bus.config
        self._turns[place] = bus.sharing(self._group).turn(place)
        known = [known[place] for known in (self._kept, log.progress.get(self._group, {})) if place in known]
        extent = Extent(bus.part(place).start, bus.part(place).end)
        wanted = marks(known, extent)
        ids = await bus.run(partial(log.ids, place, wanted)) if wanted else {}
        start = bus.settings(place.topic).start
        decision = decide(known, extent, ids, start=start, overlap_ns=int(config.overlap_seconds * 1e9))
        found = None if decision.since is None else await bus.run(partial(log.since, place, decision.since))
        following, regress = decision.settled(place, extent, found)
        if regress is not None:
            self._lose(regress)
        self._positions[place] = following
        if not known or regress is not None:  # so that a topic that blocks holds what this group has not read from now on
            await bus.keep_progress(self._group, {place: Progress(following)})
            self._kept.pop(place, None)

    def _lose(self, regress: Regress) -> None:
        self._regressed.append(regress)
        if regress.kind == "retention_gap":
            self._bus.counts.dropped[regress.place.topic] += regress.start - regress.following

    async def _read_one(self, place: Place, most: int) -> list[Record]:
        bus, position = self._bus, self._positions[place]
        part, tail = bus.part(place), bus.tail(place)
        if position < part.start:
            self._lose(Regress(place, "retention_gap", position, part.start, part.end, part.start))
            position = part.start
        lag = part.end - position
        if position >= tail.begin:
            records = tail.read(position, most)
        else:
            records = await bus.run(partial(bus.log.read, place, position, most))
        if not records:
            self._positions[place] = position
            return []
        self._positions[place] = records[-1].offset + 1
        settings = bus.settings(place.topic)
        if settings.overflow != "conflate" or lag <= bus.config.conflate_above:
            return records
        kinds = settings.conflated
        newest = [
            record
            for record in records
            if record.envelope is None or (kinds and record.envelope.kind not in kinds) or tail.is_newest(record) or record is records[-1]
        ]
        bus.counts.conflated[place.topic] += len(records) - len(newest)
        return newest

    async def commit(self, progress: Mapping[Place, Progress]) -> None:
        sharing = self._bus.sharing(self._group)
        own = {place: value for place, value in progress.items() if sharing.owns(self, place)}
        if own:
            await self._bus.keep_progress(self._group, own)
            self._kept.update(own)
        if all(place in own and own[place].following >= position for place, position in self._positions.items()):
            self._hand_over()

    def _hand_over(self) -> None:
        """Nothing is in hand: let others have what they are to read."""
        sharing = self._bus.sharing(self._group)
        if sharing.release(self, asyncio.get_running_loop().time()):
            for member in sharing.members:
                member.wake()

    async def lag(self) -> Mapping[Place, int]:
        known = self._bus.log.progress.get(self._group, {})
        owned = self._bus.sharing(self._group).owned(self)
        return {place: self._bus.part(place).end - self._committed(known, place) for place in owned}

    def _committed(self, known: Mapping[Place, Progress], place: Place) -> int:
        part = self._bus.part(place)
        following = known[place].following if place in known else self._positions.get(place, part.start)
        return min(max(following, part.start), part.end)

    def regressed(self) -> Sequence[Regress]:
        found, self._regressed = self._regressed, []
        return found

    async def close(self) -> None:
        sharing = self._bus.sharing(self._group)
        sharing.leave(self, asyncio.get_running_loop().time())
        self._positions.clear()
        for member in sharing.members:
            member.wake()
