"""An account kept in memory, and a run at it: its truth is one set of books, what it shows may lag behind, and others trade on it.

The ledger and the intake of answers are the real ones. The same situations run against the fake exchange in `tests/chaos`.
"""

from __future__ import annotations

import asyncio
from decimal import Decimal

import msgspec
import pytest

from cryptoalpha.core.clock import VirtualClock
from cryptoalpha.core.time import DAY, SECOND
from cryptoalpha.core.values import Adjustment, Fill, FundingPayment, InstrumentRules, Order
from cryptoalpha.execution.config import ExecutionConfig
from cryptoalpha.execution.live.intake import Intake
from cryptoalpha.execution.live.points import nobody
from cryptoalpha.execution.portfolio import Portfolio
from cryptoalpha.execution.reconcile.reconciler import Reconciler
from cryptoalpha.execution.venue import (
    Ambiguous,
    Balance,
    FundingRecord,
    NotFound,
    OrderReport,
    Position,
    Trade,
    UnclearError,
)
from cryptoalpha.store.journal import Journal
from cryptoalpha.store.order_ledger import OrderLedger

D = Decimal
BTC, BNB = "BTC/USDT", "BNB/USDT"
BEGIN = 100 * DAY
PRICES = {BTC: D(100), BNB: D(50)}


def rules(name: str, *, perpetual: bool = False) -> InstrumentRules:
    return InstrumentRules(
        happened_at=0, known_at=0, instrument=name, venue="desk", base=name[:3], quote="USDT", lot=D("0.001"), tick=D("0.01"),
        min_notional=D(1), perpetual=perpetual,
    )  # fmt: skip


class Desk:
    """An account at a venue. What it shows can be held back: trades one by one, balances as a whole."""

    name = "desk"

    def __init__(self, clock: VirtualClock, cash: str = "1000", *, is_futures: bool = False) -> None:
        self.clock, self.is_futures = clock, is_futures
        self.wallet: dict[str, Decimal] = {"USDT": D(cash)}
        self.entries: dict[str, tuple[Decimal, Decimal]] = {}
        self.orders: dict[str, OrderReport] = {}
        self.book: list[Trade] = []
        self.settlements: list[FundingRecord] = []
        self.hidden: set[str] = set()
        self.frozen: dict[str, Balance] | None = None
        self.silent = ""
        self.asked: list[str] = []

    # what happens at the venue
    def open(self, client_id: str, side: str, quantity: str) -> OrderReport:
        report = OrderReport(
            instrument=BTC, client_id=client_id, venue_id=f"v{len(self.orders) + 1}", state="open", side=side, quantity=D(quantity),
            filled=D(0), at=self.clock.now(),
        )  # fmt: skip
        self.orders[client_id] = report
        return report

    def fill(self, client_id: str, quantity: str, price: str, fee: str = "0", asset: str = "USDT") -> Trade:
        report = self.orders[client_id]
        filled = report.filled + D(quantity)
        value = (report.average_price or D(0)) * report.filled + D(quantity) * D(price)
        state = "filled" if filled >= report.quantity else "partial"
        self.orders[client_id] = msgspec.structs.replace(report, filled=filled, state=state, average_price=value / filled)
        return self.trade(report.side, quantity, price, fee, asset, venue_id=report.venue_id)

    def end(self, client_id: str, state: str = "canceled") -> None:
        self.orders[client_id] = msgspec.structs.replace(self.orders[client_id], state=state)

    def trade(
        self, side: str, quantity: str, price: str, fee: str = "0", asset: str = "USDT", *, venue_id: str = "x", name: str = BTC
    ) -> Trade:
        trade = Trade(
            instrument=name, trade_id=str(len(self.book) + 1), venue_id=venue_id, side=side, quantity=D(quantity), price=D(price),
            fee=D(fee), fee_asset=asset, at=self.clock.now(),
        )  # fmt: skip
        self.book.append(trade)
        signed = trade.quantity if side == "buy" else -trade.quantity
        self.move(asset, -trade.fee)
        if not self.is_futures:
            self.move(name[:3], signed)
            self.move("USDT", -signed * trade.price)
            return trade
        held, entry = self.entries.get(name, (D(0), D(0)))
        after = held + signed
        if held == 0 or (held > 0) == (signed > 0):
            entry = (held * entry + signed * trade.price) / after
        else:
            closing = min(abs(held), abs(signed)) * (1 if held > 0 else -1)
            self.move("USDT", closing * (trade.price - entry))
            entry = entry if (after > 0) == (held > 0) else trade.price
        self.entries[name] = (after, entry)
        return trade

    def move(self, asset: str, amount: Decimal) -> None:
        self.wallet[asset] = self.wallet.get(asset, D(0)) + amount

    def settle(self, amount: str) -> None:
        self.move("USDT", D(amount))
        n = len(self.settlements) + 1
        self.settlements.append(FundingRecord(instrument=BTC, record_id=f"f{n}", amount=D(amount), asset="USDT", at=self.clock.now()))

    # what it can be asked
    def _heard(self, what: str) -> None:
        self.asked.append(what)
        if what == self.silent:
            raise UnclearError(f"{what}: no answer", answer=Ambiguous(reason="timeout"))

    async def trades(self, instrument: str, *, after: str | None, since: int) -> list[Trade]:
        self._heard("trades")
        shown = [one for one in self.book if one.instrument == instrument and one.trade_id not in self.hidden]
        return [one for one in shown if (int(one.trade_id) > int(after) if after else one.at >= since)]

    async def open_orders(self, instrument: str) -> list[OrderReport]:
        self._heard("open_orders")
        return [one for one in self.orders.values() if one.instrument == instrument and one.state in ("open", "partial")]

    async def query(self, instrument: str, client_id: str) -> OrderReport | NotFound:
        self._heard("query")
        return self.orders.get(client_id) or NotFound()

    async def balances(self) -> dict[str, Balance]:
        self._heard("balances")
        return self.frozen or {name: Balance(asset=name, free=amount, used=D(0)) for name, amount in self.wallet.items()}

    async def positions(self) -> dict[str, Position]:
        return {name: Position(instrument=name, quantity=q, entry_price=p) for name, (q, p) in self.entries.items() if q != 0}

    async def funding(self, since: int) -> list[FundingRecord]:
        return [one for one in self.settlements if one.at >= since]

    async def price(self, instrument: str) -> Decimal:
        return PRICES[instrument]


