"""The embedded bus: topics, groups and back-pressure in one process, over the log of `log.py`.

What `publish` returned from is in the log. Commits are shared: the first message is written at once, those that come while it is being
written, or within a few milliseconds of it, together. Memory holds the newest messages of each partition and nothing else that grows;
readers further behind read the file. Members of a group share partitions out (`sharing`); a member goes on where its own store or the
group's last commit says, after `resume` has compared that with the log.

A full partition lets the publisher wait (`block`), or drops its oldest messages; a reader that was overtaken is told so (`retention_gap`)
and the loss is counted. With `conflate` a reader that lags gets only the newest message of each kind and key.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Self, TypeVar

from cryptoalpha.core.clock import Clock, SystemClock
from cryptoalpha.core.errors import StoreError
from cryptoalpha.data.bus.config import BusConfig, TopicConfig
from cryptoalpha.data.bus.contract import Place, Progress, Record
from cryptoalpha.data.bus.envelope import Envelope, to_bytes
from cryptoalpha.data.bus.log import Entry, Log, Part
from cryptoalpha.data.bus.memory_consumer import MemoryConsumer
from cryptoalpha.data.bus.partition import partition_of
from cryptoalpha.data.bus.sharing import Sharing

T = TypeVar("T")
_TAIL_RECORDS, _TAIL_BYTES = 4096, 4_000_000
"""Newest messages of a partition that memory holds."""
_NS_PER_HOUR = 3_600_000_000_000


@dataclass
class BusCounts:
    """What an embedded bus has done, by topic."""

    published: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    """Messages cut off before a group had read them."""
    conflated: Counter[str] = field(default_factory=Counter)
    """Messages a lagging reader was spared, because a newer one of the same key lay behind."""
    waited: Counter[str] = field(default_factory=Counter)
    """Times a publisher waited for room."""
    commits: int = 0


class Tail:
    """The newest messages of a partition, in memory."""

    def __init__(self, end: int, *, conflates: bool) -> None:
        self.begin = end
        """From here on the log's messages are in here too."""
        self._records: deque[Record] = deque()
        self._size = 0
        self._conflates = conflates
        self._newest: dict[tuple[str, str], int] = {}

    def append(self, record: Record) -> None:
        self._records.append(record)
        self._size += len(record.data)
        if self._conflates and record.envelope is not None:
            self._newest[record.envelope.kind, record.envelope.key] = record.offset
        while len(self._records) > _TAIL_RECORDS or self._size > _TAIL_BYTES:
            self._size -= len(self._records.popleft().data)
            self.begin += 1

    def read(self, offset: int, most: int) -> list[Record]:
        """Messages from an offset at or after `begin`."""
        skipped = offset - self.begin
        return list(islice(self._records, skipped, skipped + most))

    def is_newest(self, record: Record) -> bool:
        """Whether no later message of this kind and key is known."""
        envelope = record.envelope
        return envelope is None or self._newest.get((envelope.kind, envelope.key), -1) <= record.offset


@dataclass
class _Waiting:
    """What one publisher asked to be kept."""

    entries: list[Entry]
    records: Sequence[Envelope]
    done: asyncio.Future[None]


