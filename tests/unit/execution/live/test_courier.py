"""What becomes of an order between the engine and the venue, under every answer and none."""

from __future__ import annotations

import asyncio
import time
from decimal import Decimal

import pytest

from cryptoalpha.core.clock import SystemClock
from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.time import HOUR, SECOND
from cryptoalpha.execution.venue import Link


def test_an_accepted_order_that_trades_ends_by_its_fills_and_no_word_more_is_said(at_desk):
    async def scenario(desk, courier):
        await desk.submit(desk.order("ca1"))
        assert desk.state("ca1") == "open"
        desk.venue.trade("ca1", "0.4")
        await courier.look(1)
        assert (desk.state("ca1"), desk.ledger.record("ca1").filled) == ("partial", Decimal("0.4"))
        desk.venue.trade("ca1", "0.6")
        await courier.look(1)
        assert desk.state("ca1") == "filled"
        assert desk.fills() == [("ca1", Decimal("0.4")), ("ca1", Decimal("0.6"))]
        assert desk.refusals() == []
        assert courier.intake.position("A/USDT") == 1
        assert courier.intake.working == {}

    at_desk(scenario)


def test_a_definite_no_ends_the_order_and_the_engine_is_told(at_desk):
    async def scenario(desk, courier):
        desk.venue.fail("submit", "refused")
        await desk.submit(desk.order("ca1"))
        assert (desk.state("ca1"), desk.refusals()) == ("rejected", [("ca1", "rejected")])
        assert "insufficient" in desk.told()[0].message

    at_desk(scenario)


def test_a_lost_answer_is_asked_for_by_id_and_never_sent_again(at_desk):
    async def scenario(desk, courier):
        desk.venue.fail("submit", "after")
        desk.venue.fail("query", "before", "before")
        order = desk.order("ca1")
        await desk.submit(order)
        assert desk.state("ca1") == "unknown"
        desk.venue.trade("ca1", "1")
        await desk.settle()
        assert (desk.state("ca1"), desk.fills(), desk.venue.sent) == ("filled", [("ca1", Decimal(1))], ["ca1"])
        assert len([1 for what, _ in desk.venue.asked if what == "query"]) >= 3

    at_desk(scenario)


def test_a_trade_that_nobody_can_place_yet_is_not_passed_over(at_desk):
    async def scenario(desk, courier):
        desk.venue.fail("submit", "after")
        desk.venue.fail("query", *["before"] * 10_000)
        await desk.submit(desk.order("ca1"))
        desk.venue.trade("ca1", "1")
        await courier.look(1)  # its trade is listed under a venue id that nobody knows yet
        assert desk.fills() == []
        desk.venue.faults["query"].clear()
        await desk.settle()
        assert (desk.state("ca1"), desk.fills()) == ("filled", [("ca1", Decimal(1))])

    at_desk(scenario)


def test_an_order_that_never_arrived_is_absent_by_proof_and_not_before(at_desk):
    async def scenario(desk, courier):
        desk.venue.fail("submit", "before")
        begun = asyncio.get_running_loop().time()
        await desk.submit(desk.order("ca1"))
        assert desk.state("ca1") == "unknown"
        await desk.settle()
        assert (desk.state("ca1"), desk.refusals(), desk.venue.sent) == ("absent", [("ca1", "absent")], ["ca1"])
        assert asyncio.get_running_loop().time() - begun >= 0.02  # the request stays valid for so long
        assert len([1 for what, _ in desk.venue.asked if what == "query"]) >= 3
        assert [name for name, _ in desk.alerts] == ["unknown_order"]

    at_desk(scenario)


@pytest.mark.parametrize("books", ["open_orders", "trades"])
def test_no_proof_of_absence_while_the_venue_does_not_show_its_books(at_desk, books):
    async def scenario(desk, courier):
        desk.venue.fail("submit", "before")
        desk.venue.fail(books, *["before"] * 10_000)
        await desk.submit(desk.order("ca1"))
        await asyncio.sleep(0.15)
        assert desk.state("ca1") == "unknown"
        desk.venue.faults[books].clear()
        await desk.settle()
        assert desk.state("ca1") == "absent"

    at_desk(scenario)


def test_a_venue_whose_clock_is_an_hour_off_proves_absence_as_soon_unless_it_moved_in_between(at_desk):
    async def absence(desk, client_id: str, moved_to: int) -> float:
        desk.venue.fail("submit", "before")
        begun = asyncio.get_running_loop().time()
        await desk.submit(desk.order(client_id))
        desk.venue.offset = moved_to
        await desk.settle()
        assert desk.state(client_id) == "absent"
        return asyncio.get_running_loop().time() - begun

    async def scenario(desk, courier):
        desk.venue.offset = 3600 * SECOND
        await courier.inquiries.clocks.measure(desk.venue)
        steady = await absence(desk, "ca1", 3600 * SECOND)
        moved = await absence(desk, "ca2", 0)  # a request stamped for an hour later stays valid until then, if it is still on its way
        assert steady >= 0.02
        assert moved >= 0.1  # five windows: longer than that no connection holds it

    at_desk(scenario)


