"""The agent by hand: when a bar is due, what is passed over, what is bounded."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from cryptoalpha.core.clock import VirtualClock
from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.core.streamed import Trade
from cryptoalpha.core.time import HOUR, SECOND
from cryptoalpha.core.values import Bar, ChainReading, Post
from cryptoalpha.data.bus.envelope import sealed
from cryptoalpha.data.config import SimulatedConfig
from cryptoalpha.data.simulated import simulate
from cryptoalpha.signals.agents.agent import SignalAgent
from cryptoalpha.signals.agents.config import OFF, AgentsConfig
from cryptoalpha.signals.agents.grown import GrownDataset
from cryptoalpha.signals.agents.opening import open_agent, sources_by_agent
from cryptoalpha.signals.agents.replay import messages_of, replayed, without_taker_volume
from cryptoalpha.signals.book import SignalBook
from cryptoalpha.signals.config import NewsConfig, SignalsConfig
from cryptoalpha.store.tables import ReadingTable

SIGNALS = SignalsConfig(sources=("news_tone",), keep_features=False, news=NewsConfig(history_days=1.0))


@pytest.fixture(scope="module")
def market():
    return without_taker_volume(simulate(SimulatedConfig(assets=2, bars=24 * 40, start="2021-01-01"), seed=2).dataset)


@pytest.fixture
def since(market):
    return int(next(iter(market.bars.values())).open_time[-5])


def agent_at(market, moment, **changes):
    clock = VirtualClock(moment)
    config = AgentsConfig(**{"sieve": OFF, "settle_seconds": 1.0, "grace_seconds": 20.0, **changes})
    return SignalAgent("text", SignalBook(SIGNALS), market.known_until(moment), config, clock=clock), clock


def bar_of(market, name, opened):
    table = market.bars[name]
    row = int(np.searchsorted(table.open_time, opened))
    values = {part: float(getattr(table, part)[row]) for part in ("open", "high", "low", "close", "volume")}
    return Bar(happened_at=opened, known_at=opened + HOUR, instrument=name, interval=HOUR, **values)


def in_envelope(value, name):
    return sealed(value, topic="any", key="k", source="s", native_id=name)


def post(moment, number, text="SIM1 rallies", **changes):
    return Post(happened_at=moment, known_at=moment, post_id=f"{number}", source="x", text=text, **changes)


def test_a_whole_bar_is_due_when_it_has_settled(market, since):
    agent, clock = agent_at(market, since)
    names = sorted(market.bars)

    async def run():
        said = await agent([in_envelope(bar_of(market, name, since), name) for name in names])
        clock.advance_to(since + HOUR + SECOND - 1)
        said += await agent.due()
        clock.advance_to(since + HOUR + SECOND)
        return said, await agent.due(), await agent.due()

    early, due, again = asyncio.run(run())
    assert (early, again) == ([], [])
    assert {envelope.topic for envelope in due} == {"signals"}
    assert {envelope.key for envelope in due} == set(names)
    seen = replace(market, posts=market.known_until(since).posts)
    expected = SignalBook(SIGNALS).prepare(seen, since=since, until=since + HOUR).signals_at(0)
    assert [envelope.value() for envelope in due] == expected
    assert due[0].id == f"agent/text/{since + HOUR}/news_tone/{names[0]}"


def test_a_bar_without_an_instrument_waits_for_it_until_its_grace_is_over(market, since):
    agent, clock = agent_at(market, since)
    name = sorted(market.bars)[0]

    async def run():
        await agent([in_envelope(bar_of(market, name, since), name)])
        clock.advance_to(since + HOUR + 20 * SECOND - 1)
        early = await agent.due()
        clock.advance_to(since + HOUR + 20 * SECOND)
        return early, await agent.due()

    early, due = asyncio.run(run())
    assert early == []
    assert [envelope.key for envelope in due] == [name]


def test_after_an_outage_a_bar_waits_for_an_instrument_whose_older_bars_are_still_being_read(market, since):
    """The clock is hours ahead of what is read; the one partition is read whole before the other, which goes on bar by bar."""
    agent, clock = agent_at(market, since)
    (one, other), hours = sorted(market.bars), range(4)
    clock.advance_to(since + 100 * HOUR)

    async def run():
        said = await agent([in_envelope(bar_of(market, one, since + hour * HOUR), f"one{hour}") for hour in hours])
        for hour in hours[:-1]:
            clock.advance_to(clock.now() + 19 * SECOND)
            said += await agent([in_envelope(bar_of(market, other, since + hour * HOUR), f"other{hour}")])
        clock.advance_to(clock.now() + 20 * SECOND - 1)
        early = await agent.due()
        clock.advance_to(clock.now() + 1)  # nothing more was read of the other one in its time of grace: it is given up
        return said, early, await agent.due()

    said, early, late = asyncio.run(run())
    assert [(envelope.key, envelope.observed_time) for envelope in said] == [
        (name, since + (hour + 1) * HOUR) for hour in hours[:-1] for name in (one, other)
    ]
    assert early == []
    assert [(envelope.key, envelope.observed_time) for envelope in late] == [(one, since + 4 * HOUR)]


def test_what_is_none_of_its_business_is_passed_over_and_what_cannot_be_read_fails_each_time(market, since):
    agent, _ = agent_at(market, since)
    trade = Trade(happened_at=since, known_at=since, instrument="SIM1/USDT", venue="v", trade_id="1", side="buy", price=1.0, amount=1.0)
    broken = replace_payload(in_envelope(post(since, 1), "1"), b"\xc1")

    async def run():
        await agent([in_envelope(trade, "t")])
        for _ in range(2):
            with pytest.raises(DataError, match="holds no Post"):
                await agent([broken])

    asyncio.run(run())
    assert (agent.counts.ignored, agent.counts.posts) == (1, 0)
    other = Bar(
        happened_at=since + 1,
        known_at=since + 1 + HOUR,
        instrument="SIM1/USDT",
        interval=HOUR,
        open=1.0,
        high=1.0,
        low=1.0,
        close=1.0,
        volume=0,
    )
    with pytest.raises(DataError, match="off the grid"):
        asyncio.run(agent([in_envelope(other, "off")]))


def replace_payload(envelope, payload):
    return msgspec.structs.replace(envelope, payload=payload)


def test_what_could_not_be_read_before_a_restart_stops_no_restart(market, since):
    """It lies among the dead letters, and on the bus still."""
    agent, _ = agent_at(market, since)
    names = sorted(market.bars)
    off_grid = Bar(happened_at=since + 7, known_at=since + HOUR + 7, instrument=names[0], interval=HOUR, **dict.fromkeys(PRICES, 1.0))
    whole = [in_envelope(bar_of(market, name, since), name) for name in names]
    asyncio.run(agent.remember([in_envelope(off_grid, "off"), replace_payload(whole[0], b"?"), *whole]))
    assert agent.counts.bars == 3
    assert all(int(table.open_time[-1]) == since for table in agent.grown.dataset().bars.values())


PRICES = ("open", "high", "low", "close", "volume")


def test_of_two_readings_of_a_post_the_first_counts(market, since):
    agent, clock = agent_at(market, since)

    async def run():
        await agent([in_envelope(post(since, 7, "first"), "7:0"), in_envelope(post(since, 7, "edited", revision=1), "7:1")])
        clock.advance_to(since + SECOND)
        await agent.due()

    asyncio.run(run())
    assert agent.grown.dataset().posts["x"].text.tolist() == ["first"]
    assert agent.counts.revisions == 1


def test_a_burst_is_bounded_and_what_is_dropped_is_counted(market, since):
    agent, clock = agent_at(market, since, most_waiting=10)

    async def run():
        await agent([in_envelope(post(since + n, n, f"text {n}"), str(n)) for n in range(25)])
        clock.advance_to(since + SECOND)
        await agent.due()

    asyncio.run(run())
    assert agent.counts.dropped == 15
    assert agent.grown.dataset().posts["x"].text.tolist() == [f"text {n}" for n in range(15, 25)]  # the newest stay


def test_old_texts_are_forgotten_and_no_signal_changes(market):
    """A month of texts within a look-back of a day and some: most of them go, and the signals are those of one that keeps all."""
    opens = next(iter(market.bars.values())).open_time
    since, until = int(opens[-24 * 12]), int(opens[-1]) + HOUR

    def run(text_days):
        agent, clock = agent_at(market, since, text_days=text_days)
        return asyncio.run(replayed(agent, messages_of(market, after=since, until=until), clock, until=until + HOUR)), agent

    kept, everything = run(10_000.0)
    said, forgetful = run(8.5)  # a week of repeats, a day of window
    assert [bar.signals for bar in said] == [bar.signals for bar in kept]
    assert sum(map(len, forgetful.grown.dataset().posts.values())) < 0.7 * sum(map(len, everything.grown.dataset().posts.values()))


def test_a_grown_dataset_tells_repeats_apart_and_puts_late_things_where_they_belong(market, since):
    grown = GrownDataset(market.known_until(since))
    names = sorted(market.bars)
    assert grown.add_bar(bar_of(market, names[0], since + HOUR))
    assert grown.add_bar(bar_of(market, names[0], since))
    assert not grown.add_bar(bar_of(market, names[0], since))
    grown.dataset()
    assert not grown.add_bar(bar_of(market, names[0], since + HOUR))
    assert not grown.add_bar(bar_of(market, names[0], since - HOUR))
    assert grown.repeats == 3
    expected = market.bars[names[0]].open_time
    assert np.array_equal(grown.dataset().bars[names[0]].open_time, expected[expected < since + 2 * HOUR])
    for moment, value in ((since + 5, 2.0), (since, 1.0), (since + 9, 3.0)):
        grown.add_reading(ChainReading(happened_at=moment, known_at=moment, asset="*", metric="mood", value=value, source="s"))
    table = grown.dataset().readings["*", "mood"]
    assert isinstance(table, ReadingTable)
    assert table.value.tolist() == [1.0, 2.0, 3.0]
    grown.add_reading(ChainReading(happened_at=since + 6, known_at=since + 6, asset="*", metric="mood", value=2.5, source="s"))
    assert grown.dataset().readings["*", "mood"].value.tolist() == [1.0, 2.0, 2.5, 3.0]
    assert grown.late == 1


def test_agents_share_out_the_configured_sources(market, since):
    config = SignalsConfig(sources=("momentum", "news_tone", "funding", "trend"))
    assert sources_by_agent(config) == {"text": ("news_tone",), "chain": ("funding",), "price": ("momentum", "trend")}
    with pytest.raises(ConfigError, match="genome"), open_agent("genome", config, market):
        pass
    clock = VirtualClock(since)
    with open_agent("price", config, market.known_until(since), clock=clock) as agent:
        said = asyncio.run(
            replayed(agent, messages_of(replace(market, posts={}), after=since, until=since + HOUR), clock, until=since + 2 * HOUR)
        )
    expected = SignalBook(SignalsConfig(sources=("momentum", "trend"))).prepare(market, since=since, until=since + HOUR)
    assert list(said[0].signals) == expected.signals_at(0)
    assert {signal.source for signal in said[0].signals} <= {"momentum", "trend"}


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="grace_seconds"):
        AgentsConfig(settle_seconds=30.0, grace_seconds=5.0)


@pytest.mark.parametrize(("old", "left"), [(1, 10), (3, 10), (4, 7), (9, 2)])
def test_texts_are_forgotten_once_they_are_a_third_of_all_and_never_the_first(market, since, old, left):
    grown = GrownDataset(replace(market, posts={}))
    for number in range(10):
        grown.add_post(post(since + number * SECOND, number))
    grown.forget(since + old * SECOND, at_least=1 / 3)
    kept = grown.dataset().posts["x"].post_id.tolist()
    assert (kept[0], len(kept)) == ("0", left)
