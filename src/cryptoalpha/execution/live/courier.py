"""The courier: takes orders of the engine to the venue, and everything that becomes of them back. All of it in one thread (`venue_thread`).

The life of an order:

    journal row ─► submit ─┬─ too late, no longer wanted, not safe ──────────────────────► rejected (never sent)
                           ├─ older orders of the instrument: cancel, wait for their end
                           └─ send ─┬─ accepted ─► open ─► partial ─► filled │ canceled │ expired
                                    ├─ rejected
                                    └─ anything else ─► unknown ─► asked for by its id until the venue answers (`inquiry`)

Nothing is ever sent twice. Whatever the venue says goes through `intake`. What is between these lines when the process dies is an order of
the journal without an end, and is asked for at the next start.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from decimal import Decimal

import msgspec

from cryptoalpha.core.backoff import Backoff
from cryptoalpha.core.clock import Clock, SystemClock
from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.seeds import stream
from cryptoalpha.core.time import HOUR, SECOND
from cryptoalpha.core.values import InstrumentRules, Order
from cryptoalpha.execution.broker import REJECTED
from cryptoalpha.execution.config import ExecutionConfig, LiveConfig
from cryptoalpha.execution.live.errands import Errands
from cryptoalpha.execution.live.inquiry import Inquiries
from cryptoalpha.execution.live.intake import Alert, Intake
from cryptoalpha.execution.live.points import Point, Reached, nobody
from cryptoalpha.execution.live.replacement import CANCELLED, STALE, Why, as_sent, called_back, resized, why_not
from cryptoalpha.execution.live.watch import Watch
from cryptoalpha.execution.live.working import Working
from cryptoalpha.execution.orders import tracker
from cryptoalpha.execution.reconcile.reconciler import Reconciler
from cryptoalpha.execution.venue import UNWANTED, Accepted, Rejected, Rights, UnclearError, Venue
from cryptoalpha.store.order_ledger import OrderLedger


class Courier:
    """See the module header.

    Args:
        rules: of every instrument that may be traded.
        clock: what the engine's clock follows; judges whether an order comes too late.
        alert: tells a person; called in this thread, must not wait.
        wall: our clock for what is written down.
    """

    def __init__(
        self,
        venue: Venue,
        ledger: OrderLedger,
        rules: Mapping[str, InstrumentRules],
        config: ExecutionConfig,
        *,
        clock: Clock,
        alert: Alert,
        reached: Reached = nobody,
        wall: Clock | None = None,
    ) -> None:
        self._venue, self._ledger, self._rules, self._config = venue, ledger, rules, config.live
        self._clock, self._alert, self._reached, self._wall = clock, alert, reached, wall or SystemClock()
        self.errands = Errands()
        self.intake = Intake(venue, ledger, rules, wall=self._wall, alert=alert, reached=reached)
        self.inquiries = Inquiries(
            venue, ledger, self.intake, config.live, clock=clock, wall=self._wall, alert=alert, reached=reached, spawn=self.errands.spawn
        )
        self.inquiries.on_key_refused = self._lose_key
        self._reconciler = Reconciler(venue, ledger, self.intake, rules, config, clock=clock, wall=self._wall, reached=reached)
        self.watch = Watch(venue, self.intake, self.inquiries, self._compare, every_seconds=config.live.reconcile_seconds)
        self.halted: dict[str, str] = {}
        """Why no entries are sent, by what it is about. Empty while all is well."""
        self._gates: dict[str, asyncio.Lock] = {name: asyncio.Lock() for name in rules}
        self._exits: set[asyncio.Future[None]] = set()
        self._compared_in = self._compared_at = self._foreign_orders = 0
        self._is_closing = False

    # ── from start to end ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def start(self) -> None:
        """Open the venue, check what the key may do, take up what an earlier process left behind, compare the books.

        Raises:
            ConfigError: if the key may withdraw, or may not trade.
            UnclearError: if the venue gives no answers for `alert_after_seconds`.
        """
        self.intake.resume()
        self.inquiries.clocks.date_back(self.intake.working.values())
        await _until_answered(self._arrive, self._config)
        for name in self._rules:
            orders = self.intake.of(name)
            for older in orders[:-1]:  # an order replaces older ones: a process that died between the two left that to us
                older.must_end = True
            for working in orders:
                self.inquiries.pursue(working)
        await self.watch.compare()
        self.errands.spawn(self.watch.keep_comparing())
        if self._config.use_stream:
            self.errands.spawn(self.watch.listen())

    async def _arrive(self) -> None:
        """What the venue must answer before anything is sent."""
        await self._venue.open()
        _demand_rights(await self._venue.rights())
        await self.inquiries.begin(self._rules.values())
        await self._reconciler.begin()

    async def failure(self) -> None:
        """Waits until something of the courier has failed, and raises that."""
        await self.errands.failure()

    async def close(self) -> None:
        """Send nothing more, wait for the answers under way, end every task. Orders at the venue stay as they are."""
        self._is_closing = True
        await self.errands.finish(self._config.timeout_seconds)
        await self._venue.close()
        self._ledger.close()

    async def _compare(self) -> None:
        """Compare the venue's books with ours. What does not add up stops entries until it does again."""
        findings = await self._reconciler.look()
        self._compared_at, self._foreign_orders = self._wall.now(), len(findings.foreign_orders)
        for text in findings.alerts:
            self._alert("reconcile", text)
        if findings.stop_entries:
            self.halted["books"] = "the venue's books and ours differ: " + "; ".join(one.message for one in findings.breaks if one.stands)
        else:
            self.halted.pop("books", None)

    # ── orders ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def submit(self, order: Order, event: int, *, told: Decimal, expires: int | None) -> None:
        """Carry an order to the venue.

        Args:
            told: position of the instrument by all that the engine had been told when it decided.
            expires: engine time after which it is history, no plan; None: never.
        """
        self._withdraw(self.intake.of(order.instrument), f"{order.client_id} came before its turn")
        working = self.intake.take(order, event)
        working.under_way = True
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        earlier = [] if order.reduce_only else list(self._exits)
        if order.reduce_only:
            self._exits.add(answered)
        try:
            if earlier:  # what they free is what entries are paid with
                await asyncio.wait(earlier)
            async with self._gates[order.instrument]:
                await self._carry(working, told, expires)
        finally:
            working.under_way = False
            self._exits.discard(answered)
            answered.set_result(None)
        self.inquiries.pursue(working)

    async def _carry(self, working: Working, told: Decimal, expires: int | None) -> None:
        """End what is older, see whether the order still makes sense, then send it. While it waits it may be withdrawn, or grow old."""
        order = working.order
        if self._is_over(working, expires):
            return
        older = [one for one in self.intake.of(order.instrument) if one is not working]
        await self._end(older)
        if self._is_over(working, expires):
            return
        others = [one for one in older if not one.tracked.ended]
        position = self.intake.position(order.instrument)
        refusal = why_not(order, others, position=position, told=told, halted=self._why_halted())
        quantity = resized(order, others, position, self._rules[order.instrument].lot)
        if refusal is None and not quantity:
            refusal = "unknown_order" if others else "raced", f"{position} is held: nothing can be closed without a risk of turning it"
        if refusal is not None:
            self._give_up(working, *refusal)
            return
        if quantity != order.quantity:  # a restart must know what was sent
            self.intake.note(working, tracker.begin(order, working.tracked.event, self._wall.now(), quantity=quantity))
        await self._send(working, expires)

    def _is_over(self, working: Working, expires: int | None) -> bool:
        """Whether it is not sent any more: it was withdrawn meanwhile, or it comes too late."""
        if not working.tracked.ended and self._is_late(expires):
            self._give_up(working, *STALE)
        return working.tracked.ended

    def _is_late(self, expires: int | None) -> bool:
        """By the later of our clock and the venue's: one that was set back makes nothing young again."""
        return expires is not None and self._clock.now() + self.inquiries.clocks.ahead() > expires

    def _called_back(self, working: Working, expires: int | None) -> Why | None:
        return called_back(working, is_late=self._is_late(expires), halted=self._why_halted())

    def _withdraw(self, orders: Sequence[Working], why: str) -> None:
        """End those that still wait for their turn; one that is just being sent leaves no more if it has not left."""
        for one in orders:
            if one.under_way and not one.tracked.record.sent_at:
                self._give_up(one, "cancelled", why)
            one.must_end = one.must_end or one.under_way

    def _give_up(self, working: Working, rule: str, why: str) -> None:
        step = tracker.refused(working.tracked, Rejected(code=rule, message=f"not sent: {why}"), self._wall.now())
        self.intake.end(working, step, rule, why)

    async def _send(self, working: Working, expires: int | None) -> None:
        """Once, whatever comes back."""
        self._reached(Point.BEFORE_SEND)
        working.tracked, working.sent_by = tracker.sent(working.tracked, self._wall.now()), self.inquiries.clocks.base
        whole = as_sent(working.order, working.tracked.record.quantity)
        answer = await self._venue.submit(whole, wanted=lambda: self._called_back(working, expires) is None)
        working.evidence = msgspec.structs.replace(working.evidence, sent_at=time.monotonic_ns())  # it was stamped before, not after
        self._reached(Point.AFTER_REPLY)
        if isinstance(answer, Accepted):
            try:
                await self.intake.report(answer.report, answer.trades)
            except UnclearError as error:  # what a fee was worth cannot be said yet
                self._doubt(working, error.args[0])
        elif isinstance(answer, Rejected) and answer.code == UNWANTED:
            self._give_up(working, *(self._called_back(working, expires) or CANCELLED))
        elif isinstance(answer, Rejected):
            step = tracker.refused(working.tracked, answer, self._wall.now())
            self.intake.end(working, step, REJECTED, f"{answer.code} {answer.message}".strip())
            if answer.is_key:
                self._lose_key(answer.message)
        else:
            working.refusal = answer.refusal
            if answer.exists:
                working.evidence = working.evidence.seen()
            self._doubt(working, answer.reason)
            self.inquiries.heed(answer)
        self._reached(Point.AFTER_OUTCOME)

    def _doubt(self, working: Working, why: str) -> None:
        """Nobody knows what became of it."""
        self.intake.note(working, tracker.doubted(working.tracked, why, self._wall.now()).tracked)

    def _lose_key(self, why: str) -> None:
        if "key" not in self.halted:
            self.halted["key"] = f"the venue refuses the key: {why}"
            self._alert("key_refused", self.halted["key"])

    def standing(self) -> dict[str, object]:
        """How things stand, for people. Reads only: any thread may ask."""
        return {
            "halted": {**self.halted, **({"venue": self.intake.distrust} if self.intake.distrust else {})},
            "compared_at": self._compared_at,
            "is_in_doubt": self.watch.is_in_doubt,
            "is_listening": self.watch.is_listening,
            "clock_offset_seconds": self.inquiries.clocks.offset / SECOND,
            "foreign_orders": self._foreign_orders,
            "orders": len(self.intake.working),
        }

    def _why_halted(self) -> str:
        """Why no entries are sent; empty where they are."""
        if self._is_closing:
            return "the run is being stopped"
        return "; ".join([*self.halted.values(), *([self.intake.distrust] if self.intake.distrust else [])])

    async def cancel(self, instrument: str, *, entries_only: bool = False) -> None:
        """End what is left of an instrument's orders, those not sent yet at once; who wants to know is told when they have ended."""
        wanted = [one for one in self.intake.of(instrument) if not (entries_only and one.order.reduce_only)]
        self._withdraw(wanted, CANCELLED[1])
        async with self._gates[instrument]:
            await self._end([one for one in wanted if not one.tracked.ended])

    async def _end(self, orders: Sequence[Working]) -> None:
        """Cancel orders and wait for their end, though not for longer than a way out may be kept waiting; the rest goes on beside."""
        seconds = self._config.settle_seconds
        if orders:
            await asyncio.wait([self.errands.spawn(self.inquiries.end(one, seconds)) for one in orders], timeout=seconds)

    async def cancel_entries(self) -> None:
        """End every order that could enlarge a position, at once."""
        names = dict.fromkeys(one.order.instrument for one in self.intake.working.values() if not one.order.reduce_only)
        await asyncio.gather(*(self.cancel(name, entries_only=True) for name in names))

    async def look(self, seconds: float) -> None:
        """Ask for every order and its trades, and for funding that may have settled, for at most so long; what has not come by then comes
        later."""
        deadline = asyncio.get_running_loop().time() + seconds
        await self.errands.idle(seconds)
        looks = [self.inquiries.look(name) for name in dict.fromkeys(one.order.instrument for one in self.intake.working.values())]
        hour = self._clock.now() // HOUR
        if self._venue.is_futures and hour != self._compared_in:  # funding settles at full hours; the bar that saw it must tell it
            self._compared_in = hour
            looks.append(self.errands.spawn(self.watch.compare()))
        if looks:
            await asyncio.wait(looks, timeout=max(0.0, deadline - asyncio.get_running_loop().time()))
        self.errands.demand_well()


def _demand_rights(rights: Rights) -> None:
    if rights.may_withdraw:
        raise ConfigError("this key may withdraw money", hint="make a key without that right for trading, and delete this one")
    if not rights.may_trade:
        raise ConfigError("this key may not trade", hint="give it the right to trade at the venue")


async def _until_answered(work: Callable[[], Awaitable[None]], config: LiveConfig) -> None:
    """Try again for a while: a restart in an outage should find its way back."""
    now = asyncio.get_running_loop().time
    backoff = Backoff(config.retry_seconds, max(config.retry_seconds, config.retry_limit_seconds), random=stream(0, "arrive"))
    deadline = now() + config.alert_after_seconds
    while True:
        try:
            return await work()
        except UnclearError as error:
            wait = backoff.wait(error.answer.retry_after_seconds)
            if error.answer.is_key or now() + wait > deadline:
                raise
        await asyncio.sleep(wait)
