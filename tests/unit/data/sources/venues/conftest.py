"""One message of every kind that every venue sends, in its own words, made up; and listening to an exchange source."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from cryptoalpha.data.sources.contract import Arrival
from cryptoalpha.data.sources.exchange import ExchangeSource

T = 1_700_000_000_000
_LEVELS = [["99.5", "2.5"], ["99.4", "0"]]


def _binance(*, perpetual: bool) -> list[Any]:
    def stream(name: str, data: Any) -> dict[str, Any]:
        return {"stream": f"btcusdt@{name}", "data": data}

    candle = {"t": T, "T": T + 59_999, "s": "BTCUSDT", "i": "1m", "o": "100", "c": "101", "h": "102", "l": "99", "v": "7", "x": True}
    depth = {"e": "depthUpdate", "E": T, "s": "BTCUSDT", "U": 5, "u": 9, "b": _LEVELS, "a": [["100.5", "1"]]}
    quote = {"u": 9, "s": "BTCUSDT", "b": "99.5", "B": "2.5", "a": "100.5", "A": "1"}
    trade = {"e": "trade", "E": T, "s": "BTCUSDT", "t": 7, "p": "100.5", "q": "0.25", "T": T, "m": True}
    joined = {"e": "aggTrade", "E": T, "s": "BTCUSDT", "a": 8, "p": "100.5", "q": "0.25", "f": 7, "l": 7, "T": T, "m": False}
    order = {
        "s": "BTCUSDT",
        "S": "SELL",
        "o": "LIMIT",
        "f": "IOC",
        "q": "3",
        "p": "98",
        "ap": "98.5",
        "X": "FILLED",
        "l": "3",
        "z": "3",
        "T": T,
    }
    found = [
        stream("trade", trade),
        trade,
        stream("aggTrade", joined),
        stream("bookTicker", {**quote, "T": T, "E": T} if perpetual else quote),
        quote,
        stream("depth@100ms", {**depth, "T": T, "pu": 4} if perpetual else depth),
        stream("kline_1m", {"e": "kline", "E": T + 60_000, "s": "BTCUSDT", "k": candle}),
        {"lastUpdateId": 4, "bids": _LEVELS[:1], "asks": [["100.5", "1"]]},
        {"result": None, "id": 1},
        {"error": {"code": 2, "msg": "Invalid request"}, "id": 1},
        {"answer": "trades", "subject": "BTCUSDT", "data": [{k: joined[k] for k in ("a", "p", "q", "f", "l", "T", "m")}]},
        {"answer": "book", "subject": "BTCUSDT", "data": {"lastUpdateId": 4, "bids": _LEVELS[:1], "asks": []}},
        {"answer": "bars.1m", "subject": "BTCUSDT", "data": [[T, "100", "102", "99", "101", "7", T + 59_999, "0", 3, "1", "1", "0"]]},
    ]
    if perpetual:
        found += [
            stream("markPrice", {"e": "markPriceUpdate", "E": T, "s": "BTCUSDT", "p": "100", "r": "0.0001", "T": T + 28_800_000}),
            stream("markPrice", {"e": "markPriceUpdate", "E": T, "s": "BTCUSDT_240329", "p": "100", "r": "", "T": 0}),
            stream("forceOrder", {"e": "forceOrder", "E": T, "o": order}),
            {"answer": "settled", "subject": "BTCUSDT", "data": [{"symbol": "BTCUSDT", "fundingTime": T, "fundingRate": "0.0002"}]},
        ]
    return found


def _kraken() -> list[Any]:
    when = "2023-11-14T22:13:20.123456Z"
    book = {"symbol": "BTC/USD", "bids": [{"price": 99.5, "qty": 2.50}], "asks": [], "checksum": 3310070434, "timestamp": when}
    ohlc = {"symbol": "BTC/USD", "open": 100, "high": 102.0, "low": 99, "close": 101, "volume": 7, "interval": 1}
    return [
        {
            "channel": "trade",
            "type": "update",
            "data": [
                {"symbol": "BTC/USD", "side": "sell", "price": 100.5, "qty": 0.25, "ord_type": "limit", "trade_id": 7, "timestamp": when}
            ],
        },
        {
            "channel": "ticker",
            "type": "update",
            "data": [{"symbol": "BTC/USD", "bid": 99.5, "bid_qty": 2.5, "ask": 100.5, "ask_qty": 1, "last": 1}],
        },
        {"channel": "book", "type": "snapshot", "data": [book]},
        {"channel": "book", "type": "update", "data": [{**book, "bids": [{"price": 99.4, "qty": 0.0}]}]},
        {
            "channel": "ohlc",
            "type": "snapshot",
            "data": [{**ohlc, "interval_begin": f"2023-11-14T22:1{minute}:00.000000000Z"} for minute in (3, 4)],
        },
        {"channel": "heartbeat"},
        {"method": "subscribe", "success": True, "result": {"channel": "trade"}},
        {"method": "subscribe", "success": False, "error": "Currency pair not supported"},
        {"method": "pong", "time_in": when, "time_out": when},
        [1, [["100.5", "0.25", "1700000000.123456", "s", "l", ""]], "trade", "XBT/USD"],
        [1, {"a": ["100.5", 1, "1.5"], "b": ["99.5", 2, "2.5"]}, "ticker", "XBT/USD"],
        [1, {"as": [["100.5", "1.0", "1700000000.1"]], "bs": [["99.5", "2.5", "1700000000.1"]]}, "book-10", "XBT/USD"],
        [1, {"a": [["100.5", "0.0", "1700000000.2", "r"]]}, {"b": [["99.4", "1.0", "1700000000.3"]], "c": "123"}, "book-10", "XBT/USD"],
        {"event": "systemStatus", "status": "online"},
        {"event": "subscriptionStatus", "status": "error", "errorMessage": "Currency pair not supported"},
        {
            "answer": "trades",
            "subject": "BTC/USD",
            "data": {"error": [], "result": {"XXBTZUSD": [["100.5", "0.25", 1700000000.5, "b", "l", "", 8]], "last": "1"}},
        },
    ]


def _coinbase() -> list[Any]:
    when = "2023-11-14T22:13:20.123456Z"
    match = {"trade_id": 7, "side": "sell", "size": "0.25", "price": "100.5", "time": when}
    level = {"side": "bid", "event_time": when, "price_level": "99.5", "new_quantity": "2.5"}
    trade = {"trade_id": "8", "product_id": "BTC-USD", "price": "100.5", "size": "0.25", "side": "SELL", "time": when}
    candle = {"start": "1699999800", "high": "102", "low": "99", "open": "100", "close": "101", "volume": "7", "product_id": "BTC-USD"}
    quote = {"product_id": "BTC-USD", "best_bid": "99.5", "best_bid_quantity": "2.5", "best_ask": "100.5", "best_ask_quantity": "1"}

    def advanced(channel: str, number: int, *events: Any) -> dict[str, Any]:
        return {"channel": channel, "client_id": "", "timestamp": when, "sequence_num": number, "events": list(events)}

    return [
        {"type": "match", "product_id": "BTC-USD", "sequence": 5, **match},
        {"type": "ticker", "product_id": "BTC-USD", "sequence": 6, "price": "100.5", "best_bid": "99.5", "best_ask": "100.5", "time": when},
        {"type": "snapshot", "product_id": "BTC-USD", "bids": _LEVELS[:1], "asks": [["100.5", "1"]]},
        {"type": "l2update", "product_id": "BTC-USD", "changes": [["buy", "99.4", "1"], ["sell", "100.5", "0"]], "time": when},
        {"type": "subscriptions", "channels": []},
        {"type": "error", "message": "Failed to subscribe", "reason": "no such product"},
        advanced("market_trades", 0, {"type": "update", "trades": [trade]}),
        advanced(
            "l2_data",
            1,
            {"type": "snapshot", "product_id": "BTC-USD", "updates": [level, {**level, "side": "offer", "price_level": "100.5"}]},
        ),
        advanced("ticker", 2, {"type": "update", "tickers": [quote]}),
        advanced("candles", 3, {"type": "update", "candles": [candle]}),
        advanced("heartbeats", 4, {"current_time": when, "heartbeat_counter": 1}),
        {"answer": "trades", "subject": "BTC-USD", "data": [{**match, "trade_id": 9}]},
    ]


def _bitstamp() -> list[Any]:
    moment = str(T * 1000)
    return [
        {
            "event": "trade",
            "channel": "live_trades_btcusd",
            "data": {"id": 7, "price": 100.5, "amount": 0.25, "type": 1, "microtimestamp": moment},
        },
        {"event": "data", "channel": "diff_order_book_btcusd", "data": {"microtimestamp": moment, "bids": _LEVELS, "asks": []}},
        {"event": "bts:subscription_succeeded", "channel": "live_trades_btcusd", "data": {}},
        {"event": "bts:error", "channel": "", "data": {"code": None, "message": "Bad subscription string."}},
        {"event": "bts:request_reconnect", "channel": "", "data": ""},
        {
            "answer": "book",
            "subject": "btcusd",
            "data": {"timestamp": "1", "microtimestamp": moment, "bids": _LEVELS[:1], "asks": [["100.5", "1"]]},
        },
        {
            "answer": "trades",
            "subject": "btcusd",
            "data": [{"date": "1700000000", "tid": "8", "amount": "0.25", "type": "0", "price": "100.5"}],
        },
    ]


def _bybit(*, perpetual: bool) -> list[Any]:
    def topic(name: str, data: Any, kind: str = "snapshot") -> dict[str, Any]:
        return {"topic": name, "type": kind, "ts": T, "data": data}

    candle = {"start": T, "end": T + 59_999, "interval": "1", "open": "100", "close": "101", "high": "102", "low": "99", "volume": "7"}
    rest = {"execId": "b", "symbol": "BTCUSDT", "price": "100.5", "size": "0.25", "side": "Buy", "time": str(T)}
    found = [
        topic("publicTrade.BTCUSDT", [{"T": T, "s": "BTCUSDT", "S": "Sell", "v": "0.25", "p": "100.5", "i": "a", "BT": False}]),
        topic("orderbook.50.BTCUSDT", {"s": "BTCUSDT", "b": _LEVELS[:1], "a": [["100.5", "1"]], "u": 4, "seq": 1}),
        topic("orderbook.50.BTCUSDT", {"s": "BTCUSDT", "b": [["99.4", "0"]], "a": [], "u": 5, "seq": 2}, "delta"),
        topic("kline.1.BTCUSDT", [{**candle, "turnover": "1", "confirm": True, "timestamp": T + 60_000}]),
        {"success": True, "ret_msg": "", "op": "subscribe"},
        {"success": False, "ret_msg": "Invalid topic", "op": "subscribe"},
        {"success": True, "ret_msg": "pong", "op": "ping"},
        {"answer": "trades", "subject": "BTCUSDT", "data": {"retCode": 0, "retMsg": "OK", "result": {"list": [rest]}}},
        {
            "answer": "bars.1m",
            "subject": "BTCUSDT",
            "data": {"retCode": 0, "retMsg": "OK", "result": {"list": [[str(T), "100", "102", "99", "101", "7", "0"]]}},
        },
    ]
    if perpetual:
        settled = {"symbol": "BTCUSDT", "fundingRate": "0.0002", "fundingRateTimestamp": str(T)}
        found += [
            topic("tickers.BTCUSDT", {"symbol": "BTCUSDT", "fundingRate": "0.0001", "nextFundingTime": str(T + 28_800_000)}),
            topic("tickers.BTCUSDT", {"symbol": "BTCUSDT", "lastPrice": "100"}, "delta"),
            topic("allLiquidation.BTCUSDT", [{"T": T, "s": "BTCUSDT", "S": "Buy", "v": "3", "p": "98.5"}]),
            {"answer": "settled", "subject": "BTCUSDT", "data": {"retCode": 0, "retMsg": "OK", "result": {"list": [settled]}}},
        ]
    return found


def _okx() -> list[Any]:
    def channel(name: str, data: Any, instrument: str = "BTC-USDT", **more: Any) -> dict[str, Any]:
        return {"arg": {"channel": name, "instId": instrument}, **more, "data": data}

    trade = {"instId": "BTC-USDT", "tradeId": "7", "px": "100.5", "sz": "0.25", "side": "sell", "ts": str(T)}
    book = {"asks": [["100.5", "1", "0", "1"]], "bids": [["99.5", "2.5", "0", "1"]], "ts": str(T), "checksum": 0}
    funding = {"instId": "BTC-USDT-SWAP", "fundingRate": "0.0001", "fundingTime": str(T), "ts": str(T)}
    return [
        channel("trades-all", [trade]),
        channel("bbo-tbt", [{**book, "seqId": 9}]),
        channel("books", [{**book, "seqId": 4, "prevSeqId": -1}], action="snapshot"),
        channel("books", [{**book, "seqId": 5, "prevSeqId": 4}], action="update"),
        channel("candle1m", [[str(T), "100", "102", "99", "101", "7", "7", "700", "1"]]),
        channel("candle1m", [[str(T), "100", "102", "99", "101", "700", "7", "700", "1"]], "BTC-USDT-SWAP"),
        channel("funding-rate", [funding], "BTC-USDT-SWAP"),
        channel(
            "liquidation-orders", [{"instId": "BTC-USDT-SWAP", "details": [{"side": "sell", "bkPx": "98.5", "sz": "3", "ts": str(T)}]}], ""
        ),
        {"event": "subscribe", "arg": {"channel": "trades-all"}, "connId": "a"},
        {"event": "error", "code": "60012", "msg": "Invalid request", "connId": "a"},
        {"answer": "trades", "subject": "BTC-USDT", "data": {"code": "0", "msg": "", "data": [{**trade, "tradeId": "8"}]}},
        {
            "answer": "bars.1m",
            "subject": "BTC-USDT",
            "data": {"code": "0", "msg": "", "data": [[str(T), "100", "102", "99", "101", "7", "7", "0", "1"]]},
        },
        {"answer": "settled", "subject": "BTC-USDT-SWAP", "data": {"code": "0", "msg": "", "data": [funding]}},
        {
            "answer": "contracts",
            "subject": "",
            "data": {"code": "0", "data": [{"instId": "BTC-USDT-SWAP", "ctVal": "0.01", "ctMult": "1"}]},
        },
    ]


def _kraken_futures() -> list[Any]:
    trade = {
        "feed": "trade",
        "product_id": "PF_XBTUSD",
        "uid": "a",
        "side": "sell",
        "type": "liquidation",
        "seq": 1,
        "time": T,
        "qty": 0.25,
        "price": 100.5,
    }
    return [
        trade,
        {"feed": "trade_snapshot", "product_id": "PF_XBTUSD", "trades": [{**trade, "uid": "c", "time": T + 1}, {**trade, "uid": "b"}]},
        {
            "feed": "book_snapshot",
            "product_id": "PF_XBTUSD",
            "timestamp": T,
            "seq": 4,
            "bids": [{"price": 99.5, "qty": 2.5}],
            "asks": [{"price": 100.5, "qty": 1}],
        },
        {"feed": "book", "product_id": "PF_XBTUSD", "side": "buy", "seq": 5, "price": 99.4, "qty": 0, "timestamp": T},
        {
            "feed": "ticker",
            "product_id": "PF_XBTUSD",
            "time": T,
            "bid": 99.5,
            "ask": 100.5,
            "bid_size": 2.5,
            "ask_size": 1,
            "relative_funding_rate": 0.0001,
            "next_funding_rate_time": T,
        },
        {"event": "subscribed", "feed": "trade", "product_ids": ["PF_XBTUSD"]},
        {"event": "alert", "message": "Bad request"},
        {"feed": "heartbeat", "time": T},
    ]


@pytest.fixture(scope="session")
def samples() -> dict[str, list[bytes]]:
    """Messages by venue."""
    found = {
        "binance": _binance(perpetual=False),
        "binanceusdm": _binance(perpetual=True),
        "kraken": _kraken(),
        "krakenfutures": _kraken_futures(),
        "coinbase": _coinbase(),
        "bitstamp": _bitstamp(),
        "bybit": _bybit(perpetual=False),
        "bybitlinear": _bybit(perpetual=True),
        "okx": _okx(),
    }
    return {venue: [json.dumps(one, separators=(",", ":")).encode() for one in messages] for venue, messages in found.items()}


@dataclass
class Listener:
    """Gathers what a source brings."""

    arrivals: list[Arrival] = field(default_factory=list)

    def values(self, kind: type) -> list[Any]:
        return [value for one in self.arrivals for e in one.envelopes if isinstance(value := e.value(), kind)]

    def ids(self) -> list[str]:
        return [e.id for one in self.arrivals for e in one.envelopes]


@asynccontextmanager
async def _listening(source: ExchangeSource, position: str = "") -> AsyncIterator[Listener]:
    listener = Listener()

    async def gather() -> None:
        async with aclosing(source.arrivals(position)) as arrivals:  # type: ignore[type-var]
            async for arrival in arrivals:
                listener.arrivals.append(arrival)

    task = asyncio.create_task(gather())
    try:
        yield listener
    finally:
        await source.close()
        await asyncio.wait_for(task, 10)


async def _until(holds: Callable[[], bool], what: str, seconds: float = 15.0) -> None:
    end = asyncio.get_running_loop().time() + seconds
    while not holds():
        assert asyncio.get_running_loop().time() < end, f"never: {what}"
        await asyncio.sleep(0.01)


@pytest.fixture
def listening() -> Callable[..., Any]:
    """Listen to a source: `async with listening(source, position) as heard`."""
    return _listening


@pytest.fixture
def until() -> Callable[..., Any]:
    """Wait until something holds: `await until(lambda: …, "what")`."""
    return _until
