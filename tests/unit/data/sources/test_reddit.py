"""Reddit against a publisher of its kind: tokens, rate headers, pages back to what was known, faults and restarts."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import aclosing
from typing import Any

import pytest

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.time import SECOND
from cryptoalpha.data.sources.opening import Tools
from cryptoalpha.data.sources.reddit import RedditSource, open_source
from cryptoalpha.data.sources.text_config import RedditSection
from cryptoalpha.store.state.sqlite_state import SqliteState

if not os.environ.get("TESTS_SKIP_NOTHING"):
    pytest.importorskip("asyncpraw", reason="the extra `streams` is not installed")

START = 1_700_000_000
NEW, COMMENTS, TOKEN = "/r/Bitcoin+ethereum/new", "/r/Bitcoin+ethereum/comments", "/api/v1/access_token"
KEYS = {"REDDIT_CLIENT_ID": "an-id", "REDDIT_CLIENT_SECRET": "a-secret"}


def base36(number: int) -> str:
    digits = ""
    while number:
        number, rest = divmod(number, 36)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[rest] + digits
    return digits


def thing(number: int, kind: str = "t3", **more: Any) -> dict[str, Any]:
    words = {"title": f"bitcoin number {number}"} if kind == "t3" else {"body": f"bitcoin number {number}"}
    return {
        "kind": kind,
        "data": {"name": f"{kind}_{base36(number + 1000)}", "created_utc": START + number, "author": "a", **words, **more},
    }


def listing(things: list[dict[str, Any]], after: str | None = None) -> dict[str, Any]:
    return {"kind": "Listing", "data": {"children": things, "after": after}}


def paged(fake: Any, written: list[int], size: int = 100, kind: str = "t3") -> Any:
    """A listing of all that was written, newest first, in pages; `written` may grow."""

    def answer(asked: Any) -> Any:
        names = [thing(number, kind) for number in sorted(written, reverse=True)]
        start = next((i + 1 for i, one in enumerate(names) if one["data"]["name"] == asked.query.get("after")), 0)
        part = names[start : start + size]
        more = part[-1]["data"]["name"] if start + size < len(names) else None
        return fake.Reply(listing(part, more))

    return answer


def numbers_of(envelopes: list[Any]) -> list[int]:
    return [int(envelope.value().text.split()[-1]) for envelope in envelopes]


async def collect(source: RedditSource, count: int, position: str = "") -> tuple[list[Any], list[Any], str]:
    """Envelopes until there are `count` of them, dead letters, and the last position."""
    envelopes: list[Any] = []
    dead: list[Any] = []
    async with asyncio.timeout(20), aclosing(source.arrivals(position)) as arrivals:
        async for come in arrivals:
            envelopes.extend(come.envelopes)
            dead.extend(come.dead)
            position = come.position
            if len(envelopes) >= count:
                break
    return envelopes, dead, position


def source_at(fake: Any, tools: Tools, **more: Any) -> RedditSource:
    wanted = {"subreddits": ("Bitcoin", "ethereum"), "comments": False, **more}
    return open_source(RedditSection(oauth_url=fake.url, reddit_url=fake.url, **wanted), tools)


@pytest.fixture
def run(publisher: Any, virtual_time: Any) -> Any:
    def running(test: Any) -> None:
        async def all_of_it() -> None:
            async with publisher() as fake, SqliteState(None, clock=virtual_time.clock) as state:
                fake.answers(TOKEN, fake.Reply({"access_token": "t1", "expires_in": 3600, "scope": "*", "token_type": "bearer"}))
                await test(fake, Tools(state=state, clock=virtual_time.clock, wait=virtual_time.wait, environment=KEYS))

        asyncio.run(all_of_it())

    return running


def test_new_submissions_and_comments_come_oldest_first_and_once(run: Any) -> None:
    async def test(fake: Any, tools: Tools) -> None:
        fake.answers(NEW, fake.Reply(listing([thing(2), thing(1)])), fake.Reply(listing([thing(3), thing(2), thing(1)])))
        fake.answers(COMMENTS, fake.Reply(listing([thing(8, "t1"), thing(7, "t1")])))
        source = source_at(fake, tools, comments=True)
        found, dead, _ = await collect(source, 5)
        assert numbers_of(found) == [1, 2, 7, 8, 3]
        assert not dead
        assert fake.requests(NEW)[0].headers["Authorization"] == "bearer t1"
        assert fake.requests(NEW)[0].query["raw_json"] == "1"
        assert len(fake.requests(TOKEN)) == 1

    run(test)


def test_a_restart_reads_back_to_where_it_stood_though_that_post_is_deleted(run: Any) -> None:
    async def test(fake: Any, tools: Tools) -> None:
        written = list(range(1, 61))
        fake.answers(NEW, paged(fake, written, size=20))
        _, _, position = await collect(source_at(fake, tools), 20)
        written.remove(60)
        written.extend(range(61, 125))
        found, _, position = await collect(source_at(fake, tools), 64, position)
        assert numbers_of(found)[-64:] == list(range(61, 125))
        assert len(fake.requests(NEW)) == 1 + 4  # 124…105, 104…85, 84…65, and 64… which holds known ones
        assert json.loads(position)["submissions"]["newest"] == 1124

    run(test)


def test_a_gap_larger_than_the_listings_is_reported(run: Any) -> None:
    async def test(fake: Any, tools: Tools) -> None:
        told: list[str] = []
        loud = Tools(state=tools.state, clock=tools.clock, wait=tools.wait, environment=KEYS, alert=lambda subject, text: told.append(text))
        written = [1]
        fake.answers(NEW, paged(fake, written, size=10))
        _, _, position = await collect(source_at(fake, tools), 1)
        written.extend(range(2, 100))
        found, _, _ = await collect(source_at(fake, loud, most_pages=3), 30, position)
        assert numbers_of(found) == list(range(70, 100))
        assert len(told) == 1
        assert "lost" in told[0]

    run(test)


def test_a_post_let_through_late_is_not_missed_and_votes_are_readings(run: Any) -> None:
    async def test(fake: Any, tools: Tools) -> None:
        voted = thing(1, score=5000)
        fake.answers(NEW, fake.Reply(listing([thing(3), thing(1)])), fake.Reply(listing([thing(3), thing(2), voted])))
        found, _, _ = await collect(source_at(fake, tools), 4)
        assert numbers_of(found) == [1, 3, 1, 2]
        assert found[0].value().post_id == found[2].value().post_id
        assert found[2].value().echo == 5000.0

    run(test)


@pytest.mark.parametrize("fault", ["500", "429", "cut", "no json", "html", "no listing", "expired"])
def test_a_fault_is_waited_out_and_nothing_is_lost(run: Any, virtual_time: Any, fault: str) -> None:
    async def test(fake: Any, tools: Tools) -> None:
        faults = {
            "500": fake.Reply(status=500),
            "429": fake.Reply(status=429, headers={"Retry-After": "90"}),
            "cut": fake.Reply(listing([thing(2), thing(1)]), cut=30),
            "no json": fake.Reply(b'{"kind": "Listing", "data": {"chil'),
            "html": fake.Reply(b"<html>", headers={"Content-Type": "text/html"}),
            "no listing": fake.Reply({"kind": "t5", "data": {}}),
            "expired": fake.Reply(status=401),
        }
        fake.answers(NEW, fake.Reply(listing([thing(1)])), faults[fault], faults[fault], fake.Reply(listing([thing(2), thing(1)])))
        source = source_at(fake, tools)
        found, dead, _ = await collect(source, 2)
        assert numbers_of(found) == [1, 2]
        assert len(dead) == (2 if fault == "no listing" else 0)
        assert source.health.reconnects == 2
        assert len(fake.requests(NEW)) == 4
        if fault == "429":
            assert sum(wait >= 90.0 for wait in virtual_time.waits) == 2
        if fault == "expired":
            assert len(fake.requests(TOKEN)) == 3

    run(test)


def test_a_refused_key_ends_the_source_at_once(run: Any) -> None:
    async def test(fake: Any, tools: Tools) -> None:
        for reply in (fake.Reply(status=401), fake.Reply({"error": "unauthorized_client"})):
            fake.answers(TOKEN, reply)
            with pytest.raises(ConfigError, match=r"key|token"):
                await collect(source_at(fake, tools), 1)
        assert len(fake.requests(TOKEN)) == 2
        assert not fake.requests(NEW)

    run(test)


def test_what_cannot_be_read_is_one_dead_letter_and_withdrawn_posts_are_none(run: Any) -> None:
    async def test(fake: Any, tools: Tools) -> None:
        odd = [thing(4, title=""), thing(5, title="[deleted]"), {"kind": "t9", "data": {}}]
        fake.answers(NEW, fake.Reply(listing([*odd, thing(1)])), fake.Reply(listing([thing(6), *odd, thing(1)])))
        found, dead, _ = await collect(source_at(fake, tools), 2)
        assert numbers_of(found) == [1, 6]
        assert len(dead) == 2

    run(test)


def test_the_token_is_never_recorded_and_recordings_read_the_same(run: Any) -> None:
    async def test(fake: Any, tools: Tools) -> None:
        kept: list[tuple[int, bytes]] = []
        recording = Tools(
            state=tools.state, clock=tools.clock, wait=tools.wait, environment=KEYS, record=lambda name, at, raw: kept.append((at, raw))
        )
        fake.answers(NEW, fake.Reply(listing([thing(2), thing(1)])))
        source = source_at(fake, recording)
        found, _, _ = await collect(source, 2)
        ((at, raw),) = kept
        assert b"access_token" not in raw
        assert source.read(raw, at) == found[::-1]

    run(test)


def test_closing_ends_a_wait_for_reddits_rate_too(run: Any) -> None:
    async def test(fake: Any, tools: Tools) -> None:
        spent = {"x-ratelimit-remaining": "0", "x-ratelimit-used": "600", "x-ratelimit-reset": "500"}
        fake.answers(NEW, fake.Reply(listing([thing(1)]), headers=spent))
        source = source_at(fake, tools)

        async def listen() -> None:
            async for _ in source.arrivals(""):
                pass

        async with asyncio.timeout(5):
            listening = asyncio.create_task(listen())
            await asyncio.sleep(0.3)
            assert len(fake.requests(NEW)) == 1  # asyncpraw waits for 500 s
            await source.close()
            await listening

    run(test)


def test_closing_ends_the_iteration(run: Any) -> None:
    async def test(fake: Any, tools: Tools) -> None:
        fake.answers(NEW, fake.Reply(listing([thing(1)])))
        source = source_at(fake, tools)
        async with asyncio.timeout(5):
            async for _ in source.arrivals(""):
                await source.close()
        assert source.health.state == "closed"

    run(test)


def test_what_is_missing_is_named() -> None:
    state: Any = None
    with pytest.raises(ConfigError, match="REDDIT_CLIENT_ID"):
        open_source(RedditSection(), Tools(state=state, environment={}))
    with pytest.raises(ConfigError, match="nothing of Reddit"):
        open_source(RedditSection(subreddits=()), Tools(state=state, environment=KEYS))


def test_times_are_reddits_own(run: Any) -> None:
    async def test(fake: Any, tools: Tools) -> None:
        fake.answers(NEW, fake.Reply(listing([thing(-50)])))
        found, _, _ = await collect(source_at(fake, tools), 1)
        assert found[0].event_time == (START - 50) * SECOND
        assert found[0].observed_time == tools.clock.now()

    run(test)
