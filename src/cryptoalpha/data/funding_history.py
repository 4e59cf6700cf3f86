"""Funding rates of perpetuals from a venue's public history into the store, resumed where the first one is missing.

Venues stamp a settlement some milliseconds late; stamps are cut to the minute, so that a rate is known at the settlement it belongs to.
A settlement that is stored, because it was heard live or fetched before, stays as it is: under two times it would be paid twice.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cryptoalpha.core.clock import Clock, SystemClock
from cryptoalpha.core.errors import VenueError
from cryptoalpha.core.time import HOUR, MILLISECOND, MINUTE
from cryptoalpha.data.candles import CandleClient, GarbledReplyError, Wait, ask, markets_of, refuse_nonsense
from cryptoalpha.data.config import ExchangeConfig
from cryptoalpha.data.metrics import filed_under, series_name
from cryptoalpha.data.rules import split_instrument
from cryptoalpha.store.history import History
from cryptoalpha.store.partition import Series
from cryptoalpha.store.tables import ReadingTable, Times

_METRIC = "funding_rate"
_PAGE = 1000
_LONGEST_PERIOD = 8 * HOUR
"""Venues settle so often at least."""


class ReadingKey(NamedTuple):
    """Whose rates they are, what their series is called, and the source they are filed under."""

    asset: str
    metric: str
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

    `BTC/USDT` means the perpetual `BTC/USDT:USDT`; instruments without one at this venue are left out. Where the store holds the funding of
    another venue, a series of its own is named after this one (`data.metrics.series_name`): a store never offers two of one name.

    Raises:
        VenueError: if the venue does not answer sensibly. What was fetched until then is stored.
    """
    config, clock = config or ExchangeConfig(), clock or SystemClock()
    markets = markets_of(client, config=config, wait=wait)
    source = filed_under(client.id)  # as imported files and live streams call it, so that one series goes on
    owners = {entry.series.subject: entry.series.source for entry in history.coverage() if entry.series.metric == _METRIC}
    added: dict[str, int] = {}
    for instrument in instruments:
        asset, quote = split_instrument(instrument)
        symbol = f"{asset}/{quote}:{quote}"
        if symbol not in markets:
            continue
        key = ReadingKey(asset, series_name(_METRIC, source, owner=owners.get(asset, source)), source)
        stored = history.moments(Series("readings", source, asset, key.metric))
        cursor, count = _first_missing(stored, since), 0
        while cursor <= clock.now():
            table, newest = _page(client, symbol, key, cursor, config, wait)
            table = table.take(table.known_at <= clock.now())
            if not len(table):
                break
            fresh = table.take(~np.isin(table.happened_at, stored))
            count += history.write_readings(fresh, origin=f"public funding history of {client.id}").added if len(fresh) else 0
            cursor = newest + 1
        added[asset] = count
    if not added:
        raise VenueError(f"{client.id} lists no perpetual of {', '.join(instruments)}", hint="name instruments quoted in USDT")
    return added


def _first_missing(stored: Times, since: int) -> int:
    """After which moment rates may be missing: what was heard live says nothing of the time before."""
    settled = np.concatenate([[since - 1], stored[stored >= since]])
    gaps = np.flatnonzero(np.diff(settled) > _LONGEST_PERIOD)
    return int(settled[gaps[0] if len(gaps) else -1]) + 1


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
        return ReadingTable(key.asset, key.metric, key.source, times, times, rates), max((moment for moment, _ in pairs), default=since)

    return ask(client, what, call, config=config, wait=wait)
