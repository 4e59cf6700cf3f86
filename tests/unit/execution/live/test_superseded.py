"""An order that waits for its turn is not sent any more once it was cancelled, or a newer one of its instrument was handed over."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest

from cryptoalpha.core.time import HOUR
from cryptoalpha.execution.venue import Ambiguous, Rejected

ZERO = Decimal(0)


async def hold(desk, name: str, instrument: str = "A/USDT") -> None:
    """One whole coin is held."""
    await desk.submit(desk.order(name, instrument=instrument))
    desk.venue.trade(name, "1")
    await desk.courier.look(1)
    assert desk.courier.intake.position(instrument) == 1


async def keep_an_exit_waiting(desk) -> asyncio.Task:
    """An exit of A whose answer does not come: entries handed over after it wait for it."""
    await hold(desk, "ca1")
    desk.venue.fail("submit", "hold")
    exit_ = asyncio.create_task(desk.submit(desk.order("ca2", "sell", "1", reduce_only=True)))
    await asyncio.sleep(0.01)
    return exit_


async def let_go(desk, *tasks) -> None:
    desk.venue.released.set()
    await asyncio.wait_for(asyncio.gather(*tasks), 5)
    await desk.settle()


def test_an_entry_that_waits_behind_an_exit_is_not_sent_after_it_was_cancelled(at_desk):
    async def scenario(desk, courier) -> None:
        exit_ = await keep_an_exit_waiting(desk)
        entry = asyncio.create_task(desk.submit(desk.order("ca3", instrument="B/USDT")))
        await asyncio.sleep(0.01)
        await courier.cancel_entries()  # a kill
        await let_go(desk, exit_, entry)
        assert desk.venue.sent == ["ca1", "ca2"]
        assert ("ca3", "cancelled") in desk.refusals()
        assert desk.venue.cancelled == [], "it was never at the venue: nothing to be cancelled there"

    at_desk(scenario)


def test_an_entry_that_waits_for_its_gate_is_not_sent_after_it_was_cancelled(at_desk):
    async def scenario(desk, courier) -> None:
        await desk.submit(desk.order("ca1"))
        desk.venue.fail("cancel", "hold")
        entry = asyncio.create_task(desk.submit(desk.order("ca2")))  # takes ca1 back first, which takes a while
        await asyncio.sleep(0.01)
        cancel = asyncio.create_task(courier.cancel("A/USDT"))
        await asyncio.sleep(0.01)
        await let_go(desk, entry, cancel)
        assert desk.venue.sent == ["ca1"]
        assert sorted(desk.refusals()) == [("ca1", "cancelled"), ("ca2", "cancelled")]

    at_desk(scenario)


def test_an_entry_that_waited_too_long_does_not_replace_the_exit_that_came_after_it(at_desk):
    async def scenario(desk, courier) -> None:
        await hold(desk, "cb1", "B/USDT")
        exit_ = await keep_an_exit_waiting(desk)
        entry = asyncio.create_task(desk.submit(desk.order("ca3", instrument="B/USDT")))
        await asyncio.sleep(0.01)
        desk.venue.released = asyncio.Event()  # the exit of A goes on waiting for the old one
        await asyncio.wait_for(desk.submit(desk.order("ca4", "sell", "1", "B/USDT", reduce_only=True)), 5)
        assert desk.venue.sent[-1] == "ca4"
        desk.venue.trade("ca4", "0.4")
        exit_.cancel()
        await asyncio.wait({exit_})
        await asyncio.wait_for(entry, 5)
        await desk.settle()
        assert "ca3" not in desk.venue.sent
        assert desk.venue.orders["ca4"].state == "partial", "nobody took the exit back"
        assert ("ca3", "cancelled") in desk.refusals()

    at_desk(scenario)


def test_an_exit_that_waits_for_its_gate_is_not_pressed_by_the_older_order_before_it(at_desk):
    async def scenario(desk, courier) -> None:
        await hold(desk, "ca1")
        await desk.submit(desk.order("ca2"))
        desk.venue.fail("cancel", "hold")
        cancel = asyncio.create_task(courier.cancel("A/USDT"))
        await asyncio.sleep(0.01)
        entry = asyncio.create_task(desk.submit(desk.order("ca3")))
        exit_ = asyncio.create_task(desk.submit(desk.order("ca4", "sell", "1", reduce_only=True)))
        await asyncio.sleep(0.01)
        await let_go(desk, cancel, entry, exit_)
        assert desk.venue.sent == ["ca1", "ca2", "ca4"]
        assert desk.venue.cancelled == ["ca2"]
        assert desk.venue.orders["ca4"].state == "open"

    at_desk(scenario)


def test_an_order_is_not_sent_if_it_came_too_late_while_it_waited_for_an_older_one(at_desk):
    async def scenario(desk, courier) -> None:
        await desk.submit(desk.order("ca1"))
        desk.venue.on_cancel = lambda client_id: desk.clock.advance_to(desk.clock.now() + 60)
        await desk.submit(desk.order("ca2"), expires=desk.clock.now() + 30)
        assert desk.venue.sent == ["ca1"]
        assert desk.refusals() == [("ca1", "cancelled"), ("ca2", "stale_order")]

    at_desk(scenario)


def test_a_look_takes_no_longer_than_it_may(at_desk):
    async def scenario(desk, courier) -> None:
        await desk.submit(desk.order("cb1", instrument="B/USDT"))
        desk.venue.fail("submit", "hold")
        courier.errands.hand(desk.submit(desk.order("ca1")))
        await asyncio.sleep(0.01)
        desk.venue.fail("query", "hold")
        began = asyncio.get_running_loop().time()
        await courier.look(0.2)
        assert asyncio.get_running_loop().time() - began < 0.3
        desk.venue.released.set()

    at_desk(scenario)


def test_a_clock_that_is_set_back_does_not_lengthen_the_wait_that_a_venue_asked_for(at_desk):
    async def scenario(desk, courier) -> None:
        await desk.submit(desk.order("ca1"))
        courier.inquiries.heed(Ambiguous(reason="too many requests", retry_after_seconds=0.05))
        wall = courier._wall
        courier.inquiries._wall = type("Back", (), {"now": staticmethod(lambda: wall.now() - 3600 * 10**9)})()
        desk.venue.trade("ca1", "1")
        await asyncio.sleep(0.06)
        await courier.look(1)
        assert ("query", "ca1") in desk.venue.asked

    at_desk(scenario)


def test_an_older_order_that_a_dead_process_left_open_is_taken_back(desk):
    async def body() -> None:
        await desk.open()
        await desk.submit(desk.order("ca1"))
        desk.order("ca2", "sell", reduce_only=True)  # in the journal; the process died before it was handed over
        await desk.die()
        await desk.open()
        await desk.settle()
        assert desk.venue.orders["ca1"].state == "canceled"
        await desk.close()

    asyncio.run(body())


def test_an_order_that_was_seen_is_not_rejected_by_a_doubtful_no_and_a_question_that_misses_it(at_desk):
    async def scenario(desk, courier) -> None:
        desk.venue.fail("submit", "doubted")
        desk.venue.fail("query", "before", "missing")
        await desk.submit(desk.order("ca1"))
        desk.venue._accept(courier.intake.working["ca1"].order)  # it arrived after all
        await courier.intake.report(desk.venue.orders["ca1"])
        await courier.look(1)
        assert desk.refusals() == []
        desk.venue.trade("ca1", "1")
        await courier.look(1)
        assert desk.state("ca1") == "filled"

    at_desk(scenario)


def test_no_proof_of_absence_while_trades_are_not_shown(at_desk):
    async def scenario(desk, courier) -> None:
        desk.venue.fail("submit", "before")
        desk.venue.fail("trades", *["before"] * 500)
        await desk.submit(desk.order("ca1"))
        await asyncio.sleep(0.4)
        assert courier.intake.working["ca1"].evidence.answers > 5
        assert desk.state("ca1") == "unknown"
        desk.venue.faults.clear()
        await desk.settle()
        assert desk.state("ca1") == "absent"

    at_desk(scenario)


def test_a_refusal_of_an_order_that_the_venue_has_shown_ends_nothing_and_is_told(at_desk):
    async def scenario(desk, courier) -> None:
        async def contradicts(order, **asked):
            desk.venue._accept(order)
            await courier.intake.report(desk.venue.orders[order.client_id])
            return Rejected(code="-2010", message="no")

        desk.venue.submit = contradicts
        await desk.submit(desk.order("ca1"))
        assert (desk.state("ca1"), desk.refusals()) == ("open", [])
        assert [name for name, _ in desk.alerts] == ["order_mismatch"]
        desk.venue.trade("ca1", "1")
        await courier.look(1)
        assert desk.state("ca1") == "filled"

    at_desk(scenario)


@pytest.mark.parametrize("how", ["cancelled", "stale_order", "halted"])
def test_an_entry_is_called_back_up_to_the_moment_it_leaves(at_desk, how):
    async def scenario(desk, courier) -> None:
        desk.venue.fail("submit", "hold")  # before it is sent: a clock that is measured anew, a budget that is waited for
        entry = asyncio.create_task(desk.submit(desk.order("ca1"), expires=desk.clock.now() + 30))
        await asyncio.sleep(0.01)
        tasks = [entry]
        if how == "cancelled":
            tasks.append(asyncio.create_task(courier.cancel_entries()))
        elif how == "stale_order":
            desk.clock.advance_to(desk.clock.now() + 31)
        else:
            courier.halted["books"] = "they differ"
        await asyncio.sleep(0.01)
        await let_go(desk, *tasks)
        assert (desk.venue.sent, desk.refusals()) == ([], [("ca1", how)])
        assert desk.venue.cancelled == [], "it was never at the venue"
        assert not courier.intake.working

    at_desk(scenario)


def test_a_way_out_leaves_although_entries_are_halted_meanwhile(at_desk):
    async def scenario(desk, courier) -> None:
        exit_ = await keep_an_exit_waiting(desk)
        courier.halted["books"] = "they differ"
        desk.venue.released.set()
        await exit_
        assert desk.venue.sent[-1] == "ca2"

    at_desk(scenario)


def test_lateness_is_judged_by_the_later_of_our_clock_and_the_venues(at_desk):
    async def scenario(desk, courier) -> None:
        desk.venue.offset = -HOUR
        await courier.inquiries.clocks.measure(desk.venue)
        await desk.submit(desk.order("ca1"), expires=desk.clock.now() + HOUR // 2)
        desk.venue.offset = HOUR  # ours was set back
        await courier.inquiries.clocks.measure(desk.venue)
        await desk.submit(desk.order("ca2", instrument="B/USDT"), expires=desk.clock.now() + HOUR // 2)
        assert desk.venue.sent == ["ca1"]
        assert desk.refusals() == [("ca2", "stale_order")]

    at_desk(scenario)
