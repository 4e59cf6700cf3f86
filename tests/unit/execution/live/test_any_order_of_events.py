"""Entries, exits, cancels, kills, looks and restarts at random moments, at a venue that fails half of the time and tells what it did late,
twice, in any order or not at all. Whatever comes, the books are the venue's, every order is told once, nothing flips."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from decimal import Decimal

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cryptoalpha.core.values import Adjustment, Fill, Refusal

FINAL = ("filled", "canceled", "expired", "rejected")
NAMES = ("A/USDT", "B/USDT")
WRONG = {
    "submit": ("before", "after", "refused", "busy", "doubted"),
    "cancel": ("before", "after", "missing"),
    "query": ("before", "missing"),
}


class Trouble:
    """What goes wrong at a desk's venue, and what its stream says of it."""

    def __init__(self, desk, rng: random.Random) -> None:
        self.desk, self.venue, self.rng = desk, desk.venue, rng
        self.is_calm, self.unsaid, self.lowest = True, [], Decimal(0)
        self.submitted = self.venue.submit
        self.venue._fault, self.venue.submit = self.fault, self.submit

    async def fault(self, method: str) -> str:
        await asyncio.sleep(0 if self.is_calm else self.rng.choice([0, 0, 0.0005, 0.002, 0.01]))
        is_wrong = not self.is_calm and self.rng.random() < (0.5 if method in WRONG else 0.3)
        return self.rng.choice(WRONG.get(method, ("before",))) if is_wrong else ""

    async def submit(self, order, **asked):
        answer = await self.submitted(order, **asked)
        if order.client_id in self.venue.orders:
            self.say(self.venue.orders[order.client_id])
            if self.rng.random() < 0.6:
                self.trade(order.client_id)  # before the answer arrives
        await asyncio.sleep(0 if self.is_calm else self.rng.choice([0, 0.001, 0.008]))
        return answer

    def trade(self, client_id: str) -> None:
        report = self.venue.orders[client_id]
        left = report.quantity - report.filled
        if report.state in FINAL or left <= 0:
            return
        part = left if self.rng.random() < 0.4 else max(Decimal("0.01"), round(left * self.rng.randint(1, 99) / 100, 2))
        done = self.venue.trade(client_id, str(min(part, left)))
        self.lowest = min(self.lowest, self.venue.held[report.instrument])
        self.say(msgspec.structs.replace(done, client_id=self.rng.choice(["", client_id])))
        if self.rng.random() < 0.3 and self.venue.orders[client_id].state not in FINAL:
            self.venue.end(client_id, "expired")
        self.say(self.venue.orders[client_id])

    def say(self, event) -> None:
        """Not at all, once or twice, some time later."""
        self.unsaid += [event] * self.rng.choice([0, 1, 1, 2])
        self.rng.shuffle(self.unsaid)
        while self.unsaid and self.rng.random() < 0.7:
            self.venue.stream.put_nowait(self.unsaid.pop())


class Day:
    """What happens to one desk."""

    def __init__(self, desk, seed: int) -> None:
        self.desk, self.rng = desk, random.Random(seed)
        self.trouble = Trouble(desk, self.rng)
        self.withdrawn: set[str] = set()

    async def live(self) -> None:
        await self.desk.open()
        acts = (self.enter, self.enter, self.leave, self.leave, self.cancel, self.kill, self.market, self.look, self.restart)
        for _ in range(self.rng.randint(5, 25)):
            self.trouble.is_calm = False
            await self.rng.choice(acts)(self.rng.choice(NAMES))
            await asyncio.sleep(self.rng.choice([0, 0, 0.001, 0.005, 0.03]))
        self.trouble.is_calm = True
        await self.desk.courier.errands.idle(5)
        for _ in range(2):
            await self.desk.settle(6)
            await self.desk.courier.look(1)
        await self.desk.settle(6)
        self.check()
        await self.desk.close()

    def hand(self, side: str, quantity: Decimal, name: str, **more) -> None:
        order = self.desk.order(f"ca{len(self.desk.events) + 1}", side, str(quantity), name, **more)
        told = self.desk.courier.intake.position(name)
        self.desk.courier.errands.hand(self.desk.courier.submit(order, self.desk.events[order.client_id], told=told, expires=None))

    async def enter(self, name: str) -> None:
        self.hand("buy", Decimal(self.rng.randint(1, 300)) / 100, name)

    async def leave(self, name: str) -> None:
        held = max(self.desk.courier.intake.position(name), Decimal("0.5"))
        self.hand("sell", held + self.rng.choice([0, 0, 1]), name, reduce_only=True)

    async def cancel(self, name: str) -> None:
        self.desk.courier.errands.hand(self.cancelled(name, entries_only=False))

    async def kill(self, _: str) -> None:
        for name in NAMES:
            self.desk.courier.errands.hand(self.cancelled(name, entries_only=True))

    async def cancelled(self, name: str, *, entries_only: bool) -> None:
        for one in self.desk.courier.intake.of(name):
            if one.under_way and not one.tracked.record.sent_at and not (entries_only and one.order.reduce_only):
                self.withdrawn.add(one.order.client_id)
        await self.desk.courier.cancel(name, entries_only=entries_only)

    async def market(self, _: str) -> None:
        for client_id in list(self.desk.venue.orders):
            if self.rng.random() < 0.5:
                self.trouble.trade(client_id)

    async def look(self, _: str) -> None:
        await self.desk.courier.look(0.02)
        self.desk.courier.watch.compare_soon()

    async def restart(self, _: str) -> None:
        await asyncio.wait_for(self.desk.die(), 5)
        self.desk.venue.stream = asyncio.Queue()
        self.trouble.is_calm = True
        await self.desk.open()

    def check(self) -> None:
        venue, told = self.desk.venue, self.desk.told()
        fills = [one for one in told if isinstance(one, Fill)]
        assert Counter((one.instrument, one.trade_id) for one in fills) == Counter((one.instrument, one.trade_id) for one in venue.made)
        assert not any(isinstance(one, Adjustment) for one in told), "nobody else was there"
        assert not any(count > 1 for count in Counter(venue.sent).values()), "sent twice"
        assert not self.withdrawn & set(venue.sent), "sent after it was cancelled"
        assert self.trouble.lowest == 0, "an exit turned the position round"
        ends = Counter(one.client_id for one in told if isinstance(one, Refusal))
        for client_id in self.desk.events:
            (_, order), record, report = self.desk.ledger.order(client_id), self.desk.ledger.record(client_id), venue.orders.get(client_id)
            booked = sum((one.quantity for one in fills if one.client_id == client_id), Decimal(0))
            assert booked == (report.filled if report else 0)
            if record.ended:
                assert report is None or report.state in FINAL, "an order lives on that nobody looks after"
                assert ends[client_id] == (booked < order.quantity), "told once that the rest will not come"
            else:
                assert report is not None
                assert report.state not in FINAL
                assert client_id in self.desk.courier.intake.working


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])  # `make_desk` makes one each time
@given(seed=st.integers(0, 2**32))
def test_whatever_comes_in_whatever_order_nothing_is_lost_doubled_or_orphaned(tmp_path_factory, make_desk, seed):
    desk = make_desk(tmp_path_factory.mktemp("day") / "desk")
    asyncio.run(asyncio.wait_for(Day(desk, seed).live(), 30))
