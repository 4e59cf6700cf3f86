"""Every stream through the unmodified ccxt.pro, spot and USD-M, and every fault of the streams."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import aiohttp
import ccxt
import pytest

from cryptoalpha.execution.fake_exchange.process import FakeExchange

SPOT, PERPETUAL = "BTC/USDT", "BTC/USDT:USDT"
PATIENCE = 3.0


def run(fake: FakeExchange, make: Callable[..., Any], steps: Callable[[Any], Any], *, futures: bool = False) -> Any:
    """What `steps` of a client that knows the markets comes to."""

    async def whole() -> Any:
        client = make(fake, futures=futures, timeout_ms=2000)
        try:
            await client.load_markets()
            return await steps(client)
        finally:
            await client.close()

    return asyncio.run(whole())


async def soon(future: Any) -> Any:
    return await asyncio.wait_for(future, PATIENCE)


async def watching(future: Any) -> asyncio.Task[Any]:
    """Start to watch, and wait until the subscription must have arrived."""
    task = asyncio.ensure_future(future)
    await asyncio.sleep(0.08)
    return task


async def attempt(question: Any) -> Any:
    try:
        return await soon(question)
    except ccxt.BaseError as error:
        return type(error).__name__
    except TimeoutError:
        return "nothing"


@pytest.mark.parametrize("market", ["spot", "futures"])
def test_the_market_streams(request: pytest.FixtureRequest, private_client: Callable[..., Any], market: str):
    fake: FakeExchange = request.getfixturevalue(market)
    is_futures = market == "futures"
    symbol = PERPETUAL if is_futures else SPOT

    async def steps(client: Any) -> None:
        last = (await client.fetch_ohlcv(symbol, "1h", limit=1))[-1]
        ticker = await soon(client.watch_ticker(symbol))
        assert (ticker["symbol"], ticker["last"]) == (symbol, last[4])
        assert (await soon(client.watch_tickers([symbol])))[symbol]["last"] == last[4]
        full = await soon(client.watch_ticker(symbol, {"name": "ticker"}))
        best = (await soon(client.watch_bids_asks([symbol])))[symbol]
        assert best["bid"] < full["last"] == last[4] < best["ask"]
        book = await soon(client.watch_order_book(symbol))
        first = book["nonce"]
        assert (book["bids"][0][0], book["asks"][0][0]) == (best["bid"], best["ask"])
        assert (await soon(client.watch_ohlcv(symbol, "1h")))[-1] == last
        if is_futures:
            assert (await soon(client.watch_mark_price(symbol)))["markPrice"] == last[4]
        watched = [
            client.watch_trades(symbol),
            client.watch_ohlcv(symbol, "1h"),
            client.watch_ohlcv(symbol, "2h"),
            client.watch_order_book(symbol),
        ]
        trades, candles, longer, books = [await watching(each) for each in watched]
        for _ in range(2):
            fake.advance(1)
        new = (await client.fetch_ohlcv(symbol, "1h", limit=2))[-2:]
        made = await soon(trades)
        assert made[0]["price"] == new[0][1]  # the bar's open
        while len(client.trades[symbol]) < 8:
            await asyncio.sleep(0.01)
        assert sum(Decimal(str(trade["amount"])) for trade in list(client.trades[symbol])[:4]) == Decimal(str(new[0][5]))
        assert [trade["price"] for trade in client.trades[symbol]][-1] == new[-1][4]
        await soon(candles)
        while list(client.ohlcvs[symbol]["1h"])[-1] != new[-1]:
            await asyncio.sleep(0.01)
        await soon(longer)
        pair = list(client.ohlcvs[symbol]["2h"])[-1]
        assert pair[0] % (2 * 3_600_000) == 0
        assert pair[4] == new[-1][4]
        await soon(books)
        while client.orderbooks[symbol]["nonce"] < first + 120:
            await asyncio.sleep(0.01)
        held = client.orderbooks[symbol]
        truth = await client.fetch_order_book(symbol)
        assert (held["nonce"], held["bids"], held["asks"]) == (truth["nonce"], truth["bids"], truth["asks"])
        before = fake.state()["streams"]["sent"]
        await client.un_watch_trades(symbol)
        fake.advance(1)
        assert fake.state()["streams"]["sent"] > before
        assert len(client.trades.get(symbol, [])) == 0  # nothing came any more

    run(fake, private_client, steps, futures=is_futures)


def test_a_spot_account_streams_orders_trades_and_balances(spot: FakeExchange, private_client: Callable[..., Any]):
    async def steps(client: Any) -> None:
        orders, trades, balance = [
            await watching(each) for each in (client.watch_orders(SPOT), client.watch_my_trades(SPOT), client.watch_balance())
        ]
        sent = await client.create_order(SPOT, "market", "buy", 0.1, None, {"clientOrderId": "cafeed"})
        (told,) = await soon(orders)
        assert (told["id"], told["clientOrderId"], told["status"], told["amount"]) == (sent["id"], "cafeed", "open", 0.1)
        orders = await watching(client.watch_orders(SPOT))
        spot.advance(1)
        (trade,) = await soon(trades)
        (filled,) = await soon(orders)
        (asked,) = [each for each in await client.fetch_my_trades(SPOT) if each["order"] == sent["id"]]
        for name in ("id", "order", "side", "price", "amount", "cost", "timestamp", "takerOrMaker"):
            assert trade[name] == asked[name], name
        assert (trade["fee"]["cost"], trade["fee"]["currency"]) == (asked["fee"]["cost"], asked["fee"]["currency"])
        assert (filled["status"], filled["filled"], filled["clientOrderId"]) == ("closed", 0.1, "cafeed")
        held = await soon(balance)
        assert held["BTC"]["free"] == (await client.fetch_balance())["BTC"]["free"]
        balance, orders = await watching(client.watch_balance()), await watching(client.watch_orders(SPOT))
        await client.create_order(SPOT, "limit", "buy", 0.1, 20_000, {"clientOrderId": "cagone"})
        await soon(orders)
        orders = await watching(client.watch_orders(SPOT))
        await client.cancel_order(None, SPOT, {"clientOrderId": "cagone"})
        assert [(each["clientOrderId"], each["status"]) for each in await soon(orders)][-1] == ("cagone", "canceled")
        balance = await watching(client.watch_balance())
        spot.control("transfer", asset="ETH", amount="2.5")
        assert (await soon(balance))["ETH"]["free"] >= 0

    run(spot, private_client, steps)


def test_a_futures_account_streams_orders_trades_balance_and_positions(futures: FakeExchange, private_client: Callable[..., Any]):
    async def steps(client: Any) -> None:
        orders, trades = await watching(client.watch_orders(PERPETUAL)), await watching(client.watch_my_trades(PERPETUAL))
        positions, balance = await watching(client.watch_positions([PERPETUAL])), await watching(client.watch_balance())
        sent = await client.create_order(PERPETUAL, "market", "sell", 0.1, None, {"clientOrderId": "cashort"})
        (told,) = await soon(orders)
        assert (told["id"], told["clientOrderId"], told["status"]) == (sent["id"], "cashort", "open")
        futures.advance(1)
        (trade,) = await soon(trades)
        (asked,) = [each for each in await client.fetch_my_trades(PERPETUAL) if each["order"] == sent["id"]]
        for name in ("id", "order", "side", "price", "amount", "timestamp"):
            assert trade[name] == asked[name], name
        assert trade["fee"]["cost"] == asked["fee"]["cost"]
        assert (await soon(balance))["USDT"]["total"] == float(futures.state()["accounts"]["key"]["wallet"])
        (position,) = await soon(positions)
        assert (position["symbol"], position["side"], position["contracts"], position["entryPrice"]) == (
            PERPETUAL,
            "short",
            0.1,
            trade["price"],
        )

    run(futures, private_client, steps, futures=True)


def test_a_wrong_signature_an_unknown_key_and_a_wrong_clock_open_no_stream(spot: FakeExchange, private_client: Callable[..., Any]):
    async def steps(client: Any) -> Any:
        codes = []
        for key, secret, seconds in (("key", "wrong", 0), ("nobody", "secret", 0), ("key", "secret", 3600), ("key", "secret", 0)):
            spot.faults(clear=True, script=[{"action": "skew", "seconds": seconds}])
            client.apiKey, client.secret = key, secret
            async with aiohttp.ClientSession() as session, session.ws_connect(f"{spot.url}/ws-api/v3") as socket:
                params = client.sign_params({})
                await socket.send_str(json.dumps({"id": "1", "method": "userDataStream.subscribe.signature", "params": params}))
                answer = json.loads((await soon(socket.receive())).data)
                codes.append(answer.get("error", {}).get("code", answer["status"]))
        return codes

    assert run(spot, private_client, steps) == [-1022, -2015, -1021, 200]


def test_the_words_of_the_sockets(spot: FakeExchange):
    async def steps() -> None:
        async with aiohttp.ClientSession() as session:
            async with session.ws_connect(f"{spot.url}/ws") as socket:

                async def ask(text: str) -> Any:
                    await socket.send_str(text)
                    return json.loads((await soon(socket.receive())).data)

                assert await ask('{"method":"SUBSCRIBE","params":["btcusdt@trade","ethusdt@depth@100ms"],"id":1}') == {
                    "result": None,
                    "id": 1,
                }
                listed = await ask('{"method":"LIST_SUBSCRIPTIONS","id":2}')
                assert sorted(listed["result"]) == ["btcusdt@trade", "ethusdt@depth@100ms"]
                assert await ask('{"method":"UNSUBSCRIBE","params":["btcusdt@trade"],"id":3}') == {"result": None, "id": 3}
                assert (await ask('{"method":"LIST_SUBSCRIPTIONS","id":4}'))["result"] == ["ethusdt@depth@100ms"]
                assert (await ask('{"method":"SUBSCRIBE","params":["nonsense"],"id":5}'))["error"]["code"] == 2
                assert (await ask("{no json"))["error"]["code"] == 3
                await socket.ping(b"are you there")
                assert (await ask('{"method":"LIST_SUBSCRIPTIONS","id":6}'))["id"] == 6
            async with session.ws_connect(f"{spot.url}/stream?streams=btcusdt@kline_1h/ethusdt@bookTicker") as socket:
                first = json.loads((await soon(socket.receive())).data)
                second = json.loads((await soon(socket.receive())).data)
                assert (first["stream"], first["data"]["e"], first["data"]["k"]["x"]) == ("btcusdt@kline_1h", "kline", True)
                assert (second["stream"], second["data"]["s"]) == ("ethusdt@bookTicker", "ETHUSDT")
            async with session.ws_connect(f"{spot.url}/ws/!miniTicker@arr") as socket:
                await asyncio.to_thread(spot.advance, 1)
                (ticker,) = json.loads((await soon(socket.receive())).data)
                assert ticker["e"] == "24hrMiniTicker"
            async with session.ws_connect(f"{spot.url}/ws-api/v3") as socket:
                await socket.send_str('{"id":"a","method":"time"}')
                assert json.loads((await soon(socket.receive())).data)["result"]["serverTime"] > 1.7e12
                await socket.send_str('{"id":"b","method":"order.invent","params":{}}')
                assert json.loads((await soon(socket.receive())).data)["status"] == 400
                await socket.send_str('{"id":"c","method":"ping"}')
                assert json.loads((await soon(socket.receive())).data)["status"] == 200

    asyncio.run(steps())


def test_a_listen_key_lives_while_it_is_kept_and_opens_one_account(futures: FakeExchange):
    async def steps() -> None:
        headers = {"X-MBX-APIKEY": "key"}
        async with aiohttp.ClientSession(headers=headers) as session:
            url = f"{futures.url}/fapi/v1/listenKey"
            first = await (await session.post(url)).json()
            assert await (await session.put(url)).json() == first
            assert len(first["listenKey"]) == 64
            async with session.ws_connect(f"{futures.url}/ws/{first['listenKey']}") as socket:
                await asyncio.to_thread(futures.control, "order", instrument="BTC/USDT", side="buy", quantity="0.01")
                assert json.loads((await soon(socket.receive())).data)["e"] == "ORDER_TRADE_UPDATE"
            await session.delete(url)
            async with session.ws_connect(f"{futures.url}/private/ws?listenKey={first['listenKey']}") as socket:
                await asyncio.to_thread(futures.control, "order", instrument="BTC/USDT", side="buy", quantity="0.01")
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(socket.receive(), 0.15)
            assert (await (await session.post(url)).json()) != first

    asyncio.run(steps())


class Listener:
    """What the account stream says, message by message."""

    def __init__(self, fake: FakeExchange, make: Callable[..., Any]) -> None:
        self.fake, self.make = fake, make

    async def __aenter__(self) -> Listener:
        self.client = self.make(self.fake, timeout_ms=2000)
        await self.client.load_markets()
        self.session = aiohttp.ClientSession()
        await self.connect()
        return self

    async def connect(self) -> None:
        self.socket = await self.session.ws_connect(f"{self.fake.url}/ws-api.binance.com/ws-api/v3")
        params = self.client.sign_params({})
        await self.socket.send_str(json.dumps({"id": "1", "method": "userDataStream.subscribe.signature", "params": params}))
        assert json.loads((await self.socket.receive()).data) == {"id": "1", "status": 200, "result": {"subscriptionId": 0}}

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()
        await self.client.close()

    async def buy(self, client_id: str) -> None:
        await self.client.create_order(SPOT, "market", "buy", 0.001, None, {"clientOrderId": client_id})

    async def heard(self, wait: float = 0.1) -> list[str]:
        """All that comes until nothing comes for a while, as `id TRADE`; balances are left away."""
        found = []
        while True:
            try:
                message = await asyncio.wait_for(self.socket.receive(), wait)
            except TimeoutError:
                return found
            if message.type is not aiohttp.WSMsgType.TEXT:
                return [*found, "closed"]
            try:
                event = json.loads(message.data)["event"]
            except ValueError:
                found.append("spoilt")
                continue
            if event["e"] == "executionReport":
                found.append(f"{event['c']} {event['x']}")


STREAM_FAULTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "lose": ({}, ["a NEW", "b NEW", "b TRADE"]),
    "duplicate": ({}, ["a NEW", "b NEW", "a TRADE", "a TRADE", "b TRADE"]),
    "late": ({"seconds": 0.05}, ["a NEW", "b NEW", "b TRADE", "a TRADE"]),
    "swap": ({}, ["b NEW", "a NEW", "a TRADE", "b TRADE"]),
    "spoil": ({}, ["a NEW", "b NEW", "spoilt", "b TRADE"]),
    "disconnect": ({}, ["a NEW", "b NEW", "closed"]),
    "stall": ({"route": "WS account TRADE", "seconds": 0.0}, ["a NEW", "b NEW"]),
}


def test_faults_of_an_account_stream(spot: FakeExchange, private_client: Callable[..., Any]):
    async def steps() -> Any:
        found = {}
        async with Listener(spot, private_client) as listener:
            for action, (more, _) in STREAM_FAULTS.items():
                before = spot.state()["faults"]["counts"].get(action, 0)
                spot.faults(clear=True, script=[{"action": action, **more}])
                if action == "swap":  # the answer of the first order comes after that of the second
                    spot.faults(clear=True, script=[{"action": action, "route": "WS account NEW", "seconds": 2}])
                await listener.buy("a")
                await listener.buy("b")
                await asyncio.to_thread(spot.advance, 1)
                found[action] = await listener.heard()
                assert spot.state()["faults"]["counts"][action] == before + 1, action
                if found[action][-1] == "closed":
                    await listener.connect()
        return found

    truth = len(spot.state()["accounts"]["key"]["trades"])
    found = asyncio.run(steps())
    assert found == {action: expected for action, (_, expected) in STREAM_FAULTS.items()}
    assert len(spot.state()["accounts"]["key"]["trades"]) == truth + 2 * len(STREAM_FAULTS)  # the books know nothing of it


def test_a_client_that_was_cut_off_comes_back(spot: FakeExchange, private_client: Callable[..., Any]):
    async def steps(client: Any) -> Any:
        orders = await watching(client.watch_orders(SPOT))
        assert spot.control("disconnect")["disconnected"] >= 1
        broken = await attempt(orders)
        orders = await watching(client.watch_orders(SPOT))
        await client.create_order(SPOT, "market", "buy", 0.001, None, {"clientOrderId": "caback"})
        return broken, [order["clientOrderId"] for order in await soon(orders)]

    assert run(spot, private_client, steps) == ("NetworkError", ["caback"])


def test_a_fill_comes_before_the_answer_to_its_order(spot: FakeExchange, private_client: Callable[..., Any]):
    async def steps(client: Any) -> Any:
        trades = await watching(client.watch_my_trades(SPOT))
        spot.faults(script=[{"action": "fill_before_ack", "seconds": 0.3}])
        order = asyncio.ensure_future(client.create_order(SPOT, "market", "buy", 0.001, None, {"clientOrderId": "caearly"}))
        (trade,) = await soon(trades)
        assert not order.done()
        answered = await soon(order)
        return trade["order"] == answered["id"], answered["status"]

    assert run(spot, private_client, steps) == (True, "open")


def test_a_gap_in_the_order_book_is_noticed_and_a_nan_candle_arrives(spot: FakeExchange, private_client: Callable[..., Any]):
    async def steps(client: Any) -> Any:
        await soon(client.watch_order_book(SPOT))
        book = await watching(client.watch_order_book(SPOT))
        spot.faults(script=[{"action": "lose", "route": "WS btcusdt@depth*"}])
        spot.advance(2)
        noticed = await attempt(book)
        mended = await soon(client.watch_order_book(SPOT))
        candles = await watching(client.watch_ohlcv(SPOT, "1h"))
        await soon(candles)
        spot.faults(script=[{"action": "nan"}])
        candles = await watching(client.watch_ohlcv(SPOT, "1h"))
        spot.advance(1)
        close = (await soon(candles))[-1][4]
        return noticed, mended["nonce"] > 0, close

    noticed, is_mended, close = run(spot, private_client, steps)
    assert (noticed, is_mended) == ("ChecksumError", True)
    assert close is None or close != close
    assert spot.state()["faults"]["counts"]["lose"] >= 1
    assert spot.state()["faults"]["counts"]["nan"] >= 1
