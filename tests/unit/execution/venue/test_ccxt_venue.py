"""Every question and every order of the venue protocol, through real ccxt, against a fake exchange over HTTP."""

from __future__ import annotations

from decimal import Decimal

from cryptoalpha.execution.venue import Accepted, NotFound, OrderReport, Rejected


def test_a_market_order_is_sent_under_our_id_and_its_trade_found_by_id(exchange, on_venue, order):
    bought = order("buy", "2")

    async def use(venue):
        answer = await venue.submit(bought)
        exchange.advance()
        report = await venue.query("BTC/USDT", bought.client_id)
        trades = await venue.trades("BTC/USDT", after=None, since=0)
        again = await venue.trades("BTC/USDT", after=trades[-1].trade_id, since=0)
        return answer, report, trades, again, await venue.balances()

    answer, report, trades, again, balances = on_venue(exchange, use)
    assert isinstance(answer, Accepted)
    assert answer.report.client_id == bought.client_id
    assert answer.report.state == "open"
    assert isinstance(report, OrderReport)
    assert report.state == "filled"
    assert report.filled == 2
    assert report.average_price == 101
    (trade,) = trades
    assert (trade.quantity, trade.price, trade.fee, trade.fee_asset) == (Decimal(2), Decimal(101), Decimal("0.202"), "USDT")
    assert trade.venue_id == report.venue_id
    assert again == []
    assert balances["BTC"].free == 2
    assert balances["USDT"].total == Decimal("100000") - 202 - Decimal("0.202")


def test_a_resting_order_is_listed_and_cancelled_by_our_id(exchange, on_venue, order):
    resting = order("buy", "1", type="limit", limit_price=Decimal("50"))

    async def use(venue):
        await venue.submit(resting)
        listed = await venue.open_orders("BTC/USDT")
        ended = await venue.cancel("BTC/USDT", resting.client_id)
        return listed, ended, await venue.open_orders("BTC/USDT"), await venue.cancel("BTC/USDT", resting.client_id)

    listed, ended, left, again = on_venue(exchange, use)
    assert [one.client_id for one in listed] == [resting.client_id]
    assert listed[0].limit_price == 50
    assert isinstance(ended, OrderReport)
    assert ended.state == "canceled"
    assert ended.client_id == resting.client_id
    assert left == []
    assert isinstance(again, NotFound)


def test_an_order_nobody_knows_is_not_found(exchange, on_venue):
    async def use(venue):
        return await venue.query("BTC/USDT", "ca" + "0" * 30), await venue.cancel("BTC/USDT", "ca" + "0" * 30)

    assert all(isinstance(found, NotFound) for found in on_venue(exchange, use))


def test_too_little_money_is_a_refusal_with_the_venues_code(exchange, on_venue, order):
    async def use(venue):
        return await venue.submit(order("buy", "100000", type="limit", limit_price=Decimal("90")))

    answer = on_venue(exchange, use)
    assert isinstance(answer, Rejected)
    assert answer.code == "-2010"
