"""The embedded bus under kill -9, loss of its file, floods and slow readers: counts are printed.

The process that is killed publishes, handles and settles at random speed. What it published successfully it notes outside; every output
carries a number drawn when the message was handled, so an effect that was kept twice shows as two outputs of one message.
"""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from cryptoalpha.core.seeds import stream
from cryptoalpha.data.bus.config import BusConfig, TopicConfig, WorkerConfig
from cryptoalpha.data.bus.envelope import SCHEMA, Envelope
from cryptoalpha.data.bus.inbox import Inbox
from cryptoalpha.data.bus.memory import MemoryBus
from cryptoalpha.data.bus.worker import Worker

PROCESS = """
import asyncio, os, sys, random, signal
from pathlib import Path
from cryptoalpha.core.seeds import stream
from cryptoalpha.data.bus.config import BusConfig, WorkerConfig
from cryptoalpha.data.bus.envelope import SCHEMA, Envelope
from cryptoalpha.data.bus.inbox import Inbox
from cryptoalpha.data.bus.memory import MemoryBus
from cryptoalpha.data.bus.worker import Worker

def message(name, topic="texts", key=None):
    return Envelope(id=name, topic=topic, key=key or name[-1], source="x", kind="Post", schema=SCHEMA, event_time=1, observed_time=1,
                    payload=os.urandom(60))

async def live(folder, seed):
    chance = random.Random(seed)
    acknowledged = os.open(folder / "acknowledged", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    done = (folder / "acknowledged").read_text().split()
    at = max(0, len(done) - 7)  # a source that comes back fetches some again: the same ids
    async def handle(envelopes):
        await asyncio.sleep(chance.random() * 0.004)
        return [message(f"{e.id}#{os.urandom(8).hex()}", "signals") for e in envelopes]
    config = WorkerConfig(batch=25, wait_seconds=0.05)
    async with MemoryBus(BusConfig(), folder / "bus.sqlite") as bus, Inbox(folder / "in.sqlite", "g", config) as inbox:
        worker = Worker(bus, inbox, handle, topics=["texts"], config=config, random=stream(seed, "w"))
        task = asyncio.create_task(worker.run())
        while True:
            count = chance.randint(1, 12)
            names = [f"m{n}" for n in range(at, at + count)]
            await bus.publish([message(name) for name in names])
            fresh = [name for name in names if int(name[1:]) >= len(done)]
            os.write(acknowledged, "".join(name + chr(10) for name in fresh).encode())
            done += fresh
            at += count
            await asyncio.sleep(chance.random() * 0.003)
            if task.done():
                task.result()

folder = Path(sys.argv[1])
stream(0, "w")  # what is slow to import is imported before the fork
for line in sys.stdin:
    seed, seconds = line.split()
    child = os.fork()
    if child == 0:
        try:
            asyncio.run(live(folder, int(seed)))
        finally:
            os._exit(1)
    import time
    time.sleep(float(seconds))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    print("killed" if os.WIFSIGNALED(status) else f"ended {status}", flush=True)
"""

QUICK = WorkerConfig(batch=100, wait_seconds=0.05)


def message(name: str, topic: str = "texts", key: str = "k", size: int = 60) -> Envelope:
    return Envelope(
        id=name, topic=topic, key=key, source="x", kind="Post", schema=SCHEMA, event_time=1, observed_time=1, payload=b"p" * size
    )


async def settled(bus, inbox, *, regressed=None) -> Worker:
    """A worker that handles everything there is."""

    async def echo(envelopes):
        return [message(f"{envelope.id}#last", "signals") for envelope in envelopes]

    worker = Worker(bus, inbox, echo, topics=["texts"], config=QUICK, random=stream(0, "w"), on_regress=regressed)
    task = asyncio.create_task(worker.run())
    quiet = 0
    while quiet < 4:
        taken = worker.counts.taken
        await asyncio.sleep(0.1)
        quiet = quiet + 1 if worker.counts.taken == taken else 0
    worker.stop()
    await task
    return worker


async def all_of(bus, topic: str) -> list[str]:
    found = []
    async with await bus.subscribe("check", [topic]) as consumer:
        while records := await consumer.take(500, wait_seconds=0.1):
            found += [record.envelope.id for record in records]
    return found


