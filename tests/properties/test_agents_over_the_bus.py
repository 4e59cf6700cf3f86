"""Through the real bus, inbox and worker: partitions shuffle the texts, a crash in the middle, and the signals are those of the batch."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import msgspec
import pytest

from cryptoalpha.core.clock import VirtualClock
from cryptoalpha.core.seeds import stream
from cryptoalpha.core.time import HOUR, SECOND, parse_time
from cryptoalpha.data.bus.config import BusConfig, WorkerConfig
from cryptoalpha.data.bus.inbox import Inbox
from cryptoalpha.data.bus.memory import MemoryBus
from cryptoalpha.data.bus.worker import Worker
from cryptoalpha.data.files import load_directory
from cryptoalpha.signals.agents.agent import SignalAgent
from cryptoalpha.signals.agents.config import OFF, AgentsConfig, SieveConfig
from cryptoalpha.signals.agents.rebuilding import rebuild
from cryptoalpha.signals.agents.replay import messages_of, without_taker_volume
from cryptoalpha.signals.agents.sieve import sifted
from cryptoalpha.signals.book import SignalBook
from cryptoalpha.signals.config import SignalsConfig
from cryptoalpha.store.bar_gate import BarGate

INSTRUMENTS = ("BTC/USDT", "ETH/USDT")
ASSETS = ("BTC", "ETH")
SIGNALS = SignalsConfig(sources=("news_tone", "momentum_short"), keep_features=False)
SINCE, HOURS = parse_time("2023-03-10T00:00"), 14


@pytest.fixture(scope="module")
def history(market_data):
    """Bars of two instruments, and the tweets from the first hour on; what came before is left out so that all texts travel."""
    whole = without_taker_volume(load_directory(market_data, gate=BarGate(), instruments=INSTRUMENTS))
    tweets = whole.posts["x"]
    return replace(whole, posts={"x": tweets.take(tweets.known_at > SINCE - 8 * HOUR)}, readings={})


class Run:
    """A worker with its agent on a bus, driven hour by hour by a clock that stands still between."""

    def __init__(self, bus, inbox, history, sieve):
        self.clock = VirtualClock(SINCE - 8 * HOUR)
        start = replace(history.known_until(SINCE), posts={})
        self.agent = SignalAgent("text", SignalBook(SIGNALS), start, AgentsConfig(sieve=sieve), clock=self.clock)
        self.worker = Worker(bus, inbox, self.agent, topics=["texts", "market"], config=WorkerConfig(batch=97), random=stream(0, "worker"))
        self.inbox = inbox

    async def __aenter__(self):
        self.task = asyncio.create_task(self.worker.run())
        return self

    async def __aexit__(self, *error):
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def handles(self, count):
        while self.worker.counts.handled < count:
            await asyncio.sleep(0.001)

    async def says(self, moment):
        self.clock.advance_to(moment)
        return await self.agent.bars_due()


def shuffled(envelope, number):
    """The same message under a key of its own: partitions, and so disorder, as bad as they get."""
    return msgspec.structs.replace(envelope, key=f"{envelope.key}/{number}")


@pytest.mark.parametrize("sieve", [pytest.param(OFF, marks=pytest.mark.slow, id="off"), pytest.param(SieveConfig(), id="on")])
def test_over_the_bus_and_over_a_crash_the_signals_are_those_of_the_batch(history, tmp_path, sieve):
    end = SINCE + HOURS * HOUR
    batch = SignalBook(SIGNALS).prepare(sifted(history, ASSETS, sieve), since=SINCE, until=end)
    texts = list(messages_of(replace(history, bars={}), after=SINCE - 8 * HOUR, until=end))
    bars = list(messages_of(replace(history, posts={}), after=SINCE, until=end))
    messages = sorted([*texts, *bars], key=lambda one: one.observed_time)
    hours = [[shuffled(one, k) for k, one in enumerate(messages) if at < one.observed_time <= at + HOUR] for at in range(SINCE, end, HOUR)]
    before = [shuffled(one, k) for k, one in enumerate(messages) if one.observed_time <= SINCE]

    async def run():
        said, sent = [], 0
        async with MemoryBus(BusConfig(), tmp_path / "bus.sqlite") as bus:
            async with Inbox(tmp_path / "inbox.sqlite", "text", WorkerConfig()) as inbox, Run(bus, inbox, history, sieve) as first:
                for number, batch_of in enumerate([before, *hours[:7]]):
                    await bus.publish(batch_of + batch_of[::3])  # some come twice
                    sent += len(batch_of)
                    await first.handles(sent)
                    said += await first.says(SINCE + number * HOUR + 2 * SECOND)
            async with Inbox(tmp_path / "inbox.sqlite", "text", WorkerConfig()) as inbox:
                second = Run(bus, inbox, history, sieve)
                held = await rebuild(second.agent, second.agent.config, bus, ["texts", "market"], await inbox.progress(), group="again")
                assert held >= sent
                assert second.clock.now() < SINCE
                sent = 0
                async with second:
                    for number, batch_of in enumerate(hours[7:], start=8):
                        await bus.publish(batch_of)
                        sent += len(batch_of)
                        await second.handles(sent)
                        said += await second.says(SINCE + number * HOUR + 2 * SECOND)
        return said

    said = asyncio.run(run())
    opened = {}
    for bar in said:
        assert opened.setdefault(bar.open_time, bar) == bar  # said again after the crash, it is the same
    assert sorted(opened) == batch.panel.open_time.tolist()
    for t, open_time in enumerate(batch.panel.open_time.tolist()):
        assert list(opened[open_time].signals) == batch.signals_at(t)
    assert len(messages) > 3_000
