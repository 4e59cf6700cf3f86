"""The fake exchange and the simulated broker trade the same orders on the same bars to the last digit, and its books add up."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalpha.core.time import HOUR
from cryptoalpha.core.values import Fill, FundingPayment, InstrumentRules, Order, Side
from cryptoalpha.execution.broker import bar_steps
from cryptoalpha.execution.config import CostConfig, ExecutionConfig
from cryptoalpha.execution.fake_exchange.accounts import AccountSettings
from cryptoalpha.execution.fake_exchange.intake import RefusedError, Wish
from cryptoalpha.execution.fake_exchange.market import Book, Market
from cryptoalpha.execution.fake_exchange.matching import Event, Exchange
from cryptoalpha.execution.money import exact, whole_lots
from cryptoalpha.execution.simulated import SimulatedBroker
from cryptoalpha.store.panel import build_panel
from cryptoalpha.store.tables import BarTable, Dataset

NAMES = ("A/USDT", "B/USDT", "C/USDT")
BARS, KNOWN = 90, 30
LOT, TICK = Decimal("0.001"), Decimal("0.01")
CASH = Decimal(100_000)


def rules(name: str, *, perpetual: bool) -> InstrumentRules:
    return InstrumentRules(
        happened_at=0, known_at=0, instrument=name, venue="binance", base=name[0], quote="USDT",
        lot=LOT, tick=TICK, min_notional=Decimal(0), perpetual=perpetual,
    )  # fmt: skip


def random_book(g: np.random.Generator, *, perpetual: bool, thin: bool) -> Book:
    """Three instruments with gaps; `thin` bars can take only part of an order."""
    tables = {}
    for name in NAMES:
        close = np.round(100 * np.exp(np.cumsum(g.normal(0, 0.02, BARS))), 2)
        opened = np.round(np.r_[100.0, close[:-1]] * (1 + g.normal(0, 0.003, BARS)), 2)
        high = np.round(np.maximum(opened, close) * (1 + abs(g.normal(0, 0.01, BARS))), 2) + 0.01
        low = np.round(np.minimum(opened, close) * (1 - abs(g.normal(0, 0.01, BARS))), 2) - 0.01
        volume = np.round(g.gamma(2, 25 if thin else 40_000, BARS), 3)
        table = BarTable(
            instrument=name, interval=HOUR, open_time=HOUR * np.arange(BARS), open=opened, high=high, low=low, close=close, volume=volume
        )
        there = g.random(BARS) > 0.05
        there[0] = there[-1] = True
        tables[name] = table.take(there)
    dataset = Dataset("random", tables, rules={name: rules(name, perpetual=perpetual) for name in NAMES})
    panel = build_panel(dataset, since=0, until=BARS * HOUR)
    funding = [np.full(panel.open.shape, np.nan) for _ in range(2)]
    if perpetual:
        funding[0][::8] = g.normal(0, 1e-4, funding[0][::8].shape)
        funding[1][3::8, 0] = 1e-4
    return Book(panel, dataset.rules, *funding)


class Twins:
    """One schedule of orders, sent to both."""

    def __init__(self, seed: int, *, perpetual: bool, thin: bool, limits: bool, phased: bool = False) -> None:
        self.phased = phased
        self.g = np.random.default_rng(seed)
        self.perpetual, self.limits = perpetual, limits
        self.book = random_book(self.g, perpetual=perpetual, thin=thin)
        self.config = ExecutionConfig(costs=CostConfig(maker_fee=0.0002, taker_fee=0.0004))
        self.broker = SimulatedBroker(self.config, self.book.rules)
        self.exchange = Exchange(Market(self.book, start=KNOWN), self.config, [AccountSettings(balances={"USDT": CASH}, wallet=CASH)])
        self.account = self.exchange.accounts["key"]
        self.events: list[Event] = []
        self.exchange.listeners.append(self.events.append)
        self.sent = self.refused = self.traded = 0

    def order(self, name: str, at: int, place: int, *, scarce: bool) -> Order | None:
        """A random order that a risk gate could have passed: no more than equity pays for, no sale of what is not there."""
        g, held = self.g, self.broker.account.position(name)
        price = exact(self.exchange.market.last_price(self.exchange.market.named(name)))
        side: Side = "buy" if g.random() < 0.5 else "sell"
        share = Decimal(int(g.integers(1, 99 if scarce else 30))) / 100
        quantity = whole_lots(share * CASH / (1 if scarce else 20) / price, LOT)  # a resting order locks cash here, not there: leave room
        reduce_only = held != 0 and (held > 0) == (side == "sell") and g.random() < 0.4
        if not self.perpetual and side == "sell":
            quantity, reduce_only = min(quantity, held), False
        if quantity <= 0:
            return None
        self.sent += 1
        kind = g.random()
        terms: dict[str, Any] = {}
        if kind > 0.8:  # as a live entry: a market order with a worst price goes out as a limit order that does not wait
            terms["worst_price"] = (price * (Decimal("1.004") if side == "buy" else Decimal("0.996"))).quantize(TICK)
        elif kind > 0.6 or (self.limits and kind < 0.3):
            offset = Decimal(int(g.integers(-15, 5))) / 1000 * (1 if side == "buy" else -1)
            terms = {"type": "limit", "limit_price": (price * (1 + offset)).quantize(TICK)}
            if kind > 0.6:
                terms["time_in_force"] = "ioc" if g.random() < 0.5 else "fok"
            else:
                terms["post_only"] = bool(g.random() < 0.4)
        return Order(
            happened_at=at, known_at=at, client_id=f"ca{self.sent}", instrument=name, side=side, quantity=quantity,
            reduce_only=reduce_only, **terms,
        )  # fmt: skip

    def send(self, order: Order) -> None:
        listing = self.exchange.market.named(order.instrument)
        for older in self.account.open_orders(perpetual=self.perpetual, symbol=listing.symbol):
            self.exchange.cancel(older)
        collared = order.worst_price is not None
        kind = "LIMIT_MAKER" if order.post_only else "LIMIT" if collared or order.type == "limit" else "MARKET"
        wish = Wish(
            listing=listing, side=order.side, quantity=order.quantity, client_id=order.client_id, reduce_only=order.reduce_only,
            type=kind, price=order.worst_price or order.limit_price, post_only=order.post_only,
            time_in_force="IOC" if collared else order.time_in_force.upper(),
        )  # fmt: skip
        self.broker.cancel(order.instrument)
        try:
            self.exchange.place(self.account, wish)
        except RefusedError as refused:
            if refused.code not in (-2010, -2019, -5022):  # what a risk gate would not have let through
                raise
            self.refused += 1
        else:
            self.broker.submit(order, 1)

    def run(self, *, scarce: bool) -> None:
        immediate: set[str] = set()
        for row, step in enumerate(bar_steps(self.book.panel, (self.book.funding_at_open, self.book.funding_inside))):
            outcomes = self.broker.on_bar(step)
            for name in immediate:  # the rest of an IOC order expires; the broker would keep it
                self.broker.cancel(name)
            immediate = set()
            if row >= KNOWN:
                before = len(self.events)
                if self.phased:
                    assert self.exchange.open_bar(whole=False)
                    self.exchange.close_bar()
                else:
                    assert self.exchange.advance() == 1
                self.compare(outcomes, self.events[before:])
            if row < KNOWN - 1:
                continue
            for place, name in enumerate(NAMES):
                if self.g.random() < 0.4 and (order := self.order(name, step.at, place, scarce=scarce)) is not None:
                    self.send(order)
            immediate = {
                name for name, w in self.broker._working.items() if w.order.worst_price is not None and step_has(self.book, row + 1, name)
            }

    def compare(self, outcomes: list[Any], events: list[Event]) -> None:
        ours = [(f.client_id, f.side, f.quantity, f.price, f.fee, f.happened_at) for f in outcomes if isinstance(f, Fill)]
        theirs = [
            (e.trade.order.client_id, e.trade.order.side, e.trade.quantity, e.trade.price, e.trade.fee, e.trade.at_ms * 1_000_000)
            for e in events
            if e.kind == "trade" and e.trade is not None
        ]
        assert (sorted(theirs) if self.phased else theirs) == (sorted(ours) if self.phased else ours)
        self.traded += len(ours)
        paid = [p.amount for p in outcomes if isinstance(p, FundingPayment)]
        assert sorted(e.balances["USDT"] for e in events if e.kind == "funding") == sorted(paid)
        for name in NAMES:
            assert self.account.position(self.exchange.market.named(name)) == self.broker.account.position(name)
        if self.perpetual:
            assert self.account.wallet - sum(held.cost for held in self.account.holdings.values()) == self.broker.account.cash
        else:
            assert self.account.totals["USDT"] == self.broker.account.cash

    def cut(self) -> int:
        """Market orders that ended with a rest because cash was short."""
        return sum(o.status == "EXPIRED" and o.type == "MARKET" for o in self.account.orders.values())


def step_has(book: Book, row: int, name: str) -> bool:
    return row < len(book.panel) and bool(book.panel.present[row, book.panel.instruments.index(name)])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), thin=st.booleans())
def test_spot_trades_are_the_simulated_brokers(seed, thin):
    Twins(seed, perpetual=False, thin=thin, limits=True).run(scarce=False)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_what_cash_does_not_cover_is_cut_alike(seed):
    Twins(seed, perpetual=False, thin=False, limits=False).run(scarce=True)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), thin=st.booleans())
def test_perpetual_trades_and_funding_are_the_simulated_brokers(seed, thin):
    Twins(seed, perpetual=True, thin=thin, limits=True).run(scarce=False)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), perpetual=st.booleans())
def test_bars_that_open_and_close_apart_trade_the_same(seed, perpetual):
    """By the wall clock, what takes trades at the open and what rests at the close: only the order of the trades may differ."""
    Twins(seed, perpetual=perpetual, thin=True, limits=True, phased=True).run(scarce=False)


def test_the_schedules_reach_partial_fills_cut_orders_and_collars():
    """What the properties above are worth: the accidents they are about do happen in them."""
    thin = Twins(3, perpetual=False, thin=True, limits=True)
    thin.run(scarce=False)
    assert sum(len(order.trades) > 1 for order in thin.account.orders.values()) >= 3
    assert sum(trade.is_maker for kept in thin.account.trades.values() for trade in kept) >= 1
    scarce = [Twins(seed, perpetual=False, thin=False, limits=False) for seed in range(4)]
    for twins in scarce:
        twins.run(scarce=True)
    assert sum(twins.cut() for twins in scarce) >= 3
    assert sum(twins.traded for twins in scarce) > 60
    assert sum(twins.refused for twins in scarce) < 0.7 * sum(twins.sent for twins in scarce)
    assert sum(o.time_in_force == "IOC" and o.status == "EXPIRED" for twins in scarce for o in twins.account.orders.values()) >= 3
    short = Twins(5, perpetual=True, thin=False, limits=True)
    short.run(scarce=False)
    assert {line.kind for line in short.account.income} == {"FUNDING_FEE", "REALIZED_PNL", "COMMISSION"}
    assert any(event.trade is not None and event.trade.order.reduce_only for event in short.events)
