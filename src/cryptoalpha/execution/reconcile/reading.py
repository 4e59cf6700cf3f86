"""Reading the venue's books for a comparison, and telling our trades from others'.

A question without an answer that can be believed raises `UnclearError`; what was read before it is worth nothing then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from cryptoalpha.core.clock import Clock
from cryptoalpha.core.time import DAY, HOUR
from cryptoalpha.execution.config import ExecutionConfig
from cryptoalpha.execution.money import exact
from cryptoalpha.execution.reconcile.book import AccountBook, Opening, opening_of
from cryptoalpha.execution.reconcile.compare import funding_key, trade_key
from cryptoalpha.execution.reconcile.invariants import LIVE_STATES
from cryptoalpha.execution.reconcile.values import ForeignChange, Snapshot
from cryptoalpha.execution.venue import FundingRecord, Inquiry, OrderReport, Position, Trade, Venue
from cryptoalpha.store.order_ledger import ForeignItem, OrderLedger

OPENING, FUNDING = "opening", "funding"
"""Cursors: the holdings at the run's begin, and the last settlement of funding that was read."""
_ASKED_AGAIN = 20
"""Orders held for never arrived that are asked for once more, at most, before a trade of nobody's is called another's."""


class Intake(Protocol):
    """Where answers about our own orders go."""

    async def report(self, report: OrderReport, trades: Sequence[Trade] = ()) -> None: ...

    async def trades(self, trades: Sequence[Trade]) -> list[Trade]:
        """Book those of our orders; returns the others."""
        ...


class Reader:
    """See the module header.

    Args:
        instruments: of the book.
        clock: what times of trades are compared with.
    """

    def __init__(
        self, venue: Venue, ledger: OrderLedger, intake: Intake, instruments: Sequence[str], config: ExecutionConfig, clock: Clock
    ) -> None:
        self._venue, self._ledger, self._intake = venue, ledger, intake
        self._instruments, self._config, self._clock = tuple(instruments), config, clock

    async def opening(self, wrote_at: int) -> Opening:
        """What the account holds now, read between two looks at its trades that found the same. Written down before it is returned."""
        now = self._clock.now()
        since = max(0, now - DAY)
        pages = await self._pages_since(since)
        for _ in range(3):
            before = pages
            balances, positions = await self._venue.balances(), await self._positions()
            settled = await self._venue.funding(since) if self._venue.is_futures else []
            pages = await self._pages_since(since)
            if pages == before:
                break
        opening = opening_of(now, exact(self._config.initial_cash), self._config.quote, balances, positions)
        cursors = {seen_key(name): advanced(("", ""), page) for name, page in pages.items() if page}
        cursors[OPENING] = msgspec.json.encode(opening).decode()
        earlier = [item(funding_key(one), ForeignChange(kind="funding", instrument=one.instrument), one.at) for one in settled]
        self._ledger.write(at=wrote_at, cursors=cursors, foreign=earlier)
        return opening

    async def snapshot(self, book: AccountBook, *, prices: bool) -> tuple[Snapshot, dict[str, list[Trade]]]:
        """Everything the venue is asked for one look; and the pages of trades, which are not told apart yet."""
        since = max(0, book.opening.at - DAY)
        pages = {}
        for name in self._instruments:
            pages[name] = await self._venue.trades(name, after=self.known(name)[0] or None, since=since)
        listed = [report for name in self._instruments for report in await self._venue.open_orders(name)]
        answers: dict[str, Inquiry] = {report.client_id: report for report in listed if report.client_id}
        orders = self._ledger.unfinished()
        for _, order, record in orders:
            if order.client_id not in answers and record is not None and record.state in LIVE_STATES:
                answers[order.client_id] = await self._venue.query(order.instrument, order.client_id)
        seen = Snapshot(
            at=self._clock.now(),
            open_orders=tuple(listed),
            answers={order.client_id: answers[order.client_id] for _, order, _ in orders if order.client_id in answers},
            balances=await self._venue.balances(),
            positions=await self._positions(),
            funding=tuple(await self._funding(book)),
            prices={name: await self._venue.price(name) for name in self._instruments} if prices else {},
        )
        return seen, pages

    async def place(
        self, seen: Snapshot, pages: Mapping[str, Sequence[Trade]], book: AccountBook
    ) -> tuple[tuple[Trade, ...], frozenset[str]]:
        """Book what was read of our own orders. Returns others' trades, oldest first, and the instruments where that cannot be said.

        A trade of an order that nobody knows may be that of one of ours whose id the venue has not told us, or of one that was held for
        never arrived: such an order is asked for once more.
        """
        for report in seen.open_orders:
            await self._intake.report(report)
        for answer in seen.answers.values():
            if isinstance(answer, OrderReport):
                await self._intake.report(answer)
        strangers: list[Trade] = []
        for page in pages.values():
            strangers += [trade for trade in await self._intake.trades(page) if trade_key(trade) not in book.noted]
        if strangers:
            await self._ask_again({trade.instrument for trade in strangers})
            strangers = await self._intake.trades(strangers)
        unclear = frozenset(
            order.instrument
            for _, order, record in self._ledger.unfinished()
            if record is None or not record.venue_id or record.state in ("intent", "unknown")
        )
        placed = [trade for trade in strangers if trade.instrument not in unclear]
        return tuple(sorted(placed, key=lambda trade: (trade.at, len(trade.trade_id), trade.trade_id))), unclear

    def known(self, instrument: str) -> tuple[str, str]:
        """Last trade of the look before the last, and of the last: a list that lags is read twice."""
        text = self._ledger.cursor(seen_key(instrument))
        return ("", "") if text is None else msgspec.json.decode(text, type=tuple[str, str])

    async def _ask_again(self, instruments: set[str]) -> None:
        buried = [record for state in ("absent", "rejected") for record in self._ledger.records(state)]
        buried = [record for record in buried if record.instrument in instruments and record.sent_at and not record.venue_id]
        for record in buried[-_ASKED_AGAIN:]:
            answer = await self._venue.query(record.instrument, record.client_id)
            if isinstance(answer, OrderReport):
                await self._intake.report(answer)

    async def _pages_since(self, since: int) -> dict[str, list[Trade]]:
        return {name: await self._venue.trades(name, after=None, since=since) for name in self._instruments}

    async def _positions(self) -> Mapping[str, Position]:
        return await self._venue.positions() if self._venue.is_futures else {}

    async def _funding(self, book: AccountBook) -> list[FundingRecord]:
        if not self._venue.is_futures:
            return []
        since = int(self._ledger.cursor(FUNDING) or max(0, book.opening.at - DAY))
        found = await self._venue.funding(max(0, since - HOUR))
        new = [record for record in found if funding_key(record) not in book.noted]
        return sorted(new, key=lambda record: (record.at, record.record_id))


def item(name: str, change: ForeignChange, at: int) -> ForeignItem:
    """What others did, as the ledger keeps it."""
    return ForeignItem(id=name, at=at, body=msgspec.json.encode(change).decode())


def seen_key(instrument: str) -> str:
    """Cursor: how far the account's trades were told apart."""
    return f"seen:{instrument}"


def advanced(known: tuple[str, str], page: Sequence[Trade]) -> str:
    """That cursor after a page; see `Reader.known`."""
    last = page[-1].trade_id
    return msgspec.json.encode((known[1] or last, last)).decode()
