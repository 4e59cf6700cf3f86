"""Where texts wait: told apart by id, put in order, read in batches, weighed by the sieve."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Sequence

from cryptoalpha.core.time import SECOND
from cryptoalpha.core.values import Post
from cryptoalpha.signals.agents.config import AgentsConfig
from cryptoalpha.signals.agents.grown import place_of
from cryptoalpha.signals.agents.reading import Reader
from cryptoalpha.signals.agents.sieve import Sieve

IDS = 1 << 19
"""Ids remembered; the oldest leaves first. An id takes some 150 bytes."""


class Intake:
    """Texts between a stream and the dataset of an agent."""

    def __init__(self, config: AgentsConfig, sieve: Sieve, reader: Reader, assets: tuple[str, ...]) -> None:
        self._config, self._sieve, self._reader, self._assets = config, sieve, reader, assets
        self._ids: OrderedDict[str, None] = OrderedDict()
        self._waiting: list[tuple[int, str, int, int, str, int, Post]] = []
        self._came = 0
        self._reorder = round(config.reorder_seconds * SECOND)

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
        heapq.heappush(self._waiting, (post.known_at, post.source, row, happened, name, self._came, post))
        if len(self._waiting) <= self._config.most_waiting:
            return 0
        heapq.heappop(self._waiting)
        return 1

    async def ready(self, now: int | None) -> list[tuple[Post, float]]:
        """Texts that have waited long enough and count, with their weights, in the order in which they became known."""
        until = None if now is None else now - self._reorder
        posts: list[Post] = []
        while self._waiting and (until is None or self._waiting[0][0] <= until):
            posts.append(heapq.heappop(self._waiting)[-1])
        counted = []
        for start in range(0, len(posts), self._config.batch):
            counted += await self._weighed(posts[start : start + self._config.batch])
        return counted

    async def _weighed(self, posts: Sequence[Post]) -> list[tuple[Post, float]]:
        if self._sieve.is_off:
            return [(post, 1.0) for post in posts]
        readings = await self._reader.read([post.text for post in posts])
        weighed = ((post, self._sieve.weigh(post, of)) for post, of in zip(posts, readings.relevance.tolist(), strict=True))
        return [(post, weight) for post, weight in weighed if weight > 0.0]
