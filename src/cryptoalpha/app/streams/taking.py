"""What streams brought, taken into a book's data set between two bars.

What a step was decided on never changes afterwards: a value that reached the stream before a bar was known, but the book after it, counts
as known after that bar (`since`). So a run that is started again, with what the store holds, decides as it did.

A reading enters the series of its source (`signals.agents.series`), under the name the store gives back, and only if it says a number.
A post enters once, whatever later readings of it say; a reading of the same moment enters again only with another value (a revision), and
one that is heard again after a restart not even then: what is held was known no earlier than it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import msgspec
import numpy as np

from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.core.values import ChainReading, Post
from cryptoalpha.signals.agents.grown import GrownDataset
from cryptoalpha.signals.agents.series import Key, in_series
from cryptoalpha.store.history import History
from cryptoalpha.store.partition import Series
from cryptoalpha.store.tables import Dataset, PostTable, ReadingTable

T = TypeVar("T", PostTable, ReadingTable)

_LONGEST_NAME = 80
"""Letters of a source, asset or metric: file systems take names of 255, and a series' name joins two of these."""


@dataclass(frozen=True)
class Heard:
    """A value a book takes, and how much it counts."""

    value: Post | ChainReading
    weight: float = 1.0


@dataclass(frozen=True)
class Taken:
    """A data set with what came since, and the new rows alone, to be stored."""

    dataset: Dataset
    posts: tuple[PostTable, ...] = ()
    readings: tuple[ReadingTable, ...] = ()

    def store(self, history: History, *, origin: str) -> None:
        """Put the new rows where a restart finds them.

        Raises:
            StoreError: if the disk refuses.
        """
        for posts in self.posts:
            history.write_posts(posts, origin=origin)
        for readings in self.readings:
            history.write_readings(readings, origin=origin)


def demand_place(value: Post | ChainReading) -> None:
    """Refuse what the store could not keep: with it in hand a session could not go on, nor begin again.

    Raises:
        DataError: if a text has no id, or a source, asset or metric is called what no file can be.
    """
    if isinstance(value, Post):
        series, names = Series("posts", value.source), [value.source]
        if not value.post_id:
            raise DataError(f"a text of {value.source} has no id")
    else:
        series, names = Series("readings", value.source, value.asset, value.metric), [value.source, value.asset, value.metric]
    if too_long := [name for name in names if len(name) > _LONGEST_NAME]:
        raise DataError(f"{too_long[0][:_LONGEST_NAME]}… is too long a name to be stored under")
    try:
        series.path("")
    except ConfigError as error:
        raise DataError(str(error)) from None


def taken_in(dataset: Dataset, heard: Sequence[Heard], *, since: int) -> Taken:
    """Add what was heard.

    Args:
        since: the last moment that was decided on, UTC ns; nothing new is known at or before it.
    """
    grown = GrownDataset(dataset)
    for post, weight in _new_posts(dataset, heard, since):
        grown.add_post(post, weight)
    readings = [one.value for one in heard if isinstance(one.value, ChainReading) and math.isfinite(one.value.value)]
    for reading in _new_readings(dataset, in_series(dataset.readings, readings), since):
        grown.add_reading(reading)
    after = _named_by_id(grown.dataset(), dataset)
    return Taken(
        after,
        tuple(_fresh(dataset.posts.get(key), table) for key, table in after.posts.items() if table is not dataset.posts.get(key)),
        tuple(_fresh(dataset.readings.get(key), table) for key, table in after.readings.items() if table is not dataset.readings.get(key)),
    )


def _named_by_id(after: Dataset, before: Dataset) -> Dataset:
    """Texts of tables that grew have no place in a file yet."""
    posts = {
        source: table if table is before.posts.get(source) else replace(table, partition=np.full(len(table), ""), row=np.arange(len(table)))
        for source, table in after.posts.items()
    }
    return replace(after, posts=posts)


def _new_posts(dataset: Dataset, heard: Sequence[Heard], since: int) -> list[tuple[Post, float]]:
    """In the order in which the store would give them back."""
    found: list[tuple[Post, float]] = []
    for source in sorted({one.value.source for one in heard if isinstance(one.value, Post)}):
        table = dataset.posts.get(source)
        known = set() if table is None else set(table.post_id.tolist())
        stamp = partial(_stamped, floor=_floor(table, since))
        mine = [(stamp(one.value), one.weight) for one in heard if isinstance(one.value, Post) and one.value.source == source]
        for post, weight in sorted(mine, key=lambda one: (one[0].known_at, one[0].happened_at, one[0].post_id)):
            if post.post_id not in known and post.text.strip():
                known.add(post.post_id)
                found.append((post, weight))
    return found


def _new_readings(dataset: Dataset, values: Iterable[ChainReading], since: int) -> list[ChainReading]:
    """In the order in which the store would give them back, and each under a name of its own there: the moment and when it was known."""
    found: list[ChainReading] = []
    arrived: dict[Key, list[ChainReading]] = defaultdict(list)
    for value in values:
        arrived[value.asset, value.metric].append(value)
    for key in sorted(arrived):
        table = dataset.readings.get(key)
        newest: dict[int, tuple[int, float]] = {}
        held: dict[tuple[int, float], int] = {}
        if table is not None:
            for moment, known_at, value in zip(table.happened_at.tolist(), table.known_at.tolist(), table.value.tolist(), strict=True):
                newest[moment], held[moment, value] = (known_at, value), known_at
        floor = _floor(table, since)
        mine: list[ChainReading] = []
        for reading in sorted(arrived[key], key=lambda one: one.known_at):
            known_before, value_before = newest.get(reading.happened_at, (-1, None))
            is_heard_again = held.get((reading.happened_at, reading.value), -1) >= reading.known_at
            if is_heard_again or reading.value == value_before:
                continue
            reading = _stamped(reading, max(floor, known_before + 1))
            newest[reading.happened_at] = (reading.known_at, reading.value)
            mine.append(reading)
        found += sorted(mine, key=lambda one: (one.known_at, one.happened_at))
    return found


def _floor(table: PostTable | ReadingTable | None, since: int) -> int:
    newest = int(table.known_at[-1]) if table is not None and len(table) else since
    return max(since, newest) + 1


V = TypeVar("V", Post, ChainReading)


def _stamped(value: V, floor: int) -> V:
    return value if value.known_at >= floor else msgspec.structs.replace(value, known_at=floor)


def _fresh(before: T | None, after: T) -> T:
    """The rows at the end that were not there before."""
    return after.take(np.arange(0 if before is None else len(before), len(after)))
