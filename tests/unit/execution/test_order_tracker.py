"""One order: which state follows which, and what fills, acknowledgements and cancels do in the wrong order."""

from __future__ import annotations

from decimal import Decimal

import pytest

from cryptoalpha.core.errors import AccountingError
from cryptoalpha.core.values import Fill, Order
from cryptoalpha.execution.orders import tracker
from cryptoalpha.execution.orders.states import AT_VENUE, FINAL, TRANSITIONS, may_follow
from cryptoalpha.execution.orders.tracker import Tracked, absent, answered, begin, canceling, doubted, lost, refused, reported, sent, traded
from cryptoalpha.execution.venue import Accepted, Ambiguous, OrderReport, Rejected, Trade, VenueState
from cryptoalpha.store.order_ledger import Booking, OrderRecord

ORDER = Order(happened_at=0, known_at=0, client_id="ca1", instrument="BTC/USDT", side="buy", quantity=Decimal(3))


def report(state: VenueState, filled: str = "0", *, venue_id: str = "v1", quantity: str = "3", side: str = "buy") -> OrderReport:
    return OrderReport(
        instrument="BTC/USDT",
        client_id="ca1",
        venue_id=venue_id,
        state=state,
        side=side,
        quantity=Decimal(quantity),
        filled=Decimal(filled),
        at=1,
    )


def trade(trade_id: str, quantity: str = "1", *, side: str = "buy", instrument: str = "BTC/USDT") -> Trade:
    return Trade(
        instrument=instrument,
        trade_id=trade_id,
        venue_id="v1",
        side=side,
        quantity=Decimal(quantity),
        price=Decimal(30000),
        fee=Decimal(0),
        fee_asset="USDT",
        at=1,
    )


def fresh() -> Tracked:
    return sent(begin(ORDER, 7, 10), 11)


def opened(filled: str = "0") -> Tracked:
    return reported(fresh(), report("partial" if filled != "0" else "open", filled), 20).tracked


def ended(state: VenueState) -> Tracked:
    return reported(fresh(), report(state), 20).tracked


def test_the_table_of_states_ends_where_it_says():
    alive = set(TRANSITIONS) - FINAL
    assert alive == AT_VENUE | {"intent", "unknown"}
    assert set(TRANSITIONS) > FINAL
    assert all(not TRANSITIONS[state] for state in FINAL)
    assert all(TRANSITIONS[state] & FINAL for state in alive)  # nothing lives for ever
    assert {state for state in alive if "absent" in TRANSITIONS[state]} == {"unknown"}  # only by proof, only from doubt
    assert all("intent" not in following for following in TRANSITIONS.values())
    assert may_follow("filled", "filled")
    assert not may_follow("filled", "open")


def test_a_change_the_table_does_not_know_is_a_fault_of_the_program():
    with pytest.raises(AccountingError, match="cannot go from filled to open"):
        tracker._to(traded(fresh(), trade("t", "3"), 20).tracked, "open", 30, "")


def test_an_acknowledged_order_is_filled_by_its_trades():
    step = answered(fresh(), Accepted(report=report("filled", "3"), trades=(trade("a"), trade("b", "2"))), 20)
    assert (step.tracked.state, step.tracked.booked, step.tracked.record.filled, step.missing) == ("filled", 3, 3, 0)
    assert (step.flag, step.halts, step.is_new) == ("", False, True)
    assert step.tracked.record.venue_id == "v1"
    assert (step.tracked.record.sent_at, step.tracked.record.since) == (11, 20)


def test_an_end_waits_for_the_trades_that_it_speaks_of():
    step = reported(fresh(), report("canceled", "2"), 20)
    assert (step.tracked.state, step.missing, step.tracked.ended) == ("intent", 2, False)
    step = traded(step.tracked, trade("a"), 30)
    assert (step.tracked.state, step.missing) == ("partial", 1)
    step = traded(step.tracked, trade("b"), 40)
    assert (step.tracked.state, step.missing, step.flag) == ("canceled", 0, "")
    assert (step.tracked.record.since, step.tracked.open_quantity) == (40, 0)


