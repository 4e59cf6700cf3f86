"""The stretch of time a run covers."""

from __future__ import annotations

from dataclasses import dataclass

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
        """How many steps of the longest grid lie in the period."""
        intervals = [table.interval for table in dataset.bars.values() if len(table)]
        return (self.until - self.since) // min(intervals) if intervals else 0

    def last_bars(self, dataset: Dataset, count: int) -> Period:
        """The end of the period, `count` bars long at most; it ends with the last bar there is."""
        tables = [table for table in dataset.bars.values() if len(table)]
        interval = min(table.interval for table in tables)
        until = min(self.until, max(int(table.open_time[-1]) for table in tables) + interval)
        return Period(max(self.since, until - count * interval), until)

    def __str__(self) -> str:
        return f"{day_of(self.since)} to {day_of(self.until)}"


def period_of(dataset: Dataset, since: str | None, until: str | None) -> Period:
    """The period asked for; what is left open is taken from the data.

    Raises:
        DataMissingError: if the data have no bars.
        ConfigError: if a date cannot be read or the period is empty.
    """
    tables = [table for table in dataset.bars.values() if len(table)]
    if not tables:
        raise DataMissingError(f"{dataset.origin} has no bars", hint="`cryptoalpha data list` prints what the store holds")
    first = min(int(table.open_time[0]) for table in tables)
    last = max(int(table.open_time[-1]) + table.interval for table in tables)
    return Period(parse_time(since) if since else first, parse_time(until) if until else last)
