"""What is known of one order, and how reports, trades and answers change it. Pure: a `Tracked` goes in, a `Step` comes out.

Reports and trades may come in any order, late and repeatedly: a fill before its acknowledgement, a report older than what is known, a
trade after the cancel, more traded than was ordered. Whatever comes:

- each trade counts once, by its id, and every trade counts: what is booked is the sum of the distinct trades, in whatever order they came;
- `filled` never decreases: it is the larger of what the venue reports and what is booked;
- a final state is never left. A trade that comes after it is booked and flagged `late`, one beyond the quantity `over`; in a state in
  which nothing can have been traded it halts entries as well;
- an order ends when the venue says so *and* all that it says was traded is booked, so its last trade is never behind its end. Until then
  `Step.missing` says how much is to be asked for.

A report that contradicts the order (another side, instrument or quantity) changes nothing and is flagged `mismatch`.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

import msgspec

from cryptoalpha.core.errors import AccountingError
from cryptoalpha.core.values import Order
from cryptoalpha.execution.money import ZERO
from cryptoalpha.execution.orders.states import FINAL, UNTRADED, State, may_follow
from cryptoalpha.execution.venue import Ambiguous, Answer, OrderReport, Rejected, Trade
from cryptoalpha.store.order_ledger import Booking, OrderRecord

LATE, OVER, MISMATCH = "late", "over", "mismatch"


class Tracked(msgspec.Struct, frozen=True, kw_only=True):
    """One order, and what is known of it."""

    order: Order
    event: int
    """Event id of the order."""
    record: OrderRecord
    booked: Decimal = ZERO
    """Sum of its distinct trades."""
    trades: frozenset[str] = frozenset()
    """Ids of those."""
    ending: State | None = None
    """The end that the venue reported while trades are missing; None where it reported none."""

    @property
    def state(self) -> State:
        return self.record.state  # type: ignore[return-value]  # written from `State` alone

    @property
    def ended(self) -> bool:
        return self.record.ended

    @property
    def missing(self) -> Decimal:
        """Reported as traded, and not booked yet."""
        return max(self.record.filled - self.booked, ZERO)

    @property
    def open_quantity(self) -> Decimal:
        """What may still be traded; 0 once it has ended."""
        return ZERO if self.ended else max(self.record.quantity - self.booked, ZERO)


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """What one message changed."""

    tracked: Tracked
    flag: str = ""
    """`late`, `over`, `late over` or `mismatch`: why a person should look; empty where nothing is odd."""
    is_new: bool = True
    """Whether anything changed."""
    halts: bool = False
    """Whether entries must stop: what the venue did contradicts what was held for certain."""

    @property
    def missing(self) -> Decimal:
        return self.tracked.missing


def begin(order: Order, event: int, now: int, *, quantity: Decimal | None = None) -> Tracked:
    """An order that is durable and not sent. `quantity`: what will be sent, where that is less than the order's."""
    record = OrderRecord(
        client_id=order.client_id,
        instrument=order.instrument,
        state="intent",
        ended=False,
        quantity=order.quantity if quantity is None else quantity,
        changed_at=now,
        since=now,
    )
    return Tracked(order=order, event=event, record=record)


def resume(order: Order, event: int, record: OrderRecord | None, bookings: Iterable[Booking], now: int) -> Tracked:
    """An order found after a restart. One that is not known to have reached the venue is unknown from now on."""
    fills = [booking.fill for booking in bookings]
    found = Tracked(
        order=order,
        event=event,
        record=begin(order, event, now).record if record is None else record,
        booked=sum((fill.quantity for fill in fills), ZERO),
        trades=frozenset(fill.trade_id for fill in fills),
    )
    return _to(found, "unknown", now, "found after a restart") if found.state == "intent" else found


def sent(tracked: Tracked, now: int) -> Tracked:
    """Its request leaves now."""
    return _with(tracked, sent_at=now, changed_at=now)


def answered(tracked: Tracked, answer: Answer, now: int) -> Step:
    """The venue has answered the request, or has not."""
    if isinstance(answer, Rejected):
        return refused(tracked, answer, now)
    if isinstance(answer, Ambiguous):
        return doubted(tracked, answer.reason, now)
    step = reported(tracked, answer.report, now)
    for trade in answer.trades:
        step = then(step, traded(step.tracked, trade, now))
    return step


def refused(tracked: Tracked, refusal: Rejected, now: int) -> Step:
    """The venue has refused it for good. Believed only while nothing else was heard of it."""
    if tracked.state in ("intent", "unknown") and not (tracked.booked or tracked.record.filled or tracked.ending):
        return Step(tracked=_to(tracked, "rejected", now, f"{refusal.code}: {refusal.message}"))
    return Step(tracked=tracked, is_new=False, flag="" if tracked.state == "rejected" else MISMATCH)


def doubted(tracked: Tracked, reason: str, now: int) -> Step:
    """Nobody knows what became of it. An order that is being cancelled stays so: its cancel is asked for again."""
    if tracked.state in ("intent", "open", "partial"):
        return Step(tracked=_to(tracked, "unknown", now, reason))
    return Step(tracked=tracked, is_new=False)


