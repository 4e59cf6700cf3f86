"""Two who look at a log at once, a reader and whoever asks for its lag: neither ends the other's work."""

from __future__ import annotations

import asyncio

import pytest

from cryptoalpha.core.errors import VenueError
from cryptoalpha.data.bus.config import BusConfig
from cryptoalpha.data.bus.contract import Place


def test_a_look_that_another_ends_is_an_outage_and_both_use_one_connection(kafka_broker):
    broker = kafka_broker("noida")
    from cryptoalpha.data.bus.kafka import KafkaBus
    from cryptoalpha.data.bus.kafka_look import KafkaLook

    place = Place("texts", 0)

    async def story():
        async with KafkaBus(BusConfig(request_seconds=5.0), broker.servers) as bus:
            await bus.ensure({"texts"})
        look = KafkaLook(broker.servers, 5.0)
        try:
            first, second = await asyncio.gather(look._open(), look._open())
            assert first is second
            looking = asyncio.create_task(look.ids({place: 1_000_000}))
            asked = asyncio.Event()
            getmany = first.getmany

            async def noticed(*partitions, **more):
                asked.set()
                return await getmany(*partitions, **more)

            first.getmany = noticed
            async with asyncio.timeout(10):
                await asked.wait()
            await look.close()  # as when the other one had no answer
            with pytest.raises(VenueError, match="does not tell"):
                await looking
            assert (await look.extents([place]))[place].start == 0
        finally:
            await look.close()

    asyncio.run(asyncio.wait_for(story(), 30))