@pytest.mark.parametrize("restarts", [False, True])
def test_two_clocks_that_are_set_back_alike_do_not_shorten_the_proof_of_absence(at_desk, monkeypatch, restarts):
    async def scenario(desk, courier):
        desk.venue.fail("submit", "before")
        desk.venue.fail("query", *["before"] * 3)
        await desk.submit(desk.order("ca1"))
        begun = asyncio.get_running_loop().time()
        if restarts:
            await desk.die()
        monkeypatch.setattr(
            SystemClock, "now", lambda clock: time.time_ns() - 3600 * SECOND
        )  # ours; the venue's is as far from it as before
        if restarts:
            await desk.open()
        await desk.settle()
        assert desk.state("ca1") == "absent"
        assert asyncio.get_running_loop().time() - begun >= 0.1  # as long as a request may be under way at most

    at_desk(scenario)


def test_an_order_that_arrives_while_it_is_being_missed_is_adopted(at_desk):
    async def scenario(desk, courier):
        desk.venue.fail("submit", "before")
        order = desk.order("ca1")
        await desk.submit(order)
        desk.venue._accept(order)
        await desk.settle()
        assert (desk.state("ca1"), desk.refusals()) == ("open", [])

    at_desk(scenario)


def test_a_duplicate_is_looked_up_and_adopted(at_desk):
    async def scenario(desk, courier):
        order = desk.order("ca1")
        desk.venue._accept(order)
        desk.venue.fail("submit", "taken")
        desk.venue.fail("query", *["missing"] * 20)
        await desk.submit(order)
        await desk.settle()
        assert desk.state("ca1") == "open"

    at_desk(scenario)


def test_a_doubtful_no_counts_once_the_order_is_not_there_either(at_desk):
    async def scenario(desk, courier):
        desk.venue.fail("submit", "doubted")
        await desk.submit(desk.order("ca1"))
        await desk.settle()
        assert (desk.state("ca1"), desk.refusals()) == ("rejected", [("ca1", "rejected")])
        assert [what for what, _ in desk.venue.asked].count("query") == 1

    at_desk(scenario)


def test_an_order_that_comes_too_late_is_not_sent_unless_a_person_closes_everything(at_desk):
    async def scenario(desk, courier):
        await desk.submit(desk.order("ca1"), expires=10 * HOUR - 1)
        assert (desk.venue.sent, desk.refusals()) == ([], [("ca1", "stale_order")])

    at_desk(scenario)


def test_a_new_order_waits_until_the_old_one_has_ended(at_desk):
    async def scenario(desk, courier):
        await desk.submit(desk.order("ca1"))
        await desk.submit(desk.order("ca2", quantity="2"))
        assert (desk.state("ca1"), desk.state("ca2")) == ("canceled", "open")
        assert desk.refusals() == [("ca1", "cancelled")]
        assert (desk.venue.cancelled, desk.venue.sent) == (["ca1"], ["ca1", "ca2"])

    at_desk(scenario)


def test_an_entry_is_given_up_when_the_old_order_traded_while_it_was_cancelled(at_desk):
    """freqtrade#3647: the cancel crossed a fill."""

    async def scenario(desk, courier):
        await desk.submit(desk.order("ca1"))
        desk.venue.on_cancel = lambda client_id: desk.venue.trade(client_id, "1")
        await desk.submit(desk.order("ca2"), told="0")
        assert (desk.state("ca1"), desk.fills()) == ("filled", [("ca1", Decimal(1))])
        assert (desk.venue.sent, desk.refusals()) == (["ca1"], [("ca2", "raced")])

    at_desk(scenario)


def test_an_exit_is_cut_to_what_is_held_when_the_old_exit_traded_while_it_was_cancelled(at_desk):
    async def scenario(desk, courier):
        await desk.submit(desk.order("ca1", quantity="5"))
        desk.venue.trade("ca1", "5")
        await courier.look(1)
        await desk.submit(desk.order("ca2", "sell", "5", reduce_only=True))
        desk.venue.on_cancel = lambda client_id: desk.venue.trade(client_id, "2")
        await desk.submit(desk.order("ca3", "sell", "5", reduce_only=True), told="5")
        assert desk.venue.orders["ca3"].quantity == 3
        desk.venue.on_cancel = lambda client_id: None
        desk.venue.trade("ca3", "3")
        await courier.look(1)
        assert courier.intake.position("A/USDT") == 0
        assert desk.refusals() == [("ca2", "cancelled"), ("ca3", "cut")]

    at_desk(scenario)


