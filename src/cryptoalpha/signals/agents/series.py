"""Which series a reading belongs to: one source alone, the same one live and in the store.

The plain name of a metric belongs to the source of the series that is held; where none is, to the source that was known first. Another
source's readings go to a series named after it (`data.metrics.series_name`). So venues whose funding differs never stand in one series.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from cryptoalpha.core.values import ChainReading
from cryptoalpha.data.metrics import filed_under, series_name
from cryptoalpha.store.tables import ReadingTable

Key = tuple[str, str]
"""Asset and metric, as `Dataset.readings` has them."""


def in_series(held: Mapping[Key, ReadingTable], arrived: Iterable[ChainReading]) -> list[ChainReading]:
    """Readings under the names of their series, in the order given. What is named already keeps its name."""
    readings = list(arrived)
    owners = {key: table.source for key, table in held.items()}
    for reading in sorted(readings, key=lambda one: (one.known_at, filed_under(one.source))):
        owners.setdefault((reading.asset, reading.metric), reading.source)
    return [_named(reading, owners[reading.asset, reading.metric]) for reading in readings]


def _named(reading: ChainReading, owner: str) -> ChainReading:
    metric, source = series_name(reading.metric, reading.source, owner=owner), filed_under(reading.source)
    return (
        reading if (metric, source) == (reading.metric, reading.source) else msgspec.structs.replace(reading, metric=metric, source=source)
    )
