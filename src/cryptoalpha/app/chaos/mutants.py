"""Order paths broken on purpose, each as a known bug of a known bot: the checker has to catch every one of them.

A suite that finds nothing proves nothing until it is shown something to find. Each mutant stands between the courier and the venue of a
life, or takes away one guard of the path, in the forked process of that life only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import msgspec

from cryptoalpha.app.chaos.lives import Mutation
from cryptoalpha.app.chaos.schedule import Strike
from cryptoalpha.core.values import Order
from cryptoalpha.execution.fake_exchange.fault_script import Fault
from cryptoalpha.execution.live import inquiry
from cryptoalpha.execution.venue import Accepted, Ambiguous, Answer, Rejected, Trade, Venue
from cryptoalpha.store.run_outcomes import RunOutcomes


class Between:
    """Passes everything on; a mutant overrides what it breaks."""

    def __init__(self, venue: Venue) -> None:
        self._venue = venue

    def __getattr__(self, name: str) -> Any:
        return getattr(self._venue, name)


class Resends(Between):
    """Sends an order again, under a new id, when no answer came (ccxt#2599, catalyst#315)."""

    async def submit(self, order: Order, *, wanted: Callable[[], bool] = lambda: True) -> Answer:
        answer = await self._venue.submit(order, wanted=wanted)
        if not isinstance(answer, Ambiguous):
            return answer
        again = await self._venue.submit(msgspec.structs.replace(order, client_id=f"{order.client_id[:-1]}r"))
        if not isinstance(again, Accepted):
            return again
        return Accepted(report=msgspec.structs.replace(again.report, client_id=order.client_id), trades=again.trades)


class TakesSilenceForNo(Between):
    """Counts an unanswered order as rejected (nautilus#4958, hummingbot#8457)."""

    async def submit(self, order: Order, *, wanted: Callable[[], bool] = lambda: True) -> Answer:
        answer = await self._venue.submit(order, wanted=wanted)
        return Rejected(code="timeout", message=answer.reason) if isinstance(answer, Ambiguous) else answer


class BooksTwice(Between):
    """Tells every trade under a second id as well, as where stream and report number trades apart (nautilus#3104)."""

    async def trades(self, instrument: str, *, after: str | None, since: int) -> list[Trade]:
        found = await self._venue.trades(instrument, after=after, since=since)
        return [*found, *(msgspec.structs.replace(trade, trade_id=f"9{trade.trade_id}") for trade in found)]


def _believes_not_found(venue: Venue) -> Venue:
    """One "no such order" and the order counts as never arrived (hummingbot#3374)."""
    vars(inquiry)["still_missing"] = lambda *evidence, **more: ""
    return venue


def _forgets_what_it_told(venue: Venue) -> Venue:
    """What the engine was told is not marked as told with the row that took it: it is told again after a restart (nautilus#4736)."""
    type.__setattr__(RunOutcomes, "write", lambda outcomes, row: None)
    return venue


BAIT = (
    Strike(bar=1, fault=Fault(action="drop_after", times=2)),
    Strike(bar=1, fault=Fault(action="not_found", route="GET */order", times=6)),
)
"""Faults that every hunt adds: an order that was taken, not answered, and not found when asked for."""

MUTANTS: Mapping[str, Mutation] = {
    "resends": lambda venue: cast(Venue, Resends(venue)),
    "silence_is_no": lambda venue: cast(Venue, TakesSilenceForNo(venue)),
    "books_twice": lambda venue: cast(Venue, BooksTwice(venue)),
    "believes_not_found": _believes_not_found,
    "forgets_told": _forgets_what_it_told,
}
"""By name."""
