"""Bars that pass by themselves: the wall clock opens and closes them.

Stored bars are stamped anew so that the last known one closed just now (`Book.restamped`). What takes liquidity trades when the next bar
opens, what rests when it closes. After the last bar the market stands still.
"""

from __future__ import annotations

import asyncio
import time

from cryptoalpha.core.time import SECOND
from cryptoalpha.execution.fake_exchange.matching import Exchange


async def run_timed(exchange: Exchange) -> None:
    """Open and close bars as the wall clock passes them, to the end of the market."""
    market = exchange.market
    market.clock = time.time_ns
    while market.left:
        opens = int(market.panel.open_time[market.row + 1])
        await _until(opens)
        exchange.open_bar(whole=False)
        await _until(opens + market.panel.interval)
        exchange.close_bar()


async def _until(moment: int) -> None:
    """Wait for a moment of the wall clock, UTC ns."""
    while (left := moment - time.time_ns()) > 0:
        await asyncio.sleep(left / SECOND)
