"""Compares what a run wrote down with the venue's own books. It knows nothing of the order path and shares no code with it.

Each check has a name; what it finds is a sentence with the numbers in it. Money and quantities are compared as decimals, to the last digit.

    crash          a life ended by itself, or hung
    unsettled      when the schedule had ended undisturbed, an order of ours was without an ending, or still worked at the venue
    trades_once    the venue, the ledger and the journal name the same trades, each once, with the same numbers
    position       book = sum of our trades (+ adjustments) = venue − opening − what others did
    cash           book = start − our trades − fees + funding (+ adjustments), and the venue's quote balance moved by the same
    duplicate      one order at the venue for one intent
    orphan         no order with our name at the venue without an intent before it
    ending         an order the run calls rejected, absent or stale is not at the venue; one it calls filled is filled
    flip           a spot position was never below zero, and a reduction never opened one
    adjustment     nothing of ours was given away while others still had what they took, and what went was paid for
    fee          a fee that was not paid in quote currency is booked at what it was worth then
    replay         taking every row again gives the same bytes, and asking the venue twice changes nothing
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from cryptoalpha.app.chaos.truth import RunRecord, VenueTrade, VenueTruth
from cryptoalpha.core.values import Adjustment, Fill, InstrumentRules, Order

ZERO = Decimal(0)
NEVER_SENT = frozenset({"stale_order", "unknown_order", "raced", "insufficient_budget"})
"""Rules of refusals by which an order ends before it is sent."""
DIGIT = Decimal("1e-8")
"""To what amounts are rounded."""
MILLISECOND = 1_000_000
STATE_OF = {"FILLED": "filled", "CANCELED": "canceled", "EXPIRED": "expired", "EXPIRED_IN_MATCH": "expired", "REJECTED": "rejected"}


@dataclass(frozen=True)
class Violation:
    """A promise that did not hold."""

    check: str
    message: str

    def __str__(self) -> str:
        return f"{self.check}: {self.message}"


@dataclass(frozen=True)
class Case:
    """What the checker is told besides the two witnesses.

    Args:
        rules: of each instrument.
        initial_cash: what the book began with.
        strangers: client ids that other hands used, whatever they look like.
        worth: price of assets that fees are paid in beside those traded, in quote currency; it never changed.
        spread: lowest and highest price of each instrument in the whole schedule.
        has_late_fills: whether trades of the venue came to light after it had called their orders cancelled.
    """

    rules: Mapping[str, InstrumentRules]
    initial_cash: Decimal
    strangers: Collection[str] = ()
    worth: Mapping[str, Decimal] = field(default_factory=dict)
    spread: Mapping[str, tuple[Decimal, Decimal]] = field(default_factory=dict)
    has_late_fills: bool = False
    prefix: str = "ca"


def check(case: Case, run: RunRecord, venue: VenueTruth) -> list[Violation]:
    """Every promise that does not hold at the end of an undisturbed schedule."""
    intents = {order.client_id: order for order in run.orders}
    ours = [trade for trade in venue.trades if trade.client_id in intents]
    found = [
        *_duplicates(venue, intents),
        *_orphans(case, venue, intents),
        *_trades(case, run, ours),
        *_positions(case, run, venue, ours),
        *_cash(case, run, venue, ours),
        *_endings(case, run, venue, intents),
        *_flips(case, run, venue, intents),
        *_adjustments(case, run, venue, intents),
        *_fees(case, run),
        *_paid_for(case, run, venue, intents),
    ]
    return [Violation(name, message) for name, message in found]


def check_replay(before: RunRecord, after: RunRecord) -> list[Violation]:
    """A further life in which nothing happened: the same rows, and no correction made twice."""
    found = []
    if before.digest != after.digest:
        found.append(Violation("replay", f"{before.rows} rows hash to {before.digest[:12]}, after a further life to {after.digest[:12]}"))
    for table in ("venue_fill", "venue_event", "foreign_item"):
        old, new = len(before.tables.get(table, ())), len(after.tables.get(table, ()))
        if old != new:
            found.append(Violation("replay", f"table {table} had {old} rows and has {new} after asking the venue again"))
    return found


Found = Iterator[tuple[str, str]]


def _duplicates(venue: VenueTruth, intents: Mapping[str, Order]) -> Found:
    counts = Counter(order.client_id for order in venue.orders if order.client_id in intents)
    for client_id, times in counts.items():
        if times > 1:
            yield "duplicate", f"the venue has {times} orders for the one intent {client_id}"


def _orphans(case: Case, venue: VenueTruth, intents: Mapping[str, Order]) -> Found:
    for order in venue.orders:
        if order.client_id.startswith(case.prefix) and order.client_id not in intents and order.client_id not in case.strangers:
            yield (
                "orphan",
                f"the venue has {order.client_id} ({order.side} {order.quantity} {order.instrument}), the journal no such intent",
            )


def _trades(case: Case, run: RunRecord, ours: list[VenueTrade]) -> Found:
    """Journal, ledger and venue name the same trades."""
    truth = {(trade.instrument, trade.trade_id): trade for trade in ours}
    if len(truth) != len(ours):
        yield "trades_once", "the venue's own books hold a trade id twice"
    fills: dict[tuple[str, str], Fill] = {}
    for fill in run.fills:
        key = (fill.instrument, fill.trade_id)
        if key in fills:
            yield "trades_once", f"the journal books trade {key} twice"
        fills[key] = fill
    for key in truth.keys() - fills.keys():
        trade = truth[key]
        yield "trades_once", f"the venue made trade {key} ({trade.side} {trade.quantity} at {trade.price}), the journal has no such fill"
    for key in fills.keys() - truth.keys():
        yield "trades_once", f"the journal has fill {key} of {fills[key].quantity}, the venue made no such trade for an order of ours"
    for key in truth.keys() & fills.keys():
        trade, fill = truth[key], fills[key]
        told = (fill.client_id, fill.side, fill.quantity, fill.price, fill.fee, fill.fee_asset)
        true = (trade.client_id, trade.side, trade.quantity, trade.price, trade.fee, trade.fee_asset)
        if told != true:
            yield "trades_once", f"trade {key} is {true} at the venue and {told} in the journal"
    kept = Counter((row["instrument"], str(row["trade_id"])) for row in run.tables.get("venue_fill", ()))
    if kept.keys() != truth.keys():
        yield "trades_once", f"the ledger holds {len(kept)} trades, the venue {len(truth)}: {sorted(kept.keys() ^ truth.keys())[:3]} differ"


def _moved(case: Case, trades: list[VenueTrade]) -> dict[str, Decimal]:
    """What trades did to each instrument's position, fees in the base asset included (spot)."""
    moved = dict.fromkeys(case.rules, ZERO)
    for trade in trades:
        rules = case.rules[trade.instrument]
        moved[trade.instrument] += trade.signed
        if trade.fee_asset == rules.base and not rules.perpetual:
            moved[trade.instrument] -= trade.fee
    return moved


