"""Reading the venue's books for a comparison, and telling our trades from others'.

A question without an answer that can be believed raises `UnclearError`; what was read before it is worth nothing then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from cryptoalpha.core.clock import Clock
from cryptoalpha.core.time import DAY, HOUR, MINUTE
from cryptoalpha.execution.config import ExecutionConfig
from cryptoalpha.execution.money import exact
from cryptoalpha.execution.orders.states import AT_VENUE
from cryptoalpha.execution.reconcile.book import AccountBook, Opening, opening_of
from cryptoalpha.execution.reconcile.compare import funding_key, trade_key
from cryptoalpha.execution.reconcile.values import ForeignChange, Snapshot
from cryptoalpha.execution.venue import FundingRecord, Inquiry, OrderReport, Position, Trade, Venue
from cryptoalpha.store.order_ledger import ForeignItem, OrderLedger

OPENING, FUNDING = "opening", "funding"
"""Cursors: the holdings at the run's begin, and the last settlement of funding that was read."""
OVERLAP = 10 * MINUTE
"""How far back the lists of trades are read again and again: a venue may show a trade later than ones with higher ids."""
_MARK_EVERY = MINUTE
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
        begins = {name: [(wrote_at, page[-1].trade_id if page else "")] for name, page in pages.items()}
        cursors = {seen_key(name): msgspec.json.encode(begin).decode() for name, begin in begins.items()}
        cursors[OPENING] = msgspec.json.encode(opening).decode()
        earlier = [item(funding_key(one), ForeignChange(kind="funding", instrument=one.instrument), one.at) for one in settled]
        self._ledger.write(at=wrote_at, cursors=cursors, foreign=earlier)
        return opening

    async def snapshot(self, book: AccountBook, wrote_at: int, *, prices: bool) -> tuple[Snapshot, dict[str, list[Trade]]]:
        """Everything the venue is asked for one look; and the pages of trades, which are not told apart yet."""
        since = max(0, book.opening.at - DAY)
        pages = {}
        for name in self._instruments:
            pages[name] = await self._venue.trades(name, after=self.read_from(name, wrote_at), since=since)
        listed = [report for name in self._instruments for report in await self._venue.open_orders(name)]
        answers: dict[str, Inquiry] = {report.client_id: report for report in listed if report.client_id}
        orders = self._ledger.unfinished()
        for _, order, record in orders:
            if order.client_id not in answers and record is not None and record.state in AT_VENUE:
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

    def read_from(self, instrument: str, wrote_at: int) -> str | None:
        """Trade after which the account's list is read again: the last that was known `OVERLAP` ago, or at the run's begin."""
        return _base(self._marks(instrument), wrote_at)[1] or None

    def advanced(self, pages: Mapping[str, Sequence[Trade]], wrote_at: int) -> dict[str, str]:
        """Cursors after these pages."""
        cursors = {}
        for name, page in pages.items():
            marks = self._marks(name)
            if page and (not marks or (page[-1].trade_id != marks[-1][1] and wrote_at - marks[-1][0] >= _MARK_EVERY)):
                base = _base(marks, wrote_at)
                kept = [mark for mark in marks if mark[0] >= base[0]]
                cursors[seen_key(name)] = msgspec.json.encode([*kept, (wrote_at, page[-1].trade_id)]).decode()
        return cursors

    def _marks(self, instrument: str) -> list[tuple[int, str]]:
        text = self._ledger.cursor(seen_key(instrument))
        return [] if text is None else msgspec.json.decode(text, type=list[tuple[int, str]])

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


def _base(marks: Sequence[tuple[int, str]], now: int) -> tuple[int, str]:
    """The last mark that is old enough, else the first."""
    old = [mark for mark in marks if mark[0] <= now - OVERLAP]
    return old[-1] if old else marks[0] if marks else (0, "")
