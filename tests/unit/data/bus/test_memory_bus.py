"""The embedded bus when too much comes, when readers are slow, and when it is opened twice."""

from __future__ import annotations

import asyncio

import pytest

from cryptoalpha.core.clock import VirtualClock
from cryptoalpha.core.errors import StoreError, StoreLockedError
from cryptoalpha.data.bus.config import BusConfig, TopicConfig
from cryptoalpha.data.bus.contract import Place, Progress, progress_of
from cryptoalpha.data.bus.envelope import SCHEMA, Envelope
from cryptoalpha.data.bus.memory import MemoryBus


def message(number: int, topic: str = "texts", key: str = "k", kind: str = "Post") -> Envelope:
    return Envelope(
        id=f"{topic}/{number}",
        topic=topic,
        key=key,
        source="x",
        kind=kind,
        schema=SCHEMA,
        event_time=number,
        observed_time=number,
        payload=b"p" * 50,
    )


def run(story) -> None:
    asyncio.run(asyncio.wait_for(story, 30))


def small(records: int, overflow: str, **more) -> BusConfig:
    return BusConfig(other=TopicConfig(partitions=1, records=records, overflow=overflow, **more))


def test_a_publisher_waits_for_a_slow_reader_and_nothing_is_lost():
    async def story():
        async with MemoryBus(small(50, "block"), None) as bus, await bus.subscribe("g", ["t"]) as consumer:
            await consumer.take(1, wait_seconds=0.0)
            publishing = asyncio.create_task(bus.publish([message(n, "t") for n in range(500)]))
            seen, most = [], 0
            while len(seen) < 500:
                records = await consumer.take(20, wait_seconds=0.5)
                await asyncio.sleep(0.001)  # slow
                part = bus.part(Place("t", 0))
                most = max(most, part.end - part.start)
                await consumer.commit(progress_of(records))
                seen += [record.envelope.event_time for record in records]
            await publishing
            assert seen == list(range(500))
            assert most <= 50, "the log never holds more than it may"
            assert bus.counts.waited["t"] > 0
            assert bus.counts.dropped["t"] == 0

    run(story())


def test_a_blocked_publisher_is_free_when_the_bus_closes():
    async def story():
        bus = MemoryBus(small(5, "block"), None)
        await bus.__aenter__()
        consumer = await bus.subscribe("g", ["t"])
        await consumer.take(1, wait_seconds=0.0)
        publishing = asyncio.create_task(bus.publish([message(n, "t") for n in range(9)]))
        await asyncio.sleep(0.05)
        assert not publishing.done()
        await bus.close()
        with pytest.raises(StoreError, match="closed"):
            await publishing
        with pytest.raises(StoreError, match="closed"):
            await consumer.take(1, wait_seconds=1.0)

    run(story())


def test_who_is_overtaken_is_told_and_what_it_missed_is_counted():
    async def story():
        async with MemoryBus(small(64, "drop_oldest"), None) as bus, await bus.subscribe("g", ["t"]) as consumer:
            await consumer.take(1, wait_seconds=0.0)
            for begin in range(0, 640, 10):  # a burst of ten times what is kept
                await bus.publish([message(n, "t") for n in range(begin, begin + 10)])
            seen = []
            while records := await consumer.take(20, wait_seconds=0.0):
                seen += [record.envelope.event_time for record in records]
            (regress,) = consumer.regressed()
            assert regress.kind == "retention_gap"
            assert seen == list(range(regress.resumed, 640))
            assert len(seen) >= 62
            assert bus.counts.published["t"] == 640 == len(seen) + bus.counts.dropped["t"]

    run(story())


