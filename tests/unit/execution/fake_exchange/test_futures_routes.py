"""Every futures route through real ccxt: positions at average cost, funding, reductions, margins."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import ccxt
import numpy as np
import pytest

from cryptoalpha.execution.config import CostConfig, ExecutionConfig
from cryptoalpha.execution.fake_exchange.market import Book
from cryptoalpha.execution.fake_exchange.process import FakeExchange

BTC = "BTC/USDT:USDT"
FREE = ExecutionConfig(costs=CostConfig(half_spread=0.0, impact=0.0, taker_fee=0.0004, maker_fee=0.0002))
RATE = 1e-4


@pytest.fixture
def funded(fake_book):
    """Perpetuals that settle funding at every eighth bar's open."""
    book: Book = fake_book(perpetual=True)
    book.funding_at_open[::8] = RATE
    with FakeExchange(book, FREE, start=300) as fake:
        yield fake


@pytest.fixture
def client(funded, plain_client):
    made = plain_client(funded, futures=True)
    made.load_markets()
    yield made
    made.close()


def opens(client, count):
    return [bar[1] for bar in client.fetch_ohlcv(BTC, "1h", limit=count)]


def test_contracts_are_linear_perpetuals_with_their_filters(client):
    market = client.market(BTC)
    assert (market["swap"], market["linear"], market["contractSize"], market["settle"]) == (True, True, 1.0, "USDT")
    assert (market["precision"]["amount"], market["precision"]["price"], market["limits"]["cost"]["min"]) == (1e-5, 0.01, 5.0)


def test_prices_are_those_of_the_last_bar(client):
    last = client.fetch_ohlcv(BTC, "1h", limit=1)[-1][4]
    assert client.fetch_ticker(BTC)["last"] == client.fetch_last_prices([BTC])[BTC]["price"] == last
    assert client.fetch_bids_asks([BTC])[BTC]["bid"] < client.fetch_bids_asks([BTC])[BTC]["ask"]
    assert client.fetch_trades(BTC, limit=1)[0]["price"] == last
    assert client.fetch_order_book(BTC, 5)["bids"]
    assert client.fetch_mark_price(BTC)["markPrice"] == last
    assert client.fetch_time() > 0


def test_a_position_is_kept_at_its_average_cost_and_profit_goes_to_the_wallet(funded, client):
    client.create_order(BTC, "market", "sell", 0.3)
    funded.advance()
    client.create_order(BTC, "market", "sell", 0.1)
    funded.advance()
    first, second = opens(client, 2)
    held = client.fetch_positions([BTC])[0]
    average = (0.3 * first + 0.1 * second) / 0.4
    assert (held["side"], held["contracts"]) == ("short", 0.4)
    assert held["entryPrice"] == pytest.approx(average, abs=1e-8)
    assert held["unrealizedPnl"] == pytest.approx(-0.4 * (client.fetch_ticker(BTC)["last"] - average), abs=1e-6)
    assert client.fetch_positions([BTC], {"method": "account"})[0]["contracts"] == 0.4
    client.create_order(BTC, "market", "buy", 0.5)  # through zero
    funded.advance()
    third = opens(client, 1)[0]
    trade = client.fetch_my_trades(BTC)[-1]
    assert float(trade["info"]["realizedPnl"]) == pytest.approx(0.4 * (average - third), abs=1e-7)
    held = client.fetch_positions([BTC])[0]
    assert (held["side"], held["contracts"], held["entryPrice"]) == ("long", pytest.approx(0.1), third)
    fees = 0.0004 * (0.3 * first + 0.1 * second + 0.5 * third)
    paid = sum(line["amount"] for line in client.fetch_funding_history(BTC))
    wallet = float(client.fapiPrivateV3GetAccount()["totalWalletBalance"])
    assert wallet == pytest.approx(100_000 - fees + 0.4 * (average - third) + paid, abs=1e-6)
    kinds = [line["incomeType"] for line in client.fapiPrivateGetIncome({"limit": 1000})]
    assert (kinds.count("COMMISSION"), kinds.count("REALIZED_PNL")) == (3, 1)


