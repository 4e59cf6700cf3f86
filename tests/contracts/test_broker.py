"""What every broker must do, whatever it is made of. A new broker adds itself to `BROKERS`.

The live broker trades through real ccxt on a fake exchange that shows the same bars. It hears of the end of an order only when the venue
tells it, so `pending` keeps what was cancelled until the next bar.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path

import msgspec
import numpy as np
import pytest

from cryptoalpha.app.venues import Keys, account_venue
from cryptoalpha.core.clock import VirtualClock
from cryptoalpha.core.time import HOUR, parse_time
from cryptoalpha.core.values import Fill, InstrumentRules, Order, Refusal, event_id
from cryptoalpha.data.config import ExchangeConfig
from cryptoalpha.execution.broker import BarStep, Broker
from cryptoalpha.execution.config import ExecutionConfig, LiveConfig
from cryptoalpha.execution.fake_exchange.market import Book
from cryptoalpha.execution.fake_exchange.process import FakeExchange
from cryptoalpha.execution.live.broker import LiveBroker
from cryptoalpha.execution.live.courier import Courier
from cryptoalpha.execution.simulated import SimulatedBroker
from cryptoalpha.store.journal import Journal
from cryptoalpha.store.order_ledger import OrderLedger
from cryptoalpha.store.tables import BarTable, Dataset

START = parse_time("2024-03-01")
NAMES = ("A/USDT", "B/USDT")
RULES = {
    name: InstrumentRules(
        happened_at=0,
        known_at=0,
        instrument=name,
        venue="t",
        base=name[0],
        quote="USDT",
        lot=Decimal("0.001"),
        tick=Decimal("0.01"),
        min_notional=Decimal(1),
    )
    for name in NAMES
}
GIVEN_UP = ("price_collar", "expired")


class OnFakeExchange:
    """A live broker with an engine reduced to its rows: each bar is traded at the exchange, then told; each order is written, then sent."""

    def __init__(self, absent: bool) -> None:
        self._stack, self._bar = ExitStack(), 0
        live = LiveConfig(venue="binanceusdm", settle_seconds=5.0, requests_per_minute=1e6, use_stream=False)
        config = ExecutionConfig(live=live)
        rules = {name: msgspec.structs.replace(one, perpetual=True) for name, one in RULES.items()}
        exchange = FakeExchange(Book.of(dataset(absent, rules)), config)
        self._exchange = self._stack.enter_context(exchange)
        path = Path(self._stack.enter_context(tempfile.TemporaryDirectory())) / "journal.sqlite"
        self._journal = self._stack.enter_context(Journal(path, durable=True, header={"run": "contract"}))
        self._clock = VirtualClock(START)

        def make() -> Courier:
            venue = account_venue(ExchangeConfig(endpoint=exchange.url), live, Keys("key", "secret"))
            return Courier(venue, OrderLedger(path), rules, config, clock=self._clock, alert=lambda name, text: None)

        self._broker = LiveBroker(make, self._journal, rules, config)
        self._stack.callback(self._broker.close)
        self._broker.start()

    def on_bar(self, step: BarStep) -> list[object]:
        assert self._broker.drain()
        if self._bar:
            self._exchange.advance(1)
        self._bar += 1
        self._clock.advance_to(step.at)
        happened = self._broker.on_bar(step)
        self._journal.append(step.at, happened)
        return happened

    def submit(self, order: Order, event: int) -> None:
        self._broker.submit(order, event_id(self._journal.append(order.known_at, [order]), 0))

    def cancel(self, instrument: str) -> None:
        self._broker.cancel(instrument)

    def pending(self):
        return self._broker.pending()

    def close(self) -> None:
        self._stack.close()


class Brokers:
    """Makes brokers of one kind; `length` of a test's bars is as much shorter as they are slower."""

    def __init__(self, kind: str) -> None:
        self.is_live = kind == "live"
        self._made: list[OnFakeExchange] = []

    def __call__(self, *, absent: bool = False) -> Broker:
        if not self.is_live:
            return SimulatedBroker(ExecutionConfig(), RULES)
        self._made.append(OnFakeExchange(absent))
        return self._made[-1]

    def length(self, bars: int) -> int:
        return bars // 10 if self.is_live else bars

    def close(self) -> None:
        for broker in self._made:
            broker.close()


