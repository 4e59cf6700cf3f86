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
from cryptoalpha.core.values import Adjustment, Fill, FundingPayment, Order, PortfolioState, Refusal, Travelling
from cryptoalpha.decisions.fusion.contract import EqualWeights
from cryptoalpha.execution.portfolio import Portfolio
from cryptoalpha.execution.simulated import SimulatedBroker
from cryptoalpha.risk.gate import RiskGate
from cryptoalpha.store.journal import Journal

OPENING = Decimal("0.25")
CLEAN = msgspec.structs.replace(calm(draw_schedule(7, markets=("spot",))), thin=False)


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
                fill.happened_at // 1_000_000,
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


def test_an_order_that_a_late_fill_made_whole_after_its_cancel_is_filled():
    orders = [replace(BOOKS[2].orders[0], status="CANCELED"), *BOOKS[2].orders[1:]]
    assert found(venue=replace(BOOKS[2], orders=orders)) == set()
    orders[0] = replace(orders[0], filled=orders[0].filled / 2)
    assert "ending" in found(venue=replace(BOOKS[2], orders=orders))


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
            source="difference-1", message="",
        )  # fmt: skip
        values.append(taken)

    assert "adjustment" in found(with_values(change))


def test_others_who_take_more_than_they_have_must_show_in_the_book():
    excess = OPENING + Decimal("0.05")
    totals = {**BOOKS[2].totals, "BTC": BOOKS[2].totals["BTC"] - excess}
    assert "adjustment" in found(venue=replace(BOOKS[2], totals=totals, flows=[("BTC", -excess)]))


def stranger(side: str, quantity: str, trade_id: str = "77001") -> VenueTrade:
    return VenueTrade(trade_id, "771", "web_1", "BTC/USDT", side, Decimal(quantity), Decimal(30_000), Decimal(3), "USDT")


def adjusted(quantity: str, cash: str, source: str = "trade BTC/USDT 77001") -> RunRecord:
    """The run with a correction of its book, which its last state shows: only the correction itself may be wrong."""
    at, change_, money = BOOKS[1].values[-1].known_at, Decimal(quantity), Decimal(cash)

    def change(values: list[Travelling]) -> None:
        book = values[place_of(PortfolioState, -1)]
        assert isinstance(book, PortfolioState)
        held = dict(book.positions)
        held["BTC/USDT"] = held.get("BTC/USDT", Decimal(0)) + change_
        values[place_of(PortfolioState, -1)] = msgspec.structs.replace(book, cash=book.cash + money, positions=tuple(held.items()))
        values.append(
            Adjustment(
                happened_at=at, known_at=at, instrument="BTC/USDT", quantity=change_, cash=money, price=Decimal(30_000), source=source,
                message="",
            )
        )  # fmt: skip

    return with_values(change)


def sold_by_a_stranger(quantity: str) -> VenueTruth:
    trade = stranger("sell", quantity)
    totals = {
        **BOOKS[2].totals,
        "BTC": BOOKS[2].totals["BTC"] - trade.quantity,
        "USDT": BOOKS[2].totals["USDT"] + trade.quantity * trade.price - trade.fee,
    }
    return replace(BOOKS[2], totals=totals, trades=[*BOOKS[2].trades, trade])


@pytest.mark.parametrize(
    ("quantity", "cash", "names"),
    [
        ("-0.1", "2999", set()),  # 0.35 sold for 10497: a quarter of a bitcoin was theirs
        ("-0.1", "-2999", {"adjustment"}),
        ("-0.1", "0", {"adjustment"}),
        ("-0.1", "2999.2", {"adjustment"}),
    ],
)
def test_what_the_book_gave_must_have_been_paid_for(quantity, cash, names):
    truth = sold_by_a_stranger("0.35")
    run = adjusted(quantity, str(Decimal(cash) + Decimal("0.14285714")) if cash == "2999" else cash)
    assert found(run, truth) == names


def test_corrections_that_nobody_caused_are_found():
    truth = sold_by_a_stranger("0.35")
    assert found(adjusted("-0.1", "2999.14285714", "trade BTC/USDT 77002"), truth) == {"adjustment"}
    assert found(adjusted("0", "12", "difference-USDT")) == {"adjustment"}
    moved = replace(BOOKS[2], totals={**BOOKS[2].totals, "USDT": BOOKS[2].totals["USDT"] - 12}, flows=[("USDT", Decimal(-12))])
    assert "adjustment" not in found(adjusted("0", "-12", "difference-USDT"), moved)