def test_a_reader_that_lags_gets_the_newest_book_of_each_key_and_every_trade():
    config = BusConfig(other=TopicConfig(partitions=1, records=10_000, overflow="conflate", conflated=("Book",)), conflate_above=100)

    async def story():
        async with MemoryBus(config, None) as bus, await bus.subscribe("g", ["t"]) as consumer:
            await consumer.take(1, wait_seconds=0.0)
            sent = [message(n, "t", key=f"k{n % 3}", kind="Trade" if n % 10 == 0 else "Book") for n in range(2000)]
            await bus.publish(sent[:50])
            assert len(await consumer.take(500, wait_seconds=0.0)) == 50, "who keeps up gets all"
            await bus.publish(sent[50:])
            seen = []
            while records := await consumer.take(500, wait_seconds=0.0):
                seen += [record.envelope for record in records]
            trades = [envelope for envelope in sent[50:] if envelope.kind == "Trade"]
            assert [envelope for envelope in seen if envelope.kind == "Trade"] == trades
            for key in ("k0", "k1", "k2"):
                last = [envelope for envelope in sent if envelope.key == key and envelope.kind == "Book"][-1]
                assert [envelope for envelope in seen if envelope.key == key and envelope.kind == "Book"][-1] == last
            assert len(seen) + bus.counts.conflated["t"] == 1950
            assert bus.counts.conflated["t"] > 1500

    run(story())


def test_messages_that_come_together_share_a_commit():
    async def story():
        async with MemoryBus(BusConfig(commit_milliseconds=20.0), None) as bus:
            await bus.publish([message(0)])
            before = bus.counts.commits
            await asyncio.gather(*(bus.publish([message(n)]) for n in range(1, 200)))
            assert bus.counts.commits - before == 1

    run(story())


def test_memory_holds_the_newest_only_and_the_rest_is_read_from_the_file(tmp_path):
    async def story():
        async with MemoryBus(BusConfig(), tmp_path / "bus.sqlite") as bus:
            await bus.publish([message(n) for n in range(6000)])
            (place,) = [place for place in bus.log.parts if bus.part(place).end]
            assert bus.tail(place).begin == 6000 - 4096
            async with await bus.subscribe("g", ["texts"]) as consumer:
                seen = []
                while records := await consumer.take(700, wait_seconds=0.0):
                    seen += [record.envelope.event_time for record in records]
        assert seen == list(range(6000))

    run(story())


def test_one_process_holds_a_log_and_a_second_is_told(tmp_path):
    async def story():
        async with MemoryBus(BusConfig(), tmp_path / "bus.sqlite"):
            with pytest.raises(StoreLockedError, match="in use"):
                await MemoryBus(BusConfig(), tmp_path / "bus.sqlite").__aenter__()
        async with MemoryBus(BusConfig(), tmp_path / "bus.sqlite"):
            pass

    run(story())


def test_a_group_that_is_gone_for_long_holds_nothing_back(tmp_path):
    clock = VirtualClock(10**18)
    path = tmp_path / "bus.sqlite"

    async def story():
        async with MemoryBus(small(5, "block"), path, clock=clock) as bus:
            await bus.subscribe("gone", ["t"])
            await bus.keep_progress("gone", {Place("t", 0): Progress(0)})
            await bus.publish([message(n, "t") for n in range(5)])
        clock.advance_to(10**18 + 25 * 3_600 * 10**9)
        async with MemoryBus(small(5, "block"), path, clock=clock) as bus:
            await bus.publish([message(n, "t") for n in range(5, 25)])
            assert bus.part(Place("t", 0)).extent.end == 25

    run(story())


def test_two_members_never_read_a_partition_at_once_however_they_come_and_go():
    async def story():
        seen: list[str] = []
        async with MemoryBus(BusConfig(), None) as bus:

            async def member(rounds: int) -> None:
                async with await bus.subscribe("g", ["texts"]) as consumer:
                    for _ in range(rounds):
                        records = await consumer.take(30, wait_seconds=0.02)
                        await asyncio.sleep(0.001)
                        if records:
                            await consumer.commit(progress_of(records))
                        seen.extend(record.envelope.id for record in records)

            async def publisher() -> None:
                for n in range(0, 2000, 20):
                    await bus.publish([message(m, key=f"k{m % 50}") for m in range(n, n + 20)])
                    await asyncio.sleep(0.002)

            await asyncio.gather(publisher(), member(5), member(20), member(40), member(10))
            await member(80)
        assert len(seen) == len(set(seen)) == 2000

    run(story())
