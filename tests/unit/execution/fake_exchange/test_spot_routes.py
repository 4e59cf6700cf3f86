"""Every spot route through real ccxt, blocking and asynchronous: what was asked for is what the books say."""

from __future__ import annotations

import asyncio
import itertools
from decimal import Decimal

import ccxt
import pytest

from cryptoalpha.execution.fake_exchange.accounts import AccountSettings
from cryptoalpha.execution.fake_exchange.process import FakeExchange

BTC = "BTC/USDT"
numbers = itertools.count(1)


@pytest.fixture
def client(spot, plain_client):
    made = plain_client(spot)
    made.load_markets()
    yield made
    made.close()


def test_markets_carry_lot_tick_and_smallest_order(client):
    market = client.market(BTC)
    assert (market["precision"]["amount"], market["precision"]["price"], market["limits"]["cost"]["min"]) == (1e-5, 0.01, 5.0)
    assert market["spot"]
    assert market["active"]
    assert set(client.markets) == {BTC, "ETH/USDT", "BNB/USDT"}


def test_a_client_without_options_loads_everything_it_asks_for(spot):
    client = ccxt.binance({"apiKey": "key", "secret": "secret"})
    client.urls["api"] = {name: address.replace("https://", spot.url + "/") for name, address in client.urls["api"].items()}
    assert set(client.load_markets()) == {BTC, "ETH/USDT", "BNB/USDT"}
    assert {"BTC", "ETH", "BNB", "USDT"} <= set(client.currencies)
    assert client.fetch_status()["status"] == "ok"
    assert client.fetch_trading_fees()[BTC]["taker"] == client.fetch_trading_fee(BTC)["taker"] == 0.001
    assert client.publicGetTime()["serverTime"]
    assert client.privateGetAccountCommission({"symbol": "BTCUSDT"})["standardCommission"]["taker"] == "0.001"
    assert client.eapiPublicGetExchangeInfo()["optionSymbols"] == []
    client.close()