@pytest.fixture(params=["simulated", "live"])
def make(request) -> Iterator[Brokers]:
    brokers = Brokers(request.param)
    yield brokers
    brokers.close()


SIMULATED = pytest.mark.parametrize("make", ["simulated"], indirect=True)
"""What is the venue's own part; that the fake exchange plays it as the simulated broker does is held by its own tests."""


def dataset(absent: bool, rules: dict[str, InstrumentRules]) -> Dataset:
    """The bars of `bars` as the exchange stores them."""
    steps, tables = bars(200, absent=absent), {}
    for i, name in enumerate(NAMES):
        there = [step for step in steps if step.present[i]]
        columns = [np.array([getattr(step, field)[i] for step in there]) for field in ("open", "high", "low", "close", "volume")]
        tables[name] = BarTable(name, HOUR, np.array([step.open_time for step in there]), *columns)
    return Dataset(origin="contract", bars=tables, rules=rules, readings={}, simulated=True)


def bars(count: int, *, absent: bool = False) -> list[BarStep]:
    g = np.random.default_rng(8)
    close = 100 * np.exp(np.cumsum(g.normal(0, 0.01, (count, 2)), axis=0))
    open_ = np.vstack([[100.0, 100.0], close[:-1]]) * (1 + g.normal(0, 0.001, (count, 2)))
    volume = g.gamma(2, 20, (count, 2))
    steps = []
    for t in range(count):
        there = [not (absent and t % 7 == 3), True]
        rows = [
            [float(v) if p else float("nan") for v, p in zip(row[t], there, strict=True)]
            for row in (open_, np.maximum(open_, close) * 1.001, np.minimum(open_, close) * 0.999, close, volume)
        ]
        steps.append(BarStep(START + (t + 1) * HOUR, START + t * HOUR, HOUR, NAMES, *rows, there))
    return steps


def orders(step: BarStep, t: int) -> list[Order]:
    """A schedule of orders that depends on nothing but the bar's number."""
    g = np.random.default_rng((9, t))
    wanted = []
    for name in NAMES:
        if g.random() < 0.3:
            limit = g.random() < 0.3
            wanted.append(
                Order(
                    happened_at=step.at,
                    known_at=step.at,
                    client_id=f"ca{t}{name[0]}",
                    instrument=name,
                    side="buy" if g.random() < 0.6 else "sell",
                    quantity=Decimal(int(g.integers(1, 50))) / 10,
                    type="limit" if limit else "market",
                    limit_price=Decimal(int(step.close[1] * 99)) / 100 if limit else None,
                )
            )
    return wanted


def drive(broker: Broker, steps: list[BarStep]) -> list[object]:
    happened: list[object] = []
    for t, step in enumerate(steps):
        happened += broker.on_bar(step)
        for n, order in enumerate(orders(step, t)):
            broker.submit(order, 1000 * t + n)
    return happened


def test_the_same_orders_on_the_same_bars_give_the_same_fills(make):
    steps = bars(make.length(200), absent=True)
    assert drive(make(absent=True), steps) == drive(make(absent=True), steps)


def test_fills_do_not_depend_on_later_bars(make):
    steps = bars(make.length(200), absent=True)
    whole = drive(make(absent=True), steps)
    part = drive(make(absent=True), steps[: make.length(120)])
    assert part == whole[: len(part)]
    assert len(part) > make.length(20)


