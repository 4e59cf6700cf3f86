"""A worker: takes messages, lets each take effect once, says what follows from them, and commits.

take → pass over what was handled → handle → settle (ids, progress and outputs in one transaction of the inbox) → publish → commit.
A crash anywhere leaves either nothing or everything of a batch. A message that cannot be handled is tried again alone; after some failures
it becomes a dead letter and the stream goes on. Memory holds one batch. Cancelling is safe at any await.

The handler gets messages in order of their partition, and its outputs are its only effect: where a batch failed or another member was
quicker it is called again with a part of it. Outputs need ids made of what they are about, so that saying them again is recognised.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptoalpha.core.backoff import Backoff
from cryptoalpha.core.errors import ConfigError, CryptoAlphaError, StoreError, VenueError, WorkerDiedError
from cryptoalpha.data.bus.config import WorkerConfig
from cryptoalpha.data.bus.contract import Bus, Consumer, Place, Progress, Record, Regress, progress_of
from cryptoalpha.data.bus.dead import letter_of
from cryptoalpha.data.bus.envelope import Envelope
from cryptoalpha.data.bus.inbox import Inbox, OvertakenError

if TYPE_CHECKING:
    import numpy as np

Handler = Callable[[Sequence[Envelope]], Awaitable[Sequence[Envelope]]]

OUTAGES = (VenueError, WorkerDiedError, StoreError)
"""Faults of what a handler uses rather than of the message."""
FAULTS = (CryptoAlphaError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What a message can cause in a handler. Anything else (no memory, a broken pipe) ends the worker; so does a `ConfigError`, which every
message would cause."""


@dataclass
class WorkerCounts:
    """What a worker has done."""

    taken: int = 0
    handled: int = 0
    repeats: int = 0
    """Messages that came again and were passed over."""
    outputs: int = 0
    dead: int = 0
    failures: int = 0
    """Attempts that failed."""
    waits: int = 0
    """Times the bus could not be reached and was waited for."""
    overtaken: int = 0
    """Batches of which another member had settled a part."""
    uncommitted: int = 0
    """Commits the bus refused; the inbox knows better anyway."""
    regressed: list[Regress] = field(default_factory=list)
    """Losses found; the newest hundred."""


