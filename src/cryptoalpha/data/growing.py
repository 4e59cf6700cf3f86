"""A data set that grows while it is traded on: posts and readings of live streams are added at its end.

What a step has been decided on never changes afterwards: a value that came to the stream before a bar was known, but to the book after it,
counts as known after that bar (`since`). So a run that is started again, with what was stored, decides as it did.

A post enters once, whatever later readings of it say; a reading of the same moment enters again only with another value (a revision).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cryptoalpha.core.values import ChainReading, Post
from cryptoalpha.store.tables import Dataset, PostTable, ReadingTable


@dataclass(frozen=True)
class Grown:
    """A data set with what came since, and the new rows alone, to be stored."""

    dataset: Dataset
    posts: tuple[PostTable, ...] = ()
    readings: tuple[ReadingTable, ...] = ()


def grown(dataset: Dataset, values: Sequence[Post | ChainReading], *, since: int) -> Grown:
    """Add live values.

    Args:
        since: the last moment that was decided on, UTC ns; nothing is known at or before it.
    """
    posts, readings = dict(dataset.posts), dict(dataset.readings)
    new_posts: list[PostTable] = []
    new_readings: list[ReadingTable] = []
    for source in sorted({value.source for value in values if isinstance(value, Post)}):
        fresh = _posts(source, posts.get(source), [v for v in values if isinstance(v, Post) and v.source == source], since)
        if fresh is not None:
            new_posts.append(fresh)
            posts[source] = _joined_posts(posts.get(source), fresh)
    for key in sorted({(value.asset, value.metric) for value in values if isinstance(value, ChainReading)}):
        mine = [v for v in values if isinstance(v, ChainReading) and (v.asset, v.metric) == key]
        table = _readings(readings.get(key), mine, since)
        if table is not None:
            new_readings.append(table)
            readings[key] = _joined_readings(readings.get(key), table)
    return Grown(replace(dataset, posts=posts, readings=readings), tuple(new_posts), tuple(new_readings))


def _posts(source: str, there: PostTable | None, values: Sequence[Post], since: int) -> PostTable | None:
    known = set() if there is None else set(there.post_id.tolist())
    floor = max(since + 1, int(there.known_at[-1]) if there is not None and len(there) else 0)
    rows: list[tuple[int, int, str, str]] = []
    for value in sorted(values, key=lambda one: (one.known_at, one.happened_at, one.post_id)):
        if value.post_id not in known and value.text.strip():
            known.add(value.post_id)
            rows.append((value.happened_at, max(value.known_at, floor), value.text, value.post_id))
    if not rows:
        return None
    happened, at, texts, ids = zip(*sorted(rows, key=lambda row: (row[1], row[0], row[3])), strict=True)  # as the store sorts them
    return PostTable(source, np.array(happened, np.int64), np.array(at, np.int64), np.array(texts, np.object_), np.array(ids, np.object_))


def _readings(there: ReadingTable | None, values: Sequence[ChainReading], since: int) -> ReadingTable | None:
    newest = {} if there is None else dict(zip(there.happened_at.tolist(), there.value.tolist(), strict=True))
    floor = max(since + 1, int(there.known_at[-1]) if there is not None and len(there) else 0)
    rows: list[tuple[int, int, float]] = []
    for value in sorted(values, key=lambda one: (one.known_at, one.happened_at)):
        if newest.get(value.happened_at) != value.value:
            newest[value.happened_at] = value.value
            rows.append((value.happened_at, max(value.known_at, floor), value.value))
    if not rows:
        return None
    happened, at, numbers = zip(*sorted(rows, key=lambda row: (row[1], row[0])), strict=True)
    first = values[0]
    source = first.source if there is None else there.source
    return ReadingTable(
        first.asset, first.metric, source, np.array(happened, np.int64), np.array(at, np.int64), np.array(numbers, np.float64)
    )


def _joined_posts(there: PostTable | None, fresh: PostTable) -> PostTable:
    if there is None:
        return fresh
    columns: dict[str, Any] = {name: np.concatenate([getattr(there, name), getattr(fresh, name)]) for name in PostTable.columns()}
    return replace(there, **columns)


def _joined_readings(there: ReadingTable | None, fresh: ReadingTable) -> ReadingTable:
    if there is None:
        return fresh
    columns: dict[str, Any] = {name: np.concatenate([getattr(there, name), getattr(fresh, name)]) for name in ReadingTable.columns()}
    return replace(there, **columns)
