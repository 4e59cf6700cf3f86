"""A process that pumps a source onto the bus is killed again and again, at any moment: nothing is lost, and what comes twice says so."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from collections import Counter

from cryptoalpha.data.bus.config import BusConfig
from cryptoalpha.data.bus.memory import MemoryBus
from cryptoalpha.store.state.sqlite_state import SqliteState

MESSAGES, KILLS = 2_000, 4

PUMP = """
import asyncio, sys
from pathlib import Path
from cryptoalpha.core.streamed import Trade
from cryptoalpha.data.bus.config import BusConfig
from cryptoalpha.data.bus.envelope import sealed
from cryptoalpha.data.bus.memory import MemoryBus
from cryptoalpha.data.sources.contract import Arrival, Health
from cryptoalpha.data.sources.pump import Pump
from cryptoalpha.store.state.sqlite_state import SqliteState

class Numbers:
    name, topics = "one", ("market",)

    def __init__(self):
        self.health = Health()

    async def arrivals(self, position):
        for number in range(int(position or 0), MESSAGES):
            trade = Trade(happened_at=number, known_at=number, instrument="BTC/USDT", venue="v", trade_id=str(number), side="buy",
                          price=1.0, amount=1.0)
            yield Arrival((sealed(trade, topic="market", key="v:BTC/USDT", source="one", native_id=str(number)),), str(number + 1))
            if number % 20 == 0:
                print(number, flush=True)
                await asyncio.sleep(0.002)

    async def close(self):
        pass

async def main(folder):
    async with MemoryBus(BusConfig(), folder / "bus.sqlite") as bus, SqliteState(folder / "state.sqlite") as state:
        async with Pump(bus, state, [Numbers()], position_seconds=0.005) as pump:
            await pump.run()
    print("done", flush=True)

asyncio.run(main(Path(sys.argv[1])))
""".replace("MESSAGES", str(MESSAGES))


def test_whatever_kills_the_pump_nothing_is_lost(tmp_path):
    chance, places = random.Random(7), []

    async def kept():
        async with SqliteState(tmp_path / "state.sqlite") as state:
            (position,) = await state.get(["position/one"])
            return int(position or 0)

    kills, done = 0, False
    while not done:
        with subprocess.Popen([sys.executable, "-c", PUMP, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            lines = chance.randint(5, 40) if kills < KILLS else MESSAGES
            said = [line for line, _ in zip(process.stdout, range(lines), strict=False)]
            done = said[-1] == "done\n"
            if not done:
                time.sleep(chance.uniform(0.0, 0.01))
                process.kill()
                kills += 1
            process.stdout.read()
            process.wait(60)
        places.append(asyncio.run(kept()))

    async def held():
        async with MemoryBus(BusConfig(), tmp_path / "bus.sqlite") as bus:
            consumer = await bus.subscribe("reader", ["market"])
            found = Counter()
            while records := await consumer.take(1000, wait_seconds=0.1):
                found.update(record.envelope.id for record in records)
            await consumer.close()
            return found

    found = asyncio.run(held())
    again = sum(found.values()) - len(found)
    print(f"{kills} kills, places {places}, {MESSAGES} messages, {again} of them said again")
    assert kills >= 3
    assert len(set(places)) >= 3, "it was killed on its way, not before"
    assert set(found) == {f"one/{number}" for number in range(MESSAGES)}
    assert places == sorted(places)
    assert places[-1] == MESSAGES