def test_funding_is_owed_on_what_was_held_before_the_stamp(funded, client):
    while (funded.state(brief=True)["row"] + 1) % 8 != 7:
        funded.advance()
    client.create_order(BTC, "market", "buy", 0.5)
    funded.advance()  # holds it; the next bar settles
    assert client.fetch_funding_history(BTC) == []
    funded.advance()
    mark = opens(client, 1)[0]
    line = client.fetch_funding_history(BTC)[0]
    assert line["amount"] == pytest.approx(-0.5 * mark * RATE, abs=1e-8)
    assert client.fetch_funding_rate(BTC)["fundingRate"] == RATE
    history = client.fetch_funding_rate_history(BTC, limit=3)
    assert [entry["fundingRate"] for entry in history] == [RATE] * 3
    assert history[-1]["timestamp"] == line["timestamp"] == client.fetch_ohlcv(BTC, "1h", limit=1)[0][0]
    later = client.fetch_funding_history(BTC, since=line["timestamp"] + 1)
    assert later == []


def test_a_reduction_never_turns_a_position(funded, client):
    with pytest.raises(ccxt.BaseError, match="-2022"):
        client.create_order(BTC, "market", "sell", 0.1, None, {"reduceOnly": True})
    client.create_order(BTC, "market", "buy", 0.1)
    funded.advance()
    sent = client.create_order(BTC, "market", "sell", 0.5, None, {"reduceOnly": True})
    funded.advance()
    done = client.fetch_order(sent["id"], BTC)
    assert (done["filled"], done["status"]) == (0.1, "expired")
    assert client.fetch_positions([BTC]) == []
    assert client.fapiPrivateV2GetPositionRisk({"symbol": "BTCUSDT"})[0]["positionAmt"].rstrip("0.") == ""


def test_orders_are_placed_found_listed_and_cancelled(funded, client):
    name = {"clientOrderId": "cafutures", "timeInForce": "GTC"}
    sent = client.create_order(BTC, "limit", "buy", 0.1, 10_000.0, name)
    assert (sent["status"], sent["clientOrderId"]) == ("open", "cafutures")
    assert [order["id"] for order in client.fetch_open_orders(BTC)] == [sent["id"]]
    assert client.fetch_open_order(sent["id"], BTC)["id"] == sent["id"]
    with pytest.raises(ccxt.BaseError, match="-4116"):
        client.create_order(BTC, "limit", "buy", 0.1, 10_000.0, name)
    assert client.cancel_order(None, BTC, {"clientOrderId": "cafutures"})["status"] == "canceled"
    with pytest.raises(ccxt.OrderNotFound):
        client.cancel_order(sent["id"], BTC)
    with pytest.raises(ccxt.OrderNotFound):
        client.fetch_open_order(sent["id"], BTC)
    with pytest.raises(ccxt.OrderNotFound):
        client.fetch_order(None, BTC, {"clientOrderId": "nobody"})
    client.create_order(BTC, "limit", "buy", 0.1, 10_000.0)
    client.cancel_all_orders(BTC)
    assert client.fetch_open_orders(BTC) == []
    assert [order["status"] for order in client.fetch_orders(BTC)] == ["canceled", "canceled"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("limit", "buy", "0.1", "10000.001"), -4014),
        (("limit", "buy", "0.1", "0"), -4001),
        (("market", "buy", "0.000001", None), -1111),
        (("market", "buy", "0", None), -4003),
        (("market", "buy", "0.00001", None), -4164),
        (("market", "buy", "50", None), -2019),
    ],
)
def test_what_the_futures_market_refuses(client, arguments, code):
    kind, side, quantity, price = arguments
    given = {"symbol": "BTCUSDT", "type": kind.upper(), "side": side.upper(), "quantity": quantity}
    if price is not None:
        given |= {"price": price, "timeInForce": "GTC"}
    with pytest.raises(ccxt.BaseError):
        client.fapiPrivatePostOrder(given)
    assert f'"code":{code},' in client.last_http_response


def test_a_post_only_order_that_would_take_is_refused_and_hedge_orders_are_not_known(client):
    with pytest.raises(ccxt.BaseError):
        client.create_order(BTC, "limit", "sell", 0.1, 10_000.0, {"postOnly": True})
    assert '"code":-5022,' in client.last_http_response
    with pytest.raises(ccxt.BaseError, match="-4061"):
        client.create_order(BTC, "market", "sell", 0.1, None, {"positionSide": "SHORT"})


