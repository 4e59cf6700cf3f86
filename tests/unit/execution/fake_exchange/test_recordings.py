"""Recorded messages go through the sockets as they came, and real ccxt.pro makes of them what a slow reader of the files makes of them."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from cryptoalpha.core.errors import DataError
from cryptoalpha.execution.fake_exchange.process import FakeExchange
from cryptoalpha.execution.fake_exchange.recordings import Line, RecordedFeed, merged, read_recording
from cryptoalpha.execution.fake_exchange.stream_wiring import Wiring

SECOND = 1_000_000_000


def test_the_three_ways_of_writing_down_are_read(payloads: Path):
    spot = list(islice(read_recording(payloads / "hft" / "binance_spot_btcusdt.gz"), 2000))
    assert {line.symbol for line in spot} == {"BTCUSDT"}
    assert [line.stream for line in spot[:3]] == ["btcusdt@depth@100ms", "btcusdt@depth@100ms", "btcusdt@bookTicker"]
    assert spot[0].received_ns == 1723161253937085768
    assert sum(line.stream == "" for line in spot) == 1  # one snapshot
    with gzip.open(payloads / "hft" / "binance_spot_btcusdt.gz", "rt") as lines:
        for line, raw in zip(spot, lines, strict=False):
            assert line.text in raw  # byte for byte
    streams = Counter(line.stream.partition("@")[2] for line in read_recording(payloads / "cryptofeed" / "BINANCE.ws.1.0"))
    assert streams == {"depth@100ms": 177, "bookTicker": 84, "aggTrade": 2, "kline_1m": 2}
    snapshots = list(read_recording(payloads / "cryptofeed" / "BINANCE.http.0.0"))
    assert [line.stream for line in snapshots] == [""] * 4
    assert "NKNUSDT" in {line.symbol for line in snapshots}
    folder = payloads / "nautilus" / "crates" / "adapters" / "binance" / "test_data" / "futures" / "market_data_json"
    (candle,) = read_recording(folder / "kline_stream_closed.json")
    assert candle.stream.endswith("@kline_1m")


@pytest.mark.parametrize("content", ["", "hello\n", '{"e": "nothing"}\n', "1723161253937085768 {broken}\n"])
def test_what_is_no_recording_is_refused(tmp_path: Path, content: str):
    path = tmp_path / "feed.txt"
    path.write_text(content)
    with pytest.raises(DataError, match=r"feed\.txt"):
        list(read_recording(path))
    with pytest.raises(DataError, match="cannot be read"):
        list(read_recording(tmp_path / "absent.gz"))


def test_recordings_are_merged_by_time_of_receipt():
    first = [Line(1, "A", "a@trade", "{}"), Line(5, "A", "a@trade", "{}")]
    second = [Line(2, "B", "b@trade", "{}"), Line(6, "B", "b@trade", "{}")]
    assert [line.received_ns for line in merged([first, second])] == [1, 2, 5, 6]


def feed_into(fake: FakeExchange, lines: Iterable[Line], *, futures: bool, speed: float = 0.0) -> RecordedFeed:
    """A feed into the exchange of this test; run it in the exchange's own loop with `play`."""
    assert fake.server is not None
    faults = fake.server.faults
    (wiring,) = [each.__self__ for each in fake.server.exchange.listeners if isinstance(getattr(each, "__self__", None), Wiring)]
    assert wiring.faults is faults
    return RecordedFeed(wiring.hub, lines, futures=futures, speed=speed)


async def play(fake: FakeExchange, feed: RecordedFeed) -> None:
    assert fake._loop is not None
    await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(feed.run(), fake._loop))


