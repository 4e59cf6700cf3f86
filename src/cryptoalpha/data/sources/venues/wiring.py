"""Where each venue is asked, and how: sockets and what is said over them, and questions over REST that fill what a socket lost.

Everything here is public and needs no key. A family of streams (`trades`, `quotes`, `books`, `bars`, `funding`, `liquidations`) has a
socket of its own where the venue lets it, so that one that dies takes no other along. What a venue does not have is left out.

Sources: the venues' documentation; addresses, channels and questions agree with those of ccxt 4.5.90.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import msgspec

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.time import MILLISECOND, MINUTE, parse_interval
from cryptoalpha.data.sources.venues import names
from cryptoalpha.data.sources.venues.tape import Hole

Family = Literal["trades", "quotes", "books", "bars", "funding", "liquidations"]


@dataclass(frozen=True)
class Plan:
    """One socket."""

    family: Family
    address: str
    says: tuple[str, ...] = ()
    """Sent when it is open."""
    ping: str = ""
    """Sent every `ping_seconds` where the venue wants words; empty: the protocol's own pings."""
    ping_seconds: float = 20.0


@dataclass(frozen=True)
class Question:
    """One request over REST."""

    kind: str
    subject: str
    """The venue's symbol, as its reader takes it."""
    address: str
    weight: float = 1.0
    """What it costs of the request budget."""


class Wiring(Protocol):
    """How one venue is asked."""

    families: tuple[Family, ...]
    """What it streams, in public."""

    def instrument(self, traded: str) -> str:
        """What this venue lists for an instrument that is traded: itself, the perpetual of the same pair, or nothing (empty)."""
        ...

    def plans(self, families: Sequence[Family], instruments: Sequence[str], interval: str) -> list[Plan]:
        """The sockets that bring these families."""
        ...

    def book(self, instrument: str) -> Question | None:
        """A whole book; None where the socket brings one whenever it is opened."""
        ...

    def trades(self, instrument: str, hole: Hole) -> Question | None:
        """Trades out of a hole, as many as one answer holds."""
        ...

    def recent(self, instrument: str) -> Question | None:
        """The newest trades, where holes cannot be told."""
        ...

    def bars(self, instrument: str, interval: str, hole: Hole) -> Question | None:
        """Candles out of a hole."""
        ...

    def settled(self, instrument: str) -> Question | None:
        """Funding rates that were settled."""
        ...

    def preparations(self, instruments: Sequence[str]) -> list[Question]:
        """What must be known before the first message can be read."""
        ...


class _Plain:
    """What most venues have not."""

    families: tuple[Family, ...] = ()

    def instrument(self, traded: str) -> str:
        return "" if names.split(traded)[2] else traded

    def book(self, instrument: str) -> Question | None:
        return None

    def trades(self, instrument: str, hole: Hole) -> Question | None:
        return None

    def recent(self, instrument: str) -> Question | None:
        return None

    def bars(self, instrument: str, interval: str, hole: Hole) -> Question | None:
        return None

    def settled(self, instrument: str) -> Question | None:
        return None

    def preparations(self, instruments: Sequence[str]) -> list[Question]:
        return []


def _perpetual(traded: str) -> str:
    base, quote, settle = names.split(traded)
    return traded if settle else f"{base}/{quote}:{quote}"


def _text(value: object) -> str:
    return msgspec.json.encode(value).decode()


class _Binance(_Plain):
    def __init__(self, *, perpetuals: bool) -> None:
        self._perpetuals = perpetuals
        self._rest = "https://fapi.binance.com/fapi/v1" if perpetuals else "https://api.binance.com/api/v3"
        self._socket = "wss://fstream.binance.com/stream" if perpetuals else "wss://stream.binance.com:9443/stream"
        spot: tuple[Family, ...] = ("trades", "quotes", "books", "bars")
        self.families = (*spot, "funding", "liquidations") if perpetuals else spot

    def instrument(self, traded: str) -> str:
        return _perpetual(traded) if self._perpetuals else super().instrument(traded)

    def plans(self, families: Sequence[Family], instruments: Sequence[str], interval: str) -> list[Plan]:
        channels: dict[Family, str] = {
            "trades": "aggTrade",
            "quotes": "bookTicker",
            "books": "depth@100ms",
            "bars": f"kline_{interval}",
            "funding": "markPrice",
            "liquidations": "forceOrder",
        }
        symbols = [_glued(name).lower() for name in instruments]
        return [
            Plan(family, f"{self._socket}?streams={'/'.join(f'{symbol}@{channels[family]}' for symbol in symbols)}") for family in families
        ]

    def book(self, instrument: str) -> Question | None:
        symbol = _glued(instrument)
        weight = 20.0 if self._perpetuals else 50.0
        return Question("book", symbol, f"{self._rest}/depth?symbol={symbol}&limit=1000", weight)

    def trades(self, instrument: str, hole: Hole) -> Question | None:
        symbol, most = _glued(instrument), min(hole.last - hole.first + 1, 1000)
        weight = 20.0 if self._perpetuals else 4.0
        return Question("trades", symbol, f"{self._rest}/aggTrades?symbol={symbol}&fromId={hole.first}&limit={most}", weight)

    def bars(self, instrument: str, interval: str, hole: Hole) -> Question | None:
        symbol, length = _glued(instrument), parse_interval(interval)
        first, end, most = hole.first * length // MILLISECOND, hole.last * length // MILLISECOND, min(hole.last - hole.first + 1, 1000)
        address = f"{self._rest}/klines?symbol={symbol}&interval={interval}&startTime={first}&endTime={end}&limit={most}"
        return Question(f"bars.{interval}", symbol, address, 5.0)

    def settled(self, instrument: str) -> Question | None:
        symbol = _glued(instrument)
        return Question("settled", symbol, f"{self._rest}/fundingRate?symbol={symbol}&limit=10") if self._perpetuals else None


