"""Reconciliation, one situation after the other."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import msgspec
import pytest

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.time import SECOND
from cryptoalpha.core.values import Adjustment, Fill, FundingPayment, Order
from cryptoalpha.execution.venue import OrderReport, UnclearError

D = Decimal
BTC, BNB = "BTC/USDT", "BNB/USDT"


def test_a_run_begins_with_its_cash_and_the_rest_is_never_its_own(worlds):
    world = worlds("5000", before=lambda desk: desk.move("BTC", D(3)))
    desk = world.desk
    assert (world.reconciler.book.cash, world.reconciler.book.position(BTC)) == (1000, 0)
    assert (world.reconciler.book.foreign["USDT"], world.reconciler.book.foreign["BTC"]) == (4000, 3)
    desk.move("USDT", D(50))
    world.start()
    assert world.reconciler.book.opening.assets["USDT"] == 5000  # recorded once
    world.close()


def test_less_cash_than_the_run_is_to_begin_with_is_refused_and_nothing_is_recorded(worlds):
    with pytest.raises(ConfigError, match=r"1000\.0 USDT, but 999 are free") as caught:
        worlds("999")
    assert "execution.initial_cash" in caught.value.hint


def test_trades_before_the_run_and_books_that_agree_are_nothing_to_speak_of(worlds):
    world = worlds("2000", before=lambda desk: desk.trade("buy", "1", "100"))
    desk = world.desk
    world.order("ca1", "buy", "2")
    desk.fill("ca1", "2", "100", "0.2")
    found = world.look()
    assert (found.breaks, found.alerts, found.stop_entries) == ((), (), False)
    assert [one.quantity for one in world.told(Fill)] == [2]
    world.check()
    world.close()


def test_every_fee_adds_up_to_the_venues_balances(worlds):
    world = worlds("2000", before=lambda desk: desk.move("BNB", D(10)))
    desk = world.desk
    world.order("ca1", "buy", "3")
    desk.fill("ca1", "1", "100", "0.1")
    desk.fill("ca1", "1", "100", "0.001", "BTC")
    desk.fill("ca1", "1", "100", "0.0015", "BNB")
    world.look()
    assert [one.fee_value for one in world.told(Fill)] == [None, D("0.1"), D("0.075")]
    assert world.reconciler.book.position(BTC) == D("2.999")
    assert world.reconciler.book.cash == 1000 - 300 - D("0.1") - D("0.075")
    assert world.reconciler.book.expected("BNB") == desk.wallet["BNB"]
    world.check()
    world.close()


def test_fees_that_eat_an_asset_of_the_book_itself_are_paid_by_it(worlds):
    """The run holds BNB, there is none beside it, and a fee is paid in it: 0.5 BNB at 50 become 25 of cash."""
    world = worlds(names=(BTC, BNB))
    desk = world.desk
    world.order("ca1", "buy", "1")
    asyncio.run(world.intake.report(desk.orders["ca1"]))
    at = desk.clock.now()
    order = Order(happened_at=at, known_at=at, client_id="ca2", instrument=BNB, side="buy", quantity=D(2))
    world.intake.take(order, world.journal.append(at, [order]) << 16)
    desk.orders["ca2"] = OrderReport(
        instrument=BNB, client_id="ca2", venue_id="v9", state="filled", side="buy", quantity=D(2), filled=D(2), at=at
    )
    asyncio.run(world.intake.report(desk.orders["ca2"], [desk.trade("buy", "2", "50", venue_id="v9", name=BNB)]))
    desk.fill("ca1", "1", "100", "0.5", "BNB")
    world.settle()
    assert world.reconciler.book.position(BNB) == D("1.5")
    assert world.reconciler.book.cash == 1000 - 200 - 25 + 25
    world.check()
    world.close()


def test_what_lags_is_suspected_and_what_stands_stops_entries(world):
    world.desk.move("USDT", D(-30))
    first = world.look()
    assert [(one.invariant, one.stands) for one in first.breaks] == [("I3", False)]
    assert not first.stop_entries
    again = world.look(1.0)
    assert not again.stop_entries  # too soon after the first to count
    second = world.look()
    assert second.stop_entries
    assert any("I3" in text for text in second.alerts)
    assert [(one.cash, one.quantity) for one in world.told(Adjustment)] == [(-30, 0)]
    assert not world.look().stop_entries
    world.check()


def test_balances_that_lag_for_one_look_change_nothing(world):
    world.order("ca1", "buy", "1")
    world.desk.frozen = asyncio.run(world.desk.balances())
    world.desk.fill("ca1", "1", "100")
    assert len(world.look().breaks) == 2
    world.desk.frozen = None
    assert not world.look().breaks
    assert world.told(Adjustment) == []
    world.check()


def test_money_that_comes_is_others_and_money_that_goes_is_theirs_first(world):
    world.desk.move("USDT", D(500))
    world.settle()
    assert (world.reconciler.book.cash, world.reconciler.book.foreign["USDT"]) == (1000, 500)
    world.desk.move("USDT", D(-700))
    world.settle()
    assert (world.reconciler.book.cash, world.reconciler.book.foreign["USDT"]) == (800, 0)
    world.desk.move("USDT", D(250))  # what was taken from the run comes back to it first
    world.settle()
    assert (world.reconciler.book.cash, world.reconciler.book.foreign["USDT"]) == (1000, 50)
    assert [one.cash for one in world.told(Adjustment)] == [-200, 200]
    world.check()


def test_what_was_settled_is_remembered_over_a_restart(world):
    """The same withdrawal twice is two; what comes back is known to have been the run's."""
    for left in (970, 940):
        world.desk.move("USDT", D(-30))
        world.settle()
        world.start()
        assert world.reconciler.book.cash == left
    world.desk.move("USDT", D(60))
    world.settle()
    assert (world.reconciler.book.cash, world.reconciler.book.foreign["USDT"]) == (1000, 0)
    world.check()