def test_while_an_order_is_unknown_entries_are_refused_and_exits_cannot_flip(at_desk):
    async def scenario(desk, courier):
        await desk.submit(desk.order("ca1", quantity="5"))
        desk.venue.trade("ca1", "5")
        await courier.look(1)
        desk.venue.fail("submit", "after")
        desk.venue.fail("query", *["before"] * 10_000)
        desk.venue.fail("cancel", *["before"] * 10_000)
        await desk.submit(desk.order("ca2", "sell", "2", reduce_only=True))
        await desk.submit(desk.order("ca3"))
        await desk.submit(desk.order("ca4", "sell", "5", reduce_only=True))
        assert desk.refusals() == [("ca3", "unknown_order")]
        assert desk.venue.orders["ca4"].quantity == 3  # 5 held, 2 of them perhaps sold
        await desk.submit(desk.order("ca5", quantity="1", instrument="B/USDT"))
        assert desk.state("ca5") == "open"  # another instrument is not concerned
        for name in ("query", "cancel"):
            desk.venue.faults[name].clear()
        desk.venue.trade("ca4", "3")
        await desk.settle()
        await courier.look(1)
        assert courier.intake.position("A/USDT") == 2

    at_desk(scenario)


def test_an_exit_is_not_kept_waiting_by_a_venue_that_does_not_answer_a_cancel(at_desk):
    async def scenario(desk, courier):
        await desk.submit(desk.order("ca1", quantity="5"))
        desk.venue.trade("ca1", "3")
        await courier.look(1)
        desk.venue.fail("cancel", "hold")
        await asyncio.wait_for(desk.submit(desk.order("ca2", "sell", "3", reduce_only=True)), 1)
        assert (desk.state("ca1"), desk.state("ca2")) == ("canceling", "open")
        desk.venue.released.set()
        await desk.settle()
        assert desk.state("ca1") == "canceled"

    at_desk(scenario)


@pytest.mark.parametrize("fault", ["before", "after", "missing"])
def test_a_cancel_without_an_answer_is_pursued_until_the_order_has_ended(at_desk, fault):
    async def scenario(desk, courier):
        await desk.submit(desk.order("ca1"))
        desk.venue.trade("ca1", "0.3")
        desk.venue.fail("cancel", fault, fault)
        await courier.cancel("A/USDT")
        await desk.settle()
        assert (desk.state("ca1"), desk.fills(), desk.refusals()) == ("canceled", [("ca1", Decimal("0.3"))], [("ca1", "cancelled")])

    at_desk(scenario)


def test_an_end_is_not_believed_before_its_trades_are_booked(at_desk):
    async def scenario(desk, courier):
        await desk.submit(desk.order("ca1"))
        desk.venue.trade("ca1", "0.3")
        desk.venue.shows_trades = False
        await courier.cancel("A/USDT")
        assert (desk.state("ca1"), desk.refusals()) == ("canceling", [])
        desk.venue.shows_trades = True
        await desk.settle()
        assert (desk.state("ca1"), desk.fills(), desk.refusals()) == ("canceled", [("ca1", Decimal("0.3"))], [("ca1", "cancelled")])

    at_desk(scenario)


def test_stream_and_books_may_tell_the_same_in_any_order(at_desk):
    async def scenario(desk, courier):
        desk.venue.fail("submit", "hold")
        order = desk.order("ca1")
        task = asyncio.create_task(desk.submit(order))
        await asyncio.sleep(0.005)
        desk.venue.released.set()
        await task
        trade = desk.venue.trade("ca1", "0.5")
        named = type(trade)(**{name: getattr(trade, name) for name in trade.__struct_fields__} | {"client_id": "ca1"})
        for event in (named, named, desk.venue.orders["ca1"], trade):
            await desk.venue.stream.put(event)
        await desk.until(lambda: desk.venue.stream.empty() and desk.fills())
        await courier.look(1)
        assert desk.fills() == [("ca1", Decimal("0.5"))]
        desk.venue.trade("ca1", "0.5")
        await desk.venue.stream.put(desk.venue.orders["ca1"])  # filled, before its trade was seen
        await desk.until(lambda: desk.ledger.record("ca1").ended)
        assert (desk.state("ca1"), sum(q for _, q in desk.fills())) == ("filled", 1)

    at_desk(scenario)


def test_when_the_stream_comes_up_what_happened_meanwhile_is_asked_for(at_desk):
    async def scenario(desk, courier):
        await desk.submit(desk.order("ca1"))
        desk.venue.trade("ca1", "1")
        await desk.venue.stream.put(Link(is_up=True))
        await desk.until(lambda: desk.state("ca1") == "filled")
        assert courier.watch.is_listening

    at_desk(scenario)