def _positions(case: Case, run: RunRecord, venue: VenueTruth, ours: list[VenueTrade]) -> Found:
    ours_moved = _moved(case, ours)
    theirs_moved = _moved(case, [trade for trade in venue.trades if trade not in ours and trade.instrument in case.rules])
    book = dict(run.book.positions) if run.book else {}
    for name, rules in case.rules.items():
        adjusted = sum((one.quantity for one in run.adjustments if one.instrument == name), ZERO)
        if book.get(name, ZERO) != ours_moved[name] + adjusted:
            yield (
                "position",
                f"{name}: the book holds {book.get(name, ZERO)}, our trades and adjustments give {ours_moved[name] + adjusted}",
            )
        if rules.perpetual:
            there, opening, flows = venue.positions.get(name, ZERO), ZERO, ZERO
        else:
            there, opening = venue.totals.get(rules.base, ZERO), venue.opening.get(rules.base, ZERO)
            flows = sum((amount for asset, amount in venue.flows if asset == rules.base), ZERO)
        rest = there - opening - flows - theirs_moved[name]
        if rest != ours_moved[name]:
            yield "position", f"{name}: the venue's books moved by {rest} for us, our trades there give {ours_moved[name]}"


def _cash(case: Case, run: RunRecord, venue: VenueTruth, ours: list[VenueTrade]) -> Found:
    """The book's cash from its own fills, and against what the venue's quote balance did (spot) for the same trades."""
    cash = case.initial_cash
    for fill in run.fills:
        cash -= fill.quantity * fill.price * (1 if fill.side == "buy" else -1)
        rules = case.rules[fill.instrument]
        if fill.fee_asset == rules.quote:
            cash -= fill.fee
        elif fill.fee_asset != rules.base or rules.perpetual:
            cash -= fill.fee_value if fill.fee_value is not None else ZERO
        if fill.fee_asset != rules.quote and fill.fee_value is None:
            yield "cash", f"fill {fill.trade_id} paid {fill.fee} {fill.fee_asset}, and nobody says what that was worth"
    cash += sum((one.amount for one in run.funding), ZERO) + sum((one.cash for one in run.adjustments), ZERO)
    if run.book is not None and run.book.cash != cash:
        yield "cash", f"the book has {run.book.cash}, its fills, fees and funding give {cash}"
    quote = next(iter(case.rules.values())).quote
    if any(rules.perpetual for rules in case.rules.values()):
        yield from _funding(case, run, venue)
        return
    moved = venue.totals.get(quote, ZERO) - venue.opening.get(quote, ZERO)
    moved -= sum((amount for asset, amount in venue.flows if asset == quote), ZERO)
    for trade in venue.trades:
        if trade not in ours:
            moved += trade.signed * trade.price + (trade.fee if trade.fee_asset == quote else ZERO)
    for fill in run.fills:
        if fill.fee_asset not in (quote, case.rules[fill.instrument].base):
            moved -= fill.fee_value or ZERO
    moved += sum((one.cash for one in run.adjustments), ZERO)
    if run.book is not None and run.book.cash - case.initial_cash != moved:
        yield "cash", f"the book's cash moved by {run.book.cash - case.initial_cash}, the venue's {quote} for our trades by {moved}"


