"""The venues whose messages we can read, and what each promises about the order of its books and the numbers of its trades."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.data.sources.venues.binance import Binance
from cryptoalpha.data.sources.venues.bitstamp import Bitstamp
from cryptoalpha.data.sources.venues.books import Rule
from cryptoalpha.data.sources.venues.bybit import Bybit
from cryptoalpha.data.sources.venues.coinbase import Coinbase
from cryptoalpha.data.sources.venues.kraken import Kraken
from cryptoalpha.data.sources.venues.kraken_futures import KrakenFutures
from cryptoalpha.data.sources.venues.okx import Okx
from cryptoalpha.data.sources.venues.reading import Reading


class Reader(Protocol):
    """What reads a venue."""

    def parse(self, raw: bytes, received_at: int, subject: str = "") -> Reading:
        """A message of the socket; see `reading.Parser`."""
        ...

    def answer(self, kind: str, raw: bytes, received_at: int, subject: str) -> Reading:
        """An answer over REST to a question of that kind (`book`, `trades`, `bars.1m`, `settled`) about a symbol of the venue."""
        ...


@dataclass(frozen=True)
class Venue:
    """A venue's promises."""

    name: str
    """ccxt's id; `bybitlinear` is the perpetual market of bybit, which says the same of other instruments."""
    reader: Callable[[], Reader]
    rule: Rule
    counts_trades: bool
    """Whether the numbers of an instrument's trades go up by one."""
    counts_messages: bool = False
    """Whether a connection numbers its messages, so that a loss shows."""


_VENUES = (
    Venue("binance", lambda: Binance("binance"), "counted", counts_trades=True),
    Venue("binanceusdm", lambda: Binance("binanceusdm"), "chained", counts_trades=True),
    Venue("bybit", Bybit, "counted", counts_trades=False),
    Venue("bybitlinear", lambda: Bybit(perpetuals=True), "counted", counts_trades=False),
    Venue("okx", Okx, "chained", counts_trades=True),
    Venue("kraken", Kraken, "checked", counts_trades=True),
    Venue("krakenfutures", KrakenFutures, "counted", counts_trades=False),
    Venue("coinbase", Coinbase, "trusted", counts_trades=True, counts_messages=True),
    Venue("bitstamp", Bitstamp, "timed", counts_trades=False),
)
VENUES = {venue.name: venue for venue in _VENUES}


def venue_named(name: str) -> Venue:
    """Raises ConfigError where we cannot read it."""
    if name not in VENUES:
        raise ConfigError(f"{name!r} is no venue whose streams we read", hint=f"choose of {', '.join(sorted(VENUES))}")
    return VENUES[name]
