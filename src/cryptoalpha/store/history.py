"""The history: bars, readings and posts in Parquet partitions, with a manifest that knows the hash of each.

One file per instrument and month (`bars/{venue}/{symbol}/{interval}/{yyyy-mm}.parquet`), per metric (`readings/{source}/{asset}/{metric}
.parquet`) and per text source and month (`posts/{source}/{yyyy-mm}.parquet`). DuckDB reads and writes them in memory; nothing is locked for
readers. Every row loaded carries its partition's hash and its place in it, which is how the journal names it.

Writing needs the store's lock; a crash at any step leaves either the old file or the new one (see `partition`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

import cryptoalpha
from cryptoalpha.core.errors import StoreError
from cryptoalpha.core.values import InstrumentRules
from cryptoalpha.store.history_load import Selection, assemble, resolve
from cryptoalpha.store.home import Home
from cryptoalpha.store.lock import StoreLock
from cryptoalpha.store.manifest import Manifest
from cryptoalpha.store.merge import Conflict, merge
from cryptoalpha.store.partition import (
    COLUMNS,
    Columns,
    Partition,
    Series,
    file_sha256,
    open_duckdb,
    put_in_place,
    read_columns,
    write_temporary,
)
from cryptoalpha.store.tables import BarTable, Dataset, PostTable, ReadingTable


@dataclass(frozen=True)
class WriteReport:
    """What a write changed. Conflicting rows were not stored."""

    partitions: int
    added: int
    already_there: int
    conflicts: tuple[Conflict, ...]


@dataclass(frozen=True)
class Coverage:
    """What the store holds of one series. Times are when its rows happened, UTC ns."""

    series: Series
    first: int
    last: int
    rows: int
    partitions: int
    origin: str
    simulated: bool


@dataclass(frozen=True)
class Fault:
    """A file that is not what the manifest says."""

    path: str
    problem: str
    advice: str


class History:
    """The history of one store.

    Args:
        home: the store.
        lock: the store's lock if the caller holds it already; else each write takes it for as long as it lasts.

    Raises:
        StoreError: if the store cannot be written or its manifest is corrupt.
    """

    def __init__(self, home: Home, *, lock: StoreLock | None = None) -> None:
        home.prepare()
        self._home = home
        self._lock = StoreLock(home) if lock is None else lock
        self._manifest = Manifest(home.manifest)
        self._duckdb = open_duckdb()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._duckdb.close()
        self._manifest.close()

    def write_bars(self, venue: str, table: BarTable, *, origin: str, simulated: bool = False) -> WriteReport:
        """Add bars that passed the bar gate; `origin` says in words where they came from.

        Raises:
            StoreError: if the bars are not sorted and unique, or cannot be written.
            StoreLockedError: if another process holds the store.
        """
        if bool(np.any(np.diff(table.open_time) <= 0)):
            raise StoreError(f"{table.instrument}: bars are not sorted and unique", hint="pass them through the bar gate first")
        names = ("known_at", "open", "high", "low", "close", "volume", "taker_buy_volume")
        columns = {"happened_at": table.open_time, **{name: getattr(table, name) for name in names}}
        return self._write(Series("bars", venue, table.instrument, interval=table.interval), columns, origin, simulated)

    def write_readings(self, table: ReadingTable, *, origin: str, simulated: bool = False) -> WriteReport:
        """Add readings of one metric. A revision (same time, known later) is stored beside what it revises.

        Raises:
            StoreError: if they cannot be written.
            StoreLockedError: if another process holds the store.
        """
        columns = {"happened_at": table.happened_at, "known_at": table.known_at, "value": table.value}
        return self._write(Series("readings", table.source, table.asset, table.metric), columns, origin, simulated)

    def write_posts(self, table: PostTable, *, origin: str, simulated: bool = False) -> WriteReport:
        """Add texts of one source; a text is known by its `post_id`.

        Raises:
            StoreError: if a text has no id, or they cannot be written.
            StoreLockedError: if another process holds the store.
        """
        if not all(table.post_id):
            raise StoreError(
                f"texts of {table.source} without a post_id", hint="give each text the id its source gives it, or a hash of it"
            )
        columns = {name: getattr(table, name) for name in COLUMNS["posts"]}
        return self._write(Series("posts", table.source), columns, origin, simulated)

    def write_rules(self, rules: Iterable[InstrumentRules]) -> None:
        """Remember lots, ticks and smallest orders per venue and instrument."""
        with self._writing():
            self._manifest.put_rules(rules)

    def load(
        self,
        *,
        interval: int,
        venue: str | None = None,
        instruments: Sequence[str] | None = None,
        sources: Sequence[str] | None = None,
        since: int | None = None,
        until: int | None = None,
    ) -> Dataset:
        """Bars that open in [`since`, `until`), and the readings and posts known by `until` (from their beginning, for as-of joins).

        Args:
            interval: bar length, ns.
            venue: whose bars; needed only where the store holds several venues.
            instruments: which; all by default.
            sources: of which sources to take readings and posts; all by default.

        Raises:
            DataMissingError: if there is no such bar.
            StoreError: if a file is missing or damaged, or two sources offer the same series.
        """
        wanted = Selection(interval, venue, instruments, sources, since, until)
        return assemble(self._duckdb, self._home.root, self._manifest, wanted)

    def coverage(self) -> list[Coverage]:
        """What the store holds, series by series."""
        found: dict[Series, list[Partition]] = {}
        for partition in self._manifest.current():
            found.setdefault(partition.series, []).append(partition)
        return [
            Coverage(
                series,
                min(part.first for part in parts),
                max(part.last for part in parts),
                sum(part.rows for part in parts),
                len(parts),
                parts[-1].origin,
                any(part.simulated for part in parts),
            )
            for series, parts in sorted(found.items())
        ]

    def moments(self, series: Series) -> npt.NDArray[np.int64]:
        """When the stored rows of one series happened, UTC ns, ascending.

        Raises:
            StoreError: if a file is missing or damaged.
        """
        parts = [partition for partition in self._manifest.current() if partition.series == series]
        if not parts:
            return np.empty(0, np.int64)
        pending = list(self._manifest.pending())
        files = [resolve(self._home.root, part, pending)[0] for part in parts]
        return np.sort(read_columns(self._duckdb, series.kind, files)["happened_at"].astype(np.int64))

    def verify(self) -> list[Fault]:
        """Hash every file again and compare with the manifest; files it does not know are listed too."""
        faults: list[Fault] = []
        root, advice = self._home.root, "delete it and fetch or import it again"
        known = {partition.path: partition for partition in self._manifest.current()}
        pending = {partition.path for partition in self._manifest.pending()}
        for path, partition in known.items():
            file = root / path
            if not file.is_file():
                faults.append(Fault(path, "missing", "fetch or import it again"))
            elif file_sha256(file) != partition.sha256 and path not in pending:
                faults.append(Fault(path, "contents differ from what was written", advice))
        faults.extend(Fault(path, "a write was interrupted", "the next write finishes or drops it") for path in sorted(pending))
        for file in sorted(file for folder in ("bars", "readings", "posts") for file in (root / folder).rglob("*") if file.is_file()):
            path = file.relative_to(root).as_posix()
            if path not in known and path not in pending:
                problem = "left over from an interrupted write" if file.suffix == ".tmp" else "not in the manifest"
                faults.append(Fault(path, problem, "the next write removes it" if file.suffix == ".tmp" else "delete it or import it"))
        return faults

    def locate(self, partition: str) -> tuple[str, bool] | None:
        """The file a row's `partition` names and whether it is still unchanged; None if the store never held it."""
        return self._manifest.locate(partition)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Hold the lock, and first finish or drop what a killed writer left."""
        borrowed = self._lock.is_held
        self._lock.acquire()
        try:
            self._recover()
            yield
        finally:
            if not borrowed:
                self._lock.release()

    def _recover(self) -> None:
        root = self._home.root
        for partition in self._manifest.pending():
            file = root / partition.path
            if file.is_file() and file_sha256(file) == partition.sha256:
                self._manifest.settle(partition.path)
            else:
                self._manifest.forget_intent(partition.path)
        for folder in ("bars", "readings", "posts"):
            for left_over in (root / folder).rglob(".*.tmp"):
                left_over.unlink(missing_ok=True)

    def _write(self, series: Series, columns: Columns, origin: str, simulated: bool) -> WriteReport:
        partitions = added = 0
        conflicts: list[Conflict] = []
        with self._writing():
            in_place = {partition.path: partition for partition in self._manifest.current()}
            for month, rows in _by_month(columns["happened_at"], whole=series.kind == "readings"):
                path = series.path(month)
                old = in_place.get(path)
                stored = None
                if old is not None:
                    if old.simulated != simulated:
                        raise StoreError(
                            f"{path} holds {'simulated' if old.simulated else 'real'} rows", hint="use another venue or source name"
                        )
                    stored = read_columns(self._duckdb, series.kind, [resolve(self._home.root, old, ())[0]])
                merged = merge(
                    series.kind, series.subject or series.source, stored, {name: column[rows] for name, column in columns.items()}
                )
                conflicts.extend(merged.conflicts)
                if merged.added:
                    self._publish(series, path, merged.columns, origin, simulated)
                    partitions += 1
                    added += merged.added
        return WriteReport(partitions, added, len(columns["happened_at"]) - added - len(conflicts), tuple(conflicts))

    def _publish(self, series: Series, path: str, columns: Columns, origin: str, simulated: bool) -> None:
        times = columns["happened_at"].astype(np.int64)
        draft = Partition(
            series, path, "", len(times), int(times.min()), int(times.max()), origin, simulated, f"cryptoalpha {cryptoalpha.__version__}"
        )
        temporary, partition = write_temporary(self._duckdb, self._home.root, draft, columns)
        self._manifest.intend(partition)
        put_in_place(self._home.root, partition, temporary)
        self._manifest.settle(path)


def _by_month(times: npt.NDArray[np.generic], *, whole: bool) -> Iterator[tuple[str, npt.NDArray[np.int64]]]:
    """Rows by UTC month (`2021-11`), oldest month first; all in one where `whole`."""
    if whole and times.size:
        yield "", np.arange(times.size)
        return
    months = times.astype("datetime64[ns]").astype("datetime64[M]")
    for month in np.unique(months):
        yield str(month), np.flatnonzero(months == month)
