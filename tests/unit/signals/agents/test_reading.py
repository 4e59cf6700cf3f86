"""Reading in one go, here or elsewhere: bit for bit what reading thing by thing gives."""

from __future__ import annotations

import asyncio
import os
import re
import signal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalpha.core.errors import WorkerDiedError
from cryptoalpha.core.values import Post
from cryptoalpha.signals.agents.config import AgentsConfig
from cryptoalpha.signals.agents.intake import Intake
from cryptoalpha.signals.agents.reading import ReadHere, ReadInProcesses, read_texts
from cryptoalpha.signals.agents.sieve import Sieve
from cryptoalpha.signals.text.lexicon import mentions, read, tone_of
from cryptoalpha.signals.text.relevance import appraise

ASSETS = ("BTC", "ETH", "LINK")
PIECES = (
    "Bitcoin", "BTC", "$link", "LINK", "link", "ether", "stable coins", "S&P 500", "mt. gox", "mt gox", "hodlers", "hodl", "ETF", "SEC",
    "rates", "rate hike", "gm", "gn", "giveaway", "give away", "follow us", "tag 3 friends", "100x", "1000x", "claim your", "advertising",
    "crashes", "surged 5%", "$5", "5 %", "3k", "#a #b #c #d #e #f", "$aa $bb $cc $dd $ee $ff", "not", "despite", "?", "!", "’s", "ünder",
    "\n", "3ac", "on-chain", "onchain", "bitcoin miners", "crypto miners", "miners", "xbtc", "btcx", "hash rate", "hashrate",
    "proof-of-stake", "SBF", ",", ".", "🚀",
)  # fmt: skip


def alternatives(of):
    """The word list of one kind of evidence as it is written in the module."""
    import inspect
    import sys

    source = inspect.getsource(sys.modules["cryptoalpha.signals.text.relevance"])
    listed = re.search(rf'{of} = _words\(\s*r"""(.*?)"""', source, re.DOTALL)[1]
    return re.compile(r"(?<![a-z0-9])(?:" + "|".join(" ".join(listed.split()).split(", ")) + r")(?![a-z0-9])")


CRYPTO, MARKET, ASKING = (alternatives(name) for name in ("_CRYPTO", "_MARKET", "_ASKING"))


def relevance_by_the_table(text, assets):
    """The module's header, line by line, with plain expressions."""
    text = text[:4_000]
    lower = text.lower().replace("’", "'")
    words = len(re.findall(r"\w+", lower))
    if not words:
        return 0.0
    happened = sum(kind in ("tone", "move", "growing", "inverse") for kind, _ in read(text).terms)
    doubt = (1.0 - 0.7) ** min(len(mentions(text, assets)), 2)
    doubt = doubt * (1.0 - 0.35) ** min(len(set(CRYPTO.findall(lower))), 2) * (1.0 - 0.2) ** min(len(set(MARKET.findall(lower))), 2)
    doubt = doubt * (1.0 - 0.1) ** min(happened, 2) * (1.0 - 0.1 * bool(re.search(r"\$ ?\d|\d ?%|\d[kmb]\b", lower)))
    noise = 0.35 ** min(len(set(ASKING.findall(lower))), 2)
    noise *= 0.5 ** ((len(re.findall(r"#\w+", text)) > 5) + (len(re.findall(r"\$[A-Za-z]{2,6}\b", text)) > 5))
    return (1.0 - doubt) * noise * (0.6 if words < 4 else 1.0)


@settings(max_examples=200, deadline=None)
@given(parts=st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=8)), max_size=14), glue=st.sampled_from((" ", "", ", ")))
def test_one_reading_finds_what_three_find(parts, glue):
    text = glue.join(parts)
    found = appraise(text, ASSETS)
    assert found.relevance == relevance_by_the_table(text, ASSETS)
    assert (found.tone, found.named) == (tone_of(text), mentions(text, ASSETS))