def test_an_unclear_answer_concludes_nothing(world):
    world.desk.move("USDT", D(-30))
    world.look()
    for question in ("trades", "open_orders", "balances"):
        world.desk.silent = question
        with pytest.raises(UnclearError):
            world.look()
    assert world.told(Adjustment) == []


def test_dust_is_settled_without_a_word(world):
    world.order("ca1", "buy", "1")
    world.desk.fill("ca1", "1", "100")
    world.desk.move("BTC", D("-0.0004"))
    found = world.settle()
    assert not any(look.stop_entries or look.alerts for look in found)
    assert world.reconciler.book.position(BTC) == D("0.9996")
    world.check()


# ── others on the account (R4) ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_manual_sale_of_the_runs_coins_is_an_adjustment_and_no_trade(world):
    """nautilus#4736: the venue's smaller position must not become an opposite fill of the strategy."""
    world.order("ca1", "buy", "2")
    world.desk.fill("ca1", "2", "100")
    world.look()
    world.desk.trade("sell", "1.5", "110", "0.1")
    found = world.look()
    assert [one.side for one in world.told(Fill)] == ["buy"]
    assert [(one.quantity, one.cash, one.source) for one in world.told(Adjustment)] == [(D("-1.5"), D("164.9"), f"trade {BTC} 2")]
    assert any("another hand" in text for text in found.alerts)
    world.check()


def test_a_stranger_sells_his_own_first(worlds):
    world = worlds("2000", before=lambda desk: desk.move("BTC", D(1)))
    desk = world.desk
    world.order("ca1", "buy", "2")
    desk.fill("ca1", "2", "100")
    world.look()
    desk.trade("sell", "1.5", "120")
    world.look()
    assert [(one.quantity, one.cash) for one in world.told(Adjustment)] == [(D("-0.5"), 60)]
    assert world.reconciler.book.position(BTC) == D("1.5")
    world.check()
    world.close()


def test_foreign_orders_are_shown_and_orders_with_our_mark_that_are_not_ours_stop_entries(world):
    world.desk.open("web_1", "buy", "1")
    found = world.look()
    assert [one.client_id for one in found.foreign_orders] == ["web_1"]
    assert len(found.alerts) == 1
    assert world.look().alerts == ()
    world.desk.open("ca" + "0" * 30, "buy", "1")
    world.look()
    assert world.look().stop_entries
    assert "cancel" not in world.desk.asked


