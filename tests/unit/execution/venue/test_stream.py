"""The account's stream through real ccxt.pro: what it tells, that it says when it was away, and that it leaves nothing behind."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from cryptoalpha.execution.venue import Balance, Link, OrderReport, Trade

MARKETS = [("exchange", "binance", "BTC/USDT"), ("futures", "binanceusdm", "BTC/USDT:USDT")]


class Listener:
    """Keeps what a stream tells, and waits for more."""

    def __init__(self, venue: Any) -> None:
        self.heard: list[Any] = []
        self._news = asyncio.Event()
        self._task = asyncio.create_task(self._listen(venue))

    async def _listen(self, venue: Any) -> None:
        async for event in venue.events():
            self.heard.append(event)
            self._news.set()

    async def until(self, *kinds: Any, seconds: float = 5.0) -> list[Any]:
        """Wait until the last events hold one of each kind, told by a function; returns all heard so far."""
        async with asyncio.timeout(seconds):
            while not all(any(kind(event) for event in self.heard) for kind in kinds):
                self._news.clear()
                await self._news.wait()
        return self.heard

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


def is_up(event: Any) -> bool:
    return isinstance(event, Link) and event.is_up


def is_down(event: Any) -> bool:
    return isinstance(event, Link) and not event.is_up


def is_filled(event: Any) -> bool:
    return isinstance(event, OrderReport) and event.state == "filled"


def is_trade(event: Any) -> bool:
    return isinstance(event, Trade)


def of(kind: type, heard: list[Any]) -> list[Any]:
    return [event for event in heard if isinstance(event, kind)]


@pytest.mark.parametrize(("fixture", "venue_id", "name"), MARKETS)
def test_orders_and_trades_come_as_rest_tells_them(request, on_venue, order, fixture, venue_id, name):
    fake = request.getfixturevalue(fixture)
    sent = order("buy", "2", instrument=name)

    async def use(venue):
        listener = Listener(venue)
        await listener.until(is_up)
        await venue.submit(sent)
        fake.advance()
        heard = await listener.until(is_filled, is_trade)
        await listener.stop()
        return heard, await venue.trades(name, after=None, since=0), await venue.query(name, sent.client_id)

    heard, trades, report = on_venue(fake, use, venue=venue_id)
    (told,) = of(Trade, heard)
    assert told.client_id == sent.client_id
    assert [(t.trade_id, t.venue_id, t.price, t.quantity, t.fee, t.fee_asset, t.at) for t in trades] == [
        (told.trade_id, told.venue_id, told.price, told.quantity, told.fee, told.fee_asset, told.at)
    ]
    last = of(OrderReport, heard)[-1]
    assert (last.client_id, last.venue_id, last.state, last.filled) == (report.client_id, report.venue_id, report.state, report.filled)


@pytest.mark.parametrize(("fixture", "venue_id", "name"), MARKETS)
def test_a_broken_stream_says_so_comes_back_and_goes_on(request, on_venue, order, fixture, venue_id, name):
    fake = request.getfixturevalue(fixture)

    async def use(venue):
        listener = Listener(venue)
        await listener.until(is_up)
        fake.control("disconnect")
        await listener.until(is_down)
        del listener.heard[:]
        await listener.until(is_up)
        await venue.submit(order("buy", "1", instrument=name))
        fake.advance()
        heard = await listener.until(is_filled)
        await listener.stop()
        return heard

    assert is_up(on_venue(fake, use, venue=venue_id)[0])


def test_while_the_venue_is_away_it_tries_again_with_growing_waits(exchange, on_venue):
    async def use(venue):
        listener = Listener(venue)
        await listener.until(is_up)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        exchange.faults(script=[{"action": "outage", "seconds": 0.6}])
        await listener.until(is_down)
        del listener.heard[:]
        await listener.until(is_up)
        await listener.stop()
        return len([event for event in listener.heard if is_down(event)]), loop.time() - begun

    failures, seconds = on_venue(exchange, use)
    assert seconds > 0.4
    assert 1 <= failures <= 15  # waits of 0.01 doubling to 0.1 s, not a busy loop


def test_a_cut_message_ends_the_connection_and_the_next_one_goes_on(exchange, on_venue, order):
    async def use(venue):
        listener = Listener(venue)
        await listener.until(is_up)
        del listener.heard[:]
        exchange.faults(script=[{"action": "spoil"}])
        await venue.submit(order("buy", "1"))
        exchange.advance()
        await listener.until(is_down, is_up)  # ccxt by itself would stay connected and hear nothing more
        await venue.submit(order("buy", "2"))
        exchange.advance()
        heard = await listener.until(is_trade)
        await listener.stop()
        return heard, await venue.trades("BTC/USDT", after=None, since=0)

    heard, trades = on_venue(exchange, use)
    assert [one.quantity for one in of(Trade, heard)] == [2]
    assert [one.quantity for one in trades] == [1, 2]  # REST has both


def test_a_deposit_is_never_taken_for_the_whole_balance(exchange, on_venue, order):
    async def use(venue):
        listener = Listener(venue)
        await listener.until(is_up)
        exchange.control("transfer", asset="USDT", amount="7")
        await venue.submit(order("buy", "1"))
        exchange.advance()
        await listener.until(lambda event: isinstance(event, Balance) and event.asset == "BTC")
        await asyncio.sleep(0.05)
        await listener.stop()
        return of(Balance, listener.heard), await venue.balances()

    told, now = on_venue(exchange, use)
    truth = {Decimal(100_000), Decimal(100_007), now["USDT"].total}
    assert {one.total for one in told if one.asset == "USDT"} <= truth


@pytest.mark.parametrize(("fixture", "venue_id", "name"), MARKETS)
def test_a_stream_that_is_stopped_leaves_no_task_and_no_connection(request, on_venue, fixture, venue_id, name):
    fake = request.getfixturevalue(fixture)

    async def use(venue):
        before = asyncio.all_tasks()
        for _ in range(3):
            listener = Listener(venue)
            await listener.until(is_up)
            await listener.stop()
        for _ in range(20):
            await asyncio.sleep(0.01)
        timers = [one for one in asyncio.get_running_loop()._scheduled if one._callback == venue._client.spawn and not one.cancelled()]
        return asyncio.all_tasks() - before, len(venue._client.clients), timers

    assert on_venue(fake, use, venue=venue_id) == (set(), 0, [])  # timers: ccxt renews a listen key after twenty minutes


def test_a_key_that_is_refused_keeps_the_link_down(exchange, on_venue):
    async def use(venue):
        listener = Listener(venue)
        await listener.until(is_down)
        await listener.stop()
        return listener.heard

    assert not any(is_up(event) for event in on_venue(exchange, use, key="unknown"))


@pytest.mark.parametrize("skew_ms", [3_600_000, -3_600_000])
def test_a_stream_refused_for_its_stamp_sets_the_clock_and_comes_back(exchange, on_venue, skew_ms):
    async def use(venue):
        listener = Listener(venue)
        await listener.until(is_up)
        del listener.heard[:]
        exchange.control("skew", ms=skew_ms)
        exchange.control("disconnect")
        await listener.until(is_down, is_up)
        await listener.stop()
        return venue.clock.offset()

    assert abs(on_venue(exchange, use, receive_window_seconds=2.0) / 1e6 - skew_ms) < 200
