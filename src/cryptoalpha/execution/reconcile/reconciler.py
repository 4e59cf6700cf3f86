"""Reconciliation with the venue: reads its books, compares them with the ledger, writes what follows.

`begin` once at a start, then `look` after it, after every lost connection, on a timer and on demand. All reading comes first; if one
question gets no answer that can be believed, nothing is concluded. Then everything that was concluded is one transaction. What others do
is shown and accounted for, never touched. A look changes nothing that an earlier one has settled, however often it is done.

Trades of the run's own orders and the orders' states are not judged here: they go through the same intake as streams and inquiries.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from decimal import Decimal

import msgspec

from cryptoalpha.core.clock import Clock
from cryptoalpha.core.time import SECOND
from cryptoalpha.core.values import Adjustment, Fill, FundingPayment, InstrumentRules
from cryptoalpha.execution.config import ExecutionConfig
from cryptoalpha.execution.live.points import Point, Reached, nobody
from cryptoalpha.execution.money import ZERO, exact
from cryptoalpha.execution.reconcile.book import AccountBook, Opening
from cryptoalpha.execution.reconcile.compare import at_once, settle_standing
from cryptoalpha.execution.reconcile.invariants import Suspicions, check_all
from cryptoalpha.execution.reconcile.reading import FUNDING, OPENING, Intake, Reader, item
from cryptoalpha.execution.reconcile.synthetic import owed_key
from cryptoalpha.execution.reconcile.values import Break, Corrections, Findings, ForeignChange, OrderState, Owed, Snapshot
from cryptoalpha.execution.venue import Trade, Venue
from cryptoalpha.store.order_ledger import OrderLedger

_SETTLED = "settled"


class _Settled(msgspec.Struct, frozen=True, kw_only=True):
    """What later comparisons need of earlier ones: the cursor `settled`."""

    lost: dict[str, Decimal] = {}
    compared: int = 0
    synthetic: tuple[str, ...] = ()
    """Client ids of the orders that got synthetic fills."""


class Reconciler:
    """See the module header.

    Args:
        rules: of the book's instruments.
        clock: what the engine's clock follows; times of trades are compared with it.
        wall: our clock for waiting and for what is written down.

    Raises (from `begin` and `look`):
        UnclearError: if a question got no answer that can be believed. Nothing was changed.
    """

    def __init__(
        self,
        venue: Venue,
        ledger: OrderLedger,
        intake: Intake,
        rules: Mapping[str, InstrumentRules],
        config: ExecutionConfig,
        *,
        clock: Clock,
        wall: Clock,
        reached: Reached = nobody,
    ) -> None:
        self._ledger, self._intake, self._rules, self._config = ledger, intake, dict(rules), config
        self._is_futures, self._wall, self._reached = venue.is_futures, wall, reached
        self._reader = Reader(venue, ledger, intake, tuple(rules), config, clock)
        self._suspicions = Suspicions(round(config.live.settle_seconds * SECOND))
        self._settled = _Settled()
        self._told = 0
        self._known_breaks: dict[tuple[str, str], str] = {}
        self._known_orders: set[str] = set()
        self._looking = asyncio.Lock()
        self._book: AccountBook | None = None

    @property
    def book(self) -> AccountBook:
        """What the account should hold by everything written so far, whether or not the engine was told. After `begin`."""
        if self._book is None:
            raise RuntimeError("reconciliation has not begun")
        self._catch_up(self._book)
        return self._book

    async def begin(self) -> None:
        """Record what the account holds when the run first comes; at later starts take up what the ledger says.

        Raises:
            ConfigError: if less is free than the run is to begin with.
        """
        text = self._ledger.cursor(OPENING)
        opening = await self._reader.opening(self._wall.now()) if text is None else msgspec.json.decode(text, type=Opening)
        book = AccountBook(self._rules, self._config.quote, opening, is_futures=self._is_futures)
        for noted in self._ledger.foreign():
            book.note(noted.id, msgspec.json.decode(noted.body, type=ForeignChange))
        self._settled = msgspec.json.decode(self._ledger.cursor(_SETTLED) or "{}", type=_Settled)
        self._told, self._book = 0, book
        self._catch_up(book)

    async def look(self) -> Findings:
        """Read the venue's books, book what they show, compare, and write what follows."""
        async with self._looking:
            is_overdrawn = not self._is_futures and any(amount < 0 for amount in self.book.foreign.values())
            seen, pages = await self._reader.snapshot(self.book, self._wall.now(), prices=self._suspicions.any or is_overdrawn)
            self._reached(Point.IN_RECONCILE)
            strangers, unclear = await self._reader.place(seen, pages, self.book)
            # whose funding was can only be said once all trades are placed; it is read again by the next look
            seen = msgspec.structs.replace(seen, trades=strangers, funding=() if unclear else seen.funding)
            cursors = self._reader.advanced({name: page for name, page in pages.items() if name not in unclear}, self._wall.now())
            findings, synthetic = self._conclude(seen, unclear, cursors)
            if synthetic:
                await self._intake.trades(synthetic)
            self._reached(Point.AFTER_RECONCILE)
            return findings

    # ── concluding ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _conclude(self, seen: Snapshot, unclear: frozenset[str], cursors: dict[str, str]) -> tuple[Findings, tuple[Trade, ...]]:
        """Compare and write. Nothing waits in here."""
        book, orders = self.book.copy(), self._orders()
        first = at_once(seen, book, lost=self._settled.lost, compared=self._settled.compared)
        _apply(book, first)
        ours = {report.client_id: self._state(report.client_id) for report in seen.open_orders}
        ours = {name: state for name, state in ours.items() if state}
        breaks = self._suspicions.judge(self._wall.now(), check_all(seen, book, orders, ours))
        second = settle_standing(
            seen,
            book,
            [broken for broken in breaks if broken.stands],
            orders,
            unclear,
            lost=first.lost,
            compared=first.compared,
            owed=self._owed(),
            taker_fee=exact(self._config.costs.taker_fee),
        )
        _apply(book, second)
        breaks += check_again(seen, book, second)
        told = self._write(seen, (first, second), cursors)
        alerts = [*first.alerts, *second.alerts, *self._news(breaks), *self._strange_orders(seen, ours)]
        findings = Findings(
            at=seen.at,
            answers=seen.answers,
            outcomes=told,
            breaks=tuple(breaks),
            stop_entries=any(broken.stands and not broken.is_dust for broken in breaks),
            foreign_orders=tuple(report for report in seen.open_orders if report.client_id not in ours),
            alerts=tuple(dict.fromkeys(alerts)),
        )
        return findings, second.synthetic

    def _write(
        self, seen: Snapshot, corrections: Sequence[Corrections], cursors: dict[str, str]
    ) -> tuple[Fill | FundingPayment | Adjustment, ...]:
        """One transaction, if there is anything to write."""
        last = corrections[-1]
        settled = _Settled(
            lost={name: amount for name, amount in last.lost.items() if amount != 0},
            compared=last.compared,
            synthetic=tuple(dict.fromkeys([*self._settled.synthetic, *last.owed])),
        )
        if settled != self._settled:
            cursors[_SETTLED] = msgspec.json.encode(settled).decode()
        if seen.funding:
            cursors[FUNDING] = str(max(record.at for record in seen.funding))
        cursors |= {owed_key(name): msgspec.json.encode(owed).decode() for one in corrections for name, owed in one.owed.items()}
        cursors = {key: value for key, value in cursors.items() if self._ledger.cursor(key) != value}
        outcomes = [outcome for one in corrections for outcome in one.outcomes]
        foreign = [item(name, change, seen.at) for one in corrections for name, change in one.foreign.items()]
        if not (cursors or outcomes or foreign):
            return ()
        written = self._ledger.write(at=self._wall.now(), outcomes=outcomes, foreign=foreign, cursors=cursors)
        book = self.book
        for one in corrections:
            for name, change in one.foreign.items():
                book.note(name, change)
        self._settled = settled
        return tuple(value for value in written.outcomes if isinstance(value, Fill | FundingPayment | Adjustment))

    def _orders(self) -> list[OrderState]:
        states = []
        for event, order, record in self._ledger.unfinished():
            if record is None:
                continue
            fills = [booking.fill for booking in self._ledger.fills(client_id=order.client_id)]
            states.append(
                OrderState(
                    client_id=order.client_id,
                    instrument=order.instrument,
                    state=record.state,
                    event=event,
                    quantity=record.quantity,
                    booked=sum((fill.quantity for fill in fills), ZERO),
                    value=sum((fill.quantity * fill.price for fill in fills), ZERO),
                )
            )
        return states

    def _owed(self) -> dict[str, Owed]:
        """Synthetic fills whose trades have not all turned up."""
        owed = {}
        for client_id in self._settled.synthetic:
            text, found = self._ledger.cursor(owed_key(client_id)), self._ledger.order(client_id)
            one = None if text is None else msgspec.json.decode(text, type=Owed)
            if one is not None and found is not None and self._ledger.has_fill(found[1].instrument, one.trade_id):
                owed[client_id] = one
        return owed

    def _state(self, client_id: str) -> str:
        """State of one of our orders; empty where it is none of ours."""
        record = self._ledger.record(client_id)
        if record is not None:
            return record.state
        return "intent" if client_id and self._ledger.order(client_id) is not None else ""

    def _news(self, breaks: Sequence[Break]) -> list[str]:
        """What stands that did not, and what did and is over. Told once each."""
        grave: dict[tuple[str, str], str] = {(one.invariant, one.subject): one.message for one in breaks if one.stands and not one.is_dust}
        news = [f"{key[0]}: {message}" for key, message in grave.items() if key not in self._known_breaks]
        news += [f"{key[0]} holds again: {key[1]}" for key in self._known_breaks if key not in grave]
        self._known_breaks = grave
        return news

    def _strange_orders(self, seen: Snapshot, ours: Mapping[str, str]) -> list[str]:
        """Orders of others, told when they are first seen."""
        strange = {report.venue_id: report for report in seen.open_orders if report.client_id not in ours}
        news = [
            f"another hand has an order on the account: {one.side} {one.quantity} {one.instrument} ({one.client_id or one.venue_id})"
            for name, one in strange.items()
            if name not in self._known_orders
        ]
        self._known_orders = set(strange)
        return news

    def _catch_up(self, book: AccountBook) -> None:
        for number, value in self._ledger.told(after=self._told):
            book.apply(value)
            self._told = number


def check_again(seen: Snapshot, book: AccountBook, settled: Corrections) -> list[Break]:
    """I6: with everything applied, the same snapshot has nothing more to correct."""
    again = at_once(seen, book, lost=settled.lost, compared=settled.compared)
    if again.is_empty:
        return []
    message = f"reconciling again would change {len(again.outcomes)} outcomes and {len(again.foreign)} of others: a fault of the program"
    return [Break(invariant="I6", subject="account", message=message, stands=True)]


def _apply(book: AccountBook, corrections: Corrections) -> None:
    for outcome in corrections.outcomes:
        book.apply(outcome[1] if isinstance(outcome, tuple) else outcome)
    for name, change in corrections.foreign.items():
        book.note(name, change)
