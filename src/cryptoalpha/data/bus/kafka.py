"""The bus over Kafka: the same promises, kept by a broker that many processes share.

`publish` returns when the broker has all messages (`acks=all`, idempotent unless the settings say otherwise, in one transaction if they say
so). Topics are made with the settings' partitions and retention where they do not exist. A producer that failed is thrown away: what it
had under way is unknown, the caller publishes again, and ids tell repeats apart. Readers: `kafka_consumer`.

Readers of transactions wait for one that was left open. So a publisher keeps its name over restarts: the next of that name ends what a
killed one had begun, and a broker gives up by itself what nobody ends.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Self
from uuid import uuid4

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError

from cryptoalpha.core.clock import Clock, SystemClock
from cryptoalpha.core.errors import ConfigError, StoreLockedError, VenueError
from cryptoalpha.data.bus.config import BusConfig
from cryptoalpha.data.bus.contract import Place, Progress
from cryptoalpha.data.bus.envelope import Envelope, to_bytes
from cryptoalpha.data.bus.kafka_consumer import KafkaConsumer
from cryptoalpha.data.bus.lock import take_hold
from cryptoalpha.data.bus.own_group import own_group

_EXISTS, _NOT_ALLOWED = 36, 29
"""Answers to making a topic that are no failure: it is there, or somebody else has to make it."""
_LONGEST_TRANSACTION_MS = 900_000
"""What brokers allow by default."""


class KafkaBus:
    """A bus over Kafka. An asynchronous context manager.

    Args:
        config: topics and patience.
        servers: bootstrap servers, `host:port`, several with commas.
        folder: where the home keeps its streams; with transactions, what tells its publishers apart. None: their names are drawn.
        clock: tells readers when they read; messages carry the time of the producer's machine.

    Raises (on entering):
        StoreError: if the folder cannot be used.
    """

    def __init__(self, config: BusConfig, servers: str, *, folder: Path | None = None, clock: Clock | None = None) -> None:
        self.config, self._servers, self._folder = config, servers, folder
        self._publisher = f"publisher/{uuid4().hex}"
        self._hold: int | None = None
        self._clock = SystemClock() if clock is None else clock
        self.published: Counter[str] = Counter()
        self._producer: AIOKafkaProducer | None = None
        self._opening = asyncio.Lock()
        self._transaction = asyncio.Lock()
        self._made: set[str] = set()
        self._leaving: set[asyncio.Task[None]] = set()
        self._consumers: list[KafkaConsumer] = []

    async def __aenter__(self) -> Self:
        if self.config.transactions and self._folder is not None:
            self._publisher, self._hold = _free_name(self._folder)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Leave all groups, send what is under way, let go of connections."""
        for consumer in self._consumers:
            await consumer.close()
        self._drop_producer()
        while self._leaving:
            await asyncio.wait(self._leaving)
        hold, self._hold = self._hold, None
        if hold is not None:
            os.close(hold)

    async def publish(self, envelopes: Sequence[Envelope]) -> None:
        if not envelopes:
            return
        await self.ensure({envelope.topic for envelope in envelopes})
        producer = await self._open_producer()
        try:
            async with asyncio.timeout(2 * self.config.request_seconds):
                if self.config.transactions:
                    async with self._transaction, producer.transaction():
                        await self._send(producer, envelopes)
                else:
                    await self._send(producer, envelopes)
        except (KafkaError, TimeoutError) as error:
            if self._producer is producer:
                self._drop_producer()
            self._made.clear()  # a broker that lost its log has lost its topics
            raise self._unreachable("did not keep all messages", error) from error
        for envelope in envelopes:
            self.published[envelope.topic] += 1

    async def _send(self, producer: AIOKafkaProducer, envelopes: Sequence[Envelope]) -> None:
        # The time of sending is the client's own stamp: a broker deletes by it, and would delete an old recording as it comes.
        sent = [await producer.send(envelope.topic, to_bytes(envelope), key=envelope.key.encode()) for envelope in envelopes]
        await asyncio.wait(sent)
        for future in sent:
            future.result()

    async def ensure(self, topics: set[str]) -> None:
        """Make the topics that do not exist.

        Raises:
            VenueError: if the broker does not answer, or refuses.
        """
        missing = sorted(topics - self._made)
        if not missing:
            return
        wanted = []
        for name in missing:
            settings = self.config.topic(name)
            limits = {"retention.ms": str(int(settings.hours * 3_600_000)), "retention.bytes": str(int(settings.megabytes * 1e6))}
            wanted.append(NewTopic(name, settings.partitions, self.config.replication, topic_configs=limits))
        admin = AIOKafkaAdminClient(bootstrap_servers=self._servers, request_timeout_ms=int(1000 * self.config.request_seconds))
        try:
            await admin.start()
            answer = await admin.create_topics(wanted)
        except (KafkaError, TimeoutError) as error:
            raise self._unreachable("did not make topics", error) from error
        finally:
            await admin.close()
        for name, code, *words in answer.topic_errors:
            if code not in (0, _EXISTS, _NOT_ALLOWED):
                raise VenueError(f"Kafka at {self._servers} does not make topic {name}: {' '.join(map(str, words))} (code {code})")
        self._made.update(missing)

    async def _open_producer(self) -> AIOKafkaProducer:
        async with self._opening:
            if self._producer is None:
                compression = None if self.config.compression == "none" else self.config.compression
                try:
                    producer = AIOKafkaProducer(
                        bootstrap_servers=self._servers,
                        acks="all",
                        linger_ms=0,
                        compression_type=compression,
                        enable_idempotence=self.config.idempotence,
                        transactional_id=f"cryptoalpha/{self._publisher}" if self.config.transactions else None,
                        transaction_timeout_ms=min(int(2000 * self.config.request_seconds) + 1000, _LONGEST_TRANSACTION_MS),
                        request_timeout_ms=int(1000 * self.config.request_seconds),
                    )
                except (RuntimeError, ValueError) as error:
                    raise ConfigError(f"no Kafka producer with these settings: {error}", hint="see data.streams.bus") from error
                try:
                    async with asyncio.timeout(2 * self.config.request_seconds):
                        await producer.start()
                except (KafkaError, TimeoutError) as error:
                    self._let_go(producer)
                    raise self._unreachable("takes no producer", error) from error
                self._producer = producer
            return self._producer

    def _drop_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            self._let_go(producer)

    def _let_go(self, producer: AIOKafkaProducer) -> None:
        """Close a producer beside the work; it may wait for a broker that is gone."""

        async def leave() -> None:
            try:
                async with asyncio.timeout(self.config.request_seconds):
                    await producer.stop()
            except (KafkaError, TimeoutError):
                await producer.client.close()

        task = asyncio.get_running_loop().create_task(leave())
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def subscribe(self, group: str, topics: Sequence[str], *, kept: Mapping[Place, Progress] | None = None) -> KafkaConsumer:
        await self.ensure(set(topics))
        consumer = KafkaConsumer(self.config, self._servers, group, topics, dict(kept or {}), self._clock)
        await consumer.start()
        self._consumers = [*(other for other in self._consumers if not other.is_closed), consumer]
        return consumer

    def _unreachable(self, what: str, error: BaseException) -> VenueError:
        return VenueError(
            f"Kafka at {self._servers} {what}: {error!r}", hint="check that it runs; what was published may be published again"
        )


def _free_name(folder: Path) -> tuple[str, int]:
    """The first of a home's names for publishers that no process uses, and what holds it: who was killed is followed by one of its name."""
    for number in count():
        try:
            hold = take_hold(folder / f"publisher{number}", "publisher's name", hint="another name is free")
        except StoreLockedError:
            continue
        return own_group(folder, f"publisher/{number}"), hold
    raise AssertionError("numbers do not end")
