"""Sources onto a real bus, positions into a real state store: order, bounds, failures of every party, a clean stop."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from cryptoalpha.core.errors import ConfigError, StoreError, VenueError
from cryptoalpha.core.streamed import Trade
from cryptoalpha.data.bus.config import BusConfig
from cryptoalpha.data.bus.dead import read_dead
from cryptoalpha.data.bus.envelope import sealed
from cryptoalpha.data.bus.memory import MemoryBus
from cryptoalpha.data.sources.contract import Arrival, DeadLetter, Health
from cryptoalpha.data.sources.pump import Pump
from cryptoalpha.store.state.sqlite_state import SqliteState


def message(source: str, number: int):
    trade = Trade(
        happened_at=number, known_at=number, instrument="BTC/USDT", venue=source, trade_id=str(number), side="buy", price=1.0, amount=1.0
    )
    return sealed(trade, topic="market", key=f"{source}:BTC/USDT", source=source, native_id=str(number))


class Numbers:
    """A source of the numbers from its position on. `steps`: number → what happens before it comes, once."""

    topics = ("market",)

    def __init__(self, name="one", *, until=100, together=1, steps=None, endless=False) -> None:
        self.name, self.health = name, Health()
        self.until, self.together, self.steps, self.endless = until, together, dict(steps or {}), endless
        self.begun: list[str] = []
        self.given = 0
        self.closed = asyncio.Event()

    async def arrivals(self, position):
        self.begun.append(position)
        self.health.state = "connected"
        number = int(position or 0)
        while number < self.until:
            step = self.steps.pop(number, None)
            if isinstance(step, Exception):
                raise step
            dead = (DeadLetter(self.name, step, b"garbage", number),) if isinstance(step, str) else ()
            numbers = range(number, min(number + self.together, self.until))
            number = numbers[-1] + 1
            self.given += len(numbers)
            yield Arrival(tuple(message(self.name, one) for one in numbers), str(number), dead)
            await asyncio.sleep(0)
            if self.closed.is_set():
                return
        if self.endless:
            await self.closed.wait()

    async def close(self):
        self.closed.set()


class Stumbling:
    """A real bus whose publications fail, or take long, as told."""

    def __init__(self, bus, *, failures=0, seconds=0.0, gate=None) -> None:
        self.bus, self.failures, self.seconds, self.gate, self.calls = bus, failures, seconds, gate, 0

    async def publish(self, envelopes):
        self.calls += 1
        if self.gate is not None:
            await self.gate.wait()
        await asyncio.sleep(self.seconds)
        if self.failures:
            self.failures -= 1
            await self.bus.publish(envelopes[: len(envelopes) // 2])  # some may have been kept
            raise StoreError("no space left")
        await self.bus.publish(envelopes)


@asynccontextmanager
async def stage():
    async with MemoryBus(BusConfig(), None) as bus, SqliteState(None) as state:
        yield bus, state


async def said(bus, topic="market"):
    """Everything on a topic, in the order of its partitions."""
    consumer = await bus.subscribe("reader", [topic])
    found = []
    while records := await consumer.take(1000, wait_seconds=0.05):
        found.extend(record.envelope for record in records)
    await consumer.close()
    return found


async def kept(state, name="one"):
    (value,) = await state.get([f"position/{name}"])
    return value


def test_everything_arrives_in_order_and_the_place_is_kept(virtual_time):
    async def run():
        async with stage() as (bus, state):
            source = Numbers()
            async with Pump(bus, state, [source], wait=virtual_time.wait) as pump:
                await pump.run()
                return await said(bus), await kept(state), pump.ended, pump.published, source.health.state

    found, position, ended, published, health = asyncio.run(run())
    assert found == [message("one", number) for number in range(100)]
    assert (position, ended, published, health) == (b"100", {"one": ""}, {"one": 100}, "closed")


def test_a_second_run_goes_on_where_the_first_had_come(virtual_time):
    async def run():
        async with stage() as (bus, state):
            for until in (40, 100):
                source = Numbers(until=until)
                async with Pump(bus, state, [source], wait=virtual_time.wait) as pump:
                    await pump.run()
            return await said(bus), source.begun

    found, begun = asyncio.run(run())
    assert begun == ["40"]
    assert [one.id for one in found] == [f"one/{number}" for number in range(100)]


def test_a_position_is_never_kept_before_its_messages(virtual_time):
    """At every write of a position, the real bus already holds all messages before it."""

    async def run():
        async with stage() as (bus, state):
            held = []
            put = state.put

            async def watched(values, **others):
                (value,) = values.values()
                held.append((int(value), bus.counts.published["market"]))
                await put(values, **others)

            state.put = watched
            slow = Stumbling(bus, seconds=0.002)
            async with Pump(slow, state, [Numbers(until=400)], position_seconds=0.001, most_waiting=20, wait=virtual_time.wait) as pump:
                await pump.run()
            return held

    held = asyncio.run(run())
    assert len(held) > 3
    assert all(position <= published for position, published in held)
    assert held[-1][0] == 400


def test_while_the_bus_does_not_take_messages_they_wait_and_nothing_is_lost(virtual_time):
    async def run():
        async with stage() as (bus, state):
            source = Numbers(until=50, together=10)
            states = []

            async def wait(seconds):
                states.append((source.health.state, source.health.reason))
                await virtual_time.wait(seconds)

            async with Pump(Stumbling(bus, failures=3), state, [source], wait=wait) as pump:
                await pump.run()
                return await said(bus), states, await kept(state)

    found, states, position = asyncio.run(run())
    assert {one.id for one in found} == {f"one/{number}" for number in range(50)}
    assert position == b"50"
    assert states == [("waiting", "the bus does not take messages: no space left")] * 3
    assert len({round(wait, 3) for wait in virtual_time.waits}) == 3  # they grow, by chance


def test_a_busy_source_shares_publications_and_a_slow_bus_bounds_what_waits(virtual_time):
    async def run():
        async with stage() as (bus, state):
            source, slow = Numbers(until=5_000, together=3), Stumbling(bus, seconds=0.005)
            ahead = 0
            async with Pump(slow, state, [source], most_waiting=300, wait=virtual_time.wait) as pump:
                pump.start()
                while not pump.ended:
                    ahead = max(ahead, source.given - pump.published["one"])
                    await asyncio.sleep(0)
                return ahead, slow.calls, len(await said(bus))

    ahead, calls, count = asyncio.run(run())
    assert count == 5_000
    assert calls < 60
    assert ahead <= 2 * 303  # one lot under way, one waiting


def test_a_failing_source_is_started_again_from_its_place_and_stops_no_other(virtual_time):
    breaks = {10: VenueError("connection lost"), 20: KeyError("a bug"), 30: RuntimeError("another")}

    async def run():
        async with stage() as (bus, state):
            broken, sound = Numbers("broken", steps=breaks), Numbers("sound")
            async with Pump(bus, state, [broken, sound], wait=virtual_time.wait) as pump:
                await pump.run()
                return await said(bus), broken.begun, pump.ended

    found, begun, ended = asyncio.run(run())
    assert {one.id for one in found} == {f"{name}/{number}" for name in ("broken", "sound") for number in range(100)}
    assert begun == ["", "10", "20", "30"]  # what had come before each break was kept
    assert ended == {"broken": "", "sound": ""}


def test_a_source_that_can_never_work_ends_alone_and_somebody_is_told(virtual_time):
    async def run():
        async with stage() as (bus, state):
            told = []
            sources = [Numbers("refused", steps={5: ConfigError("the key is refused", hint="renew it")}), Numbers("sound")]
            pump = Pump(bus, state, sources, wait=virtual_time.wait, alert=lambda subject, text: told.append((subject, text)))
            async with pump:
                await pump.run()
                return pump.ended, told, sources[0].health, pump.published

    ended, told, health, published = asyncio.run(run())
    assert ended == {"refused": "ConfigError: the key is refused", "sound": ""}
    assert told == [("source refused", "refused has ended: the key is refused → renew it")]
    assert (health.state, health.reason) == ("closed", "the key is refused")
    assert published == {"refused": 5, "sound": 100}


def test_a_mistake_that_comes_again_and_again_is_given_up_after_a_while(virtual_time):
    class Hopeless(Numbers):
        async def arrivals(self, position):
            self.begun.append(position)
            raise TypeError("always")
            yield

    async def run():
        async with stage() as (bus, state):
            source = Hopeless()
            async with Pump(bus, state, [source], wait=virtual_time.wait) as pump:
                await pump.run()
                return pump.ended, len(source.begun)

    ended, begun = asyncio.run(run())
    assert ended == {"one": "TypeError: always"}
    assert begun == 9
    assert sum(virtual_time.waits) > 30.0


def test_a_state_that_is_away_for_long_is_no_mistake_of_the_source(virtual_time):
    """Redis started again: the source waits as long as that takes, instead of being given up."""

    class Away:
        def __init__(self, inner, failures):
            self.inner, self.failures = inner, failures

        async def get(self, names):
            if self.failures:
                self.failures -= 1
                raise StoreError("the server is gone")
            return await self.inner.get(names)

        async def put(self, values, **given):
            await self.inner.put(values, **given)

    async def run():
        async with stage() as (bus, state):
            async with Pump(bus, Away(state, 30), [Numbers(until=10)], wait=virtual_time.wait) as pump:
                await pump.run()
            return await said(bus), pump.ended

    found, ended = asyncio.run(run())
    assert len(found) == 10
    assert ended == {"one": ""}


def test_a_pump_that_ends_while_the_bus_refuses_keeps_no_position_beyond_what_is_on_it(virtual_time):
    async def run():
        async with stage() as (bus, state):
            refused = Stumbling(bus, failures=10**9)
            async with Pump(refused, state, [Numbers(until=10, endless=True)], position_seconds=0.0, wait=virtual_time.wait) as pump:
                pump.start()
                while refused.calls < 3:
                    await asyncio.sleep(0.01)
            async with Pump(bus, state, [Numbers(until=10)], wait=virtual_time.wait) as again:
                await again.run()
            return await said(bus)

    assert {envelope.id for envelope in asyncio.run(run())} == {f"one/{number}" for number in range(10)}


def test_dead_letters_go_to_their_topic_with_the_reason(virtual_time):
    async def run():
        async with stage() as (bus, state):
            source = Numbers(until=10, steps={3: "no JSON", 7: "no price"})
            async with Pump(bus, state, [source], wait=virtual_time.wait) as pump:
                await pump.run()
            return await said(bus), await said(bus, "market.dead")

    found, dead = asyncio.run(run())
    assert len(found) == 10
    # the same bytes twice are the same letter: whoever fetches a message again gives it the same id
    assert [(read_dead(one).reason, read_dead(one).data) for one in dead] == [("no JSON", b"garbage"), ("no price", b"garbage")]
    assert len({one.id for one in dead}) == 1


def test_closing_publishes_what_had_come_and_keeps_the_place():
    async def run():
        async with stage() as (bus, state):
            gate = asyncio.Event()
            source = Numbers(until=10, endless=True)
            pump = Pump(Stumbling(bus, gate=gate), state, [source], position_seconds=60.0)
            pump.start()
            while source.given < 10:
                await asyncio.sleep(0)
            closing = asyncio.create_task(pump.close())
            await asyncio.sleep(0.01)
            assert not closing.done()
            gate.set()
            await closing
            await pump.close()  # again, it does nothing
            return len(await said(bus)), await kept(state), source.health.state, pump.ended

    assert asyncio.run(run()) == (10, b"10", "closed", {"one": ""})


def test_a_source_that_does_not_let_go_is_left_after_the_time_given():
    class Deaf(Numbers):
        async def close(self):
            pass

    async def run():
        async with stage() as (bus, state):
            source = Deaf(until=10, endless=True)
            pump = Pump(bus, state, [source], position_seconds=0.001)
            pump.start()
            while await kept(state) != b"10":
                await asyncio.sleep(0.001)
            await asyncio.wait_for(pump.close(timeout_seconds=0.05), 2.0)
            return len(await said(bus)), source.health.state

    assert asyncio.run(run()) == (10, "closed")


def test_messages_go_on_while_positions_cannot_be_kept(virtual_time):
    async def run():
        async with stage() as (bus, state):
            put, failures = state.put, [3]

            async def failing(values, **others):
                if failures[0]:
                    failures[0] -= 1
                    raise StoreError("no space left")
                await put(values, **others)

            state.put = failing
            source = Numbers(until=300)
            async with Pump(
                Stumbling(bus, seconds=0.005), state, [source], position_seconds=0.001, most_waiting=20, wait=virtual_time.wait
            ) as pump:
                await pump.run()
            return len(await said(bus)), await kept(state), source.begun, failures

    assert asyncio.run(run()) == (300, b"300", [""], [0])


def test_a_place_that_cannot_be_read_is_asked_for_again(virtual_time):
    """Nobody knows where to go on: beginning anew would lose what came meanwhile for sources that begin now."""

    async def run():
        async with stage() as (bus, state):
            await state.put({"position/one": b"90"})
            get, failures = state.get, [2]

            async def failing(names):
                if failures[0]:
                    failures[0] -= 1
                    raise StoreError("locked")
                return await get(names)

            state.get = failing
            source = Numbers()
            async with Pump(bus, state, [source], wait=virtual_time.wait) as pump:
                await pump.run()
            return source.begun, len(await said(bus))

    assert asyncio.run(run()) == (["90"], 10)


def test_two_sources_of_one_name_are_refused():
    with pytest.raises(ConfigError, match="two sources are named one"):
        Pump(None, None, [Numbers(), Numbers()])