def test_nothing_is_known_before_its_bar_and_nothing_fills_before_its_order(make):
    broker, steps = make(absent=True), bars(make.length(200), absent=True)
    sent: dict[str, Order] = {}
    for t, step in enumerate(steps):
        for event in broker.on_bar(step):
            assert event.known_at == step.at
            assert event.happened_at <= event.known_at
            if isinstance(event, Fill):
                assert event.happened_at >= sent[event.client_id].known_at
        for order in orders(step, t):
            sent[order.client_id] = order
            broker.submit(order, t)


def test_an_order_is_never_filled_beyond_its_quantity_and_trades_have_their_own_ids(make):
    broker, steps = make(), bars(make.length(300))
    sent: dict[str, Order] = {}
    filled: dict[str, Decimal] = {}
    ids: list[tuple[str, str]] = []
    for t, step in enumerate(steps):
        for event in broker.on_bar(step):
            if isinstance(event, Fill):
                filled[event.client_id] = filled.get(event.client_id, Decimal(0)) + event.quantity
                ids.append((event.instrument, event.trade_id))
        for order in orders(step, t):
            sent[order.client_id] = order
            broker.submit(order, t)
    assert len(ids) == len(set(ids)) > make.length(50)
    assert all(quantity <= sent[client].quantity for client, quantity in filled.items())


def test_nothing_fills_in_an_absent_bar(make):
    broker = make(absent=True)
    for t, step in enumerate(bars(make.length(200), absent=True)):
        for event in broker.on_bar(step):
            if not isinstance(event, Refusal):
                assert step.present[NAMES.index(event.instrument)]
        for order in orders(step, t):
            broker.submit(order, t)


@pytest.mark.parametrize("side", ["buy", "sell"])
def test_an_entry_is_never_filled_beyond_its_worst_price_and_is_then_given_up(make, side):
    """Each bar gets one order that would be filled 0.2 % away from the close before it, and no further."""
    broker, steps = make(), bars(make.length(200))
    sent: dict[str, Order] = {}
    filled, given_up = 0, 0
    for t, step in enumerate(steps):
        for event in broker.on_bar(step):
            if isinstance(event, Fill):
                worst = sent[event.client_id].worst_price
                assert event.price <= worst if side == "buy" else event.price >= worst
                filled += 1
            elif event.rule in GIVEN_UP:
                given_up += 1
                assert event.instrument not in broker.pending()
        worst = Decimal(repr(round(step.close[1] * (1.002 if side == "buy" else 0.998), 2)))
        order = Order(
            happened_at=step.at, known_at=step.at, client_id=f"ca{t}", instrument="B/USDT", side=side, quantity=Decimal("0.1"),
            worst_price=worst,
        )  # fmt: skip
        sent[order.client_id] = order
        broker.submit(order, t)
    assert filled > make.length(20)
    assert given_up > make.length(10)


def test_pending_is_what_is_left_and_cancel_clears_it(make):
    broker, steps = make(), bars(10)
    broker.on_bar(steps[0])
    broker.submit(
        Order(happened_at=START + HOUR, known_at=START + HOUR, client_id="ca", instrument="A/USDT", side="sell", quantity=Decimal("3.5")),
        event=1,
    )
    assert broker.pending() == {"A/USDT": Decimal("-3.5")}
    broker.cancel("A/USDT")
    broker.cancel("A/USDT")
    if make.is_live:
        assert broker.pending() == {"A/USDT": Decimal("-3.5")}
        assert [event.rule for event in broker.on_bar(steps[1])] == ["cancelled"]
    assert broker.pending() == {}
    assert broker.on_bar(steps[2 if make.is_live else 1]) == []


def plan(step: BarStep, n: int, **terms: object) -> Order:
    return Order(happened_at=step.at, known_at=step.at, client_id=f"ca{n}", instrument="B/USDT", **terms)  # type: ignore[arg-type]


