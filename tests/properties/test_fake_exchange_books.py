"""The fake exchange's books add up whatever is done to it: balances are deposits plus trades less fees, positions the sum of trades."""

from __future__ import annotations

from collections import defaultdict
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalpha.core.time import HOUR
from cryptoalpha.core.values import InstrumentRules
from cryptoalpha.execution.config import ExecutionConfig
from cryptoalpha.execution.fake_exchange.accounts import Account, AccountSettings, VenueOrder
from cryptoalpha.execution.fake_exchange.intake import RefusedError, Wish, equity
from cryptoalpha.execution.fake_exchange.market import Book, Listing, Market
from cryptoalpha.execution.fake_exchange.matching import Event, Exchange
from cryptoalpha.execution.money import exact
from cryptoalpha.store.panel import build_panel
from cryptoalpha.store.tables import BarTable, Dataset

NAMES = ("BNB/USDT", "BTC/USDT")
BARS = 60


def exchange(seed: int, *, perpetual: bool, fees: str) -> Exchange:
    g = np.random.default_rng(seed)
    tables, rules = {}, {}
    for name in NAMES:
        close = np.round(100 * np.exp(np.cumsum(g.normal(0, 0.03, BARS))), 2)
        opened = np.r_[100.0, close[:-1]]
        tables[name] = BarTable(
            instrument=name, interval=HOUR, open_time=HOUR * np.arange(BARS), open=opened, close=close,
            volume=np.round(g.gamma(2, 30, BARS), 3),
            high=np.round(np.maximum(opened, close) * 1.02, 2), low=np.round(np.minimum(opened, close) * 0.98, 2),
        )  # fmt: skip
        rules[name] = InstrumentRules(
            happened_at=0, known_at=0, instrument=name, venue="binance", base=name[:3], quote="USDT", lot=Decimal("0.001"),
            tick=Decimal("0.01"), min_notional=Decimal(5), perpetual=perpetual,
        )  # fmt: skip
    panel = build_panel(Dataset("random", tables, rules=rules), since=0, until=BARS * HOUR)
    funding = np.full(panel.open.shape, np.nan)
    funding[::4] = 1e-3
    book = Book(panel, rules, funding, np.full(panel.open.shape, np.nan))
    settings = AccountSettings(balances={"USDT": Decimal(5000), "BNB": Decimal(1)}, wallet=Decimal(5000), fees=fees)  # type: ignore[arg-type]
    return Exchange(Market(book, start=5), ExecutionConfig(), [settings])


STEP = st.tuples(
    st.sampled_from(["place", "place", "place", "advance", "advance", "cancel", "transfer", "accident"]),
    st.sampled_from(["buy", "sell"]),
    st.sampled_from(["MARKET", "GTC", "IOC", "FOK", "POST", "REDUCE"]),
    st.integers(1, 6000),
    st.integers(-30, 30),
    st.integers(0, 1),
)


def do(venue: Exchange, account: Account, step: tuple[Any, ...], *, perpetual: bool) -> None:
    what, side, kind, size, offset, which = step
    listing = venue.market.named(NAMES[which])
    live = account.open_orders(perpetual=perpetual)
    if what == "advance":
        venue.advance(1 + size % 2)
    elif what == "cancel" and live:
        venue.cancel(live[size % len(live)])
    elif what == "transfer":
        venue.transfer(account, "USDT", Decimal(size) / 100, futures=perpetual)
    elif what == "accident" and live:
        venue.fill_now(live[size % len(live)], Decimal(size) / 1000)
    elif what == "place":
        rests = kind in ("GTC", "IOC", "FOK", "POST")
        price = exact(venue.market.last_price(listing)) * (1 + Decimal(offset) / 1000)
        wish = Wish(
            listing=listing, side=side, quantity=Decimal(size) / 1000, type="LIMIT" if rests else "MARKET",
            price=price.quantize(listing.tick) if rests else None, time_in_force=kind if kind in ("IOC", "FOK") else "GTC",
            post_only=kind == "POST", reduce_only=kind == "REDUCE" and perpetual,
        )  # fmt: skip
        try:
            venue.place(account, wish)
        except RefusedError as refused:
            if refused.code not in (-2010, -2019, -2022, -5022, -1013, -4164):
                raise