def _funding(case: Case, run: RunRecord, venue: VenueTruth) -> Found:
    """Perpetuals: every settlement of the venue is told once, and the book's part of it is that of its position just before."""
    intents = {order.client_id for order in run.orders}
    told = {(one.instrument, one.happened_at // MILLISECOND): one for one in run.funding}
    true = {(name, at): amount for name, at, amount in venue.funding}
    if len(told) != len(run.funding) or told.keys() != true.keys():
        yield "cash", f"funding: the venue settled {sorted(true)}, the book was told {sorted(told)}, {len(run.funding)} in number"
        return
    for (name, at), payment in told.items():
        before = [trade for trade in venue.trades if trade.instrument == name and trade.at_ms < at]
        account = sum((trade.signed for trade in before), ZERO)
        held = sum((trade.signed for trade in before if trade.client_id in intents), ZERO)
        held += sum((one.quantity for one in run.adjustments if one.instrument == name and one.happened_at < at * MILLISECOND), ZERO)
        amount = true[name, at]
        part = amount if held == account else (amount * held / account).quantize(DIGIT) if account else ZERO
        if (payment.position, payment.amount) != (held, part):
            told_of = f"{payment.amount} on {payment.position}"
            yield "cash", f"funding of {name} at {at}: {part} of {amount} is the book's, on {held} of {account}; it has {told_of}"


def _endings(case: Case, run: RunRecord, venue: VenueTruth, intents: Mapping[str, Order]) -> Found:
    there = {order.client_id: order for order in venue.orders if order.client_id in intents}
    ended = {refusal.client_id: refusal.rule for refusal in run.refusals if refusal.client_id}
    for client_id, times in Counter(refusal.client_id for refusal in run.refusals if refusal.client_id in intents).items():
        if times > 1:
            yield "ending", f"the journal ends {client_id} {times} times"
    filled = Counter[str]()
    for fill in run.fills:
        filled[fill.client_id] += fill.quantity  # type: ignore[assignment]
    records = {row["client_id"]: row["state"] for row in run.tables.get("order_record", ())}
    for client_id, order in intents.items():
        at_venue, state, rule = there.get(client_id), records.get(client_id), ended.get(client_id)
        # cancelled there, and a late fill made it whole: its trades prove that it is filled
        is_whole = at_venue is not None and state == "filled" and at_venue.filled >= at_venue.quantity
        if at_venue is not None and at_venue.is_working:
            yield "unsettled", f"{client_id} still works at the venue ({at_venue.filled} of {at_venue.quantity} filled)"
        if rule is None and filled[client_id] < order.quantity:
            yield (
                "unsettled",
                f"{client_id} has {filled[client_id]} of {order.quantity} filled and no ending in the journal; ledger: {state}",
            )
        if at_venue is not None and rule in NEVER_SENT:
            yield "ending", f"{client_id} ended as {rule} for us, and the venue has it: {at_venue.status}"
        elif at_venue is not None and not at_venue.is_working and STATE_OF.get(at_venue.status) != state and not is_whole:
            yield "ending", f"{client_id} is {state} in the ledger and {at_venue.status} at the venue"
        if at_venue is None and (filled[client_id] or state in ("filled", "open", "partial", "canceled", "expired")):
            yield "ending", f"{client_id} is {state} for us with {filled[client_id]} filled, and the venue never had it"
        if filled[client_id] > order.quantity and (at_venue is None or at_venue.filled <= order.quantity):
            yield "ending", f"{client_id}: {filled[client_id]} filled of {order.quantity}"


def _flips(case: Case, run: RunRecord, venue: VenueTruth, intents: Mapping[str, Order]) -> Found:
    excused = {order.client_id for order in venue.orders if order.filled > order.quantity}  # the venue did more than it was told
    if case.has_late_fills:  # it said that they were cancelled, another took their place, and then they traded after all
        late = {order.instrument for order in venue.orders if order.client_id in intents and order.status == "CANCELED" and order.filled}
        excused |= {order.client_id for order in venue.orders if order.instrument in late}
    held = dict.fromkeys(case.rules, ZERO)
    for value in run.values:
        if isinstance(value, Fill):
            before, rules = held[value.instrument], case.rules[value.instrument]
            held[value.instrument] += value.quantity if value.side == "buy" else -value.quantity
            if value.fee_asset == rules.base and not rules.perpetual:
                held[value.instrument] -= value.fee
            after = held[value.instrument]
            reduces = value.client_id in intents and intents[value.client_id].reduce_only
            below = after < 0 and value.side == "sell" and not rules.perpetual
            if value.client_id not in excused and (below or (reduces and before * after < 0)):
                yield "flip", f"{value.instrument} went from {before} to {after} by trade {value.trade_id} of {value.client_id}"
        elif isinstance(value, Adjustment):
            held[value.instrument] += value.quantity


def _adjustments(case: Case, run: RunRecord, venue: VenueTruth, intents: Mapping[str, Order]) -> Found:
    """What others hold never ends below zero while the book gave nothing, and the book gives nothing while they have enough."""
    for name, rules in case.rules.items():
        if rules.perpetual:
            continue
        opening = venue.opening.get(rules.base, ZERO)
        changes = [t.signed - (t.fee if t.fee_asset == rules.base else ZERO) for t in venue.trades
                   if t.client_id not in intents and t.instrument == name]  # fmt: skip
        changes += [amount for asset, amount in venue.flows if asset == rules.base]
        given = sum((one.quantity for one in run.adjustments if one.instrument == name), ZERO)
        left = opening + sum(changes, ZERO) - given
        if left < 0:
            yield "adjustment", f"{name}: others took {-left} more than they had, and the book does not show it"
        if given < 0 and opening + sum((change for change in changes if change < 0), ZERO) >= 0:
            yield "adjustment", f"{name}: the book gave {given} although others had enough of their own"


def _fees(case: Case, run: RunRecord) -> Found:
    """The book says itself what a fee was worth, so it is counted again here."""
    for fill in run.fills:
        rules = case.rules[fill.instrument]
        worth = fill.price if fill.fee_asset == rules.base else case.worth.get(fill.fee_asset)
        if fill.fee_asset == rules.quote or worth is None:
            continue
        if fill.fee_value is None or abs(fill.fee_value - fill.fee * worth) > DIGIT:
            yield "fee", f"fill {fill.trade_id} paid {fill.fee} {fill.fee_asset} at {worth}, booked as {fill.fee_value}"


def _paid_for(case: Case, run: RunRecord, venue: VenueTruth, intents: Mapping[str, Order]) -> Found:
    """Each correction of the book moves quantity and cash together, at the price of what caused it."""
    theirs = {f"trade {one.instrument} {one.trade_id}": one for one in venue.trades if one.client_id not in intents}
    unexplained = ZERO
    for one in run.adjustments:
        rules, trade = case.rules[one.instrument], theirs.get(one.source)
        if one.source.startswith("difference"):
            unexplained += one.cash
        elif trade is not None:
            quantity = trade.signed - (trade.fee if trade.fee_asset == rules.base and not rules.perpetual else ZERO)
            cash = -trade.signed * trade.price - (trade.fee if trade.fee_asset == rules.quote else ZERO)
            part = one.quantity / quantity
            if not 0 <= part <= 1 or abs(one.cash - cash * part) > DIGIT * (1 + trade.price):
                yield "adjustment", f"{one.source} moved {quantity} for {cash}, the book {one.quantity} for {one.cash}"
        elif one.source.startswith("cover"):
            low, high = case.spread.get(one.instrument, (one.price, one.price))
            if not (low <= one.price <= high and abs(one.cash + one.quantity * one.price) <= DIGIT and one.quantity < 0):
                yield "adjustment", f"{one.source}: {one.quantity} went for {one.cash} at {one.price}, the market was {low} to {high}"
        else:
            yield "adjustment", f"{one.source} is nothing that anybody did: {one.message}"
    quotes = {rules.quote for rules in case.rules.values()}
    if unexplained and not any(asset in quotes for asset, _ in venue.flows):
        yield "adjustment", f"the book took {unexplained} of cash for differences, and nobody had moved any"