def test_what_covers_others_goes_at_a_price_of_the_market():
    taken = replace(
        BOOKS[2], totals={**BOOKS[2].totals, "BTC": BOOKS[2].totals["BTC"] - Decimal("0.35")}, flows=[("BTC", Decimal("-0.35"))]
    )
    case = replace(BOOKS[0], spread={"BTC/USDT": (Decimal(29_000), Decimal(31_000))})
    assert found(adjusted("-0.1", "3000", "cover-1"), taken, case) == set()
    assert found(adjusted("-0.1", "300", "cover-1"), taken, case) == {"adjustment"}
    assert found(adjusted("-0.1", "3000", "cover-1"), taken, replace(case, spread={"BTC/USDT": (Decimal(1), Decimal(2))})) == {"adjustment"}


def test_a_fee_that_is_booked_at_another_worth_is_found():
    """Both the book and its cash believe the fill, so nothing else would show it."""
    case = replace(BOOKS[0], worth={"BNB": Decimal(250)})
    first = BOOKS[1].values[place_of(Fill)]
    assert isinstance(first, Fill)
    true, booked = first.fee / 250, first.fee

    def paid(value: Decimal) -> RunRecord:
        def change(values: list[Travelling]) -> None:
            values[place_of(Fill)] = msgspec.structs.replace(first, fee=true, fee_asset="BNB", fee_value=value)

        return with_values(change)

    assert "fee" not in found(paid(booked), case=case)
    assert "fee" in found(paid(booked * 2), case=case)
    assert "fee" in found(paid(Decimal(0)), case=case)


def test_an_order_that_ends_twice_is_found():
    def change(values: list[Travelling]) -> None:
        order = values[place_of(Order)]
        assert isinstance(order, Order)
        end = Refusal(happened_at=1, known_at=1, instrument=order.instrument, rule="expired", message="", client_id=order.client_id)
        values += [end, end]

    assert "ending" in found(with_values(change))


def funded(position: str, amount: str, *, times: int = 1) -> set[str]:
    """A book of perpetuals, long 3 beside a stranger's 1 when 4 were settled."""
    rules = {name: msgspec.structs.replace(one, perpetual=True) for name, one in BOOKS[0].rules.items()}
    ours = VenueTrade("1", "1", "ca1", "BTC/USDT", "buy", Decimal(3), Decimal(100), Decimal(0), "USDT", 1_000)
    theirs = [
        replace(ours, trade_id=str(n), client_id="web", quantity=Decimal(size), at_ms=at) for n, size, at in ((2, 1, 1_500), (3, 9, 2_000))
    ]
    order = Order(happened_at=1, known_at=1, client_id="ca1", instrument="BTC/USDT", side="buy", quantity=Decimal(3))
    fill = Fill(
        happened_at=10**9, known_at=10**9, trade_id="1", client_id="ca1", instrument="BTC/USDT", side="buy", quantity=Decimal(3),
        price=Decimal(100), fee=Decimal(0), fee_asset="USDT", order=1,
    )  # fmt: skip
    paid = FundingPayment(
        happened_at=2 * 10**9,
        known_at=2 * 10**9,
        instrument="BTC/USDT",
        position=Decimal(position),
        rate=float("nan"),
        amount=Decimal(amount),
    )
    book = PortfolioState(
        happened_at=3 * 10**9, known_at=3 * 10**9, cash=Decimal(repr(CASH)) - 300 + paid.amount * times, equity=Decimal(repr(CASH)),
        positions=(("BTC/USDT", Decimal(3)),), peak_equity=Decimal(repr(CASH)),
    )  # fmt: skip
    tables = {"venue_fill": [{"instrument": "BTC/USDT", "trade_id": "1"}], "order_record": [{"client_id": "ca1", "state": "filled"}]}
    record = RunRecord([order, fill, *[paid] * times, book], 1, "x", tables)
    there = VenueOrder("1", "ca1", "BTC/USDT", "buy", Decimal(3), Decimal(3), "FILLED")
    truth = VenueTruth(
        {}, {}, [there], [ours, *theirs], positions={"BTC/USDT": Decimal(13)}, funding=[("BTC/USDT", 2_000, Decimal(-4))],
    )  # fmt: skip
    return found(record, truth, replace(BOOKS[0], rules=rules))


def test_funding_is_the_books_in_the_measure_of_its_position_at_that_moment_and_once():
    assert funded("3", "-3") == set()
    assert funded("3", "-4") == {"cash"}
    assert funded("3", "3") == {"cash"}
    assert funded("0", "0") == {"cash"}
    assert funded("3", "-3", times=2) == {"cash"}
    assert funded("3", "-3", times=0) == {"cash"}


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
