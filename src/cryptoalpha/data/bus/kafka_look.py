"""What a Kafka log really holds: where it begins and ends, and which message lies where.

A second consumer, of no group, that looks without reading on. One tested broker reports an end that is too low after a batch, and answers a
fetch beyond its end with nothing; so the end is the largest of what is reported, what a fetch says, and what a fetch found.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import ConsumerStoppedError, KafkaError, OffsetOutOfRangeError

from cryptoalpha.core.errors import VenueError
from cryptoalpha.data.bus.config import BusConfig
from cryptoalpha.data.bus.contract import Place, Progress, Regress
from cryptoalpha.data.bus.log import record_of
from cryptoalpha.data.bus.resume import Extent, decide

_FETCH_BYTES = 16_384
"""A fetch brings whole batches; no more than needed."""
_NO_ANSWER = (ConsumerStoppedError, KafkaError, ValueError)
"""What the client raises where the broker does not answer, or where another look had no answer and closed the connection."""


def partition_named(place: Place) -> TopicPartition:
    return TopicPartition(place.topic, place.partition)


class KafkaLook:
    """Looks at a log.

    Args:
        servers: bootstrap servers.
        request_seconds: longest wait for an answer.
    """

    def __init__(self, servers: str, request_seconds: float) -> None:
        self._servers, self._seconds = servers, request_seconds
        self._consumer: AIOKafkaConsumer | None = None
        self._opening = asyncio.Lock()

    async def close(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.stop()

    async def extents(self, places: Collection[Place]) -> dict[Place, Extent]:
        """Where logs begin and end, as the broker reports it.

        Raises:
            VenueError: if the broker does not answer.
        """
        partitions = [partition_named(place) for place in places]
        try:
            consumer = await self._open()
            starts, ends = await consumer.beginning_offsets(partitions), await consumer.end_offsets(partitions)
        except _NO_ANSWER as error:
            raise await self._gone(error) from error
        return {place: Extent(starts[key], max(starts[key], ends[key])) for place, key in zip(places, partitions, strict=True)}

    async def ids(self, wanted: Mapping[Place, int]) -> tuple[dict[Place, str], dict[Place, int]]:
        """The id of the message at one offset of each place, where there is one, and ends that a fetch has shown.

        Raises:
            VenueError: if the broker does not answer.
        """
        found: dict[Place, str] = {}
        ends: dict[Place, int] = {}
        left = {partition_named(place): (place, offset) for place, offset in wanted.items()}
        if not left:
            return found, ends
        try:
            consumer = await self._open()
            for attempt in range(3):
                # What was seen of an end stays until the assignment is new; a message that is found brings its own.
                if attempt or consumer.assignment() != left.keys():
                    consumer.assign(list(left))
                for partition, (_, offset) in left.items():
                    consumer.seek(partition, offset)
                    consumer.resume(partition)
                await self._fetch(consumer, left, found, ends, 0.2 if attempt < 2 else max(0.2, self._seconds / 4))
                for partition, (place, offset) in list(left.items()) if attempt else ():
                    end = consumer.highwater(partition)
                    if end is not None and end <= offset:
                        ends[place] = end
                        del left[partition]
                if not left:
                    break
            consumer.pause(*consumer.assignment())
        except _NO_ANSWER as error:
            raise await self._gone(error) from error
        if left:
            raise await self._gone(TimeoutError("no answer to a fetch"))
        return found, ends

    async def _fetch(
        self,
        consumer: AIOKafkaConsumer,
        left: dict[TopicPartition, tuple[Place, int]],
        found: dict[Place, str],
        ends: dict[Place, int],
        seconds: float,
    ) -> None:
        """Read one message of each partition, as far as there is one; what is settled leaves `left`."""
        while left:
            try:
                batches = await consumer.getmany(*left, timeout_ms=int(1000 * seconds), max_records=1)
            except OffsetOutOfRangeError as error:
                for partition in error.args[0]:
                    left.pop(partition, None)
                    consumer.pause(partition)
                continue
            if not batches:
                return
            for partition, records in batches.items():
                place, offset = left.pop(partition)
                consumer.pause(partition)
                ends[place] = max(records[-1].offset + 1, consumer.highwater(partition) or 0)
                if records[0].offset == offset:
                    envelope = record_of(place, offset, records[0].value or b"").envelope
                    found[place] = "" if envelope is None else envelope.id

    async def since(self, place: Place, time: int) -> int | None:
        """Offset of the first message that came at that time (UTC ns) or later; None: none, or the broker cannot tell."""
        partition = partition_named(place)
        try:
            answer = (await (await self._open()).offsets_for_times({partition: max(0, time // 1_000_000)}))[partition]
        except _NO_ANSWER:
            return None
        return None if answer is None or answer.offset < 0 else int(answer.offset)

    async def _open(self) -> AIOKafkaConsumer:
        async with self._opening:  # a reader and whoever asks for its lag may come at once
            if self._consumer is None:
                consumer = AIOKafkaConsumer(
                    bootstrap_servers=self._servers,
                    auto_offset_reset="none",
                    enable_auto_commit=False,
                    fetch_max_wait_ms=20,
                    max_partition_fetch_bytes=_FETCH_BYTES,
                    request_timeout_ms=int(1000 * self._seconds),
                )
                try:
                    await consumer.start()
                except KafkaError:
                    await consumer.stop()
                    raise
                self._consumer = consumer
            return self._consumer

    async def _gone(self, error: BaseException) -> VenueError:
        """The broker does not answer: begin again with the next question."""
        await self.close()
        return VenueError(f"Kafka at {self._servers} does not tell what its log holds: {error!r}", hint="check that the broker runs")


def mark(progress: Progress) -> int:
    """The offset at which a message should lie, if the log is the one this was remembered of."""
    return progress.last if progress.last_id else progress.following - 1


async def going_on(
    look: KafkaLook, config: BusConfig, known: Mapping[Place, Sequence[Progress]]
) -> dict[Place, tuple[int, Regress | None]]:
    """Where to read on in each place, by what is known of it and what its log holds, and what was lost.

    Raises:
        VenueError: if the broker does not answer.
    """
    extents = await look.extents(known)
    ids: dict[Place, dict[int, str]] = {place: {} for place in known}
    for rank in range(max(map(len, known.values()), default=0)):
        wanted = {place: mark(several[rank]) for place, several in known.items() if rank < len(several)}
        found, ends = await look.ids({place: offset for place, offset in wanted.items() if offset >= extents[place].start})
        for place, end in ends.items():
            extents[place] = Extent(extents[place].start, max(extents[place].end, end))
        for place, name in found.items():
            ids[place][wanted[place]] = name
    answers = {}
    for place, several in known.items():
        start = config.topic(place.topic).start
        decision = decide(several, extents[place], ids[place], start=start, overlap_ns=int(config.overlap_seconds * 1e9))
        found_at = None if decision.since is None else await look.since(place, decision.since)
        answers[place] = decision.settled(place, extents[place], found_at)
    return answers
