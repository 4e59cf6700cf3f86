"""The chaos checker: silent on books that agree, and loud about each way in which they can disagree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from cryptoalpha.app.chaos.checker import Case, check, check_replay
from cryptoalpha.app.chaos.schedule import calm, draw_schedule
from cryptoalpha.app.chaos.truth import RunRecord, VenueOrder, VenueTrade, VenueTruth
from cryptoalpha.app.chaos.world import CASH, ScheduledAgent, World
from cryptoalpha.app.engine import Engine
from cryptoalpha.core.clock import VirtualClock
from cryptoalpha.core.values import Adjustment, Fill, Order, PortfolioState, Refusal, Travelling
from cryptoalpha.decisions.fusion import EqualWeights
from cryptoalpha.execution.portfolio import Portfolio
from cryptoalpha.execution.simulated import SimulatedBroker
from cryptoalpha.risk.gate import RiskGate
from cryptoalpha.store.journal import Journal

OPENING = Decimal("0.25")
CLEAN = calm(draw_schedule(7, markets=("spot",)))


def simulated_books() -> tuple[Case, RunRecord, VenueTruth]:
    """A run of the engine with its simulated broker, and the books of a venue that made exactly those trades."""
    world = World(CLEAN)
    clock = VirtualClock()
    with Journal(None, durable=False, header=world.header()) as journal:
        engine = Engine(
            clock=clock, fusion=EqualWeights(), agent=ScheduledAgent(world), gate=RiskGate(world.risk, world.rules, account="c"),
            broker=SimulatedBroker(world.execution, world.rules), portfolio=Portfolio(CASH, list(world.rules)), journal=journal,
        )  # fmt: skip
        for step in world.steps():
            clock.advance_to(step.bar.at)
            engine.step(step)
        values: list[Travelling] = [value for _, _, row in journal.rows() for value in row]
        rows, digest = len(journal), journal.digest()
    fills = [value for value in values if isinstance(value, Fill)]
    orders, trades = [], []
    totals = {"USDT": Decimal(repr(CASH)), "BTC": OPENING, "ETH": Decimal(0)}
    for number, order in enumerate(value for value in values if isinstance(value, Order)):
        mine = [fill for fill in fills if fill.client_id == order.client_id]
        done = sum((fill.quantity for fill in mine), Decimal(0))
        status = "FILLED" if done == order.quantity else "EXPIRED"
        orders.append(VenueOrder(str(number), order.client_id, order.instrument, order.side, order.quantity, done, status))
        for fill in mine:
            trade = VenueTrade(
                fill.trade_id,
                str(number),
                order.client_id,
                fill.instrument,
                fill.side,
                fill.quantity,
                fill.price,
                fill.fee,
                "USDT",
            )
            trades.append(trade)
            totals[world.rules[fill.instrument].base] += trade.signed
            totals["USDT"] -= trade.signed * fill.price + fill.fee
    opening = {"USDT": Decimal(repr(CASH)), "BTC": OPENING}
    states = {"FILLED": "filled", "EXPIRED": "expired"}
    tables: dict[str, Any] = {
        "venue_fill": [{"instrument": fill.instrument, "trade_id": fill.trade_id} for fill in fills],
        "order_record": [{"client_id": order.client_id, "state": states[order.status]} for order in orders],
        "venue_event": [{"id": number} for number in range(len(fills))],
        "foreign_item": [],
    }
    assert len(fills) > 8
    assert all(order.status == "FILLED" for order in orders)
    case = Case(world.rules, Decimal(repr(CASH)))
    return case, RunRecord(values, rows, digest, tables), VenueTruth(opening, totals, orders, trades)


BOOKS = simulated_books()


def found(run: RunRecord | None = None, venue: VenueTruth | None = None, case: Case | None = None) -> set[str]:
    """Names of the checks that speak."""
    return {one.check for one in check(case or BOOKS[0], run or BOOKS[1], venue or BOOKS[2])}


def with_values(change: Callable[[list[Travelling]], None]) -> RunRecord:
    values = list(BOOKS[1].values)
    change(values)
    return replace(BOOKS[1], values=values)


def place_of(kind: type, nth: int = 0) -> int:
    return [place for place, value in enumerate(BOOKS[1].values) if isinstance(value, kind)][nth]


def test_books_that_agree_are_passed_in_silence():
    assert found() == set()


def test_a_trade_that_the_journal_lacks_is_found():
    assert "trades_once" in found(with_values(lambda values: values.pop(place_of(Fill, 2))))


def test_a_trade_that_is_booked_twice_is_found():
    assert "trades_once" in found(with_values(lambda values: values.insert(place_of(Fill, 2), values[place_of(Fill, 2)])))


def test_a_trade_that_nobody_made_is_found():
    venue = replace(BOOKS[2], trades=BOOKS[2].trades[1:])
    assert found(venue=venue) == {"trades_once", "position"}


def test_a_fee_off_by_the_last_digit_is_found():
    def change(values: list[Travelling]) -> None:
        place = place_of(Fill, 1)
        fill = values[place]
        assert isinstance(fill, Fill)
        values[place] = msgspec.structs.replace(fill, fee=fill.fee + Decimal("1e-8"))

    assert found(with_values(change)) == {"trades_once", "cash"}


def test_cash_off_by_the_last_digit_is_found():
    def change(values: list[Travelling]) -> None:
        place = place_of(PortfolioState, -1)
        book = values[place]
        assert isinstance(book, PortfolioState)
        values[place] = msgspec.structs.replace(book, cash=book.cash + Decimal("1e-8"))

    assert found(with_values(change)) == {"cash"}


def test_a_second_order_for_one_intent_is_found():
    twin = replace(BOOKS[2].orders[0], venue_id="9999", filled=Decimal(0), status="CANCELED")
    assert "duplicate" in found(venue=replace(BOOKS[2], orders=[*BOOKS[2].orders, twin]))


def test_an_order_with_our_name_and_no_intent_is_found_unless_another_hand_is_known_to_have_placed_it():
    stray = replace(BOOKS[2].orders[0], client_id="ca77", venue_id="9998", filled=Decimal(0), status="CANCELED")
    venue = replace(BOOKS[2], orders=[*BOOKS[2].orders, stray])
    assert found(venue=venue) == {"orphan"}
    assert found(venue=venue, case=replace(BOOKS[0], strangers=("ca77",))) == set()


def test_an_order_that_still_works_at_the_end_is_found():
    orders = [replace(BOOKS[2].orders[0], status="PARTIALLY_FILLED"), *BOOKS[2].orders[1:]]
    assert "unsettled" in found(venue=replace(BOOKS[2], orders=orders))


def test_an_order_called_absent_that_the_venue_has_is_found():
    records = [{**row, "state": "absent"} if number == 0 else row for number, row in enumerate(BOOKS[1].tables["order_record"])]
    assert "ending" in found(replace(BOOKS[1], tables={**BOOKS[1].tables, "order_record": records}))


def test_an_order_refused_as_stale_that_was_sent_all_the_same_is_found():
    def change(values: list[Travelling]) -> None:
        order = values[place_of(Order)]
        assert isinstance(order, Order)
        values.append(
            Refusal(
                happened_at=order.known_at, known_at=order.known_at, instrument=order.instrument, rule="stale_order", message="",
                client_id=order.client_id,
            )
        )  # fmt: skip

    assert found(with_values(change)) == {"ending"}


def test_coins_that_vanish_are_found():
    totals = {**BOOKS[2].totals, "BTC": BOOKS[2].totals["BTC"] - Decimal("0.00001")}
    assert found(venue=replace(BOOKS[2], totals=totals)) == {"position"}


def test_what_others_move_is_not_ours():
    btc, usdt = BOOKS[2].totals["BTC"], BOOKS[2].totals["USDT"]
    stranger = VenueTrade("77001", "771", "web_1", "BTC/USDT", "sell", Decimal("0.1"), Decimal(30_000), Decimal(3), "USDT")
    totals = {**BOOKS[2].totals, "BTC": btc - Decimal("0.1") - Decimal("0.05"), "USDT": usdt + 2997}
    venue = replace(BOOKS[2], totals=totals, trades=[*BOOKS[2].trades, stranger], flows=[("BTC", Decimal("-0.05"))])
    assert found(venue=venue) == set()


def test_an_adjustment_while_others_had_enough_is_found():
    def change(values: list[Travelling]) -> None:
        at = BOOKS[1].values[-1].known_at
        taken = Adjustment(
            happened_at=at, known_at=at, instrument="BTC/USDT", quantity=Decimal("-0.01"), cash=Decimal(0), price=Decimal(30_000),
            source="x", message="",
        )  # fmt: skip
        values.append(taken)

    assert "adjustment" in found(with_values(change))


def test_others_who_take_more_than_they_have_must_show_in_the_book():
    excess = OPENING + Decimal("0.05")
    totals = {**BOOKS[2].totals, "BTC": BOOKS[2].totals["BTC"] - excess}
    assert "adjustment" in found(venue=replace(BOOKS[2], totals=totals, flows=[("BTC", -excess)]))


def test_a_position_below_zero_is_found():
    def change(values: list[Travelling]) -> None:
        first = values[place_of(Fill)]
        assert isinstance(first, Fill)
        values.insert(place_of(Fill), msgspec.structs.replace(first, side="sell", trade_id="early"))

    assert "flip" in found(with_values(change))


@pytest.mark.parametrize("table", ["venue_fill", "venue_event", "foreign_item"])
def test_a_correction_made_twice_is_found(table):
    grown = {**BOOKS[1].tables, table: [*BOOKS[1].tables[table], {"id": 10_000}]}
    assert [one.check for one in check_replay(BOOKS[1], replace(BOOKS[1], tables=grown))] == ["replay"]
    assert check_replay(BOOKS[1], BOOKS[1]) == []


def test_rows_that_hash_to_something_else_are_found():
    assert [one.check for one in check_replay(BOOKS[1], replace(BOOKS[1], digest="0" * 64))] == ["replay"]
