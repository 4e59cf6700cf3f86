"""What publishers do wrong: say things twice, out of order, by a wrong clock, ten times as much as can be read. Counts are printed.

Kafka's own faults: `test_bus_faults_kafka`. Where a real broker could bear differently from the embedded bus, both are asked.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from itertools import pairwise

import pytest

from cryptoalpha.core.clock import VirtualClock
from cryptoalpha.core.seeds import stream
from cryptoalpha.data.bus.config import BusConfig, WorkerConfig
from cryptoalpha.data.bus.envelope import SCHEMA, Envelope
from cryptoalpha.data.bus.inbox import Inbox
from cryptoalpha.data.bus.memory import MemoryBus
from cryptoalpha.data.bus.worker import Worker

QUICK = WorkerConfig(batch=50, wait_seconds=0.05, retry_seconds=0.05, retry_limit_seconds=0.3)
SECOND, HOUR = 10**9, 3_600 * 10**9
NOW = 1_700_000_000 * SECOND


def message(number: int, *, topic: str = "texts", came: int = NOW) -> Envelope:
    return Envelope(
        id=f"m{number}",
        topic=topic,
        key=f"k{number % 9}",
        source="x",
        kind="Post",
        schema=SCHEMA,
        event_time=number,
        observed_time=came,
        payload=b"p" * 60,
    )


class Book:
    """Notes what was handled, and says one thing of each message."""

    def __init__(self) -> None:
        self.order: list[tuple[str, int]] = []

    async def handle(self, envelopes):
        self.order += [(envelope.key, envelope.event_time) for envelope in envelopes]
        return [message(envelope.event_time, topic="signals") for envelope in envelopes]

    @property
    def times(self) -> Counter[int]:
        return Counter(number for _, number in self.order)


async def until(done, what: str, task: asyncio.Task, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        if task.done():
            task.result()
            raise AssertionError(f"the worker ended before {what}")
        assert time.monotonic() < deadline, f"waited {seconds:g} s for {what}"
        await asyncio.sleep(0.01)


def worker_of(bus, inbox, handler, **more) -> Worker:
    return Worker(bus, inbox, handler, topics=["texts"], config=QUICK, random=stream(0, "w"), **more)


async def ended(worker: Worker, task: asyncio.Task) -> None:
    worker.stop()
    await asyncio.wait_for(task, 30.0)


def run(story) -> None:
    asyncio.run(asyncio.wait_for(story, 150.0))


@pytest.fixture(params=["file", pytest.param("noida", marks=pytest.mark.slow)])
def opened(request, tmp_path, kafka_broker):
    """Opens the embedded bus, or Kafka's on a real broker."""
    if request.param == "file":
        return lambda: MemoryBus(BusConfig(), tmp_path / "bus.sqlite")
    from cryptoalpha.data.bus.kafka import KafkaBus

    broker = kafka_broker("noida")
    return lambda: KafkaBus(BusConfig(request_seconds=5.0), broker.servers)


def test_a_message_delivered_again_takes_effect_once_in_a_batch_later_and_after_a_restart(opened, tmp_path):
    async def story():
        book, taken, repeats = Book(), 0, 0
        for number in range(3):  # the source fetches everything again, each time for a new worker
            async with opened() as bus, Inbox(tmp_path / "in.sqlite", "g", QUICK) as inbox:
                worker = worker_of(bus, inbox, book.handle)
                task = asyncio.create_task(worker.run())
                for begin in range(0, 400, 40):
                    await bus.publish([message(n) for n in range(begin, begin + 40) for _ in range(2)])
                await until(lambda worker=worker: worker.counts.taken >= 800, f"800 messages of delivery {number}", task)
                await until(lambda worker=worker: worker.counts.handled + worker.counts.repeats >= 800, "them to be settled", task)
                await ended(worker, task)
                taken, repeats = taken + worker.counts.taken, repeats + worker.counts.repeats
        print(f"duplicate delivery: 400 messages came {taken} times, {len(book.times)} took effect, {repeats} repeats told apart")
        assert book.times == dict.fromkeys(range(400), 1)
        assert repeats == taken - 400

    run(story())


