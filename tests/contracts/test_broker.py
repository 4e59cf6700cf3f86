"""What every broker must do, whatever it is made of. A new broker adds itself to `BROKERS`."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import numpy as np
import pytest

from cryptoalpha.core.time import HOUR
from cryptoalpha.core.values import Fill, InstrumentRules, Order, Refusal
from cryptoalpha.execution.broker import BarStep, Broker
from cryptoalpha.execution.config import ExecutionConfig
from cryptoalpha.execution.simulated import SimulatedBroker

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
BROKERS: dict[str, Callable[[], Broker]] = {"simulated": lambda: SimulatedBroker(ExecutionConfig(), RULES)}


@pytest.fixture(params=sorted(BROKERS))
def make(request) -> Callable[[], Broker]:
    return BROKERS[request.param]


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
        steps.append(BarStep((t + 1) * HOUR, t * HOUR, HOUR, NAMES, *rows, there))
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
    assert drive(make(), bars(200, absent=True)) == drive(make(), bars(200, absent=True))


def test_fills_do_not_depend_on_later_bars(make):
    whole = drive(make(), bars(200, absent=True))
    part = drive(make(), bars(200, absent=True)[:120])
    assert part == whole[: len(part)]
    assert len(part) > 20


def test_nothing_is_known_before_its_bar_and_nothing_fills_before_its_order(make):
    broker, steps = make(), bars(200, absent=True)
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
    broker, steps = make(), bars(300)
    sent: dict[str, Order] = {}
    filled: dict[str, Decimal] = {}
    ids: list[str] = []
    for t, step in enumerate(steps):
        for event in broker.on_bar(step):
            if isinstance(event, Fill):
                filled[event.client_id] = filled.get(event.client_id, Decimal(0)) + event.quantity
                ids.append(event.trade_id)
        for order in orders(step, t):
            sent[order.client_id] = order
            broker.submit(order, t)
    assert len(ids) == len(set(ids)) > 50
    assert all(quantity <= sent[client].quantity for client, quantity in filled.items())


def test_nothing_fills_in_an_absent_bar(make):
    broker = make()
    for t, step in enumerate(bars(200, absent=True)):
        for event in broker.on_bar(step):
            if not isinstance(event, Refusal):
                assert step.present[NAMES.index(event.instrument)]
        for order in orders(step, t):
            broker.submit(order, t)


@pytest.mark.parametrize("side", ["buy", "sell"])
def test_an_entry_is_never_filled_beyond_its_worst_price_and_is_then_given_up(make, side):
    """Each bar gets one order that would be filled 0.2 % away from the close before it, and no further."""
    broker, steps = make(), bars(200)
    sent: dict[str, Order] = {}
    filled, given_up = 0, 0
    for t, step in enumerate(steps):
        for event in broker.on_bar(step):
            if isinstance(event, Fill):
                worst = sent[event.client_id].worst_price
                assert event.price <= worst if side == "buy" else event.price >= worst
                filled += 1
            elif event.rule == "price_collar":
                given_up += 1
                assert event.instrument not in broker.pending()
        worst = Decimal(repr(round(step.close[1] * (1.002 if side == "buy" else 0.998), 2)))
        order = Order(
            happened_at=step.at, known_at=step.at, client_id=f"ca{t}", instrument="B/USDT", side=side, quantity=Decimal("0.1"),
            worst_price=worst,
        )  # fmt: skip
        sent[order.client_id] = order
        broker.submit(order, t)
    assert filled > 20
    assert given_up > 10


def test_pending_is_what_is_left_and_cancel_clears_it(make):
    broker, steps = make(), bars(10)
    broker.on_bar(steps[0])
    broker.submit(
        Order(happened_at=HOUR, known_at=HOUR, client_id="ca", instrument="A/USDT", side="sell", quantity=Decimal("3.5")), event=1
    )
    assert broker.pending() == {"A/USDT": Decimal("-3.5")}
    broker.cancel("A/USDT")
    broker.cancel("A/USDT")
    assert broker.pending() == {}
    assert broker.on_bar(steps[1]) == []


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


def test_an_order_that_is_not_to_wait_takes_what_the_open_gives_and_expires_with_the_rest(make):
    """A tenth of a volume of 10 is 1; 2.5 are wanted."""
    steps = flat_bars([100.0] * 4)
    happened = after(make(), steps, plan(steps[0], 1, side="buy", quantity=Decimal("2.5"), time_in_force="ioc"))
    assert rules_of(happened) == ["fill", "expired"]
    assert happened[0].quantity == 1
    waiting = after(make(), steps, plan(steps[0], 1, side="buy", quantity=Decimal("2.5")))
    assert [event.quantity for event in waiting] == [1, 1, Decimal("0.5")]


def test_an_order_that_is_not_to_wait_is_never_filled_beyond_its_limit(make):
    steps = flat_bars([100.0, 101.0, 99.0])
    beyond = plan(steps[0], 1, side="buy", quantity=Decimal(1), type="limit", limit_price=Decimal("100.5"), time_in_force="ioc")
    assert rules_of(after(make(), steps, beyond)) == ["price_collar"]
    within = plan(steps[0], 1, side="buy", quantity=Decimal(1), type="limit", limit_price=Decimal(102), time_in_force="ioc")
    (fill,) = after(make(), steps, within)
    assert Decimal(101) < fill.price < Decimal(102)


@pytest.mark.parametrize("side", ["buy", "sell"])
def test_all_or_nothing_is_all_or_nothing(make, side):
    steps = flat_bars([100.0] * 4)
    assert rules_of(after(make(), steps, plan(steps[0], 1, side=side, quantity=Decimal("1.001"), time_in_force="fok"))) == ["expired"]
    (fill,) = after(make(), steps, plan(steps[0], 1, side=side, quantity=Decimal(1), time_in_force="fok"))
    assert fill.quantity == 1


def test_all_or_nothing_counts_cash_and_what_is_held(make):
    deep = flat_bars([100.0] * 3, volume=1e9)
    assert rules_of(after(make(), deep, plan(deep[0], 1, side="buy", quantity=Decimal(1000), time_in_force="fok"))) == ["expired"]
    lonely = plan(deep[0], 1, side="sell", quantity=Decimal(1), reduce_only=True, time_in_force="fok")
    assert rules_of(after(make(), deep, lonely)) == ["expired"]


def test_post_only_is_refused_where_it_would_take_and_rests_where_it_would_not(make):
    steps = flat_bars([100.0, 99.0, 97.0, 97.0])
    taking = plan(steps[0], 1, side="buy", quantity=Decimal(1), type="limit", limit_price=Decimal("99.5"), post_only=True)
    assert rules_of(after(make(), steps, taking)) == ["rejected"]
    resting = plan(steps[0], 1, side="buy", quantity=Decimal(1), type="limit", limit_price=Decimal("98.5"), post_only=True)
    (fill,) = after(make(), steps, resting)
    assert (fill.price, fill.happened_at) == (Decimal("98.5"), 2 * HOUR)  # at its own price although the bar opened below it
    assert fill.spread_cost == fill.impact_cost == 0
