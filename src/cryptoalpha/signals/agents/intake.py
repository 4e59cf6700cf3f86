"""Where texts wait: told apart by id, put in order, read in batches, weighed by the sieve.

Reading goes by size or time: a full batch is read at once, what is there is read when somebody asks what is ready. With a reader in other
processes that happens while messages go on coming in; the sieve waits for what was read, in order.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import OrderedDict
from dataclasses import dataclass

from cryptoalpha.core.time import SECOND
from cryptoalpha.core.values import Post
from cryptoalpha.signals.agents.config import AgentsConfig
from cryptoalpha.signals.agents.grown import place_of
from cryptoalpha.signals.agents.reading import Reader, Readings
from cryptoalpha.signals.agents.sieve import Sieve
from cryptoalpha.signals.recent_texts import remember_named
from cryptoalpha.signals.text.tone import Tone, lexicon_tone, remember_tone

IDS = 1 << 19
"""Ids remembered; the oldest leaves first. An id takes some 150 bytes."""


@dataclass(slots=True)
class _Batch:
    """Texts that are read together."""

    texts: list[str]
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
        batch.texts.append(post.text)
        heapq.heappush(self._waiting, (post.known_at, post.source, row, happened, name, self._came, post, batch, place))
        if len(batch.texts) >= self._config.batch:
            self._close_batch()
        if len(self._waiting) <= self._config.most_waiting:
            return 0
        heapq.heappop(self._waiting)
        return 1

    async def ready(self, now: int | None) -> list[Counted]:
        """Texts that have waited long enough (all of them where nobody says what time it is) and count, in the order they became known."""
        until = None if now is None else now - self._reorder
        counted: list[Counted] = []
        while self._waiting and (until is None or self._waiting[0][0] <= until):
            *_, post, batch, place = heapq.heappop(self._waiting)
            if not self._reads:
                counted.append(Counted(post, 1.0))
                continue
            readings = batch.readings or await self._read(batch)
            weight = self._sieve.weigh(post, float(readings.relevance[place]))
            if weight > 0.0:
                tone, named = float(readings.tone[place]), readings.named[place]
                remember_tone(post.text, tone)
                remember_named(post.text, self._assets, named)
                counted.append(Counted(post, weight, tone, named))
        if counted and self._tones is not lexicon_tone:
            for start in range(0, len(counted), self._config.batch):
                self._tones([one.post.text for one in counted[start : start + self._config.batch]])
        return counted

    def _close_batch(self) -> None:
        """Begin a new batch; where others read, they begin with this one."""
        batch, self._batch = self._batch, _Batch([])
        if self._reader.reads_elsewhere and self._reads:
            batch.task = asyncio.ensure_future(self._reader.read(batch.texts))

    async def _read(self, batch: _Batch) -> Readings:
        if batch is self._batch:
            self._close_batch()
        batch.readings = await (self._reader.read(batch.texts) if batch.task is None else batch.task)
        return batch.readings
