"""The one path by which anything the venue says of our orders becomes true: answers, inquiries, stream events and read books alike.

It is idempotent and does not mind the order in which things arrive (`orders.tracker` decides what they mean). An order ends in the same
transaction as its last trade, and what the engine is told of it is written in that transaction too. So after a kill at any point an order
either has not ended, and is asked for again, or has ended with everything it did, told once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal

import msgspec

from cryptoalpha.core.clock import Clock
from cryptoalpha.core.errors import AccountingError
from cryptoalpha.core.values import Adjustment, Fill, InstrumentRules, Order, Refusal, Travelling
from cryptoalpha.execution.broker import REJECTED
from cryptoalpha.execution.live.points import Point, Reached
from cryptoalpha.execution.live.working import Working
from cryptoalpha.execution.money import ZERO
from cryptoalpha.execution.orders import tracker
from cryptoalpha.execution.orders.absence import Evidence
from cryptoalpha.execution.orders.tracker import Step, Tracked
from cryptoalpha.execution.reconcile.fees import as_fill, priced_by
from cryptoalpha.execution.reconcile.synthetic import owed_key, redeem
from cryptoalpha.execution.reconcile.values import Owed
from cryptoalpha.execution.venue import OrderReport, Trade, UnclearError, Venue
from cryptoalpha.store.order_ledger import Booking, Once, OrderLedger

Alert = Callable[[str, str], None]
"""Tells a person: name of the matter, and what happened. Called in the venue's thread; must not wait."""

ENDED_AS: Mapping[str, str] = {"canceled": "cancelled", "expired": "expired", "rejected": REJECTED, "absent": "absent", "filled": "cut"}
"""Rule of the refusal that tells the engine of a rest that will not be filled, by how the order ended. `cut`: less was sent."""


