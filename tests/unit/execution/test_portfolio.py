"""The books: exact, and loud when they do not add up."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest

from cryptoalpha.core.errors import AccountingError, ConfigError
from cryptoalpha.core.values import Adjustment, Fill, FundingPayment
from cryptoalpha.execution.portfolio import Portfolio

NAN = float("nan")


def fill(side="buy", quantity="2", price="100.5", fee="0.201", trade="t1", name="BTC/USDT") -> Fill:
    return Fill(
        happened_at=1,
        known_at=2,
        trade_id=trade,
        client_id="c",
        instrument=name,
        side=side,
        quantity=Decimal(quantity),
        price=Decimal(price),
        fee=Decimal(fee),
        fee_asset="USDT",
    )


def payment(amount: str, position: str = "2") -> FundingPayment:
    return FundingPayment(happened_at=1, known_at=2, instrument="BTC/USDT", position=Decimal(position), rate=1e-4, amount=Decimal(amount))


def book(cash="1000", perpetual=()) -> Portfolio:
    return Portfolio(Decimal(cash), ("ETH/USDT", "BTC/USDT"), perpetual)


def test_a_round_trip_is_exact():
    portfolio = book()
    portfolio.apply(fill())
    assert portfolio.cash == Decimal("798.799")
    assert portfolio.position("BTC/USDT") == 2
    portfolio.apply(fill("sell", price="110.1", trade="t2", fee="0.2202"))
    assert portfolio.cash == Decimal("1018.7788")
    assert portfolio.positions == ()
    assert portfolio.fees_paid == Decimal("0.4212")


def test_the_mark_uses_prices_in_the_order_of_the_instruments_and_keeps_the_last_known_one():
    portfolio = book()
    portfolio.apply(fill())
    state = portfolio.mark(5, [7.0, 101.25])
    assert (state.equity, state.cash, state.positions) == (Decimal("1001.299"), Decimal("798.799"), (("BTC/USDT", Decimal(2)),))
    assert (state.happened_at, state.known_at) == (5, 5)
    assert portfolio.mark(6, [NAN, NAN]).equity == Decimal("1001.299")


def test_a_position_never_marked_is_worth_what_it_was_bought_at():
    portfolio = book()
    portfolio.apply(fill())
    assert portfolio.mark(3, [NAN, NAN]).equity == Decimal("999.799")


def test_the_peak_never_falls():
    portfolio = book()
    portfolio.apply(fill())
    assert portfolio.mark(3, [1.0, 200.0]).peak_equity == Decimal("1198.799")
    state = portfolio.mark(4, [1.0, 100.0])
    assert state.peak_equity == Decimal("1198.799")
    assert state.drawdown == pytest.approx(1 - 998.799 / 1198.799)


def test_a_float_price_comes_through_as_printed():
    portfolio = book()
    portfolio.apply(fill(quantity="1", price="0.1", fee="0"))
    assert portfolio.mark(3, [1.0, 0.3]).equity == Decimal("1000.2")


def test_a_trade_counts_once():
    portfolio = book()
    portfolio.apply(fill())
    with pytest.raises(AccountingError, match="booked already"):
        portfolio.apply(fill())


def test_spending_money_that_is_not_there_stops_the_run():
    with pytest.raises(AccountingError, match=r"cash is -\S+ after trade t1"):
        book("100").apply(fill())


def test_funding_is_booked_on_the_position_held():
    portfolio = book(perpetual=("BTC/USDT",))
    portfolio.apply(fill())
    portfolio.apply(payment("-0.02"))
    assert (portfolio.cash, portfolio.funding_received) == (Decimal("798.779"), Decimal("-0.02"))
    with pytest.raises(AccountingError, match="was paid on 3, but the book holds 2"):
        portfolio.apply(payment("-0.02", position="3"))


def test_a_perpetual_may_owe_funding_beyond_its_cash_and_spot_may_not():
    for perpetual in (("BTC/USDT",), ()):
        portfolio = book("201.201", perpetual)
        portfolio.apply(fill())
        assert portfolio.cash == 0
        if perpetual:
            portfolio.apply(payment("-0.02"))
            assert portfolio.mark(3, [1.0, 100.0]).equity == Decimal("199.98")
        else:
            with pytest.raises(AccountingError, match="after funding of BTC/USDT"):
                portfolio.apply(payment("-0.02"))


def test_a_ruined_account_stops_the_run():
    portfolio = book("1000")
    portfolio.apply(fill("sell", quantity="9", price="100", fee="0"))
    assert portfolio.mark(3, [1.0, 150.0]).equity == 550
    with pytest.raises(AccountingError, match="bankrupt"):
        portfolio.mark(4, [1.0, 212.0])


def test_an_instrument_from_elsewhere_is_refused():
    with pytest.raises(AccountingError, match="XRP/USDT is not in this book"):
        book().apply(fill(name="XRP/USDT"))


@pytest.mark.parametrize("cash", [Decimal(0), -1.0])
def test_an_account_starts_with_money(cash):
    with pytest.raises(ConfigError, match="cannot start"):
        Portfolio(cash, ("BTC/USDT",))


def test_free_cash_is_equity_less_gross():
    portfolio = book("1000")
    portfolio.apply(fill("sell", quantity="3", price="100", fee="0", name="ETH/USDT", trade="a"))
    portfolio.apply(fill("buy", quantity="2", price="100", fee="0", trade="b"))
    # equity 1,000; gross 500 at 100 each; a short at 110 costs twice its rise
    assert portfolio.free_cash([100.0, 100.0]) == 500
    assert portfolio.free_cash([110.0, 100.0]) == 440
    assert portfolio.free_cash([NAN, 100.0]) == 500


@pytest.mark.parametrize(
    ("held", "side", "quantity", "expected"),
    [
        (None, "buy", "9", "9"),  # 1,000 buys 9 at 110
        (None, "buy", "10", "9.090909"),  # 1,000 / 110
        (("buy", "5"), "sell", "5", "5"),  # closing is always covered
        (("buy", "5"), "sell", "20", "14.545454"),  # closing 5 at 110 leaves 1,050: 5 + 1,050 / 110
        (("sell", "5"), "buy", "30", "13.636363"),  # 1,500 − 2·550 = 400 free, closing frees 5·(220 − 110): 5 + 950 / 110
    ],
)
def test_exposure_grows_only_by_free_cash(held, side, quantity, expected):
    portfolio = book("1000")
    if held is not None:
        portfolio.apply(fill(held[0], held[1], "100", "0", name="BTC/USDT"))
    covered = portfolio.covered("BTC/USDT", side, Decimal(quantity), Decimal(110), Decimal(0), [1.0, 110.0])
    assert float(covered) == pytest.approx(float(expected), abs=1e-6)


def test_a_fee_in_the_asset_traded_makes_the_position_smaller_and_leaves_cash_alone():
    portfolio = book()
    portfolio.apply(msgspec.structs.replace(fill(fee="0.002"), fee_asset="BTC", fee_value=Decimal("0.201")))
    assert (portfolio.cash, portfolio.position("BTC/USDT"), portfolio.fees_paid) == (799, Decimal("1.998"), Decimal("0.201"))


def test_a_fee_in_a_third_asset_costs_what_it_was_worth():
    portfolio = book()
    portfolio.apply(msgspec.structs.replace(fill(fee="0.0004"), fee_asset="BNB", fee_value=Decimal("0.19")))
    assert (portfolio.cash, portfolio.position("BTC/USDT"), portfolio.fees_paid) == (Decimal("798.81"), 2, Decimal("0.19"))


def test_a_venue_counts_its_trades_by_instrument():
    portfolio = book()
    portfolio.apply(fill(quantity="1"))
    portfolio.apply(fill(quantity="1", name="ETH/USDT"))
    assert len(portfolio.positions) == 2


def test_what_others_did_moves_the_book_once():
    portfolio = book()
    portfolio.apply(fill())
    sold = Adjustment(
        happened_at=3,
        known_at=4,
        instrument="BTC/USDT",
        quantity=Decimal(-2),
        cash=Decimal(210),
        price=Decimal(105),
        source="t9",
        message="",
    )
    portfolio.apply(sold)
    assert (portfolio.cash, portfolio.positions) == (Decimal("1008.799"), ())
    with pytest.raises(AccountingError, match="adjustment t9 of BTC/USDT is booked already"):
        portfolio.apply(sold)


def test_a_venues_trades_may_become_known_in_any_order():
    """The sale that paid for a purchase is told after it; funding was paid on what was held before a trade that was told first."""
    portfolio = Portfolio(Decimal(1000), ("ETH/USDT", "BTC/USDT"), may_overdraw=True)
    portfolio.apply(fill(quantity="12", price="100", fee="0"))
    assert portfolio.cash == -200
    portfolio.apply(fill("sell", quantity="12", price="101", fee="0", trade="t2"))
    portfolio.apply(payment("-0.5", position="12"))
    assert portfolio.cash == Decimal("1011.5")