def test_settings_of_the_account(client):
    assert client.fetch_position_mode(BTC)["hedged"] is False
    assert client.set_leverage(1, BTC)["leverage"] == 1
    assert client.set_margin_mode("cross", BTC)["msg"] == "success"
    with pytest.raises(ccxt.BaseError, match="-4059"):
        client.set_position_mode(False)
    with pytest.raises(ccxt.BaseError, match="-4068"):
        client.set_position_mode(True)
    with pytest.raises(ccxt.BaseError, match="-4028"):
        client.fapiPrivatePostLeverage({"symbol": "BTCUSDT", "leverage": 500})
    assert client.fetch_leverage_tiers([BTC])[BTC][0]["maintenanceMarginRate"] == 0.004
    assert client.fetch_trading_fee(BTC)["taker"] == 0.0004
    assert client.fetch_leverage(BTC)["longLeverage"] == 1
    assert client.fetch_trading_fees()[BTC]["info"]["feeTier"] == 0
    assert client.fapiPrivateGetMultiAssetsMargin()["multiAssetsMargin"] is False


def test_balances_agree_over_the_versions(funded, client):
    client.create_order(BTC, "market", "buy", 0.5)
    funded.advance(3)
    third, second = client.fetch_balance(), client.fetch_balance({"useV2": True})
    assert third["USDT"] == second["USDT"]
    row = client.fapiPrivateV3GetBalance()[0]
    account = client.fapiPrivateV3GetAccount()
    assert (row["balance"], float(row["availableBalance"])) == (account["totalWalletBalance"], third["USDT"]["free"])
    assert float(account["totalMarginBalance"]) == third["USDT"]["total"]  # ccxt counts the unrealised profit in
    last = client.fetch_ticker(BTC)["last"]
    assert float(account["totalInitialMargin"]) == pytest.approx(0.5 * last, abs=1e-8)
    assert float(account["totalMarginBalance"]) - float(account["totalInitialMargin"]) == pytest.approx(third["USDT"]["free"], abs=1e-6)


def test_funding_inside_a_bar_settles_at_its_close(fake_book, plain_client):
    book: Book = fake_book(perpetual=True)
    book.funding_inside[301] = RATE
    with FakeExchange(book, FREE, start=300) as fake:
        client = plain_client(fake, futures=True)
        client.load_markets()
        client.create_order(BTC, "market", "sell", 0.5)
        fake.advance(2)
        bar = client.fetch_ohlcv(BTC, "1h", limit=1)[0]
        line = client.fetch_funding_history(BTC)[0]
        assert (line["timestamp"], line["amount"]) == (bar[0] + 3_600_000, pytest.approx(0.5 * bar[4] * RATE, abs=1e-8))
        client.close()


def test_the_asynchronous_client_holds_the_same_position(funded, private_client):
    async def trade() -> tuple[float, str]:
        client = private_client(funded, futures=True, timeout_ms=2000)
        try:
            await client.load_markets()
            await client.create_order(BTC, "market", "buy", 0.2)
            await asyncio.to_thread(funded.advance)
            held = (await client.fetch_positions([BTC]))[0]
            return held["contracts"], held["side"]
        finally:
            await client.close()

    assert asyncio.run(trade()) == (0.2, "long")
    wallet = Decimal(funded.state()["accounts"]["key"]["wallet"])
    assert wallet < 100_000
    assert np.isfinite(float(wallet))


def test_trades_are_looked_for_over_a_week_at_most(funded, client):
    client.create_order(BTC, "market", "buy", 0.1)
    funded.advance()
    day, stamp = 86_400_000, client.fetch_my_trades(BTC)[-1]["timestamp"]

    def shown(**span):
        return [int(one["time"]) for one in client.fapiPrivateGetUserTrades({"symbol": "BTCUSDT", **span})]

    assert [stamp in shown(startTime=stamp - days * day) for days in (7, 8)] == [True, False]
    assert [stamp in shown(endTime=stamp + days * day) for days in (7, 8)] == [True, False]
    with pytest.raises(ccxt.BaseError, match="-4165"):
        shown(startTime=stamp - 8 * day, endTime=stamp)
    with pytest.raises(ccxt.BaseError, match="-1128"):
        shown(startTime=stamp, fromId=0)
    assert stamp in shown(fromId=0)