class Intake:
    """See the module header.

    Args:
        wall: our clock for what is written down.
    """

    def __init__(
        self, venue: Venue, ledger: OrderLedger, rules: Mapping[str, InstrumentRules], *, wall: Clock, alert: Alert, reached: Reached
    ) -> None:
        self._venue, self._ledger, self._rules = venue, ledger, rules
        self._wall, self._alert, self._reached = wall, alert, reached
        self._prices: dict[str, Decimal] = {}
        self._positions: dict[str, Decimal] = {}
        self._told = 0
        self.working: dict[str, Working] = {}
        """Orders that have not ended, by client id, oldest first."""
        self.distrust = ""
        """Why no entries may be sent: the venue did what it had said that it cannot have done. Empty while all is well."""

    # ── what there is ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def resume(self) -> None:
        """Take up what an earlier process left: every order of the journal without an end."""
        now = self._wall.now()
        for event, order, record in self._ledger.unfinished():
            tracked = tracker.resume(order, event, record, self._ledger.fills(client_id=order.client_id), now)
            # by a clock that is never set; whenever it was sent, it was before this
            working = Working(tracked, Evidence(sent_at=time.monotonic_ns(), is_seen=bool(tracked.record.venue_id)))
            working.must_end = tracked.state == "canceling"
            working.noted_at = record.changed_at if record is not None else 0
            self.working[order.client_id] = working
            if record != tracked.record:
                self._ledger.write(at=now, records=[tracked.record])

    def take(self, order: Order, event: int) -> Working:
        """An order of the engine that is about to be carried to the venue."""
        now = self._wall.now()
        working = self.working[order.client_id] = Working(tracker.begin(order, event, now), Evidence(sent_at=time.monotonic_ns()))
        return working

    def of(self, instrument: str) -> list[Working]:
        """Orders of an instrument that have not ended, oldest first."""
        return [one for one in self.working.values() if one.order.instrument == instrument]

    def position(self, instrument: str) -> Decimal:
        """What the run holds by everything booked, whether or not the engine was told."""
        for number, value in self._ledger.told(after=self._told):
            self._told = number
            if isinstance(value, Fill | Adjustment):
                self._positions[value.instrument] = self._positions.get(value.instrument, ZERO) + moved_by(value, self._rules)
        return self._positions.get(instrument, ZERO)

    # ── what the venue says ───────────────────────────────────────────────────────────────────────────────────────────────────────

    async def report(self, report: OrderReport, trades: Sequence[Trade] = (), *, is_reply: bool = False) -> None:
        """The venue describes one of our orders, perhaps with trades of it. Others' orders are passed over.

        Args:
            is_reply: it was asked after a cancel had been answered: "open" then means that the cancel had no effect.

        Raises:
            UnclearError: if a fee cannot be priced yet; nothing is written, and what was said comes again.
        """
        working = self.working.get(report.client_id)
        found = None if working is not None else self._ledger.order(report.client_id)
        if working is None and found is None:
            return
        if working is not None:
            working.evidence = working.evidence.seen()
        prices = await self._prices_of(trades)
        tracked = self._tracked(report.client_id)  # others may have moved it while the price was asked for
        step = tracker.reported(tracked, report, self._wall.now(), is_reply=is_reply)
        self._follow(tracked, step, trades, prices)

    async def trades(self, trades: Sequence[Trade], cursors: Mapping[str, str] | None = None) -> list[Trade]:
        """Trades of the account, in any order and any number of times; returns those that belong to none of our orders.

        Args:
            cursors: how far the venue's list was read, written once all of them are booked.

        Raises:
            UnclearError: as in `report`.
        """
        ours: dict[str, list[Trade]] = {}
        foreign = []
        for trade in trades:
            client_id = self.owner(trade)
            if client_id is None:
                foreign.append(trade)
            elif not self._ledger.has_fill(trade.instrument, trade.trade_id):
                ours.setdefault(client_id, []).append(trade)
        for client_id, mine in ours.items():
            prices = await self._prices_of(mine)
            tracked = self._tracked(client_id)
            self._follow(tracked, Step(tracked=tracked, is_new=False), mine, prices)
        if cursors and any(self._ledger.cursor(key) != value for key, value in cursors.items()):
            self._ledger.write(at=self._wall.now(), cursors=cursors)
        return foreign

    def owner(self, trade: Trade) -> str | None:
        """Client id of the order that a trade belongs to; None where it is none of ours, or nobody knows yet."""
        if trade.client_id and self._ledger.order(trade.client_id) is not None:
            return trade.client_id
        record = self._ledger.record_of(trade.instrument, trade.venue_id)
        return None if record is None else record.client_id

    # ── what we know ourselves ────────────────────────────────────────────────────────────────────────────────────────────────────

    def note(self, working: Working, tracked: Tracked) -> None:
        """Write down what we know of it ourselves: about to be sent, of unknown fate, being cancelled."""
        if tracked.record != working.tracked.record:
            self._ledger.write(at=self._wall.now(), records=[tracked.record])
        working.tracked = tracked

    def end(self, working: Working, step: Step, rule: str, why: str) -> None:
        """It ended by something other than a report: the venue refused it, it was never sent, it is proven absent."""
        if step.tracked.ended:
            self._write(step, [], [self._refusal(step.tracked, rule, why)])
        elif step.flag:  # refused, though the venue has shown it: it goes on, and a person should know
            self._warn(step)

    # ── within ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _tracked(self, client_id: str) -> Tracked:
        """What is known of one of our orders, ended or not."""
        working = self.working.get(client_id)
        if working is not None:
            return working.tracked
        found = self._ledger.order(client_id)
        if found is None:
            raise AccountingError(f"order {client_id} is in no row of the journal", hint="keep the journal for analysis")
        event, order = found
        return tracker.resume(order, event, self._ledger.record(client_id), self._ledger.fills(client_id=client_id), self._wall.now())

    def _follow(self, before: Tracked, step: Step, trades: Iterable[Trade], prices: Mapping[str, Decimal]) -> None:
        """Count the trades in, then write everything the step changed. Nothing waits in here: one step, one transaction."""
        now, bookings = self._wall.now(), []
        trades, outcomes, cursors = self._redeemed(before.order, trades, prices)
        for trade in trades:
            counted = tracker.traded(step.tracked, trade, now)
            if counted.is_new:
                rules, order = self._rules[trade.instrument], counted.tracked.order
                price = prices.get(priced_by(trade, rules) or "")
                fill = as_fill(trade, order, counted.tracked.event, rules, known_at=trade.at, price=price)
                bookings.append(Booking(fill=fill, venue_id=trade.venue_id, flag=counted.flag))
            step = tracker.then(step, counted)
        if bookings:
            self._reached(Point.FILL_RECEIVED)
        if step.tracked.ended and not before.ended and step.tracked.booked < step.tracked.order.quantity:
            outcomes.append(self._refusal(step.tracked, ENDED_AS[step.tracked.state], step.tracked.record.detail))
        if step.is_new or outcomes or cursors:
            self._write(step, bookings, outcomes, cursors)
        if step.flag:
            self._warn(step)

    def _redeemed(
        self, order: Order, trades: Iterable[Trade], prices: Mapping[str, Decimal]
    ) -> tuple[list[Trade], list[Travelling | Once], dict[str, str]]:
        """Trades less what a synthetic fill of the order has booked already (`reconcile.synthetic`); what corrects that fill; what is owed
        after it."""
        key = owed_key(order.client_id)
        text = self._ledger.cursor(key)
        owed = None if text is None else msgspec.json.decode(text, type=Owed)
        if owed is None or not self._ledger.has_fill(order.instrument, owed.trade_id):
            return list(trades), [], {}
        rests: list[Trade] = []
        changes: list[Travelling | Once] = []
        for trade in trades:
            rules = self._rules[trade.instrument]
            rest, change, owed = redeem(trade, owed, rules, known_at=trade.at, price=prices.get(priced_by(trade, rules) or ""))
            rests += [] if rest is None else [rest]
            changes += [] if change is None else [change]
        left = msgspec.json.encode(owed).decode()
        return rests, changes, {} if left == text else {key: left}

    def _write(
        self, step: Step, bookings: Sequence[Booking], outcomes: Sequence[Travelling | Once], cursors: Mapping[str, str] | None = None
    ) -> None:
        tracked = step.tracked
        self._ledger.write(at=self._wall.now(), records=[tracked.record], fills=bookings, outcomes=outcomes, cursors=cursors)
        working = self.working.get(tracked.order.client_id)
        if working is not None:
            working.tracked = tracked
            if tracked.ended:
                del self.working[tracked.order.client_id]
        if bookings:
            self._reached(Point.FILL_BOOKED)

    def _warn(self, step: Step) -> None:
        """Something about the order is odd: tell a person, and stop entering where it contradicts what was held for certain."""
        order, record = step.tracked.order, step.tracked.record
        why = (
            f"{order.instrument}: order {order.client_id} is {record.state}, {step.tracked.booked} of {record.quantity} traded: {step.flag}"
        )
        self._alert(f"order_{step.flag.replace(' ', '_')}", why)
        if step.halts:
            self.distrust = why

    async def _prices_of(self, trades: Iterable[Trade]) -> dict[str, Decimal]:
        """What assets that fees were paid in are worth, by instrument: now, or as last known where the venue does not answer."""
        for name in {priced_by(trade, self._rules[trade.instrument]) for trade in trades}:
            if name is None:
                continue
            try:
                self._prices[name] = await self._venue.price(name)
            except UnclearError:
                if name not in self._prices:
                    raise
        return self._prices

    def _refusal(self, tracked: Tracked, rule: str, why: str) -> Once:
        order, now = tracked.order, self._wall.now()
        left = order.quantity - tracked.booked
        refusal = Refusal(
            happened_at=now,
            known_at=now,
            instrument=order.instrument,
            rule=rule,
            message=f"order {order.client_id}, {left} of {order.quantity} left: {why or rule}",
            decision=order.decision,
            client_id=order.client_id,
        )
        return f"end {order.client_id}", refusal


def moved_by(value: Fill | Adjustment, rules: Mapping[str, InstrumentRules]) -> Decimal:
    """By how much it moves the position."""
    if isinstance(value, Adjustment):
        return value.quantity
    moved = value.quantity if value.side == "buy" else -value.quantity
    return moved - value.fee if value.fee_asset == rules[value.instrument].base else moved