def test_a_trade_after_the_end_is_booked_and_one_that_was_denied_stops_entries(at_desk):
    """nautilus#4958, hummingbot#8457: taken for rejected or gone, the order lived on."""

    async def scenario(desk, courier):
        await desk.submit(desk.order("ca1"))
        await courier.cancel("A/USDT")
        desk.venue.trade("ca1", "0.2", late=True)
        await courier.inquiries.look("A/USDT")
        assert desk.fills() == [("ca1", Decimal("0.2"))]
        assert [name for name, _ in desk.alerts] == ["order_late"]
        desk.venue.fail("submit", "refused")
        order = desk.order("ca2")
        await desk.submit(order)
        desk.venue._accept(order)
        denied = desk.venue.trade("ca2", "0.1")
        await desk.venue.stream.put(type(denied)(**{n: getattr(denied, n) for n in denied.__struct_fields__} | {"client_id": "ca2"}))
        await desk.until(lambda: desk.fills()[-1] == ("ca2", Decimal("0.1")))
        await desk.submit(desk.order("ca3"))
        assert desk.refusals()[-1] == ("ca3", "halted")

    at_desk(scenario)


def test_a_refused_key_stops_entries_and_not_exits(at_desk):
    async def scenario(desk, courier):
        await desk.submit(desk.order("ca1"))
        desk.venue.trade("ca1", "1")
        await courier.look(1)
        desk.venue.fail("submit", "key")
        await desk.submit(desk.order("ca2", instrument="B/USDT"))
        await desk.submit(desk.order("ca3", instrument="B/USDT"))
        await desk.submit(desk.order("ca4", "sell", "1", reduce_only=True))
        assert desk.refusals() == [("ca2", "rejected"), ("ca3", "halted")]
        assert desk.state("ca4") == "open"
        assert [name for name, _ in desk.alerts] == ["key_refused"]

    at_desk(scenario)


def test_entries_wait_for_the_exits_that_pay_for_them(at_desk):
    async def scenario(desk, courier):
        await desk.submit(desk.order("ca1"))
        desk.venue.trade("ca1", "1")
        await courier.look(1)
        exit_, entry = desk.order("ca2", "sell", "1", reduce_only=True), desk.order("ca3", instrument="B/USDT")
        desk.venue.fail("submit", "hold")
        first = asyncio.create_task(desk.submit(exit_))
        await asyncio.sleep(0)
        second = asyncio.create_task(desk.submit(entry))
        await asyncio.sleep(0.02)
        assert desk.venue.sent == ["ca1"]
        desk.venue.released.set()
        await asyncio.gather(first, second)
        assert desk.venue.sent == ["ca1", "ca2", "ca3"]

    at_desk(scenario)


def test_every_entry_can_be_taken_back_at_once_and_exits_stay(at_desk):
    async def scenario(desk, courier):
        await desk.submit(desk.order("ca1"))
        desk.venue.trade("ca1", "1")
        await courier.look(1)
        await desk.submit(desk.order("ca2", "sell", "1", reduce_only=True))
        await desk.submit(desk.order("ca3", instrument="B/USDT"))
        await courier.cancel_entries()
        assert (desk.state("ca2"), desk.state("ca3")) == ("open", "canceled")

    at_desk(scenario)


def test_a_fee_in_a_third_asset_is_booked_once_its_worth_is_known(at_desk):
    async def scenario(desk, courier):
        desk.venue.fee_asset = "BNB"
        await desk.submit(desk.order("ca1"))
        desk.venue.trade("ca1", "1")
        desk.venue.fail("price", *["before"] * 6)
        await courier.look(1)
        assert desk.fills() == []
        await desk.settle()
        fill = desk.told()[0]
        assert (fill.fee, fill.fee_asset, fill.fee_value) == (Decimal("0.01"), "BNB", Decimal(6))
        desk.venue.fail("price", "before")  # from now on the last known will do
        await desk.submit(desk.order("ca2"))
        desk.venue.trade("ca2", "1")
        await courier.look(1)
        assert desk.told()[1].fee_value == 6

    at_desk(scenario)


def test_a_foreign_trade_is_not_taken_for_ours_and_does_not_hold_up_the_proof(at_desk):
    async def scenario(desk, courier):
        desk.venue.fail("submit", "before")
        await desk.submit(desk.order("ca1"))
        desk.venue.foreign_trade("A/USDT", "1")
        await desk.settle()
        assert (desk.state("ca1"), desk.fills()) == ("absent", [])

    at_desk(scenario)


def test_a_key_that_may_withdraw_is_refused(desk):
    desk.venue.may_withdraw = True
    with pytest.raises(ConfigError, match="withdraw"):
        asyncio.run(desk.open())
    desk.ledger.close()