def lost(tracked: Tracked, reason: str, now: int) -> Step:
    """The venue, asked for it, does not know an order that it had: unknown, whatever it was."""
    if tracked.ended or tracked.state == "unknown":
        return Step(tracked=tracked, is_new=False)
    return Step(tracked=_to(tracked, "unknown", now, reason))


def canceling(tracked: Tracked, now: int) -> Tracked:
    """A cancel is about to be sent. An order of unknown fate stays unknown: cancelling proves nothing about it."""
    return _to(tracked, "canceling", now, "") if tracked.state in ("open", "partial") else tracked


def absent(tracked: Tracked, now: int, proof: str) -> Step:
    """It is proven that it never arrived (`orders.absence`)."""
    if tracked.state != "unknown" or tracked.booked or tracked.record.filled or tracked.ending:
        return Step(tracked=tracked, is_new=False, flag="" if tracked.ended else MISMATCH)
    return Step(tracked=_to(tracked, "absent", now, proof))


def reported(tracked: Tracked, report: OrderReport, now: int, *, is_reply: bool = False) -> Step:
    """The venue describes the order.

    Args:
        is_reply: asked for after the cancel was answered: only then does "still open" mean that the cancel had no effect.
    """
    record = tracked.record
    if _contradicts(tracked, report):
        return Step(tracked=tracked, is_new=False, flag=MISMATCH)
    is_more = report.filled > record.filled
    known = _with(tracked, venue_id=record.venue_id or report.venue_id, filled=max(record.filled, report.filled))
    if tracked.ended:
        is_alive = tracked.state in UNTRADED and report.state != "rejected"  # the venue has what was held for never arrived
    else:
        is_alive = False
        if report.state in FINAL:
            known = msgspec.structs.replace(known, ending=tracked.ending or report.state)
        elif known.state != "canceling" or is_reply:
            known = _to(known, "partial" if known.record.filled else "open", now, "")
        known = _settled(known, now)
    is_new = known != tracked
    flags = [LATE] * (tracked.ended and (is_more or is_alive)) + [OVER] * (is_more and report.filled > record.quantity)
    return Step(
        tracked=_with(known, changed_at=now) if is_new else tracked,
        flag=" ".join(flags),
        is_new=is_new,
        halts=is_alive or (tracked.state in UNTRADED and is_more),
    )


def traded(tracked: Tracked, trade: Trade, now: int) -> Step:
    """A trade of it came in; the same one again changes nothing."""
    if trade.trade_id in tracked.trades:
        return Step(tracked=tracked, is_new=False)
    record, order = tracked.record, tracked.order
    if (trade.instrument, trade.side) != (order.instrument, order.side):
        return Step(tracked=tracked, is_new=False, flag=MISMATCH)
    booked = tracked.booked + trade.quantity
    known = msgspec.structs.replace(tracked, booked=booked, trades=tracked.trades | {trade.trade_id})
    known = _with(known, filled=max(record.filled, booked), venue_id=record.venue_id or trade.venue_id, changed_at=now)
    is_late = tracked.ended and booked > record.filled
    flags = [LATE] * is_late + [OVER] * (booked > record.quantity)
    if tracked.ended:
        return Step(tracked=known, flag=" ".join(flags), halts=tracked.state in UNTRADED)
    if known.state != "canceling":
        known = _to(known, "partial", now, "")
    return Step(tracked=_settled(known, now), flag=" ".join(flags))


def then(first: Step, second: Step) -> Step:
    """Two steps as one."""
    flags = dict.fromkeys([*first.flag.split(), *second.flag.split()])
    return Step(tracked=second.tracked, flag=" ".join(flags), is_new=first.is_new or second.is_new, halts=first.halts or second.halts)


def _contradicts(tracked: Tracked, report: OrderReport) -> bool:
    """Whether a report cannot be of this order."""
    record = tracked.record
    if (report.instrument, report.side, report.quantity) != (record.instrument, tracked.order.side, record.quantity):
        return True
    if record.venue_id and report.venue_id != record.venue_id:
        return True
    return report.state == "filled" and report.filled < record.quantity


def _settled(tracked: Tracked, now: int) -> Tracked:
    """End it if its end is known and all of its trades are booked."""
    if tracked.booked >= tracked.record.quantity:
        return _to(tracked, "filled", now, "")  # proven by its trades, whatever else was or will be said
    if tracked.ending is None or tracked.missing:
        return tracked
    return _to(tracked, tracked.ending, now, "")


def _to(tracked: Tracked, state: State, now: int, detail: str) -> Tracked:
    """Change the state.

    Raises:
        AccountingError: if the table of transitions does not know such a change: a fault of the program.
    """
    if state == tracked.state:
        return tracked
    if not may_follow(tracked.state, state):
        raise AccountingError(f"order {tracked.order.client_id} cannot go from {tracked.state} to {state}", hint="keep the journal")
    return _with(tracked, state=state, ended=state in FINAL, since=now, changed_at=now, detail=detail)


def _with(tracked: Tracked, **changes: object) -> Tracked:
    return msgspec.structs.replace(tracked, record=msgspec.structs.replace(tracked.record, **changes))
