"""A venue in memory that keeps real books and can fail at every question, and a desk: journal, ledger and courier around it."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from decimal import Decimal

import pytest

from cryptoalpha.core.clock import VirtualClock
from cryptoalpha.core.time import HOUR
from cryptoalpha.core.values import Fill, InstrumentRules, Order, Refusal, event_id
from cryptoalpha.execution.config import ExecutionConfig, LiveConfig
from cryptoalpha.execution.live.courier import Courier
from cryptoalpha.execution.live.points import nobody
from cryptoalpha.execution.venue import (
    UNWANTED,
    Accepted,
    Ambiguous,
    Balance,
    NotFound,
    OrderReport,
    Rejected,
    Rights,
    Trade,
    UnclearError,
)
from cryptoalpha.store.journal import Journal
from cryptoalpha.store.order_ledger import OrderLedger

FINAL = ("filled", "canceled", "expired", "rejected")
NAMES = ("A/USDT", "B/USDT")


class MemoryVenue:
    """Orders rest until a test trades them. `faults[method]` is a queue of what goes wrong next:

    `before`: the request is lost; `after`: it takes effect and the answer is lost; `refused`: a definite no; `missing`: "no such order";
    `hold`: waits for `released`; `taken`: "duplicate order"; `busy`: come back later; `clock`: your clock is wrong; `doubted`: no, but only
    if it is not there; `key`: the key is refused.
    """

    name, is_futures = "memory", False

    def __init__(self) -> None:
        self.cash, self.held = Decimal(1_000_000), {}
        self.orders: dict[str, OrderReport] = {}
        self.bodies: dict[str, Order] = {}
        self.made: list[Trade] = []
        self.sent: list[str] = []
        self.cancelled: list[str] = []
        self.asked: list[tuple[str, str]] = []
        self.faults: dict[str, deque[str]] = {}
        self.released = asyncio.Event()
        self.stream: asyncio.Queue = asyncio.Queue()
        self.may_withdraw = False
        self.fee_asset = "USDT"
        self.opened = self.closed = self.offset = 0
        self.shows_trades = True
        self.on_cancel = lambda client_id: None

    # what tests do with it

    def fail(self, method: str, *kinds: str) -> None:
        self.faults.setdefault(method, deque()).extend(kinds)

    def trade(self, client_id: str, quantity: str, price: str = "100", *, late: bool = False) -> Trade:
        """It trades. `late`: although it had ended."""
        report = self.orders[client_id]
        assert late or report.state not in FINAL
        amount = Decimal(quantity)
        filled = report.filled + amount
        state = report.state if late else "filled" if filled >= report.quantity else "partial"
        self.orders[client_id] = _with(report, filled=filled, state=state)
        done = Trade(
            instrument=report.instrument, trade_id=str(len(self.made) + 1), venue_id=report.venue_id, side=report.side, quantity=amount,
            price=Decimal(price), fee=Decimal("0.01"), fee_asset=self.fee_asset, at=10 * HOUR + len(self.made),
        )  # fmt: skip
        self.made.append(done)
        sign = 1 if report.side == "buy" else -1
        self.held[report.instrument] = self.held.get(report.instrument, Decimal(0)) + sign * amount
        return done

    def foreign_trade(self, instrument: str, quantity: str) -> Trade:
        done = Trade(
            instrument=instrument, trade_id=str(len(self.made) + 1), venue_id="x1", side="buy", quantity=Decimal(quantity),
            price=Decimal(100), fee=Decimal(0), fee_asset="USDT", at=10 * HOUR + len(self.made),
        )  # fmt: skip
        self.made.append(done)
        return done

    def end(self, client_id: str, state: str) -> None:
        self.orders[client_id] = _with(self.orders[client_id], state=state)

    # the protocol

    async def _fault(self, method: str, kind: str = "") -> str:
        queue = self.faults.get(method)
        fault = queue.popleft() if queue else ""
        await asyncio.sleep(0)
        if fault == "hold":
            await self.released.wait()
            return ""
        return fault

    async def open(self) -> None:
        self.opened += 1
        if await self._fault("open"):
            raise UnclearError("closed for now", answer=Ambiguous(reason="outage"))

    async def close(self) -> None:
        self.closed += 1

    async def rules(self, instruments):
        return {name: RULES[name] for name in instruments}

    async def rights(self) -> Rights:
        return Rights(may_trade=True, may_withdraw=self.may_withdraw)

    async def submit(self, order: Order, *, wanted=lambda: True):
        fault = await self._fault("submit")
        if not wanted():
            return Rejected(code=UNWANTED, message="called back")
        self.sent.append(order.client_id)
        if fault == "before":
            return Ambiguous(reason="connection reset")
        if fault == "refused":
            return Rejected(code="-2010", message="insufficient balance")
        if fault == "key":
            return Rejected(code="-2015", message="invalid key", is_key=True)
        if fault == "busy":
            return Ambiguous(reason="too many requests", retry_after_seconds=0.05)
        if fault == "clock":
            return Ambiguous(reason="timestamp", is_clock=True)
        if fault == "doubted":
            return Ambiguous(reason="invalid order", refusal=Rejected(code="-1013", message="filter"))
        if fault != "taken":
            assert order.client_id not in self.orders, "sent twice"
            self._accept(order)
        if fault == "taken":
            return Ambiguous(reason="duplicate order", exists=True)
        if fault == "after":
            return Ambiguous(reason="timeout")
        return Accepted(report=self.orders[order.client_id])

    def _accept(self, order: Order) -> None:
        self.bodies[order.client_id] = order
        self.orders[order.client_id] = OrderReport(
            instrument=order.instrument, client_id=order.client_id, venue_id=f"v{len(self.orders) + 1}", state="open", side=order.side,
            quantity=order.quantity, filled=Decimal(0), reduce_only=order.reduce_only, at=10 * HOUR,
        )  # fmt: skip

    async def cancel(self, instrument: str, client_id: str):
        self.cancelled.append(client_id)
        self.on_cancel(client_id)
        fault = await self._fault("cancel")
        if fault == "before":
            return Ambiguous(reason="connection reset")
        report = self.orders.get(client_id)
        if fault == "missing" or report is None or report.state in FINAL:
            return NotFound()
        self.orders[client_id] = report = _with(report, state="canceled")
        return Ambiguous(reason="timeout") if fault == "after" else report

    async def query(self, instrument: str, client_id: str):
        self.asked.append(("query", client_id))
        fault = await self._fault("query")
        if fault in ("before", "after"):
            return Ambiguous(reason="timeout")
        if fault == "missing":
            return NotFound()
        return self.orders.get(client_id) or NotFound(message="no such order")

    async def open_orders(self, instrument: str):
        if await self._fault("open_orders"):
            raise UnclearError("no answer", answer=Ambiguous(reason="timeout"))
        return [one for one in self.orders.values() if one.instrument == instrument and one.state not in FINAL]

    async def trades(self, instrument: str, *, after: str | None, since: int):
        self.asked.append(("trades", instrument))
        if await self._fault("trades"):
            raise UnclearError("no answer", answer=Ambiguous(reason="timeout"))
        if not self.shows_trades:
            return []
        return [t for t in self.made if t.instrument == instrument and int(t.trade_id) > int(after or 0) and t.at >= since]

    async def balances(self):
        coins = {name.split("/")[0]: amount for name, amount in self.held.items()}
        spent = sum((t.quantity * t.price * (1 if t.side == "buy" else -1) + (t.fee if t.fee_asset == "USDT" else 0)) for t in self.made)
        found = {asset: Balance(asset=asset, free=amount, used=Decimal(0)) for asset, amount in coins.items()}
        return {**found, "USDT": Balance(asset="USDT", free=self.cash - spent, used=Decimal(0))}

    async def positions(self):
        return {}

    async def funding(self, since: int):
        return []

    async def price(self, instrument: str) -> Decimal:
        if await self._fault("price"):
            raise UnclearError("no price", answer=Ambiguous(reason="timeout"))
        return Decimal(600)

    async def clock_offset(self) -> int:
        return self.offset

    async def events(self):
        while True:
            yield await self.stream.get()


def _with(report: OrderReport, **changes) -> OrderReport:
    import msgspec

    return msgspec.structs.replace(report, **changes)


RULES = {
    name: InstrumentRules(
        happened_at=0, known_at=0, instrument=name, venue="memory", base=name[0], quote="USDT", lot=Decimal("0.01"), tick=Decimal("0.01"),
        min_notional=Decimal(1),
    )
    for name in NAMES
}  # fmt: skip
QUICK = ExecutionConfig(
    live=LiveConfig(
        absence_seconds=0.02, receive_window_seconds=0.02, longest_flight_seconds=0.1, retry_seconds=0.002, retry_limit_seconds=0.01,
        alert_after_seconds=0.01, settle_seconds=0.1, timeout_seconds=1.0, reconcile_seconds=600.0,
    )
)  # fmt: skip


class Desk:
    """A journal on disk with orders in its rows, a venue, and the courier between them; the courier can die and be made anew."""

    def __init__(self, folder, config=QUICK) -> None:
        self.path = folder / "journal.sqlite"
        self.journal = Journal(self.path, durable=True, header={"run": "t"})
        self.venue = MemoryVenue()
        self.config, self.clock = config, VirtualClock(10 * HOUR)
        self.alerts: list[tuple[str, str]] = []
        self.reached = nobody
        self.courier: Courier | None = None
        self.ledger: OrderLedger | None = None
        self.events: dict[str, int] = {}

    def order(self, client_id: str, side: str = "buy", quantity: str = "1", instrument: str = "A/USDT", **more) -> Order:
        """An order that is in the journal, as the engine leaves it before it hands it over."""
        order = Order(
            happened_at=10 * HOUR,
            known_at=10 * HOUR,
            client_id=client_id,
            instrument=instrument,
            side=side,
            quantity=Decimal(quantity),
            **more,
        )
        row = self.journal.append(10 * HOUR, [order])
        self.events[client_id] = event_id(row, 0)
        return order

    async def open(self) -> Courier:
        self.ledger = OrderLedger(self.path)
        self.courier = Courier(
            self.venue,
            self.ledger,
            RULES,
            self.config,
            clock=self.clock,
            alert=lambda *a: self.alerts.append(a),
            reached=lambda p: self.reached(p),
        )
        await self.courier.start()
        return self.courier

    async def submit(self, order: Order, *, told: str | None = None, expires: int | None = 20 * HOUR) -> None:
        known = self.courier.intake.position(order.instrument) if told is None else Decimal(told)
        await self.courier.submit(order, self.events[order.client_id], told=known, expires=expires)

    async def die(self) -> None:
        """As a killed process: nothing is finished, nothing is said."""
        await self.courier.errands.close()
        self.ledger.close()

    async def settle(self, seconds: float = 3.0) -> None:
        """Until nobody need ask any more."""
        for _ in range(int(seconds / 0.005)):
            await asyncio.sleep(0.005)
            if not any(one.is_unsettled for one in self.courier.intake.working.values()):
                return
        raise AssertionError({name: one.tracked for name, one in self.courier.intake.working.items()})

    async def until(self, condition, seconds: float = 5.0) -> None:
        """Until it holds."""
        for _ in range(int(seconds / 0.002)):
            if condition():
                return
            await asyncio.sleep(0.002)
        raise AssertionError("it never came")

    def told(self) -> list[object]:
        return [value for _, value in self.ledger.told()]

    def fills(self) -> list[tuple[str, Decimal]]:
        return [(value.client_id, value.quantity) for value in self.told() if isinstance(value, Fill)]

    def refusals(self) -> list[tuple[str, str]]:
        return [(value.client_id, value.rule) for value in self.told() if isinstance(value, Refusal)]

    def state(self, client_id: str) -> str:
        return self.ledger.record(client_id).state

    async def close(self) -> None:
        await self.courier.close()


@pytest.fixture
def desk(tmp_path):
    made = Desk(tmp_path)
    yield made
    made.journal.close()


@pytest.fixture
def at_desk(desk):
    """Runs `scenario(desk, courier)` in a loop, and closes everything after it."""

    def run(scenario) -> None:
        async def body() -> None:
            courier = await desk.open()
            try:
                await asyncio.wait_for(scenario(desk, courier), 10)
                assert not desk.courier.errands._failed.done(), desk.courier.errands._failed
            finally:
                with contextlib.suppress(AssertionError):
                    await desk.close()

        asyncio.run(body())

    return run


@pytest.fixture
def make_desk():
    made = []

    def make(folder) -> Desk:
        folder.mkdir()
        made.append(Desk(folder))
        return made[-1]

    yield make
    for one in made:
        one.journal.close()


@pytest.fixture
def rules():
    return RULES