class Worker:
    """Handles the messages of some topics for a group.

    Args:
        inbox: what the group has handled; open. Names the group.
        handler: what is done with messages; its outputs go to the bus.
        random: spreads the waits; `core.seeds.stream`.
        on_regress: called with every loss found, to ask sources again.
        on_settled: called with the ids of messages whose effect has just been kept, to measure.
    """

    def __init__(
        self,
        bus: Bus,
        inbox: Inbox,
        handler: Handler,
        *,
        topics: Sequence[str],
        config: WorkerConfig,
        random: np.random.Generator,
        on_regress: Callable[[Regress], None] | None = None,
        on_settled: Callable[[Sequence[str]], None] | None = None,
    ) -> None:
        self._bus, self._inbox, self._handler = bus, inbox, handler
        self._topics, self._config, self._random = tuple(topics), config, random
        self._on_regress, self._on_settled = on_regress, on_settled
        self.counts = WorkerCounts()
        self._is_stopping = False
        self._published = 0
        self._last = 0  # number of our newest output in the outbox
        self._consumer: Consumer | None = None
        self._outage = self._backoff()

    def stop(self) -> None:
        """Let `run` end after the batch in hand."""
        self._is_stopping = True

    async def lag(self) -> int:
        """Messages that wait for this worker; 0 while it does not run."""
        return 0 if self._consumer is None else sum((await self._consumer.lag()).values())

    async def run(self) -> None:
        """Work until `stop` or cancelled.

        Raises:
            StoreError: if the inbox cannot be written.
            ConfigError: if the bus or the handler can never work as it is configured. What was not handled comes again.
        """
        numbers, left = await self._inbox.outbox()
        if left:
            await self._publish(left)
            await self._inbox.forget(numbers)
        self._consumer = consumer = await self._subscribed()
        try:
            while not self._is_stopping:
                await self._step(consumer)
            await self._inbox.settle([], {}, [], published=self._published)
        finally:
            self._consumer = None
            await consumer.close()

    async def _subscribed(self) -> Consumer:
        backoff = self._backoff()
        while True:
            try:
                return await self._bus.subscribe(self._inbox.group, self._topics, kept=await self._inbox.progress())
            except VenueError:
                await self._wait(backoff)

    async def _step(self, consumer: Consumer) -> None:
        try:
            records = await consumer.take(self._config.batch, wait_seconds=self._config.wait_seconds)
        except VenueError:
            await self._wait(self._outage)
            return
        self._outage.reset()
        for regress in consumer.regressed():
            self.counts.regressed = [*self.counts.regressed[-99:], regress]
            if self._on_regress is not None:
                self._on_regress(regress)
        if not records:
            return
        self.counts.taken += len(records)
        progress = progress_of(records, now=self._inbox.now())
        outputs = await self._settle(records, progress)
        await self._publish(outputs)
        try:
            await consumer.commit(progress)
        except (VenueError, StoreError):
            self.counts.uncommitted += 1

    async def _settle(self, records: Sequence[Record], progress: dict[Place, Progress]) -> list[Envelope]:
        """Handle what was not handled before, and keep it; what is to be published."""
        messages: dict[str, Record] = {}
        unreadable: dict[str, Envelope] = {}
        for record in records:
            if record.envelope is not None:
                messages.setdefault(record.envelope.id, record)
            else:
                letter = self._unread(record, records)
                unreadable.setdefault(letter.id, letter)
        while True:
            known = await self._inbox.handled([*messages, *unreadable])
            fresh = {name: record for name, record in messages.items() if name not in known}
            letters = [letter for name, letter in unreadable.items() if name not in known]
            outputs, dead = await self._handled(list(fresh.values())) if fresh else ([], [])
            ids = [*fresh, *(letter.id for letter in letters)]
            said = [*outputs, *dead, *letters]
            try:
                self._last = await self._inbox.settle(ids, progress, said, published=self._published)
            except OvertakenError:
                self.counts.overtaken += 1
                continue
            if self._on_settled is not None:
                self._on_settled(ids)
            self.counts.handled += len(fresh) - len(dead)
            self.counts.repeats += len(records) - len(fresh) - len(letters)
            self.counts.outputs += len(outputs)
            self.counts.dead += len(dead) + len(letters)
            return said

    def _unread(self, record: Record, records: Sequence[Record]) -> Envelope:
        """A dead letter of bytes that are no message; as old as the messages around them."""
        near = next((other.envelope.observed_time for other in records if other.envelope is not None), 0)
        return letter_of(record, reason=record.fault, observed_time=near)

    async def _handled(self, fresh: Sequence[Record]) -> tuple[list[Envelope], list[Envelope]]:
        """Outputs, and dead letters of what could not be handled."""
        try:
            return await self._told(fresh), []
        except ConfigError:
            raise
        except FAULTS as error:
            self.counts.failures += 1
            if len(fresh) == 1:
                return await self._tried_again(fresh[0], error)
        outputs: list[Envelope] = []
        dead: list[Envelope] = []
        for record in fresh:
            said, letters = await self._handled([record])
            outputs += said
            dead += letters
        return outputs, dead

    async def _tried_again(self, record: Record, error: Exception) -> tuple[list[Envelope], list[Envelope]]:
        """One message that has failed once."""
        backoff, failures = self._backoff(), 1
        while failures < (self._config.outage_attempts if isinstance(error, OUTAGES) else self._config.attempts):
            await asyncio.sleep(backoff.wait())
            try:
                return await self._told([record]), []
            except ConfigError:
                raise
            except FAULTS as again:
                error, failures = again, failures + 1
                self.counts.failures += 1
        came = 0 if record.envelope is None else record.envelope.observed_time
        return [], [letter_of(record, reason=f"{type(error).__name__}: {error}", observed_time=came, failures=failures)]

    async def _told(self, records: Sequence[Record]) -> list[Envelope]:
        """What the handler makes of messages."""
        return list(await self._handler([record.envelope for record in records if record.envelope is not None]))

    async def _publish(self, outputs: Sequence[Envelope]) -> None:
        """Publish, however long it takes: the loop takes nothing more meanwhile, so what waits is bounded."""
        backoff = self._backoff()
        while outputs:
            try:
                await self._bus.publish(outputs)
                break
            except VenueError:
                await self._wait(backoff)
        self._published = self._last

    async def _wait(self, backoff: Backoff) -> None:
        self.counts.waits += 1
        await asyncio.sleep(backoff.wait())

    def _backoff(self) -> Backoff:
        return Backoff(self._config.retry_seconds, self._config.retry_limit_seconds, random=self._random)