def slow_book(lines: list[Line]) -> tuple[int, dict[float, float], dict[float, float]]:
    """The order book after all lines, by Binance's own recipe from plain dictionaries: last id, bids, asks."""
    messages = [json.loads(line.text) for line in lines if not line.stream or "@depth" in line.stream]
    (snapshot,) = [message for message in messages if "lastUpdateId" in message]
    last = snapshot["lastUpdateId"]
    bids = {float(price): float(quantity) for price, quantity in snapshot["bids"]}
    asks = {float(price): float(quantity) for price, quantity in snapshot["asks"]}
    for message in messages:
        if message.get("u", 0) > last:
            last = message["u"]
            bids |= {float(price): float(quantity) for price, quantity in message["b"]}
            asks |= {float(price): float(quantity) for price, quantity in message["a"]}
    return last, {p: held for p, held in bids.items() if held}, {p: held for p, held in asks.items() if held}


@pytest.mark.parametrize("market", ["spot", "futures"])
def test_ccxt_follows_a_recorded_market(request: pytest.FixtureRequest, private_client: Callable[..., Any], payloads: Path, market: str):
    fake: FakeExchange = request.getfixturevalue(market)
    is_futures = market == "futures"
    symbol = "BTC/USDT:USDT" if is_futures else "BTC/USDT"
    name = "binance_usdm_btcusdt.gz" if is_futures else "binance_spot_btcusdt.gz"
    lines = list(islice(read_recording(payloads / "hft" / name), 3000))
    snapshot = next(place for place, line in enumerate(lines) if not line.stream)
    head, tail = lines[: snapshot + 1], lines[snapshot + 1 :]

    async def steps() -> None:
        client = private_client(fake, futures=is_futures, timeout_ms=3000)
        client.options["tradesLimit"] = 10_000
        try:
            await client.load_markets()
            first = feed_into(fake, head, futures=is_futures)
            await play(fake, first)
            assert first.skipped == sum("@depth" in line.stream for line in head)
            watched = [client.watch_order_book(symbol), client.watch_trades(symbol), client.watch_bids_asks([symbol])]
            tasks = [asyncio.ensure_future(each) for each in watched]
            await asyncio.wait_for(tasks[0], 3)
            while fake.state()["streams"]["subscriptions"] < len(watched):
                await asyncio.sleep(0.01)
            rest = feed_into(fake, tail, futures=is_futures)
            await play(fake, rest)
            last, bids, asks = slow_book(lines)
            trades = [json.loads(line.text) for line in tail if line.stream.endswith("@trade")]
            last_trade = str(trades[-1]["t"])
            for _ in range(300):
                if client.orderbooks[symbol]["nonce"] == last and client.trades[symbol][-1]["id"] == last_trade:
                    break
                await asyncio.sleep(0.01)
            book = client.orderbooks[symbol]
            assert book["nonce"] == last
            best_bids = sorted(bids.items(), reverse=True)[:10]
            assert [tuple(row[:2]) for row in list(book["bids"])[:10]] == best_bids
            assert [tuple(row[:2]) for row in list(book["asks"])[:10]] == sorted(asks.items())[:10]
            assert [trade["id"] for trade in client.trades[symbol]] == [str(trade["t"]) for trade in trades]
            assert [trade["price"] for trade in client.trades[symbol]] == [float(trade["p"]) for trade in trades]
            await asyncio.sleep(0.1)
            newest = json.loads(next(line.text for line in reversed(tail) if line.stream.endswith("@bookTicker")))
            assert client.bidsasks[symbol]["bid"] == float(newest["b"])
            late = await client.fetch_order_book(symbol, 1000)  # who joins now gets the book that the next difference continues
            assert (late["nonce"], late["bids"][0][0], late["asks"][0][0]) == (last, best_bids[0][0], min(asks))
        finally:
            await client.close()

    asyncio.run(steps())


def test_a_recording_keeps_its_rhythm(spot: FakeExchange):
    """Three messages 0.2 s apart, five times as fast: 0.08 s."""
    lines = [Line(place * SECOND // 5, "ETHUSDT", "ethusdt@trade", "{}") for place in range(3)]

    async def steps() -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await play(spot, feed_into(spot, lines, futures=False, speed=5.0))
        return loop.time() - began

    assert 0.08 <= asyncio.run(steps()) < 0.5