def test_messages_out_of_order_are_handled_once_each_in_the_order_of_their_key_as_published(opened, tmp_path):
    """The bus keeps the order it was given; who needs the publishers' sorts by time (`signals.agents.intake`)."""
    numbers = list(range(600))
    random.Random(4).shuffle(numbers)

    async def story():
        book = Book()
        async with opened() as bus, Inbox(tmp_path / "in.sqlite", "g", QUICK) as inbox:
            worker = worker_of(bus, inbox, book.handle)
            task = asyncio.create_task(worker.run())
            for begin in range(0, 600, 30):
                await bus.publish([message(n) for n in numbers[begin : begin + 30]])
            await until(lambda: len(book.order) >= 600, "600 messages to be handled", task)
            await ended(worker, task)
        late = sum(1 for before, after in pairwise(numbers) if after < before)
        print(f"out of order: 600 messages, {late} of them older than the one before, {len(book.times)} handled, none twice")
        assert book.times == dict.fromkeys(range(600), 1)
        for key in {key for key, _ in book.order}:
            assert [n for other, n in book.order if other == key] == [n for n in numbers if f"k{n % 9}" == key]

    run(story())


@pytest.mark.parametrize("hours", [24, -24])
def test_a_publisher_whose_clock_is_wrong_makes_nobody_miss_what_came_after_a_loss(tmp_path, hours):
    """A lost log is read again from a while before the last message on; a stamp that lies a day ahead is no time to go by."""
    path = tmp_path / "bus.sqlite"

    async def story():
        clock, book, found = VirtualClock(NOW), Book(), []

        async def read(bus, count: int) -> Worker:
            async with Inbox(tmp_path / "in.sqlite", "g", QUICK, clock=clock) as inbox:
                worker = worker_of(bus, inbox, book.handle, on_regress=found.append)
                task = asyncio.create_task(worker.run())
                await until(lambda: len(book.times) >= count, f"{count} messages to be handled, {len(book.times)} are", task, 20.0)
                await ended(worker, task)
                return worker

        async with MemoryBus(BusConfig(), path, clock=clock) as bus:
            await bus.publish([message(n, came=clock.now() + (hours * HOUR if n % 2 or n >= 180 else 0)) for n in range(200)])
            await read(bus, 200)
        for part in tmp_path.glob("bus.sqlite*"):
            part.unlink()
        async with MemoryBus(BusConfig(), path, clock=clock) as bus:  # the reader is away: two days go by
            for begin in (200, 400, 600):
                clock.advance_to(clock.now() + 16 * HOUR)
                await bus.publish([message(n, came=clock.now()) for n in range(begin - 20, begin + 200)])  # 20 are fetched again
            worker = await read(bus, 800)
        print(
            f"clock skew of {hours:+d} h: log lost, {len(found)} partitions noticed, 600 messages since, {len(book.times)} of 800 handled, "
            f"{worker.counts.repeats} repeats told apart"
        )
        assert book.times == dict.fromkeys(range(800), 1)
        assert {regress.kind for regress in found} == {"log_regressed"}

    run(story())


@pytest.mark.slow
def test_a_burst_over_kafka_waits_on_the_broker_for_a_slow_consumer(tmp_path, kafka_broker):
    """It handles one message while ten are published. Memory is watched on the embedded bus: noida-db answers a fetch with all it has,
    however little was asked for."""
    from cryptoalpha.data.bus.kafka import KafkaBus

    broker = kafka_broker("noida")

    async def story():
        book, turns = Book(), asyncio.Semaphore(0)

        async def slow(envelopes):
            for _ in envelopes:
                await turns.acquire()
            return await book.handle(envelopes)

        def allow(count: int) -> None:
            for _ in range(count):
                turns.release()

        async with KafkaBus(BusConfig(request_seconds=5.0), broker.servers) as bus, Inbox(tmp_path / "in.sqlite", "g", QUICK) as inbox:
            worker = worker_of(bus, inbox, slow)
            task = asyncio.create_task(worker.run())
            allow(1000)
            await bus.publish([message(n) for n in range(500)])
            await until(lambda: len(book.order) >= 500, "500 messages to be handled before the burst", task)
            for begin in range(500, 12_500, 50):
                await bus.publish([message(n) for n in range(begin, begin + 50)])
                allow(5)
            waiting = await worker.lag()
            meanwhile = len(book.order) - 500  # some of them since
            allow(20_000)
            await until(lambda: len(book.order) >= 12_500, "12500 messages to be handled", task)
            await ended(worker, task)
        print(
            f"slow consumer, 10× burst: noida, 12000 messages, {meanwhile} handled meanwhile, {waiting} waited on the broker, "
            f"{len(book.times)} handled once in the end"
        )
        assert book.times == dict.fromkeys(range(12_500), 1)
        assert 12_000 - meanwhile <= waiting <= 12_000

    run(story())