def test_the_first_end_that_was_reported_holds():
    waiting = reported(reported(fresh(), report("canceled", "2"), 20).tracked, report("expired", "2"), 30).tracked
    assert traded(waiting, trade("a", "2"), 40).tracked.state == "canceled"


def test_a_fill_before_its_acknowledgement_counts_once():
    step = traded(fresh(), trade("a"), 15)
    assert (step.tracked.state, step.tracked.booked, step.tracked.open_quantity) == ("partial", 1, 2)
    again = answered(step.tracked, Accepted(report=report("partial", "1"), trades=(trade("a"),)), 20)
    assert (again.tracked.state, again.tracked.booked, again.tracked.record.filled) == ("partial", 1, 1)


def test_a_repeated_message_changes_nothing():
    first = reported(fresh(), report("partial", "1"), 20)
    again = reported(first.tracked, report("partial", "1"), 30)
    assert (again.tracked, again.is_new) == (first.tracked, False)
    booked = traded(first.tracked, trade("a"), 40)
    again = traded(booked.tracked, trade("a"), 50)
    assert (again.tracked, again.is_new) == (booked.tracked, False)


def test_what_is_filled_never_decreases():
    later = reported(fresh(), report("partial", "2"), 20).tracked
    older = reported(later, report("open", "0"), 30)
    assert (older.tracked.record.filled, older.tracked.state, older.is_new) == (2, "partial", False)


@pytest.mark.parametrize("end", ["canceled", "expired"])
def test_a_trade_after_the_end_is_booked_and_flagged(end):
    step = traded(ended(end), trade("a"), 50)
    assert (step.tracked.state, step.tracked.booked, step.tracked.record.filled) == (end, 1, 1)
    assert (step.flag, step.halts, step.tracked.record.since) == ("late", False, 20)


def test_a_trade_of_an_order_that_was_refused_or_absent_halts_entries():
    for gone in (ended("rejected"), absent(doubted(fresh(), "timeout", 20).tracked, 60, "3 answers").tracked):
        step = traded(gone, trade("a"), 70)
        assert (step.tracked.state, step.tracked.booked, step.flag, step.halts) == (gone.state, 1, "late", True)
        step = reported(gone, report("partial", "1"), 70)
        assert (step.tracked.state, step.missing, step.flag, step.halts) == (gone.state, 1, "late", True)
        step = reported(gone, report("open"), 70)  # it lives after all
        assert (step.tracked.state, step.flag, step.halts) == (gone.state, "late", True)
    assert not reported(ended("rejected"), report("rejected"), 70).halts
    assert reported(ended("rejected"), report("rejected", "1"), 70).halts  # refused, it says, and traded


def test_more_than_was_ordered_is_booked_and_flagged():
    step = traded(traded(fresh(), trade("a", "2"), 20).tracked, trade("b", "2"), 30)
    assert (step.tracked.state, step.tracked.booked, step.tracked.record.filled, step.flag) == ("filled", 4, 4, "over")
    step = traded(step.tracked, trade("c"), 40)
    assert (step.tracked.state, step.tracked.booked, step.flag, step.halts) == ("filled", 5, "late over", False)
    step = reported(opened(), report("canceled", "4"), 40)
    assert (step.flag, step.missing, step.tracked.ended) == ("over", 4, False)


def test_a_cancel_is_not_undone_by_an_older_report():
    asked = canceling(opened("1"), 30)
    assert asked.state == "canceling"
    older = reported(asked, report("partial", "1"), 40)
    assert (older.tracked.state, older.is_new) == ("canceling", False)
    assert traded(asked, trade("a"), 40).tracked.state == "canceling"
    assert reported(asked, report("partial", "1"), 40, is_reply=True).tracked.state == "partial"
    assert reported(canceling(opened(), 30), report("open"), 40, is_reply=True).tracked.state == "open"
    assert reported(canceling(opened(), 30), report("canceled"), 40).tracked.state == "canceled"
    assert traded(canceling(opened(), 30), trade("all", "3"), 40).tracked.state == "filled"  # it was faster than the cancel


def test_cancelling_an_order_of_unknown_fate_proves_nothing():
    unknown = doubted(fresh(), "timeout", 20).tracked
    assert canceling(unknown, 30) == unknown


