"""What a reply must say to be believed. Good ones become values; each single thing that is missing or impossible makes them unreadable."""

from __future__ import annotations

from decimal import Decimal

import pytest

from cryptoalpha.execution.live import replies
from cryptoalpha.execution.live.replies import UnreadableReplyError
from cryptoalpha.execution.venue import Balance, FundingRecord, OrderReport, Position, Trade

STAMP = 1_700_000_000_123
ORDER = {
    "id": "77",
    "clientOrderId": "ca1",
    "symbol": "BTC/USDT",
    "status": "open",
    "side": "buy",
    "type": "limit",
    "amount": "2",
    "filled": "0.5",
    "average": "99",
    "price": "100",
    "timestamp": STAMP - 5,
    "lastUpdateTimestamp": STAMP,
    "info": {},
}
TRADE = {
    "id": "9",
    "order": "77",
    "symbol": "BTC/USDT",
    "side": "sell",
    "amount": "0.123456789012345678",
    "price": "100.5",
    "fee": {"cost": "-0.01", "currency": "BNB"},
    "takerOrMaker": "maker",
    "timestamp": STAMP,
}


def as_is(symbol: str) -> str:
    return symbol


def test_an_order_is_read_with_its_last_stamp_and_called_partial_once_something_is_filled():
    assert replies.order_report(ORDER, as_is) == OrderReport(
        instrument="BTC/USDT",
        client_id="ca1",
        venue_id="77",
        state="partial",
        side="buy",
        quantity=Decimal(2),
        filled=Decimal("0.5"),
        average_price=Decimal(99),
        limit_price=Decimal(100),
        at=STAMP * 1_000_000,
    )


@pytest.mark.parametrize(
    ("status", "filled", "state"),
    [
        ("open", "0", "open"),
        ("open", "1", "partial"),
        ("closed", "2", "filled"),
        ("canceled", "1", "canceled"),
        ("canceling", "0", "open"),
        ("expired", "1", "expired"),
        ("rejected", "0", "rejected"),
    ],
)
def test_every_state_of_ccxt_has_one_of_ours(status, filled, state):
    assert replies.order_report({**ORDER, "status": status, "filled": filled}, as_is).state == state


@pytest.mark.parametrize("field", ["id", "symbol", "status", "side", "amount", "filled"])
@pytest.mark.parametrize("nonsense", [None, "", [], {}, True])
def test_an_order_without_one_of_these_is_no_order(field, nonsense):
    with pytest.raises(UnreadableReplyError):
        replies.order_report({**ORDER, field: nonsense}, as_is)


@pytest.mark.parametrize("field", ["status", "side", "amount", "filled"])
@pytest.mark.parametrize("nonsense", ["x", "NaN", "Infinity", float("nan")])
def test_an_order_with_a_word_where_a_number_or_a_state_belongs_is_no_order(field, nonsense):
    with pytest.raises(UnreadableReplyError):
        replies.order_report({**ORDER, field: nonsense}, as_is)


@pytest.mark.parametrize("changes", [{"amount": "0"}, {"amount": "-1"}, {"filled": "-1"}, {"lastUpdateTimestamp": 1_700_000_000}])
def test_an_impossible_order_is_no_order(changes):
    with pytest.raises(UnreadableReplyError):
        replies.order_report({**ORDER, **changes}, as_is)


def test_an_order_without_any_stamp_is_no_order():
    with pytest.raises(UnreadableReplyError, match="stamp"):
        replies.order_report({**ORDER, "timestamp": None, "lastUpdateTimestamp": None}, as_is)


@pytest.mark.parametrize("nothing", [None, [], "<html>", b"", 0])
def test_what_is_no_object_is_nothing(nothing):
    for read in (
        lambda: replies.order_report(nothing, as_is),
        lambda: replies.trade(nothing, as_is),
        lambda: replies.balances(nothing),
        lambda: replies.position(nothing, as_is),
        lambda: replies.funding(nothing, as_is),
        lambda: replies.market_rules("v", "BTC/USDT", nothing),
    ):
        with pytest.raises(UnreadableReplyError):
            read()


