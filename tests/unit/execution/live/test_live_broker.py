"""The broker of a live run in the engine's thread: what it remembers, what it tells, and that its other half never dies in silence."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from decimal import Decimal

import ccxt
import msgspec
import pytest

from cryptoalpha.core.errors import ConfigError, StoreError, VenueError
from cryptoalpha.core.time import HOUR
from cryptoalpha.core.values import Adjustment, Fill, FundingPayment, Order, Refusal, event_id
from cryptoalpha.execution.broker import BarStep
from cryptoalpha.execution.live.broker import LiveBroker, in_order
from cryptoalpha.execution.live.courier import Courier
from cryptoalpha.execution.live.venue_thread import VenueThread
from cryptoalpha.store.journal import Journal
from cryptoalpha.store.order_ledger import OrderLedger


class Run:
    """An engine reduced to its rows: takes what the broker tells, writes it with new orders, hands them over."""

    def __init__(self, desk, rules) -> None:
        self.desk, self.rules, self.path = desk, rules, desk.path
        desk.journal.close()
        self.open()

    def open(self) -> None:
        self.journal = Journal(self.path, durable=True, header={"run": "t"})
        desk = self.desk

        def make() -> Courier:
            desk.venue.stream = asyncio.Queue()  # belongs to the loop
            desk.ledger = OrderLedger(self.path)
            desk.courier = Courier(
                desk.venue, desk.ledger, self.rules, desk.config, clock=desk.clock, alert=lambda *a: desk.alerts.append(a)
            )
            return desk.courier

        self.broker = LiveBroker(make, self.journal, self.rules, desk.config)
        self.broker.start(10.0)

    def close(self) -> None:
        self.broker.close()
        self.journal.close()

    def step(self, hour: int, *orders: Order) -> list[object]:
        at = hour * HOUR
        self.desk.clock.advance_to(max(at, self.desk.clock.now()))
        bar = BarStep(at, at - HOUR, HOUR, ("A/USDT", "B/USDT"), [100.0] * 2, [100.0] * 2, [100.0] * 2, [100.0] * 2, [1e6] * 2, [True] * 2)
        told = self.broker.on_bar(bar)
        row = self.journal.append(at, [*told, *orders])
        for place, order in enumerate(orders):
            self.broker.submit(order, event_id(row, len(told) + place))
        return told

    def settle(self) -> None:
        assert self.broker.drain(5.0)
        deadline = time.monotonic() + 3
        while any(one.is_unsettled for one in list(self.desk.courier.intake.working.values())):
            assert time.monotonic() < deadline
            time.sleep(0.005)


@pytest.fixture
def run(desk, rules):
    made = Run(desk, rules)
    yield made
    made.close()


def order(hour: int, client_id: str, side: str = "buy", quantity: str = "1", instrument: str = "A/USDT", **more) -> Order:
    at = hour * HOUR
    return Order(happened_at=at, known_at=at, client_id=client_id, instrument=instrument, side=side, quantity=Decimal(quantity), **more)


def test_what_is_pending_follows_from_what_was_said_and_told_alone(run):
    assert run.step(11, order(11, "ca1", quantity="2")) == []
    assert run.broker.pending() == {"A/USDT": Decimal(2)}
    run.settle()
    run.desk.venue.trade("ca1", "0.5")
    assert run.broker.pending() == {"A/USDT": Decimal(2)}
    (fill,) = run.step(12, order(12, "ca2", quantity="3"))
    assert isinstance(fill, Fill)
    assert (fill.quantity, fill.known_at, fill.order) == (Decimal("0.5"), 12 * HOUR, event_id(1, 0))
    assert run.broker.pending() == {"A/USDT": Decimal("4.5")}  # the rest of the old one until its end was told
    run.settle()
    (refusal,) = run.step(13)
    assert isinstance(refusal, Refusal)
    assert (refusal.rule, refusal.client_id) == ("cancelled", "ca1")
    assert run.broker.pending() == {"A/USDT": Decimal(3)}
    run.broker.cancel("A/USDT")
    run.broker.cancel("A/USDT")
    assert run.broker.pending() == {"A/USDT": Decimal(3)}
    run.settle()
    run.step(14)
    assert run.broker.pending() == {}


def test_a_bar_tells_sells_before_the_buys_they_pay_for_and_ends_last(run):
    run.step(11, order(11, "ca1"))
    run.settle()
    run.desk.venue.trade("ca1", "1")
    run.step(12, order(12, "ca2", "sell", "1", reduce_only=True), order(12, "ca3", quantity="5", instrument="B/USDT"))
    run.settle()
    bought, sold = run.desk.venue.trade("ca3", "5"), run.desk.venue.trade("ca2", "1")
    run.desk.venue.made[-2:] = [_at(bought, 12 * HOUR), _at(sold, 12 * HOUR)]
    assert [(one.client_id, one.side) for one in run.step(13)] == [("ca2", "sell"), ("ca3", "buy")]


def _at(trade, at):
    return msgspec.structs.replace(trade, at=at)


def test_funding_keeps_its_place_among_the_trades_it_was_counted_on():
    def fill(name: str, side: str, at: int) -> Fill:
        more = {"price": Decimal(1), "fee": Decimal(0), "fee_asset": "USDT", "instrument": "A/USDT"}
        return Fill(happened_at=at, known_at=at, trade_id=name, client_id=name, side=side, quantity=Decimal(1), **more)

    def funding(at: int) -> FundingPayment:
        return FundingPayment(happened_at=at, known_at=at, instrument="A/USDT", position=Decimal(1), rate=0.0, amount=Decimal(1))

    told = [
        fill("t2", "buy", 2),
        fill("t1", "buy", 1),
        funding(1),
        fill("t4", "buy", 1),
        fill("t3", "sell", 1),
        funding(2),
        fill("t5", "buy", 0),
    ]
    assert [getattr(one, "trade_id", "funding") for one in in_order(told, ("A/USDT",))] == [
        "t1",
        "t2",
        "funding",
        "t3",
        "t4",
        "funding",
        "t5",
    ]


def test_a_replay_is_told_the_same_and_sends_nothing(run):
    run.step(11, order(11, "ca1", quantity="2"))
    run.settle()
    run.desk.venue.trade("ca1", "2")
    first = [run.step(12, order(12, "ca2", "sell", "2", reduce_only=True)), run.step(13, order(13, "ca3"))]
    run.settle()
    pending, sent = run.broker.pending(), list(run.desk.venue.sent)
    run.close()
    run.open()
    assert run.journal.is_replaying
    assert run.step(11, order(11, "ca1", quantity="2")) == []
    run.broker.cancel("A/USDT")  # as long ago: nothing is done
    assert [run.step(12, order(12, "ca2", "sell", "2", reduce_only=True)), run.step(13, order(13, "ca3"))] == first
    assert run.broker.pending() == pending
    run.settle()
    assert run.desk.venue.sent == sent
    assert "ca3" in run.desk.courier.intake.working
    assert [one.rule for one in run.step(14) if isinstance(one, Refusal)] == ["cancelled"]  # ca2, replaced in row 3
    assert not run.journal.is_replaying


def test_an_entry_decided_after_a_correction_was_told_is_sent(run):
    """The correction is part of the position it was decided on; before it is told, the entry is given up."""
    change = Adjustment(
        happened_at=1,
        known_at=1,
        instrument="A/USDT",
        quantity=Decimal("0.5"),
        cash=Decimal(-50),
        price=Decimal(100),
        source="t",
        message="",
    )
    with OrderLedger(run.path) as ledger:
        ledger.write(at=1, outcomes=[change])
    run.broker.submit(order(11, "ca0"), event_id(run.journal.append(11 * HOUR, [order(11, "ca0")]), 0))
    run.settle()
    assert run.desk.venue.sent == []
    assert Adjustment in {type(one) for one in run.step(12)}
    run.step(13, order(13, "ca1"))
    run.settle()
    assert run.desk.venue.sent == ["ca1"]


def test_an_order_whose_bar_is_long_past_is_not_sent_but_a_person_may_always_close(run):
    run.desk.clock.advance_to(30 * HOUR)
    run.step(11, order(11, "ca1"))
    run.settle()
    assert run.desk.venue.sent == []
    assert [one.rule for one in run.step(12)] == ["stale_order"]
    run.desk.clock.advance_to(60 * HOUR)
    run.step(59, order(59, "ca2"))
    run.settle()
    run.desk.venue.trade("ca2", "1")
    run.step(60)
    run.desk.clock.advance_to(90 * HOUR)
    run.step(61, order(61, "ca3", "sell", "1", reduce_only=True, binding_limit="kill_switch"))
    run.settle()
    assert run.desk.venue.sent == ["ca2", "ca3"]


def test_the_death_of_the_venues_thread_is_raised_at_the_next_step(run):
    run.step(11, order(11, "ca1"))
    run.settle()
    run.desk.venue.trades = None  # a fault of the program
    with pytest.raises((VenueError, TypeError), match="not callable"):
        run.step(12)
    run.broker._thread._thread.join(5)
    with pytest.raises(VenueError, match="TypeError"):
        run.broker.submit(order(12, "ca9"), event_id(99, 0))
    assert not any(thread.name == "venue" and thread.is_alive() for thread in threading.enumerate())


def test_a_ledger_that_cannot_be_written_stops_the_run(run):
    run.step(11)
    run.desk.ledger.write = _full
    run.step(12, order(12, "ca1"))
    with pytest.raises(StoreError, match="disk is full"):
        run.step(13)


def _full(**_more):
    raise StoreError("the disk is full")


def test_entries_are_taken_back_at_once_when_asked_for(run):
    run.step(11, order(11, "ca1"), order(11, "ca2", instrument="B/USDT"))
    run.settle()
    run.broker.cancel_entries_now(wait_seconds=5)
    assert sorted(run.desk.venue.cancelled) == ["ca1", "ca2"]
    assert run.broker.pending() == {"A/USDT": Decimal(1), "B/USDT": Decimal(1)}  # until it is told
    assert {one.rule for one in run.step(12)} == {"cancelled"}


def test_closing_takes_entries_back_and_ends_the_thread(run):
    run.step(11, order(11, "ca1"))
    run.broker.close(cancel_entries=True)
    assert run.desk.venue.cancelled == ["ca1"]
    assert run.desk.venue.closed == 1
    run.broker.close()
    assert not any(thread.name == "venue" and thread.is_alive() for thread in threading.enumerate())
    with pytest.raises(VenueError, match="not running"):
        run.step(12)


def test_a_key_that_may_withdraw_stops_the_start(desk, rules):
    desk.venue.may_withdraw = True
    with pytest.raises(ConfigError, match="withdraw"):
        Run(desk, rules)
    desk.venue.may_withdraw = False


def test_a_venue_that_does_not_answer_stops_the_start(desk, rules):
    desk.venue.fail("open", *["before"] * 1000)
    with pytest.raises(VenueError, match="closed for now"):
        Run(desk, rules)


def test_a_start_in_a_short_outage_finds_its_way(desk, rules):
    desk.venue.fail("open", "before", "before")
    Run(desk, rules).close()
    assert desk.venue.opened == 3


def test_the_books_are_compared_before_anything_else_is_done(run):
    assert run.desk.courier.standing()["compared_at"] > 0


def test_a_start_ends_the_older_of_two_orders_that_a_killed_process_left(run):
    run.step(11, order(11, "ca1", quantity="2"))
    run.settle()
    run.journal.append(12 * HOUR, [order(12, "ca2", quantity="3")])  # written; killed before its predecessor was cancelled
    run.close()
    run.desk.venue._accept(order(12, "ca2", quantity="3"))
    run.open()
    deadline = time.monotonic() + 3
    while "ca1" in run.desk.courier.intake.working:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert list(run.desk.courier.intake.working) == ["ca2"]


def test_an_instrument_without_rules_is_refused(run):
    with pytest.raises(ConfigError, match="no rules"):
        run.broker.submit(order(11, "ca1", instrument="C/USDT"), event_id(1, 0))


class Sleeper:
    """Never starts."""

    async def start(self) -> None:
        await asyncio.sleep(60)

    async def failure(self) -> None: ...

    async def close(self) -> None: ...


def test_a_start_that_takes_too_long_is_given_up_and_leaves_no_thread():
    thread = VenueThread(Sleeper)
    with pytest.raises(VenueError, match="did not answer"):
        thread.start(0.05)
    assert not thread.is_alive
    with pytest.raises(VenueError, match="not running"):
        thread.call(lambda: Sleeper().close(), 1.0)


class Lingerer(Sleeper):
    """Starts at once, and takes its time to close, as in an outage."""

    async def start(self) -> None: ...

    async def failure(self) -> None:
        await asyncio.sleep(60)

    async def close(self) -> None:
        await asyncio.sleep(0.5)


def test_an_end_in_an_outage_is_bounded_and_said_and_no_error(caplog):
    thread = VenueThread(Lingerer)
    thread.start(5.0)
    begun = time.monotonic()
    assert not thread.close(0.05)
    assert time.monotonic() - begun < 0.4
    assert "asked for at the next start" in caplog.text
    assert thread.close(5.0)


def test_futures_that_ccxt_leaves_behind_are_dropped_and_nothing_else_and_no_secret_is_said(caplog):
    class Broken(Lingerer):
        async def start(self) -> None:
            for error in (ccxt.NetworkError("GET https://venue/ws?signature=5ec2e7"), ValueError("signature=5ec2e7")):
                asyncio.get_running_loop().create_future().set_exception(error)
            gc.collect()

    thread = VenueThread(Broken)
    thread.start(5.0)
    thread.close(5.0)
    said = [record.getMessage() for record in caplog.records]
    assert said == ["Future exception was never retrieved: ValueError"]


def test_a_call_that_takes_too_long_is_said_and_one_into_a_dead_thread_too():
    class Idle(Sleeper):
        async def start(self) -> None: ...

        async def failure(self) -> None:
            await asyncio.sleep(60)

    thread = VenueThread(Idle)
    thread.start(5.0)
    with pytest.raises(VenueError, match="did not answer within"):
        thread.call(lambda: asyncio.sleep(60), 0.1)
    thread._loop.call_soon_threadsafe(thread._stop.set)
    thread._thread.join(5)
    with pytest.raises(VenueError, match="not running"):
        thread.post(lambda: None)
    thread.close()


def test_what_cannot_be_made_is_said_in_full():
    def make() -> Sleeper:
        raise StoreError("no journal at all")

    with pytest.raises(StoreError, match="no journal at all"):
        VenueThread(make).start(5.0)


def test_how_a_run_stands_can_be_asked_from_any_thread(run):
    run.step(11)
    assert run.broker.compare_now(5)
    standing = run.broker.standing()
    assert standing["halted"] == {}
    assert standing["compared_at"] > 0
    assert (standing["is_listening"], standing["is_in_doubt"], standing["foreign_orders"], standing["orders"]) == (False, False, 0, 0)


def test_what_another_hand_did_once_told_is_no_reason_to_give_an_entry_up(run):
    run.step(11, order(11, "ca1"))
    run.settle()
    run.desk.venue.trade("ca1", "1")
    run.step(12)
    taken = Adjustment(
        happened_at=12 * HOUR, known_at=12 * HOUR, instrument="A/USDT", quantity=Decimal("-0.4"), cash=Decimal(40), price=Decimal(100),
        source="foreign 7", message="sold by hand",
    )  # fmt: skip
    with OrderLedger(run.path) as ledger:
        ledger.write(at=1, outcomes=[taken])
    run.desk.venue.held["A/USDT"] -= Decimal("0.4")
    run.step(13, order(13, "ca2"))  # decided on what was told with this very bar
    run.settle()
    assert "ca2" in run.desk.venue.sent