class _Bybit(_Plain):
    def __init__(self, *, perpetuals: bool) -> None:
        self._perpetuals = perpetuals
        self._market = "linear" if perpetuals else "spot"
        # one book for all: its best quote is topic `orderbook` too, of another depth, and would be mistaken for changes of this one
        spot: tuple[Family, ...] = ("trades", "books", "bars")
        self.families = (*spot, "funding", "liquidations") if perpetuals else spot

    def instrument(self, traded: str) -> str:
        return _perpetual(traded) if self._perpetuals else super().instrument(traded)

    def plans(self, families: Sequence[Family], instruments: Sequence[str], interval: str) -> list[Plan]:
        topics: dict[Family, str] = {
            "trades": "publicTrade",
            "books": "orderbook.50",
            "bars": f"kline.{_bybit_interval(interval)}",
            "funding": "tickers",
            "liquidations": "allLiquidation",
        }
        address, plans = f"wss://stream.bybit.com/v5/public/{self._market}", []
        for family in families:
            wanted = [f"{topics[family]}.{_glued(name)}" for name in instruments]
            says = tuple(_text({"op": "subscribe", "args": wanted[k : k + 10]}) for k in range(0, len(wanted), 10))
            plans.append(Plan(family, address, says, '{"op":"ping"}'))
        return plans

    def bars(self, instrument: str, interval: str, hole: Hole) -> Question | None:
        symbol, length = _glued(instrument), parse_interval(interval)
        first, end = hole.first * length // MILLISECOND, min(hole.last, hole.first + 999) * length // MILLISECOND
        asked = f"category={self._market}&symbol={symbol}&interval={_bybit_interval(interval)}&start={first}&end={end}&limit=1000"
        return Question(f"bars.{interval}", symbol, f"https://api.bybit.com/v5/market/kline?{asked}")

    def recent(self, instrument: str) -> Question | None:
        symbol, most = _glued(instrument), 1000 if self._perpetuals else 60
        address = f"https://api.bybit.com/v5/market/recent-trade?category={self._market}&symbol={symbol}&limit={most}"
        return Question("trades", symbol, address)

    def settled(self, instrument: str) -> Question | None:
        symbol = _glued(instrument)
        address = f"https://api.bybit.com/v5/market/funding/history?category=linear&symbol={symbol}&limit=10"
        return Question("settled", symbol, address) if self._perpetuals else None


class _Okx(_Plain):
    families: tuple[Family, ...] = ("trades", "quotes", "books", "bars", "funding", "liquidations")

    def instrument(self, traded: str) -> str:
        names.split(traded)
        return traded

    def plans(self, families: Sequence[Family], instruments: Sequence[str], interval: str) -> list[Plan]:
        candle = _okx_interval(interval)
        channels: dict[Family, str] = {
            "trades": "trades-all",
            "quotes": "bbo-tbt",
            "books": "books",
            "bars": f"candle{candle}",
            "funding": "funding-rate",
        }
        plans = []
        for family in families:
            room = "business" if family in ("trades", "bars") else "public"
            if family == "liquidations":
                wanted = [{"channel": "liquidation-orders", "instType": "SWAP"}] if any(":" in name for name in instruments) else []
            else:
                wanted = [{"channel": channels[family], "instId": _okx(name)} for name in instruments if family != "funding" or ":" in name]
            if wanted:
                says = (_text({"op": "subscribe", "args": wanted}),)
                plans.append(Plan(family, f"wss://ws.okx.com:8443/ws/v5/{room}", says, "ping"))
        return plans

    def trades(self, instrument: str, hole: Hole) -> Question | None:
        symbol = _okx(instrument)
        address = f"https://www.okx.com/api/v5/market/history-trades?instId={symbol}&type=1&after={hole.last + 1}&limit=100"
        return Question("trades", symbol, address)

    def bars(self, instrument: str, interval: str, hole: Hole) -> Question | None:
        symbol, length = _okx(instrument), parse_interval(interval)
        after, before = (hole.last + 1) * length // MILLISECOND, (hole.first - 1) * length // MILLISECOND
        asked = f"instId={symbol}&bar={_okx_interval(interval)}&after={after}&before={before}&limit=100"
        return Question(f"bars.{interval}", symbol, f"https://www.okx.com/api/v5/market/history-candles?{asked}")

    def settled(self, instrument: str) -> Question | None:
        symbol = _okx(instrument)
        address = f"https://www.okx.com/api/v5/public/funding-rate-history?instId={symbol}&limit=10"
        return Question("settled", symbol, address) if ":" in instrument else None

    def preparations(self, instruments: Sequence[str]) -> list[Question]:
        if not any(":" in name for name in instruments):
            return []
        return [Question("contracts", "", "https://www.okx.com/api/v5/public/instruments?instType=SWAP")]


