"""Bitcoin through the pump onto a bus, killed again and again: what the bus holds is what the chain says, each message once by its id."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from cryptoalpha.core.streamed import Transfer
from cryptoalpha.data.bus.config import BusConfig
from cryptoalpha.data.bus.envelope import Envelope
from cryptoalpha.data.bus.memory import MemoryBus
from cryptoalpha.data.sources.chain_config import MempoolSection, TransfersSection
from cryptoalpha.data.sources.mempool import open_source
from cryptoalpha.data.sources.opening import Tools
from cryptoalpha.data.sources.pump import Pump
from cryptoalpha.store.state.sqlite_state import SqliteState


def test_a_process_that_is_killed_while_a_chain_grows_and_is_replaced_tells_the_truth(publisher, bitcoin, virtual_time, tmp_path):
    chance = random.Random(7)
    waiting: list[Any] = []

    def change(*, replace: bool) -> None:
        """The chain goes on: it grows, and perhaps up to three blocks give way and most of what they held returns."""
        if replace and len(bitcoin.line) > 5:
            gone = bitcoin.undo(chance.randint(1, 3))
            returning = [tx for block in gone for tx in block.txs]
            waiting.extend(tx for tx in returning if chance.random() < 0.3)
            back = [tx for tx in returning if tx not in waiting]
            for n in range(len(gone)):
                bitcoin.mine(*(back if n == 0 else []))
        bitcoin.mine(*[waiting.pop() for _ in range(min(len(waiting), 1))], bitcoin.pay(30.0), bitcoin.pay(0.2))

    async def listen(fake: Any, *, killed: bool) -> None:
        """One life of the process."""
        async with SqliteState(tmp_path / "state.db") as state, MemoryBus(BusConfig(), tmp_path / "bus.db") as bus:
            tools = Tools(state, clock=virtual_time.clock, wait=virtual_time.wait, transfers=TransfersSection(multiple=0.0))
            section = MempoolSection(base_url=fake.url, listen=False, candidates="pages", burst=1000, depth=12, stats_seconds=1e6)
            source = open_source(section, tools)
            async with Pump(bus, state, [source], position_seconds=0.0) as pump:
                running = asyncio.create_task(pump.run())
                if killed:
                    target = source.health.messages + chance.randint(1, 6)
                    await fake.until(lambda: source.health.messages >= target or running.done())
                else:
                    await fake.until(lambda: settled(fake))
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
            await source.close()

    def settled(fake: Any) -> bool:
        """Twice in a row the newest was asked for, and was known."""
        newest = f"/api/block-height/{bitcoin.line[-1].number}"
        return [asked.path for asked in fake.asked[-4:]] == ["/api/blocks/tip/height", newest] * 2

    async def heard() -> list[Envelope]:
        async with MemoryBus(BusConfig(), tmp_path / "bus.db") as bus:
            consumer = await bus.subscribe("test", ["chain"])
            found: list[Envelope] = []
            while records := await consumer.take(1000, wait_seconds=0.05):
                found += [record.envelope for record in records if record.envelope is not None]
            await consumer.close()
            return found

    async def scenario() -> list[Envelope]:
        async with publisher() as fake:
            bitcoin.serve(fake)
            bitcoin.mine(bitcoin.pay(30.0))
            for life in range(8):
                killed = life % 2 == 0
                await listen(fake, killed=killed)
                change(replace=not killed)  # what is replaced just after a kill cannot all be known (`chain_following`)
                change(replace=False)
            await listen(fake, killed=False)
        return await heard()

    told = asyncio.run(asyncio.wait_for(scenario(), 40.0))
    newest: dict[str, Transfer] = {}
    seen: dict[str, bytes] = {}
    for envelope in told:
        if envelope.id in seen:
            continue  # told again after a kill
        seen[envelope.id] = envelope.payload
        value = envelope.value()
        if isinstance(value, Transfer):
            newest[value.transaction] = value
    standing = {name for name, value in newest.items() if value.confirmations > 0}
    held = {f"{tx['txid']}:0" for block in bitcoin.line for tx in block.txs if tx["vout"][0]["value"] > 20e8}
    assert standing == held
    assert any(":gone:" in name for name in seen)
    assert any(":back:" in name for name in seen)
