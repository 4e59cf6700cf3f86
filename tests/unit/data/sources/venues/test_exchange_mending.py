"""What a venue did not send by itself: sizes of contracts, candles and trades that were missed, books after a lost connection."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from cryptoalpha.core.streamed import Book, Liquidation, Trade
from cryptoalpha.core.time import MILLISECOND
from cryptoalpha.core.values import Bar
from cryptoalpha.data.sources.exchange import ExchangeSource, open_source
from cryptoalpha.data.sources.exchange_config import ExchangeSection
from cryptoalpha.data.sources.market_reader import MarketReader
from cryptoalpha.data.sources.opening import Tools
from cryptoalpha.store.state.sqlite_state import SqliteState


def test_contracts_are_known_before_the_first_message_is_read(publisher, listening, until):
    """OKX counts perpetuals in contracts: their size is asked for first, again if that fails, and every recording begins with it."""
    lines: list[tuple[str, bytes]] = []
    closed = {"instId": "BTC-USDT-SWAP", "details": [{"side": "sell", "bkPx": "98.5", "sz": "3", "ts": "1700000000000"}]}
    trade = {"instId": "BTC-USDT-SWAP", "tradeId": "7", "px": "100.5", "sz": "200", "side": "sell", "ts": "1700000000000"}
    sizes = {"code": "0", "msg": "", "data": [{"instId": "BTC-USDT-SWAP", "ctVal": "0.01", "ctMult": "1"}]}

    async def story() -> Any:
        async with publisher() as fake, SqliteState(None) as state:
            fake.answers("/www.okx.com/api/v5/public/instruments", fake.Reply(status=500), fake.Reply(sizes, cut=30), fake.Reply(sizes))
            fake.talks(
                "/ws.okx.com/ws/v5/public",
                fake.Script([fake.Heard("liquidation-orders"), {"arg": {"channel": "liquidation-orders"}, "data": [closed]}]),
            )
            fake.talks(
                "/ws.okx.com/ws/v5/business", fake.Script([fake.Heard("trades-all"), {"arg": {"channel": "trades-all"}, "data": [trade]}])
            )
            section = ExchangeSection(
                venues=("okx",), streams=("trades", "liquidations"), instruments=("BTC/USDT:USDT",), endpoint=fake.url, retry_seconds=0.01
            )
            tools = Tools(state=state, record=lambda channel, moment, raw: lines.append((channel, raw)))
            (source,) = open_source(section, tools)
            async with listening(source) as heard:
                await until(lambda: len(heard.values(Trade)) == 1 and len(heard.values(Liquidation)) == 1, "both")
            assert json.loads(fake.said[0])["op"] == "subscribe"
            return heard

    heard = asyncio.run(story())
    assert [trade.amount for trade in heard.values(Trade)] == [2.0]
    assert [closed.amount for closed in heard.values(Liquidation)] == [0.03]
    for family in ("trades", "liquidations"):
        reader = MarketReader("okx")
        again = [e.value() for channel, raw in lines if channel == f"okx.{family}" for e in reader.read(raw, 1_700_000_100_000_000_000)]
        assert [value.amount for value in again if isinstance(value, Trade | Liquidation)] in ([2.0], [0.03])


def test_bars_that_were_missed_are_asked_for_where_the_venue_has_them(publisher, listening, until):
    opens = [1_700_000_040_000 + 60_000 * k for k in range(5)]

    def candle(opened: int) -> dict[str, Any]:
        row = {"start": opened, "end": opened + 59_999, "interval": "1", "open": "100", "close": "101", "high": "102", "low": "99"}
        message = {**row, "volume": "7", "turnover": "1", "confirm": True, "timestamp": opened + 60_000}
        return {"topic": "kline.1.BTCUSDT", "type": "snapshot", "ts": opened + 60_000, "data": [message]}

    async def story() -> Any:
        async with publisher() as fake, SqliteState(None) as state:
            fake.talks("/stream.bybit.com/v5/public/spot", fake.Script([fake.Heard("kline.1.BTCUSDT"), candle(opens[0]), candle(opens[4])]))

            def rows(asked: Any) -> Any:
                found = [o for o in opens if int(asked.query["start"]) <= o <= int(asked.query["end"])]
                return fake.Reply(
                    {
                        "retCode": 0,
                        "retMsg": "OK",
                        "result": {"list": [[str(o), "100", "102", "99", "101", "7", "0"] for o in reversed(found)]},
                    }
                )

            fake.answers("/api.bybit.com/v5/market/kline", rows)
            section = ExchangeSection(venues=("bybit",), streams=("bars",), instruments=("BTC/USDT",), endpoint=fake.url)
            (source,) = open_source(section, Tools(state=state))
            async with listening(source) as heard:
                await until(lambda: len(heard.values(Bar)) == 5, "five candles")
            assert len(fake.requests("/api.bybit.com/v5/market/kline")) == 1
            return heard

    heard = asyncio.run(story())
    assert sorted(bar.happened_at // MILLISECOND for bar in heard.values(Bar)) == opens
    assert len(set(heard.ids())) == 5


def test_trades_that_the_venue_does_not_give_back_are_counted_and_nothing_else_waits_for_them(publisher, listening, until):
    def trade(symbol: str, number: int) -> dict[str, Any]:
        row = {"a": number, "p": "1", "q": "2", "f": 1, "l": 1, "T": 1_700_000_000_000, "m": True}
        return {"stream": f"{symbol.lower()}@aggTrade", "data": {"e": "aggTrade", "E": 1_700_000_000_000, "s": symbol, **row}}

    async def story() -> ExchangeSource:
        async with publisher() as fake, SqliteState(None) as state:

            def answer(asked: Any) -> Any:
                if asked.query["symbol"] == "BTCUSDT":
                    return fake.Reply({"code": -1121, "msg": "Invalid symbol."}, status=400)
                return fake.Reply([trade("ETHUSDT", n)["data"] for n in range(int(asked.query["fromId"]), 20)])

            fake.answers("/api.binance.com/api/v3/aggTrades", answer)
            numbers = [("BTCUSDT", 10), ("ETHUSDT", 10), ("BTCUSDT", 15), ("ETHUSDT", 20)]
            fake.talks("/stream.binance.com/stream", fake.Script([trade(*one) for one in numbers]))
            section = ExchangeSection(venues=("binance",), streams=("trades",), instruments=("BTC/USDT", "ETH/USDT"), endpoint=fake.url)
            (source,) = open_source(section, Tools(state=state))
            async with listening(source) as heard:
                await until(lambda: len(heard.values(Trade)) == 2 + 11, "what can be had")
                await until(lambda: source.reader.tape("BTC/USDT").lost == 4, "the rest given up")
            assert len([asked for asked in fake.asked if asked.query.get("symbol") == "BTCUSDT"]) == 1
            return source

    source = asyncio.run(story())
    assert not source.reader.tape("BTC/USDT").holes
    assert source.reader.tape("ETH/USDT").lost == 0


def test_a_book_without_numbers_is_not_shown_between_a_lost_connection_and_its_next_whole(publisher, listening, until):
    def book(kind: str, number: int, *bids: tuple[str, str]) -> dict[str, Any]:
        when = "2023-11-14T22:13:20Z"
        updates = [{"side": "bid", "event_time": when, "price_level": price, "new_quantity": amount} for price, amount in bids]
        return {"channel": "l2_data", "sequence_num": number, "events": [{"type": kind, "product_id": "BTC-USD", "updates": updates}]}

    async def story() -> Any:
        async with publisher() as fake, SqliteState(None) as state:
            fake.talks(
                "/advanced-trade-ws.coinbase.com",
                fake.Script([book("snapshot", 0, ("99", "1")), book("update", 1, ("98", "1")), fake.Pause(20)], then="drop"),
                fake.Script([book("update", 0, ("97", "1")), book("snapshot", 1, ("96", "1")), book("update", 2, ("95", "1"))]),
            )
            section = ExchangeSection(
                venues=("coinbase",), streams=("books",), instruments=("BTC/USD",), endpoint=fake.url, retry_seconds=0.01
            )
            (source,) = open_source(section, Tools(state=state))
            async with listening(source) as heard:
                await until(lambda: len(heard.values(Book)) >= 4, "four states")
            return heard

    heard = asyncio.run(story())
    assert [tuple(price for price, _ in book.bids) for book in heard.values(Book)] == [(99.0,), (99.0, 98.0), (96.0,), (96.0, 95.0)]
