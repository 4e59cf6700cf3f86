"""One Parquet file of the history: its name, its contents, and how it is put in place so that a crash leaves nothing half-written.

Writing: temporary file → fsync → note the intent in the manifest → rename → fsync the folder → settle the manifest. Killed before the
rename, the old file stands and the intent is dropped; killed after it, the file's hash equals the intended one and the manifest is settled
by whoever opens the store next. DuckDB works in memory, on one thread, so that equal contents give equal bytes and equal hashes.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from cryptoalpha.core.errors import ConfigError, StoreError
from cryptoalpha.core.time import interval_name
from cryptoalpha.store.whole_file import sync

if TYPE_CHECKING:
    import duckdb

Kind = Literal["bars", "readings", "posts"]
Columns = Mapping[str, npt.NDArray[np.generic]]

COLUMNS: dict[Kind, dict[str, str]] = {
    "bars": {
        "happened_at": "BIGINT",
        "known_at": "BIGINT",
        **dict.fromkeys(("open", "high", "low", "close", "volume", "taker_buy_volume"), "DOUBLE"),
    },
    "readings": {"happened_at": "BIGINT", "known_at": "BIGINT", "value": "DOUBLE"},
    "posts": {"happened_at": "BIGINT", "known_at": "BIGINT", "text": "VARCHAR", "post_id": "VARCHAR", "weight": "DOUBLE"},
}
"""Columns of each kind of partition and their Parquet types; times are UTC ns."""

USUAL: dict[str, float] = {"weight": 1.0}
"""Columns that a file leaves out where every row has this value."""

MARKET_WIDE = "market-wide"
"""Folder of readings whose asset is `*`."""
CORRUPT_HINT = "`cryptoalpha data verify` lists what is damaged; delete the file and `cryptoalpha data fetch` or `data import` it again"


@dataclass(frozen=True, order=True)
class Series:
    """What a row belongs to: bars of an instrument at a venue, a metric of an asset, or texts of a source."""

    kind: Kind
    source: str
    """Venue of bars, source of readings and posts."""
    subject: str = ""
    """Instrument of bars, asset of readings."""
    metric: str = ""
    interval: int = 0

    def path(self, month: str) -> str:
        """Where its rows of a month lie, relative to the store. Readings are few: one file holds all of them."""
        if self.kind == "bars":
            return f"bars/{_safe(self.source)}/{_safe(self.subject)}/{interval_name(self.interval)}/{month}.parquet"
        if self.kind == "readings":
            asset = MARKET_WIDE if self.subject == "*" else _safe(self.subject)
            return f"readings/{_safe(self.source)}/{asset}/{_safe(self.metric)}.parquet"
        return f"posts/{_safe(self.source)}/{month}.parquet"


@dataclass(frozen=True)
class Partition:
    """One file and what the manifest says about it. `first` and `last` are the times its rows happened at, UTC ns."""

    series: Series
    path: str
    sha256: str
    rows: int
    first: int
    last: int
    origin: str
    """Where the rows came from, in words."""
    simulated: bool = False
    written_by: str = field(default="")
    """Version that wrote it."""

    @property
    def short_hash(self) -> str:
        """The name rows carry: the first 16 hex digits of the hash."""
        return self.sha256[:16]


def _safe(name: str) -> str:
    """A name as a folder: `BTC/USDT` → `BTC-USDT`, `BTC/USDT:USDT` → `BTC-USDT_USDT`."""
    folder = name.replace("/", "-").replace(":", "_")
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", folder):
        raise ConfigError(f"{name!r} cannot be stored under its name", hint="use letters, digits, dots, dashes and underscores")
    return folder


def open_duckdb() -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB that writes the same bytes every time."""
    import duckdb

    return duckdb.connect(config={"threads": 1})


def read_columns(connection: duckdb.DuckDBPyConnection, kind: Kind, paths: list[Path]) -> dict[str, npt.NDArray[np.generic]]:
    """All rows of some files of one series, file after file.

    Raises:
        StoreError: if a file is not readable Parquet with the columns of its kind.
    """
    import duckdb

    names = [re.sub(r"([*?\[])", r"[\1]", str(path)) for path in paths]  # a folder's name is no pattern
    try:
        wanted = list(COLUMNS[kind])
        if not USUAL.keys().isdisjoint(wanted):
            there = connection.execute("DESCRIBE SELECT * FROM read_parquet(?, union_by_name = true)", [names]).fetchall()
            wanted = [name for name in wanted if name not in USUAL or name in {row[0] for row in there}]
        found = connection.execute(f"SELECT {', '.join(wanted)} FROM read_parquet(?, union_by_name = true)", [names]).fetchnumpy()
    except duckdb.Error as error:
        raise StoreError(f"{paths[0]}: not readable as {kind}: {error}", hint=CORRUPT_HINT) from error
    filled: dict[str, npt.NDArray[np.generic]] = {}
    for name, sql_type in COLUMNS[kind].items():
        column = found[name] if name in found else np.full(len(found["happened_at"]), USUAL[name])
        if name in USUAL and isinstance(column, np.ma.MaskedArray):
            column = column.filled(USUAL[name])
        if isinstance(column, np.ma.MaskedArray) and sql_type == "DOUBLE":  # DuckDB takes NaN for NULL
            column = column.filled(np.nan)
        filled[name] = np.asarray(column)
    return filled


def write_temporary(connection: duckdb.DuckDBPyConnection, root: Path, partition: Partition, columns: Columns) -> tuple[Path, Partition]:
    """Write the rows beside their final place and onto the disk; returns where, and the partition with its hash.

    Raises:
        StoreError: if the disk refuses.
    """
    import duckdb

    final = root / partition.path
    temporary = final.with_name(f".{final.name}.{os.getpid()}.tmp")
    kept = {
        name: kind for name, kind in COLUMNS[partition.series.kind].items() if not (name in USUAL and (columns[name] == USUAL[name]).all())
    }
    selected = ", ".join(f"{name}::{sql_type} AS {name}" for name, sql_type in kept.items())
    target = str(temporary).replace("'", "''")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        connection.register("rows_to_write", dict(columns))
        connection.execute(f"COPY (SELECT {selected} FROM rows_to_write) TO '{target}' (FORMAT parquet, COMPRESSION zstd)")
        connection.unregister("rows_to_write")
        sync(temporary)
        return temporary, replace(partition, sha256=file_sha256(temporary))
    except (OSError, duckdb.Error) as error:
        if temporary.is_file():  # half a file helps nobody on a full disk
            temporary.unlink()
        raise StoreError(f"{final} cannot be written: {error}", hint="free some space or make the store writable") from error


def put_in_place(root: Path, partition: Partition, temporary: Path) -> None:
    """Rename the written file over the old one, durably.

    Raises:
        StoreError: if the disk refuses.
    """
    final = root / partition.path
    try:
        os.replace(temporary, final)  # noqa: PTH105
        for folder in (final.parent, *final.parent.relative_to(root).parents):
            sync(root / folder)  # new folders up to the root must survive as well
    except OSError as error:
        raise StoreError(f"{final} cannot be put in place: {error.strerror}", hint="make the store writable") from error


def file_sha256(path: Path) -> str:
    """The hash of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
