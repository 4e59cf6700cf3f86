"""A venue on loopback that loses, repeats, reorders and hangs up: what REST gives back is not lost, nothing comes twice, books agree."""

from __future__ import annotations

import asyncio
import bisect
import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from cryptoalpha.core.clock import SystemClock
from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.streamed import Book, Liquidation, Trade
from cryptoalpha.core.time import MILLISECOND
from cryptoalpha.core.values import Bar, ChainReading
from cryptoalpha.data.sources.exchange import ExchangeSource, open_source
from cryptoalpha.data.sources.exchange_config import ExchangeSection
from cryptoalpha.data.sources.market_reader import MarketReader
from cryptoalpha.data.sources.opening import Tools
from cryptoalpha.store.state.sqlite_state import SqliteState


@dataclass
class Market:
    """What truly happened at the venue, and what it does to those who listen."""

    random: random.Random
    faults: bool = True
    trades: list[dict[str, Any]] = field(default_factory=list)
    bids: dict[str, str] = field(default_factory=lambda: {f"{100 - k / 10:.2f}": f"{k + 1}.5" for k in range(1, 40)})
    asks: dict[str, str] = field(default_factory=lambda: {f"{100 + k / 10:.2f}": f"{k + 1}.5" for k in range(1, 40)})
    update: int = 1000
    states: dict[int, tuple[tuple[float, float], tuple[float, float]]] = field(default_factory=dict)
    candles: list[list[Any]] = field(default_factory=list)
    sockets: dict[str, list[web.WebSocketResponse]] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    told: Counter[str] = field(default_factory=Counter)
    held: list[tuple[str, str]] = field(default_factory=list)
    fail_next: Counter[str] = field(default_factory=Counter)
    port: int = 0

    async def say(self, family: str, data: dict[str, Any], *, sure: bool = False) -> None:
        """Send to everybody who listens to a family; now and then lose it, repeat it, swap it with the next, or hang up."""
        text = json.dumps({"stream": f"btcusdt@{family}", "data": data})
        chance = 1.0 if sure or not self.faults else self.random.random()
        if chance < 0.04:
            self.told["lost"] += 1
            return
        if chance < 0.08:
            self.told["swapped"] += 1
            self.held.append((family, text))
            return
        texts = [text, text] if chance < 0.12 else [text]
        self.told["repeated"] += len(texts) - 1
        texts += [held for name, held in self.held if name == family]
        self.held = [(name, held) for name, held in self.held if name != family]
        for socket in list(self.sockets.get(family, [])):
            for one in texts:
                if not socket.closed:
                    await socket.send_str(one)
        if chance > 0.985 and chance < 1.0:
            self.told["dropped"] += 1
            for socket in self.sockets.pop(family, []):
                await socket.close(code=1001)

    async def trade(self, *, sure: bool = False) -> None:
        number = len(self.trades) + 500
        price = f"{100 + self.random.uniform(-0.05, 0.05):.2f}"
        moment = SystemClock().now() // MILLISECOND
        row = {"a": number, "p": price, "q": "0.25", "f": number, "l": number, "T": moment, "m": bool(number % 2), "M": True}
        self.trades.append(row)
        await self.say("aggTrade", {"e": "aggTrade", "E": moment, "s": "BTCUSDT", **row}, sure=sure)

    async def depth(self, *, sure: bool = False) -> None:
        changed: dict[str, list[list[str]]] = {"b": [], "a": []}
        first = self.update + 1
        for side, sign in (("b", -1), ("a", 1)):
            levels = self.bids if side == "b" else self.asks
            for _ in range(self.random.randint(0, 2)):
                price = f"{100 + sign * self.random.randint(1, 60) / 10:.2f}"
                amount = self.random.choice(["0.00", "1.25", "7.75"])
                self.update += 1
                changed[side].append([price, amount])
                levels.pop(price, None)
                if float(amount):
                    levels[price] = amount
        if self.update < first:
            return
        best = [max((float(p), float(q)) for p, q in self.bids.items()), min((float(p), float(q)) for p, q in self.asks.items())]
        self.states[self.update] = (best[0], best[1])
        moment = SystemClock().now() // MILLISECOND
        data = {"e": "depthUpdate", "E": moment, "s": "BTCUSDT", "U": first, "u": self.update, **changed}
        await self.say("depth@100ms", data, sure=sure)

    async def candle(self, *, closed: bool = True) -> None:
        opened = 1_700_000_040_000 + 60_000 * len(self.candles)
        row = [opened, "100.0", "101.0", "99.0", "100.5", "3.0", opened + 59_999]
        self.candles.append(row)
        candle = {"t": opened, "T": opened + 59_999, "s": "BTCUSDT", "i": "1m", "o": "100.0", "h": "101.0", "l": "99.0", "c": "100.5"}
        await self.say("kline_1m", {"e": "kline", "E": opened + 60_000, "s": "BTCUSDT", "k": {**candle, "v": "3.0", "x": False}}, sure=True)
        await self.say("kline_1m", {"e": "kline", "E": opened + 60_000, "s": "BTCUSDT", "k": {**candle, "v": "3.0", "x": True}})


