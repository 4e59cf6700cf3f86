"""News feeds against a publisher of their kind: conditional questions, faults, pace, and what a restart remembers."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import aclosing
from email.utils import formatdate
from typing import Any

import pytest

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.time import HOUR, SECOND
from cryptoalpha.data.sources.news import NewsSource, open_source
from cryptoalpha.data.sources.opening import Tools
from cryptoalpha.data.sources.text_config import NewsSection
from cryptoalpha.store.state.sqlite_state import SqliteState

if not os.environ.get("TESTS_SKIP_NOTHING"):
    pytest.importorskip("feedparser", reason="the extra `streams` is not installed")
    pytest.importorskip("httpx", reason="the extra `streams` is not installed")

START = 1_700_000_000 * SECOND


def item(number: int, *, ago: int = 0, title: str = "") -> str:
    date = formatdate((START - ago) / SECOND, usegmt=True)
    return f"<item><title>{title or f'bitcoin number {number}'}</title><guid>n{number}</guid><pubDate>{date}</pubDate></item>"


def feed(*items: str) -> bytes:
    return f"<rss version='2.0'><channel><title>t</title>{''.join(items)}</channel></rss>".encode()


def numbers_of(envelopes: list[Any]) -> list[int]:
    return [int(envelope.value().text.split()[-1]) for envelope in envelopes]


async def collect(source: NewsSource, count: int, position: str = "") -> tuple[list[Any], list[Any], str]:
    """Envelopes until there are `count` of them, dead letters, and the last position."""
    envelopes: list[Any] = []
    dead: list[Any] = []
    async with asyncio.timeout(10), aclosing(source.arrivals(position)) as arrivals:
        async for come in arrivals:
            envelopes.extend(come.envelopes)
            dead.extend(come.dead)
            position = come.position or position
            if len(envelopes) >= count:
                break
    return envelopes, dead, position


@pytest.fixture
def run(publisher: Any, virtual_time: Any) -> Any:
    def running(test: Any) -> None:
        async def all_of_it() -> None:
            async with publisher() as fake, SqliteState(None, clock=virtual_time.clock) as state:
                await test(fake, Tools(state=state, clock=virtual_time.clock, wait=virtual_time.wait, environment={}))

        asyncio.run(all_of_it())

    return running


def source_at(fake: Any, tools: Tools, *paths: str, **more: Any) -> NewsSource:
    return open_source(NewsSection(feeds=tuple(fake.url + path for path in paths or ("/rss",)), **more), tools)


def test_only_what_is_new_comes_and_questions_are_conditional(run: Any, virtual_time: Any) -> None:
    async def test(fake: Any, tools: Tools) -> None:
        marks = {"ETag": 'W/"a"', "Last-Modified": "Tue, 14 Nov 2023 22:00:00 GMT"}
        fake.answers(
            "/rss", fake.Reply(feed(item(1), item(2)), headers=marks), fake.Reply(status=304), fake.Reply(feed(item(3), item(2), item(1)))
        )
        source = source_at(fake, tools)
        found, dead, _ = await collect(source, 3)
        assert sorted(numbers_of(found)) == [1, 2, 3]
        assert not dead
        first, second, third = fake.requests("/rss")
        assert "If-None-Match" not in first.headers
        assert (second.headers["If-None-Match"], second.headers["If-Modified-Since"]) == (marks["ETag"], marks["Last-Modified"])
        assert third.headers["If-None-Match"] == marks["ETag"]  # a 304 leaves them standing
        assert source.health.repeats == 2
        assert all(0.8 * 120.0 <= wait <= 1.2 * 120.0 for wait in virtual_time.waits[:2])

    run(test)


def test_a_restart_asks_conditionally_and_repeats_nothing(run: Any) -> None:
    async def test(fake: Any, tools: Tools) -> None:
        fake.answers("/rss", fake.Reply(feed(item(1), item(2)), headers={"ETag": '"x"'}))
        _, _, position = await collect(source_at(fake, tools), 2)
        fake.answers("/rss", fake.Reply(feed(item(4), item(2), item(1), item(3, ago=3 * 24 * HOUR))))
        found, _, _ = await collect(source_at(fake, tools), 2, position)
        assert sorted(numbers_of(found)) == [3, 4]  # 3 is old, but it was not there before
        assert fake.requests("/rss")[1].headers["If-None-Match"] == '"x"'

    run(test)


def test_a_publisher_that_says_when_there_will_be_news_is_believed(run: Any, virtual_time: Any) -> None:
    async def test(fake: Any, tools: Tools) -> None:
        marks = {"Cache-Control": "public, s-maxage=9, max-age=600"}
        fake.answers("/rss", fake.Reply(feed(item(1)), headers=marks), fake.Reply(feed(item(2))))
        found, _, _ = await collect(source_at(fake, tools, jitter=0.0), 2)
        assert numbers_of(found) == [1, 2]
        assert virtual_time.waits == [600.0]

    run(test)


def test_the_first_time_old_news_is_no_news(run: Any) -> None:
    async def test(fake: Any, tools: Tools) -> None:
        fake.answers(
            "/rss", fake.Reply(feed(item(1, ago=7 * HOUR), item(2, ago=5 * HOUR))), fake.Reply(feed(item(1, ago=7 * HOUR), item(3)))
        )
        found, _, _ = await collect(source_at(fake, tools), 2)
        assert numbers_of(found) == [2, 3]

    run(test)


def test_a_changed_item_is_another_reading(run: Any) -> None:
    async def test(fake: Any, tools: Tools) -> None:
        fake.answers("/rss", fake.Reply(feed(item(1))), fake.Reply(feed(item(1, title="corrected: 7"))))
        found, _, _ = await collect(source_at(fake, tools), 2)
        first, second = (envelope.value() for envelope in found)
        assert first.post_id == second.post_id
        assert found[0].id != found[1].id

    run(test)


@pytest.mark.parametrize("fault", ["500", "503", "cut", "html", "half", "loop", "too long", "elsewhere"])
def test_a_fault_is_waited_out_and_nothing_is_lost(run: Any, virtual_time: Any, fault: str) -> None:
    async def test(fake: Any, tools: Tools) -> None:
        whole = feed(item(1), item(2))
        faults = {
            "500": fake.Reply(status=500),
            "503": fake.Reply(status=503, headers={"Retry-After": "300"}),
            "cut": fake.Reply(whole, cut=90),
            "html": fake.Reply(b"<html>Please log in</html>", headers={"Content-Type": "text/html", "ETag": '"bad"'}),
            "half": fake.Reply(whole[:150], headers={"ETag": '"bad"'}),
            "loop": fake.Reply(status=302, headers={"Location": "/rss2"}),
            "too long": fake.Reply(whole + b" " * 2_000),
            "elsewhere": fake.Reply(status=302, headers={"Location": "file:///etc/hostname"}),
        }
        fake.answers("/rss2", fake.Reply(status=302, headers={"Location": "/rss2"}))
        fake.answers("/rss", faults[fault], faults[fault], fake.Reply(whole))
        source = source_at(fake, tools, largest_bytes=1_000)
        found, dead, _ = await collect(source, 2)
        assert numbers_of(found) == [1, 2]
        assert len(dead) == (1 if fault in ("html", "half") else 0)  # one for both: it is the same fault
        assert source.health.reconnects == 2
        assert len(fake.requests("/rss")) == 3
        assert not any("If-None-Match" in asked.headers for asked in fake.requests("/rss"))
        if fault == "503":
            assert min(virtual_time.waits) >= 60.0  # the longest slice of a wait of 300 s

    run(test)


def test_one_feed_that_fails_stops_no_other_and_one_that_is_gone_is_asked_no_more(run: Any) -> None:
    async def test(fake: Any, tools: Tools) -> None:
        fake.answers("/gone", fake.Reply(status=410))
        fake.answers("/bad", fake.Reply(status=500))
        fake.answers("/good", *(fake.Reply(feed(item(number))) for number in range(1, 12)))
        source = source_at(fake, tools, "/gone", "/bad", "/good")
        found, _, _ = await collect(source, 11)
        assert numbers_of(found) == list(range(1, 12))
        assert len(fake.requests("/gone")) == 1
        assert 3 <= len(fake.requests("/bad")) < 30
        assert source.health.state == "connected"
        assert "2 of 3 feeds fail" in source.health.reason

    run(test)


def test_if_every_feed_refuses_us_somebody_should_look(run: Any) -> None:
    async def test(fake: Any, tools: Tools) -> None:
        fake.answers("/one", fake.Reply(status=403))
        fake.answers("/two", fake.Reply(status=404))
        with pytest.raises(ConfigError, match="every news feed refuses us"):
            await collect(source_at(fake, tools, "/one", "/two"), 1)

    run(test)


def test_what_is_recorded_reads_the_same_again(run: Any) -> None:
    async def test(fake: Any, tools: Tools) -> None:
        kept: list[tuple[str, int, bytes]] = []
        recording = Tools(
            state=tools.state, clock=tools.clock, wait=tools.wait, environment={}, record=lambda name, at, raw: kept.append((name, at, raw))
        )
        fake.answers("/rss", fake.Reply(feed(item(1), item(2)).replace(b"number", "numéro".encode())))
        source = source_at(fake, recording)
        found, _, _ = await collect(source, 2)
        ((name, at, raw),) = kept
        assert name == "news"
        assert b"\n" not in raw
        assert source.read(raw, at) == found

    run(test)


def test_a_position_of_another_source_is_refused(run: Any) -> None:
    async def test(fake: Any, tools: Tools) -> None:
        with pytest.raises(ConfigError, match="position"):
            await collect(source_at(fake, tools), 1, "[1]")

    run(test)


def test_the_position_is_small_and_holds_no_words(run: Any) -> None:
    async def test(fake: Any, tools: Tools) -> None:
        fake.answers("/rss", fake.Reply(feed(*(item(number) for number in range(100)))))
        _, _, position = await collect(source_at(fake, tools), 100)
        assert len(position) < 2_000
        assert "bitcoin" not in position
        assert len(json.loads(position)) == 1

    run(test)


def test_no_feeds_is_a_mistake() -> None:
    state: Any = None
    with pytest.raises(ConfigError, match="no news feed"):
        open_source(NewsSection(feeds=()), Tools(state=state, environment={}))