def test_a_reply_to_a_cancel_names_the_order_not_the_cancel():
    raw = {**ORDER, "clientOrderId": "fresh", "info": {"origClientOrderId": "ca1", "clientOrderId": "fresh"}}
    assert replies.order_report(raw, as_is).client_id == "ca1"


def test_a_trade_keeps_every_digit_and_a_rebate_its_sign():
    assert replies.trade(TRADE, as_is) == Trade(
        instrument="BTC/USDT",
        trade_id="9",
        venue_id="77",
        side="sell",
        quantity=Decimal("0.123456789012345678"),
        price=Decimal("100.5"),
        fee=Decimal("-0.01"),
        fee_asset="BNB",
        is_maker=True,
        at=STAMP * 1_000_000,
    )


@pytest.mark.parametrize("field", ["id", "order", "symbol", "side", "amount", "price", "fee", "timestamp"])
@pytest.mark.parametrize("nonsense", [None, [], True])
def test_a_trade_without_one_of_these_is_no_trade(field, nonsense):
    with pytest.raises(UnreadableReplyError):
        replies.trade({**TRADE, field: nonsense}, as_is)


@pytest.mark.parametrize("fee", [{"cost": None, "currency": "BNB"}, {"cost": "1", "currency": None}, {"cost": "NaN", "currency": "BNB"}])
def test_a_trade_whose_fee_is_unknown_is_no_trade(fee):
    with pytest.raises(UnreadableReplyError):
        replies.trade({**TRADE, "fee": fee}, as_is)


def answer(*sizes: str, filled: str, **changes: object):
    rows = [
        {**TRADE, "id": str(n), "side": "buy", "amount": size, "order": None, "timestamp": None, **changes} for n, size in enumerate(sizes)
    ]
    raw = {**ORDER, "status": "closed", "filled": filled, "trades": rows}
    return replies.answer_trades(raw, replies.order_report(raw, as_is), as_is)


def test_executions_in_an_answer_take_the_orders_ids_and_its_stamp():
    first, second = answer("0.5", "1.5", filled="2")
    assert (first.venue_id, first.client_id, first.at, second.quantity) == ("77", "ca1", STAMP * 1_000_000, Decimal("1.5"))


@pytest.mark.parametrize(
    "found", [answer("0.5", filled="2"), answer("1", "1", filled="2", id="3"), answer("2", filled="2", side="sell"), answer(filled="2")]
)
def test_executions_that_do_not_add_up_to_the_answer_are_left_to_the_list_of_trades(found):
    assert found == ()


def test_a_spot_account_is_read_and_an_account_without_assets_is_none():
    raw = {"info": {}, "USDT": {"free": "5", "used": "2"}, "total": {"USDT": "7"}}
    assert replies.balances(raw) == {"USDT": Balance(asset="USDT", free=Decimal(5), used=Decimal(2))}
    assert replies.balances(raw)["USDT"].total == 7
    for nothing in (
        {"info": {}, "total": {}},
        {"info": {}},
        {"info": {}, "total": {"USDT": 1}},
        {**raw, "USDT": {"free": None, "used": 1}},
    ):
        with pytest.raises(UnreadableReplyError):
            replies.balances(nothing)


def test_a_futures_wallet_leaves_unrealised_profit_out():
    row = {"asset": "USDT", "walletBalance": "100", "initialMargin": "30", "marginBalance": "170", "availableBalance": "140"}
    (found,) = replies.balances({"info": {"assets": [row]}, "total": {"USDT": "170"}}).values()
    assert (found.total, found.used, found.free) == (100, 30, 70)


def test_a_short_position_is_negative_in_base_units():
    raw = {"symbol": "BTC/USDT:USDT", "contracts": "3", "contractSize": "0.1", "side": "short", "entryPrice": "50"}
    assert replies.position(raw, as_is) == Position(instrument="BTC/USDT:USDT", quantity=Decimal("-0.3"), entry_price=Decimal(50))
    with pytest.raises(UnreadableReplyError, match="neither long nor short"):
        replies.position({**raw, "side": None}, as_is)
    assert replies.position({**raw, "side": None, "contracts": "0"}, as_is).quantity == 0


