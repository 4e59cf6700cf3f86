"""From a look at the venue's books to what must be written: pure functions of a snapshot and a book.

Two kinds of corrections. What others did is definite and taken at once (`at_once`): their trades, and funding. A difference that nothing
explains may be the venue's lag; it is settled only when it stands (`settle`): an order executed further than its trades show gets a
synthetic fill, what is missing or too much in a balance becomes a transfer of others, and an `Adjustment` where it eats the book.

Every correction carries an id that follows from its cause, and changes the book so that comparing again finds nothing: running twice,
or being killed between reading and writing, is the same as running once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

import msgspec

from cryptoalpha.core.values import Adjustment, FundingPayment
from cryptoalpha.execution.money import CENT, ZERO, settle
from cryptoalpha.execution.reconcile.book import AccountBook
from cryptoalpha.execution.reconcile.external import Legs, split_external, split_trade, undone
from cryptoalpha.execution.reconcile.invariants import check_cash
from cryptoalpha.execution.reconcile.values import Break, Corrections, ForeignChange, OrderState, Owed, Snapshot
from cryptoalpha.execution.venue import FundingRecord, OrderReport, Trade


class _Draft:
    """Corrections in the making, tried on a copy of the book."""

    def __init__(self, seen: Snapshot, book: AccountBook, *, lost: Mapping[str, Decimal], compared: int) -> None:
        self.seen, self.book = seen, book.copy()
        self.synthetic: list[Trade] = []
        self.owed: dict[str, Owed] = {}
        self.outcomes: list[Adjustment | tuple[str, FundingPayment]] = []
        self.foreign: dict[str, ForeignChange] = {}
        self.lost = dict(lost)
        self.compared = compared
        self.alerts: list[str] = []

    def done(self) -> Corrections:
        return Corrections(
            synthetic=tuple(self.synthetic),
            owed=self.owed,
            outcomes=tuple(self.outcomes),
            foreign=self.foreign,
            lost=self.lost,
            compared=self.compared,
            alerts=tuple(self.alerts),
        )

    def adjust(self, instrument: str, legs: Legs, price: Decimal, *, at: int, source: str, message: str, is_told: bool = True) -> None:
        """Something happened to the book that was no trade of the strategy."""
        change = Adjustment(
            happened_at=at,
            known_at=max(at, self.seen.at),
            instrument=instrument,
            quantity=legs.quantity,
            cash=legs.cash,
            price=price,
            source=source,
            message=message,
        )
        self.outcomes.append(change)
        self.book.apply(change)
        self.alerts += [message] if is_told else []

    def note(self, name: str, change: ForeignChange) -> None:
        self.foreign[name] = change
        self.book.note(name, change)


def trade_key(trade: Trade) -> str:
    """Id under which a foreign trade is kept."""
    return f"trade {trade.instrument} {trade.trade_id}"


def funding_key(record: FundingRecord) -> str:
    """Id and cause of a settlement of funding."""
    return f"funding {record.instrument} {record.record_id}"


def at_once(seen: Snapshot, book: AccountBook, *, lost: Mapping[str, Decimal], compared: int) -> Corrections:
    """What others traded, and funding."""
    draft = _Draft(seen, book, lost=lost, compared=compared)
    for trade in seen.trades:
        if trade_key(trade) not in draft.book.noted:
            _take_trade(draft, trade)
    for record in seen.funding:
        if funding_key(record) not in draft.book.noted:
            _take_funding(draft, record)
    if not book.is_futures:
        for name in book.rules:
            _cover_foreign(draft, name)
    return draft.done()


def _take_trade(draft: _Draft, trade: Trade) -> None:
    """A trade of another hand: theirs as far as their holding goes."""
    book, rules = draft.book, draft.book.rules[trade.instrument]
    base, quote = book.base(trade.instrument), book.quote
    signed = trade.quantity if trade.side == "buy" else -trade.quantity
    change = Legs(signed, -signed * trade.price)
    paid: dict[str, Decimal] = {}
    if trade.fee_asset == quote:
        change = Legs(signed, change.cash - trade.fee)
    elif trade.fee_asset == rules.base and not book.is_futures:
        change = Legs(signed - trade.fee, change.cash)
    elif trade.fee != 0:
        paid[trade.fee_asset] = -trade.fee
    if book.is_futures:
        quantity, _ = split_external(book.held[trade.instrument], book.foreign.get(base, ZERO), signed)
        mine = Legs(quantity, settle(change.cash * quantity / signed))
    else:
        foreign = Legs(book.foreign.get(base, ZERO), book.foreign.get(quote, ZERO))
        mine, _ = split_trade(Legs(book.held[trade.instrument], book.cash), foreign, change)
    what = f"another hand on the account did {trade.side} {trade.quantity} {trade.instrument} at {trade.price} (trade {trade.trade_id})"
    if mine != Legs():
        message = f"{what}: {mine.quantity} {base} and {mine.cash} {quote} of it are the run's"
        draft.adjust(trade.instrument, mine, trade.price, at=trade.at, source=trade_key(trade), message=message)
    changes = {base: change.quantity - mine.quantity, quote: change.cash - mine.cash}
    for asset, amount in paid.items():
        changes[asset] = changes.get(asset, ZERO) + amount
    note = ForeignChange(kind="trade", instrument=trade.instrument, changes=_nonzero(changes), at=trade.at, message=what)
    draft.note(trade_key(trade), note)


def _take_funding(draft: _Draft, record: FundingRecord) -> None:
    """Funding is settled on the account's position at that moment: the book has its share of it, however late it is read."""
    book, name = draft.book, record.instrument
    if name in book.rules and record.asset == book.quote:
        held, others = book.held_before(name, record.at)
        mine = record.amount if others == 0 else settle(record.amount * held / (held + others)) if held + others != 0 else ZERO
        payment = FundingPayment(
            happened_at=record.at,
            known_at=max(record.at, draft.seen.at),
            instrument=name,
            position=held,
            rate=float("nan"),  # the venue says what was paid, not at which rate
            amount=mine,
        )
        draft.outcomes.append((funding_key(record), payment))
        book.apply(payment)
    else:
        mine = ZERO
    changes = _nonzero({record.asset: record.amount - mine})
    draft.note(funding_key(record), ForeignChange(kind="funding", instrument=name, changes=changes))


