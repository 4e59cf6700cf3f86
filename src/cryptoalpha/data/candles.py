"""One page of public candles from a venue, asked for politely and believed only after a look at it.

ccxt answers nonsense quietly: an HTML page, `{}` or cut JSON comes back as an empty list of candles (measured with ccxt 4.5.90). So
every reply is checked: an empty page counts as empty only if the venue really sent JSON; rows must be numbers in order of time. What fails
a check, a timeout or a rate limit is asked again after a growing wait; what no repetition mends (unknown symbol, forbidden) is not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from decimal import localcontext
from typing import Any, Protocol, TypeVar

import numpy as np

from cryptoalpha.core.errors import VenueError
from cryptoalpha.core.time import MILLISECOND, interval_name
from cryptoalpha.data.config import ExchangeConfig
from cryptoalpha.store.tables import BarTable

Wait = Callable[[float], None]
"""Sleeps for a number of seconds; tests pass one that does not."""

Answer = TypeVar("Answer")
_BINANCE_COLUMNS = (0, 1, 2, 3, 4, 5, 9)  # open time, open, high, low, close, volume, volume bought by takers
_NETWORK_HINT = "check the network, try again later (what was fetched is kept), or name other venues in data.exchange.venues"


class CandleClient(Protocol):
    """What is used of a ccxt client."""

    id: str
    timeframes: Mapping[str, str]
    enableLastJsonResponse: bool  # noqa: N815 (ccxt's name)
    last_json_response: Any
    last_response_headers: Any

    def load_markets(self, reload: bool = False) -> Mapping[str, Mapping[str, Any]]: ...

    def fetch_ohlcv(self, symbol: str, timeframe: str, since: int | None, limit: int | None) -> list[list[Any]]: ...

    def fetch_funding_rate_history(self, symbol: str, since: int | None, limit: int | None) -> list[dict[str, Any]]: ...


class GarbledReplyError(VenueError):
    """The venue answered with something that is not what was asked for."""


def ask(client: CandleClient, what: str, call: Callable[[], Answer], *, config: ExchangeConfig, wait: Wait = time.sleep) -> Answer:
    """Call a venue, again where that can help.

    Raises:
        VenueError: if the venue refuses, or still fails after `config.attempts`.
    """
    import ccxt

    client.enableLastJsonResponse = True  # off by default; `refuse_nonsense` looks at it
    pause, reason = config.backoff_seconds, ""
    for attempt in range(config.attempts):
        if attempt:
            wait(pause)
            pause *= 2.0
        try:
            with localcontext():  # ccxt sets how Decimal rounds for its callers
                return call()
        except ccxt.NetworkError as error:  # also rate limits, maintenance and timeouts
            reason = _words(error)
            if isinstance(error, (ccxt.RateLimitExceeded, ccxt.DDoSProtection)):
                pause = max(pause, _retry_after(client))
        except GarbledReplyError as error:
            reason = str(error)
        except ccxt.BaseError as error:
            raise VenueError(f"{client.id} refuses {what}: {_words(error)}", hint="check the symbol and the venue") from None
        except (AttributeError, TypeError, ValueError, KeyError, IndexError) as error:  # ccxt stumbling over a garbled reply
            reason = f"an answer that cannot be read ({type(error).__name__})"
    raise VenueError(f"{client.id} failed {config.attempts} times to answer {what}: {reason}", hint=_NETWORK_HINT)


def markets_of(client: CandleClient, *, config: ExchangeConfig, wait: Wait = time.sleep) -> Mapping[str, Mapping[str, Any]]:
    """The venue's markets by symbol.

    Raises:
        VenueError: if the venue does not say.
    """

    def call() -> Mapping[str, Mapping[str, Any]]:
        markets = client.load_markets() or client.load_markets(True)  # an empty list would be remembered
        if not markets:
            raise GarbledReplyError("an empty list of markets")
        return markets

    return ask(client, "for its markets", call, config=config, wait=wait)


def fetch_page(
    client: CandleClient, instrument: str, interval: int, since: int, *, limit: int, config: ExchangeConfig, wait: Wait = time.sleep
) -> BarTable:
    """Up to `limit` bars that open at `since` or later, as the venue states them: ungated, the last one perhaps still forming.

    Taker volume comes along where the venue is a Binance; elsewhere it is NaN.

    Raises:
        VenueError: if the venue has no such bars to offer or does not answer sensibly.
    """
    name = interval_name(interval)
    if name not in client.timeframes:
        raise VenueError(f"{client.id} has no {name} candles", hint=f"choose one of {', '.join(client.timeframes)}")
    what = f"for {instrument} {name} candles"

    def call() -> BarTable:
        if client.id in ("binance", "binanceus", "binanceusdm"):
            rows = _binance_rows(client, instrument, client.timeframes[name], since // MILLISECOND, limit)
        else:
            rows = client.fetch_ohlcv(instrument, name, since // MILLISECOND, limit)
        if not rows:
            refuse_nonsense(client, what)
        return _table(client.id, instrument, interval, rows, since)

    return ask(client, what, call, config=config, wait=wait)


def refuse_nonsense(client: CandleClient, what: str) -> None:
    """Tell an empty answer from one that ccxt could not read.

    Raises:
        GarbledReplyError: if what the venue last sent is no JSON, or says nothing at all.
    """
    if not isinstance(client.last_json_response, (list, dict)) or client.last_json_response == {}:
        raise GarbledReplyError(f"{client.id} answered {what} with something that is no answer")


def _binance_rows(client: Any, instrument: str, timeframe: str, since: int, limit: int) -> Any:
    """Raw klines, because ccxt's unified ones leave the takers' share out."""
    market = client.load_markets()[instrument]
    request = {"symbol": market["id"], "interval": timeframe, "startTime": since, "limit": limit}
    call = client.fapiPublicGetKlines if market.get("linear") else client.publicGetKlines
    rows = call(request)
    if not isinstance(rows, list):
        raise GarbledReplyError(f"{client.id} answered {instrument} candles with {str(rows)[:40]!r}")
    return [[row[k] for k in _BINANCE_COLUMNS] for row in rows]


def _table(venue: str, instrument: str, interval: int, rows: Any, since: int) -> BarTable:
    """Rows `[ms, open, high, low, close, volume, (taker volume)]` as a table.

    Raises:
        GarbledReplyError: if they are not numbers, or not in order of time from `since` on.
    """
    problem = f"{venue} answered {instrument} candles with"
    if not isinstance(rows, list):
        raise GarbledReplyError(f"{problem} {type(rows).__name__}")
    try:
        numbers = [[float(cell) for cell in row] for row in rows]
    except (TypeError, ValueError):
        raise GarbledReplyError(f"{problem} a row that is no candle: {str(rows[0])[:60]}") from None
    widths = {len(row) for row in numbers}
    if not widths <= {6, 7} or len(widths) > 1:
        raise GarbledReplyError(f"{problem} rows of {sorted(widths)} numbers, not 6")
    block = np.array(numbers, np.float64) if numbers else np.empty((0, 6))
    stamps = block[:, 0]
    if not np.isfinite(stamps).all() or bool(np.any(np.diff(stamps) <= 0)) or bool(np.any(stamps < since // MILLISECOND)):
        raise GarbledReplyError(f"{problem} rows that are not in order of time from what was asked for")
    return BarTable(
        instrument=instrument,
        interval=interval,
        open_time=stamps.astype(np.int64) * MILLISECOND,
        open=block[:, 1],
        high=block[:, 2],
        low=block[:, 3],
        close=block[:, 4],
        volume=block[:, 5],
        taker_buy_volume=block[:, 6] if block.shape[1] == 7 else np.full(len(block), math.nan),
    )


def _retry_after(client: CandleClient) -> float:
    """Seconds the venue asks to wait, 0 where it does not say."""
    headers = client.last_response_headers
    value = headers.get("Retry-After", "") if headers else ""
    return float(value) if str(value).isdigit() else 0.0


def _words(error: Exception) -> str:
    """The first line of an error without the address that was asked."""
    words = " ".join(word for word in str(error).split("\n")[0].split() if "://" not in word)
    return f"{type(error).__name__}: {words[:120]}"
