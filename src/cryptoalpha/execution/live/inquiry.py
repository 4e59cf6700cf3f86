"""Asking the venue: what became of an order, which trades there are, whether a cancel took hold. Until it answers, not once too often.

An order of unknown fate is asked for by its id with growing waits. It ends by an answer of the venue, or as absent by proof
(`orders.absence`): "no such order" several times over a time in which it would have arrived, and no trace of it in the account's books.
Nothing else ends it. If that takes long a person is told, and the asking goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from cryptoalpha.core.backoff import Backoff
from cryptoalpha.core.clock import Clock
from cryptoalpha.core.seeds import stream
from cryptoalpha.core.time import DAY, SECOND
from cryptoalpha.core.values import InstrumentRules
from cryptoalpha.execution.broker import REJECTED
from cryptoalpha.execution.config import LiveConfig
from cryptoalpha.execution.live.clocks import Clocks
from cryptoalpha.execution.live.intake import Alert, Intake
from cryptoalpha.execution.live.points import Point, Reached
from cryptoalpha.execution.live.working import Working
from cryptoalpha.execution.orders import tracker
from cryptoalpha.execution.orders.absence import BOOKS_UNREAD, AbsenceRule, still_missing
from cryptoalpha.execution.venue import Ambiguous, Inquiry, NotFound, OrderReport, UnclearError, Venue
from cryptoalpha.store.order_ledger import OrderLedger

Spawn = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]
BEGUN = "begun"
"""Cursor: when the run first came to the venue, UTC ns by the engine's clock."""