_MARKET = web.AppKey("market", Market)


async def _stream(request: web.Request) -> web.WebSocketResponse:
    market: Market = request.app[_MARKET]
    family = request.query["streams"].partition("@")[2]
    market.asked["connect " + family] += 1
    if market.fail_next["connect " + family]:
        market.fail_next["connect " + family] -= 1
        raise web.HTTPServiceUnavailable
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    market.sockets.setdefault(family, []).append(socket)
    async for _ in socket:
        pass
    if socket in market.sockets.get(family, []):
        market.sockets[family].remove(socket)
    return socket


async def _rest(request: web.Request) -> web.Response:
    market: Market = request.app[_MARKET]
    what = request.path.rpartition("/")[2]
    market.asked[what] += 1
    if market.fail_next[what]:
        market.fail_next[what] -= 1
        if market.fail_next[what] % 2:
            return web.Response(body=b'[{"a": 500, "p": "10', content_type="application/json")
        raise web.HTTPTooManyRequests(headers={"Retry-After": "0"})
    if what == "depth":
        levels = {"bids": list(map(list, market.bids.items())), "asks": list(map(list, market.asks.items()))}
        return web.json_response({"lastUpdateId": market.update, **levels})
    if what == "aggTrades":
        first, most = int(request.query["fromId"]), int(request.query["limit"])
        return web.json_response([row for row in market.trades if row["a"] >= first][: min(most, 7)])
    if what == "klines":
        return web.json_response(
            [row for row in market.candles if row[0] >= int(request.query["startTime"])][: int(request.query["limit"])]
        )
    raise web.HTTPNotFound


@asynccontextmanager
async def _venue(seed: int = 7, *, faults: bool = True) -> AsyncIterator[Market]:
    market = Market(random.Random(seed), faults)
    app = web.Application()
    app[_MARKET] = market
    app.router.add_get("/stream.binance.com/stream", _stream)
    app.router.add_get("/fstream.binance.com/stream", _stream)
    app.router.add_get("/{tail:.*}", _rest)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    market.port = runner.addresses[0][1]
    try:
        yield market
    finally:
        await runner.cleanup()


def _source(market: Market, state: Any, venue: str = "binance", **changes: Any) -> ExchangeSource:
    settings = {
        "streams": ("trades", "books", "bars"),
        "retry_seconds": 0.02,
        "retry_limit_seconds": 0.1,
        "requests_per_minute": 1e6,
        **changes,
    }
    section = ExchangeSection(venues=(venue,), endpoint=f"http://127.0.0.1:{market.port}", burst=10_000, **settings)
    (source,) = open_source(section, Tools(state=state, instruments=("BTC/USDT",)))
    return source