def test_funding_is_read():
    raw = {"symbol": "BTC/USDT:USDT", "id": "5", "amount": "-0.2", "code": "USDT", "timestamp": STAMP}
    assert replies.funding(raw, as_is) == FundingRecord(
        instrument="BTC/USDT:USDT", record_id="5", amount=Decimal("-0.2"), asset="USDT", at=STAMP * 1_000_000
    )


@pytest.mark.parametrize("body", [{}, None, "<html>", {"code": "0"}, {"code": 0, "data": {}}, 3])
def test_an_empty_list_is_believed_only_where_the_venue_sent_a_list(body):
    with pytest.raises(UnreadableReplyError, match="a list"):
        replies.rows([], body, "its orders")


@pytest.mark.parametrize("body", [[], {"data": []}, {"result": {"list": []}}])
def test_an_empty_list_that_was_sent_is_empty(body):
    assert replies.rows([], body, "its orders") == []
    with pytest.raises(UnreadableReplyError, match="not a list"):
        replies.rows(None, body, "its orders")


def test_a_list_of_which_rows_were_left_out_is_not_believed():
    with pytest.raises(UnreadableReplyError, match="2 rows of which 1"):
        replies.rows([1], [{}, {}], "its trades")
    assert replies.rows([1], [{}, {}], "its positions", is_whole=False) == [1]


@pytest.mark.parametrize(("filled", "state"), [("2", "filled"), ("2.5", "filled"), ("1.5", "expired"), ("0", "expired")])
def test_done_with_a_rest_is_not_filled(filled, state):
    assert replies.order_report({**ORDER, "status": "closed", "filled": filled}, as_is).state == state


@pytest.mark.parametrize("info", [{"origQty": "2"}, {"origQty": "2", "executedQty": "0"}, {"q": "2", "X": "NEW", "x": "NEW"}])
def test_what_was_filled_must_stand_in_the_reply_itself(info):
    with pytest.raises(UnreadableReplyError, match="filled"):
        replies.order_report({**ORDER, "info": info}, as_is)  # ccxt says half is filled


def test_a_position_that_ccxt_left_out_is_missed():
    found = [Position(instrument="BTC/USDT:USDT", quantity=Decimal(1), entry_price=Decimal(1))]
    sent = [{"positionSide": "BOTH", "positionAmt": "1"}, {"positionSide": "BOTH", "positionAmt": "0"}]
    replies.refuse_lost_positions(found, sent)
    replies.refuse_lost_positions([], {"other": "venue"})
    with pytest.raises(UnreadableReplyError, match="1 positions"):
        replies.refuse_lost_positions([], sent)


def test_rules_without_a_lot_or_a_tick_are_not_guessed():
    market = {"precision": {"amount": "0.001", "price": "0.01"}, "limits": {"cost": {"min": "5"}}, "swap": True}
    found = replies.market_rules("binanceusdm", "BTC/USDT:USDT", market)
    assert (found.lot, found.tick, found.min_notional, found.quote) == (Decimal("0.001"), Decimal("0.01"), 5, "USDT")
    assert found.perpetual
    for precision in ({"amount": None, "price": "0.01"}, {"amount": "0.001", "price": "0"}, {}):
        with pytest.raises(UnreadableReplyError):
            replies.market_rules("v", "BTC/USDT", {**market, "precision": precision})


def test_one_trade_id_with_two_contents_is_refused_and_a_repeat_is_one_trade():
    one = replies.trade(TRADE, as_is)
    assert replies.distinct([one, one]) == [one]
    with pytest.raises(UnreadableReplyError, match="two trades"):
        replies.distinct([one, replies.trade({**TRADE, "amount": "1"}, as_is)])


def test_ids_that_are_numbers_sort_as_numbers():
    assert sorted(["10", "9", "100"], key=replies.id_order) == ["9", "10", "100"]


@pytest.mark.parametrize("raw", [None, "0", "-1", "NaN", [], True])
def test_a_price_that_is_none_is_refused(raw):
    with pytest.raises(UnreadableReplyError):
        replies.price(raw, "the price")
    assert replies.price("0.5", "the price") == Decimal("0.5")
