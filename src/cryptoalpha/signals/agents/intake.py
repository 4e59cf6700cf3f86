"""Where texts wait: told apart by id, put in order, read in batches, weighed by the sieve.

Reading goes by size or time: a full batch is read at once, what is there is read when somebody asks what is ready. With a reader in other
processes that happens while messages go on coming in; the sieve waits for what was read, in order.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from cryptoalpha.core.errors import DataError, WorkerDiedError
from cryptoalpha.core.time import SECOND
from cryptoalpha.core.values import Post
from cryptoalpha.data.bus.envelope import Envelope
from cryptoalpha.signals.agents.config import AgentsConfig
from cryptoalpha.signals.agents.grown import place_of
from cryptoalpha.signals.agents.reading import Reader, Readings
from cryptoalpha.signals.agents.sieve import Sieve
from cryptoalpha.signals.recent_texts import remember_named
from cryptoalpha.signals.text.tone import Tone, lexicon_tone, remember_tone

IDS = 1 << 19
"""Ids remembered; the oldest leaves first. An id takes some 150 bytes."""


@dataclass(slots=True, eq=False)
class _Batch:
    """Texts that are read together."""

    texts: list[str]
    oldest: int = 0
    """When the first of them to become known did, UTC ns."""
    task: asyncio.Future[Readings] | None = None
    readings: Readings | None = None


@dataclass(frozen=True, slots=True)
class Counted:
    """A text that counts, and how it sounds and what it names, where that was read."""

    post: Post
    weight: float
    tone: float = 0.0
    named: tuple[str, ...] = ()


class Intake:
    """Texts between a stream and the dataset of an agent.

    Args:
        tones: reads what counts as it comes, so that the bar need not; the lexicon's need no more reading.
        always_read: read texts even where the sieve asks nothing of them.
    """

    def __init__(
        self,
        config: AgentsConfig,
        sieve: Sieve,
        reader: Reader,
        assets: tuple[str, ...],
        *,
        tones: Tone = lexicon_tone,
        always_read: bool = False,
    ) -> None:
        self._config, self._sieve, self._reader, self._assets, self._tones = config, sieve, reader, assets, tones
        self._ids: OrderedDict[str, None] = OrderedDict()
        self._waiting: list[tuple[int, str, int, int, str, int, Post, _Batch, int]] = []
        self._came = 0
        self._reorder = round(config.reorder_seconds * SECOND)
        self._batch = _Batch([])
        self._unread: list[_Batch] = []
        self._reads = always_read or not sieve.is_off

    def __len__(self) -> int:
        return len(self._waiting)

    def knows(self, identity: str) -> bool:
        """Whether something of this id was read."""
        return identity in self._ids

    def learn(self, identity: str) -> None:
        """Something of this id was read."""
        self._ids[identity] = None
        if len(self._ids) > IDS:
            self._ids.popitem(last=False)

    def put(self, post: Post) -> int:
        """Let a text wait; returns how many were dropped for it."""
        self._came += 1
        _, row, happened, name = place_of(post)
        batch, place = self._batch, len(self._batch.texts)
        if not place:
            batch.oldest = post.known_at
            self._unread.append(batch)
        batch.texts.append(post.text)
        batch.oldest = min(batch.oldest, post.known_at)
        heapq.heappush(self._waiting, (post.known_at, post.source, row, happened, name, self._came, post, batch, place))
        if len(batch.texts) >= self._config.batch:
            self._close_batch()
        if len(self._waiting) <= self._config.most_waiting:
            return 0
        heapq.heappop(self._waiting)
        return 1

    async def remember(self, envelopes: Iterable[Envelope]) -> None:
        """Learn what left here before a restart, in any order: the sieve then stands where it stood, and repeats are known.

        Nothing else comes of these. What cannot be read was put away by whoever read it then.
        """
        for envelope in sorted(envelopes, key=lambda one: one.observed_time):
            if self.knows(envelope.id):
                continue
            with suppress(DataError):
                value = envelope.value()
                self.learn(envelope.id)
                if isinstance(value, Post):
                    await self.catch_up(value.known_at)
                    self.put(value)
        await self.ready(max((one[0] for one in self._waiting), default=0) + self._reorder)

    async def catch_up(self, moment: int) -> list[Counted]:
        """What counts of a batch that lies in the past, once one waits; all of it was known before that moment, the next one's."""
        if len(self) < min(self._config.batch, self._config.most_waiting):
            return []
        await asyncio.sleep(0.0)  # there may be days of texts, and sources on the same loop
        return await self.ready(moment - 1)

    async def ready(self, now: int, *, wait: bool = True) -> list[Counted]:
        """Texts that have waited long enough and count, in the order they became known.

        Args:
            wait: for what others are still reading. Without it the texts up to the first of those are ready; they join in the same order.

        Raises:
            WorkerDiedError: if whoever reads is gone; nothing is lost, asking again reads again.
        """
        until = now - self._reorder
        if self._reads:
            await self._read_until(until, wait=wait or not self._reader.reads_elsewhere or 2 * len(self) > self._config.most_waiting)
        else:
            self._unread.clear()
            self._batch = _Batch([])
        return self._taken(until)  # nothing waits from here on: what leaves here joins the dataset

    def _taken(self, until: int) -> list[Counted]:
        """The texts known until then, up to the first that is not read."""
        counted: list[Counted] = []
        while self._waiting and self._waiting[0][0] <= until:
            *_, post, batch, place = self._waiting[0]
            if not self._reads:
                counted.append(Counted(post, 1.0))
            elif batch.readings is None:
                break
            else:
                weight = self._sieve.weigh(post, float(batch.readings.relevance[place]))
                if weight > 0.0:
                    tone, named = float(batch.readings.tone[place]), batch.readings.named[place]
                    remember_tone(post.text, tone)
                    remember_named(post.text, self._assets, named)
                    counted.append(Counted(post, weight, tone, named))
            heapq.heappop(self._waiting)
        if counted and self._tones is not lexicon_tone:
            for start in range(0, len(counted), self._config.batch):
                self._tones([one.post.text for one in counted[start : start + self._config.batch]])
        return counted

    async def _read_until(self, until: int, *, wait: bool) -> None:
        """Read every batch with a text known until then; without `wait` only look who is done."""
        while True:
            if self._batch.texts and self._batch.oldest <= until:
                self._close_batch()  # what comes while this is read belongs to the next
            batch = next((one for one in self._unread if one.oldest <= until and (wait or _is_done(one))), None)
            if batch is None:
                return
            try:
                readings = await (self._reader.read(batch.texts) if batch.task is None else asyncio.shield(batch.task))
            except WorkerDiedError:
                batch.task = None
                raise
            batch.readings = readings
            if batch in self._unread:  # somebody else may have waited for it, too
                self._unread.remove(batch)

    def _close_batch(self) -> None:
        """Begin a new batch; where others read, they begin with this one."""
        batch, self._batch = self._batch, _Batch([])
        if self._reader.reads_elsewhere and self._reads:
            batch.task = asyncio.ensure_future(self._reader.read(batch.texts))


def _is_done(batch: _Batch) -> bool:
    """Whether a batch is read, or has to be read again."""
    return batch.task is None or batch.task.done()
