"""Kafka's faults on real brokers: killed and restarted, readers killed in the middle, groups that change, logs lost and grown again.

Effects are outputs with a number drawn when the message was handled: two of one message would be an effect that was kept twice. Counts are
printed. noida-db writes its log about once a second and keeps what it wrote over a kill -9; tansu loses everything, answers with silence,
and acknowledges what a producer from before sends to a topic it has lost, of which it keeps nothing: there the source begins anew, too.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from uuid import uuid4

import pytest

from cryptoalpha.core.errors import VenueError
from cryptoalpha.core.seeds import stream
from cryptoalpha.data.bus.config import BusConfig, WorkerConfig
from cryptoalpha.data.bus.envelope import SCHEMA, Envelope
from cryptoalpha.data.bus.inbox import Inbox
from cryptoalpha.data.bus.worker import Worker

QUICK = WorkerConfig(batch=100, wait_seconds=0.2, retry_seconds=0.05, retry_limit_seconds=0.3)


def bus_at(broker, **more):
    from cryptoalpha.data.bus.kafka import KafkaBus

    return KafkaBus(BusConfig(idempotence=broker.kind != "tansu", request_seconds=3.0, **more), broker.servers)


def message(number: int, topic: str = "texts", name: str = "") -> Envelope:
    return Envelope(
        id=name or f"m{number}",
        topic=topic,
        key=f"k{number % 40}",
        source="x",
        kind="Post",
        schema=SCHEMA,
        event_time=number,
        observed_time=1_700_000_000_000_000_000 + number,
        payload=b"p" * 100,
    )


class Effects:
    """What workers did: outputs of each message, by the numbers drawn when they were handled."""

    def __init__(self) -> None:
        self.kept: dict[str, set[str]] = defaultdict(set)
        self.drawn: Counter[str] = Counter()

    async def handle(self, envelopes):
        self.drawn.update(envelope.id for envelope in envelopes)
        return [message(0, "signals", f"{envelope.id}#{uuid4().hex}") for envelope in envelopes]

    async def read(self, bus) -> None:
        """The outputs as the broker holds them."""
        for name in await held(bus, "signals"):
            self.kept[name.split("#")[0]].add(name)

    @property
    def doubled(self) -> list[str]:
        return [name for name, outputs in self.kept.items() if len(outputs) > 1]


async def held(bus, topic: str, at_least: int = 1, seconds: float = 30.0) -> list[str]:
    """Everything the broker holds: read until nothing has come for a while."""
    found: list[str] = []
    quiet, deadline = 0, time.monotonic() + seconds
    async with await bus.subscribe(uuid4().hex, [topic]) as consumer:
        while quiet < 2 or len(found) < at_least:
            assert time.monotonic() < deadline, f"{len(found)} messages of {topic} read within {seconds:g} s, waited for {at_least}"
            records = await consumer.take(500, wait_seconds=1.0)
            found += [record.envelope.id for record in records]
            quiet = 0 if records else quiet + 1
    return found


async def publish_for_certain(bus, envelopes, seconds: float = 40.0) -> int:
    """As a source does it: again until it is kept; how often that failed."""
    failures, deadline = 0, time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            await bus.publish(envelopes)
        except VenueError:
            failures += 1
            await asyncio.sleep(0.1)
        else:
            return failures
    raise AssertionError(f"waited {seconds:g} s for {len(envelopes)} messages to be kept, refused {failures} times")


async def until(done, what: str, seconds: float = 40.0, task: asyncio.Task | None = None) -> None:
    """Wait for something; where it does not come, or the task that should bring it ends, say so."""
    deadline = time.monotonic() + seconds
    while not done():
        if task is not None and task.done():
            task.result()
            raise AssertionError(f"ended before {what}")
        assert time.monotonic() < deadline, f"waited {seconds:g} s for {what}"
        await asyncio.sleep(0.05)


def worker_of(bus, inbox, handler, **more) -> Worker:
    return Worker(bus, inbox, handler, topics=["texts"], config=QUICK, random=stream(0, "w"), **more)


def run(story) -> None:
    """Every wait of a story has a deadline of its own; this one is for what nobody thought of."""
    asyncio.run(asyncio.wait_for(story, 300.0))


@pytest.mark.slow
def test_a_broker_killed_and_restarted_loses_nothing_it_still_holds(tmp_path, kafka_broker):
    """noida-db is killed three times under load: twice straight after acknowledging, once when it has written; then the source fetches
    everything again."""
    broker = kafka_broker("noida")
    chance = random.Random(1)

    async def story():
        effects, regressed, ends, failures = Effects(), [], [], 0
        async with bus_at(broker) as bus, Inbox(tmp_path / "in.sqlite", "g", QUICK) as inbox:
            worker = worker_of(bus, inbox, effects.handle, on_regress=regressed.append)
            task = asyncio.create_task(worker.run())

            asking = asyncio.create_task(ask(worker))

            async def handled(count: int, when: str) -> None:
                await until(lambda: len(effects.drawn) == count, f"{count} messages to be handled {when}", task=task)

            at = 0
            for number in range(3):
                for _ in range(8):
                    failures += await publish_for_certain(bus, [message(n) for n in range(at, at + 25)])
                    at += 25
                    await asyncio.sleep(chance.random() * 0.1)
                await handled(at, f"before kill {number}")
                if number == 1:
                    await written(broker, len(await held(bus, "texts")))
                failures += await publish_for_certain(bus, [message(n) for n in range(at, at + 100)])
                at += 100
                await handled(at, f"straight before kill {number}")
                broker.kill()  # at once: what it acknowledged last was handled and may not be on its disk yet
                ends.append((at, on_disk(broker)))
                broker.start()
                failures += await publish_for_certain(bus, [message(n) for n in range(at, at + 40)])
                at += 40
                await handled(at, f"after kill {number}")
            names = set(await held(bus, "texts", 40))
            await until(lambda: names <= effects.drawn.keys(), "everything the broker holds to be handled", task=task)
            lost = {f"m{n}" for n in range(at)} - names
            failures += await publish_for_certain(bus, [message(n) for n in range(at)])  # fetched again from the source
            await until(lambda: worker.counts.repeats >= at, f"{at} messages fetched again to be told apart", task=task)
            asking.cancel()
            await asyncio.wait([asking])
            assert asking.cancelled(), "whoever asks for the lag is told of an outage and of nothing else"
            worker.stop()
            await task
            assert await inbox.handled([f"m{n}" for n in range(at)]) == {f"m{n}" for n in range(at)}
            await effects.read(bus)
        print(
            f"broker killed and restarted: noida, 3 kills, (published, on its disk) {ends}: {at} messages, {len(lost)} the broker "
            f"had acknowledged and lost, {failures} publications failed and were said again, {worker.counts.repeats} repeats told apart, "
            f"{len(regressed)} times a log found regressed, {len(effects.doubled)} effects twice"
        )
        assert ends[1][1] > 0, "what it had written it still holds"
        assert effects.doubled == []
        assert max(effects.drawn.values()) == 1
        assert regressed or not lost, "everything had been handled, so a message that is lost left the reader beyond the end"

    run(story())


async def ask(worker) -> None:
    """How far behind it is, all the time, as whoever watches it does: also while the broker is away."""
    while True:
        with suppress(VenueError):
            await worker.lag()
        await asyncio.sleep(0.02)


def on_disk(broker) -> int:
    """Messages of texts in the file that noida-db begins with again."""
    file = broker.folder / "kafka.json"
    topics = dict(json.loads(file.read_bytes())["topics"]) if file.exists() else {}
    return sum(partition["high_watermark"] for _, partition in topics["texts"]["partitions"]) if "texts" in topics else 0


async def written(broker, count: int, seconds: float = 30.0) -> None:
    """Until noida-db has written that many messages of texts."""
    await until(lambda: on_disk(broker) >= count, f"the broker to write {count} messages", seconds)


@pytest.mark.slow
def test_a_broker_that_lost_its_log_is_noticed_also_when_the_log_has_grown_beyond(tmp_path, kafka_broker):
    """tansu forgets everything and says nothing: the reader stands at an offset that the new log soon has too."""
    broker = kafka_broker("tansu")

    async def published(begin: int, end: int) -> int:
        """By a source that begins anew with the broker."""
        async with bus_at(broker) as source:
            return await publish_for_certain(source, [message(n) for n in range(begin, end)])

    async def story():
        effects, regressed = Effects(), []
        async with bus_at(broker) as bus, Inbox(tmp_path / "in.sqlite", "g", QUICK) as inbox:
            worker = worker_of(bus, inbox, effects.handle, on_regress=regressed.append)
            task = asyncio.create_task(worker.run())
            failures = await published(0, 300)
            await until(lambda: len(effects.drawn) == 300, "300 messages to be handled", task=task)
            broker.kill()
            broker.start()
            # twice as much as before, in one go: every partition ends beyond where the reader stands before it looks
            failures += await published(200, 900)
            await until(lambda: len(effects.drawn) == 900, "900 messages to be handled, 600 after a loss", task=task)
            places = {regress.place for regress in regressed}
            broker.kill()
            broker.start()
            failures += await published(900, 960)  # now less than before
            await until(lambda: len(effects.drawn) == 960, "960 messages to be handled, 60 after the second loss", task=task)
            worker.stop()
            await task
        print(
            f"broker's log lost: tansu, twice: 960 messages handled, {worker.counts.repeats} repeats told apart, {len(places)} partitions "
            f"found regressed after growing beyond, {len(regressed) - len(places)} after shrinking, {failures} publications failed"
        )
        assert max(effects.drawn.values()) == 1
        assert len(places) == 4
        assert {regress.kind for regress in regressed} == {"log_regressed"}

    run(story())


READER = """
import asyncio, sys
from pathlib import Path
from uuid import uuid4
from cryptoalpha.core.seeds import stream
from cryptoalpha.data.bus.config import BusConfig, WorkerConfig
from cryptoalpha.data.bus.envelope import SCHEMA, Envelope
from cryptoalpha.data.bus.inbox import Inbox
from cryptoalpha.data.bus.kafka import KafkaBus
from cryptoalpha.data.bus.worker import Worker

