"""How much a bus carries, from publishing to having been handled, and how long a message takes.

`carried` publishes messages and lets one worker handle them through its inbox, as live streams do. Nothing is simulated: what it counts as
handled is settled in the inbox. Messages that were published and not handled are lost, effects beyond one each are doubled; both must be 0.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from cryptoalpha.core.errors import DataError
from cryptoalpha.core.seeds import stream
from cryptoalpha.data.bus.config import WorkerConfig
from cryptoalpha.data.bus.contract import Bus
from cryptoalpha.data.bus.envelope import Envelope
from cryptoalpha.data.bus.inbox import Inbox
from cryptoalpha.data.bus.worker import Handler, Worker


@dataclass(frozen=True)
class Carried:
    """What was measured."""

    messages: int
    handled: int
    lost: int
    doubled: int
    seconds: float
    """From the first publication to the last settlement, by the wall."""
    cpu_seconds: float
    """Of this process; a broker's own are not in it."""
    p50_ms: float
    """From just before a message's batch was published to its settlement; NaN where nothing came through."""
    p99_ms: float

    @property
    def per_second(self) -> float:
        return self.handled / self.seconds

    @property
    def per_cpu_second(self) -> float:
        return self.handled / self.cpu_seconds


async def carried(
    bus: Bus,
    inbox: Inbox,
    envelopes: Sequence[Envelope],
    *,
    handler: Handler | None = None,
    config: WorkerConfig | None = None,
    batch: int = 200,
    per_second: float | None = None,
    patience_seconds: float = 60.0,
) -> Carried:
    """Publish messages of distinct ids and topics of `inbox`'s group, and measure until all are handled.

    Args:
        bus: open.
        inbox: open and empty; its group must be new to the bus.
        handler: what is done with them; nothing by default.
        batch: messages published at once.
        per_second: how fast they are published; None: as fast as the bus takes them.
        patience_seconds: how long after the last publication is waited for what has not come.

    Raises:
        DataError: if the worker does not come to work within the patience.
    """
    wanted = {envelope.id for envelope in envelopes}
    sent: dict[str, float] = {}
    effects: Counter[str] = Counter()
    waits: list[float] = []

    async def handled(some: Sequence[Envelope]) -> Sequence[Envelope]:
        outputs = await handler(some) if handler is not None else []
        effects.update(envelope.id for envelope in some if envelope.id in wanted)
        return outputs

    def settled(names: Sequence[str]) -> None:
        now = time.perf_counter()
        waits.extend(now - sent[name] for name in names if name in sent)

    topics = sorted({envelope.topic for envelope in envelopes})
    config = config or WorkerConfig()
    worker = Worker(bus, inbox, handled, topics=topics, config=config, random=stream(0, "measure"), on_settled=settled)
    task = asyncio.get_running_loop().create_task(worker.run())
    try:
        await _first_sign(bus, worker, task, envelopes[0], patience_seconds)
        begun, cpu = time.perf_counter(), time.process_time()
        await _publish(bus, envelopes, batch, per_second, sent)
        deadline = time.perf_counter() + patience_seconds
        while len(waits) < len(wanted) and time.perf_counter() < deadline and not task.done():
            await asyncio.sleep(0.002)
        seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    finally:
        worker.stop()
        await task
    p50, p99 = np.percentile(waits, [50, 99]) * 1e3 if waits else (np.nan, np.nan)
    doubled = sum(count - 1 for count in effects.values())
    return Carried(len(wanted), len(effects), len(wanted - effects.keys()), doubled, seconds, cpu, float(p50), float(p99))


async def _publish(bus: Bus, envelopes: Sequence[Envelope], batch: int, per_second: float | None, sent: dict[str, float]) -> None:
    """Publish all, at a pace if one is given, and note when."""
    begun = time.perf_counter()
    for begin in range(0, len(envelopes), batch):
        some = envelopes[begin : begin + batch]
        if per_second is not None:
            await asyncio.sleep(max(0.0, begun + begin / per_second - time.perf_counter()))
        sent.update(dict.fromkeys((envelope.id for envelope in some), time.perf_counter()))
        await bus.publish(some)


async def _first_sign(bus: Bus, worker: Worker, task: asyncio.Task[None], like: Envelope, patience_seconds: float) -> None:
    """Send one message ahead and wait until it is handled: joining a group takes a broker seconds, which is not what is measured."""
    await bus.publish([msgspec.structs.replace(like, id=f"{like.id}/ahead")])
    deadline = time.perf_counter() + patience_seconds
    while not worker.counts.taken and not task.done():
        if time.perf_counter() > deadline:
            raise DataError(f"the worker took nothing within {patience_seconds:g} s", hint="check that the broker runs")
        await asyncio.sleep(0.002)
