"""Longer bars from shorter ones, causally: a long bar exists only when all its parts do, and is known when its last part is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.time import interval_name
from cryptoalpha.store.tables import BarTable


def resample(table: BarTable, interval: int) -> BarTable:
    """Bars of `interval` ns from the shorter bars of a gated `table`.

    Open of the first part, highest high, lowest low, close of the last, volumes summed (NaN if one is). Long bars open on the grid of the
    epoch; one with a missing part is left out, never estimated. A long bar is named after the row of its first part.

    Raises:
        ConfigError: if `interval` is no multiple of the table's.
    """
    if interval == table.interval:
        return table
    parts, rest = divmod(interval, table.interval)
    if rest or parts < 1:
        raise ConfigError(
            f"{table.instrument}: {interval_name(interval)} bars cannot be made of {interval_name(table.interval)} bars",
            hint=f"choose a multiple of {interval_name(table.interval)}",
        )
    start = table.open_time // interval * interval
    begins = np.flatnonzero(np.diff(start, prepend=-1))  # first row of each long bar
    counts = np.diff(begins, append=len(table))
    first = begins[counts == parts]
    rows = first[:, None] + np.arange(parts)  # [long bars, parts]
    return replace(
        table,
        interval=interval,
        open_time=start[first],
        open=table.open[first],
        high=table.high[rows].max(axis=1, initial=-np.inf),
        low=table.low[rows].min(axis=1, initial=np.inf),
        close=table.close[rows[:, -1]],
        volume=table.volume[rows].sum(axis=1),
        taker_buy_volume=table.taker_buy_volume[rows].sum(axis=1),
        known_at=table.known_at[rows].max(axis=1, initial=0),
        partition=table.partition[first],
        row=table.row[first],
    )
