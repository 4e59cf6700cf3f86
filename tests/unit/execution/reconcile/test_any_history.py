"""Any history of an account: whatever happens in whatever order, the books end at the venue's truth."""

from __future__ import annotations

import asyncio
from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalpha.core.values import Fill

D = Decimal

SIZES, LEVELS = st.integers(1, 400).map(lambda n: str(D(n) / 1000)), st.integers(9000, 11000).map(lambda n: str(D(n) / 100))
FEES = st.sampled_from([("0", "USDT"), ("0.0123", "USDT"), ("0.00007", "BTC"), ("0.0011", "BNB")])
HAPPENINGS = st.one_of(
    st.tuples(st.just("order"), st.sampled_from(["buy", "sell"]), SIZES, st.booleans()),
    st.tuples(st.just("fill"), st.integers(0, 9), SIZES, LEVELS, FEES, st.booleans()),  # the last: not shown yet
    st.tuples(st.just("end"), st.integers(0, 9)),
    st.tuples(st.just("stranger"), st.sampled_from(["buy", "sell"]), SIZES, LEVELS, FEES),
    st.tuples(st.just("transfer"), st.sampled_from(["USDT", "BTC"]), st.integers(-300, 300)),
    st.tuples(st.just("stream"), st.integers(0, 30)),  # any old trade or report comes in (again)
    st.tuples(st.just("show"), st.integers(0, 30)),
    st.tuples(st.just("lag"), st.booleans()),
    st.tuples(st.just("look"), st.sampled_from([0.1, 3.0, 6.0])),
    st.tuples(
        st.just("restart"),
    ),
)


def happen(world, event: tuple) -> None:
    desk, kind = world.desk, event[0]
    names = list(desk.orders)
    if kind == "order":
        world.order(f"ca{len(names) + 1}", event[1], event[2], is_known=event[3])
    elif kind == "fill" and names:
        report = desk.orders[names[event[1] % len(names)]]  # perhaps one that has ended: a late fill, or an over-fill
        trade = desk.fill(report.client_id, event[2], event[3], *event[4])
        if event[5]:
            desk.hidden.add(trade.trade_id)
    elif kind == "end" and names and desk.orders[names[event[1] % len(names)]].state in ("open", "partial"):
        desk.end(names[event[1] % len(names)])
    elif kind == "stranger":
        desk.trade(event[1], event[2], event[3], *event[4])
    elif kind == "transfer":
        desk.move(event[1], D(event[2]) / 1000)
    elif kind == "stream" and names:
        asyncio.run(world.intake.report(desk.orders[names[event[1] % len(names)]]))
        if desk.book:
            asyncio.run(world.intake.trades([desk.book[event[1] % len(desk.book)]]))
    elif kind == "show" and desk.hidden:
        desk.hidden.discard(sorted(desk.hidden)[event[1] % len(desk.hidden)])
    elif kind == "lag":
        desk.frozen = asyncio.run(desk.balances()) if event[1] else None
    elif kind == "look":
        world.look(event[1])
    elif kind == "restart":
        world.start()


@settings(max_examples=30, deadline=None)
@given(events=st.lists(HAPPENINGS, min_size=4, max_size=25))
def test_whatever_happens_in_whatever_order_the_books_end_at_the_venues_truth(worlds, events):
    """Duplicates, late, out-of-order and over-fills, fees in any asset, strangers, transfers, lags, restarts: each trade once, cash and
    position to the last digit, and looking again is nothing."""
    world = worlds("1500", before=lambda desk: (desk.move("BTC", D(2)), desk.move("BNB", D(5))))
    desk = world.desk
    try:
        for event in events:
            happen(world, event)
        desk.frozen, desk.hidden = None, set()
        for client_id in desk.orders:  # the inquiry of each order ends it
            if desk.orders[client_id].state in ("open", "partial"):
                desk.end(client_id)
            asyncio.run(world.intake.report(desk.orders[client_id]))
        for _ in range(6):
            world.look()
        ours = {report.venue_id for report in desk.orders.values()}
        real = [trade for trade in desk.book if trade.venue_id in ours]
        booked = world.told(Fill)
        assert len({one.trade_id for one in booked}) == len(booked)
        if not any(one.trade_id.startswith("synthetic") for one in booked):
            assert sorted(one.trade_id for one in booked) == sorted(trade.trade_id for trade in real)
        for name, report in desk.orders.items():
            assert sum((one.quantity for one in booked if one.client_id == name), D(0)) == report.filled
        world.check()
    finally:
        world.close()
