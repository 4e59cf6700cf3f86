"""Benchmark `streams`: how many texts a second go from the bus through a text agent to signals, over the embedded bus and over Kafka.

Messages are made-up headlines (`headlines`), all different, of a thousand authors; the agent reads every one: told apart, appraised,
weighed against repeats and authors, joined to a growing data set. It speaks after every batch about each asset that was named (the pulse
between bars) and about every bar that closes. Kafka is noida-db on this machine where it is installed (the client, the protocol and the
disk are real; a cluster is not); elsewhere its figure is absent. Lost and doubled count all parts together.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np

from cryptoalpha.core.errors import DataError
from cryptoalpha.core.seeds import stream
from cryptoalpha.core.time import HOUR
from cryptoalpha.core.values import Bar, Post
from cryptoalpha.data.bus.config import BusConfig, WorkerConfig
from cryptoalpha.data.bus.contract import Bus
from cryptoalpha.data.bus.envelope import Envelope, sealed
from cryptoalpha.data.bus.inbox import Inbox
from cryptoalpha.data.bus.measure import Carried, carried
from cryptoalpha.data.bus.memory import MemoryBus
from cryptoalpha.data.config import SimulatedConfig
from cryptoalpha.data.simulated import simulate
from cryptoalpha.signals.agents.agent import SignalAgent
from cryptoalpha.signals.agents.config import AgentsConfig
from cryptoalpha.signals.agents.pulse import Pulse
from cryptoalpha.signals.agents.reading import ReadInProcesses
from cryptoalpha.signals.book import SignalBook
from cryptoalpha.signals.config import SignalsConfig
from cryptoalpha.store.tables import Dataset

MANY, FEWER, PER_SECOND = 60_000, 20_000, 1_000.0
_PLAIN = (
    "the", "of", "to", "and", "in", "for", "on", "with", "after", "as", "market", "price", "traders", "exchange", "network", "fund", "says",
    "report", "week", "analyst", "bank", "today",
)  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """One part: what was carried, how many signals the agent formed, what it dropped."""

    carried: Carried
    signals: int
    counted: int
    """Texts that passed the sieve."""


def bench_streams(*, repeats: int, advance: Callable[[int], None]) -> tuple[dict[str, float | None], tuple[str, ...]]:
    """Figures and notes; the median of `repeats` of each part."""
    parts: dict[str, Callable[[], Measured | None]] = {
        "memory": lambda: asyncio.run(_embedded(MANY, None)),
        "end_to_end": lambda: asyncio.run(_embedded(int(5 * PER_SECOND), PER_SECOND)),
        "kafka": _over_kafka,
    }
    found: dict[str, list[Measured]] = {}
    for name, part in parts.items():
        for _ in range(repeats):
            measured = part()
            found.setdefault(name, []).extend([] if measured is None else [measured])
            advance(1)
    everything = [one for some in found.values() for one in some]
    figures: dict[str, float | None] = {
        "memory_messages_per_second": _median(found["memory"], lambda one: one.carried.per_second),
        "kafka_messages_per_second": _median(found["kafka"], lambda one: one.carried.per_second),
        "end_to_end_p99_ms": _median(found["end_to_end"], lambda one: one.carried.p99_ms),
        "lost": float(sum(one.carried.lost for one in everything)),
        "doubled": float(sum(one.carried.doubled for one in everything)),
    }
    notes = [
        f"memory: {MANY:,} headlines, log on disk, two processes (one reads texts); {found['memory'][0].counted:,} counted, "
        f"{found['memory'][0].signals} signals formed",
        f"end to end: {PER_SECOND:.0f} a second for five seconds, from before publishing to the handler's effect settled; median "
        f"{_median(found['end_to_end'], lambda one: one.carried.p50_ms):.1f} ms",
        f"kafka: {FEWER:,} headlines over noida-db on this machine, same agent" if found["kafka"] else "kafka: noida-db is not installed",
    ]
    return figures, tuple(notes)


def headlines(count: int, seed: int = 0) -> list[str]:
    """Made-up headlines of eight to sixteen words of the tone lexicon and of news; every other one names an asset. No two are equal."""
    lexicon = files("cryptoalpha.signals.text").joinpath("lexicon_words.txt").read_text(encoding="utf-8")
    words = [
        term.split("/")[0].strip() for line in lexicon.splitlines() if line[:1] not in "[#" for term in line.split(",") if term.strip()
    ]
    random = stream(seed, "headlines")
    names = ("Bitcoin", "Ethereum", "BTC", "$ETH", "crypto", "stocks")
    made = []
    for number in range(count):
        length = int(random.integers(8, 17))
        chosen = [words[i] if loaded else _PLAIN[i % len(_PLAIN)] for i, loaded in zip(
            random.integers(0, len(words), length).tolist(), (random.random(length) < 0.3).tolist(), strict=True)]  # fmt: skip
        if number % 2:
            chosen.insert(0, names[int(random.integers(0, len(names)))])
        made.append(" ".join([*chosen, str(number)]))
    return made


def _median(some: Sequence[Measured], figure: Callable[[Measured], float]) -> float | None:
    return float(np.median([figure(one) for one in some])) if some else None


async def _embedded(count: int, per_second: float | None) -> Measured:
    with tempfile.TemporaryDirectory() as folder:
        async with MemoryBus(BusConfig(), Path(folder) / "bus.sqlite") as bus:
            return await _measure(bus, Path(folder), count, per_second)


def _over_kafka() -> Measured | None:
    if any(importlib.util.find_spec(name) is None for name in ("aiokafka", "noida_db")):
        return None
    from cryptoalpha.data.bus.kafka import KafkaBus

    async def measure(servers: str, folder: Path) -> Measured:
        async with KafkaBus(BusConfig(), servers) as bus:
            return await _measure(bus, folder, FEWER, None)

    with tempfile.TemporaryDirectory() as folder, _broker(Path(folder)) as servers:
        return asyncio.run(measure(servers, Path(folder)))


async def _measure(bus: Bus, folder: Path, count: int, per_second: float | None) -> Measured:
    """Headlines through the bus and one text agent."""
    history = simulate(SimulatedConfig(assets=2, bars=1500), 0).dataset
    start = _ending_now(history)
    config = AgentsConfig()
    with ReadInProcesses(tuple(name.split("/")[0] for name in start.bars), 1) as reader:
        await reader.read(["warm"])
        signals = SignalsConfig(sources=("news_tone",), keep_features=False)
        pulse = Pulse(tuple(start.bars), tuple(name.split("/")[0] for name in start.bars), signals)
        agent = SignalAgent("texts", SignalBook(signals), start, config, reader=reader, pulse=pulse)
        async with Inbox(folder / "inbox.sqlite", "texts", WorkerConfig()) as inbox:
            said = 0

            async def handle(envelopes: Sequence[Envelope]) -> Sequence[Envelope]:
                nonlocal said
                outputs = await agent(envelopes)
                said += len(outputs)
                return outputs

            measured = await carried(bus, inbox, _messages(start, count), handler=handle, per_second=per_second)
            outputs = await agent.due()
    verdicts = agent.counts.verdicts
    return Measured(measured, said + len(outputs), verdicts.get("counted", 0))


def _messages(start: Dataset, count: int) -> list[Envelope]:
    """Posts that are known now, and a bar of each instrument that has just closed."""
    now = time.time_ns()
    envelopes = []
    for number, text in enumerate(headlines(count)):
        author = f"author{number % 1000}" if number % 3 else ""
        post = Post(happened_at=now, known_at=now, post_id=f"h{number}", source="bench", text=text, author=author, reach=20_000.0)
        envelopes.append(sealed(post, topic="texts", key=str(number % 64), source="bench", native_id=post.post_id))
    for name, table in start.bars.items():
        opened = int(table.open_time[-1]) + HOUR
        close = float(table.close[-1])
        bar = Bar(
            happened_at=opened, known_at=opened + HOUR, instrument=name, interval=HOUR,
            open=close, high=close, low=close, close=close, volume=1.0,
        )  # fmt: skip
        envelopes.insert(count // 2, sealed(bar, topic="market", key=name, source="bench", native_id=f"{name}/{opened}"))
    return envelopes


def _ending_now(history: Dataset) -> Dataset:
    """The same history, moved so that its last bar but one closed an hour and a half ago."""
    from dataclasses import replace

    last = max(int(table.open_time[-1]) for table in history.bars.values())
    shift = (time.time_ns() // HOUR - 3) * HOUR - last
    bars = {
        name: replace(table, open_time=table.open_time + shift, known_at=table.known_at + shift) for name, table in history.bars.items()
    }
    posts = {
        source: replace(table, happened_at=table.happened_at + shift, known_at=table.known_at + shift)
        for source, table in history.posts.items()
    }
    return replace(history, bars=bars, posts=posts, readings={})


@contextmanager
def _broker(folder: Path) -> Iterator[str]:
    """noida-db on a free loopback port, killed at the end.

    Raises:
        DataError: if it does not start.
    """
    package = importlib.util.find_spec("noida_db")
    assert package is not None, "looked for before"
    binary = Path(package.origin or "").with_name("noida-db")
    if not os.access(binary, os.X_OK):
        binary.chmod(0o755)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = int(listener.getsockname()[1])
    command = [str(binary), "start", "--data-dir", str(folder / "broker"), "--only", "kafka", "--kafka-port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20.0
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 0.2).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise DataError("noida-db did not start", hint="run its binary by hand to see why") from None
                time.sleep(0.02)
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()
