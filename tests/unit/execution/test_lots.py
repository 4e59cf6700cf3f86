"""Lots and average cost by hand, and both against the change of equity."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalpha.core.values import Adjustment, Fill, FundingPayment, Refusal
from cryptoalpha.execution.lots import LotBook
from cryptoalpha.execution.money import settle
from cryptoalpha.execution.portfolio import Portfolio

D = Decimal
NAME = "BTC/USDT"


def fill(n: int, side: str, quantity: str, price: str, fee: str = "0", asset: str = "USDT", value: str | None = None) -> Fill:
    return Fill(
        happened_at=n,
        known_at=n,
        trade_id=f"t{n}",
        client_id="ca",
        instrument=NAME,
        side=side,
        quantity=D(quantity),
        price=D(price),
        fee=D(fee),
        fee_asset=asset,
        fee_value=None if value is None else D(value),
    )


def test_first_in_first_out_and_average_cost_by_hand():
    book = LotBook.of([fill(1, "buy", "2", "100"), fill(2, "buy", "1", "130"), fill(3, "sell", "2.5", "120")])
    standing = book.standing(NAME)
    assert standing.realised == 2 * 20 - D("0.5") * 10  # the first lot whole, half of the second
    assert standing.realised_by_average == D("2.5") * 10  # (2·100 + 130) / 3 = 110
    assert standing.average_cost == 110
    assert [(lot.quantity, lot.price, lot.trade_id) for lot in book.lots(NAME)] == [(D("0.5"), 130, "t2")]
    assert book.unrealised(NAME, D(120)) == D("0.5") * -10
    assert standing.unrealised(D(120)) == D("0.5") * 10
    assert [(c.quantity, c.bought_by, c.sold_by, c.profit) for c in book.closed] == [(2, "t1", "t3", 40), (D("0.5"), "t2", "t3", D(-5))]


def test_a_short_earns_when_it_falls_and_a_trade_through_zero_closes_and_opens():
    book = LotBook.of([fill(1, "sell", "2", "100"), fill(2, "buy", "3", "90"), fill(3, "sell", "1", "95")])
    standing = book.standing(NAME)
    assert standing.realised == standing.realised_by_average == 2 * 10 + 5
    assert (standing.quantity, standing.average_cost, book.lots(NAME)) == (0, None, ())


def test_fees_of_every_kind_are_kept_apart_from_profit():
    events = [
        fill(1, "buy", "1", "100", "0.1"),
        fill(2, "buy", "1", "100", "0.001", "BTC", "0.1"),
        fill(3, "buy", "1", "100", "0.0005", "BNB", "0.15"),
    ]
    standing = LotBook.of(events).standing(NAME)
    assert standing.fees == D("0.35")
    assert standing.quantity == D("2.999")
    assert standing.realised == 0
    assert LotBook.of(events).profit({NAME: D(110)}) == D("2.999") * 10 - D("0.35")


def test_what_others_took_is_a_transfer_and_what_they_paid_for_it_is_not():
    sold = Adjustment(happened_at=2, known_at=2, instrument=NAME, quantity=D(-1), cash=D(120), price=D(120), source="a", message="")
    taken = Adjustment(happened_at=3, known_at=3, instrument=NAME, quantity=D(-1), cash=D(0), price=D(120), source="b", message="")
    book = LotBook.of([fill(1, "buy", "2", "100"), sold, taken])
    assert book.standing(NAME).transferred == -120
    assert book.profit({}) == 40


def test_a_quiet_book_says_nothing_of_round_trips_and_knows_nothing_of_strangers():
    book = LotBook(keep_closed=False)
    for event in (fill(1, "buy", "1", "100"), fill(2, "sell", "1", "101")):
        book.apply(event)
    assert book.closed == []
    assert book.standings()[NAME].realised == 1
    assert book.standing("ETH/USDT").quantity == 0
    assert book.lots("ETH/USDT") == ()
    assert LotBook.of([Refusal(happened_at=0, known_at=0, instrument=NAME, rule="r", message="")]).standings() == {}


@st.composite
def histories(draw):
    events, known = [], st.sampled_from(["USDT", "BTC", "BNB"])
    for n in range(draw(st.integers(1, 25))):
        quantity, price = D(draw(st.integers(1, 5000))) / 1000, D(draw(st.integers(500, 20000))) / 100
        kind = draw(st.sampled_from(["fill", "fill", "fill", "funding", "adjustment"]))
        if kind == "funding":
            events.append(("funding", D(draw(st.integers(-100, 100))) / 100))
        elif kind == "adjustment":
            cash = draw(st.sampled_from([D(0), -quantity * price]))
            events.append(
                Adjustment(
                    happened_at=n, known_at=n, instrument=NAME, quantity=quantity, cash=cash, price=price, source=f"s{n}", message=""
                )
            )
        else:
            asset = draw(known)
            fee = {"USDT": settle(quantity * price / 1000), "BTC": quantity / 1000, "BNB": D("0.01")}[asset]
            value = {"USDT": None, "BTC": str(fee * price), "BNB": "2.5"}[asset]
            events.append(fill(n, draw(st.sampled_from(["buy", "sell"])), str(quantity), str(price), str(fee), asset, value))
    return events


@settings(max_examples=50, deadline=None)
@given(events=histories(), last=st.integers(500, 20000))
def test_profit_is_the_change_of_equity_less_transfers_to_the_last_digit(events, last):
    """The books say it with cash and positions, the lots with purchases and sales: two ways to the same number."""
    price = D(last) / 100
    books, lots = Portfolio(D(10_000_000), [NAME], may_overdraw=True), LotBook()
    for n, event in enumerate(events):
        if isinstance(event, tuple):
            event = FundingPayment(happened_at=n, known_at=n, instrument=NAME, position=books.position(NAME), rate=0.0, amount=event[1])
        books.apply(event)
        lots.apply(event)
    standing = lots.standing(NAME)
    equity = books.cash + books.position(NAME) * price
    assert equity - 10_000_000 == lots.profit({NAME: price}) + standing.transferred
    assert standing.quantity == books.position(NAME) == sum((lot.quantity for lot in lots.lots(NAME)), D(0))
    assert standing.realised + lots.unrealised(NAME, price) == standing.realised_by_average + standing.unrealised(price)
    assert standing.realised == sum((closed.profit for closed in lots.closed), D(0))
