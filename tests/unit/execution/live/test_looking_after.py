"""What goes on beside orders: waits that the venue asks for, clocks, comparisons of the books, trades that turn up late."""

from __future__ import annotations

import asyncio
import contextlib
from decimal import Decimal

import msgspec
import pytest

from cryptoalpha.core.time import HOUR, SECOND
from cryptoalpha.core.values import Adjustment
from cryptoalpha.execution.live.errands import Errands
from cryptoalpha.execution.live.points import Point
from cryptoalpha.execution.reconcile.synthetic import owed_key
from cryptoalpha.execution.reconcile.values import Break, Findings, Owed


def test_a_venue_that_asks_to_be_left_alone_is_left_alone(at_desk):
    async def scenario(desk, courier):
        desk.venue.fail("submit", "busy")
        begun = asyncio.get_running_loop().time()
        await desk.submit(desk.order("ca1"))
        await courier.look(1)
        await desk.until(lambda: ("query", "ca1") in desk.venue.asked)
        assert asyncio.get_running_loop().time() - begun >= 0.05

    at_desk(scenario)


def test_a_disputed_clock_is_measured_anew_and_kept_for_the_next_start(at_desk):
    async def scenario(desk, courier):
        desk.venue.offset = 7 * SECOND
        desk.venue.fail("submit", "clock")
        await desk.submit(desk.order("ca1"))
        await desk.until(lambda: courier.inquiries.clocks.offset == 7 * SECOND)
        assert desk.ledger.cursor("clock_offset") == str(7 * SECOND)

    at_desk(scenario)


def test_books_that_differ_stop_entries_until_they_agree_again(at_desk):
    async def scenario(desk, courier):
        broken = Break(invariant="I1", subject="A", message="2 A are missing", stands=True)
        found = Findings(
            at=0, answers={}, outcomes=(), breaks=(broken,), stop_entries=True, foreign_orders=(), alerts=("I1: 2 A are missing",)
        )

        async def look() -> Findings:
            return found

        courier._reconciler.look = look
        await courier.watch.compare()
        assert desk.alerts == [("reconcile", "I1: 2 A are missing")]
        await desk.submit(desk.order("ca1"))
        assert desk.refusals() == [("ca1", "halted")]
        assert "2 A are missing" in desk.told()[0].message
        found = msgspec.structs.replace(found, breaks=(), stop_entries=False, alerts=())
        await courier.watch.compare()
        await desk.submit(desk.order("ca2"))
        assert desk.state("ca2") == "open"

    at_desk(scenario)


def test_the_books_are_compared_on_a_timer_and_doubt_is_no_verdict(desk):
    live = changed(desk.config.live, reconcile_seconds=0.02)
    desk.config = desk.config.model_copy(update={"live": live})
    visits = []

    async def scenario() -> None:
        courier = await desk.open()
        desk.reached = visits.append
        await desk.until(lambda: visits.count(Point.AFTER_RECONCILE) >= 3)
        desk.venue.fail("trades", *["before"] * 10_000)
        await desk.until(lambda: courier.watch.is_in_doubt)
        assert courier.halted == {}
        desk.venue.faults["trades"].clear()
        await desk.until(lambda: not courier.watch.is_in_doubt)
        await desk.close()

    asyncio.run(scenario())


def changed(section, **changes):
    """A changed copy of a settings section."""
    return section.model_copy(update=changes)


def test_a_trade_that_a_synthetic_fill_has_booked_already_only_corrects_it(at_desk):
    async def scenario(desk, courier):
        await desk.submit(desk.order("ca1", quantity="2"))
        real = desk.venue.trade("ca1", "2", price="101")
        made_up = msgspec.structs.replace(real, trade_id="synthetic-1", price=Decimal(100), fee=Decimal("0.2"))
        owed = Owed(trade_id="synthetic-1", quantity=Decimal(2), price=Decimal(100), fee=Decimal("0.2"))
        desk.ledger.write(at=10 * HOUR, cursors={owed_key("ca1"): msgspec.json.encode(owed).decode()})
        assert await courier.intake.trades([made_up]) == []
        assert desk.state("ca1") == "filled"
        for _ in range(2):  # it may come as often as it likes
            assert await courier.intake.trades([real]) == []
        (change,) = [value for value in desk.told() if isinstance(value, Adjustment)]
        assert change.cash == -2 * 1 + Decimal("0.2") - Decimal("0.01")  # dearer by 1 each; the fee was 0.01, not 0.2
        assert desk.fills() == [("ca1", Decimal(2))]
        assert courier.intake.position("A/USDT") == 2

    at_desk(scenario)


def test_a_way_out_of_nothing_is_not_sent(at_desk):
    async def scenario(desk, courier):
        await desk.submit(desk.order("ca1", "sell", "1", reduce_only=True), told="1")
        assert (desk.venue.sent, desk.refusals()) == ([], [("ca1", "raced")])

    at_desk(scenario)


def test_a_trade_in_the_stream_whose_fee_has_no_price_yet_is_fetched_later(at_desk):
    async def scenario(desk, courier):
        desk.venue.fee_asset = "BNB"
        await desk.submit(desk.order("ca1"))
        trade = desk.venue.trade("ca1", "1")
        desk.venue.fail("price", "before")
        await desk.venue.stream.put(msgspec.structs.replace(trade, client_id="ca1"))
        await desk.until(lambda: desk.fills() == [("ca1", Decimal(1))])

    at_desk(scenario)


def test_orders_and_trades_of_others_are_left_to_the_comparison(at_desk):
    async def scenario(desk, courier):
        await desk.submit(desk.order("ca1"))
        report = msgspec.structs.replace(desk.venue.orders["ca1"], client_id="web_1", venue_id="x9")
        await courier.intake.report(report)
        await desk.venue.stream.put(desk.venue.foreign_trade("A/USDT", "1"))
        await desk.until(desk.venue.stream.empty)
        await courier.look(1)
        assert desk.fills() == []
        assert [one.order.client_id for one in courier.intake.working.values()] == ["ca1"]

    at_desk(scenario)


@pytest.mark.parametrize("turns", range(4))
def test_a_comparison_that_falls_due_as_it_is_told_to_end_does_not_keep_the_thread(desk, turns):
    async def body() -> None:
        courier = await desk.open()
        await asyncio.sleep(0.01)
        courier.watch.compare_soon()
        for _ in range(turns):
            await asyncio.sleep(0)
        await asyncio.wait_for(courier.errands.close(), 0.4)
        desk.ledger.close()

    asyncio.run(body())


def test_an_errand_that_swallows_a_cancel_is_cancelled_again():
    async def stubborn() -> None:
        for _ in range(2):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(60)

    async def body() -> None:
        errands = Errands()
        task = errands.spawn(stubborn())
        await asyncio.sleep(0)
        await asyncio.wait_for(errands.close(), 5)
        assert task.done()

    asyncio.run(body())