class _Kraken(_Plain):
    families: tuple[Family, ...] = ("trades", "quotes", "books", "bars")

    def plans(self, families: Sequence[Family], instruments: Sequence[str], interval: str) -> list[Plan]:
        minutes = parse_interval(interval) // MINUTE
        asked: dict[Family, dict[str, object]] = {
            "trades": {"channel": "trade", "snapshot": False},
            "quotes": {"channel": "ticker", "event_trigger": "bbo"},
            "books": {"channel": "book", "depth": 100},
            "bars": {"channel": "ohlc", "interval": minutes},
        }
        plans = []
        for family in families:
            says = _text({"method": "subscribe", "params": {**asked[family], "symbol": list(instruments)}})
            plans.append(Plan(family, "wss://ws.kraken.com/v2", (says,), '{"method":"ping"}'))
        return plans

    def trades(self, instrument: str, hole: Hole) -> Question | None:
        address = f"https://api.kraken.com/0/public/Trades?pair={names.kraken_pair(instrument)}&since={hole.since}"
        return Question("trades", instrument, address)


class _Coinbase(_Plain):
    families: tuple[Family, ...] = ("trades", "quotes", "books")  # its candles do not say when they are complete

    def plans(self, families: Sequence[Family], instruments: Sequence[str], interval: str) -> list[Plan]:
        channels: dict[Family, str] = {"trades": "market_trades", "quotes": "ticker", "books": "level2"}
        products, plans = [_dashed(name) for name in instruments], []
        for family in families:
            says = tuple(
                _text({"type": "subscribe", "product_ids": products, "channel": channel}) for channel in (channels[family], "heartbeats")
            )
            plans.append(Plan(family, "wss://advanced-trade-ws.coinbase.com", says))
        return plans

    def trades(self, instrument: str, hole: Hole) -> Question | None:
        product = _dashed(instrument)
        return Question("trades", product, f"https://api.exchange.coinbase.com/products/{product}/trades?after={hole.last + 1}&limit=1000")


class _Bitstamp(_Plain):
    families: tuple[Family, ...] = ("trades", "books")

    def plans(self, families: Sequence[Family], instruments: Sequence[str], interval: str) -> list[Plan]:
        channels: dict[Family, str] = {"trades": "live_trades", "books": "diff_order_book"}
        plans = []
        for family in families:
            wanted = [f"{channels[family]}_{_glued(name).lower()}" for name in instruments]
            says = tuple(_text({"event": "bts:subscribe", "data": {"channel": channel}}) for channel in wanted)
            plans.append(Plan(family, "wss://ws.bitstamp.net", says, '{"event":"bts:heartbeat"}'))
        return plans

    def book(self, instrument: str) -> Question | None:
        pair = _glued(instrument).lower()
        return Question("book", pair, f"https://www.bitstamp.net/api/v2/order_book/{pair}/")

    def recent(self, instrument: str) -> Question | None:
        pair = _glued(instrument).lower()
        return Question("trades", pair, f"https://www.bitstamp.net/api/v2/transactions/{pair}/?time=hour")


def _glued(instrument: str) -> str:
    base, quote, _ = names.split(instrument)
    return base + quote


def _dashed(instrument: str) -> str:
    base, quote, _ = names.split(instrument)
    return f"{base}-{quote}"


def _okx(instrument: str) -> str:
    return _dashed(instrument) + ("-SWAP" if ":" in instrument else "")


def _bybit_interval(interval: str) -> str:
    minutes = parse_interval(interval) // MINUTE
    return {1440: "D", 10080: "W"}.get(minutes, str(minutes))


def _okx_interval(interval: str) -> str:
    """Days and weeks by UTC: plain ones begin in Hong Kong."""
    unit = {"h": "H", "d": "Dutc", "w": "Wutc"}.get(interval[-1], interval[-1])
    return interval[:-1] + unit


_WIRINGS: dict[str, Wiring] = {
    "binance": _Binance(perpetuals=False),
    "binanceusdm": _Binance(perpetuals=True),
    "bybit": _Bybit(perpetuals=False),
    "bybitlinear": _Bybit(perpetuals=True),
    "okx": _Okx(),
    "kraken": _Kraken(),
    "coinbase": _Coinbase(),
    "bitstamp": _Bitstamp(),
}
WIRED = tuple(_WIRINGS)
"""Venues that can be listened to live."""


def wiring_of(venue: str) -> Wiring:
    """Raises ConfigError where a venue cannot be listened to."""
    if venue not in _WIRINGS:
        raise ConfigError(f"{venue!r} is no venue we can listen to", hint=f"choose of {', '.join(WIRED)}")
    return _WIRINGS[venue]