def test_nothing_is_lost_that_rest_gives_back_and_nothing_comes_twice(listening, until):
    async def story() -> None:
        async with _venue() as market, SqliteState(None) as state:
            source = _source(market, state)
            async with listening(source) as heard:
                await until(lambda: all(market.sockets.get(f) for f in ("aggTrade", "depth@100ms", "kline_1m")), "connected")
                await market.trade(sure=True)
                while not heard.values(Book):
                    await market.depth(sure=True)
                    await asyncio.sleep(0.01)
                market.fail_next.update({"aggTrades": 2, "depth": 2})
                step = 0
                while step < 400 or source.reader.books["BTC/USDT"].gaps < 3:
                    await market.trade()
                    await market.depth()
                    if step % 40 == 0:
                        await market.candle()
                    await asyncio.sleep(0.001)
                    step += 1
                    assert step < 5_000
                market.faults = False
                for family in ("aggTrade", "depth@100ms", "kline_1m"):
                    await until(lambda family=family: bool(market.sockets.get(family)), f"{family} connected again")
                await asyncio.sleep(0.05)
                await market.trade(sure=True)
                await market.candle()
                await market.depth(sure=True)
                await until(lambda: len(heard.values(Trade)) == len(market.trades), "all trades")
                await until(lambda: len(heard.values(Bar)) == len(market.candles), "all candles")
                for _ in range(5):
                    await market.depth(sure=True)
                    await asyncio.sleep(0.02)
                await until(lambda: heard.values(Book)[-1].sequence == market.update, "the newest book")
            assert market.told["lost"] > 10
            assert market.told["swapped"] > 10
            assert market.told["repeated"] > 10
            assert market.told["dropped"] > 2

            ids = heard.ids()
            assert len(ids) == len(set(ids)), [name for name, count in Counter(ids).items() if count > 1][:5]
            trades = {t.trade_id: t for t in heard.values(Trade)}
            assert {int(number) for number in trades} == {row["a"] for row in market.trades}
            for row in market.trades:
                trade = trades[str(row["a"])]
                assert (trade.price, trade.amount, trade.side) == (float(row["p"]), 0.25, "sell" if row["m"] else "buy")
            books = heard.values(Book)
            for book in books:  # every book that was shown is one that the venue truly had
                known = bisect.bisect_right(sorted(market.states), book.sequence) - 1
                assert (book.bids[0], book.asks[0]) == market.states[sorted(market.states)[known]]
            full = [tuple(sorted(((float(p), float(q)) for p, q in market.bids.items()), reverse=True))[:10]]
            assert books[-1].bids == full[0]
            assert not source.reader.tape("BTC/USDT").lost
            assert not any(arrival.dead for arrival in heard.arrivals)  # an answer that was cut is asked for again, not read

    asyncio.run(story())