@settings(max_examples=200, deadline=None)
@given(parts=st.lists(st.sampled_from(PIECES), max_size=14), enough=st.sampled_from((0.0, 0.1, 0.3, 0.35, 0.6, 0.7, 1.0)))
def test_what_is_enough_ends_the_search_and_changes_no_verdict(parts, enough):
    text = " ".join(parts)
    exact, found = relevance_by_the_table(text, ASSETS), appraise(text, ASSETS, enough=enough).relevance
    assert (found >= enough) == (exact >= enough)
    assert found <= exact
    assert found == exact or found >= enough


def test_one_reading_of_real_texts(market_data):
    import duckdb

    rows = duckdb.connect().execute(
        f"SELECT text FROM '{market_data}/text/tweets_202303_svb.parquet' USING SAMPLE 10 PERCENT (bernoulli, 7)"
    )
    texts = [row[0] for row in rows.fetchall()]
    assert len(texts) > 500
    for text in texts:
        assert appraise(text, ASSETS).relevance == relevance_by_the_table(text, ASSETS)


@pytest.mark.slow
def test_other_processes_read_the_same_and_a_dead_one_is_replaced():
    texts = [" ".join(PIECES[i : i + 5]) for i in range(40)]
    here = asyncio.run(ReadHere(ASSETS).read(texts))

    async def elsewhere():
        with ReadInProcesses(ASSETS, 1) as reader:
            first = await reader.read(texts)
            (victim,) = list(reader._pool._processes)
            os.kill(victim, signal.SIGKILL)
            return first, await reader.read(texts)

    for found in asyncio.run(elsewhere()):
        assert np.array_equal(found.relevance, here.relevance)
        assert np.array_equal(found.tone, here.tone)
        assert found.named == here.named


class Deadly(str):
    """A text that ends whoever unpacks it."""

    def __reduce__(self):
        return os._exit, (1,)


@pytest.mark.slow
def test_processes_that_die_again_are_an_error():
    async def read():
        with ReadInProcesses(ASSETS, 1) as reader:
            await reader.read([Deadly("x")])

    with pytest.raises(WorkerDiedError, match="twice"):
        asyncio.run(read())


def test_what_is_read_is_read_for_each_text():
    found = read_texts(ASSETS, 2.0, ["BTC crashes", "", "LINK"])
    assert found.named == (("BTC",), (), ("LINK",))
    assert found.relevance[1] == 0.0
    assert found.tone[0] < 0.0


class Slow:
    """Reads when it is told to, and fails as often as it is told to."""

    reads_elsewhere = True

    def __init__(self, failures=0):
        self.goes = asyncio.Event()
        self.failures = failures

    async def read(self, texts):
        await self.goes.wait()
        if self.failures:
            self.failures -= 1
            raise WorkerDiedError("gone")
        return read_texts(ASSETS, 2.0, texts)


def posts(count):
    return [
        Post(happened_at=n, known_at=n, post_id=str(n), source="x", text=f"Bitcoin {'x' * n} crashes {'y' * n} today") for n in range(count)
    ]


def test_what_others_still_read_joins_later_and_in_order():
    async def run():
        reader = Slow()
        intake = Intake(AgentsConfig(batch=4, reorder_seconds=0.0), Sieve(), reader, ASSETS)
        for post in posts(10):
            intake.put(post)
        await asyncio.sleep(0)
        early = await intake.ready(100, wait=False)
        late = asyncio.ensure_future(intake.ready(100))
        await asyncio.sleep(0)
        intake.put(Post(happened_at=50, known_at=50, post_id="new", source="x", text="Ether rallies"))  # it comes while that one waits
        reader.goes.set()
        return early, await late

    early, found = asyncio.run(run())
    assert early == []
    assert [one.post.post_id for one in found] == [*map(str, range(10)), "new"]
    assert all(one.tone == tone_of(one.post.text) for one in found)


def test_a_reader_that_dies_loses_no_text():
    async def run():
        reader = Slow(failures=1)
        reader.goes.set()
        intake = Intake(AgentsConfig(batch=4, reorder_seconds=0.0), Sieve(), reader, ASSETS)
        for post in posts(6):
            intake.put(post)
        with pytest.raises(WorkerDiedError):
            await intake.ready(100)
        return await intake.ready(100)

    assert [one.post.post_id for one in asyncio.run(run())] == list(map(str, range(6)))