class World:
    """A run at the desk: journal, ledger, intake and reconciler, which can all be begun anew over the same file."""

    def __init__(self, path, desk: Desk, *, cash: float = 1000.0, names: tuple[str, ...] = (BTC,)) -> None:
        self.path, self.desk, self.cash = path / "journal.sqlite", desk, cash
        self.rules = {name: rules(name, perpetual=desk.is_futures) for name in names}
        self.journal = Journal(self.path, durable=True, header={"run": "r"})
        self.wall = VirtualClock(1)
        self.alerts: list[str] = []
        self.ledger: OrderLedger | None = None
        self.start()

    def start(self) -> None:
        if self.ledger is not None:
            self.ledger.close()
        self.ledger = OrderLedger(self.path)
        tell = lambda name, text: self.alerts.append(name)  # noqa: E731
        self.intake = Intake(self.desk, self.ledger, self.rules, wall=self.wall, alert=tell, reached=nobody)
        self.intake.resume()
        self.reconciler = Reconciler(
            self.desk, self.ledger, self.intake, self.rules, ExecutionConfig(initial_cash=self.cash), clock=self.desk.clock, wall=self.wall
        )
        asyncio.run(self.reconciler.begin())

    def close(self) -> None:
        self.ledger.close()
        self.journal.close()

    def order(self, client_id: str, side: str, quantity: str, *, is_known: bool = True) -> None:
        """Decided, journaled, sent; and accepted, unless nobody heard the answer."""
        at = self.desk.clock.now()
        order = Order(happened_at=at, known_at=at, client_id=client_id, instrument=BTC, side=side, quantity=D(quantity))
        row = self.journal.append(at, [order])
        self.intake.take(order, row << 16)
        self.ledger.write(at=self.wall.now(), records=[self.intake.working[client_id].tracked.record])
        report = self.desk.open(client_id, side, quantity)
        if is_known:
            asyncio.run(self.intake.report(report))

    def look(self, seconds: float = 6.0):
        """One look, so long after the last."""
        self.wall.advance_to(self.wall.now() + round(seconds * SECOND))
        self.desk.clock.advance_to(self.desk.clock.now() + SECOND)
        return asyncio.run(self.reconciler.look())

    def settle(self) -> list:
        """Looks until nothing stands any more."""
        return [self.look() for _ in range(4)]

    def told(self, kind: type = object) -> list:
        """What the engine was or will be told, of one kind."""
        return [value for _, value in self.ledger.told() if isinstance(value, kind)]

    def portfolio(self) -> Portfolio:
        """The engine's books by all it was told."""
        books = Portfolio(D(repr(self.cash)), tuple(self.rules), tuple(self.rules) if self.desk.is_futures else (), may_overdraw=True)
        for value in self.told():
            if isinstance(value, Fill | FundingPayment | Adjustment):
                books.apply(value)
        return books

    def check(self) -> None:
        """Book and foreign holding add up to the venue's truth, the engine's books are the reconciler's, and looking again is nothing."""
        book, portfolio = self.reconciler.book, self.portfolio()
        assert portfolio.cash == book.cash
        assert dict(portfolio.positions) == {name: held for name, held in book.held.items() if held != 0}
        for asset in {"USDT", *(one.base for one in self.rules.values())} if not self.desk.is_futures else ():
            assert book.expected(asset) == self.desk.wallet.get(asset, D(0)), asset
        count, foreign = len(self.told()), self.ledger.foreign()
        found = self.look()
        assert not found.breaks
        assert (len(self.told()), self.ledger.foreign()) == (count, foreign)


@pytest.fixture(scope="session")
def worlds(tmp_path_factory):
    """Makes runs, each with a desk of its own."""

    def make(cash: str = "1000", *, is_futures: bool = False, names: tuple[str, ...] = (BTC,), before=lambda desk: None) -> World:
        desk = Desk(VirtualClock(BEGIN), cash, is_futures=is_futures)
        before(desk)
        return World(tmp_path_factory.mktemp("run"), desk, names=names)

    return make


@pytest.fixture
def world(worlds):
    """A run with all of the account's 1000 USDT."""
    made = worlds()
    yield made
    made.close()
