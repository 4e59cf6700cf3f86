"""Readings of several sources: each series holds one source, whatever the order, and what says no number is left out."""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalpha.core.clock import VirtualClock
from cryptoalpha.core.time import DAY, HOUR, SECOND
from cryptoalpha.core.values import Bar, ChainReading
from cryptoalpha.data.bus.envelope import sealed
from cryptoalpha.data.metrics import filed_under, series_name
from cryptoalpha.signals.agents.agent import SignalAgent
from cryptoalpha.signals.agents.config import OFF, AgentsConfig
from cryptoalpha.signals.agents.grown import GrownDataset
from cryptoalpha.signals.agents.series import in_series
from cryptoalpha.signals.book import SignalBook
from cryptoalpha.signals.config import SignalsConfig
from cryptoalpha.store.tables import BarTable, Dataset, ReadingTable

VENUES = ("okx", "binanceusdm", "bybitlinear", "binance", "bybit")
START = 100 * DAY


def reading(at, value, source, *, metric="funding_rate", asset="BTC"):
    return ChainReading(happened_at=at, known_at=at, asset=asset, metric=metric, value=value, source=source)


def market(*, until=START, held="binance", readings=True):
    """Hourly bars that go nowhere, and funding of one venue every eight hours."""
    opens = np.arange(0, until, HOUR)
    price = 100.0 + np.sin(np.arange(len(opens)) / 7.0)
    bars = BarTable("BTC/USDT", HOUR, opens, price, price + 1, price - 1, price, np.ones(len(opens)))
    settled = np.arange(8 * HOUR, until + 1, 8 * HOUR)
    rates = 1e-4 * np.sin(np.arange(len(settled)) / 5.0)
    table = ReadingTable("BTC", "funding_rate", held, settled, settled, rates)
    return Dataset("test", bars={"BTC/USDT": bars}, readings={("BTC", "funding_rate"): table} if readings else {})


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 60), st.sampled_from(VENUES), st.sampled_from(["BTC", "ETH"])), max_size=30),
    cuts=st.sets(st.integers(0, 30)),
    held=st.sampled_from([None, *VENUES]),
)
def test_no_series_holds_readings_of_two_venues_and_none_is_lost(rows, cuts, held):
    """The value of a reading is its venue's number; binance and binanceusdm, bybit and bybitlinear are one venue."""
    number = {venue: float(i) for i, venue in enumerate(sorted({filed_under(one) for one in VENUES}))}
    grown = GrownDataset(market(until=2 * HOUR, held=held or "", readings=held is not None))
    for i, (at, venue, asset) in enumerate(rows):
        assert grown.add_reading(reading(at, number[filed_under(venue)], venue, asset=asset))
        if i in cuts:
            grown.dataset()
    tables = grown.dataset().readings
    found = defaultdict(list)
    for (asset, metric), table in tables.items():
        assert (table.asset, table.metric) == (asset, metric)
        assert len(set(table.value.tolist())) <= 1
        assert {number[filed_under(table.source)]} >= set(table.value.tolist())
        found[asset] += list(zip(table.happened_at.tolist(), table.value.tolist(), strict=True))
    if held is not None:
        assert tables["BTC", "funding_rate"].source == held  # or the store would hold two of that name
    for asset in ("BTC", "ETH"):
        assert sorted(found[asset]) == sorted((at, number[filed_under(venue)]) for at, venue, of in rows if of == asset)


@settings(max_examples=40, deadline=None)
@given(rows=st.permutations([(1, "okx"), (2, "binanceusdm"), (3, "okx"), (4, "bybit"), (1, "bybit")]))
def test_where_none_is_held_the_first_that_was_known_has_the_plain_name_in_whatever_order_they_come(rows):
    named = in_series({}, [reading(at, float(at), venue) for at, venue in rows])
    assert sorted((one.known_at, one.metric, one.source) for one in named) == [
        (1, "funding_rate", "bybit"),
        (1, "funding_rate.okx", "okx"),
        (2, "funding_rate.binance", "binance"),
        (3, "funding_rate.okx", "okx"),
        (4, "funding_rate", "bybit"),
    ]


def test_what_is_named_already_keeps_its_name():
    """A stored series that is replayed comes back to where it lay."""
    own = ReadingTable("BTC", "funding_rate.okx", "okx", np.array([1]), np.array([1]), np.array([1.0]))
    held = {("BTC", "funding_rate.okx"): own, ("BTC", "funding_rate"): market().readings["BTC", "funding_rate"]}
    (again,) = in_series(held, [reading(2, 2.0, "okx", metric="funding_rate.okx")])
    assert (again.metric, again.source) == ("funding_rate.okx", "okx")
    assert series_name("funding_rate", "binanceusdm", owner="binance") == "funding_rate"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_says_no_number_is_left_out_and_counted(value):
    clock = VirtualClock(START)
    agent = SignalAgent("chain", SignalBook(SIGNALS), market(), AgentsConfig(sieve=OFF), clock=clock)
    before = agent.grown.dataset()
    agent.read([sealed(reading(START, value, "binance"), topic="readings", key="BTC", source="s", native_id="1")])
    assert (agent.counts.readings, agent.counts.unusable) == (1, 1)
    assert agent.grown.dataset().readings == before.readings


SIGNALS = SignalsConfig(sources=("funding",), keep_features=False)


def test_an_agent_says_of_its_venue_what_it_says_where_no_other_speaks():
    """Another venue's funding, ten times as high, moves nothing."""
    interval = range(START, START + 2 * DAY, HOUR)

    def said(*venues):
        clock = VirtualClock(START)
        agent = SignalAgent("chain", SignalBook(SIGNALS), market(), AgentsConfig(sieve=OFF), clock=clock)
        found = []

        async def run():
            for opened in interval:
                clock.advance_to(opened + HOUR + 5 * SECOND)
                bar = Bar(happened_at=opened, known_at=opened + HOUR, instrument="BTC/USDT", interval=HOUR, **PRICES)
                agent.read([sealed(bar, topic="market", key="k", source="s", native_id=f"b{opened}")])
                if (opened + HOUR) % (8 * HOUR) == 0:
                    rates = [reading(opened + HOUR, 1e-3 if venue == "okx" else -1e-4, venue) for venue in venues]
                    agent.read([sealed(one, topic="r", key="k", source=one.source, native_id=f"{one.known_at}") for one in rates])
                for bar_said in await agent.bars_due():
                    found.extend(bar_said.signals)

        asyncio.run(run())
        return found

    alone = said("binanceusdm")
    assert len(alone) == len(interval)
    assert said("okx", "binanceusdm") == alone
    assert said("okx") != alone


PRICES = dict.fromkeys(("open", "high", "low", "close", "volume"), 100.0)