def _cover_foreign(draft: _Draft, name: str) -> None:
    """Where others gave away more of an asset than they had (its fees were paid in it, or their trade was known before our own), the
    book's part pays, at the present price."""
    book = draft.book
    base, price = book.base(name), draft.seen.prices.get(name)
    short = -book.foreign.get(base, ZERO)
    moved = min(short, book.held[name])
    if price is None or moved <= 0:
        return
    cash = settle(moved * price)
    draft.compared += 1
    source = _id("cover", base, str(draft.compared))
    message = f"{moved} {base} of the run went where the account had none beside it; {cash} {book.quote} stand for it"
    draft.adjust(name, Legs(-moved, cash), price, at=draft.seen.at, source=source, message=message)
    draft.note(source, ForeignChange(kind="transfer", instrument=name, changes={base: moved, book.quote: -cash}, message=message))


def settle_standing(
    seen: Snapshot,
    book: AccountBook,
    standing: Iterable[Break],
    orders: Sequence[OrderState],
    unclear: frozenset[str],
    *,
    lost: Mapping[str, Decimal],
    compared: int,
    owed: Mapping[str, Owed],
    taker_fee: Decimal,
) -> Corrections:
    """What to write for breaks that stand.

    Args:
        orders: our unfinished ones.
        unclear: instruments with an order or trade of unknown fate: their differences may explain themselves, and wait.
        lost, compared: as the last corrections left them.
        owed: synthetic fills whose trades have not turned up, by client id.
        taker_fee: fraction of notional; what a fill costs whose trades nobody has seen.
    """
    draft = _Draft(seen, book, lost=lost, compared=compared)
    by_id = {order.client_id: order for order in orders}
    breaks = list(standing)
    for broken in breaks:
        order, answer = by_id.get(broken.subject), seen.answers.get(broken.subject)
        if broken.invariant == "I4" and order is not None and isinstance(answer, OrderReport) and answer.filled > order.booked:
            _synthesize(draft, order, answer, taker_fee)
    if draft.synthetic:
        return draft.done()  # they change the balances' differences: those are judged anew
    for broken in breaks:
        if broken.invariant == "I1":
            _settle(draft, broken, unclear, owed)
    if any(broken.invariant == "I3" for broken in breaks):
        for broken in check_cash(seen, draft.book):  # anew: what a position was settled at is cash
            _settle(draft, broken, unclear, owed)
    return draft.done()