class MemoryBus:
    """A bus within this process. An asynchronous context manager.

    Args:
        config: topics, sizes and patience.
        path: the log's file; None keeps it in memory.
        clock: stamps when messages were published, and when a group was last here.

    Raises (on entering):
        StoreLockedError: if another process holds the file.
        StoreError: if the file cannot be used.
    """

    def __init__(self, config: BusConfig, path: Path | None, *, clock: Clock | None = None) -> None:
        self.config, self._path = config, path
        self._clock = SystemClock() if clock is None else clock
        self.counts = BusCounts()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="bus")
        self._log: Log | None = None
        self._places: dict[str, list[Place]] = {}
        self._tails: dict[Place, Tail] = {}
        self._queue: list[_Waiting] = []
        self._queued: Counter[Place] = Counter()
        self._progress: dict[tuple[str, Place], Progress] = {}
        self._progress_done: list[asyncio.Future[None]] = []
        self._groups: dict[str, Sharing[MemoryConsumer]] = {}
        self._wake, self._enough, self._room = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._queued_records = 0
        self._writer: asyncio.Task[None] | None = None
        self._is_closing = False

    async def __aenter__(self) -> Self:
        before = max(0, self._clock.now() - int(self.config.forget_hours * _NS_PER_HOUR))
        self._log = await self.run(partial(Log, self._path, self.config.topic, forget_before=before))
        self._writer = asyncio.get_running_loop().create_task(self._write_for_ever())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Keep what was asked for, then let go of the file."""
        if self._is_closing:
            return
        self._is_closing = True
        self._wake.set()
        self._enough.set()
        self._room.set()
        if self._writer is not None:
            await self._writer
        for group in self._groups.values():
            for member in group.members:
                member.wake()
        if self._log is not None:
            await self.run(self._log.close)
        self._thread.shutdown()

    async def run(self, task: Callable[[], T]) -> T:
        """Do something in the log's own thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, task)

    @property
    def log(self) -> Log:
        """The open log.

        Raises:
            StoreError: if the bus is not open.
        """
        self.demand_open()
        assert self._log is not None
        return self._log

    def demand_open(self) -> None:
        """Refuse to go on with a bus that is not open.

        Raises:
            StoreError: if it is not.
        """
        if self._log is None or self._is_closing:
            raise StoreError("the embedded bus is closed", hint="use it inside `async with`")

    async def publish(self, envelopes: Sequence[Envelope]) -> None:
        if not envelopes:
            return
        entries, now = [], self._clock.now()
        for envelope in envelopes:
            places = self._places.get(envelope.topic) or await self.topic(envelope.topic)
            place = places[partition_of(envelope.key, len(places))]
            entries.append(Entry(place, now, to_bytes(envelope)))
        if any(self.settings(topic).overflow == "block" for topic in {entry.place.topic for entry in entries}):
            await self._publish_as_room_appears(entries, envelopes)
        else:
            await self._enqueue(entries, envelopes)

    async def _publish_as_room_appears(self, entries: list[Entry], envelopes: Sequence[Envelope]) -> None:
        """Publish in order, as much at a time as its partitions take."""
        begin = 0
        while begin < len(entries):
            room: dict[Place, int] = {}
            end = begin
            while end < len(entries):
                place = entries[end].place
                left = room[place] if place in room else self._room_in(place)
                if left <= 0:
                    break
                room[place], end = left - 1, end + 1
            if end > begin:
                await self._enqueue(entries[begin:end], envelopes[begin:end])
                begin = end
                continue
            self.counts.waited[entries[begin].place.topic] += 1
            self._room.clear()
            await self._room.wait()

    def _room_in(self, place: Place) -> int:
        """Messages a partition takes before it is full of what its groups have not read."""
        settings, log = self.settings(place.topic), self.log
        if settings.overflow != "block":
            return 1 << 40
        part, queued = log.parts[place], self._queued[place]
        unread = part.end - max(log.held(place), part.start) + queued
        if part.size > settings.megabytes * 1e6 and unread:
            return 0
        return settings.records - unread

    async def _enqueue(self, entries: list[Entry], envelopes: Sequence[Envelope]) -> None:
        self.demand_open()
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(entries, envelopes, done))
        for entry in entries:
            self._queued[entry.place] += 1
        self._queued_records += len(entries)
        self._wake.set()
        if self._queued_records >= self.config.commit_records:
            self._enough.set()
        await done

    async def keep_progress(self, group: str, progress: Mapping[Place, Progress]) -> None:
        """Remember how far a group has come, with the next commit."""
        self.demand_open()
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        for place, value in progress.items():
            self._progress[group, place] = value
        self._progress_done.append(done)
        self._wake.set()
        await done

    async def _write_for_ever(self) -> None:
        loop = asyncio.get_running_loop()
        last = float("-inf")
        while True:
            if not (self._queue or self._progress):
                if self._is_closing:
                    return
                self._wake.clear()
                await self._wake.wait()
                continue
            early = last + self.config.commit_milliseconds / 1000 - loop.time()
            if early > 0 and self._queued_records < self.config.commit_records and not self._is_closing:
                self._enough.clear()
                try:
                    async with asyncio.timeout(early):
                        await self._enough.wait()
                except TimeoutError:
                    pass
            last = loop.time()
            await self._write()

    async def _write(self) -> None:
        """One commit: everything that was asked for until now."""
        assert self._log is not None
        queue, self._queue, self._queued_records = self._queue, [], 0
        progress, self._progress = self._progress, {}
        waiting = [waiting.done for waiting in queue] + self._progress_done
        self._progress_done = []
        entries = [entry for waiting in queue for entry in waiting.entries]
        try:
            first = await self.run(partial(self._log.write, entries, progress, now=self._clock.now()))
        except StoreError as error:
            for future in waiting:
                if not future.done():
                    future.set_exception(StoreError(str(error), hint=error.hint))
        else:
            self.counts.commits += 1
            for waiter in queue:
                self._show(waiter, first)
            for future in waiting:
                if not future.done():
                    future.set_result(None)
        for entry in entries:
            self._queued[entry.place] -= 1
        self._room.set()
        topics = {place.topic for place in {entry.place for entry in entries}}
        for group in self._groups.values():
            for member in group.members:
                if not topics.isdisjoint(member.topics):
                    member.wake()

    def _show(self, waiting: _Waiting, following: dict[Place, int]) -> None:
        """Let readers see messages that have been written."""
        for entry, envelope in zip(waiting.entries, waiting.records, strict=True):
            offset = following[entry.place]
            self._tails[entry.place].append(Record(entry.place, offset, envelope, entry.data))
            following[entry.place] = offset + 1
            self.counts.published[entry.place.topic] += 1

    async def topic(self, topic: str) -> list[Place]:
        """The places of a topic, made if there are none."""
        log = self.log
        places = await self.run(partial(log.ensure, topic))
        conflates = self.settings(topic).overflow == "conflate"
        for place in places:
            self._tails.setdefault(place, Tail(log.parts[place].end, conflates=conflates))
        self._places[topic] = places
        return places

    def settings(self, topic: str) -> TopicConfig:
        return self.config.topic(topic)

    def part(self, place: Place) -> Part:
        return self.log.parts[place]

    def tail(self, place: Place) -> Tail:
        return self._tails[place]

    def sharing(self, group: str) -> Sharing[MemoryConsumer]:
        return self._groups[group]

    async def subscribe(self, group: str, topics: Sequence[str], *, kept: Mapping[Place, Progress] | None = None) -> MemoryConsumer:
        places = [place for topic in topics for place in await self.topic(topic)]
        sharing = self._groups.setdefault(group, Sharing(self.config.release_seconds))
        member = MemoryConsumer(self, group, topics, dict(kept or {}))
        sharing.join(member, topics, places, asyncio.get_running_loop().time())
        return member