def check_orders(account: Account, listings: tuple[Listing, ...]) -> None:
    booked = [trade for kept in account.trades.values() for trade in kept]
    for kept in account.trades.values():
        ids = [trade.trade_id for trade in kept]
        assert ids == sorted(set(ids))
    by_order: dict[int, list[Any]] = defaultdict(list)
    for trade in booked:
        by_order[trade.order.order_id].append(trade)
    for order in account.orders.values():
        mine = by_order[order.order_id]
        assert order.filled == sum((t.quantity for t in mine), Decimal(0))
        assert order.quote_filled == sum((t.quantity * t.price for t in mine), Decimal(0))
        if order.status == "NEW":
            assert not mine
        elif order.status == "PARTIALLY_FILLED":
            assert 0 < order.filled < order.quantity
        elif order.status == "FILLED":
            assert order.filled >= order.quantity
        assert order.reserved >= 0
        assert order.is_open or order.reserved == 0
    for listing in listings:
        signed = sum((t.quantity if t.order.side == "buy" else -t.quantity for t in booked if t.order.listing is listing), Decimal(0))
        if listing.perpetual:
            assert account.position(listing) == signed


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 999), fees=st.sampled_from(["quote", "base", "third"]), steps=st.lists(STEP, min_size=5, max_size=60))
def test_spot_balances_are_deposits_plus_trades_less_fees(seed, fees, steps):
    venue = exchange(seed, perpetual=False, fees=fees)
    account = venue.accounts["key"]
    told: list[Event] = []
    venue.listeners.append(told.append)
    for step in steps:
        do(venue, account, step, perpetual=False)
    expected = defaultdict(Decimal, account.deposits)
    for kept in account.trades.values():
        for trade in kept:
            sign = 1 if trade.order.side == "buy" else -1
            expected[trade.order.listing.base] += sign * trade.quantity
            expected["USDT"] -= sign * trade.quantity * trade.price
            expected[trade.fee_asset] -= trade.fee
    assert {a: t for a, t in account.totals.items() if t} == {a: t for a, t in expected.items() if t}
    reserved: dict[str, Decimal] = defaultdict(Decimal)
    for order in account.orders.values():
        reserved[order.listing.base if order.side == "sell" else "USDT"] += order.reserved
    assert {a: t for a, t in account.locked.items() if t} == {a: t for a, t in reserved.items() if t}
    check_orders(account, venue.market.listings)
    moved: dict[str, Decimal] = defaultdict(Decimal, {"USDT": Decimal(5000), "BNB": Decimal(1)})
    for event in told:  # who only listens comes to the same balances
        for asset, change in event.balances.items():
            moved[asset] += change
    assert {a: t for a, t in moved.items() if t} == {a: t for a, t in account.totals.items() if t}
    if not any(step[0] == "accident" for step in steps):
        assert all(total >= 0 for total in account.totals.values())
        assert all(account.free(asset) >= 0 for asset in account.totals)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 999), steps=st.lists(STEP, min_size=5, max_size=60))
def test_a_futures_wallet_is_deposits_plus_its_history(seed, steps):
    venue = exchange(seed, perpetual=True, fees="quote")
    account = venue.accounts["key"]
    for step in steps:
        do(venue, account, step, perpetual=True)
    check_orders(account, venue.market.listings)
    history = sum((line.amount for line in account.income), Decimal(0))
    assert account.wallet == Decimal(5000) + history
    booked = [trade for kept in account.trades.values() for trade in kept]
    cash = account.wallet_deposits + sum((line.amount for line in account.income if line.kind == "FUNDING_FEE"), Decimal(0))
    for trade in booked:
        cash -= (1 if trade.order.side == "buy" else -1) * trade.quantity * trade.price + trade.fee
    assert account.wallet - sum((held.cost for held in account.holdings.values()), Decimal(0)) == cash
    marked = sum((account.position(one) * exact(venue.market.last_price(one)) for one in venue.market.listings), Decimal(0))
    assert equity(account, venue.market) == cash + marked


def test_a_late_fill_of_a_finished_order_is_booked_and_leaves_it_finished():
    venue = exchange(1, perpetual=False, fees="quote")
    account = venue.accounts["key"]
    order: VenueOrder = venue.place(account, Wish(listing=venue.market.named("BTC/USDT"), side="buy", type="MARKET", quantity=Decimal(1)))
    venue.cancel(order)
    assert venue.fill_now(order, Decimal("0.4"))
    assert (order.status, order.filled, account.totals["BTC"]) == ("CANCELED", Decimal("0.4"), Decimal("0.4"))
    over = venue.place(account, Wish(listing=venue.market.named("BTC/USDT"), side="buy", type="MARKET", quantity=Decimal(1)))
    assert venue.fill_now(over, Decimal("1.5"))
    assert (over.status, over.filled) == ("FILLED", Decimal("1.5"))
    assert not venue.fill_now(over)
    with pytest.raises(RefusedError, match="Unknown order"):
        venue.cancel(over)
