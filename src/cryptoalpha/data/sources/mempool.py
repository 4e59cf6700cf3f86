"""Bitcoin, through a server with mempool.space's interface: blocks, large transfers, the mempool and its fees.

The socket says that there is something new; what it is, is read over REST, block by block, so an announcement that is lost, repeated or out
of order changes nothing. Where the socket is down, blocks are asked for every `poll_seconds`. Large transfers are found in a summary of the
block (one line per transaction), then each is read, or all of them in pages of 25 where that takes fewer questions.

The public server is run by volunteers for people: `data.streams.sources.mempool.base_url` may name your own.

Source: "REST API" and "WebSocket API" of mempool.space (reference of its documentation).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

from cryptoalpha.core.errors import DataError, VenueError
from cryptoalpha.core.time import HOUR, SECOND
from cryptoalpha.core.values import ChainReading
from cryptoalpha.data.bus.envelope import sealed
from cryptoalpha.data.sources.chain_asking import Asking, closing, note
from cryptoalpha.data.sources.chain_config import MempoolSection
from cryptoalpha.data.sources.chain_following import TOPIC, Following, following, statements, step
from cryptoalpha.data.sources.contract import Arrival, DeadLetter, Health
from cryptoalpha.data.sources.mempool_chain import MempoolChain
from cryptoalpha.data.sources.mempool_messages import ASSET, News, parse_fees, parse_mempool, parse_news, parse_prices
from cryptoalpha.data.sources.opening import Tools
from cryptoalpha.data.sources.reconnect import Line, RefusedError, lasting
from cryptoalpha.data.sources.transfers import LargeTransfers

NAME: Final = "mempool"
_PRICE_AGE: Final = HOUR
_WANTED: Final = '{"action":"want","data":["blocks","stats"]}'
_STATS: Final = "stats"
SOCKET: Final = "socket"
"""What its messages are recorded under."""


def open_source(section: MempoolSection, tools: Tools) -> MempoolSource:
    """Bitcoin as configured; no key is needed."""
    return MempoolSource(section, tools)


@dataclass
class _Latest:
    """What the socket said last, until it is told on."""

    mempool: dict[str, float] = field(default_factory=dict)
    at: int = 0
    price: float = math.nan
    priced_at: int = 0

    def hear(self, news: News, now: int) -> None:
        if news.mempool:
            self.mempool, self.at = {**self.mempool, **news.mempool}, now
        self.price_is(news.price, now)

    def price_is(self, price: float, now: int) -> None:
        if not math.isnan(price):
            self.price, self.priced_at = price, now


class MempoolSource:
    """A `Source` of `Transfer`s and `ChainReading`s of BTC, on topic `chain`. `tools.prices` are believed before the server's own."""

    topics = (TOPIC,)

    def __init__(self, section: MempoolSection, tools: Tools, *, asking: Asking | None = None) -> None:
        self.name = NAME
        self._asking = asking or Asking(NAME, "the mempool server", section.base_url, section, tools, Health())
        self.health = self._asking.health
        self._section, self._tools = section, tools
        self._socket_health = Health()
        self._socket_line: Line = tools.line(f"{NAME}-socket", section, self._socket_health)
        self._latest, self._news = _Latest(), asyncio.Event()
        self._socket_failures = self._skipped = 0

    async def arrivals(self, position: str) -> AsyncIterator[Arrival]:
        """See `Source.arrivals`. A position that cannot be read is an error, not a new beginning."""
        place = following(position)
        judge = LargeTransfers(self._tools.transfers, self.price, sketches=place.sketches)
        listening = asyncio.create_task(self._listen()) if self._section.listen else None

        async def stop() -> None:
            if listening is not None:
                listening.cancel()
                await asyncio.gather(listening, return_exceptions=True)

        async with closing(stop, self._asking.hang_up):
            while not self._asking.line.closed:
                self._news.clear()
                found = False
                for ask in (self.blocks, self.readings):
                    try:
                        arrival = await ask(place, judge)
                    except (VenueError, DataError, RefusedError) as error:
                        found = True  # it has waited; asking goes on at once
                        if not self._asking.line.closed:
                            await self._asking.line.failed(error)
                        continue
                    if arrival is not None:
                        yield arrival
                        found |= ask == self.blocks  # there may be more of them
                if not found:
                    await self._rest()

    async def close(self) -> None:
        """See `Source.close`."""
        self._socket_line.close()
        await self._asking.close()
        self._news.set()

    # ── blocks ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def blocks(self, place: Following, judge: LargeTransfers) -> Arrival | None:
        """What happened to the chain since `place`, which moves on."""
        await self._learn_price()
        server = MempoolChain(self._asking, self._section, judge)
        seen = await step(server, place.blocks, confirmations=1, chunk=1, catch_up=self._section.catch_up)
        if seen is None:
            return None
        now = self._asking.heard_at
        said, repeats = statements(place, seen, judge, source=NAME, depth=self._section.depth, observed=now)
        dead = tuple(DeadLetter(NAME, why, data, now) for block in seen.fresh for why, data in block.faults)
        self.health.repeats += repeats
        note(self.health, said, dead, now=now, event=seen.fresh[-1].time)
        self._skipped += seen.skipped
        return Arrival(tuple(said), place.position(), dead)

    async def _rest(self) -> None:
        """Until the socket has news, or it is time to ask. A socket that is down is no reason to stop, but one to say."""
        failures = self._socket_health.reconnects
        self.health.reconnects += failures - self._socket_failures
        self._socket_failures = failures
        reason = f"{self._skipped} blocks had come while nobody followed and were left out" if self._skipped else ""
        if self._socket_health.state == "waiting":
            reason = f"the socket is down ({self._socket_health.reason}); blocks are asked for"
        await self._asking.rest(self._section.poll_seconds, reason, news=self._news)

    # ── mempool, fees, price ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def readings(self, place: Following, judge: LargeTransfers) -> Arrival | None:
        """The mempool as it is now, if it is time for it."""
        now, before = self._asking.heard_at, place.times.get(_STATS, 0)
        if now - before < self._section.stats_seconds * SECOND:
            return None
        if self._latest.at <= before:  # the socket has said nothing since
            fees = await self._asking.get_or_none("/api/v1/fees/recommended", parse_fees)
            self._latest.mempool = await self._asking.get("/api/mempool", parse_mempool) | (fees or {})
            self._latest.at = self._asking.heard_at
        at = self._latest.at
        place.times[_STATS] = max(now, at)
        said = [
            sealed(
                ChainReading(happened_at=at, known_at=at, asset=ASSET, metric=metric, value=value, source=NAME),
                topic=TOPIC,
                key=ASSET,
                source=NAME,
                native_id=f"{ASSET}/{metric}/{at}",
            )
            for metric, value in sorted(self._latest.mempool.items())
        ]
        note(self.health, said, (), now=now, event=at)
        return Arrival(tuple(said), place.position())

    async def _learn_price(self) -> None:
        """Ask the server for the price where nobody else knows it, at most every `stats_seconds`."""
        unknown = math.isnan(self._tools.prices(ASSET))
        if unknown and self._tools.clock.now() - self._latest.priced_at > self._section.stats_seconds * SECOND:
            price = await self._asking.get_or_none("/api/v1/prices", parse_prices)
            self.price_is(price if price is not None else math.nan, self._asking.heard_at)

    def price_is(self, price: float, at: int) -> None:
        """What the server says of it; NaN says nothing."""
        self._latest.price_is(price, at)

    def price(self, asset: str) -> float:
        """Dollars for one unit of an asset; NaN where nobody knows."""
        known = self._tools.prices(asset)
        if asset != ASSET or not math.isnan(known):
            return known
        fresh = self._asking.heard_at - self._latest.priced_at <= _PRICE_AGE
        return self._latest.price if fresh else math.nan

    # ── the socket ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _listen(self) -> None:
        import aiohttp

        async for raw in lasting(self._connected, self._socket_line, catches=(aiohttp.ClientError,)):
            self.hear(raw, self._tools.clock.now())

    def hear(self, raw: bytes, now: int) -> None:
        """Take in one message of the socket."""
        self._asking.record(SOCKET, now, raw)
        try:
            news = parse_news(raw, now)
        except DataError:
            self._socket_health.dead += 1  # of no consequence: blocks are read over REST
            return
        self._latest.hear(news, now)
        if news.height >= 0:
            self._news.set()

    async def _connected(self) -> AsyncIterator[bytes]:
        import aiohttp

        async with self._asking.session().ws_connect(self._section.ws_url, heartbeat=self._section.silence_seconds) as socket:
            await socket.send_str(_WANTED)
            while True:
                message = await socket.receive(timeout=self._section.silence_seconds)
                if message.type is aiohttp.WSMsgType.TEXT:
                    yield message.data.encode()
                elif message.type is aiohttp.WSMsgType.BINARY:
                    yield message.data
                elif message.type in (
                    aiohttp.WSMsgType.CLOSE,
                    aiohttp.WSMsgType.CLOSED,
                    aiohttp.WSMsgType.CLOSING,
                    aiohttp.WSMsgType.ERROR,
                ):
                    return
