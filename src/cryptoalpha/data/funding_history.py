"""Funding rates of perpetuals from a venue's public history into the store, resumed from the last one stored.

Venues stamp a settlement some milliseconds late; stamps are cut to the minute, so that a rate is known at the settlement it belongs to.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cryptoalpha.core.clock import Clock, SystemClock
from cryptoalpha.core.errors import VenueError
from cryptoalpha.core.time import MILLISECOND, MINUTE
from cryptoalpha.data.candles import CandleClient, GarbledReplyError, Wait, ask, markets_of, refuse_nonsense
from cryptoalpha.data.config import ExchangeConfig
from cryptoalpha.data.metrics import filed_under
from cryptoalpha.data.rules import split_instrument
from cryptoalpha.store.history import History
from cryptoalpha.store.tables import ReadingTable

_METRIC = "funding_rate"
_PAGE = 1000


class ReadingKey(NamedTuple):
    """Whose rates they are, and the source they are filed under."""

    asset: str
    source: str


def fetch_funding(
    history: History,
    client: CandleClient,
    *,
    instruments: Sequence[str],
    since: int,
    config: ExchangeConfig | None = None,
    clock: Clock | None = None,
    wait: Wait = time.sleep,
) -> dict[str, int]:
    """Bring the store up to date with funding settled from `since` on, known at its settlement. Returns the rates added per asset.

    `BTC/USDT` means the perpetual `BTC/USDT:USDT`; instruments without one at this venue are left out.

    Raises:
        VenueError: if the venue does not answer sensibly. What was fetched until then is stored.
    """
    config, clock = config or ExchangeConfig(), clock or SystemClock()
    markets = markets_of(client, config=config, wait=wait)
    source = filed_under(client.id)  # as imported files and live streams call it, so that one series goes on
    stored = {
        entry.series.subject: entry.last for entry in history.coverage() if (entry.series.source, entry.series.metric) == (source, _METRIC)
    }
    added: dict[str, int] = {}
    for instrument in instruments:
        asset, quote = split_instrument(instrument)
        symbol = f"{asset}/{quote}:{quote}"
        if symbol not in markets:
            continue
        cursor, count = max(since, stored.get(asset, since - 1) + 1), 0
        while cursor <= clock.now():
            table, newest = _page(client, symbol, ReadingKey(asset, source), cursor, config, wait)
            table = table.take(table.known_at <= clock.now())
            if not len(table):
                break
            count += history.write_readings(table, origin=f"public funding history of {client.id}").added
            cursor = newest + 1
        added[asset] = count
    if not added:
        raise VenueError(f"{client.id} lists no perpetual of {', '.join(instruments)}", hint="name instruments quoted in USDT")
    return added


def _page(client: CandleClient, symbol: str, key: ReadingKey, since: int, config: ExchangeConfig, wait: Wait) -> tuple[ReadingTable, int]:
    """One page of rates and the venue's own stamp of the newest."""
    what = f"for funding of {symbol}"

    def call() -> tuple[ReadingTable, int]:
        rows = client.fetch_funding_rate_history(symbol, -(-since // MILLISECOND), _PAGE)
        if not rows:
            refuse_nonsense(client, what)
        try:
            pairs = sorted((int(row["timestamp"]) * MILLISECOND, float(row["fundingRate"])) for row in rows)
        except (TypeError, ValueError, KeyError):
            raise GarbledReplyError(f"{client.id} answered {what} with rows that are no rates") from None
        times = np.array([moment // MINUTE * MINUTE for moment, _ in pairs], np.int64)
        rates = np.array([rate for _, rate in pairs], np.float64)
        return ReadingTable(key.asset, _METRIC, key.source, times, times, rates), max((moment for moment, _ in pairs), default=since)

    return ask(client, what, call, config=config, wait=wait)