@pytest.mark.parametrize("kills", [15, pytest.param(200, marks=pytest.mark.slow)])
def test_killed_at_random_points_every_message_takes_effect_once(tmp_path, kills):
    chance = random.Random(kills)
    with subprocess.Popen(
        [sys.executable, "-c", PROCESS, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for seed in range(kills):
            print(seed, chance.uniform(0.02, 0.15), file=process.stdin, flush=True)
            assert process.stdout.readline() == "killed\n"
        process.stdin.close()
    acknowledged = (tmp_path / "acknowledged").read_text().split()

    async def story():
        async with MemoryBus(BusConfig(), tmp_path / "bus.sqlite") as bus, Inbox(tmp_path / "in.sqlite", "g", QUICK) as inbox:
            worker = await settled(bus, inbox)
            outputs, texts = await all_of(bus, "signals"), await all_of(bus, "texts")
            assert await inbox.handled(acknowledged[-5000:]) == set(acknowledged[-5000:])
            assert worker.counts.regressed == []
        return outputs, texts

    outputs, texts = asyncio.run(story())
    effects = defaultdict(set)
    for name in outputs:
        effects[name.split("#")[0]].add(name)
    doubled = {name: names for name, names in effects.items() if len(names) > 1}
    print(
        f"consumer killed mid-batch: embedded, {kills} kills: {len(acknowledged)} messages acknowledged, {len(texts)} kept with repeats, "
        f"{len(effects)} took effect, {len(doubled)} twice, {len(outputs) - len(set(outputs))} outputs said again under the same id"
    )
    assert len(acknowledged) > 10 * kills
    assert set(acknowledged) <= set(texts), "what was acknowledged is kept"
    assert set(effects) == set(texts), "what is kept took effect"
    assert doubled == {}


def test_a_log_that_was_deleted_and_has_grown_again_is_noticed_and_read_from_where_it_could_be_new(tmp_path):
    path = tmp_path / "bus.sqlite"

    async def story():
        found = []
        async with Inbox(tmp_path / "in.sqlite", "g", QUICK) as inbox:
            async with MemoryBus(BusConfig(), path) as bus:
                await bus.publish([message(f"a{n}", key=f"k{n % 9}") for n in range(400)])
                assert (await settled(bus, inbox)).counts.handled == 400
            for part in tmp_path.glob("bus.sqlite*"):
                part.unlink()
            async with MemoryBus(BusConfig(), path) as bus:
                # the source fetches again the second half and what came since; the log is longer than the old one was
                again = [message(f"a{n}", key=f"k{n % 9}") for n in range(200, 400)]
                await bus.publish(again + [message(f"b{n}", key=f"k{n % 9}") for n in range(600)])
                worker = await settled(bus, inbox, regressed=found.append)
                assert {regress.kind for regress in found} == {"log_regressed"}
                assert (worker.counts.handled, worker.counts.repeats) == (600, 200)
                assert Counter(await all_of(bus, "signals")) == {f"b{n}#last": 1 for n in range(600)}
        print(f"log lost and grown again: {len(found)} partitions noticed, 600 new messages handled, 200 repeats told apart")

    asyncio.run(story())


def resident_megabytes() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


def test_a_burst_ten_times_too_large_and_a_slow_reader_are_borne_in_bounded_memory_and_counted(tmp_path):
    config = BusConfig(other=TopicConfig(partitions=2, records=2000, overflow="drop_oldest"))

    async def story():
        slow_handled = 0
        async with MemoryBus(config, tmp_path / "bus.sqlite") as bus, await bus.subscribe("slow", ["flood"]) as slow:
            await slow.take(1, wait_seconds=0.0)
            await bus.publish([message(f"warm{n}", "flood", f"k{n % 50}", 1000) for n in range(2000)])
            before = resident_megabytes()
            most = held = 0.0
            for begin in range(0, 40_000, 500):
                await bus.publish([message(f"m{n}", "flood", f"k{n % 50}", 1000) for n in range(begin, begin + 500)])
                if begin % 5000 == 0:
                    slow_handled += len(await slow.take(10, wait_seconds=0.0))
                most = max(most, resident_megabytes() - before)
                held = max(held, *(float(bus.part(place).end - bus.part(place).start) for place in bus.log.parts))
            while records := await slow.take(500, wait_seconds=0.0):
                slow_handled += len(records)
            published, dropped = bus.counts.published["flood"], bus.counts.dropped["flood"]
        print(
            f"slow consumer, 10× burst: embedded, {published} published, {slow_handled} read by a slow reader, {dropped} dropped and "
            f"counted; log at most {held:.0f} messages a partition, memory at most {most:.0f} MB more"
        )
        assert published == slow_handled + dropped == 42_000
        assert held <= 2000
        assert most < 40.0, "40 MB were published"

    asyncio.run(story())
