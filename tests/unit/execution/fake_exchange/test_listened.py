"""A live source listens to the fake exchange while that replays a recorded market and loses, repeats, spoils and hangs up."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from cryptoalpha.core.streamed import Book
from cryptoalpha.data.sources.contract import Arrival
from cryptoalpha.data.sources.exchange import ExchangeSource, open_source
from cryptoalpha.data.sources.exchange_config import ExchangeSection
from cryptoalpha.data.sources.opening import Tools
from cryptoalpha.execution.fake_exchange.process import FakeExchange
from cryptoalpha.execution.fake_exchange.recordings import Line, RecordedFeed, read_recording
from cryptoalpha.execution.fake_exchange.stream_wiring import Wiring
from cryptoalpha.store.state.sqlite_state import SqliteState

Levels = tuple[tuple[float, float], ...]


async def _play(fake: FakeExchange, lines: list[Line], *, futures: bool) -> None:
    assert fake.server is not None
    assert fake._loop is not None
    (wiring,) = [each.__self__ for each in fake.server.exchange.listeners if isinstance(getattr(each, "__self__", None), Wiring)]
    feed = RecordedFeed(wiring.hub, lines, futures=futures, speed=0.0)
    await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(feed.run(), fake._loop))


def _states(lines: list[Line]) -> dict[int, tuple[Levels, Levels]]:
    """The ten best levels after every change, by Binance's own recipe from plain dictionaries."""
    messages = [json.loads(line.text) for line in lines if not line.stream or "@depth" in line.stream]
    (snapshot,) = [message for message in messages if "lastUpdateId" in message]
    last = snapshot["lastUpdateId"]
    sides = [{float(price): float(amount) for price, amount in snapshot[name]} for name in ("bids", "asks")]
    found: dict[int, tuple[Levels, Levels]] = {}

    def note() -> None:
        bids, asks = ([(price, amount) for price, amount in side.items() if amount] for side in sides)
        found[last] = (tuple(sorted(bids, reverse=True)[:10]), tuple(sorted(asks)[:10]))

    note()
    for message in messages:
        if message.get("u", 0) > last:
            last = message["u"]
            for side, name in zip(sides, ("b", "a"), strict=True):
                side |= {float(price): float(amount) for price, amount in message[name]}
            note()
    return found


@pytest.mark.parametrize("market", ["spot", "futures"])
def test_a_recorded_market_is_followed_through_faults(request: pytest.FixtureRequest, payloads: Path, market: str):
    fake: FakeExchange = request.getfixturevalue(market)
    is_futures = market == "futures"
    name = "binance_usdm_btcusdt.gz" if is_futures else "binance_spot_btcusdt.gz"
    lines = list(islice(read_recording(payloads / "hft" / name), 3000))
    whole = next(place for place, line in enumerate(lines) if not line.stream)
    states = _states(lines)
    arrivals: list[Arrival] = []

    async def listen(source: ExchangeSource) -> None:
        async with aclosing(source.arrivals("")) as found:  # type: ignore[type-var]
            async for arrival in found:
                arrivals.append(arrival)  # noqa: PERF401 (it is looked at meanwhile)

    def values() -> list[tuple[str, Any]]:
        return [(envelope.id, envelope.value()) for arrival in arrivals for envelope in arrival.envelopes]

    async def story() -> ExchangeSource:
        await _play(fake, lines[: whole + 1], futures=is_futures)
        section = ExchangeSection(
            venues=("binanceusdm" if is_futures else "binance",),
            streams=("quotes", "books"),
            endpoint=fake.url,
            retry_seconds=0.02,
            requests_per_minute=1e6,
            burst=10_000,
        )
        async with SqliteState(None) as state:
            (source,) = open_source(section, Tools(state, instruments=("BTC/USDT",)))
            listening = asyncio.create_task(listen(source))
            while fake.state()["streams"]["subscriptions"] < 2:
                await asyncio.sleep(0.01)
            depth = "WS btcusdt@depth*"
            script = [{"action": "lose", "route": depth, "nth": n} for n in (20, 60, 61, 100)]
            script += [{"action": "duplicate", "route": depth, "nth": n} for n in (10, 30, 110)]
            script += [
                {"action": "spoil", "route": "WS btcusdt@bookTicker", "nth": 50},
                {"action": "disconnect", "route": depth, "nth": 140},
            ]
            fake.faults(script=script)
            tail = lines[whole + 1 :]
            for begin in range(0, len(tail), 50):  # slower than the wire, faster than the market
                await _play(fake, tail[begin : begin + 50], futures=is_futures)
                for _ in range(50):
                    await asyncio.sleep(0.01)
                    if not source.reader.gaps:
                        break
            last = max(states)
            async with asyncio.timeout(10):
                while source.reader.books.get(source.instruments[0]) is None or source.reader.books[source.instruments[0]].sequence != last:
                    await asyncio.sleep(0.02)
            await source.close()
            await listening
            return source

    source = asyncio.run(story())
    shown = [(native, value) for native, value in values() if isinstance(value, Book) and "/book:" in native]
    for _, book in shown:
        assert (book.bids, book.asks) == states[book.sequence]
    assert len(shown) > 60
    assert [book.sequence for _, book in shown] == sorted({book.sequence for _, book in shown})
    assert source.reader.books[source.instruments[0]].gaps >= 2
    assert source.streams["books"].reconnects == 1
    assert source.health.repeats >= 1
    (letter,) = [letter for arrival in arrivals for letter in arrival.dead]
    assert "malformed" in letter.reason
    quotes = [value for native, value in values() if "/quote:" in native]
    assert len(quotes) == sum(line.stream.endswith("@bookTicker") for line in lines[whole + 1 :]) - 1  # all but the spoilt one
