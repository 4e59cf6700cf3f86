"""Observations in bulk: columns of NumPy arrays, one table per instrument, metric or text source.

Every row keeps two times, `happened_at` (or a bar's open) and `known_at`, and where it lies on disk (`partition` hash and row), so that the
journal can name it without copying it. Tables are immutable; a table that is unsorted by `known_at` or ragged is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self, TypeVar

import numpy as np
import numpy.typing as npt

from cryptoalpha.core.errors import DataError
from cryptoalpha.core.values import InstrumentRules

Floats = npt.NDArray[np.float64]
Times = npt.NDArray[np.int64]
AnyTable = TypeVar("AnyTable", "BarTable", "ReadingTable", "PostTable")


def _freeze(table: object, columns: tuple[str, ...]) -> None:
    """Check that all columns are one-dimensional and of one length, and make them read-only."""
    lengths = {name: np.shape(getattr(table, name)) for name in columns}
    if len(set(lengths.values())) != 1 or len(next(iter(lengths.values()))) != 1:
        raise DataError(f"{type(table).__name__}: columns differ in shape: {lengths}")
    for name in columns:
        column = np.array(getattr(table, name), copy=True)
        column.flags.writeable = False
        object.__setattr__(table, name, column)


def _refuse_unsorted(name: str, times: Times) -> None:
    if times.size > 1 and not bool(np.all(times[1:] >= times[:-1])):
        raise DataError(
            f"{name}: rows are not in the order in which they became known",
            hint="sort by known_at before building the table",
        )


@dataclass(frozen=True, eq=False)
class BarTable:
    """Bars of one instrument, oldest first. Shapes: every column `[n]`.

    `taker_buy_volume` (base units bought by takers) is NaN where the source has none. `partition` names the file each row came from by the
    first 16 hex digits of its sha256; `row` is the place in it.
    """

    instrument: str
    interval: int
    open_time: Times
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats
    taker_buy_volume: Floats = field(default_factory=lambda: np.empty(0))
    known_at: Times = field(default_factory=lambda: np.empty(0, np.int64))
    partition: npt.NDArray[np.str_] = field(default_factory=lambda: np.empty(0, "U16"))
    row: Times = field(default_factory=lambda: np.empty(0, np.int64))

    def __post_init__(self) -> None:
        n = len(self.open_time)
        if len(self.taker_buy_volume) == 0 and n:
            object.__setattr__(self, "taker_buy_volume", np.full(n, np.nan))
        if len(self.known_at) == 0 and n:
            object.__setattr__(self, "known_at", np.asarray(self.open_time) + self.interval)
        if len(self.partition) == 0 and n:
            object.__setattr__(self, "partition", np.full(n, "", "U16"))
            object.__setattr__(self, "row", np.arange(n))
        _freeze(self, self.columns())

    @staticmethod
    def columns() -> tuple[str, ...]:
        return (
            "open_time",
            "open",
            "high",
            "low",
            "close",
            "volume",
            "taker_buy_volume",
            "known_at",
            "partition",
            "row",
        )

    def __len__(self) -> int:
        return len(self.open_time)

    def take(self, which: npt.NDArray[np.bool_] | npt.NDArray[np.int64] | slice) -> Self:
        """The same table with only some rows."""
        return replace(self, **{name: getattr(self, name)[which] for name in self.columns()})


@dataclass(frozen=True, eq=False)
class ReadingTable:
    """One named measurement of one asset (`*` = market-wide), in the order it became known. Shapes: every column `[n]`."""

    asset: str
    metric: str
    source: str
    happened_at: Times
    known_at: Times
    value: Floats
    partition: npt.NDArray[np.str_] = field(default_factory=lambda: np.empty(0, "U16"))
    row: Times = field(default_factory=lambda: np.empty(0, np.int64))

    def __post_init__(self) -> None:
        n = len(self.happened_at)
        if len(self.partition) == 0 and n:
            object.__setattr__(self, "partition", np.full(n, "", "U16"))
            object.__setattr__(self, "row", np.arange(n))
        _freeze(self, self.columns())
        _refuse_unsorted(f"{self.asset}/{self.metric}", self.known_at)

    @staticmethod
    def columns() -> tuple[str, ...]:
        return ("happened_at", "known_at", "value", "partition", "row")

    def __len__(self) -> int:
        return len(self.happened_at)

    def take(self, which: npt.NDArray[np.bool_] | npt.NDArray[np.int64] | slice) -> Self:
        """The same table with only some rows."""
        return replace(self, **{name: getattr(self, name)[which] for name in self.columns()})


@dataclass(frozen=True, eq=False)
class PostTable:
    """Texts of one source, in the order they became known. Shapes: every column `[n]`; `text` and `post_id` are object arrays of `str`.

    `weight` (0–1) is what a text counts beside others of its kind; 1 where nobody judged who wrote it.
    """

    source: str
    happened_at: Times
    known_at: Times
    text: npt.NDArray[np.object_]
    post_id: npt.NDArray[np.object_]
    partition: npt.NDArray[np.str_] = field(default_factory=lambda: np.empty(0, "U16"))
    row: Times = field(default_factory=lambda: np.empty(0, np.int64))
    weight: Floats = field(default_factory=lambda: np.empty(0))

    def __post_init__(self) -> None:
        n = len(self.happened_at)
        if len(self.weight) == 0 and n:
            object.__setattr__(self, "weight", np.ones(n))
        if len(self.partition) == 0 and n:
            object.__setattr__(self, "partition", np.full(n, "", "U16"))
            object.__setattr__(self, "row", np.arange(n))
        _freeze(self, self.columns())
        _refuse_unsorted(self.source, self.known_at)

    @staticmethod
    def columns() -> tuple[str, ...]:
        return ("happened_at", "known_at", "text", "post_id", "partition", "row", "weight")

    def __len__(self) -> int:
        return len(self.happened_at)

    def take(self, which: npt.NDArray[np.bool_] | npt.NDArray[np.int64] | slice) -> Self:
        """The same table with only some rows."""
        return replace(self, **{name: getattr(self, name)[which] for name in self.columns()})


@dataclass(frozen=True, eq=False)
class Dataset:
    """Everything one run may look at, with where it came from.

    `bars` by instrument (`BTC/USDT`); `readings` by (asset, metric), asset being the base (`BTC`) or `*`; `posts` by source.
    `origin` is one line for people; `simulated` labels every output made from it; `fingerprint` is a hash of the partitions used.
    """

    origin: str
    bars: Mapping[str, BarTable]
    readings: Mapping[tuple[str, str], ReadingTable] = field(default_factory=dict)
    posts: Mapping[str, PostTable] = field(default_factory=dict)
    rules: Mapping[str, InstrumentRules] = field(default_factory=dict)
    simulated: bool = False
    fingerprint: str = ""
    notes: tuple[str, ...] = ()

    def known_until(self, moment: int) -> Dataset:
        """What was known at `moment`: every row with `known_at` ≤ `moment`, and nothing else."""

        def cut(table: AnyTable) -> AnyTable:
            return table.take(table.known_at <= moment)

        return replace(
            self,
            bars={key: cut(table) for key, table in self.bars.items()},
            readings={key: cut(table) for key, table in self.readings.items()},
            posts={key: cut(table) for key, table in self.posts.items()},
        )
