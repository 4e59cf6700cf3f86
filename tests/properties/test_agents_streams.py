"""Streams of any kind: duplicates, disorder, floods, restarts. What an agent says is what the book says of the same history."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalpha.core.clock import VirtualClock
from cryptoalpha.core.time import DAY, HOUR, MINUTE, SECOND
from cryptoalpha.core.values import Post
from cryptoalpha.data.bus.envelope import sealed
from cryptoalpha.data.config import SimulatedConfig
from cryptoalpha.data.simulated import simulate
from cryptoalpha.signals.agents.agent import SignalAgent
from cryptoalpha.signals.agents.config import OFF, AgentsConfig, SieveConfig
from cryptoalpha.signals.agents.grown import GrownDataset
from cryptoalpha.signals.agents.replay import messages_of, replayed, without_taker_volume
from cryptoalpha.signals.agents.sieve import sifted
from cryptoalpha.signals.book import SignalBook
from cryptoalpha.signals.config import NewsConfig, SignalsConfig
from cryptoalpha.store.tables import PostTable

BARS, ASKED = 90, 10
SIGNALS = SignalsConfig(
    sources=("news_tone", "volatility"), keep_features=False, news=NewsConfig(history_days=1.0, window_hours=6.0, repeat_days=0.5)
)
TEXTS = (
    "Bitcoin surges past $60,000 as ETF inflows reach a record",
    "bitcoin surges past $61,000 as ETF inflows reach a record https://x.yz/1",
    "Ethereum developers delay the upgrade after a critical bug was found",
    "Exchange hacked, customers lose bitcoin worth 40 million dollars",
    "Markets rally as the Fed cuts rates",
    "what a lovely day for a walk by the sea",
    "BITCOIN SURGES PAST $60,000 AS ETF INFLOWS REACH A RECORD",
    "🚀🚀🚀",
    "Giveaway! follow us and retweet to win free bitcoin",
)


@cache
def made(bars=BARS):
    market = simulate(SimulatedConfig(assets=2, bars=bars, start="2021-01-01"), seed=3).dataset
    return replace(without_taker_volume(market), posts={})


@st.composite
def written(draw, least=8, most=40):
    """Posts as (minute after the first bar, text, source); many at the same moment, many alike, most of them in the bars asked about."""
    minutes = st.one_of(st.integers(0, 60 * BARS), st.integers(0, 6 * ASKED).map(lambda i: 60 * (BARS - ASKED) + 10 * i))
    rows = st.tuples(minutes, st.sampled_from(TEXTS), st.sampled_from(("news", "x")))
    return sorted(draw(st.lists(rows, min_size=least, max_size=most)), key=lambda row: row[0])


def with_posts(market, rows):
    """The market with these texts, as a load from files would hold them."""
    start = int(next(iter(market.bars.values())).open_time[0])
    posts = {}
    for source in sorted({row[2] for row in rows}):
        mine = [(start + minute * MINUTE, text) for minute, text, one in rows if one == source]
        partition = ("%016x" % (1 + len(posts)))[:16]
        posts[source] = PostTable(
            source=source,
            happened_at=np.array([moment for moment, _ in mine], np.int64),
            known_at=np.array([moment for moment, _ in mine], np.int64),
            text=np.array([text for _, text in mine], object),
            post_id=np.array([f"{partition}:{i}" for i in range(len(mine))], object),
            partition=np.full(len(mine), partition, "U16"),
            row=np.arange(len(mine)),
        )
    return replace(market, posts=posts)


def asked(market):
    opens = next(iter(market.bars.values())).open_time
    return int(opens[-ASKED]), int(opens[-1]) + HOUR


def spoken(history, messages, since, until, *, sieve=OFF, reorder=0.0, start=None):
    clock = VirtualClock(since)
    config = AgentsConfig(sieve=sieve, settle_seconds=2.0, reorder_seconds=reorder)
    agent = SignalAgent("text", SignalBook(SIGNALS), start or history.known_until(since), config, clock=clock)
    return asyncio.run(replayed(agent, messages, clock, until=until + HOUR)), agent


def in_batch(history, since, until):
    tape = SignalBook(SIGNALS).prepare(history, since=since, until=until)
    return [tape.signals_at(t) for t in range(len(tape))]


@settings(max_examples=25, deadline=None)
@given(rows=written(), data=st.data())
def test_duplicates_and_disorder_change_nothing(rows, data):
    market = made()
    history = with_posts(market, rows)
    since, until = asked(market)
    messages = [(one.observed_time, one) for one in messages_of(history, after=since, until=until)]
    late = data.draw(st.lists(st.integers(0, 1_900), min_size=len(messages), max_size=len(messages)))  # ms, less than an agent waits
    again = data.draw(st.lists(st.integers(0, 2), min_size=len(messages), max_size=len(messages)))
    coming = [(moment + ms * SECOND // 1_000, one) for (moment, one), ms in zip(messages, late, strict=True)]
    coming += [(moment + HOUR // 2 * k, one) for (moment, one), times in zip(messages, again, strict=True) for k in range(times)]
    said, agent = spoken(history, sorted(coming, key=lambda each: each[0]), since, until)
    assert [list(bar.signals) for bar in said] == in_batch(history, since, until)
    assert agent.counts.repeats == sum(again)


@settings(max_examples=25, deadline=None)
@given(rows=written(), hours=st.integers(1, ASKED - 2))
def test_a_text_that_comes_hours_late_counts_from_the_next_bar_on(rows, hours):
    history = with_posts(made(), rows)
    since, until = asked(history)
    messages = [(one.observed_time, one) for one in messages_of(history, after=since, until=until)]
    coming = [(moment + hours * HOUR if one.kind == "Post" and k % 3 == 0 else moment, one) for k, (moment, one) in enumerate(messages)]
    said, _ = spoken(history, sorted(coming, key=lambda each: each[0]), since, until)
    tape = SignalBook(SIGNALS).prepare(history, since=since, until=until)
    assert len(said) == len(tape)
    for t, bar in enumerate(said):
        late = [one for moment, one in coming if one.observed_time <= bar.known_at < moment - SECOND]
        if not late:
            assert list(bar.signals) == tape.signals_at(t)


@settings(max_examples=25, deadline=None)
@given(rows=written(), data=st.data())
def test_the_sieve_judges_a_stream_as_it_judges_a_history(rows, data):
    market = made()
    sieve = SieveConfig(remembered=16)
    whole = with_posts(market, rows)
    since, until = asked(market)
    silent = replace(whole, posts={})
    first = int(next(iter(market.bars.values())).open_time[0])
    texts = [one for one in messages_of(whole, after=first - 1, until=until) if one.kind == "Post"]
    bars = list(messages_of(silent, after=since, until=until))
    late = data.draw(st.lists(st.integers(0, 900), min_size=len(texts), max_size=len(texts)))
    coming = [(one.observed_time + ms * SECOND // 1_000, one) for one, ms in zip(texts, late, strict=True)]
    coming += [(one.observed_time, one) for one in bars]
    said, agent = spoken(
        whole, sorted(coming, key=lambda each: each[0]), first, until, sieve=sieve, reorder=1.0, start=silent.known_until(since)
    )
    assets = tuple(name.split("/")[0] for name in market.bars)
    assert [list(bar.signals) for bar in said] == in_batch(sifted(whole, assets, sieve), since, until)
    assert sum(agent.counts.verdicts.values()) == len(texts)


def post(moment, text, number, *, author="", reach=0.0, source="x"):
    return Post(happened_at=moment, known_at=moment, post_id=f"n{number}", source=source, text=text, author=author, reach=reach)


def sealed_post(one):
    return sealed(one, topic="texts", key=one.source, source=one.source, native_id=one.post_id)


WORDS = ("bitcoin", "crashes", "surges", "hacked", "record", "ETF", "bank", "run", "BTC", "rally", "plunges", "fraud", "gains", "$5", "now")


@settings(max_examples=25, deadline=None)
@given(
    rows=written(least=0, most=20),
    flood=st.lists(
        st.tuples(st.integers(0, 60 * ASKED - 1), st.lists(st.sampled_from(WORDS), min_size=3, max_size=8)), min_size=5, max_size=60
    ),
    reach=st.sampled_from([0.0, 20.0, 5e6]),
)
def test_of_a_flood_by_one_author_only_the_first_texts_count(rows, flood, reach):
    """Whatever he writes, and however often: once the cap is reached, nothing of it moves a bit of any signal."""
    market = made()
    since, until = asked(market)
    history = with_posts(market, rows)
    silent = replace(history, posts={})
    sieve = SieveConfig(relevance_threshold=0.0)
    texts = [(one.observed_time, one) for one in messages_of(history, after=0, until=until) if one.kind == "Post"]
    bars = [(one.observed_time, one) for one in messages_of(silent, after=since, until=until)]
    his = [
        post(since + minute * MINUTE + n, " ".join(words), n, author="him", reach=reach)
        for n, (minute, words) in enumerate(sorted(flood, key=lambda each: each[0]))
    ]

    def run(his):
        coming = sorted([*texts, *bars, *((one.known_at, sealed_post(one)) for one in his)], key=lambda each: each[0])
        first = int(next(iter(market.bars.values())).open_time[0])
        return spoken(history, coming, first, until, sieve=sieve, reorder=0.0, start=silent.known_until(since))

    said, agent = run(his)
    table = agent.grown.dataset().posts.get("x")
    mine = [] if table is None else [i for i, name in enumerate(table.post_id.tolist()) if name.startswith("n")]
    assert len(mine) <= sieve.posts_per_author
    assert not mine or table.weight[mine].sum() <= sieve.posts_per_author * (1.0 if reach > 20.0 else 0.4)
    last = max((int(table.post_id[i][1:]) for i in mine), default=-1)
    capped, _ = run(his[: last + 1])
    assert [list(bar.signals) for bar in said] == [list(bar.signals) for bar in capped]


def test_an_agent_that_begins_again_remembers():
    market = made()
    rows = [(30 * k, TEXTS[k % len(TEXTS)], "news") for k in range(2 * BARS)]
    history = with_posts(market, rows)
    since, until = asked(market)
    expected = in_batch(history, since, until)
    clock = VirtualClock(since + 5 * HOUR)
    again = SignalAgent("text", SignalBook(SIGNALS), history.known_until(since), AgentsConfig(sieve=OFF), clock=clock)
    middle = since + 5 * HOUR
    asyncio.run(again.remember(one.value() for one in messages_of(history, after=since, until=middle)))
    said = asyncio.run(replayed(again, messages_of(history, after=middle, until=until), clock, until=until + HOUR))
    assert [list(bar.signals) for bar in said] == expected[5:]


@settings(max_examples=25, deadline=None)
@given(
    rows=written(),
    flood=st.lists(st.tuples(st.integers(-60, 60 * ASKED), st.integers(0, len(TEXTS) - 1), st.sampled_from("ab")), max_size=30),
    cut=st.integers(-1, 60 * ASKED),
)
def test_an_agent_that_is_stopped_anywhere_goes_on_as_if_it_had_not_been(rows, flood, cut):
    """With the sieve, authors who flood on both sides of the stop, and texts that still wait for others when it comes."""
    market = made()
    since, until = asked(market)
    history = with_posts(market, rows)
    sieve = SieveConfig(relevance_threshold=0.0, posts_per_author=2, author_hours=4.0)
    texts = [(one.observed_time, one) for one in messages_of(history, after=0, until=until) if one.kind == "Post"]
    bars = [(one.observed_time, one) for one in messages_of(replace(history, posts={}), after=since, until=until)]
    floods = [
        post(since + minute * MINUTE + n, TEXTS[text], n, author=author, reach=3_000.0) for n, (minute, text, author) in enumerate(flood)
    ]
    coming = sorted([*texts, *bars, *((one.known_at, sealed_post(one)) for one in floods)], key=lambda each: each[0])
    silent, first = replace(history, posts={}), int(next(iter(market.bars.values())).open_time[0])
    whole, agent = spoken(history, coming, first, until, sieve=sieve, reorder=20.0, start=silent.known_until(since))
    stop = since + cut * MINUTE
    handled = [one for at, one in coming if at <= stop]
    clock = VirtualClock(max(stop, first))
    config = AgentsConfig(sieve=sieve, settle_seconds=2.0, reorder_seconds=20.0)
    again = SignalAgent("text", SignalBook(SIGNALS), silent.known_until(since), config, clock=clock)
    newest = max((one.observed_time for one in handled), default=0)
    asyncio.run(again.remember(handled[::-1], said_until=newest - 22 * SECOND))
    said = asyncio.run(replayed(again, [each for each in coming if each[0] > stop], clock, until=until + HOUR))
    assert said == [bar for bar in whole if bar.open_time >= said[0].open_time]
    assert said[0].open_time <= max(since, stop - stop % HOUR)
    assert again.sieve.verdicts == agent.sieve.verdicts
    for source, table in agent.grown.dataset().posts.items():
        other = again.grown.dataset().posts[source]
        assert (other.post_id.tolist(), other.weight.tolist()) == (table.post_id.tolist(), table.weight.tolist())


def test_more_texts_than_may_wait_are_remembered_all_the_same():
    market = made()
    _, until = asked(market)
    history = with_posts(market, [(60 * BARS - 300 + k, f"Bitcoin text number {k}", "x") for k in range(200)])
    config = AgentsConfig(sieve=OFF, most_waiting=40)
    again = SignalAgent("text", SignalBook(SIGNALS), replace(history, posts={}), config, clock=VirtualClock(until))
    asyncio.run(again.remember(list(messages_of(replace(history, bars={}), after=0, until=until))[::-1]))
    asyncio.run(again.bars_due())
    assert again.counts.dropped == 0
    assert len(again.grown.dataset().posts["x"]) == 200


@pytest.mark.parametrize("batch", [1, 256])
def test_a_text_that_waited_for_earlier_ones_when_an_agent_stopped_waits_on(batch):
    """The earlier one comes after the restart, says the same, and is the one that counts."""
    market = made()
    since, _ = asked(market)
    clock = VirtualClock(since)
    config = AgentsConfig(sieve=SieveConfig(relevance_threshold=0.0), reorder_seconds=20.0, batch=batch)
    again = SignalAgent("text", SignalBook(SIGNALS), market.known_until(since), config, clock=clock)
    before = [post(since + 10 * SECOND, TEXTS[0], 2), post(since + 11 * SECOND, TEXTS[3], 3), post(since + 12 * SECOND, TEXTS[4], 4)]
    asyncio.run(again.remember([sealed_post(one) for one in before]))
    again.read([sealed_post(post(since + 5 * SECOND, TEXTS[0], 1))])
    clock.advance_to(since + 40 * SECOND)
    asyncio.run(again.bars_due())
    assert again.grown.dataset().posts["x"].post_id.tolist() == ["n1", "n3", "n4"]


LONG = 24 * 8
"""Bars of a market in which texts fall silent for longer than sources look back."""


@settings(max_examples=15, deadline=None)
@given(
    early=st.lists(st.tuples(st.integers(0, 60 * 24), st.sampled_from(TEXTS)), min_size=2, max_size=6),
    late=st.lists(st.tuples(st.integers(60 * (LONG - 5), 60 * LONG - 1), st.sampled_from(TEXTS)), min_size=1, max_size=6),
)
def test_after_a_silence_forgetting_what_no_source_sees_changes_no_signal(early, late):
    """Days without a text are neutral days, if ever a text was published before: so the first of each source is kept."""
    market = made(LONG)
    _, until = asked(market)
    history = with_posts(market, sorted([(*row, "x") for row in (*early, *late)]))
    grown, book = GrownDataset(history), SignalBook(SIGNALS.model_copy(update={"sources": ("news_tone",)}))
    grown.forget(until - book.reach(HOUR) * HOUR - DAY)
    assert len(grown.dataset().posts["x"]) == 1 + len(late)
    forgotten, whole = (book.prepare(known, since=until - HOUR, until=until).signals_at(0) for known in (grown.dataset(), history))
    assert forgotten == whole
