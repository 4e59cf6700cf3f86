"""Order paths broken on purpose, each as a known bug of a known bot: the checker has to catch every one of them.

A suite that finds nothing proves nothing until it is shown something to find. Each mutant stands between the courier and the venue of a
life, or takes away one guard of the path, in the forked process of that life only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import msgspec

from cryptoalpha.app.chaos.lives import Mutation
from cryptoalpha.core.values import Order
from cryptoalpha.execution.live import inquiry
from cryptoalpha.execution.venue import Accepted, Ambiguous, Answer, Rejected, Venue
from cryptoalpha.store.order_ledger import Booking, OrderLedger
from cryptoalpha.store.run_outcomes import RunOutcomes


class Between:
    """Passes everything on; a mutant overrides what it breaks."""

    def __init__(self, venue: Venue) -> None:
        self._venue = venue

    def __getattr__(self, name: str) -> Any:
        return getattr(self._venue, name)


class Resends(Between):
    """Sends an order again, under a new id, when no answer came (ccxt#2599, catalyst#315)."""

    async def submit(self, order: Order) -> Answer:
        answer = await self._venue.submit(order)
        if not isinstance(answer, Ambiguous):
            return answer
        again = await self._venue.submit(msgspec.structs.replace(order, client_id=f"{order.client_id[:-1]}r"))
        if not isinstance(again, Accepted):
            return again
        return Accepted(report=msgspec.structs.replace(again.report, client_id=order.client_id), trades=again.trades)


class TakesSilenceForNo(Between):
    """Counts an unanswered order as rejected (nautilus#4958, hummingbot#8457)."""

    async def submit(self, order: Order) -> Answer:
        answer = await self._venue.submit(order)
        return Rejected(code="timeout", message=answer.reason) if isinstance(answer, Ambiguous) else answer


def _books_twice(venue: Venue) -> Venue:
    """A trade that is told twice is booked twice (freqtrade#3647's race, nautilus#3104)."""
    book = OrderLedger._book

    def twice(ledger: OrderLedger, booking: Booking) -> Booking | None:
        fill, times = booking.fill, 0
        while ledger.has_fill(fill.instrument, fill.trade_id):
            times += 1
            fill = msgspec.structs.replace(fill, trade_id=f"{booking.fill.trade_id}+{times}")
        return book(ledger, msgspec.structs.replace(booking, fill=fill))

    type.__setattr__(OrderLedger, "_book", twice)
    return venue


def _believes_not_found(venue: Venue) -> Venue:
    """One "no such order" and the order counts as never arrived (hummingbot#3374)."""
    vars(inquiry)["is_absent"] = lambda *evidence, **more: True
    return venue


def _forgets_what_it_told(venue: Venue) -> Venue:
    """What the engine was told is not marked as told with the row that took it: it is told again after a restart (nautilus#4736)."""
    type.__setattr__(RunOutcomes, "write", lambda outcomes, row: None)
    return venue


MUTANTS: Mapping[str, Mutation] = {
    "resends": lambda venue: cast(Venue, Resends(venue)),
    "silence_is_no": lambda venue: cast(Venue, TakesSilenceForNo(venue)),
    "books_twice": _books_twice,
    "believes_not_found": _believes_not_found,
    "forgets_told": _forgets_what_it_told,
}
"""By name."""
