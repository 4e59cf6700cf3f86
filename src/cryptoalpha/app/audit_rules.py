"""Offences against time that need no second run: the data themselves, the panel and one journal show them.

Removing the future cannot find a row that carries a false stamp: it is there before and after the cut. These rules read the stamps: nothing
may be known before it is over, no fill may happen before its order or at another price than the open it claims.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cryptoalpha.core.time import DAY
from cryptoalpha.core.values import Fill, Order, Travelling
from cryptoalpha.data.metrics import METRICS
from cryptoalpha.store.panel import Panel
from cryptoalpha.store.tables import Dataset, ReadingTable, Times

PRICE_TOLERANCE = 1e-12
"""Relative difference allowed between the price a fill implies and the open it claims: the broker splits the difference exactly."""

Rows = Sequence[tuple[int, Sequence[Travelling]]]
"""A journal: engine time and values of each row."""


@dataclass(frozen=True)
class Offence:
    """One kind of offence: what it is, when the first one was, and how many there are."""

    what: str
    first: int
    count: int


def data_offences(dataset: Dataset, count: Callable[[int], None]) -> Iterator[Offence]:
    """Rows of the data that claim to have been known too early. `count` is told how many rows were looked at."""
    for name, bars in sorted(dataset.bars.items()):
        count(len(bars))
        yield from _early(f"bar known before it closed ({name})", bars.known_at, bars.open_time + bars.interval)
    for (asset, metric), readings in sorted(dataset.readings.items()):
        count(len(readings))
        yield from _reading_offences(f"({asset}/{metric})", metric, readings)
    for source, posts in sorted(dataset.posts.items()):
        count(len(posts))
        yield from _early(f"text known before it was published ({source})", posts.known_at, posts.happened_at)


def _reading_offences(name: str, metric: str, readings: ReadingTable) -> Iterator[Offence]:
    if metric in METRICS and METRICS[metric].whole_day:
        over = readings.happened_at // DAY * DAY + DAY
        yield from _early(f"reading of a day known before the day was over {name}", readings.known_at, over)
    else:
        yield from _early(f"reading known before it happened {name}", readings.known_at, readings.happened_at)


def panel_offences(panel: Panel) -> Iterator[Offence]:
    """Rows of the panel that claim to be known before their bar closed."""
    yield from _early("bar known before it closed (panel)", panel.known_at, panel.open_time + panel.interval)


def _early(what: str, known_at: Times, possible: Times) -> Iterator[Offence]:
    early: npt.NDArray[np.int64] = np.flatnonzero(known_at < possible)
    if early.size:
        yield Offence(what, int(known_at[early[0]]), early.size)


def fill_offences(panel: Panel, journal: Rows, count: Callable[[int], None]) -> Iterator[Offence]:
    """Fills that no venue could have given. A market order fills at the open of a bar that opens when the order is known, or later."""
    orders: dict[str, Order] = {}
    early: list[Fill] = []
    mispriced: list[Fill] = []
    place = {name: a for a, name in enumerate(panel.instruments)}
    for _, values in journal:
        for value in values:
            if isinstance(value, Order):
                orders[value.client_id] = value
            elif isinstance(value, Fill):
                count(1)
                order = orders.get(value.client_id)
                if order is None or value.happened_at < order.known_at:
                    early.append(value)
                elif order.type == "market" and not _is_at_the_open(value, panel, place[value.instrument]):
                    mispriced.append(value)
    for what, found in (("fill before its order", early), ("fill at another price than the next open", mispriced)):
        if found:
            yield Offence(what, found[0].happened_at, len(found))


def _is_at_the_open(fill: Fill, panel: Panel, place: int) -> bool:
    """Whether the price before costs that a fill implies is the open of the bar it claims to have happened in."""
    sign = 1 if fill.side == "buy" else -1
    implied = float(fill.price - sign * (fill.spread_cost + fill.impact_cost) / fill.quantity)
    row = int(np.searchsorted(panel.open_time, fill.happened_at))
    if row >= len(panel) or int(panel.open_time[row]) != fill.happened_at:
        return False
    return abs(implied / float(panel.open[row, place]) - 1.0) <= PRICE_TOLERANCE