def test_an_order_held_for_absent_whose_trades_turn_up_is_ours(world):
    """nautilus#3104, nautilus#4958: the answer was lost, the order was given up, and it lived on."""
    world.order("ca1", "buy", "1", is_known=False)
    record = msgspec.structs.replace(world.intake.working["ca1"].tracked.record, state="absent", ended=True, sent_at=1)
    world.ledger.write(at=1, records=[record])
    world.start()
    world.desk.fill("ca1", "1", "100")
    world.settle()
    assert [one.client_id for one in world.told(Fill)] == ["ca1"]
    assert world.told(Adjustment) == []
    assert world.intake.distrust
    world.check()


def test_trades_wait_while_an_order_of_ours_has_no_venue_id(world):
    """nautilus#3023, hummingbot#8457: an outage hid the acknowledgement; the trades must not be called a stranger's meanwhile."""
    world.order("ca1", "buy", "1", is_known=False)
    world.desk.fill("ca1", "1", "100")
    for _ in range(3):
        assert world.look().outcomes == ()
    assert (world.told(Fill), world.told(Adjustment)) == ([], [])
    asyncio.run(world.intake.report(world.desk.orders["ca1"]))
    world.look()
    assert [one.client_id for one in world.told(Fill)] == ["ca1"]
    world.check()


def test_a_strangers_trade_is_found_however_long_an_order_of_ours_stays_unknown(world):
    """Longer than the lists of trades are read again by themselves."""
    world.order("ca1", "buy", "1", is_known=False)
    ours = world.desk.orders.pop("ca1")  # shown in no list yet
    world.desk.trade("buy", "2", "100")
    for _ in range(4):
        assert world.look(900.0).outcomes == ()
    world.desk.trade("buy", "1", "100")
    world.look(900.0)
    world.desk.orders["ca1"] = ours
    world.desk.end("ca1")
    asyncio.run(world.intake.report(world.desk.orders["ca1"]))
    world.look()
    assert [(one.quantity, one.cash) for one in world.told(Adjustment)] == [(2, -200), (1, -100)]
    world.check()


def test_a_mark_like_ours_on_an_order_of_another_run_makes_its_trades_no_fills(world):
    world.desk.book.append(msgspec.structs.replace(world.desk.trade("buy", "1", "100"), client_id="ca" + "7" * 30))
    del world.desk.book[0]
    world.look()
    assert world.told(Fill) == []
    assert [one.quantity for one in world.told(Adjustment)] == [1]
    world.check()


def test_a_fee_in_a_third_asset_is_worth_what_it_is_at_each_trade(worlds, monkeypatch):
    world = worlds("1500", before=lambda desk: desk.move("BNB", Decimal(5)))
    for name, price in (("ca1", 50), ("ca2", 70)):
        monkeypatch.setitem(type(world.desk).price.__globals__["PRICES"], "BNB/USDT", Decimal(price))
        world.order(name, "buy", "1")
        world.desk.fill(name, "1", "100", "0.01", "BNB")
        world.look()
    assert [one.fee_value for one in world.told(Fill)] == [Decimal("0.5"), Decimal("0.7")]
    world.check()
    world.close()


def test_what_is_held_to_size_a_way_out_is_less_the_fees_in_coins_and_what_others_took(worlds):
    world = worlds("1000")
    world.order("ca1", "buy", "2")
    world.desk.fill("ca1", "2", "100", "0.003", "BTC")
    world.look()
    assert world.intake.position("BTC/USDT") == Decimal("1.997")
    world.desk.trade("sell", "0.5", "100")
    world.look()
    assert world.intake.position("BTC/USDT") == Decimal("1.497") == world.portfolio().position("BTC/USDT")
    world.close()


def test_a_fill_that_races_its_cancel_is_booked_before_the_end(world):
    """freqtrade#3647, OctoBot#3190: cancelled at the venue with a part filled that nobody had heard of; restarted in between."""
    world.order("ca1", "buy", "2")
    world.desk.fill("ca1", "0.7", "100")
    world.desk.end("ca1")
    world.start()
    world.look()
    assert [one.quantity for one in world.told(Fill)] == [D("0.7")]
    assert world.ledger.record("ca1").state == "canceled"
    world.check()


