"""Which texts of a stream count, and how much: the language, what it concerns, whether it was said before, and who says it.

A post passes if its language is read, its relevance reaches the threshold, no post that counted said the same lately, and its author has
not said enough. It then weighs

    w = max(least, ln(1 + reach) / ln(1 + full reach)) / (1 + repeats of the author)      (at least `least`)

because few followers and much repetition are what bots have in common. So of whatever one author writes within the window, the first
`posts_per_author` distinct texts count, with weight 1 at most: the rest changes nothing, to the last bit. Only what counted is remembered,
so all he can hide of others are texts that say what one of those few says.

What passes depends on the posts before, in the order in which they became known; the same posts in that order get the same verdicts from a
stream and from a stored history (`sifted`).
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from cryptoalpha.core.time import DAY, HOUR
from cryptoalpha.core.values import Post
from cryptoalpha.signals.agents.config import SieveConfig
from cryptoalpha.signals.agents.duplicates import NearDuplicates
from cryptoalpha.signals.chain_features import base_of
from cryptoalpha.signals.text.relevance import relevance as relevance_of
from cryptoalpha.store.tables import Dataset, PostTable

Verdict = Literal["counted", "language", "irrelevant", "repeat", "author"]

AUTHORS = 1 << 16
"""Authors remembered; the one heard least recently leaves first."""

Relevance = Callable[[str], float]


@dataclass(slots=True)
class _Author:
    counted: deque[int]
    repeats: deque[int]
    """Moments, UTC ns; of repeats at most `REPEATS`."""


REPEATS = 64


class Sieve:
    """Judges posts one after the other, in the order in which they became known.

    Args:
        config: what counts.
    """

    def __init__(self, config: SieveConfig | None = None) -> None:
        self.config = config or SieveConfig()
        self.verdicts: dict[Verdict, int] = dict.fromkeys(("counted", "language", "irrelevant", "repeat", "author"), 0)
        self._window = round(self.config.author_hours * HOUR)
        self._languages = frozenset(self.config.languages)
        self._authors: OrderedDict[str, _Author] = OrderedDict()
        self._said: NearDuplicates | None = None
        if self.config.near_duplicate < 1.0:
            window = round(self.config.repeat_days * DAY)
            self._said = NearDuplicates(likeness=self.config.near_duplicate, remembered=self.config.remembered, window=window)

    @property
    def is_off(self) -> bool:
        """Whether everything counts alike, so that nobody need be asked."""
        config = self.config
        return not (config.relevance_threshold or self._said or config.posts_per_author or config.full_reach or config.languages)

    def weigh(self, post: Post, relevance: float) -> float:
        """What a post counts, 0 to 1; 0: it does not."""
        verdict, weight = self._judge(post, relevance)
        self.verdicts[verdict] += 1
        return weight

    def _judge(self, post: Post, relevance: float) -> tuple[Verdict, float]:
        config = self.config
        if self._languages and post.language and post.language not in self._languages:
            return "language", 0.0
        if relevance < config.relevance_threshold:
            return "irrelevant", 0.0
        author = self._author(post) if post.author else None
        if author is not None and config.posts_per_author and len(author.counted) >= config.posts_per_author:
            return "author", 0.0  # before the repeats: a flood costs nothing and leaves no trace
        if self._said is not None:
            if self._said.is_repeat(post.text, post.known_at):
                if author is not None:
                    author.repeats.append(post.known_at)
                return "repeat", 0.0
            self._said.add(post.known_at)
        if author is None:
            return "counted", self._by_reach(post, 0)
        weight = self._by_reach(post, len(author.repeats))
        author.counted.append(post.known_at)
        return "counted", weight

    def _by_reach(self, post: Post, repeats: int) -> float:
        config = self.config
        if not config.full_reach or not (post.author or post.reach):
            return 1.0
        readers = max(post.reach, 0.0) if math.isfinite(post.reach) else 0.0
        share = min(1.0, math.log1p(readers) / math.log1p(config.full_reach))
        return max(config.least_weight, share / (1 + repeats))

    def _author(self, post: Post) -> _Author:
        """The author's recent past at the moment of this post."""
        name = f"{post.source}/{post.author}"
        author = self._authors.get(name)
        if author is None:
            author = self._authors[name] = _Author(deque(), deque(maxlen=REPEATS))
            if len(self._authors) > AUTHORS:
                self._authors.popitem(last=False)
        else:
            self._authors.move_to_end(name)
        opens = post.known_at - self._window
        for moments in (author.counted, author.repeats):
            while moments and moments[0] <= opens:
                moments.popleft()
        return author


def sifted(dataset: Dataset, assets: tuple[str, ...], config: SieveConfig, *, sieve: Sieve | None = None) -> Dataset:
    """The dataset with the texts that count, weighed: what an agent's dataset would be had it read this history as a stream.

    Stored texts say nothing of author, reach or language; their relevance and repeats are judged. Those that were stored with a weight keep
    it.
    """
    sieve = sieve or Sieve(config)
    if sieve.is_off:
        return dataset
    order = [(int(known), name, i) for name, table in dataset.posts.items() for i, known in enumerate(table.known_at.tolist())]
    kept: dict[str, list[tuple[int, float]]] = {name: [] for name in dataset.posts}
    for _, name, i in sorted(order):
        post = post_of(dataset.posts[name], i)
        weight = sieve.weigh(post, relevance_of(post.text, assets) if config.relevance_threshold else 1.0)
        if weight > 0.0:
            kept[name].append((i, weight))
    return replace(dataset, posts={name: _weighed(dataset.posts[name], rows) for name, rows in kept.items() if rows})


def assets_of(dataset: Dataset) -> tuple[str, ...]:
    """What the instruments of a dataset trade, in their order: `BTC/USDT` → `BTC`."""
    return tuple(base_of(dataset, instrument) for instrument in dataset.bars)


def post_of(table: PostTable, row: int) -> Post:
    """A stored text as the value that travels."""
    return Post(
        happened_at=int(table.happened_at[row]),
        known_at=int(table.known_at[row]),
        post_id=str(table.post_id[row]),
        source=table.source,
        text=str(table.text[row]),
    )


def _weighed(table: PostTable, rows: list[tuple[int, float]]) -> PostTable:
    places = np.array([row for row, _ in rows], np.int64)
    kept = table.take(places)
    return replace(kept, weight=kept.weight * np.array([weight for _, weight in rows], np.float64))
