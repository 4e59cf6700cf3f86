"""Live bars by polling a loopback exchange with a clock that waiting moves."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import pytest

from cryptoalpha.app.venues import Venues
from cryptoalpha.core.errors import VenueError
from cryptoalpha.core.time import HOUR, MINUTE, SECOND, iso, parse_time
from cryptoalpha.data.config import ExchangeConfig
from cryptoalpha.data.joining import join_bars
from cryptoalpha.data.live import LiveBars, LiveBatch, extended
from cryptoalpha.store.bar_gate import BarGate
from cryptoalpha.store.tables import BarTable, Dataset

NOON = parse_time("2022-03-15T12:00")


class World:
    """A clock that only waiting moves, and a venue that lives by it."""

    def __init__(self, venue: Any, start: int) -> None:
        self.venue, self.moment = venue, start
        venue.now = start

    def now(self) -> int:
        return self.moment

    def wait(self, seconds: float) -> None:
        self.moment += int(seconds * SECOND)
        self.venue.now = self.moment


def known(last_open: int) -> dict[str, BarTable]:
    """Three bars of each instrument, the last one opening at `last_open`."""
    opens = np.array([last_open - 2 * HOUR, last_open - HOUR, last_open])
    price = np.full(3, 100.5)
    return {name: BarTable(name, HOUR, opens, price, price + 1, price - 1, price, np.full(3, 10.0)) for name in ("BTC/USDT", "ETH/USDT")}


@pytest.fixture
def world(venue: Any) -> World:
    return World(venue, NOON + 20 * MINUTE)


def live(world: World, ccxt_at: Any, tables: dict[str, BarTable], notices: list[str] | None = None, **settings: Any) -> LiveBars:
    config = ExchangeConfig(venues=("binance",), **{"attempts": 1, "backoff_seconds": 5.0, **settings})
    client = Venues(config, factory=ccxt_at({"binance": world.venue.url})).client("binance")
    notice = None if notices is None else notices.append
    return LiveBars(client, tables, gate=BarGate(), config=config, clock=world, wait=world.wait, notice=notice)


def test_each_batch_comes_after_its_bars_have_closed(world: World, ccxt_at: Any) -> None:
    batches: list[tuple[LiveBatch, int]] = [(batch, world.now()) for batch in islice(live(world, ccxt_at, known(NOON - HOUR)), 3)]
    assert [iso(batch.open_time) for batch, _ in batches] == ["2022-03-15T12:00:00Z", "2022-03-15T13:00:00Z", "2022-03-15T14:00:00Z"]
    for batch, arrived in batches:
        assert arrived >= batch.known_at == batch.open_time + HOUR
        assert arrived - batch.known_at < MINUTE
        assert sorted(batch.bars) == ["BTC/USDT", "ETH/USDT"]
        assert all(table.open_time.tolist() == [batch.open_time] for table in batch.bars.values())
        assert batch.bars["BTC/USDT"].taker_buy_volume.tolist() == [6.0]


def test_bars_missed_while_away_are_caught_up_at_once_and_in_order(world: World, ccxt_at: Any) -> None:
    batches = list(islice(live(world, ccxt_at, known(NOON - 6 * HOUR)), 5))
    assert [batch.open_time for batch in batches] == [NOON - k * HOUR for k in range(5, 0, -1)]
    assert world.now() == NOON + 20 * MINUTE  # no waiting
    assert len(world.venue.requests) == 2  # one page per instrument held them all


def test_a_slow_instrument_is_waited_for(world: World, ccxt_at: Any) -> None:
    world.venue.hold_back["ETHUSDT"] = HOUR + 30 * SECOND  # its candles appear half a minute after their end
    batch = next(iter(live(world, ccxt_at, known(NOON - HOUR))))
    assert (sorted(batch.bars), batch.missing) == (["BTC/USDT", "ETH/USDT"], ())
    assert 30 * SECOND <= world.now() - batch.known_at < MINUTE


def test_a_missing_instrument_is_named_after_the_time_of_grace(world: World, ccxt_at: Any) -> None:
    notices: list[str] = []
    world.venue.hold_back["ETHUSDT"] = 5 * HOUR
    batch = next(iter(live(world, ccxt_at, known(NOON - HOUR), notices)))
    assert (sorted(batch.bars), batch.missing) == (["BTC/USDT"], ("ETH/USDT",))
    assert world.now() >= NOON + HOUR + 120 * SECOND
    assert notices == ["no bar of ETH/USDT at 2022-03-15T12:00:00Z"]


def test_an_outage_between_batches_is_survived_and_told(world: World, ccxt_at: Any) -> None:
    notices: list[str] = []
    stream = iter(live(world, ccxt_at, known(NOON - HOUR), notices))
    next(stream)
    world.venue.faults = [(503, b"<html>", {})] * 3
    assert sorted(next(stream).bars) == ["BTC/USDT", "ETH/USDT"]
    assert len(notices) == 3
    assert all("binance failed" in notice for notice in notices)


def test_a_venue_that_never_answers_ends_the_feed_with_a_venue_error(world: World, ccxt_at: Any) -> None:
    world.venue.fail_after = 0
    with pytest.raises(VenueError, match="binance failed"):
        next(iter(live(world, ccxt_at, known(NOON - HOUR))))
    world.venue.fail_after = None
    stream = iter(live(world, ccxt_at, known(NOON - HOUR)))
    next(stream)
    world.venue.fail_after = 0
    assert not next(stream).bars
    assert not next(stream).bars
    with pytest.raises(VenueError, match="no bar for 3 bar lengths"):
        next(stream)


def test_batches_extend_the_dataset_they_started_from(world: World, ccxt_at: Any) -> None:
    dataset = Dataset(origin="test", bars=known(NOON - 4 * HOUR))
    for batch in islice(live(world, ccxt_at, dict(dataset.bars)), 2):
        dataset = extended(dataset, batch)
    assert dataset.bars["ETH/USDT"].open_time.tolist() == [NOON - k * HOUR for k in range(6, 1, -1)]


def test_joining_keeps_every_column() -> None:
    table = known(NOON)["BTC/USDT"]
    joined = join_bars([table.take(slice(0, 1)), table.take(slice(1, None))])
    assert all(np.array_equal(getattr(joined, c), getattr(table, c), equal_nan=c == "taker_buy_volume") for c in BarTable.columns())