def synthetic_id(client_id: str, cumulative: Decimal, source: str) -> str:
    """Id of a fill that no trade shows: the same in every run, for the same order and executed quantity."""
    return _id("synthetic", client_id, format(cumulative.normalize(), "f"), source)


def _synthesize(draft: _Draft, order: OrderState, report: OrderReport, taker_fee: Decimal) -> None:
    """Book what the venue executed and does not show as trades: at the price that makes the order's average the venue's."""
    quantity = report.filled - order.booked
    price = draft.seen.prices.get(order.instrument, ZERO)
    if report.average_price is not None:
        implied = (report.average_price * report.filled - order.value) / quantity
        price = implied.quantize(CENT) if implied > 0 else report.average_price
    if price <= 0:
        return  # nobody knows a price: the break stands until somebody does
    trade = Trade(
        instrument=order.instrument,
        trade_id=synthetic_id(order.client_id, report.filled, "venue"),
        venue_id=report.venue_id,
        client_id=order.client_id,
        side=report.side,
        quantity=quantity,
        price=price,
        fee=settle(quantity * price * taker_fee),
        fee_asset=draft.book.quote,
        at=report.at,
    )
    draft.synthetic.append(trade)
    draft.owed[order.client_id] = Owed(trade_id=trade.trade_id, quantity=quantity, price=price, fee=trade.fee)
    draft.alerts.append(f"order {order.client_id}: {quantity} were executed that no trade shows; booked at {price}")


def _settle(draft: _Draft, broken: Break, unclear: frozenset[str], owed: Mapping[str, Owed]) -> None:
    """Whose difference it is: what the book paid by guess or lost before comes back to it, the rest is split like any change by others."""
    book, subject = draft.book, broken.subject
    touched = [name for name in book.rules if subject == book.quote or book.base(name) == subject]
    priced = [name for name in touched if name in draft.seen.prices]
    if not priced or unclear.intersection(touched):
        return
    owned = book.cash if subject == book.quote else book.held[touched[0]]
    guessed = _give_back(draft, owed, broken.amount) if subject == book.quote else ZERO
    amount = broken.amount - guessed
    lost = draft.lost.get(subject, ZERO)  # signed as the change that took it
    back = undone(lost, amount)
    taken, theirs = split_external(owned, book.foreign.get(subject, ZERO), amount - back)
    draft.lost[subject] = lost + back + taken
    mine = guessed + back + taken
    draft.compared += 1
    source = _id("difference", subject, str(draft.compared))
    price = draft.seen.prices[priced[0]]
    message = f"{broken.message}: {mine} of the difference are the run's, {theirs} are others'"
    if mine != 0:
        legs = Legs(ZERO, mine) if subject == book.quote else Legs(mine, -settle(mine * price) if book.is_futures else ZERO)
        draft.adjust(priced[0], legs, price, at=draft.seen.at, source=source, message=message, is_told=not broken.is_dust)
    changes = {subject: theirs}
    if book.is_futures and subject != book.quote and theirs != 0:
        changes[book.quote] = -settle(theirs * price)
    draft.note(source, ForeignChange(kind="transfer", changes=_nonzero(changes), at=draft.seen.at, message=message))


def _give_back(draft: _Draft, owed: Mapping[str, Owed], surplus: Decimal) -> Decimal:
    """How much of a surplus of cash are fees that were only guessed, for fills that no trade shows."""
    given = ZERO
    for client_id, one in owed.items():
        part = min(one.fee, surplus - given)
        if part > 0:
            draft.owed[client_id] = msgspec.structs.replace(one, fee=one.fee - part)
            given += part
    return given


def _nonzero(changes: Mapping[str, Decimal]) -> dict[str, Decimal]:
    return {name: amount for name, amount in changes.items() if amount != 0}


def _id(*parts: str) -> str:
    """A short id that follows from its parts."""
    return f"{parts[0]}-{hashlib.blake2b('/'.join(parts).encode(), digest_size=10).hexdigest()}"