async def live(servers, inbox_path, last):
    left = iter(range(last, -1, -1))
    async def handle(envelopes):
        print(len(envelopes), flush=True)
        if next(left) == 1:
            await asyncio.sleep(1000)
        await asyncio.sleep(0.01)
        return [Envelope(id=f"{e.id}#{uuid4().hex}", topic="signals", key=e.key, source="x", kind="Post", schema=SCHEMA, event_time=1,
                         observed_time=1, payload=b"") for e in envelopes]
    config = WorkerConfig(batch=20, wait_seconds=0.2)
    async with KafkaBus(BusConfig(idempotence=False), servers) as bus, Inbox(Path(inbox_path), "g", config, shared=True) as inbox:
        await Worker(bus, inbox, handle, topics=["texts"], config=config, random=stream(0, "w")).run()

asyncio.run(live(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


class Reader:
    """A process that reads, and what it has said of its batches."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process, self.batches, self.handled = process, 0, 0

    async def listen(self) -> None:
        while line := await self.process.stdout.readline():
            self.batches += 1
            self.handled += int(line)


@asynccontextmanager
async def reading(broker, inbox_path, last: int) -> AsyncIterator[tuple[Reader, asyncio.Task]]:
    """A reader that stays in the middle of its batch `last`, and the task that ends when it does; killed at the end, whatever happened."""
    command = [sys.executable, "-c", READER, broker.servers, str(inbox_path), str(last)]
    reader = Reader(await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE))
    listening = asyncio.create_task(reader.listen())
    try:
        yield reader, listening
    finally:
        if reader.process.returncode is None:
            reader.process.kill()
        await reader.process.wait()
        await listening  # what it had said before it was killed


@pytest.mark.slow
@pytest.mark.parametrize("kills", [3])
def test_a_reader_killed_in_the_middle_of_a_batch_leaves_it_to_the_next(tmp_path, kafka_broker, kills):
    """On tansu: noida-db goes on waiting for a group's leader that was killed, and hands its partitions to nobody."""
    broker = kafka_broker("tansu")
    chance = random.Random(2)
    everything = [f"m{n}" for n in range(2000)]

    async def story():
        effects, handled = Effects(), 0
        async with bus_at(broker) as bus, Inbox(tmp_path / "in.sqlite", "g", QUICK, shared=True) as inbox:
            await publish_for_certain(bus, [message(n) for n in range(2000)])
            for number in range(kills):
                batches = chance.randint(2, 8)
                async with reading(broker, tmp_path / "in.sqlite", batches) as (reader, end):
                    await until(
                        lambda reader=reader, wanted=batches: reader.batches >= wanted,
                        f"reader {number} to be at batch {batches}",
                        task=end,
                    )
                handled += reader.handled
            settled_before = settled = len(await inbox.handled(everything))
            async with reading(broker, tmp_path / "in.sqlite", 10_000) as (reader, end):
                deadline = time.monotonic() + 90.0
                while settled < 2000:
                    assert not end.done(), f"the last reader ended with {settled} of 2000 settled"
                    assert time.monotonic() < deadline, f"waited 90 s for 2000 messages to be settled, {settled} are"
                    await asyncio.sleep(0.1)
                    settled = len(await inbox.handled(everything))
            handled += reader.handled
            numbers, left = await inbox.outbox()
            await publish_for_certain(bus, left)
            await inbox.forget(numbers)
            await effects.read(bus)
        print(
            f"consumer killed mid-batch: tansu, {kills} readers: 2000 messages handled {handled} times, {settled_before} settled before "
            f"the last reader, {len(effects.kept)} took effect, {len(effects.doubled)} twice"
        )
        assert set(effects.kept) == set(everything)
        assert effects.doubled == []
        assert kills <= handled - 2000 <= 20 * kills, "the batch in hand of each was handled again"
        assert settled_before < 2000

    run(story())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["noida", "tansu"])
def test_members_come_and_go_and_one_is_cancelled_while_duplicates_arrive_out_of_order(tmp_path, kafka_broker, kind):
    broker = kafka_broker(kind)
    chance = random.Random(3)

    async def story():
        effects, workers, tasks = Effects(), [], []
        async with (
            bus_at(broker, release_seconds=3.0) as bus,
            Inbox(tmp_path / "in.sqlite", "g", QUICK, shared=True) as one,
            Inbox(tmp_path / "in.sqlite", "g", QUICK, shared=True) as two,
        ):
            sent = list(range(1200)) * 2
            chance.shuffle(sent)

            async def publisher():
                for begin in range(0, len(sent), 40):
                    await publish_for_certain(bus, [message(n) for n in sent[begin : begin + 40]])
                    await asyncio.sleep(0.1)

            publishing = asyncio.create_task(publisher())
            for inbox, start_at in ((one, 0), (two, 300), (one, 800)):
                await until(lambda at=start_at: len(effects.drawn) >= min(at, 1000), f"{start_at} messages to be handled")
                worker = worker_of(bus, inbox, effects.handle)
                workers.append(worker)
                tasks.append(asyncio.create_task(worker.run()))
                if start_at == 800:
                    tasks[0].cancel()
                    await asyncio.gather(tasks[0], return_exceptions=True)
            await publishing
            await until(lambda: len(effects.drawn) == 1200, "1200 messages to be handled")
            for worker in workers[1:]:
                worker.stop()
            await asyncio.wait_for(asyncio.gather(*tasks[1:]), 60.0)
            _, left = await one.outbox()
            await publish_for_certain(bus, left)
            await effects.read(bus)
        counts = [(worker.counts.handled, worker.counts.repeats) for worker in workers]
        print(
            f"rebalance: {kind}, members come, go and are cancelled: 1200 messages twice, shuffled; (handled, repeats) by member {counts}, "
            f"{len(effects.kept)} took effect, {len(effects.doubled)} twice"
        )
        assert set(effects.kept) == {f"m{n}" for n in range(1200)}
        assert effects.doubled == []
        # who is cancelled while its batch is being kept does not count it, though it is kept
        assert 1200 - QUICK.batch <= sum(handled for handled, _ in counts) <= 1200

    run(story())
