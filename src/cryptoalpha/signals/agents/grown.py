"""A dataset that grows from a stream, and at any moment is the very one that a load of the same observations would give.

Bars are kept by open time, readings (each series of one source: `series`) and posts by the moment they became known, ties in the order in
which they are stored or, where nobody stored them, in which they came. What comes late is put where it belongs. Nothing is believed twice:
a bar whose place is taken and a post already held are told apart and counted. Texts older than any source looks back to are forgotten now
and then; the first of each source stays, because sources ask when anything was published at all.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from cryptoalpha.core.errors import DataError
from cryptoalpha.core.time import grid_anchor, iso
from cryptoalpha.core.values import Bar, ChainReading, Post
from cryptoalpha.signals.agents.series import Key, in_series
from cryptoalpha.store.tables import BarTable, Dataset, PostTable, ReadingTable

_STORED = re.compile(r"([0-9a-f]{16}):(\d+)")
"""How a stored text is named: its partition and row (`data.texts`)."""


def place_of(post: Post) -> tuple[str, int, int, str]:
    """Partition and row of a stored text, and what orders the others that became known at the same moment, as the store does."""
    found = _STORED.fullmatch(post.post_id)
    return ("", 0, post.happened_at, post.post_id) if found is None else (found[1], int(found[2]), -1, "")


@dataclass(frozen=True, slots=True)
class _Text:
    post: Post
    weight: float
    partition: str
    row: int


class GrownDataset:
    """Bars, readings and posts of a start and whatever is added.

    Args:
        start: what is known at the beginning; instruments and bar length are its own.
    """

    def __init__(self, start: Dataset) -> None:
        self._dataset = start
        self.interval = next(iter(start.bars.values())).interval
        self.repeats = self.late = 0
        """Bars that came twice; posts and readings that came after others that became known later."""
        self._bars: dict[str, dict[int, Bar]] = defaultdict(dict)
        self._readings: list[ChainReading] = []
        self._posts: dict[str, list[_Text]] = defaultdict(list)
        self._newest = {name: int(table.open_time[-1]) if len(table) else -1 for name, table in start.bars.items()}

    @property
    def instruments(self) -> tuple[str, ...]:
        """Instruments whose bars are taken."""
        return tuple(self._dataset.bars)

    def add_bar(self, bar: Bar) -> bool:
        """Take a bar; whether it is a new one of a known instrument and length.

        Raises:
            DataError: if it opens off the grid.
        """
        if bar.instrument not in self._newest or bar.interval != self.interval:
            return False
        if (bar.happened_at - grid_anchor(self.interval)) % self.interval:
            raise DataError(f"bar of {bar.instrument} opens off the grid at {iso(bar.happened_at)}", hint="run it through the bar gate")
        held = self._dataset.bars[bar.instrument].open_time
        taken = bar.instrument in self._bars and bar.happened_at in self._bars[bar.instrument]
        if not taken and bar.happened_at <= self._newest[bar.instrument]:
            place = int(np.searchsorted(held, bar.happened_at))
            taken = place < len(held) and int(held[place]) == bar.happened_at
        if taken:
            self.repeats += 1
            return False
        self._bars[bar.instrument][bar.happened_at] = bar
        self._newest[bar.instrument] = max(self._newest[bar.instrument], bar.happened_at)
        return True

    def add_reading(self, reading: ChainReading) -> bool:
        """Take a reading; whether it says a number."""
        if not math.isfinite(reading.value):
            return False
        self._readings.append(reading)
        return True

    def add_post(self, post: Post, weight: float = 1.0) -> None:
        """Take a text that counts so much."""
        partition, row, _, _ = place_of(post)
        self._posts[post.source].append(_Text(post, weight, partition, row))

    def dataset(self) -> Dataset:
        """Everything so far. Tables that did not grow are the same objects as before."""
        if self._bars or self._readings or self._posts:
            bars, readings, posts = dict(self._dataset.bars), dict(self._dataset.readings), dict(self._dataset.posts)
            for name, waiting in self._bars.items():
                bars[name] = _with_bars(bars[name], [waiting[moment] for moment in sorted(waiting)])
            arrived: dict[Key, list[ChainReading]] = defaultdict(list)
            for reading in in_series(readings, self._readings):
                arrived[reading.asset, reading.metric].append(reading)
            for key, fresh in arrived.items():
                readings[key] = self._with_readings(readings.get(key), fresh)
            for source, texts in self._posts.items():
                posts[source] = self._with_posts(posts.get(source), source, texts)
            self._dataset = replace(self._dataset, bars=bars, readings=readings, posts=posts)
            self._bars.clear()
            self._readings.clear()
            self._posts.clear()
        return self._dataset

    def forget(self, before: int, *, at_least: float = 0.0) -> None:
        """Let go of texts known before that moment, but for the first of each source, where they are this share of all or more."""
        dataset, posts = self.dataset(), {}
        for source, table in dataset.posts.items():
            old = int(np.searchsorted(table.known_at, before))
            keep = np.arange(len(table)) >= old
            keep[:1] = True
            posts[source] = table.take(keep) if old > 1 and old >= at_least * len(table) else table
        self._dataset = replace(dataset, posts=posts)

    def _with_readings(self, table: ReadingTable | None, arrived: list[ChainReading]) -> ReadingTable:
        first = arrived[0]
        fresh = ReadingTable(
            asset=first.asset,
            metric=first.metric,
            source=first.source if table is None else table.source,
            **_by_known(
                happened_at=np.array([reading.happened_at for reading in arrived], np.int64),
                known_at=np.array([reading.known_at for reading in arrived], np.int64),
                value=np.array([reading.value for reading in arrived], np.float64),
            ),
        )
        if table is None or not len(table):
            return fresh
        columns = ("happened_at", "known_at", "value")
        joined: dict[str, Any] = {name: np.concatenate([getattr(table, name), getattr(fresh, name)]) for name in columns}
        if int(fresh.known_at[0]) < int(table.known_at[-1]):
            self.late += int((fresh.known_at < table.known_at[-1]).sum())
            joined = _by_known(**joined)
        partition = np.concatenate([table.partition, fresh.partition])
        return replace(table, **joined, partition=partition, row=np.arange(len(partition)))

    def _with_posts(self, table: PostTable | None, source: str, texts: list[_Text]) -> PostTable:
        columns: dict[str, Any] = {
            "happened_at": np.array([text.post.happened_at for text in texts], np.int64),
            "known_at": np.array([text.post.known_at for text in texts], np.int64),
            "text": _objects([text.post.text for text in texts]),
            "post_id": _objects([text.post.post_id for text in texts]),
            "partition": np.array([text.partition for text in texts], "U16"),
            "row": np.array([text.row for text in texts], np.int64),
            "weight": np.array([text.weight for text in texts], np.float64),
        }
        if table is None or not len(table):
            return PostTable(source=source, **_as_stored(columns))
        self.late += int((columns["known_at"] < table.known_at[-1]).sum())
        stays = int(np.searchsorted(table.known_at, columns["known_at"].min()))  # what was known before all that is new
        held = {name: getattr(table, name) for name in columns}
        tail = _as_stored({name: np.concatenate([held[name][stays:], column]) for name, column in columns.items()})
        return PostTable(source=source, **{name: np.concatenate([held[name][:stays], column]) for name, column in tail.items()})


def _with_bars(table: BarTable, bars: list[Bar]) -> BarTable:
    """The table with new bars where they belong. `bars` by open time, none of which it has."""
    fresh = {
        "open_time": np.array([bar.happened_at for bar in bars], np.int64),
        **{name: np.array([getattr(bar, name) for bar in bars], np.float64) for name in ("open", "high", "low", "close", "volume")},
        "taker_buy_volume": np.full(len(bars), np.nan),
        "known_at": np.array([bar.known_at for bar in bars], np.int64),
        "partition": np.full(len(bars), "", "U16"),
        "row": np.full(len(bars), -1, np.int64),
    }
    joined: dict[str, Any] = {name: np.concatenate([getattr(table, name), fresh[name]]) for name in BarTable.columns()}
    if len(table) and fresh["open_time"][0] < table.open_time[-1]:
        order = np.argsort(joined["open_time"], kind="stable")
        joined = {name: column[order] for name, column in joined.items()}
    return replace(table, **joined)


def _as_stored(columns: dict[str, Any]) -> dict[str, Any]:
    """Texts in the order in which a store holds them: by moment, then row; those without, by when they happened and their names."""
    known_at = columns["known_at"]
    if bool(np.all(known_at[1:] > known_at[:-1])):
        return columns
    keys = []
    for i, (known, partition, row) in enumerate(zip(*(columns[name].tolist() for name in ("known_at", "partition", "row")), strict=True)):
        happened, name = (-1, "") if partition else (int(columns["happened_at"][i]), columns["post_id"][i])
        keys.append((known, row, happened, name, i))
    order = np.array([key[-1] for key in sorted(keys)], np.int64)
    return {name: column[order] for name, column in columns.items()}


def _by_known(**columns: npt.NDArray[Any]) -> dict[str, Any]:
    """Columns in the order in which they became known, ties as they are."""
    order = np.argsort(columns["known_at"], kind="stable")
    return {name: column[order] for name, column in columns.items()}


def _objects(values: list[str]) -> npt.NDArray[np.object_]:
    """`[n]` of `str`, whatever they look like."""
    out = np.empty(len(values), object)
    out[:] = values
    return out
