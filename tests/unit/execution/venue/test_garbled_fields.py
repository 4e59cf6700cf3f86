"""One field of a good reply is lost or spoilt: through real ccxt, nothing is believed that the venue has not said.

ccxt fills such holes quietly: a filled quantity that is missing becomes zero, a trade without a side a sale, a position without an entry
price is left out, and its side is read off its value. Each of these was found by this test.
"""

from __future__ import annotations

import copy
import json
from decimal import Decimal

import pytest

from cryptoalpha.execution.fake_exchange.server import Route
from cryptoalpha.execution.venue import Ambiguous, UnclearError

ORDER = ("orderId", "status", "side", "origQty", "executedQty", "clientOrderId")
"""Not the symbol: the question named it."""
SPOT_TRADE = ("id", "orderId", "price", "qty", "commission", "commissionAsset", "time", "isBuyer")
FUTURES_TRADE = ("id", "orderId", "price", "qty", "commission", "commissionAsset", "time", "side")
FUNDING = ("symbol", "income", "asset", "time", "tranId")
SPOT, FUTURES = ("exchange", "binance", "BTC/USDT"), ("futures", "binanceusdm", "BTC/USDT:USDT")
CASES = [
    (SPOT, "/api/v3/order", ORDER, lambda venue, one: venue.query(one.instrument, one.client_id)),
    (SPOT, "/api/v3/openOrders", ORDER[:-1], lambda venue, one: venue.open_orders(one.instrument)),
    (SPOT, "/api/v3/myTrades", SPOT_TRADE, lambda venue, one: venue.trades(one.instrument, after="0", since=0)),
    (FUTURES, "/fapi/v1/order", ORDER, lambda venue, one: venue.query(one.instrument, one.client_id)),
    (FUTURES, "/fapi/v1/openOrders", ORDER[:-1], lambda venue, one: venue.open_orders(one.instrument)),
    (FUTURES, "/fapi/v1/userTrades", FUTURES_TRADE, lambda venue, one: venue.trades(one.instrument, after="0", since=0)),
    (FUTURES, "/fapi/v3/positionRisk", ("positionAmt", "entryPrice", "notional"), lambda venue, one: venue.positions()),
    (FUTURES, "/fapi/v1/income", FUNDING, lambda venue, one: venue.funding(0)),
]
HOLES = (None, "", [], {}, "x")


@pytest.mark.parametrize(("market", "path", "fields", "read"), CASES, ids=[case[1] for case in CASES])
def test_a_hole_in_a_reply_is_never_filled(request, on_venue, order, market, path, fields, read):
    fixture, venue_id, name = market
    fake = request.getfixturevalue(fixture)
    sent = order("buy", "2", instrument=name)
    resting = order("buy", "2", instrument=name, type="limit", limit_price=Decimal(50))
    words = ("orderId", "symbol", "commissionAsset", "clientOrderId", "tranId", "asset")  # "x" is a word like others there

    async def use(venue):
        await venue.submit(sent)
        fake.advance(7)
        await venue.submit(resting)
        body = json.loads(json.dumps(await record(venue, lambda: read(venue, sent))))
        real = fake.server.routes["GET", path]
        for field in fields:
            for hole in HOLES:
                spoilt = copy.deepcopy(body)
                row = spoilt[0] if isinstance(spoilt, list) else spoilt
                assert row.pop(field) is not None
                if hole != "":
                    row[field] = hole
                if hole == "x" and field in words:
                    continue
                fake.server.routes["GET", path] = Route(lambda call, spoilt=spoilt: spoilt, "signed")
                try:
                    found = await read(venue, sent)
                except UnclearError:
                    continue
                assert isinstance(found, Ambiguous), f"{field} = {hole!r} was read as {found}"
        fake.server.routes["GET", path] = real
        return await read(venue, sent)

    on_venue(fake, use, venue=venue_id)


async def record(venue, ask):
    """The JSON of the last reply while `ask` runs; its answer must be good."""
    bodies = []
    heard = venue._client.on_rest_response

    def hear(*reply):
        bodies.append(json.loads(reply[5]))
        return heard(*reply)

    venue._client.on_rest_response = hear
    answer = await ask()
    venue._client.on_rest_response = heard
    assert answer
    assert not isinstance(answer, Ambiguous)
    return next(body for body in reversed(bodies) if body)


@pytest.mark.parametrize(
    "changes",
    [
        {"clientOrderId": "another"},
        {"clientOrderId": None},
        {"side": "SELL"},
        {"symbol": "ETHUSDT"},
        {"status": "SOMETHING_NEW"},
        {"orderId": None},
        {"executedQty": None},
        {"transactTime": 1_700_000_000},
    ],
)
def test_an_answer_to_an_order_that_is_not_wholly_about_it_settles_nothing(exchange, on_venue, order, changes, monkeypatch):
    sent = order("buy", "1", type="limit", limit_price=Decimal(50))
    route = exchange.server.routes["POST", "/api/v3/order"]

    def spoil(call):
        answer = {**route.answer(call), **changes}
        return {name: value for name, value in answer.items() if value is not None}

    async def use(venue):
        monkeypatch.setitem(exchange.server.routes, ("POST", "/api/v3/order"), Route(spoil, "signed"))
        return await venue.submit(sent), await venue.query("BTC/USDT", sent.client_id)

    answer, found = on_venue(exchange, use)
    assert isinstance(answer, Ambiguous)
    assert answer.refusal is None
    assert found.state == "open"  # it lives, as the question shows


def test_executions_in_the_answer_of_a_market_order_are_taken_where_they_add_up(exchange, on_venue, order, monkeypatch):
    route = exchange.server.routes["POST", "/api/v3/order"]
    fill = {"price": "101", "qty": "1.00000000", "commission": "0.101", "commissionAsset": "USDT", "tradeId": 7}

    def filled(call):
        return {**route.answer(call), "status": "FILLED", "executedQty": "1.00000000", "cummulativeQuoteQty": "101", "fills": [fill]}

    async def use(venue):
        monkeypatch.setitem(exchange.server.routes, ("POST", "/api/v3/order"), Route(filled, "signed"))
        return await venue.submit(order("buy", "1")), await venue.submit(order("buy", "2"))

    whole, half = on_venue(exchange, use)
    (trade,) = whole.trades
    assert (trade.trade_id, trade.venue_id, trade.quantity, trade.fee, trade.at) == (
        "7",
        whole.report.venue_id,
        1,
        Decimal("0.101"),
        whole.report.at,
    )
    assert half.report.state == "expired"  # said to be filled, and one of two was


def test_no_digit_of_a_large_quantity_is_lost_on_the_way(exchange, on_venue, order, monkeypatch):
    route = exchange.server.routes["GET", "/api/v3/myTrades"]

    def large(call):
        return [{**row, "qty": "1234567890123.12345678", "commission": "9007199254740993.00000001"} for row in route.answer(call)]

    async def use(venue):
        await venue.submit(order("buy", "1"))
        exchange.advance()
        monkeypatch.setitem(exchange.server.routes, ("GET", "/api/v3/myTrades"), Route(large, "signed"))
        return await venue.trades("BTC/USDT", after=None, since=0)

    (found,) = on_venue(exchange, use)
    assert (found.quantity, found.fee) == (Decimal("1234567890123.12345678"), Decimal("9007199254740993.00000001"))
