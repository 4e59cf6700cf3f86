"""A reader of Kafka: one member of a group, which believes what it finds rather than what the broker remembers.

On every assignment it decides where to go on (`resume`) from its own store, the group's commit and what the log holds, and seeks there;
the client's own reset is off. Before a batch is given out, the message that was read before it is looked at again: if another lies there,
the log was lost and has grown again, which some brokers show in no other way. A commit carries the id of the last message along, where the
broker keeps it.

When partitions are taken away, the group waits until what was given out is committed, or given up by asking for more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Self

import msgspec
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    CommitFailedError,
    ConsumerStoppedError,
    IllegalStateError,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    UnknownMemberIdError,
)
from aiokafka.structs import OffsetAndMetadata

from cryptoalpha.core.clock import Clock
from cryptoalpha.core.errors import StoreError, VenueError
from cryptoalpha.data.bus.config import BusConfig
from cryptoalpha.data.bus.contract import Place, Progress, Record, Regress, progress_of
from cryptoalpha.data.bus.kafka_look import KafkaLook, going_on, mark, partition_named
from cryptoalpha.data.bus.log import record_of

_SLICE_SECONDS = 0.1
"""Longest wait in one call of the client: an assignment that comes meanwhile is noticed after it."""
_LONGEST_ID = 2000
"""Longest id (characters) that a commit carries; brokers take 4096 bytes by default."""
_GONE = (CommitFailedError, IllegalStateError, UnknownMemberIdError)
"""The partition is no longer ours."""


def place_named(partition: TopicPartition) -> Place:
    return Place(partition.topic, partition.partition)


class KafkaConsumer(ConsumerRebalanceListener):  # type: ignore[misc]  # the client has no types
    """One member of a group; made by `KafkaBus.subscribe`. An asynchronous context manager."""

    def __init__(
        self, config: BusConfig, servers: str, group: str, topics: Sequence[str], kept: dict[Place, Progress], clock: Clock
    ) -> None:
        self._config, self._servers, self._group, self._topics, self._kept = config, servers, group, tuple(topics), kept
        self._clock = clock
        self._look = KafkaLook(servers, config.request_seconds)
        self._consumer: AIOKafkaConsumer | None = None
        self._unsettled: set[Place] = set()  # newly ours; where to go on is not decided
        self._read: dict[Place, Progress] = {}  # what was given out last
        self._waiting: list[Record] = []  # read but not given out: nobody has looked yet whether the log is still the same
        self._looked = float("-inf")
        self._in_hand: set[Place] = set()
        self._done = asyncio.Event()
        self._regressed: list[Regress] = []
        self.refused_commits = 0
        self.is_closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Join the group.

        Raises:
            VenueError: if the broker does not answer.
        """
        milliseconds = int(1000 * self._config.session_seconds)
        rebalance = max(milliseconds, int(1000 * self._config.release_seconds) + 1000)
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=self._servers,
            group_id=self._group,
            auto_offset_reset="none",
            enable_auto_commit=False,
            isolation_level="read_committed" if self._config.transactions else "read_uncommitted",
            session_timeout_ms=milliseconds,
            heartbeat_interval_ms=milliseconds // 4,
            rebalance_timeout_ms=rebalance,
            request_timeout_ms=rebalance + int(1000 * self._config.request_seconds),  # a join is answered when all members have come
            fetch_max_wait_ms=100,
        )
        self._consumer.subscribe(self._topics, listener=self)
        try:
            await self._consumer.start()
        except KafkaError as error:
            await self.close()
            raise self._unreachable(error) from error

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """Wait until what was given out is done with; called by the client while the group waits."""
        if self._in_hand & {place_named(partition) for partition in revoked}:
            try:
                async with asyncio.timeout(self._config.release_seconds):
                    await self._done.wait()
            except TimeoutError:
                pass  # whoever goes on tells repeats apart
        self._in_hand.clear()
        self._waiting, self._read = [], {}

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Stand still until it is decided where to go on."""
        assert self._consumer is not None
        for partition in assigned:
            self._consumer.seek(partition, 0)  # any position: without one the client asks for the group's, and complains if there is none
            self._consumer.pause(partition)
        self._unsettled = {place_named(partition) for partition in assigned}
        self._waiting, self._read = [], {}

    async def take(self, most: int, *, wait_seconds: float) -> Sequence[Record]:
        consumer = self._open()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_seconds
        self._in_hand.clear()
        self._done.set()
        while True:
            left = deadline - loop.time()
            try:
                await self._begin()
                if not self._waiting:
                    batches = await consumer.getmany(timeout_ms=int(1000 * min(max(left, 0.0), _SLICE_SECONDS)), max_records=most)
                    self._waiting = [
                        record_of(place_named(partition), record.offset, record.value or b"")
                        for partition, records in batches.items()
                        for record in records
                    ]
                await self._verify()
            except OffsetOutOfRangeError as error:
                await self._lost(place_named(partition) for partition in error.args[0])
            except NoOffsetForPartitionError:
                pass  # an assignment is about to be told to us
            except ConsumerStoppedError as error:
                raise self._left() from error
            except KafkaError as error:
                raise self._unreachable(error) from error
            except VenueError:
                if left <= 0:
                    return []  # what waits is given out once the broker answers
                await asyncio.sleep(min(left, _SLICE_SECONDS))
                continue
            if self._waiting or left <= 0:
                return self._give_out(most)

    def _give_out(self, most: int) -> list[Record]:
        given, self._waiting = self._waiting[:most], self._waiting[most:]
        self._read.update(progress_of(given, now=self._clock.now()))
        self._in_hand = {record.place for record in given}
        if given:
            self._done.clear()
        return given

    async def _begin(self) -> None:
        """Decide where to go on in what is newly ours."""
        places = frozenset(self._unsettled)
        if not places:
            return
        committed = await _committed(self._servers, self._group, self._config, places)
        known = {place: [known[place] for known in (self._kept, committed) if place in known] for place in places}
        await self._settle(known)

    async def _lost(self, places: Iterable[Place]) -> None:
        """The broker says that offsets lie outside its log."""
        known = {place: [self._read.get(place) or self._kept.get(place) or Progress(0)] for place in places}
        self._waiting = [record for record in self._waiting if record.place not in known]
        try:
            await self._settle(known)
        except VenueError:
            self._unsettled |= known.keys()

    async def _verify(self) -> None:
        """Look whether what was read last still lies where it lay; if not, find out what was lost and go back.

        Without a batch it is looked at now and then: a log that was lost shows nothing until it has grown beyond where we stand.
        """
        now = asyncio.get_running_loop().time()
        if now - self._looked < (self._config.verify_seconds if self._waiting else max(1.0, self._config.verify_seconds)):
            return
        wanted = {place: progress for place, progress in self._read.items() if progress.last_id or progress.following}
        ids, _ = await self._look.ids({place: mark(progress) for place, progress in wanted.items()})
        doubted = {
            place: [progress]
            for place, progress in wanted.items()
            if place in self._read and (ids.get(place) != progress.last_id if progress.last_id else place not in ids)
        }
        if doubted:
            self._waiting = [record for record in self._waiting if record.place not in doubted]
            await self._settle(doubted, again=True)
        self._looked = now

    async def _settle(self, known: Mapping[Place, Sequence[Progress]], *, again: bool = False) -> None:
        """Decide where to go on, by what is known of these places and what their logs hold, and go there.

        Args:
            again: nothing but a loss is a reason to move.
        """
        for place, (following, regress) in (await going_on(self._look, self._config, known)).items():
            self._go_on(place, following, regress, known[place], again=again)

    def _go_on(self, place: Place, following: int, regress: Regress | None, known: Sequence[Progress], *, again: bool) -> None:
        consumer, partition = self._open(), partition_named(place)
        if partition not in consumer.assignment():
            self._unsettled.discard(place)
            return
        if regress is not None:
            self._regressed.append(regress)
            self._kept.pop(place, None)
        elif again:
            return
        believed = next((progress for progress in known if progress.following == following and progress.last_id), None)
        self._read[place] = Progress(following) if believed is None or regress is not None else believed
        consumer.seek(partition, following)
        consumer.resume(partition)
        self._unsettled.discard(place)

    async def commit(self, progress: Mapping[Place, Progress]) -> None:
        consumer = self._open()
        self._kept.update(progress)  # its effect is kept, whatever the broker says
        own = {place: value for place, value in progress.items() if partition_named(place) in consumer.assignment()}
        try:
            if own:
                with _member_kept(consumer):
                    await consumer.commit({partition_named(place): _offset(value) for place, value in own.items()})
        except _GONE:
            self.refused_commits += 1
        except KafkaError as error:
            raise self._unreachable(error) from error
        finally:
            self._in_hand -= {place for place, value in progress.items() if self._is_done(place, value)}
            if not self._in_hand:
                self._done.set()

    def _is_done(self, place: Place, value: Progress) -> bool:
        read = self._read.get(place)
        return read is None or value.following >= read.following

    async def lag(self) -> Mapping[Place, int]:
        consumer = self._open()
        places = [place_named(partition) for partition in consumer.assignment()]
        # What the client saw of an end is as old as its last fetch, and one that lags fetches nothing until it has given out what it holds.
        reported = await self._look.extents(places) if places else {}
        unknown = [place for place in places if place in self._unsettled]
        committed = await _committed(self._servers, self._group, self._config, unknown) if unknown else {}
        lags = {}
        for place in places:
            reader = self._kept.get(place) or committed.get(place) or self._read.get(place) or Progress(0)
            end = max(reported[place].end, consumer.highwater(partition_named(place)) or 0)
            lags[place] = max(0, end - reader.following)
        return lags

    def regressed(self) -> Sequence[Regress]:
        found, self._regressed = self._regressed, []
        return found

    async def close(self) -> None:
        self.is_closed = True
        self._in_hand.clear()
        self._done.set()
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.stop()
        await self._look.close()

    def _open(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            raise self._left()
        return self._consumer

    def _left(self) -> StoreError:
        """No outage: waiting would not help."""
        return StoreError(f"this reader of group {self._group} has left it", hint="subscribe again")

    def _unreachable(self, error: BaseException) -> VenueError:
        return _unreachable(self._servers, self._group, error)


@contextmanager
def _member_kept(consumer: AIOKafkaConsumer) -> Iterator[None]:
    """Stay the same member when a commit is refused because the group is changing.

    The client would come back as a new member, and the group wait for the old one until its session ends (one tested broker for ever).
    Java's client keeps its name. One that is truly forgotten is told so when it joins, and then takes a new one.
    """
    coordinator = consumer._coordinator
    forget = coordinator.reset_generation

    def rejoin() -> None:
        coordinator.generation = -1
        coordinator.request_rejoin()

    coordinator.reset_generation = rejoin
    try:
        yield
    finally:
        coordinator.reset_generation = forget


async def _committed(servers: str, group: str, config: BusConfig, places: Collection[Place]) -> dict[Place, Progress]:
    """How far a group has come, as the broker remembers it."""
    admin = AIOKafkaAdminClient(bootstrap_servers=servers, request_timeout_ms=int(1000 * config.request_seconds))
    try:
        await admin.start()
        found = await admin.list_consumer_group_offsets(group, partitions=[partition_named(place) for place in sorted(places)])
    except (KafkaError, TimeoutError) as error:
        raise _unreachable(servers, group, error) from error
    finally:
        await admin.close()
    return {place_named(partition): _progress(kept) for partition, kept in found.items() if kept.offset >= 0}


def _unreachable(servers: str, group: str, error: BaseException) -> VenueError:
    return VenueError(f"Kafka at {servers} does not serve group {group}: {error!r}", hint="check that the broker runs")


def _offset(progress: Progress) -> OffsetAndMetadata:
    """A commit, with what tells later whether the log is still the same."""
    short = progress if len(progress.last_id) <= _LONGEST_ID else Progress(progress.following)
    return OffsetAndMetadata(progress.following, msgspec.json.encode((short.last, short.last_id, short.last_time)).decode())


def _progress(kept: OffsetAndMetadata) -> Progress:
    """The inverse; brokers and other clients may have kept the offset alone."""
    try:
        last, last_id, last_time = msgspec.json.decode(kept.metadata or "", type=tuple[int, str, int])
    except (msgspec.DecodeError, msgspec.ValidationError):
        return Progress(kept.offset)
    return Progress(kept.offset, last, last_id, last_time)
