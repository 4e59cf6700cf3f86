"""Kafka's transactions on a real broker: what is committed is seen, what is aborted or was left open by a killed publisher is not.

Every test reads the same log twice, as committed and as it lies there: a broker that kept nothing would prove nothing. noida-db 0.2.3 never
gives up an open transaction by itself (asked for after two seconds, it stood for the twelve that were watched); tansu knows none.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import msgspec
import pytest

from cryptoalpha.core.errors import VenueError
from cryptoalpha.data.bus.config import BusConfig
from cryptoalpha.data.bus.contract import progress_of
from cryptoalpha.data.bus.envelope import SCHEMA, Envelope

pytestmark = pytest.mark.slow

TRANSACTIONS = BusConfig(transactions=True, request_seconds=5.0)


def message(number: int, payload: bytes = b"p") -> Envelope:
    return Envelope(
        id=f"m{number}",
        topic="texts",
        key=f"k{number % 9}",
        source="x",
        kind="Post",
        schema=SCHEMA,
        event_time=number,
        observed_time=1_700_000_000_000_000_000 + number,
        payload=payload,
    )


def messages(begin: int, end: int) -> list[Envelope]:
    return [message(number) for number in range(begin, end)]


def bus_at(broker, config: BusConfig = TRANSACTIONS, **more):
    from cryptoalpha.data.bus.kafka import KafkaBus

    return KafkaBus(config, broker.servers, **more)


async def seen(broker, *, committed: bool, most: int) -> list[str]:
    """Ids that a new group finds; stops where so many have come, or after nothing has come for a while."""
    found: list[str] = []
    config = TRANSACTIONS if committed else BusConfig(request_seconds=5.0)
    async with bus_at(broker, config) as bus, await bus.subscribe(os.urandom(6).hex(), ["texts"]) as consumer:
        quiet = 0
        while len(found) < most or quiet < 2:
            records = await consumer.take(500, wait_seconds=1.0)
            if records:
                await consumer.commit(progress_of(records))
            found += [record.envelope.id for record in records if record.envelope is not None]
            quiet = 0 if records else quiet + 1
            if quiet > 6:
                break
        assert consumer.regressed() == []
    return sorted(found, key=lambda name: int(name[1:]))


def ids(begin: int, end: int) -> list[str]:
    return [f"m{number}" for number in range(begin, end)]


def run(story) -> None:
    asyncio.run(asyncio.wait_for(story, 90))


def test_what_is_committed_is_seen_and_what_is_aborted_is_not(kafka_broker):
    broker = kafka_broker("noida")

    async def story():
        async with bus_at(broker) as bus:
            await bus.publish(messages(0, 50))
            too_large = msgspec.structs.replace(message(60), payload=os.urandom(1_500_000))  # more than the client sends: it aborts
            with pytest.raises(VenueError, match="did not keep all messages"):
                await bus.publish([*messages(50, 60), too_large])
            assert await seen(broker, committed=True, most=50) == ids(0, 50)
            aborted = set(await seen(broker, committed=False, most=60)) - set(ids(0, 50))
            await bus.publish(messages(50, 60))  # said again, by a new producer of the same name
            assert await seen(broker, committed=True, most=60) == ids(0, 60)
        print(f"noida, transactions: 50 + 10 messages committed and seen once, {len(aborted)} of 10 aborted ones lie there unseen")
        assert aborted == set(ids(50, 60)), "they lie in the log"

    run(story())


PUBLISHER = """
import asyncio, sys
from pathlib import Path
from cryptoalpha.data.bus.config import BusConfig
from cryptoalpha.data.bus.envelope import SCHEMA, Envelope
from cryptoalpha.data.bus.kafka import KafkaBus

class Stops(KafkaBus):
    async def _send(self, producer, envelopes):
        await super()._send(producer, envelopes)  # the broker has them all, the transaction is open
        print("open", flush=True)
        await asyncio.sleep(1000)

async def live(servers, folder):
    async with Stops(BusConfig(transactions=True, request_seconds=100.0), servers, folder=Path(folder)) as bus:
        await bus.publish([Envelope(id=f"m{n}", topic="texts", key=f"k{n % 9}", source="x", kind="Post", schema=SCHEMA, event_time=n,
                                    observed_time=1_700_000_000_000_000_000 + n, payload=b"") for n in range(20, 40)])

asyncio.run(live(sys.argv[1], sys.argv[2]))
"""


def test_a_publisher_killed_in_a_transaction_leaves_nothing_to_see_and_its_successor_ends_what_it_left_open(tmp_path, kafka_broker):
    broker, home = kafka_broker("noida"), tmp_path / "home"

    async def story():
        async with bus_at(broker, folder=home) as bus:
            await bus.publish(messages(0, 20))
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", PUBLISHER, broker.servers, str(home), stdout=subprocess.PIPE)
        try:
            async with asyncio.timeout(40):
                assert await process.stdout.readline() == b"open\n"
        finally:
            process.kill()
            await process.wait()
        async with bus_at(broker, folder=tmp_path / "another home") as another:
            await another.publish(messages(100, 110))
        assert await seen(broker, committed=False, most=50) == [*ids(0, 40), *ids(100, 110)]
        held_up = await seen(broker, committed=True, most=20)
        assert held_up == ids(0, 20), "what another committed later waits for the one that is open"
        async with bus_at(broker, folder=home) as bus:
            await bus.publish(messages(40, 60))
        after = await seen(broker, committed=True, most=50)
        lies = await seen(broker, committed=False, most=70)
        print(
            f"noida, publisher killed in a transaction of 20: {len(lies)} messages lie in the log, {len(held_up)} seen while it was open, "
            f"{len(after)} after its successor had begun, none of the 20"
        )
        assert after == [*ids(0, 20), *ids(40, 60), *ids(100, 110)]

    run(story())


def test_an_older_publisher_of_the_same_name_is_shut_out(kafka_broker):
    broker = kafka_broker("noida")

    async def story():
        from aiokafka import AIOKafkaProducer
        from aiokafka.errors import ProducerFenced

        from cryptoalpha.data.bus.envelope import to_bytes

        async with bus_at(broker) as bus:
            await bus.ensure({"texts"})
        old, new = (AIOKafkaProducer(bootstrap_servers=broker.servers, transactional_id="name") for _ in range(2))
        await old.start()
        try:
            await old.begin_transaction()
            await old.send_and_wait("texts", to_bytes(message(1)), partition=0)
            await new.start()
            async with new.transaction():
                await new.send_and_wait("texts", to_bytes(message(2)), partition=0)
            with pytest.raises(ProducerFenced):
                await old.commit_transaction()
        finally:
            await new.stop()
            await old.client.close()
            await old.stop()
        assert await seen(broker, committed=True, most=1) == ["m2"]
        assert await seen(broker, committed=False, most=2) == ["m1", "m2"]
        print("noida: of two publishers of one name the older is refused its commit, 1 of 2 messages seen")

    run(story())


def test_publishers_of_one_home_at_the_same_time_have_names_of_their_own(tmp_path, kafka_broker):
    broker = kafka_broker("noida")

    async def story():
        async with bus_at(broker, folder=tmp_path) as one, bus_at(broker, folder=tmp_path) as other:
            for begin in range(0, 100, 20):
                await one.publish(messages(begin, begin + 10))
                await other.publish(messages(begin + 10, begin + 20))
        assert await seen(broker, committed=True, most=100) == ids(0, 100)

    run(story())
