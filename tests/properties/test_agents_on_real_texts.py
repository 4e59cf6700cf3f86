"""Stored texts replayed as a stream give the signals of the batch, to the last bit."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import rankdata

from cryptoalpha.core.clock import VirtualClock
from cryptoalpha.core.time import HOUR, parse_time
from cryptoalpha.data.files import load_directory
from cryptoalpha.signals.agents.agent import SignalAgent
from cryptoalpha.signals.agents.config import OFF, AgentsConfig, SieveConfig
from cryptoalpha.signals.agents.replay import messages_of, replayed, without_taker_volume
from cryptoalpha.signals.agents.sieve import Sieve, sifted
from cryptoalpha.signals.book import SignalBook
from cryptoalpha.signals.config import SignalsConfig
from cryptoalpha.store.bar_gate import BarGate

INSTRUMENTS = ("BTC/USDT", "ETH/USDT", "SOL/USDT")
EVERYTHING = SignalsConfig()
TEXTS = SignalsConfig(sources=("news_tone",), keep_features=False)


@pytest.fixture(scope="module")
def history(market_data):
    return without_taker_volume(load_directory(market_data, gate=BarGate(), instruments=INSTRUMENTS))


def from_stream(history, signals, sieve, since, until, *, start=None, after=None):
    begin = since if after is None else after
    clock = VirtualClock(begin)
    agent = SignalAgent("text", SignalBook(signals), start or history.known_until(since), AgentsConfig(sieve=sieve), clock=clock)
    return asyncio.run(replayed(agent, messages_of(history, after=begin, until=until), clock, until=until + HOUR)), agent


@pytest.mark.parametrize(
    ("since", "hours", "signals"),
    [
        ("2023-03-08T00:00", 96, TEXTS),  # tweets of a bank run, five thousand a day
        ("2022-05-09T00:00", 48, TEXTS),  # news
        ("2023-03-10T12:00", 8, EVERYTHING),  # every source of the book, prices, chain and mood as well
    ],
)
def test_a_stream_says_what_the_batch_says(history, since, hours, signals):
    begin = parse_time(since)
    end = begin + hours * HOUR
    batch = SignalBook(signals).prepare(history, since=begin, until=end)
    said, _ = from_stream(history, signals, OFF, begin, end)
    assert [bar.open_time for bar in said] == batch.panel.open_time.tolist()
    for t, bar in enumerate(said):
        assert list(bar.signals) == batch.signals_at(t)
        assert repr(list(bar.states)) == repr(batch.states_at(t))
    assert sum(len(bar.signals) for bar in said) > hours  # there was something to say


@pytest.mark.slow
def test_two_years_of_texts_said_bar_by_bar_are_what_the_batch_says(history, capsys):
    """The tweets of 2023-03 and the news of 2021-10 to 2023-12, every bar of three instruments; counts are printed."""
    begin, end = parse_time("2021-10-01T00:00"), parse_time("2024-01-01T00:00")
    batch = SignalBook(TEXTS).prepare(history, since=begin, until=end)
    said, agent = from_stream(history, TEXTS, OFF, begin, end)
    by_time = {bar.open_time: list(bar.signals) for bar in said}
    opened = batch.panel.open_time.tolist()
    closed = {open_time for t, open_time in enumerate(opened) if np.isnan(batch.panel.close[t]).all()}  # hours without any market
    equal = sum(by_time.get(open_time) == batch.signals_at(t) for t, open_time in enumerate(opened))
    with capsys.disabled():
        print(f"\nreplay: {agent.counts.posts:,} texts, {agent.counts.signals:,} signals, {equal:,} of {len(said):,} bars bit-equal")
    assert len(said) == len(by_time) == equal == len(opened) - len(closed)
    assert by_time.keys() == set(opened) - closed
    assert not any(batch.signals_at(t) for t, open_time in enumerate(opened) if open_time in closed)
    assert agent.counts.posts == sum(((table.known_at > begin) & (table.known_at <= end)).sum() for table in history.posts.values())


@pytest.mark.slow
def test_with_the_sieve_a_stream_says_what_the_batch_says_of_the_sifted_texts(history):
    """Two days of a bank run: the sieve leaves a part of the tweets, the same ones either way."""
    begin, sieve = parse_time("2023-03-09T12:00"), SieveConfig()
    end = begin + 36 * HOUR
    after = parse_time("2023-03-06T00:00")
    tweets = replace(history, posts={"x": history.posts["x"].take(history.posts["x"].known_at > after)})
    start = replace(history.known_until(begin), posts={})
    messages = replace(tweets, bars={name: table.take(table.known_at > begin) for name, table in tweets.bars.items()}, readings={})
    sifted_tweets = sifted(tweets, ("BTC", "ETH", "SOL"), sieve)
    batch = SignalBook(TEXTS).prepare(sifted_tweets, since=begin, until=end)
    said, agent = from_stream(messages, TEXTS, sieve, begin, end, start=start, after=after)
    assert [list(bar.signals) for bar in said] == [batch.signals_at(t) for t in range(len(batch))]
    counted = agent.sieve.verdicts["counted"]
    assert counted == len(sifted_tweets.posts["x"].take(sifted_tweets.posts["x"].known_at <= end))
    assert 0.2 < counted / agent.counts.posts < 0.9
    assert agent.sieve.verdicts["repeat"] > 100


HOURS_AHEAD = (4, 24, 72)
PERIODS = (("2023-03-06T00:00", "2023-04-01T00:00"), ("2021-11-01T00:00", "2024-01-01T00:00"))


@pytest.mark.slow
def test_what_the_sieve_takes_from_stored_texts_and_what_becomes_of_the_signal(history, capsys):
    """Printed for docs/streams.md: texts by verdict, and the rank correlation of the news tone with returns ahead, open to open."""
    sieve = Sieve()
    left = sifted(history, ("BTC", "ETH", "SOL"), sieve.config, sieve=sieve)
    kept = {name: len(left.posts[name]) / len(table) for name, table in history.posts.items()}
    lines = [f"sieve: {sieve.verdicts}", f"share that counts: { {name: round(share, 3) for name, share in kept.items()} }"]
    for since, until in PERIODS:
        for name, texts in (("all", history), ("sifted", left)):
            tape = SignalBook(TEXTS).prepare(texts, since=parse_time(since), until=parse_time(until))
            value = np.full(tape.panel.open.shape, np.nan)
            for t in range(len(tape)):
                for signal in tape.signals_at(t):
                    value[t, tape.panel.instruments.index(signal.instrument)] = signal.value
            correlation = {hours: round(_rank_correlation(value, tape.panel.open, hours), 3) for hours in HOURS_AHEAD}
            lines.append(
                f"{since[:10]} to {until[:10]}, {name} texts: {np.isfinite(value).sum():,} opinions, IC by hours ahead {correlation}"
            )
    with capsys.disabled():
        print("", *lines, sep="\n")
    assert sum(sieve.verdicts.values()) == sum(map(len, history.posts.values()))
    assert 0.4 < kept["x"] < 0.7 < kept["news"] < 1.0


def _rank_correlation(value, price, hours):
    """Between opinions and the return from the next open to that so many hours later."""
    ahead = np.full_like(value, np.nan)
    ahead[: -hours - 1] = np.log(price[1 + hours :] / price[1:-hours])
    both = np.isfinite(value) & np.isfinite(ahead)
    ranks = [rankdata(of[both]) for of in (value, ahead)]
    return float(np.corrcoef(*ranks)[0, 1])
