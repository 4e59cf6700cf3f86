"""The panel: bars of all instruments on one regular grid of time, ready for vectorised work.

Row t of the grid is the bar that opens at `open_time[t]`; everything in it is known at `known_at[t]`. Bars a venue never printed (outages,
assets not yet listed) are NaN and `present` is False: gaps are marked, never filled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from cryptoalpha.core.errors import DataError, DataMissingError
from cryptoalpha.core.time import grid_anchor, interval_name, iso
from cryptoalpha.store.tables import BarTable, Dataset, Floats, Times

FIELDS = ("open", "high", "low", "close", "volume", "taker_buy_volume")


@dataclass(frozen=True, eq=False)
class Panel:
    """Aligned bars. Axes: `T` grid rows, `A` instruments.

    Shapes: `open_time`, `known_at` `[T]`; price and volume fields `[T, A]` (NaN where absent); `present` `[T, A]`; `source_row` `[T, A]` is
    the row of the instrument's `BarTable` (−1 where absent).
    """

    instruments: tuple[str, ...]
    interval: int
    open_time: Times
    known_at: Times
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats
    taker_buy_volume: Floats
    present: npt.NDArray[np.bool_]
    source_row: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.open_time)

    def rows(self, start: int, stop: int) -> Panel:
        """The same panel with grid rows `start` (inclusive) to `stop` (exclusive)."""
        window = slice(start, stop)
        columns = ("open_time", "known_at", *FIELDS, "present", "source_row")
        return replace(self, **{name: getattr(self, name)[window] for name in columns})


def build_panel(dataset: Dataset, *, since: int, until: int, instruments: Sequence[str] | None = None) -> Panel:
    """Align the bars that open in [`since`, `until`) on their common grid.

    The grid is anchored at the epoch, so a row's place in time never depends on where the data start.

    Raises:
        DataMissingError: if no instrument has a bar in the period.
        DataError: if instruments have bars of different lengths, or bars are unsorted, doubled or open off the grid.
    """
    names = tuple(sorted(dataset.bars)) if instruments is None else tuple(instruments)
    missing = [name for name in names if name not in dataset.bars]
    if missing:
        raise DataMissingError(f"no bars for {', '.join(missing)}", hint=f"have: {', '.join(sorted(dataset.bars)) or 'nothing'}")
    tables = {name: dataset.bars[name] for name in names}
    lengths = {table.interval for table in tables.values()}
    if len(lengths) != 1:
        raise DataError(
            f"bars of different lengths in one book: {', '.join(sorted(interval_name(i) for i in lengths))}",
            hint="choose one with --interval",
        )
    interval = lengths.pop()
    for name, table in tables.items():
        _refuse_ungated(name, table)
    inside = {n: np.flatnonzero((t.open_time >= since) & (t.open_time < until)) for n, t in tables.items()}
    used = [tables[name].open_time[rows] for name, rows in inside.items() if rows.size]
    if not used:
        times = [t.open_time for t in tables.values() if len(t.open_time)]
        held = f"; the history goes from {iso(min(int(t[0]) for t in times))} to {iso(max(int(t[-1]) for t in times))}" if times else ""
        raise DataMissingError(
            f"no bars between {iso(since)} and {iso(until)}{held}",
            hint="`cryptoalpha data list` prints what each source covers",
        )
    first, last = min(int(times[0]) for times in used), max(int(times[-1]) for times in used)
    open_time = first + interval * np.arange((last - first) // interval + 1, dtype=np.int64)  # arange over ns loses rows to rounding
    return _fill(tables, inside, interval, open_time)


def _refuse_ungated(name: str, table: BarTable) -> None:
    """Bars that the gate would not let through have no one place on a grid."""
    unordered = np.flatnonzero(np.diff(table.open_time) <= 0)
    off_grid = np.flatnonzero((table.open_time - grid_anchor(table.interval)) % table.interval)
    for places, fault in ((unordered + 1, "is doubled or comes after a later one"), (off_grid, "opens off the grid")):
        if places.size:
            raise DataError(
                f"{name}: the {interval_name(table.interval)} bar at {iso(int(table.open_time[places[0]]))} {fault}",
                hint="run it through the bar gate",
            )


def _fill(tables: dict[str, BarTable], inside: dict[str, Times], interval: int, open_time: Times) -> Panel:
    """Scatter each table's rows onto the grid."""
    shape = (len(open_time), len(tables))
    columns = {name: np.full(shape, np.nan) for name in FIELDS}
    source_row = np.full(shape, -1, np.int64)
    known_at = open_time + interval
    for a, (name, table) in enumerate(tables.items()):
        rows = inside[name]
        place = (table.open_time[rows] - open_time[0]) // interval
        source_row[place, a] = rows
        for field in FIELDS:
            columns[field][place, a] = getattr(table, field)[rows]
        np.maximum.at(known_at, place, table.known_at[rows])  # a row is known when its last bar is
    return Panel(
        instruments=tuple(tables),
        interval=interval,
        open_time=open_time,
        known_at=known_at,
        present=source_row >= 0,
        source_row=source_row,
        open=columns["open"],
        high=columns["high"],
        low=columns["low"],
        close=columns["close"],
        volume=columns["volume"],
        taker_buy_volume=columns["taker_buy_volume"],
    )
