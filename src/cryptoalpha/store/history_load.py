"""Putting a dataset together from partitions: choose files, check their hashes, read them in order, and stamp each row with its origin."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

from cryptoalpha.core.errors import DataMissingError, StoreError
from cryptoalpha.core.time import interval_name, iso
from cryptoalpha.store.manifest import Manifest
from cryptoalpha.store.partition import CORRUPT_HINT, Partition, Series, file_sha256, read_columns
from cryptoalpha.store.tables import BarTable, Dataset, PostTable, ReadingTable

if TYPE_CHECKING:
    import duckdb

Table = TypeVar("Table", BarTable, ReadingTable, PostTable)
Columns = dict[str, npt.NDArray[np.generic]]


@dataclass(frozen=True)
class Selection:
    """What to load; see `History.load`."""

    interval: int
    venue: str | None
    instruments: Sequence[str] | None
    sources: Sequence[str] | None
    since: int | None
    until: int | None


def resolve(root: Path, partition: Partition, pending: Iterable[Partition]) -> tuple[Path, Partition]:
    """The file of a partition, once its hash was checked; the pending one if a writer was stopped just after putting it in place.

    Raises:
        StoreError: if it is missing or is neither.
    """
    path = root / partition.path
    if not path.is_file():
        raise StoreError(f"{path} is missing", hint=CORRUPT_HINT)
    found = file_sha256(path)
    for candidate in (partition, *pending):
        if candidate.path == partition.path and candidate.sha256 == found:
            return path, candidate
    raise StoreError(f"{path} is damaged: its contents are not what was written", hint=CORRUPT_HINT)


def assemble(connection: duckdb.DuckDBPyConnection, root: Path, manifest: Manifest, wanted: Selection) -> Dataset:
    """The dataset a selection names.

    Raises:
        DataMissingError: if no bar is selected.
        StoreError: if a file is missing or damaged, or a choice between sources is needed.
    """
    reader = _Reader(connection, root, manifest.pending())
    series: dict[Series, list[Partition]] = {}
    for partition in manifest.current():
        series.setdefault(partition.series, []).append(partition)
    venue = _venue(series, wanted)
    chosen = {key: parts for key, parts in sorted(series.items()) if _is_wanted(key, wanted, venue)}
    bars = {}
    for key, parts in chosen.items():
        if key.kind == "bars":
            inside = [
                p for p in parts if (wanted.since is None or p.last >= wanted.since) and (wanted.until is None or p.first < wanted.until)
            ]
            table = _between(reader.bars(key, inside), wanted.since, wanted.until) if inside else None
            if table is not None and len(table):
                bars[key.subject] = table
    _require(bars, wanted, venue)
    readings: dict[tuple[str, str], ReadingTable] = {}
    posts: dict[str, PostTable] = {}
    for key, parts in chosen.items():
        if key.kind == "readings":
            if (key.subject, key.metric) in readings:
                raise StoreError(
                    f"both {readings[key.subject, key.metric].source} and {key.source} offer {key.metric} of {key.subject}",
                    hint="name the sources to take",
                )
            readings[key.subject, key.metric] = _known_by(reader.readings(key, parts), wanted.until)
        elif key.kind == "posts":
            posts[key.source] = _known_by(reader.posts(key, parts), wanted.until)
    rules = manifest.rules(venue)
    return Dataset(
        origin=f"store: {len(bars)} instrument{'s' if len(bars) != 1 else ''} of {venue}, {interval_name(wanted.interval)} bars, "
        f"{len(readings)} reading series, {len(posts)} text sources",
        bars=bars,
        readings=readings,
        posts=posts,
        rules={name: rules[name] for name in bars if name in rules},
        simulated=any(partition.simulated for partition in reader.used),
        fingerprint=_fingerprint(reader.used),
    )


def _venue(series: Iterable[Series], wanted: Selection) -> str:
    """The one venue to take bars from."""
    matching = [
        key
        for key in series
        if key.kind == "bars" and key.interval == wanted.interval and (wanted.instruments is None or key.subject in wanted.instruments)
    ]
    venues = sorted({key.source for key in matching})
    if wanted.venue is not None:
        venues = [wanted.venue] if wanted.venue in venues else []
    if not venues:
        intervals = ", ".join(sorted({interval_name(key.interval) for key in series if key.kind == "bars"}))
        raise DataMissingError(
            f"the store holds no {interval_name(wanted.interval)} bars"
            + (f" of {', '.join(wanted.instruments)}" if wanted.instruments else "")
            + (f" from {wanted.venue}" if wanted.venue else "")
            + (f"; it holds {intervals} bars" if intervals else ""),
            hint="`cryptoalpha data list` prints what there is, `cryptoalpha data fetch` gets more",
        )
    if len(venues) > 1:
        raise StoreError(f"the store holds such bars of {' and '.join(venues)}", hint="name one venue; prices of two are not one series")
    return venues[0]


def _is_wanted(key: Series, wanted: Selection, venue: str) -> bool:
    if key.kind == "bars":
        named = wanted.instruments is None or key.subject in wanted.instruments
        return named and key.source == venue and key.interval == wanted.interval
    return wanted.sources is None or key.source in wanted.sources


def _require(bars: dict[str, BarTable], wanted: Selection, venue: str) -> None:
    missing = [name for name in wanted.instruments or () if name not in bars]
    if missing or not bars:
        period = (f" from {iso(wanted.since)}" if wanted.since is not None else "") + (
            f" until {iso(wanted.until)}" if wanted.until is not None else ""
        )
        raise DataMissingError(
            f"no {interval_name(wanted.interval)} bars of {', '.join(missing) or 'any instrument'} from {venue}{period}",
            hint="`cryptoalpha data list` prints what each series covers",
        )


def _between(table: BarTable, since: int | None, until: int | None) -> BarTable:
    keep = np.ones(len(table), np.bool_)
    if since is not None:
        keep &= table.open_time >= since
    if until is not None:
        keep &= table.open_time < until
    return table if keep.all() else table.take(keep)


def _known_by(table: Table, until: int | None) -> Table:
    return table if until is None else table.take(table.known_at <= until)


def _fingerprint(used: Sequence[Partition]) -> str:
    """A hash of all partitions that were read."""
    listed = "\n".join(sorted(f"{partition.path} {partition.sha256}" for partition in used))
    return hashlib.sha256(listed.encode()).hexdigest()


class _Reader:
    """Reads series and remembers which partitions it used."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, root: Path, pending: list[Partition]) -> None:
        self._connection, self._root, self._pending = connection, root, pending
        self.used: list[Partition] = []

    def bars(self, series: Series, parts: list[Partition]) -> BarTable:
        columns = self._columns(series, parts, "happened_at")
        times = columns.pop("happened_at")
        return BarTable(instrument=series.subject, interval=series.interval, open_time=times.astype(np.int64), **columns)  # type: ignore[arg-type]

    def readings(self, series: Series, parts: list[Partition]) -> ReadingTable:
        columns = self._columns(series, parts, "known_at")
        return ReadingTable(asset=series.subject, metric=series.metric, source=series.source, **columns)  # type: ignore[arg-type]

    def posts(self, series: Series, parts: list[Partition]) -> PostTable:
        return PostTable(source=series.source, **self._columns(series, parts, "known_at"))  # type: ignore[arg-type]

    def _columns(self, series: Series, parts: list[Partition], sort_by: str) -> Columns:
        """All columns of a series, with partition and row, in the order of `sort_by`."""
        checked = [resolve(self._root, part, self._pending) for part in sorted(parts, key=lambda part: part.path)]
        self.used.extend(part for _, part in checked)
        columns = read_columns(self._connection, series.kind, [path for path, _ in checked])
        counts = [part.rows for _, part in checked]
        if len(columns["happened_at"]) != sum(counts):
            raise StoreError(f"{series.kind} of {series.subject or series.source}: rows are missing from the files", hint=CORRUPT_HINT)
        columns["partition"] = np.repeat(np.array([part.short_hash for _, part in checked], "U16"), counts)
        columns["row"] = np.concatenate([np.arange(count) for count in counts])
        order = np.argsort(columns[sort_by], kind="stable")
        return {name: column[order] for name, column in columns.items()}