# ── executed, and no trade shows it ───────────────────────────────────────────────────────────────────────────────────────────────


def test_what_was_executed_and_never_shown_becomes_one_synthetic_fill(world):
    world.order("ca1", "buy", "2")
    world.desk.fill("ca1", "1", "100")
    world.desk.fill("ca1", "1", "110")
    world.desk.hidden = {"2"}
    found = world.settle()
    _, made = world.told(Fill)
    assert (made.quantity, made.price, made.fee) == (1, 110, D("0.11"))  # the price that makes the venue's average; the fee is a guess
    assert made.trade_id.startswith("synthetic-")
    assert world.ledger.record("ca1").state == "filled"
    assert any("no trade shows" in text for look in found for text in look.alerts)
    world.settle()
    assert world.reconciler.book.cash == 790  # the guess came back: nobody took that fee
    world.check()


def test_synthetic_fills_have_the_same_id_in_every_run(worlds):
    ids = []
    for _ in range(2):
        world = worlds()
        world.order("ca1", "buy", "2")
        world.desk.fill("ca1", "2", "100")
        world.desk.hidden = {"1"}
        world.settle()
        ids.append(world.told(Fill)[0].trade_id)
        world.close()
    assert ids[0] == ids[1]


def test_a_kill_between_the_note_and_the_synthetic_fill_loses_and_doubles_nothing(world):
    """The note is written, the fill is not; the trade turns up before the next try."""
    world.order("ca1", "buy", "2")
    world.desk.fill("ca1", "2", "100")
    world.desk.hidden = {"1"}

    async def die(trades):
        if trades and trades[0].trade_id.startswith("synthetic"):
            raise KeyboardInterrupt
        return await type(world.intake).trades(world.intake, trades)

    world.intake.trades = die
    with pytest.raises(KeyboardInterrupt):
        world.settle()
    assert world.ledger.cursor("synthetic:ca1") is not None
    world.start()
    world.desk.hidden = set()
    world.desk.move("USDT", D("0.1"))  # a gift that must not be taken for the fee that was guessed
    world.settle()
    assert [one.trade_id for one in world.told(Fill)] == ["1"]
    assert world.reconciler.book.cash == 800
    world.check()


def test_trades_of_the_last_ten_minutes_are_read_again_and_older_ones_are_not(world):
    asked = []
    trades = world.desk.trades

    async def remember(instrument, *, after, since):
        asked.append(after)
        return await trades(instrument, after=after, since=since)

    world.desk.trades = remember
    for _ in range(15):
        world.order(f"ca{len(world.desk.orders)}", "buy", "0.01")
        world.desk.fill(f"ca{len(world.desk.orders) - 1}", "0.01", "100")
        world.look(120.0)
    assert asked[:6] == [None, None, None, None, None, "1"]  # nothing was traded before the run began: from its begin
    assert asked[-1] == "10"  # which was known ten minutes before
    world.desk.hidden = {"15"}
    world.desk.trade("sell", "0.05", "100")
    world.look(120.0)
    world.desk.hidden = set()
    world.check()
    assert [one.quantity for one in world.told(Adjustment)] == [D("-0.05")]


def test_there_is_no_book_before_it_is_begun(world):
    world.reconciler._book = None
    with pytest.raises(RuntimeError, match="not begun"):
        _ = world.reconciler.book


# ── a margin account ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_margin_account_adds_up_with_funding_shared_by_whose_position_it_was(worlds):
    world = worlds("3000", is_futures=True, before=lambda desk: (desk.settle("-1"), desk.trade("buy", "1", "100")))
    desk = world.desk
    world.order("ca1", "buy", "3")
    desk.fill("ca1", "3", "120", "0.36")
    world.look()
    desk.settle("-4")
    world.look()
    (paid,) = world.told(FundingPayment)
    assert (paid.amount, paid.position) == (-3, 3)
    desk.trade("sell", "2", "130")  # one of it is the stranger's
    found = world.look()
    assert found.breaks == ()
    assert [(one.quantity, one.cash) for one in world.told(Adjustment)] == [(-1, 130)]
    world.check()
    world.close()