class Inquiries:
    """See the module header.

    Args:
        clock: what the engine's clock follows; trades are asked for from a day before the run began by it.
        wall: our clock for what is written down.
        spawn: runs something beside everything else.
    """

    def __init__(
        self,
        venue: Venue,
        ledger: OrderLedger,
        intake: Intake,
        config: LiveConfig,
        *,
        clock: Clock,
        wall: Clock,
        alert: Alert,
        reached: Reached,
        spawn: Spawn,
    ) -> None:
        self._venue, self._ledger, self._intake, self._config = venue, ledger, intake, config
        self._clock, self._wall, self._alert, self._reached, self._spawn = clock, wall, alert, reached, spawn
        self._absence = AbsenceRule(
            answers=config.absence_answers,
            seconds=config.absence_seconds,
            receive_window_seconds=config.receive_window_seconds,
            longest_flight_seconds=config.longest_flight_seconds,
        )
        self.clocks = Clocks(ledger, wall)
        self._pursuits: dict[str, asyncio.Task[None]] = {}
        self._looks: dict[str, asyncio.Task[None]] = {}
        self._quiet_until = 0.0  # by the loop's clock, which nobody sets
        self.on_key_refused: Callable[[str], None] = lambda why: None
        """Told that the venue refuses the key."""

    async def begin(self, rules: Iterable[InstrumentRules]) -> None:
        """Where the account's lists of trades end when the run first comes: what lies before is not ours.

        Raises:
            UnclearError: if the venue gives no answer.
        """
        await self.clocks.measure(self._venue)
        if self._ledger.cursor(BEGUN) is not None:
            return
        now = self._clock.now()
        cursors = {BEGUN: str(now)}
        for one in rules:
            earlier = await self._venue.trades(one.instrument, after=None, since=max(0, now - DAY))
            cursors[_cursor(one.instrument)] = earlier[-1].trade_id if earlier else ""
        self._ledger.write(at=self._wall.now(), cursors=cursors)

    def heed(self, answer: Ambiguous) -> None:
        """What an unclear answer says beside that: leave the venue alone for a while, look at the clock, the key is refused."""
        self._quiet_until = max(self._quiet_until, asyncio.get_running_loop().time() + answer.retry_after_seconds)
        if answer.is_clock:
            self._spawn(self._resync())
        if answer.is_key:
            self.on_key_refused(answer.reason)

    # ── one order ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def pursue(self, working: Working) -> None:
        """Go on asking for an order until it is settled. Does nothing where somebody does already, or need not."""
        name = working.order.client_id
        if working.is_unsettled and name not in self._pursuits:
            self._pursuits[name] = self._spawn(self._pursued(working))

    async def _pursued(self, working: Working) -> None:
        name = working.order.client_id
        config, began = self._config, asyncio.get_running_loop().time()
        backoff = Backoff(config.retry_seconds, max(config.retry_seconds, config.retry_limit_seconds), random=stream(0, "inquiry", name))
        try:
            while working.is_unsettled:
                await (self.press(working) if working.must_end else self.ask(working))
                if not working.is_unsettled:
                    break
                now = asyncio.get_running_loop().time()
                self._tell_if_old(working, asked_for=now - began)
                await asyncio.sleep(backoff.wait(max(0.0, self._quiet_until - now)))
        finally:
            del self._pursuits[name]

    async def ask(self, working: Working, *, is_reply: bool = False) -> None:
        """Ask for one order and for the trades it lacks; what comes back goes through the intake.

        Args:
            is_reply: a cancel of it has been answered before.
        """
        if asyncio.get_running_loop().time() < self._quiet_until:
            return
        asked_at = time.monotonic_ns()
        answer = await self._venue.query(working.order.instrument, working.order.client_id)
        self._reached(Point.IN_QUERY)
        await self._digest(working, answer, asked_at, is_reply=is_reply)
        if working.tracked.missing or (working.tracked.ending is not None and not working.tracked.ended):
            await self._catch_up(working.order.instrument)

    async def press(self, working: Working) -> None:
        """Cancel one order, and see what that came to. A cancel names its order, so it may be asked for as often as it takes."""
        if working.tracked.ended:
            return
        self._intake.note(working, tracker.canceling(working.tracked, self._wall.now()))
        self._reached(Point.BEFORE_CANCEL)
        answer = await self._venue.cancel(working.order.instrument, working.order.client_id)
        self._reached(Point.AFTER_CANCEL)
        if isinstance(answer, OrderReport):
            await self._believe(answer)
        elif isinstance(answer, Ambiguous):
            self.heed(answer)
        if not working.tracked.ended:  # not open any more, or nobody knows: the order itself says
            await self.ask(working, is_reply=not isinstance(answer, Ambiguous))

    async def end(self, working: Working, seconds: float) -> None:
        """Cancel an order and wait for its end, for at most so long; after that it is pursued beside everything else."""
        working.must_end = True
        deadline = asyncio.get_running_loop().time() + seconds
        backoff = Backoff(self._config.retry_seconds, 60.0, random=stream(0, "end", working.order.client_id))
        while not working.tracked.ended:
            await self.press(working)
            left = deadline - asyncio.get_running_loop().time()
            if working.tracked.ended or left <= 0.0:
                break
            await asyncio.sleep(min(left, backoff.wait()))
        self.pursue(working)

    async def _digest(self, working: Working, answer: Inquiry, asked_at: int, *, is_reply: bool) -> None:
        if isinstance(answer, OrderReport):
            await self._believe(answer, is_reply=is_reply)
        elif isinstance(answer, Ambiguous):
            self.heed(answer)
        else:
            await self._doubt(working, answer, asked_at)

    async def _believe(self, report: OrderReport, *, is_reply: bool = False) -> None:
        try:
            await self._intake.report(report, is_reply=is_reply)
        except UnclearError as error:  # what a fee was worth cannot be said yet
            self.heed(error.answer)

    async def _doubt(self, working: Working, answer: NotFound, asked_at: int) -> None:
        """The venue knows no such order: evidence, and with enough of it the proof that it never arrived."""
        if working.tracked.ended:
            return
        now = self._wall.now()
        step = tracker.lost(working.tracked, f"the venue knows no such order: {answer.message}", now)
        if step.is_new:
            self._intake.note(working, step.tracked)
        if working.refusal is not None and not working.evidence.is_seen:
            step = tracker.refused(working.tracked, working.refusal, now)
            self._intake.end(working, step, REJECTED, f"{working.refusal.code} {working.refusal.message}")
            return
        working.evidence = working.evidence.not_found(asked_at)
        if still_missing(working.evidence, self._absence) in ("", BOOKS_UNREAD) and await self._search(working):
            lacking = self._lacking(working)
            if not lacking and not working.tracked.ended:
                proof = f"{working.evidence.answers} times unknown to the venue, in no list of it, and its request has expired"
                self._intake.end(working, tracker.absent(working.tracked, self._wall.now(), proof), "absent", proof)

    def _lacking(self, working: Working) -> str:
        """What the proof of absence lacks. A request was stamped by the venue's clock as we knew it then: if that has moved since, it may
        arrive so much later. Our own clock does not count, which may have been set back with it."""
        return still_missing(working.evidence, self._absence, clock_moved=self.clocks.moved_since(working))

    async def _search(self, working: Working) -> bool:
        """Look for it in the account's books: open orders, and trades since the run began; and look at the venue's clock. Whether the venue
        answered."""
        asked_at = time.monotonic_ns()
        try:
            await self.clocks.measure(self._venue)
            listed = await self._venue.open_orders(working.order.instrument)
        except UnclearError as error:
            self.heed(error.answer)
            return False
        for report in listed:
            await self._believe(report)
        if not await self._catch_up(working.order.instrument):
            return False
        working.evidence = working.evidence if working.evidence.is_seen else working.evidence.not_listed(asked_at)
        return True

    def _tell_if_old(self, working: Working, *, asked_for: float) -> None:
        """Tell a person, once. `asked_for`: seconds since somebody began to ask for it; our own clock may have been set back."""
        record = working.tracked.record
        age = max((self._wall.now() - record.since) / SECOND, asked_for)
        if age >= self._config.alert_after_seconds and not working.is_alerted:
            working.is_alerted = True
            lacking = self._lacking(working)
            why = f"{working.order.instrument}: order {record.client_id} has been {record.state} for {age:.0f} s ({record.detail})"
            self._alert("unknown_order", f"{why}; to count as absent: {lacking or 'nothing more'}" if record.state == "unknown" else why)

    # ── an instrument ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def look(self, instrument: str) -> asyncio.Task[None]:
        """Ask for every order of an instrument and its trades. While such a look is under way it is not begun again."""
        if instrument not in self._looks:
            self._looks[instrument] = self._spawn(self._looked(instrument))
        return self._looks[instrument]

    async def _looked(self, instrument: str) -> None:
        try:
            for working in self._intake.of(instrument):
                if not working.under_way:
                    await self.ask(working)
            await self._catch_up(instrument)
            for working in self._intake.of(instrument):
                self.pursue(working)
        finally:
            del self._looks[instrument]

    async def _catch_up(self, instrument: str) -> bool:
        """Book the account's trades since the last one read; whether they could be read.

        A trade that nobody can place while an order of the instrument has no venue id may be that order's: it is not passed over.
        """
        after = self._ledger.cursor(_cursor(instrument)) or None
        since = max(0, int(self._ledger.cursor(BEGUN) or 0) - DAY)
        try:
            trades = await self._venue.trades(instrument, after=after, since=since)
            nameless = any(not one.tracked.record.venue_id for one in self._intake.of(instrument))
            known = len(trades)
            if nameless:
                known = next((i for i, trade in enumerate(trades) if self._intake.owner(trade) is None), known)
            cursors = {_cursor(instrument): trades[known - 1].trade_id} if known else None
            await self._intake.trades(trades[:known], cursors)
            if known < len(trades):
                await self._intake.trades(trades[known:])
        except UnclearError as error:
            self.heed(error.answer)
            return False
        return True

    async def _resync(self) -> None:
        with contextlib.suppress(UnclearError):  # measured again with the next refusal of our clock
            await self.clocks.measure(self._venue)


def _cursor(instrument: str) -> str:
    return f"trades:{instrument}"
