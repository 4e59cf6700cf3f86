"""Candles as Binance writes them: the stored bars, or whole multiples of them.

Only candles that have closed are shown. Longer ones begin where Binance's do (the epoch; weeks on Mondays) and are made of whatever bars
there are in them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from cryptoalpha.core.time import MILLISECOND, grid_anchor
from cryptoalpha.execution.fake_exchange.market import Listing, Market
from cryptoalpha.execution.fake_exchange.shapes import price_text


def candles(market: Market, listing: Listing, interval: int, *, since_ms: int | None, until_ms: int | None, limit: int) -> list[list[Any]]:
    """Lines of `klines`, oldest first: the first `limit` that open at `since_ms` or later, else the last ones.

    Args:
        interval: length of a candle, ns; a multiple of the bars'.
        until_ms: latest open.
    """
    times = interval // market.panel.interval
    if times == 1:
        rows = market.bars(listing, since_ms=since_ms, until_ms=until_ms, limit=limit)
        starts = np.arange(len(rows))
    else:
        anchor, length = grid_anchor(interval) // MILLISECOND, interval // MILLISECOND
        closed = _floor(market.panel.known_at[market.row] // MILLISECOND, anchor, length) - 1  # the last moment that is in a closed candle
        first = None if since_ms is None else -_floor(-since_ms, -anchor, length)
        last = closed if until_ms is None else min(closed, _floor(until_ms, anchor, length) + length - 1)
        rows = market.bars(listing, since_ms=first, until_ms=last, limit=(limit + 1) * times)
        group = (market.panel.open_time[rows] // MILLISECOND - anchor) // length
        starts = np.flatnonzero(np.r_[True, np.diff(group) > 0]) if len(rows) else np.arange(0)
    if len(starts) > limit:
        if since_ms is None:
            rows, starts = rows[starts[-limit] :], starts[-limit:] - starts[-limit]
        else:
            rows, starts = rows[: starts[limit]], starts[:limit]
    return _lines(market, listing, interval, rows, starts)


def _floor(moment: int, anchor: int, length: int) -> int:
    """The last moment of the grid that is not after this one."""
    return int((moment - anchor) // length * length + anchor)


def _lines(market: Market, listing: Listing, interval: int, rows: npt.NDArray[np.int64], starts: npt.NDArray[np.int64]) -> list[list[Any]]:
    """One line for each group of rows; a group goes from one start to the next."""
    if not len(rows):
        return []
    panel, i = market.panel, listing.place
    length, anchor = interval // MILLISECOND, grid_anchor(interval) // MILLISECOND
    close, volume = panel.close[rows, i], panel.volume[rows, i]
    taken = panel.taker_buy_volume[rows, i]
    bought = np.where(np.isnan(taken), volume / 2, taken)
    opened = [_floor(int(moment), anchor, length) for moment in panel.open_time[rows[starts]] // MILLISECOND]
    ends = np.r_[starts[1:], len(rows)] - 1
    columns = (
        panel.open[rows[starts], i],
        np.maximum.reduceat(panel.high[rows, i], starts),
        np.minimum.reduceat(panel.low[rows, i], starts),
        close[ends],
        np.add.reduceat(volume, starts),
        np.add.reduceat(volume * close, starts),
        np.add.reduceat(bought, starts),
        np.add.reduceat(bought * close, starts),
    )
    prices = zip(*([price_text(value) for value in column.tolist()] for column in columns), strict=True)
    return [
        [at, first, high, low, last, traded, at + length - 1, turnover, 100, taker, taker_turnover, "0"]
        for at, (first, high, low, last, traded, turnover, taker, taker_turnover) in zip(opened, prices, strict=True)
    ]
