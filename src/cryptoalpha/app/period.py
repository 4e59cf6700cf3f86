"""The stretch of time a run covers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cryptoalpha.core.errors import ConfigError, DataMissingError
from cryptoalpha.core.time import day_of, iso, parse_time
from cryptoalpha.store.tables import Dataset


@dataclass(frozen=True)
class Period:
    """Bars that open in [`since`, `until`), UTC ns."""

    since: int
    until: int

    def __post_init__(self) -> None:
        if self.until <= self.since:
            raise ConfigError(f"the period {iso(self.since)} to {iso(self.until)} is empty", hint="--until must lie after --since")

    def bars(self, dataset: Dataset) -> int:
        """How many rows the grid of the bars has between the first and the last that lie in the period."""
        inside = self._inside(dataset)
        return (inside[1] - inside[0]) // inside[2] + 1 if inside is not None else 0

    def last_bars(self, dataset: Dataset, count: int) -> Period:
        """The end of the period, `count` bars long at most; it ends with the last bar there is.

        Raises:
            DataMissingError: if no bar lies in the period.
        """
        inside = self._inside(dataset)
        if inside is None:
            raise DataMissingError(
                f"{dataset.origin} has no bars from {iso(self.since)} to {iso(self.until)}",
                hint="`cryptoalpha data list` prints what the store holds",
            )
        first, last, interval = inside
        return Period(max(first, last - (count - 1) * interval), last + interval)

    def _inside(self, dataset: Dataset) -> tuple[int, int, int] | None:
        """Open of the first and of the last bar in the period, and the bars' length; None if there is none."""
        opened = []
        for table in dataset.bars.values():
            begin, end = np.searchsorted(table.open_time, (self.since, self.until))
            if end > begin:
                opened.append((int(table.open_time[begin]), int(table.open_time[end - 1]), table.interval))
        if not opened:
            return None
        return min(one[0] for one in opened), max(one[1] for one in opened), min(one[2] for one in opened)

    def __str__(self) -> str:
        return f"{day_of(self.since)} to {day_of(self.until)}"


def period_of(dataset: Dataset, since: str | None, until: str | None) -> Period:
    """The period asked for; what is left open is taken from the data.

    Raises:
        DataMissingError: if the data have no bars, or none on the open side of the one date given.
        ConfigError: if a date cannot be read or the period is empty.
    """
    tables = [table for table in dataset.bars.values() if len(table)]
    if not tables:
        raise DataMissingError(f"{dataset.origin} has no bars", hint="`cryptoalpha data list` prints what the store holds")
    first = min(int(table.open_time[0]) for table in tables)
    last = max(int(table.open_time[-1]) + table.interval for table in tables)
    begin, end = parse_time(since) if since else first, parse_time(until) if until else last
    if end <= begin and not (since and until):
        raise DataMissingError(
            f"{dataset.origin} has no bars {'from ' + iso(begin) + ' on' if since else 'before ' + iso(end)}",
            hint=f"its bars go from {iso(first)} to {iso(last)}; choose another {'--since' if since else '--until'}",
        )
    return Period(begin, end)
