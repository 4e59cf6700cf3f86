"""What must be true of the account, each as a check with a name. Pure: a snapshot and a book in, breaks out.

    I1  opening + trades + adjustments = balance or position at the venue, exact; less than a lot is dust
    I2  average entry price of a perpetual within 0.01 % of the venue's
    I3  cash of the book + foreign cash = the venue's, to the last digit the venue keeps
    I4  each trade is booked once, and what the venue says was executed of an order is booked
    I5  every order at the venue with our prefix is one of ours that has not ended; every live order of ours is at the venue
    I6  reconciling again finds nothing more

What a venue shows of one trade in its orders, trades and balances changes at different moments, and we read them one after the other. So a
break is only a suspicion until it is seen again (`Suspicions`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

import msgspec

from cryptoalpha.execution.money import CENT, ZERO
from cryptoalpha.execution.orders.states import AT_VENUE
from cryptoalpha.execution.reconcile.book import AccountBook
from cryptoalpha.execution.reconcile.values import OUR_PREFIX, Break, OrderState, Snapshot
from cryptoalpha.execution.venue import NotFound, OrderReport, Position

ENTRY_TOLERANCE = Decimal("1e-4")


def check_positions(seen: Snapshot, book: AccountBook) -> list[Break]:
    """I1."""
    breaks = []
    for name, rules in book.rules.items():
        subject = book.base(name)
        shown = _position(seen, name).quantity if book.is_futures else _total(seen, subject)
        expected = book.expected(subject)
        if shown != expected:
            message = f"the venue shows {shown} {subject}, but opening, trades and adjustments come to {expected}"
            gap = shown - expected
            breaks.append(Break(invariant="I1", subject=subject, amount=gap, message=message, is_dust=abs(gap) < rules.lot))
    return breaks


def check_entry_prices(seen: Snapshot, book: AccountBook) -> list[Break]:
    """I2: only where the whole position is the run's; what others mix in has no average of ours."""
    breaks = []
    for name in book.rules if book.is_futures else ():
        ours, shown = book.entry_price(name), _position(seen, name)
        if ours is None or name in book.mixed or shown.quantity != book.held[name]:
            continue
        gap = shown.entry_price - ours
        if abs(gap) > ENTRY_TOLERANCE * ours:
            message = f"the venue's average entry price of {name} is {shown.entry_price}, ours {ours:.8f}"
            breaks.append(Break(invariant="I2", subject=name, amount=gap, message=message))
    return breaks


def check_cash(seen: Snapshot, book: AccountBook) -> list[Break]:
    """I3. Spot: exact, where a venue that rounds each trade to its last digit is off by no more than that each time. A margin account:
    as exact as the venue prints its entry prices."""
    shown, rounding = _total(seen, book.quote), CENT * book.trades
    if book.is_futures:
        for held in seen.positions.values():
            shown -= held.quantity * held.entry_price
            rounding += abs(held.quantity) * _last_digit(held.entry_price)
    expected = book.expected(book.quote)
    gap = shown - expected
    if gap == 0 or (book.is_futures and abs(gap) <= rounding):
        return []
    message = f"the venue shows {shown} {book.quote}, but cash, fees, funding and transfers come to {expected}"
    return [Break(invariant="I3", subject=book.quote, amount=gap, message=message, is_dust=abs(gap) <= rounding)]


def check_trades(seen: Snapshot, book: AccountBook, orders: Iterable[OrderState]) -> list[Break]:
    """I4."""
    breaks = [
        Break(invariant="I4", subject=f"{name} {trade}", message=f"trade {trade} of {name} is booked more than once")
        for name, trade in book.twice
    ]
    for order in orders:
        answer = seen.answers.get(order.client_id)
        if isinstance(answer, OrderReport) and answer.filled != order.booked:
            message = f"order {order.client_id}: the venue has executed {answer.filled}, its trades come to {order.booked}"
            breaks.append(Break(invariant="I4", subject=order.client_id, amount=answer.filled - order.booked, message=message))
    return breaks


def check_orders(seen: Snapshot, orders: Iterable[OrderState], ours: Mapping[str, str]) -> list[Break]:
    """I5. `ours`: state of each of our orders among the open ones, by client id, ended or not."""
    breaks = []
    live = {order.client_id: order for order in orders}
    for report in seen.open_orders:
        name = report.client_id
        if name in live:
            continue
        if name in ours:
            message = f"order {name} is open at the venue, but ended here as {ours[name]}"
        elif name.startswith(OUR_PREFIX) and len(name) == 32:
            message = f"order {name} bears our mark and is none of this run's: does another run trade on this account?"
        else:
            continue
        breaks.append(Break(invariant="I5", subject=name, message=message))
    for order in live.values():
        if order.state in AT_VENUE and isinstance(seen.answers.get(order.client_id), NotFound):
            message = f"order {order.client_id} was {order.state}, and the venue knows it no more"
            breaks.append(Break(invariant="I5", subject=order.client_id, message=message))
    return breaks


def check_all(seen: Snapshot, book: AccountBook, orders: Sequence[OrderState], ours: Mapping[str, str]) -> list[Break]:
    """I1–I5, in that order."""
    return [
        *check_positions(seen, book),
        *check_entry_prices(seen, book),
        *check_cash(seen, book),
        *check_trades(seen, book, orders),
        *check_orders(seen, orders, ours),
    ]


class Suspicions:
    """Which breaks have been seen before: one stands when the same amount was missing in looks at least `settle_ns` apart."""

    def __init__(self, settle_ns: int) -> None:
        self._settle = settle_ns
        self._since: dict[tuple[str, str], tuple[Decimal, int]] = {}

    @property
    def any(self) -> bool:
        """Whether the last look found a break."""
        return bool(self._since)

    def judge(self, at: int, breaks: Iterable[Break]) -> list[Break]:
        """The breaks of a look at `at`, those that stand marked. What is not among them is forgotten."""
        judged: list[Break] = []
        since: dict[tuple[str, str], tuple[Decimal, int]] = {}
        for broken in breaks:
            key: tuple[str, str] = (broken.invariant, broken.subject)
            amount, first = self._since.get(key, (broken.amount, at))
            if amount != broken.amount:
                first = at
            since[key] = (broken.amount, first)
            judged.append(msgspec.structs.replace(broken, stands=key in self._since and at - first >= self._settle and first < at))
        self._since = since
        return judged


def _total(seen: Snapshot, asset: str) -> Decimal:
    return seen.balances[asset].total if asset in seen.balances else ZERO


def _position(seen: Snapshot, instrument: str) -> Position:
    return seen.positions.get(instrument) or Position(instrument=instrument, quantity=ZERO, entry_price=ZERO)


def _last_digit(price: Decimal) -> Decimal:
    """One unit of the last digit a price is printed with."""
    return Decimal(1).scaleb(int(price.as_tuple().exponent))