def test_a_restart_goes_on_from_its_position_with_the_same_ids(listening, until):
    async def story() -> None:
        async with _venue(faults=False) as market, SqliteState(None) as state:
            async with listening(_source(market, state)) as first:
                await until(lambda: bool(market.sockets.get("aggTrade") and market.sockets.get("kline_1m")), "connected")
                await asyncio.gather(market.trade(), market.candle())
                await until(lambda: len(first.values(Trade)) == 1 and len(first.values(Bar)) == 1, "a trade and a candle")
            await until(lambda: not any(market.sockets.values()), "gone")
            for _ in range(30):
                await market.trade()  # nobody listens
            for _ in range(4):
                await market.candle()
            async with listening(_source(market, state), first.arrivals[-1].position) as second:
                await until(lambda: bool(market.sockets.get("aggTrade") and market.sockets.get("kline_1m")), "connected again")
                await market.trade()
                await market.candle()
                await until(lambda: len(second.values(Trade)) == 31 and len(second.values(Bar)) == 5, "what was missed")
            assert not set(first.ids()) & set(second.ids())
            opens = sorted(bar.happened_at // MILLISECOND for bar in first.values(Bar) + second.values(Bar))
            assert opens == [row[0] for row in market.candles]
            # what is fetched twice has the same ids
            await until(lambda: not any(market.sockets.values()), "gone")
            async with listening(_source(market, state), first.arrivals[-1].position) as third:
                await until(lambda: bool(market.sockets.get("aggTrade")), "connected once more")
                await market.trade()
                await until(lambda: len(third.values(Trade)) == 32, "what was missed")
            trades = {i for i in second.ids() if "/agg:" in i}
            assert trades < {i for i in third.ids() if "/agg:" in i}

    asyncio.run(story())


def test_one_stream_that_cannot_connect_stops_no_other(listening, until):
    async def story() -> None:
        async with _venue(faults=False) as market, SqliteState(None) as state:
            market.fail_next["connect depth@100ms"] = 10_000
            source = _source(market, state)
            async with listening(source) as heard:
                await until(lambda: bool(market.sockets.get("aggTrade")), "trades connected")
                for _ in range(5):
                    await market.trade()
                await until(lambda: len(heard.values(Trade)) == 5, "trades")
                await until(lambda: source.streams["books"].reconnects >= 3, "books tried again and again")
                assert source.streams["trades"].state == "connected"
                assert source.streams["books"].state == "waiting"
                assert source.health.state == "connected"
                assert "books" in source.health.reason
                assert "503" in source.health.reason
            assert not heard.values(Book)

    asyncio.run(story())


def test_perpetuals_bring_funding_and_liquidations_and_settled_rates_are_asked_for(listening, until):
    async def story() -> None:
        async with _venue(faults=False) as market, SqliteState(None) as state:
            source = _source(market, state, "binanceusdm", streams=("funding", "liquidations"), funding_seconds=0.05)
            async with listening(source) as heard:
                await until(lambda: bool(market.sockets.get("markPrice") and market.sockets.get("forceOrder")), "connected")
                mark = {"e": "markPriceUpdate", "E": 1_700_000_000_000, "s": "BTCUSDT", "p": "100", "T": 1_700_006_400_000}
                await market.say("markPrice", {**mark, "r": "0.00010000"})
                await market.say("markPrice", {**mark, "E": 1_700_000_003_000, "r": "0.00010000"})
                await market.say("markPrice", {**mark, "E": 1_700_000_006_000, "r": "0.00020000"})
                order = {"s": "BTCUSDT", "S": "SELL", "q": "2", "z": "1.5", "p": "99", "ap": "98.5", "T": 1_700_000_000_500}
                await market.say("forceOrder", {"e": "forceOrder", "E": 1_700_000_000_600, "o": order})
                await until(lambda: len(heard.values(Liquidation)) == 1 and len(heard.values(ChainReading)) == 2, "readings")
                await until(lambda: market.asked["fundingRate"] > 0, "settled rates asked for")
            (closed,) = heard.values(Liquidation)
            assert (closed.instrument, closed.side, closed.price, closed.amount) == ("BTC/USDT:USDT", "sell", 98.5, 1.5)
            assert [reading.value for reading in heard.values(ChainReading)] == [0.0001, 0.0002]
            assert {e.topic for one in heard.arrivals for e in one.envelopes} == {"market", "readings"}

    asyncio.run(story())


def test_what_was_recorded_live_is_read_again_into_the_same_envelopes(listening, until):
    lines: list[tuple[str, int, bytes]] = []

    async def story() -> list[Any]:
        async with _venue(seed=3) as market, SqliteState(None) as state:
            source = _source(market, state, streams=("trades", "books"))
            object.__setattr__(source._tools, "record", lambda channel, moment, raw: lines.append((channel, moment, raw)))
            async with listening(source) as heard:
                await until(lambda: bool(market.sockets.get("aggTrade") and market.sockets.get("depth@100ms")), "connected")
                for _ in range(60):
                    await market.trade()
                    await market.depth()
                    await asyncio.sleep(0.001)
                market.faults = False
                await until(lambda: bool(market.sockets.get("aggTrade")), "connected at the end")
                await market.trade(sure=True)
                await until(lambda: not source.reader.tape("BTC/USDT").holes and len(heard.values(Trade)) > 40, "trades mended")
            return [e for one in heard.arrivals for e in one.envelopes]

    live = asyncio.run(story())
    reader = MarketReader("binance")
    again = [e for channel, moment, raw in lines if channel == "binance.trades" for e in reader.read(raw, moment)]
    assert again == [e for e in live if e.kind == "Trade"]
    assert any(raw.startswith(b'{"answer":') for _, _, raw in lines)


def test_a_venue_that_has_nothing_of_what_is_wanted_says_so():
    async def story() -> None:
        async with SqliteState(None) as state:
            section = ExchangeSection(venues=("kraken",), streams=("liquidations",))
            with pytest.raises(ConfigError, match="0 streams"):
                open_source(section, Tools(state=state, instruments=("BTC/USD",)))
            with pytest.raises(ConfigError, match="0 instruments"):
                open_source(ExchangeSection(venues=("kraken",)), Tools(state=state))
            with pytest.raises(ConfigError, match="no instrument"):
                open_source(ExchangeSection(venues=("kraken",)), Tools(state=state, instruments=("BTCUSD",)))

    asyncio.run(story())
