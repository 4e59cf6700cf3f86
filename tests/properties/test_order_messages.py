"""Any order and repetition of what a venue says of an order gives the same position, in the tracker and in the ledger."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalpha.core.values import Fill, Order
from cryptoalpha.execution.orders.states import FINAL, may_follow
from cryptoalpha.execution.orders.tracker import (
    Step,
    Tracked,
    absent,
    begin,
    canceling,
    doubted,
    lost,
    refused,
    reported,
    resume,
    sent,
    traded,
)
from cryptoalpha.execution.venue import OrderReport, Rejected, Trade
from cryptoalpha.store.journal import Journal
from cryptoalpha.store.order_ledger import Booking, OrderLedger

QUANTITY = Decimal(5)
ORDER = Order(happened_at=0, known_at=0, client_id="ca1", instrument="BTC/USDT", side="sell", quantity=QUANTITY)

sizes = st.lists(st.decimals(min_value="0.1", max_value="1.5", places=1), min_size=0, max_size=5)
"""Trades; together they may be more than was ordered."""


def trades_of(quantities: list[Decimal]) -> list[Trade]:
    return [
        Trade(
            instrument="BTC/USDT",
            trade_id=f"t{number}",
            venue_id="v1",
            side="sell",
            quantity=quantity,
            price=Decimal(30000 + number),
            fee=Decimal(0),
            fee_asset="USDT",
            at=number,
        )
        for number, quantity in enumerate(quantities)
    ]


def reports_of(quantities: list[Decimal], end: str) -> list[OrderReport]:
    """What an honest venue says after each trade, and at the end."""
    sums = [sum(quantities[: n + 1], Decimal(0)) for n in range(len(quantities))]
    told = [("open", Decimal(0)), *(("filled" if done >= QUANTITY else "partial", done) for done in sums)]
    told.append(("filled" if sums and sums[-1] >= QUANTITY else end, sums[-1] if sums else Decimal(0)))
    return [
        OrderReport(
            instrument="BTC/USDT", client_id="ca1", venue_id="v1", state=state, side="sell", quantity=QUANTITY, filled=filled, at=number
        )
        for number, (state, filled) in enumerate(told)
    ]


Message = Trade | OrderReport | str


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Decimal], list[Message]]:
    """Trades of an order, and everything said of it in any order, at least once, with our own doubts and cancels between."""
    quantities = draw(sizes)
    messages: list[Message] = [*trades_of(quantities), *reports_of(quantities, draw(st.sampled_from(["canceled", "expired"])))]
    again = draw(st.lists(st.sampled_from(messages), max_size=6))
    ours = draw(st.lists(st.sampled_from(["doubt", "cancel", "lost", "refuse", "absent", "restart", "reply"]), max_size=5))
    return quantities, draw(st.permutations([*messages, *again, *ours]))


def hear(tracked: Tracked, message: Message, now: int) -> Step:
    if isinstance(message, Trade):
        return traded(tracked, message, now)
    if isinstance(message, OrderReport):
        return reported(tracked, message, now)
    return {
        "doubt": lambda: doubted(tracked, "timeout", now),
        "lost": lambda: lost(tracked, "not found", now),
        "refuse": lambda: refused(tracked, Rejected(code="-1013", message=""), now),
        "absent": lambda: absent(tracked, now, "proof"),
        "cancel": lambda: Step(tracked=canceling(tracked, now)),
        "restart": lambda: Step(tracked=tracked),
        "reply": lambda: Step(tracked=tracked),
    }[message]()


def path_of(messages: list[Message]) -> Iterator[tuple[Tracked, Step]]:
    tracked = sent(begin(ORDER, 1, 0), 0)
    for now, message in enumerate(messages, 1):
        step = hear(tracked, message, now)
        yield tracked, step
        tracked = step.tracked


@settings(max_examples=50, deadline=None)
@given(histories())
def test_any_order_and_repetition_books_the_same(history):
    quantities, messages = history
    steps = list(path_of(messages))
    last = steps[-1][1].tracked
    assert last.booked == sum(quantities, Decimal(0))  # the second way: what the venue traded
    assert last.trades == {f"t{number}" for number in range(len(quantities))}
    assert last.record.filled == last.booked
    assert last.ended
    assert last.missing == 0
    for before, step in steps:
        now = step.tracked
        assert may_follow(before.state, now.state)
        assert (now.state == before.state) or not before.ended  # never out of a final state
        assert now.record.filled >= before.record.filled
        assert now.record.ended == (now.state in FINAL)
        assert step.is_new or now == before or now.state == "canceling"  # our own cancel is no message
        over = now.booked > QUANTITY and now.booked > before.booked
        assert ("over" in step.flag.split()) >= over
    if not {"refuse", "absent"} & {message for message in messages if isinstance(message, str)}:
        assert last.state in {"filled", "canceled", "expired"}
        assert not any(step.halts for _, step in steps)


@settings(max_examples=50, deadline=None)
@given(histories())
def test_an_order_that_nobody_falsely_ended_ends_as_the_venue_says(history):
    quantities, messages = history
    honest = [m for m in messages if not isinstance(m, str) or m in ("doubt", "cancel", "lost")]
    last = list(path_of(honest))[-1][1].tracked
    total = sum(quantities, Decimal(0))
    if total == QUANTITY:
        assert last.state == "filled"
    elif total < QUANTITY:
        assert last.state == next(m.state for m in honest if isinstance(m, OrderReport) and m.state in FINAL)


@settings(max_examples=12, deadline=None)
@given(histories())
def test_the_ledger_books_and_tells_each_trade_once_through_any_restarts(history):
    quantities, messages = history
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.sqlite"
        with Journal(path, durable=True, header={"run": "r"}) as journal:
            journal.append(0, [ORDER])
            ledger = OrderLedger(path)
            tracked = sent(begin(ORDER, 1, 0), 0)
            for now, message in enumerate(messages, 1):
                if message == "restart":
                    ledger.close()
                    ledger = OrderLedger(path)
                    tracked = resume(ORDER, 1, ledger.record("ca1"), ledger.fills(client_id="ca1"), now)
                step = hear(tracked, message, now)
                fills = [Booking(fill=as_fill(message), flag=step.flag)] if isinstance(message, Trade) else []
                ledger.write(at=now, records=[step.tracked.record], fills=fills)
                tracked = step.tracked
                if message == "reply":
                    journal.outcomes()
                    journal.append(now, [])
            told = [value for _, value in ledger.told()]
            assert sorted(fill.trade_id for fill in told) == [f"t{number}" for number in range(len(quantities))]
            assert sum((booking.fill.quantity for booking in ledger.fills()), Decimal(0)) == sum(quantities, Decimal(0))
            assert ledger.record("ca1").filled == sum(quantities, Decimal(0))
            ledger.close()
            journal.outcomes()
            journal.append(999, [])
            given_out = [value for row in range(1, journal.next_row) for value in replayed(path, row)]
            assert given_out == told


def replayed(path: Path, row: int) -> tuple[Fill, ...]:
    """What a replay of that row is told."""
    with Journal(path, durable=True, header={"run": "r"}) as journal:
        for number, at, values in list(journal.rows(1, row)):
            assert number == journal.append(at, values)
        return journal.outcomes()


def as_fill(trade: Trade) -> Fill:
    return Fill(
        happened_at=trade.at,
        known_at=trade.at,
        trade_id=trade.trade_id,
        client_id="ca1",
        instrument=trade.instrument,
        side=trade.side,
        quantity=trade.quantity,
        price=trade.price,
        fee=trade.fee,
        fee_asset=trade.fee_asset,
    )
