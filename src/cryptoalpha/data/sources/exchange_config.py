"""Settings of the exchanges' live streams."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cryptoalpha.core.config import Count, Positive
from cryptoalpha.data.sources.section import SourceSection

VenueName = Literal["binance", "binanceusdm", "bybit", "bybitlinear", "okx", "kraken", "coinbase", "bitstamp"]
FamilyName = Literal["trades", "quotes", "books", "bars", "funding", "liquidations"]


class ExchangeSection(SourceSection):
    """[data.streams.sources.exchange] Trades, books, candles, funding and liquidations of exchanges; public, no key."""

    requests_per_minute: Positive = 600.0
    """Request weight a minute and venue over REST. Binance allows 6,000 spot and 2,400 futures; a whole book costs 50 or 20 of it."""

    burst: Count = 200
    """Weight that may be spent at once: the whole books of four instruments after a connection was lost."""

    venues: tuple[VenueName, ...] = ("binance", "binanceusdm")
    """Whom to listen to: ccxt ids, and `bybitlinear` for bybit's perpetuals. Each is a source of its own."""

    streams: tuple[FamilyName, ...] = ("trades", "quotes", "books", "bars", "funding", "liquidations")
    """What to listen to; each has its own connection, and what a venue does not have is left out."""

    instruments: tuple[str, ...] = ()
    """`BTC/USDT`, or `BTC/USDT:USDT` for a perpetual; empty: what is traded. A venue of perpetuals lists the perpetual of a pair."""

    bar_interval: str = "1m"
    """Length of the candles that are listened to; a venue that does not say when one has closed (Coinbase, Bitstamp) brings none."""

    book_levels: Annotated[int, Field(ge=1, le=100)] = 10
    """Levels of each side that a book shows (1–100); the whole of it is kept."""

    most_missed: Count = 200_000
    """Trades per instrument that are asked for after an interruption; of more, the newest. A busy market has about a million a day."""

    quiet_seconds: Positive = 300.0
    """A connection over which nothing came for so long is opened anew, whatever its pings say."""

    funding_seconds: Positive = 600.0
    """How often settled funding rates are asked for; they settle every eight hours, or more often in wild markets."""

    endpoint: str = Field(default="", pattern=r"^(http://(127\.0\.0\.1|localhost|\[::1\]):\d+)?$")
    """Address on this machine that stands in for all venues: `https://HOST/PATH` becomes `{endpoint}/HOST/PATH`, sockets likewise. Empty:
    the real ones."""