def test_candles_end_with_the_last_known_bar_and_page_forwards(spot, client):
    state = spot.state()
    last = client.fetch_ohlcv(BTC, "1h", limit=3)
    assert last[-1][0] + 3_600_000 == state["now_ms"]
    since = last[0][0] - 10 * 3_600_000
    page = client.fetch_ohlcv(BTC, "1h", since=since, limit=5)
    assert [row[0] for row in page] == [since + k * 3_600_000 for k in range(5)]
    panel = spot.server.exchange.market.panel
    place = panel.instruments.index(BTC)
    assert page[0][1:] == [
        float(getattr(panel, name)[list(panel.open_time // 10**6).index(since), place])
        for name in ("open", "high", "low", "close", "volume")
    ]
    with pytest.raises(ccxt.ExchangeError, match="-1120"):
        client.fetch_ohlcv(BTC, "15m")
    four = client.fetch_ohlcv(BTC, "4h", limit=2)
    hours = client.fetch_ohlcv(BTC, "1h", since=four[-1][0], limit=4)
    assert four[-1][2:5] == [max(row[2] for row in hours), min(row[3] for row in hours), hours[-1][4]]


def test_tickers_book_and_trades_are_around_the_last_close(client):
    last = client.fetch_ohlcv(BTC, "1h", limit=1)[-1][4]
    ticker = client.fetch_ticker(BTC)
    day = client.fetch_ohlcv(BTC, "1h", limit=24)
    assert ticker["last"] == last
    assert (ticker["high"], ticker["low"], ticker["open"]) == (max(b[2] for b in day), min(b[3] for b in day), day[0][1])
    assert ticker["baseVolume"] == sum(b[5] for b in day)
    assert ticker["bid"] < last < ticker["ask"]
    assert client.fetch_bids_asks([BTC])[BTC]["ask"] == ticker["ask"]
    assert client.fetch_last_prices([BTC])[BTC]["price"] == last
    assert set(client.fetch_tickers()) == set(client.markets)
    book = client.fetch_order_book(BTC, 5)
    assert book["bids"][0][0] < book["asks"][0][0]
    assert client.fetch_trades(BTC, limit=2)[-1]["price"] == last
    assert len(client.publicGetTrades({"symbol": "BTCUSDT", "limit": 3})) == 3
    assert float(client.publicGetAvgPrice({"symbol": "BTCUSDT"})["price"]) == last
    assert client.fetch_time() > 1_700_000_000_000


def test_aggregated_trades_page_by_id_and_by_time(client):
    page = client.publicGetAggTrades({"symbol": "BTCUSDT", "fromId": 10, "limit": 4})
    assert [int(trade["a"]) for trade in page] == [10, 11, 12, 13]
    again = client.publicGetAggTrades({"symbol": "BTCUSDT", "startTime": page[1]["T"], "endTime": page[2]["T"]})
    assert [trade["a"] for trade in again] == [page[1]["a"], page[2]["a"]]


def test_a_market_order_trades_at_the_next_open(spot, client):
    before = client.fetch_balance()
    sent = client.create_order(BTC, "market", "buy", 0.5, None, {"clientOrderId": "camarket"})
    assert (sent["status"], sent["filled"], sent["clientOrderId"]) == ("open", 0.0, "camarket")
    assert [order["id"] for order in client.fetch_open_orders(BTC)] == [sent["id"]]
    spot.advance()
    done = client.fetch_order(None, BTC, {"clientOrderId": "camarket"})
    trade = client.fetch_my_trades(BTC)[-1]
    bar = client.fetch_ohlcv(BTC, "1h", limit=1)[0]
    assert (done["status"], done["filled"], trade["order"]) == ("closed", 0.5, sent["id"])
    assert bar[1] < trade["price"] < bar[1] * 1.001  # half the spread and the impact above the open
    assert trade["timestamp"] == bar[0]
    assert trade["fee"] == {"currency": "USDT", "cost": pytest.approx(0.001 * trade["cost"], abs=1e-8)}
    after = client.fetch_balance()
    assert Decimal(str(after["BTC"]["total"])) - Decimal(str(before["BTC"]["total"] if "BTC" in before else 0)) == Decimal("0.5")
    assert after["USDT"]["total"] == pytest.approx(before["USDT"]["total"] - trade["cost"] - trade["fee"]["cost"], abs=1e-7)
    assert client.fetch_open_orders(BTC) == []


def test_a_resting_order_locks_its_cash_until_it_is_cancelled(client):
    before = client.fetch_balance()["USDT"]
    sent = client.create_order(BTC, "limit", "buy", 0.5, 10_000.0)
    assert client.fetch_balance()["USDT"] == {"free": before["free"] - 5000, "used": before["used"] + 5000, "total": before["total"]}
    gone = client.cancel_order(sent["id"], BTC)
    assert (gone["status"], gone["info"]["origClientOrderId"]) == ("canceled", sent["clientOrderId"])
    assert gone["info"]["clientOrderId"] != sent["clientOrderId"]
    assert client.fetch_balance()["USDT"] == before
    with pytest.raises(ccxt.OrderNotFound, match="-2011"):
        client.cancel_order(sent["id"], BTC)


def test_a_large_order_fills_over_several_bars(spot, plain_client):
    spot.control("account", key="rich", balances={"USDT": "100000000"})
    client = plain_client(spot, key="rich")
    client.load_markets()
    sent = client.create_order(BTC, "market", "buy", 250)
    spot.advance()
    some = client.fetch_order(sent["id"], BTC)
    assert (some["status"], some["info"]["status"], some["filled"]) == ("open", "PARTIALLY_FILLED", 100.0)  # a tenth of 1,000
    spot.advance(2)
    done = client.fetch_order(sent["id"], BTC)
    assert (done["status"], done["filled"]) == ("closed", 250.0)
    assert [trade["amount"] for trade in client.fetch_my_trades(BTC)] == [100.0, 100.0, 50.0]
    client.close()


def test_trades_page_by_id_and_time_and_orders_are_listed(spot, client):
    for side in ("buy", "sell", "buy"):
        client.create_order("ETH/USDT", "market", side, 0.1)
        spot.advance()
    ids = [int(trade["id"]) for trade in client.fetch_my_trades("ETH/USDT")]
    assert ids == sorted(set(ids))
    page = client.fetch_my_trades("ETH/USDT", limit=2, params={"fromId": ids[0]})
    assert [int(trade["id"]) for trade in page] == ids[:2]
    rest = client.fetch_my_trades("ETH/USDT", params={"fromId": ids[1] + 1})
    assert [int(trade["id"]) for trade in rest] == ids[2:]
    stamp = client.fetch_my_trades("ETH/USDT")[-1]["timestamp"]
    assert [int(trade["id"]) for trade in client.fetch_my_trades("ETH/USDT", since=stamp)] == ids[-1:]
    assert [order["status"] for order in client.fetch_orders("ETH/USDT")][-3:] == ["closed"] * 3
    newest = client.fetch_orders("ETH/USDT")[-1]
    assert [t["order"] for t in client.fetch_my_trades("ETH/USDT", params={"orderId": newest["id"]})] == [newest["id"]]
    assert [o["id"] for o in client.fetch_orders("ETH/USDT", params={"orderId": newest["id"]})] == [newest["id"]]


def test_trades_are_looked_for_over_a_day_at_most(spot, client):
    client.create_order("ETH/USDT", "market", "buy", 0.1)
    spot.advance()
    stamp = client.fetch_my_trades("ETH/USDT")[-1]["timestamp"]
    hour = 3_600_000
    asked = {"since": stamp - 25 * hour}, {"since": stamp - 24 * hour}, {"params": {"endTime": stamp + 24 * hour}}
    assert [stamp in [one["timestamp"] for one in client.fetch_my_trades("ETH/USDT", **how)] for how in asked] == [False, True, True]
    with pytest.raises(ccxt.BadRequest, match="-1127"):
        client.fetch_my_trades("ETH/USDT", since=stamp - 25 * hour, params={"endTime": stamp})
    with pytest.raises(ccxt.BadRequest, match="-1128"):
        client.fetch_my_trades("ETH/USDT", since=stamp, params={"fromId": 1})


def test_all_open_orders_of_a_symbol_go_at_once(client):
    made = [client.create_order(BTC, "limit", "buy", 0.01, price)["id"] for price in (9_000.0, 9_100.0)]
    client.create_order("ETH/USDT", "limit", "buy", 0.1, 500.0)
    client.options["warnOnFetchOpenOrdersWithoutSymbol"] = False
    client.options["fetchOpenOrders"] = {"warnWithoutSymbol": False}
    assert [order["id"] for order in client.cancel_all_orders(BTC)] == made
    assert [order["symbol"] for order in client.fetch_open_orders()] == ["ETH/USDT"]
    client.cancel_all_orders("ETH/USDT")
    with pytest.raises(ccxt.OrderNotFound):
        client.cancel_all_orders(BTC)


@pytest.mark.parametrize(
    ("order", "code"),
    [
        (("MARKET", "BUY", "0.000001", None), "-1013 LOT_SIZE"),
        (("LIMIT", "BUY", "0.1", "10000.001"), "-1013 PRICE_FILTER"),
        (("MARKET", "BUY", "0.00002", None), "-1013 NOTIONAL"),
        (("LIMIT", "BUY", "0.0004", "10000"), "-1013 NOTIONAL"),
        (("MARKET", "BUY", "0", None), "-1013 quantity"),
        (("LIMIT", "BUY", "1", "0"), "-1013 price"),
        (("LIMIT", "BUY", "100", "10000"), "-2010 insufficient"),
        (("MARKET", "BUY", "50", None), "-2010 insufficient"),
        (("MARKET", "SELL", "50", None), "-2010 insufficient"),
        (("LIMIT_MAKER", "BUY", "0.01", "1000000"), "-2010 immediately match"),
        (("STOP_LOSS", "BUY", "0.01", None), "-1116"),
        (("MARKET", "UP", "0.01", None), "-1117"),
        (("MARKET", "BUY", "x", None), "-1100"),
        (("MARKET", "BUY", "NaN", None), "-1100"),
        (("MARKET", "BUY", "1", "3"), "-1106"),
        (("LIMIT", "BUY", "1", None), "-1102 price"),
        (("MARKET", "BUY", None, None), "-1102 quantity"),
        (("MARKET", None, "1", None), "-1102 side"),
    ],
)
def test_what_binance_refuses_is_refused_with_its_code(client, order, code):
    kind, side, quantity, price = order
    given = {"symbol": "BTCUSDT", "type": kind, "side": side, "quantity": quantity, "price": price}
    if kind == "LIMIT":
        given["timeInForce"] = "GTC"
    with pytest.raises(ccxt.BaseError):
        client.privatePostOrder({name: value for name, value in given.items() if value is not None})
    number, _, words = code.partition(" ")
    assert f'"code":{number},' in client.last_http_response
    assert words in client.last_http_response


def test_symbols_ids_and_times_in_force_that_nobody_knows(client):
    limit = {"symbol": "BTCUSDT", "type": "LIMIT", "side": "BUY", "quantity": "0.01", "price": "10000"}
    for call, params, code in (
        (client.privatePostOrder, limit, "-1102.*timeInForce"),
        (client.privatePostOrder, {**limit, "timeInForce": "GTX"}, "-1115"),
        (client.privatePostOrder, {**limit, "symbol": "XXXUSDT", "timeInForce": "GTC"}, "-1121"),
        (client.privateGetOrder, {"symbol": "BTCUSDT", "origClientOrderId": "nobody"}, "-2013"),
        (client.privateGetOrder, {"symbol": "BTCUSDT", "orderId": "77"}, "-2013"),
        (client.privateGetOrder, {"symbol": "BTCUSDT", "orderId": "x"}, "-1100"),
        (client.privateGetOrder, {"symbol": "BTCUSDT"}, "-1102"),
        (client.privateDeleteOrder, {"symbol": "BTCUSDT", "origClientOrderId": "nobody"}, "-2011"),
        (client.privateGetMyTrades, {}, "-1102"),
    ):
        with pytest.raises(ccxt.BaseError, match=code):
            call(params)


def test_a_client_id_is_taken_only_while_its_order_is_open(client):
    name = {"clientOrderId": f"caagain{next(numbers)}"}
    first = client.create_order(BTC, "limit", "buy", 0.01, 9_000.0, name)
    with pytest.raises(ccxt.InvalidOrder, match="Duplicate order sent"):
        client.create_order(BTC, "limit", "buy", 0.01, 9_000.0, name)
    client.cancel_order(first["id"], BTC)
    second = client.create_order(BTC, "limit", "buy", 0.01, 9_000.0, name)
    assert second["id"] != first["id"]
    assert client.fetch_order(None, BTC, name)["id"] == second["id"]
    client.cancel_order(second["id"], BTC)


def test_times_in_force_end_as_they_say(spot, client):
    last = client.fetch_ohlcv(BTC, "1h", limit=1)[-1][4]
    reached = client.create_order(BTC, "limit", "buy", 0.01, round(last * 1.05, 2), {"timeInForce": "IOC"})
    missed = client.create_order("ETH/USDT", "limit", "buy", 0.1, 100.0, {"timeInForce": "IOC"})
    whole = client.create_order("ETH/USDT", "limit", "buy", 0.1, 100_000.0, {"timeInForce": "FOK"})
    spot.advance()
    assert client.fetch_order(reached["id"], BTC)["status"] == "closed"
    assert client.fetch_order(missed["id"], "ETH/USDT")["status"] == "expired"
    assert client.fetch_order(whole["id"], "ETH/USDT")["status"] == "closed"


def test_a_post_only_order_rests_and_pays_as_a_maker(spot, client):
    low = min(bar[3] for bar in client.fetch_ohlcv(BTC, "1h", limit=1))
    sent = client.create_order(BTC, "limit", "buy", 0.01, round(low * 0.995, 2), {"postOnly": True})
    assert sent["info"]["type"] == "LIMIT_MAKER"
    for _ in range(20):
        if client.fetch_order(sent["id"], BTC)["status"] != "open":
            break
        spot.advance()
    trade = client.fetch_my_trades(BTC)[-1]
    assert (trade["order"], trade["takerOrMaker"], trade["price"]) == (sent["id"], "maker", sent["price"])


def test_rights_show_whether_the_key_may_withdraw(spot, client):
    assert client.sapiGetAccountApiRestrictions()["enableWithdrawals"] is False
    spot.control("account", may_withdraw=True)
    assert client.sapiGetAccountApiRestrictions()["enableWithdrawals"] is True
    assert client.privateGetAccount()["canWithdraw"] is True
    spot.control("account", may_withdraw=False)
    spot.control("account", may_trade=False)
    with pytest.raises(ccxt.BaseError, match="-2015"):
        client.create_order(BTC, "market", "buy", 0.01)
    spot.control("account", may_trade=True)


@pytest.mark.parametrize(("mode", "held"), [("base", {}), ("third", {}), ("third", {"BNB": Decimal(1)})])
def test_fees_in_the_base_or_a_third_asset(fake_book, plain_client, mode, held):
    settings = AccountSettings(balances={"USDT": Decimal(10_000), **held}, fees=mode)
    with FakeExchange(fake_book(perpetual=False), accounts=[settings], start=300) as fake:
        client = plain_client(fake)
        client.load_markets()
        client.create_order(BTC, "market", "buy", 0.1)
        fake.advance()
        bnb = client.fetch_ohlcv("BNB/USDT", "1h", limit=2)[0][4]
        trade, total = client.fetch_my_trades(BTC)[-1], client.fetch_balance()["total"]
        if held:  # paid in BNB at its last price
            assert trade["fee"] == {"currency": "BNB", "cost": pytest.approx(trade["cost"] * 0.001 / bnb, abs=1e-8)}
            assert (total["BTC"], total["BNB"]) == (0.1, pytest.approx(1 - trade["fee"]["cost"], abs=1e-9))
        else:  # no BNB: from what was bought
            assert trade["fee"] == {"currency": "BTC", "cost": 0.0001}
            assert total["BTC"] == pytest.approx(0.0999)
        assert total["USDT"] == pytest.approx(10_000 - trade["cost"], abs=1e-7)
        client.close()


def test_the_asynchronous_client_does_the_same(spot, private_client):
    async def trade() -> None:
        client = private_client(spot, timeout_ms=2000)
        try:
            await client.load_markets()
            sent = await client.create_order(BTC, "market", "buy", 0.01, None, {"clientOrderId": "caasync"})
            opened, balance = await asyncio.gather(client.fetch_open_orders(BTC), client.fetch_balance())
            assert [order["clientOrderId"] for order in opened] == ["caasync"]
            await asyncio.to_thread(spot.advance)
            done = await client.fetch_order(None, BTC, {"clientOrderId": "caasync"})
            assert (done["id"], done["status"]) == (sent["id"], "closed")
            assert (await client.fetch_my_trades(BTC))[-1]["order"] == sent["id"]
            assert (await client.fetch_balance())["BTC"]["total"] == pytest.approx(balance.get("BTC", {}).get("total", 0) + 0.01)
        finally:
            await client.close()

    asyncio.run(trade())
