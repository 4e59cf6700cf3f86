"""How venues write instruments, and how the house does: `BTC/USDT`, and `BTC/USDT:USDT` for a perpetual settled in USDT.

Glued names (`BTCUSDT`) are cut at the longest quote asset that the venue is known to use; a name that ends in none is malformed. Venues of
dollars and of dollar coins are told apart: `DOTUSD` is DOT in dollars at one, and no name at the other, never DO in TUSD.
"""

from __future__ import annotations

from functools import lru_cache

from cryptoalpha.core.errors import ConfigError, DataError


def _longest_first(*quotes: str) -> tuple[str, ...]:
    return tuple(sorted(quotes, key=lambda quote: (-len(quote), quote)))


COINS = _longest_first(
    *("USDT", "USDC", "FDUSD", "TUSD", "BUSD", "USDP", "USD1", "USDE", "PAX", "DAI", "EURI", "AEUR"),
    *("BTC", "ETH", "BNB", "XRP", "TRX", "DOGE", "DOT", "SOL", "MNT"),
    *(
        "EUR",
        "GBP",
        "JPY",
        "TRY",
        "BRL",
        "AUD",
        "UAH",
        "RUB",
        "IDRT",
        "ARS",
        "MXN",
        "COP",
        "CZK",
        "PLN",
        "ZAR",
        "NGN",
        "RON",
        "BIDR",
        "VAI",
    ),
)
"""Quotes of venues that trade against coins worth a dollar, never against dollars: Binance, Bybit."""
DOLLARS = _longest_first("USD", "EUR", "GBP", "USDT", "USDC", "BTC", "ETH", "PAX", "DAI")
"""Quotes of venues that trade against dollars: Bitstamp, Kraken's futures."""
_KRAKEN = {"XBT": "BTC", "XDG": "DOGE"}
_KRAKEN_BACK = {house: venue for venue, house in _KRAKEN.items()}


def split(instrument: str) -> tuple[str, str, str]:
    """Base, quote and settlement asset (empty: spot).

    Raises:
        ConfigError: if it is written otherwise than `BTC/USDT` or `BTC/USDT:USDT`.
    """
    pair, _, settle = instrument.partition(":")
    base, _, quote = pair.partition("/")
    if not (base and quote) or "/" in quote:
        raise ConfigError(f"{instrument!r} is no instrument", hint="write BTC/USDT, or BTC/USDT:USDT for a perpetual")
    return base, quote, settle


@lru_cache(maxsize=8192)
def glued(name: str, quotes: tuple[str, ...] = COINS) -> tuple[str, str]:
    """Base and quote of `BTCUSDT` or `btcusdt`.

    Raises:
        DataError: if none of the quotes ends it.
    """
    upper = name.upper()
    for quote in quotes:
        if upper.endswith(quote) and len(upper) > len(quote):
            return upper[: -len(quote)], quote
    raise DataError(f"{name[:40]!r} ends in no quote asset we know")


def spot(name: str, quotes: tuple[str, ...] = COINS) -> str:
    """`BTCUSDT` → `BTC/USDT`."""
    base, quote = glued(name, quotes)
    return f"{base}/{quote}"


def perpetual(name: str) -> str:
    """`BTCUSDT` → `BTC/USDT:USDT`; one that ends on a day (`BTCUSDT_230630`) keeps it: `BTC/USDT:USDT-230630`."""
    pair, _, day = name.partition("_")
    base, quote = glued(pair)
    return f"{base}/{quote}:{quote}-{day}" if day else f"{base}/{quote}:{quote}"


def dashed(name: str) -> str:
    """`BTC-USD` → `BTC/USD`.

    Raises:
        DataError: if it is not two names with a dash between.
    """
    base, _, quote = name.partition("-")
    if not (base and quote) or "-" in quote or "/" in name:
        raise DataError(f"{name[:40]!r} is no pair such as BTC-USD")
    return f"{base}/{quote}"


def slashed(name: str) -> str:
    """`XBT/USD` → `BTC/USD`.

    Raises:
        DataError: if it is not two names with a stroke between.
    """
    base, _, quote = name.partition("/")
    if not (base and quote) or "/" in quote:
        raise DataError(f"{name[:40]!r} is no pair such as XBT/USD")
    return f"{_KRAKEN.get(base, base)}/{_KRAKEN.get(quote, quote)}"


def kraken_future(name: str) -> str:
    """`PF_XBTUSD` → `BTC/USD:USD` (settled in dollars), `PI_XBTUSD` → `BTC/USD:BTC` (in the coin); dated ones keep their day.

    Raises:
        DataError: if it is written otherwise.
    """
    family, _, rest = name.upper().partition("_")
    pair, _, day = rest.partition("_")
    if family not in ("PF", "PI", "FF", "FI") or not pair:
        raise DataError(f"{name[:40]!r} is no future such as PF_XBTUSD")
    base, quote = glued(pair, DOLLARS)
    base = _KRAKEN.get(base, base)
    settle = quote if family in ("PF", "FF") else base
    return f"{base}/{quote}:{settle}-{day}" if day else f"{base}/{quote}:{settle}"


def kraken_pair(instrument: str) -> str:
    """`BTC/USD` → `XBTUSD`, as Kraken's REST asks for it."""
    base, quote, _ = split(instrument)
    return _KRAKEN_BACK.get(base, base) + _KRAKEN_BACK.get(quote, quote)
