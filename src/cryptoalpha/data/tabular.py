"""Read one Parquet or CSV file into NumPy columns, with its hash, and refuse what cannot be understood.

A stamp must say what time zone it is in: a `TIMESTAMP WITH TIME ZONE`, a `DATE` (its 00:00 UTC), or ISO text that ends in `Z` or an offset,
the same in every row. Everything is read through DuckDB in memory; nothing is written and no network is touched.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt

from cryptoalpha.core.errors import DataError, DataMissingError
from cryptoalpha.store.tables import Floats, Times

Texts = npt.NDArray[np.object_]
SUFFIXES = (".parquet", ".csv")
_ZONE = r"(Z|z|[+-]\d{2}:?\d{2})$"
_NUMBERS = frozenset(
    {"DOUBLE", "FLOAT", "BIGINT", "INTEGER", "SMALLINT", "TINYINT", "HUGEINT", "UBIGINT", "UINTEGER", "USMALLINT", "UTINYINT"}
)


@dataclass(frozen=True, eq=False)
class RawTable:
    """Columns of one file as they lie in it. Shapes: `stamp` and every column `[n]`, in file order.

    `partition` is the first 16 hex digits of the file's sha256. Absent numbers are NaN, absent texts empty.
    """

    path: Path
    partition: str
    stamp: Times
    numbers: dict[str, Floats]
    texts: dict[str, Texts]

    def __len__(self) -> int:
        return len(self.stamp)


def list_tables(folder: Path) -> list[Path]:
    """Parquet and CSV files of a folder by name; none where the folder is absent."""
    return sorted(path for path in folder.glob("*") if path.suffix in SUFFIXES and path.is_file()) if folder.is_dir() else []


def connect() -> duckdb.DuckDBPyConnection:
    """A DuckDB in memory that never looks for extensions on the network."""
    connection = duckdb.connect(":memory:", config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"})
    connection.execute("set TimeZone = 'UTC'")
    return connection


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file's bytes.

    Raises:
        DataMissingError: if the file cannot be opened.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataMissingError(f"{path} cannot be read: {error.strerror}", hint="check the path and its permissions") from None


def columns_of(connection: duckdb.DuckDBPyConnection, path: Path) -> dict[str, str]:
    """Column names and DuckDB types of a file.

    Raises:
        DataError: if the file is no Parquet or CSV.
    """
    rows = _fetch(connection, path, f"describe select * from {_scan(path)}", [str(path)]).fetchall()
    return {str(row[0]): str(row[1]) for row in rows}


def read_table(
    connection: duckdb.DuckDBPyConnection,
    path: Path,
    *,
    stamp: str,
    numbers: Sequence[str] = (),
    texts: Sequence[str] = (),
    optional: Sequence[str] = (),
) -> RawTable:
    """Read the stamp, the wanted columns and whatever `optional` number columns the file has.

    Raises:
        DataMissingError: if the file cannot be opened.
        DataError: if it is damaged, lacks a wanted column, holds text where numbers belong, or its stamps have no or several time zones.
    """
    digest = sha256_of(path)
    types = columns_of(connection, path)
    wanted = [stamp, *numbers, *texts]
    absent = [name for name in wanted if name not in types]
    if absent:
        raise DataError(
            f"{path}: no column {', '.join(absent)} (it has: {', '.join(types)})",
            hint=f"expected columns: {', '.join(wanted)}; rename them or leave this file out of the directory",
        )
    numeric = [*numbers, *(name for name in optional if name in types and name not in numbers)]
    for name in numeric:
        if types[name].partition("(")[0] not in _NUMBERS | {"DECIMAL"}:
            raise DataError(f"{path}: column {name} holds {types[name]}, not numbers", hint="write plain numbers, empty where unknown")
    select = [
        f"epoch_ns({_stamp_expression(connection, path, stamp, types[stamp])}) as _stamp",
        *(f"cast({_quote(name)} as double) as {_quote(name)}" for name in numeric),
        *(f"cast({_quote(name)} as varchar) as {_quote(name)}" for name in texts),
    ]
    columns = _fetch(connection, path, f"select {', '.join(select)} from {_scan(path)}", [str(path)]).fetchnumpy()
    times = columns["_stamp"]
    if np.ma.is_masked(times):
        first = int(np.flatnonzero(np.ma.getmaskarray(times))[0])
        raise DataError(f"{path}: row {first} has no {stamp}", hint="every row needs its time; delete the row")
    return RawTable(
        path=path,
        partition=digest[:16],
        stamp=np.asarray(times, np.int64),
        numbers={name: np.ma.filled(np.ma.asarray(columns[name], np.float64), np.nan) for name in numeric},
        texts={name: np.ma.filled(np.ma.asarray(columns[name], object), "") for name in texts},
    )


def _quote(name: str) -> str:
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


def _scan(path: Path) -> str:
    """The table function that reads this kind of file; the path itself is a parameter."""
    if path.suffix == ".csv":
        return "read_csv(?, header = true, auto_type_candidates = ['BIGINT', 'DOUBLE', 'VARCHAR'])"  # stamps stay text
    return "read_parquet(?)"


def _fetch(connection: duckdb.DuckDBPyConnection, path: Path, query: str, parameters: list[Any]) -> duckdb.DuckDBPyConnection:
    try:
        return connection.execute(query, parameters)
    except duckdb.Error as error:
        kind = "CSV" if path.suffix == ".csv" else "Parquet"
        raise DataError(
            f"{path}: cannot be read as {kind}: {str(error).splitlines()[0]}",
            hint="the file is damaged or something else; get it again (`cryptoalpha data fetch`) or take it out of the directory",
        ) from None


def _stamp_expression(connection: duckdb.DuckDBPyConnection, path: Path, stamp: str, kind: str) -> str:
    """SQL that turns the stamp column into a time with a zone."""
    if kind == "TIMESTAMP WITH TIME ZONE":
        return _quote(stamp)
    if kind == "DATE":
        return f"cast({_quote(stamp)} as timestamp)"
    if kind.startswith("TIMESTAMP"):
        raise DataError(f"{path}: {stamp} has no time zone", hint="write it as a timestamp with time zone UTC; a naive time is a guess")
    if kind != "VARCHAR":
        raise DataError(
            f"{path}: {stamp} holds {kind}, not times", hint="write a timestamp with time zone, or ISO text such as 2021-11-05T04:00:00Z"
        )
    query = f"select regexp_extract({_quote(stamp)}, '{_ZONE}') as zone, any_value({_quote(stamp)}) from {_scan(path)} "
    zones = _fetch(connection, path, query + f"where {_quote(stamp)} is not null group by zone order by zone", [str(path)]).fetchall()
    offsets = sorted({"+0000" if zone in ("Z", "z") else zone.replace(":", "") for zone, _ in zones})
    if offsets == [""] and all(len(example) == len("2021-11-05") for _, example in zones):
        return f"cast(cast({_quote(stamp)} as date) as timestamp)"
    if "" in offsets:
        example = next(example for zone, example in zones if zone == "")
        raise DataError(f"{path}: {stamp} {example!r} has no time zone", hint="end every stamp in Z or an offset; a naive time is a guess")
    if len(offsets) > 1:
        raise DataError(
            f"{path}: {stamp} mixes the time zones {', '.join(offsets)}",
            hint="write all stamps in UTC (…Z), then duplicates and gaps can be seen",
        )
    return f"cast({_quote(stamp)} as timestamptz)"