def flat_bars(opens: list[float], *, volume: float = 10.0) -> list[BarStep]:
    """Bars that open as given, and reach a tenth of a percent further both ways."""
    steps = []
    for t, price in enumerate(opens):
        rows = [[value] * 2 for value in (price, price * 1.001, price * 0.999, price, volume)]
        steps.append(BarStep((t + 1) * HOUR, t * HOUR, HOUR, NAMES, *rows, [True, True]))
    return steps


def after(broker: Broker, steps: list[BarStep], order: Order) -> list[object]:
    """What becomes of an order that is submitted after the first bar."""
    broker.on_bar(steps[0])
    broker.submit(order, 1)
    return [event for step in steps[1:] for event in broker.on_bar(step)]


def rules_of(happened: list[object]) -> list[str]:
    return ["fill" if isinstance(event, Fill) else event.rule for event in happened]  # type: ignore[attr-defined]


@SIMULATED
def test_an_order_that_is_not_to_wait_takes_what_the_open_gives_and_expires_with_the_rest(make):
    """A tenth of a volume of 10 is 1; 2.5 are wanted."""
    steps = flat_bars([100.0] * 4)
    happened = after(make(), steps, plan(steps[0], 1, side="buy", quantity=Decimal("2.5"), time_in_force="ioc"))
    assert rules_of(happened) == ["fill", "expired"]
    assert happened[0].quantity == 1
    waiting = after(make(), steps, plan(steps[0], 1, side="buy", quantity=Decimal("2.5")))
    assert [event.quantity for event in waiting] == [1, 1, Decimal("0.5")]


@SIMULATED
def test_an_order_that_is_not_to_wait_is_never_filled_beyond_its_limit(make):
    steps = flat_bars([100.0, 101.0, 99.0])
    beyond = plan(steps[0], 1, side="buy", quantity=Decimal(1), type="limit", limit_price=Decimal("100.5"), time_in_force="ioc")
    assert rules_of(after(make(), steps, beyond)) == ["price_collar"]
    within = plan(steps[0], 1, side="buy", quantity=Decimal(1), type="limit", limit_price=Decimal(102), time_in_force="ioc")
    (fill,) = after(make(), steps, within)
    assert Decimal(101) < fill.price < Decimal(102)


@SIMULATED
@pytest.mark.parametrize("side", ["buy", "sell"])
def test_all_or_nothing_is_all_or_nothing(make, side):
    steps = flat_bars([100.0] * 4)
    assert rules_of(after(make(), steps, plan(steps[0], 1, side=side, quantity=Decimal("1.001"), time_in_force="fok"))) == ["expired"]
    (fill,) = after(make(), steps, plan(steps[0], 1, side=side, quantity=Decimal(1), time_in_force="fok"))
    assert fill.quantity == 1


@SIMULATED
def test_all_or_nothing_counts_cash_and_what_is_held(make):
    deep = flat_bars([100.0] * 3, volume=1e9)
    assert rules_of(after(make(), deep, plan(deep[0], 1, side="buy", quantity=Decimal(1000), time_in_force="fok"))) == ["expired"]
    lonely = plan(deep[0], 1, side="sell", quantity=Decimal(1), reduce_only=True, time_in_force="fok")
    assert rules_of(after(make(), deep, lonely)) == ["expired"]


@SIMULATED
def test_post_only_is_refused_where_it_would_take_and_rests_where_it_would_not(make):
    steps = flat_bars([100.0, 99.0, 97.0, 97.0])
    taking = plan(steps[0], 1, side="buy", quantity=Decimal(1), type="limit", limit_price=Decimal("99.5"), post_only=True)
    assert rules_of(after(make(), steps, taking)) == ["rejected"]
    resting = plan(steps[0], 1, side="buy", quantity=Decimal(1), type="limit", limit_price=Decimal("98.5"), post_only=True)
    (fill,) = after(make(), steps, resting)
    assert (fill.price, fill.happened_at) == (Decimal("98.5"), 2 * HOUR)  # at its own price although the bar opened below it
    assert fill.spread_cost == fill.impact_cost == 0