def test_funding_read_late_is_shared_by_the_positions_it_was_settled_on(worlds):
    """As after an outage: by the time it is read the run has closed its position, and the stranger has enlarged his."""
    world = worlds("3000", is_futures=True, before=lambda desk: desk.trade("buy", "1", "100"))
    desk = world.desk
    world.order("ca1", "buy", "3")
    desk.fill("ca1", "3", "120")
    desk.clock.advance_to(desk.clock.now() + SECOND)
    desk.settle("-4")
    world.order("ca2", "sell", "3")
    desk.fill("ca2", "3", "125")
    desk.trade("buy", "5", "126")
    world.look()
    (paid,) = world.told(FundingPayment)
    assert (paid.amount, paid.position) == (-3, 3)
    world.start()
    world.check()
    desk.clock.advance_to(desk.clock.now() + SECOND)
    desk.settle("-6")  # the stranger's alone by now
    world.look()
    assert [one.amount for one in world.told(FundingPayment)] == [-3, 0]
    world.check()
    world.close()


def test_funding_waits_until_it_can_be_said_whose_the_position_was(worlds):
    """A stranger's trade that might be that of an order of ours without a venue id is placed later; so is what was settled on it."""
    world = worlds("3000", is_futures=True)
    desk = world.desk
    world.order("ca1", "buy", "3")
    desk.fill("ca1", "3", "120")
    world.look()
    world.order("ca2", "buy", "1", is_known=False)
    ours = desk.orders.pop("ca2")
    desk.trade("buy", "1", "120")
    desk.clock.advance_to(desk.clock.now() + SECOND)
    desk.settle("-4")
    world.look()
    assert world.told(FundingPayment) == []
    desk.orders["ca2"] = ours
    desk.end("ca2")
    asyncio.run(world.intake.report(desk.orders["ca2"]))
    world.look()
    assert [(one.amount, one.position) for one in world.told(FundingPayment)] == [(-3, 3)]
    world.check()
    world.close()


def test_a_settlement_shown_later_than_another_of_the_same_moment_is_not_passed_over(worlds):
    world = worlds("3000", is_futures=True)
    desk = world.desk
    world.order("ca1", "buy", "3")
    desk.fill("ca1", "3", "120")
    desk.clock.advance_to(desk.clock.now() + SECOND)
    desk.settle("-4")
    desk.settle("-2")
    late = desk.settlements.pop()
    world.look()
    desk.settlements.append(late)
    world.look()
    world.look()
    assert [one.amount for one in world.told(FundingPayment)] == [-4, -2]
    world.check()
    world.close()


def test_an_average_entry_price_that_is_not_the_venues_stops_entries(worlds):
    world = worlds("3000", is_futures=True)
    desk = world.desk
    world.order("ca1", "sell", "3")
    desk.fill("ca1", "1", "100")
    desk.fill("ca1", "2", "103")
    world.look()
    assert world.reconciler.book.entry_price(BTC) == 102
    quantity, entry = desk.entries[BTC]
    desk.entries[BTC] = (quantity, entry * D("1.001"))
    desk.move("USDT", quantity * entry * D("0.001"))  # else the cash would not add up either
    world.look()
    found = world.look()
    assert [one.invariant for one in found.breaks] == ["I2"]
    assert found.stop_entries
    world.close()


def test_a_position_that_went_without_a_trade_is_taken_from_the_book_at_the_present_price(worlds):
    world = worlds("3000", is_futures=True)
    desk = world.desk
    world.order("ca1", "buy", "2")
    desk.fill("ca1", "2", "90")
    world.look()
    desk.entries[BTC] = (D(1), D(90))
    desk.move("USDT", D(10))  # closed at 100
    world.settle()
    assert world.reconciler.book.position(BTC) == 1
    assert world.portfolio().cash == 1000 - 180 + 100
    assert len(world.ledger.foreign()) == 1  # what the position was settled at is cash: nothing is left to settle in it
    world.check()
    world.close()
