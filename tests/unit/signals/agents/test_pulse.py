"""Between bars: the running sums against adding up everything."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cryptoalpha.core.clock import VirtualClock
from cryptoalpha.core.time import HOUR, MINUTE, SECOND
from cryptoalpha.core.values import Post
from cryptoalpha.data.bus.envelope import sealed
from cryptoalpha.data.config import SimulatedConfig
from cryptoalpha.data.simulated import simulate
from cryptoalpha.signals.agents.config import AgentsConfig
from cryptoalpha.signals.agents.intake import Counted
from cryptoalpha.signals.agents.opening import open_agent
from cryptoalpha.signals.agents.pulse import Pulse
from cryptoalpha.signals.config import NewsConfig, SignalsConfig

BOOK, ASSETS = ("BTC/USDT", "ETH/USDT"), ("BTC", "ETH")
START = 20_000 * 24 * HOUR
STEP = 15 * MINUTE
"""A ninety-sixth of the window of a day."""


def text(minute, tone, named, weight=1.0):
    moment = START + minute * MINUTE
    return Counted(Post(happened_at=moment, known_at=moment, post_id=str(minute), source="x", text="t"), weight, tone, named)


def summed(texts, place, now):
    """Every text of the window by itself; the window ends where a step does."""
    total = weight = 0.0
    for one in texts:
        if one.post.known_at // STEP > now // STEP - 96 and one.post.known_at <= now and (not one.named or ASSETS[place] in one.named):
            w = one.weight * (1.0 if one.named else 0.5) * 0.5 ** ((now - one.post.known_at) / (6 * HOUR))
            total, weight = total + w * one.tone, weight + w
    return total, weight


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.integers(0, 3_000), st.floats(-1.0, 1.0), st.sampled_from([(), ("BTC",), ("ETH",), ("BTC", "ETH")]), st.floats(0.1, 1.0)
        ),
        min_size=1,
        max_size=60,
    ),
    at_once=st.integers(1, 7),
)
@example(rows=[(120, 1.0, (), 1.0), (3_000, 1.0, ("BTC",), 1.0)], at_once=2)  # two days after a time of silence, at once
def test_running_sums_are_the_sums(rows, at_once):
    texts = [text(*row) for row in sorted(rows, key=lambda row: row[0])]
    pulse = Pulse(BOOK, ASSETS, SignalsConfig())
    for start in range(0, len(texts), at_once):
        part = texts[start : start + at_once]
        signals = pulse.add(part)
        concerned = {place for one in part for place in (0, 1) if not one.named or ASSETS[place] in one.named}
        assert [signal.instrument for signal in signals] == [BOOK[place] for place in sorted(concerned)]
        for signal in signals:
            total, weight = summed(texts[: start + at_once], BOOK.index(signal.instrument), signal.known_at)
            assert signal.value == pytest.approx(total / (weight + 1.0), abs=1e-12)
            assert signal.confidence == pytest.approx(1.0 - 0.5 ** (weight / 2.0), abs=1e-12)


def test_a_text_that_comes_late_is_said_of_its_own_moment():
    pulse = Pulse(BOOK, ASSETS, SignalsConfig())
    pulse.add([text(100, -1.0, ("BTC",))])
    (signal,) = pulse.add([text(10, 1.0, ("BTC",))])
    assert (signal.known_at, signal.value) == (START + 10 * MINUTE, pytest.approx(1.0 / 2.0))  # 1 / (1 + shrinkage), not what came since


def test_a_text_that_comes_a_whole_window_late_says_nothing_and_takes_nothing_away():
    pulse = Pulse(BOOK, ASSETS, SignalsConfig())
    pulse.add([text(3_000, 1.0, ("BTC",))])
    before = pulse.level(0, START + 3_000 * MINUTE)
    assert pulse.add([text(3_000 - 24 * 60, -1.0, ("BTC",))]) == []
    assert pulse.level(0, START + 3_000 * MINUTE) == before


def test_a_market_that_weighs_nothing_says_nothing():
    pulse = Pulse(BOOK, ASSETS, SignalsConfig(news=NewsConfig(market_weight=0.0)))
    assert pulse.add([text(10, 1.0, ())]) == []
    assert [signal.instrument for signal in pulse.add([text(10, 1.0, ("ETH",))])] == ["ETH/USDT"]


def test_the_agent_says_at_once_what_a_text_makes_of_it():
    market = simulate(SimulatedConfig(assets=2, bars=200, start="2021-01-01"), seed=2).dataset
    end = int(next(iter(market.bars.values())).open_time[-1]) + HOUR
    clock = VirtualClock(end)
    config = SignalsConfig(sources=("news_tone",), agents=AgentsConfig(between_bars=True))
    post = Post(happened_at=end, known_at=end, post_id="7", source="x", text="$SIM1 crashes after an exchange was hacked")

    async def run(agent):
        early = await agent([sealed(post, topic="texts", key="x", source="x", native_id="7")])
        clock.advance_to(end + SECOND // 10)
        return early, await agent.due(), await agent.due()

    with open_agent("text", config, market, clock=clock) as agent:
        early, due, again = asyncio.run(run(agent))
    assert (early, again) == ([], [])
    (envelope,) = due
    signal = envelope.value()
    assert (signal.source, signal.instrument, signal.reference) == ("text_pulse", "SIM1/USDT", "x:7")
    assert signal.value < 0.0
    assert envelope.id == f"agent/text/{end}/x:7/text_pulse/SIM1/USDT"
