"""An agent after a restart reads again what its group had handled, whatever carries the bus; what is gone is not waited for for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from cryptoalpha.core.values import ChainReading, Post
from cryptoalpha.data.bus.config import BusConfig
from cryptoalpha.data.bus.contract import Bus, Place, Progress, progress_of
from cryptoalpha.data.bus.envelope import Envelope, sealed
from cryptoalpha.data.bus.kafka import KafkaBus
from cryptoalpha.data.bus.memory import MemoryBus
from cryptoalpha.signals.agents.config import AgentsConfig
from cryptoalpha.signals.agents.intake import Intake
from cryptoalpha.signals.agents.reading import ReadHere
from cryptoalpha.signals.agents.rebuilding import rebuild
from cryptoalpha.signals.agents.sieve import Sieve

COUNT = 3_000


class Remembers:
    """What `rebuild` asks of an agent."""

    def __init__(self) -> None:
        self.ids: list[str] = []

    async def remember(self, messages: Iterable[Envelope], *, said_until: int | None = None) -> None:
        self.ids += [message.id for message in messages]


def readings(first: int, count: int) -> list[Envelope]:
    made = [
        ChainReading(happened_at=number, known_at=number, asset=f"A{number % 7}", metric="fees", value=1.0, source="s")
        for number in range(first, first + count)
    ]
    return [sealed(one, topic="readings", key=one.asset, source="s", native_id=str(one.known_at)) for one in made]


async def handled_and_more(bus: Bus) -> dict[Place, Progress]:
    """How far a group has come that handled the first messages; as many again wait for it."""
    await bus.publish(readings(0, COUNT))
    progress: dict[Place, Progress] = {}
    taken = 0
    consumer = await bus.subscribe("agent", ["readings"])
    while taken < COUNT:
        records = await consumer.take(500, wait_seconds=5.0)
        taken += len(records)
        progress.update(progress_of(records))
        await consumer.commit(progress_of(records))
    await consumer.close()
    await bus.publish(readings(COUNT, COUNT))
    return progress


async def remembered(bus: Bus) -> list[str]:
    agent = Remembers()
    await rebuild(agent, AgentsConfig(), bus, ["readings"], await handled_and_more(bus), group="rebuild")
    return agent.ids


def test_all_that_was_handled_and_nothing_else_is_remembered(tmp_path):
    async def run():
        async with MemoryBus(BusConfig(), tmp_path / "bus.sqlite") as bus:
            return await remembered(bus)

    assert sorted(asyncio.run(run()), key=lambda one: int(one.split("/")[1])) == [f"s/{number}" for number in range(COUNT)]


def test_so_it_is_over_kafka_whose_groups_take_a_while_to_join(kafka_broker):
    async def run():
        async with KafkaBus(BusConfig(), kafka_broker("noida").servers) as bus:
            return await remembered(bus)

    assert sorted(asyncio.run(run()), key=lambda one: int(one.split("/")[1])) == [f"s/{number}" for number in range(COUNT)]


def test_what_a_lost_log_held_is_not_waited_for(tmp_path):
    async def run():
        agent = Remembers()
        async with MemoryBus(BusConfig(), tmp_path / "bus.sqlite") as bus:
            await bus.publish(readings(0, 5))
            gone = {Place("readings", partition): Progress(1_000, 999, "s/999", 999) for partition in range(4)}
            return await rebuild(agent, AgentsConfig(), bus, ["readings"], gone, group="rebuild", patience_seconds=0.2)

    assert asyncio.run(run()) == 5


def test_an_intake_gives_out_nothing_of_what_it_remembers_and_knows_it_again():
    post = Post(happened_at=7, known_at=7, post_id="1", source="x", text="Bitcoin rises")
    sieve = Sieve()
    intake = Intake(AgentsConfig(reorder_seconds=5.0), sieve, ReadHere(("BTC",)), ("BTC",))

    async def run():
        await intake.remember([sealed(post, topic="texts", key="x", source="x", native_id="1")] * 2)
        return await intake.ready(1 << 62)

    assert asyncio.run(run()) == []
    assert intake.knows("x/1")
    assert (sieve.verdicts["counted"], sieve.verdicts["repeat"]) == (1, 0)
