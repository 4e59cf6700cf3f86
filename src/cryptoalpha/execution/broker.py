"""What a broker is, and the bar it is shown.

A broker takes orders and turns bars into fills. It never touches the journal and knows nothing of decisions. Backtest and paper use
`SimulatedBroker`; a live broker answers to the same protocol.

An order that the venue itself refuses for good comes back as a `Refusal` with the rule `rejected` (`REJECTED`). Brokers give up orders for
reasons of their own under other rules: no bar, no cash.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import repeat
from typing import Any, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.core.values import Adjustment, Fill, FundingPayment, Order, Refusal
from cryptoalpha.store.panel import Panel
from cryptoalpha.store.tables import Dataset, Floats

Outcome = Fill | FundingPayment | Refusal | Adjustment
"""What can happen to an account: trades, funding, orders that ended unfilled, and what others did to it."""

REJECTED = "rejected"
"""Rule of a refusal by the venue: enough of them within a minute stop entries (`risk.breakers`)."""

CHUNK = 8192
"""Rows converted from arrays to Python floats at once: bounds memory, costs nothing."""


class BarStep(msgspec.Struct, gc=False):
    """One row of the market as brokers see it. Sequences have one entry per instrument, NaN where the bar is absent.

    `at` is when the bar is known (UTC ns), `open_time` when it opened. `funding_at_open` holds funding rates settled exactly at the open,
    owed by what was held before it; `funding_inside` rates settled later in the bar; None where nothing settles.
    """

    at: int
    open_time: int
    interval: int
    instruments: tuple[str, ...]
    open: Sequence[float]
    high: Sequence[float]
    low: Sequence[float]
    close: Sequence[float]
    volume: Sequence[float]
    present: Sequence[bool]
    funding_at_open: Sequence[float] | None = None
    funding_inside: Sequence[float] | None = None


class Broker(Protocol):
    """Anything that turns orders into fills.

    The caller submits what the risk gate passed and shows every bar once, in order. An order submitted for an instrument replaces what is
    left of an older one.
    """

    def submit(self, order: Order, event: int) -> None:
        """Take an order. `event` is its event id; fills carry it as their parent."""
        ...

    def cancel(self, instrument: str) -> None:
        """Drop what is left of the instrument's order, if there is one."""
        ...

    def pending(self) -> Mapping[str, Decimal]:
        """Signed quantity still to be filled, by instrument (buys positive)."""
        ...

    def on_bar(self, step: BarStep) -> list[Outcome]:
        """What happened in the bar: funding, fills and given-up orders, in the order in which they happened."""
        ...


def bar_steps(panel: Panel, funding: tuple[Floats, Floats] | None = None) -> Iterator[BarStep]:
    """Every row of the panel as a `BarStep`, oldest first.

    Args:
        funding: rates settled at the open and inside each bar, both `[T, A]`, NaN where none (see `funding_by_bar`).
    """
    if funding is not None and any(rates.shape != panel.open.shape for rates in funding):
        raise ConfigError(f"funding of shapes {[rates.shape for rates in funding]} for a panel of shape {panel.open.shape}")
    for start in range(0, len(panel), CHUNK):
        part = panel.rows(start, start + CHUNK)
        at, opened, open_, high, low, close, volume, present = (
            _listed(column)
            for column in (part.known_at, part.open_time, part.open, part.high, part.low, part.close, part.volume, part.present)
        )
        nothing: list[list[float] | None] = [None] * len(part)
        at_open = _settled(funding[0][start : start + CHUNK]) if funding is not None else nothing
        inside = _settled(funding[1][start : start + CHUNK]) if funding is not None else nothing
        every, names = repeat(panel.interval), repeat(panel.instruments)
        yield from map(BarStep, at, opened, every, names, open_, high, low, close, volume, present, at_open, inside)


def _listed(column: npt.NDArray[Any]) -> list[Any]:
    """A column as Python numbers, which are far cheaper to read one by one."""
    listed: list[Any] = column.tolist()
    return listed


def _settled(rates: Floats) -> list[list[float] | None]:
    """Rows of rates, None where nothing settles."""
    anything: npt.NDArray[np.bool_] = np.any(~np.isnan(rates), axis=1)
    return [row if some else None for row, some in zip(_listed(rates), _listed(anything), strict=True)]


def funding_by_bar(panel: Panel, dataset: Dataset) -> tuple[Floats, Floats]:
    """Funding rates settled at the open of each bar and inside it, from the readings `(base, "funding_rate")`; perpetuals only, spot pays
    none.

    Several settlements inside one bar are added. Settlement time is the reading's `happened_at`: what is paid does not wait for
    publication.

    Shapes: two arrays `[T, A]`, NaN where nothing settled.

    Raises:
        DataError: if two readings settle the same asset at the same moment.
    """
    at_open = np.full(panel.open.shape, np.nan)
    inside = np.full(panel.open.shape, np.nan)
    if len(panel) == 0:
        return at_open, inside
    for a, instrument in enumerate(panel.instruments):
        rules = dataset.rules.get(instrument)
        if rules is None or not rules.perpetual:
            continue
        base = rules.base
        table = dataset.readings.get((base, "funding_rate"))
        if table is None:
            continue
        if len(np.unique(table.happened_at)) != len(table):
            raise DataError(f"funding of {base}: two rates settle at the same moment", hint="drop duplicates when importing")
        bar = np.searchsorted(panel.open_time, table.happened_at, side="right") - 1
        offset = table.happened_at - panel.open_time[np.maximum(bar, 0)]
        used = (bar >= 0) & (offset < panel.interval)
        exact = used & (offset == 0)
        at_open[bar[exact], a] = table.value[exact]
        later = used & (offset > 0)
        inside[bar[later], a] = 0.0
        np.add.at(inside[:, a], bar[later], table.value[later])
    return at_open, inside