def test_doubt_and_its_resolution():
    unknown = answered(fresh(), Ambiguous(reason="timeout"), 20).tracked
    assert (unknown.state, unknown.record.detail, unknown.record.since) == ("unknown", "timeout", 20)
    assert not doubted(unknown, "again", 30).is_new
    assert reported(unknown, report("open"), 30).tracked.state == "open"
    assert reported(unknown, report("expired"), 30).tracked.state == "expired"
    assert refused(unknown, Rejected(code="-1013", message="filter"), 30).tracked.record.detail == "-1013: filter"
    assert doubted(canceling(opened(), 20), "timeout", 30).tracked.state == "canceling"
    assert lost(canceling(opened(), 20), "no such order", 30).tracked.state == "unknown"
    assert not lost(unknown, "no such order", 30).is_new
    assert not lost(ended("canceled"), "no such order", 30).is_new


def test_absence_is_refused_where_anything_showed_the_order():
    unknown = doubted(fresh(), "timeout", 20).tracked
    assert absent(unknown, 60, "proof").tracked.state == "absent"
    shown = lost(opened("1"), "gone", 30).tracked
    assert (absent(shown, 60, "proof").tracked, absent(shown, 60, "proof").flag) == (shown, "mismatch")
    assert not absent(opened(), 60, "proof").is_new
    waiting = reported(unknown, report("canceled", "1"), 30).tracked
    assert absent(waiting, 60, "proof").tracked == waiting


def test_a_refusal_is_not_believed_of_an_order_that_was_seen():
    known = traded(fresh(), trade("a"), 15).tracked
    step = refused(known, Rejected(code="-2010", message=""), 20)
    assert (step.tracked, step.flag) == (known, "mismatch")
    for seen in (doubted(known, "timeout", 20).tracked, reported(doubted(fresh(), "t", 20).tracked, report("canceled", "1"), 25).tracked):
        assert seen.state == "unknown"
        assert refused(seen, Rejected(code="-2010", message=""), 30).flag == "mismatch"
    gone = answered(fresh(), Rejected(code="-2010", message="no funds"), 20).tracked
    assert (gone.state, gone.ended) == ("rejected", True)
    assert (refused(gone, Rejected(code="-2010", message=""), 30).flag, refused(gone, Rejected(code="x", message=""), 30).is_new) == (
        "",
        False,
    )


@pytest.mark.parametrize(
    "wrong", [report("open", side="sell"), report("open", quantity="2"), report("filled", "2"), report("open", venue_id="v2")]
)
def test_a_report_of_another_order_changes_nothing(wrong):
    step = reported(opened(), wrong, 30)
    assert (step.tracked, step.flag, step.is_new) == (opened(), "mismatch", False)


@pytest.mark.parametrize("wrong", [trade("a", side="sell"), trade("a", instrument="ETH/USDT")])
def test_a_trade_of_another_order_changes_nothing(wrong):
    assert traded(opened(), wrong, 30).flag == "mismatch"
    assert traded(opened(), wrong, 30).tracked == opened()


def test_after_a_restart_what_is_not_proven_sent_is_unknown():
    assert tracker.resume(ORDER, 7, None, (), 50).state == "unknown"
    assert tracker.resume(ORDER, 7, fresh().record, (), 50).state == "unknown"
    found = tracker.resume(ORDER, 7, opened("1").record, (), 50)
    assert (found.state, found.missing) == ("partial", 1)
    fill = Fill(
        happened_at=1,
        known_at=1,
        trade_id="a",
        client_id="ca1",
        instrument="BTC/USDT",
        side="buy",
        quantity=Decimal(1),
        price=Decimal(3),
        fee=Decimal(0),
        fee_asset="USDT",
    )
    found = tracker.resume(ORDER, 7, canceling(opened("1"), 30).record, [Booking(fill=fill)], 50)
    assert (found.state, found.missing, found.booked, traded(found, trade("a"), 60).is_new) == ("canceling", 0, 1, False)


def test_a_cut_order_is_filled_by_what_was_sent():
    cut = begin(ORDER, 7, 10, quantity=Decimal(1))
    assert (traded(cut, trade("a"), 20).tracked.state, cut.open_quantity) == ("filled", 1)
    assert isinstance(cut.record, OrderRecord)
