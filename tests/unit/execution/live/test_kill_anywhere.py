"""The venue's thread is killed at every numbered point it passes, started again, and everything is found as the venue has it."""

from __future__ import annotations

import asyncio
from collections import Counter
from decimal import Decimal

import pytest

from cryptoalpha.core.values import Fill, Refusal

FINAL = ("filled", "canceled", "expired", "rejected")


class KilledError(BaseException):
    """As a signal that cannot be caught: nothing after it is written."""


class Life:
    """Counts the points that are passed, and dies at those it is told to."""

    def __init__(self, desk, *deaths: int) -> None:
        self.desk, self.deaths, self.passed, self.is_dead = desk, list(deaths), 0, False

    def reached(self, point) -> None:
        self.passed += 1
        if self.deaths and self.passed == self.deaths[0]:
            self.deaths.pop(0)
            self.passed = 0
            self.is_dead = True
            self.desk.ledger.close()  # nobody writes any more
            raise KilledError(point.name)


def steps(desk, faults: str):
    """A day of one run: an entry that trades in part, its replacement, an exit, an entry elsewhere, a cancel."""
    venue = desk.venue

    async def enter() -> None:
        if faults:
            venue.fail("submit", faults)
        await desk.submit(desk.order("ca1", quantity="2"), told=str(desk.courier.intake.position("A/USDT")))

    async def trade() -> None:
        if venue.orders.get("ca1") and venue.orders["ca1"].state not in FINAL:
            venue.trade("ca1", "0.5")
        await desk.courier.look(1)

    async def replace() -> None:
        if faults:
            venue.fail("cancel", faults)
        await desk.submit(desk.order("ca2", quantity="1"))
        if venue.orders.get("ca2") and venue.orders["ca2"].state not in FINAL:
            venue.trade("ca2", "1")
        await desk.courier.look(1)

    async def leave() -> None:
        held = desk.courier.intake.position("A/USDT")
        if held > 0:
            if faults:
                venue.fail("query", "before")
                venue.fail("submit", "after")
            await desk.submit(desk.order("ca3", "sell", str(held), reduce_only=True))
            if venue.orders.get("ca3") and venue.orders["ca3"].state not in FINAL:
                venue.trade("ca3", str(held))

    async def elsewhere() -> None:
        await desk.submit(desk.order("ca4", instrument="B/USDT"))
        await desk.courier.cancel("B/USDT")
        await desk.courier.watch.compare()

    return [enter, trade, replace, leave, elsewhere]


async def live_through(desk, life, faults: str) -> None:
    """Every step once; after a death the next life looks after what the last one left, and goes on with the next step."""
    todo = [start(desk), *steps(desk, faults), settled(desk)]
    while todo:
        is_alive = await watched(desk, life, todo.pop(0)())
        while not is_alive:
            await desk.die()
            life.is_dead = False
            is_alive = await watched(desk, life, start(desk)()) and await watched(desk, life, settled(desk)())


def start(desk):
    async def work() -> None:
        await desk.open()

    return work


def settled(desk):
    async def work() -> None:
        await desk.settle()
        await desk.courier.look(1)
        await desk.settle()

    return work


async def watched(desk, life, work) -> bool:
    """Do it; False if the process was killed meanwhile."""
    task = asyncio.ensure_future(work)
    while not task.done() and not life.is_dead:
        await asyncio.wait({task}, timeout=0.002)
    if life.is_dead:
        task.cancel()
        await asyncio.wait({task})
        failed = desk.courier.errands._failed
        for one in (task, failed):
            if one.done() and not one.cancelled():
                one.exception()  # seen
        return False
    task.result()
    return True


def check(desk) -> None:
    """The venue's books are the truth; ours and what the engine was told must be the same, each thing once."""
    venue, told = desk.venue, desk.told()
    trades = Counter((one.instrument, one.trade_id) for one in told if isinstance(one, Fill))
    assert set(trades.values()) <= {1}
    assert set(trades) == {(one.instrument, one.trade_id) for one in venue.made}
    assert Counter(venue.sent).most_common(1)[0][1] == 1, "sent twice"
    ends = Counter(one.client_id for one in told if isinstance(one, Refusal))
    for client_id in desk.events:
        record, report = desk.ledger.record(client_id), venue.orders.get(client_id)
        booked = sum((one.quantity for one in told if isinstance(one, Fill) and one.client_id == client_id), Decimal(0))
        assert booked == (report.filled if report else 0)
        if record.ended:
            assert report is None or report.state in FINAL, "an order lives on that nobody looks after"
            assert ends[client_id] == (0 if booked == record.quantity and record.state == "filled" else 1)
        else:
            assert report is not None
            assert report.state not in FINAL
            assert client_id in desk.courier.intake.working
    for name in ("A/USDT", "B/USDT"):
        assert desk.courier.intake.position(name) == venue.held.get(name, 0)


def run(desk, faults: str, *deaths: int) -> Life:
    life = Life(desk, *deaths)

    async def body() -> None:
        desk.reached = life.reached
        await asyncio.wait_for(live_through(desk, life, faults), 20)
        check(desk)
        await desk.close()

    asyncio.run(body())
    return life


@pytest.mark.parametrize(("faults", "every"), [("", 1), ("before", 5), ("after", 4)])
def test_killed_at_a_point_nothing_is_lost_doubled_or_orphaned(tmp_path, make_desk, faults, every):
    kill_each(tmp_path, make_desk, faults, every)


@pytest.mark.slow
@pytest.mark.parametrize("faults", ["before", "after"])
def test_killed_at_every_point_under_faults(tmp_path, make_desk, faults):
    kill_each(tmp_path, make_desk, faults, 1)


def kill_each(tmp_path, make_desk, faults: str, every: int) -> None:
    whole = run(make_desk(tmp_path / "whole"), faults)
    assert whole.passed > 15
    killed = [not run(make_desk(tmp_path / f"at{n}"), faults, n).deaths for n in range(1, whole.passed + 1, every)]
    assert sum(killed) > 0.6 * len(killed)  # how often an order is asked for depends on the time it takes: the last points may not come


@pytest.mark.slow
def test_killed_again_while_it_recovers(tmp_path, make_desk):
    for first in range(2, 30, 3):
        for second in (1, 3, 5):
            run(make_desk(tmp_path / f"at{first}-{second}"), "after", first, second)
