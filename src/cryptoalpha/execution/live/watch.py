"""What goes on beside orders: the account's stream is listened to, and the venue's books are compared with ours again and again.

The stream only makes things known earlier. It may lose, repeat and disorder what it brings; everything it brings can also be asked for, and
is: when it comes up (again), and on a timer.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from cryptoalpha.execution.live.inquiry import Inquiries
from cryptoalpha.execution.live.intake import Intake
from cryptoalpha.execution.venue import Link, OrderReport, Trade, UnclearError, Venue


class Watch:
    """See the module header.

    Args:
        compare: compares the venue's books with ours, and acts on what it finds.
        every_seconds: between two comparisons.
    """

    def __init__(
        self, venue: Venue, intake: Intake, inquiries: Inquiries, compare: Callable[[], Awaitable[None]], *, every_seconds: float
    ) -> None:
        self._venue, self._intake, self._inquiries = venue, intake, inquiries
        self._compare, self._every = compare, every_seconds
        self._due = asyncio.Event()
        self.is_listening = False
        """Whether the stream is up."""
        self.is_in_doubt = False
        """Whether the last comparison got no answer that could be believed."""

    def compare_soon(self) -> None:
        self._due.set()

    async def keep_comparing(self) -> None:
        """For ever: when asked, and on a timer."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._every):  # `wait_for` of Python 3.11 may swallow a cancel
                    await self._due.wait()
            self._due.clear()
            await self.compare()

    async def compare(self) -> None:
        """Once, now. Where the venue gives no answer nothing is concluded, and it is done again with the next occasion."""
        try:
            await self._compare()
        except UnclearError as error:
            self._inquiries.heed(error.answer)
            self.is_in_doubt = True
        else:
            self.is_in_doubt = False

    async def listen(self) -> None:
        """For ever: everything the stream brings takes the same path as everything else."""
        async for event in self._venue.events():
            if isinstance(event, Link):
                self.is_listening = event.is_up
                if event.is_up:  # what happened while it was down must be asked for
                    self._look(*(one.order.instrument for one in self._intake.working.values()))
                    self.compare_soon()
            elif isinstance(event, OrderReport | Trade):
                try:
                    await (self._hear_of_order(event) if isinstance(event, OrderReport) else self._hear_of_trade(event))
                except UnclearError as error:  # what a fee was worth cannot be said yet
                    self._inquiries.heed(error.answer)
                    self._look(event.instrument)

    async def _hear_of_order(self, report: OrderReport) -> None:
        await self._intake.report(report)
        working = self._intake.working.get(report.client_id)
        if working is not None and working.tracked.missing:
            self._look(report.instrument)

    async def _hear_of_trade(self, trade: Trade) -> None:
        if await self._intake.trades([trade]):  # another's, or of an order that has no venue id yet
            self._look(trade.instrument)
            self.compare_soon()

    def _look(self, *instruments: str) -> None:
        for name in dict.fromkeys(instruments):
            self._inquiries.look(name)
