"""X against a publisher of its kind: rules, stream, breaks, gaps, limits, bills."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.core.time import SECOND
from cryptoalpha.data.sources.opening import Tools
from cryptoalpha.data.sources.text_config import XSection
from cryptoalpha.data.sources.x import XSource, open_source
from cryptoalpha.data.sources.x_parsing import first_id_at
from cryptoalpha.store.state.sqlite_state import SqliteState

if not os.environ.get("TESTS_SKIP_NOTHING"):
    pytest.importorskip("httpx", reason="the extra `streams` is not installed")

STREAM, RULES, SEARCH, LOOKUP = "/2/tweets/search/stream", "/2/tweets/search/stream/rules", "/2/tweets/search/recent", "/2/tweets"
KEY = ("Authorization", "Bearer a-token")
START = 1_700_000_000 * SECOND
RULE = "bitcoin lang:en"


def tweet_id(number: int) -> int:
    return first_id_at(START + number * SECOND)


def tweet(number: int, **more: Any) -> dict[str, Any]:
    return {"id": str(tweet_id(number)), "text": f"bitcoin number {number}", "author_id": f"{number % 3}", "lang": "en", **more}


def line(number: int, rule: str = "1", **more: Any) -> bytes:
    return json.dumps({"data": tweet(number, **more), "matching_rules": [{"id": rule, "tag": "cryptoalpha"}]}).encode() + b"\r\n"


def page(numbers: list[int], following: str = "") -> dict[str, Any]:
    newest_first = sorted(numbers, reverse=True)
    meta = {"result_count": len(numbers), **({"next_token": following} if following else {})}
    return {"data": [tweet(number) for number in newest_first], "meta": meta} if numbers else {"meta": meta}


class Rules:
    """X's store of rules."""

    def __init__(self, publisher: Any, *kept: tuple[str, str]) -> None:
        self._reply = publisher.Reply
        self.kept = {str(i + 1): {"id": str(i + 1), "value": value, "tag": tag} for i, (value, tag) in enumerate(kept)}
        self._next = len(kept) + 1

    def __call__(self, asked: Any) -> Any:
        change = json.loads(asked.body) if asked.body else {}
        for name in change.get("delete", {}).get("ids", []):
            del self.kept[name]
        for rule in change.get("add", []):
            self.kept[str(self._next)] = {"id": str(self._next), **rule}
            self._next += 1
        return self._reply({"data": list(self.kept.values()), "meta": {"sent": "now"}}, status=201 if change else 200)


def searching(publisher: Any, written: list[int], size: int = 10) -> Any:
    """Recent search over what was written, in pages."""

    def answer(asked: Any) -> Any:
        since, following = int(asked.query["since_id"]), int(asked.query.get("next_token", "0"))
        found = sorted((number for number in written if tweet_id(number) > since), reverse=True)
        part = found[following : following + size]
        more = str(following + size) if following + size < len(found) else ""
        return publisher.Reply(page(part, more))

    return answer


def section_at(fake: Any, **more: Any) -> XSection:
    return XSection(base_url=fake.url, rules=(RULE,), **{"silence_seconds": 5.0, "search_delay_seconds": 0.0, **more})


async def collect(source: XSource, count: int, position: str = "") -> tuple[list[Any], list[Any], str]:
    """Envelopes until there are `count` of them, dead letters, and the last position."""
    envelopes: list[Any] = []
    dead: list[Any] = []
    async with asyncio.timeout(10), aclosing(source.arrivals(position)) as arrivals:
        async for come in arrivals:
            envelopes.extend(come.envelopes)
            dead.extend(come.dead)
            position = come.position
            if len(envelopes) >= count:
                break
    return envelopes, dead, position


def numbers_of(envelopes: list[Any]) -> list[int]:
    return [int(envelope.value().text.split()[-1]) for envelope in envelopes]


@pytest.fixture
def run(publisher: Any, virtual_time: Any) -> Any:
    """Run a test with a publisher, a state and tools."""

    def running(test: Any, **environment: str) -> None:
        async def all_of_it() -> None:
            async with publisher() as fake, SqliteState(None, clock=virtual_time.clock) as state:
                fake.key = KEY
                fake.answers(RULES, Rules(fake, (RULE, "cryptoalpha")))
                tools = Tools(
                    state=state,
                    clock=virtual_time.clock,
                    wait=virtual_time.wait,
                    environment={"X_BEARER_TOKEN": "a-token", **environment},
                )
                await test(fake, tools)

        asyncio.run(all_of_it())

    return running


def test_rules_are_made_those_of_the_settings_and_others_are_left_alone(run: Any) -> None:
    async def test(fake: Any, tools: Tools) -> None:
        rules = Rules(fake, ("old rule", "cryptoalpha"), ("somebody's", "theirs"))
        fake.answers(RULES, rules)
        fake.streams(STREAM, fake.Script([line(1, rule="3"), line(2, rule="2"), line(3, rule="3")]))
        found, _, _ = await collect(open_source(section_at(fake), tools), 2)
        assert sorted(rule["value"] for rule in rules.kept.values()) == [RULE, "somebody's"]
        assert numbers_of(found) == [1, 3]  # 2 was somebody's
        assert float((await tools.state.get([(await tools.state.names("spend"))[1]]))[0] or 0) == 3.0  # and was paid for

    run(test)


def test_a_refused_token_ends_the_source_at_once(run: Any) -> None:
    async def test(fake: Any, tools: Tools) -> None:
        with pytest.raises(ConfigError, match="refuses the key"):
            await collect(open_source(section_at(fake), tools), 1)
        assert len(fake.asked) == 1

    run(test, X_BEARER_TOKEN="another")


def test_a_rule_that_x_does_not_take_is_named(run: Any) -> None:
    async def test(fake: Any, tools: Tools) -> None:
        fake.answers(
            RULES, fake.Reply({"meta": {}}), fake.Reply({"errors": [{"title": "Invalid Rule"}], "meta": {}}), fake.Reply({"meta": {}})
        )
        with pytest.raises(ConfigError, match=RULE):
            await collect(open_source(section_at(fake), tools), 1)

    run(test)


def test_a_break_is_closed_by_search_from_what_was_known_and_nothing_comes_twice(run: Any) -> None:
    async def test(fake: Any, tools: Tools) -> None:
        written = list(range(1, 41))
        fake.streams(
            STREAM,
            fake.Script([line(n) for n in (1, 2, 3)] + [fake.PING], then="drop"),
            fake.Script([line(39), line(40), fake.PING]),
        )
        fake.answers(SEARCH, fake.Reply(status=503, headers={"Retry-After": "2"}), fake.Reply(page([40]), cut=9), searching(fake, written))
        source = open_source(section_at(fake), tools)
        found, dead, position = await collect(source, 40)
        assert sorted(numbers_of(found)) == written
        assert len({envelope.id for envelope in found}) == 40
        assert not dead
        assert source.health.reconnects == 1
        assert source.health.repeats >= 5
        assert source.health.spent["units"] == len(found) + source.health.repeats  # what search sends is paid for too
        assert json.loads(position)["complete"] == tweet_id(40)

    run(test)


def test_a_restart_amid_a_gap_searches_from_before_the_gap(run: Any) -> None:
    async def test(fake: Any, tools: Tools) -> None:
        fake.streams(STREAM, fake.Script([line(1), line(2)], then="drop"), fake.Script([line(90)]))
        fake.answers(SEARCH, fake.Reply(status=500))
        found, _, position = await collect(open_source(section_at(fake), tools), 3)
        assert numbers_of(found) == [1, 2, 90]
        assert json.loads(position)["complete"] == tweet_id(2)  # 90 came, but what lies between did not
        fake.answers(SEARCH, searching(fake, [1, 2, 30, 60, 90]))
        fake.streams(STREAM, fake.Script([fake.PING]))
        again, _, position = await collect(open_source(section_at(fake), tools), 5, position)
        assert numbers_of(again) == [1, 2, 30, 60, 90]  # the overlap comes again, under the same ids
        assert {envelope.id for envelope in found} < {envelope.id for envelope in again}
        assert json.loads(position)["complete"] == tweet_id(90)

    run(test)


def test_limits_are_obeyed_to_the_second_they_name(run: Any, virtual_time: Any) -> None:
    async def test(fake: Any, tools: Tools) -> None:
        reset = str(virtual_time.clock.now() // SECOND + 120)
        fake.streams(STREAM, fake.Reply(status=429, headers={"x-rate-limit-reset": reset}), fake.Script([line(1)]))
        await collect(open_source(section_at(fake), tools), 1)
        assert max(virtual_time.waits) >= 119.0
        assert len(fake.requests(STREAM)) == 2

    run(test)


def test_one_connection_too_many_is_waited_out(run: Any, virtual_time: Any) -> None:
    async def test(fake: Any, tools: Tools) -> None:
        crowded = {"title": "ConnectionException", "connection_issue": "TooManyConnections", "detail": "one too many"}
        fake.streams(STREAM, fake.Reply(crowded, status=429), fake.Script([line(1)]))
        source = open_source(section_at(fake), tools)
        found, _, _ = await collect(source, 1)
        assert numbers_of(found) == [1]
        assert max(virtual_time.waits) >= 30.0

    run(test)


@pytest.mark.parametrize(
    "said",
    [
        {"errors": [{"title": "operational-disconnect", "disconnect_type": "UpstreamOperationalDisconnect", "detail": "upstream"}]},
        {"title": "ConnectionException", "connection_issue": "TooManyConnections", "detail": "limit", "type": "x/streaming-connection"},
        {"disconnect": {"code": 7, "stream_name": "s", "reason": "admin logout"}},
        {"disconnect": {"code": 4, "stream_name": "s", "reason": "stall"}},
    ],
)
def test_a_disconnect_that_is_announced_is_survived(run: Any, said: dict[str, Any]) -> None:
    async def test(fake: Any, tools: Tools) -> None:
        fake.answers(SEARCH, fake.Reply(page([])))
        fake.streams(STREAM, fake.Script([line(1), json.dumps(said) + "\r\n"]), fake.Script([line(2)]))
        source = open_source(section_at(fake), tools)
        found, dead, _ = await collect(source, 2)
        assert numbers_of(found) == [1, 2]
        assert not dead
        assert source.health.reconnects == 1

    run(test)


def test_silence_is_a_break_and_signs_of_life_are_not(run: Any) -> None:
    async def test(fake: Any, tools: Tools) -> None:
        fake.answers(SEARCH, fake.Reply(page([])))
        alive = [part for _ in range(12) for part in (fake.PING, fake.Pause(10))]  # 0.12 s in all, silent for 0.01 s at most
        fake.streams(STREAM, fake.Script([*alive, line(1)]), fake.Script([line(2)]))
        source = open_source(section_at(fake, silence_seconds=0.15), tools)
        found, _, _ = await collect(source, 2)
        assert numbers_of(found) == [1, 2]
        assert fake.connections == 2

    run(test)


def test_partial_posts_broken_lines_and_reported_errors(run: Any) -> None:
    async def test(fake: Any, tools: Tools) -> None:
        partial = {"data": tweet(2), "errors": [{"title": "Not Found Error", "resource_type": "user", "detail": "gone"}]}
        report = {"errors": [{"title": "Not Found Error", "resource_type": "tweet", "detail": "gone"}]}
        parts = [
            line(1),
            json.dumps(partial) + "\r\n",
            b'{"data": {"id"\r\n',
            json.dumps(report) + "\r\n",
            b'{"data": {"id": "5"}}\r\n',
            line(3),
        ]
        fake.streams(STREAM, fake.Script(parts))
        source = open_source(section_at(fake), tools)
        found, dead, _ = await collect(source, 3)
        assert numbers_of(found) == [1, 2, 3]
        assert len(dead) == source.health.dead == 3
        assert all(letter.reason and letter.data for letter in dead)
        assert source.health.reconnects == 0

    run(test)


def test_disorder_and_repeats_of_the_publisher(run: Any, as_publishers_do: Any) -> None:
    async def test(fake: Any, tools: Tools) -> None:
        sent = as_publishers_do.disordered(as_publishers_do.duplicated(range(1, 60)))
        fake.streams(STREAM, fake.Script([line(number) for number in sent]))
        source = open_source(section_at(fake), tools)
        found, _, position = await collect(source, 59)
        assert sorted(numbers_of(found)) == list(range(1, 60))
        assert json.loads(position)["complete"] >= tweet_id(55)

    run(test)


def test_a_stream_that_is_split_anywhere_says_the_same(run: Any) -> None:
    async def test(fake: Any, tools: Tools) -> None:
        whole = b"".join(line(n, note_tweet={"text": f"a\u2028line\u0085 bitcoin {n}"}) for n in range(1, 9))
        fake.streams(STREAM, fake.Script([part for i in range(0, len(whole), 7) for part in (whole[i : i + 7], fake.Pause(0))]))
        found, dead, _ = await collect(open_source(section_at(fake), tools), 8)
        assert numbers_of(found) == list(range(1, 9))
        assert not dead

    run(test)


def test_the_daily_budget_pauses_the_source_until_tomorrow_also_after_a_restart(run: Any, virtual_time: Any) -> None:
    async def test(fake: Any, tools: Tools) -> None:
        fake.answers(SEARCH, fake.Reply(page([])))
        fake.streams(STREAM, fake.Script([line(n) for n in range(1, 30)]))
        source = open_source(section_at(fake, daily_money=0.05), tools)  # ten posts
        found, _, position = await collect(source, 10)
        assert numbers_of(found) == list(range(1, 11))
        assert source.health.spent == {"units": 10.0, "money": pytest.approx(0.05)}
        before = virtual_time.clock.now()
        again = open_source(section_at(fake, daily_money=0.05), tools)
        found, _, _ = await collect(again, 1, position)
        assert virtual_time.clock.now() // (86_400 * SECOND) == before // (86_400 * SECOND) + 1

    run(test)


def test_likes_and_followers_that_come_later_are_new_readings(run: Any) -> None:
    async def test(fake: Any, tools: Tools) -> None:
        liked = {**tweet(1), "public_metrics": {"like_count": 1000, "retweet_count": 20}}
        users = [{"id": "1", "public_metrics": {"followers_count": 5000}}]
        fake.streams(STREAM, fake.Script([line(1)]))
        fake.answers(LOOKUP, fake.Reply({"data": [liked], "includes": {"users": users}}))
        found, _, position = await collect(open_source(section_at(fake, reread_hours=(1.0,)), tools), 2)
        first, second = (envelope.value() for envelope in found)
        assert (first.post_id, first.author) == (second.post_id, second.author)
        assert (second.echo, second.reach) == (1020.0, 5000.0)
        assert second.revision > first.revision
        assert second.known_at >= first.known_at + 3600 * SECOND
        assert json.loads(position)["rereads"] == []

    run(test)


def test_an_edit_is_another_reading_of_the_same_post(run: Any) -> None:
    async def test(fake: Any, tools: Tools) -> None:
        edited = line(5, edit_history_tweet_ids=[str(tweet_id(1)), str(tweet_id(5))])
        fake.streams(STREAM, fake.Script([line(1), edited]))
        found, _, _ = await collect(open_source(section_at(fake), tools), 2)
        first, second = (envelope.value() for envelope in found)
        assert first.post_id == second.post_id
        assert (first.revision, second.revision) == (0, 64 * 64)
        assert second.url.endswith(str(tweet_id(5)))

    run(test)


def test_a_clock_of_ours_that_runs_behind_is_measured_not_believed(run: Any, virtual_time: Any) -> None:
    async def test(fake: Any, tools: Tools) -> None:
        fake.streams(STREAM, fake.Script([line(30)]))
        source = open_source(section_at(fake), tools)
        found, _, _ = await collect(source, 1)
        value = found[0].value()
        assert value.happened_at == value.known_at
        assert source.health.lag_seconds == pytest.approx((virtual_time.clock.now() - START) / SECOND - 30, abs=0.01)

    run(test)


def test_a_clock_of_ours_that_runs_ahead_hides_no_gap(run: Any, virtual_time: Any) -> None:
    async def test(fake: Any, tools: Tools) -> None:
        virtual_time.clock.advance_to(START + 600 * SECOND)
        fake.streams(STREAM, fake.Script([line(1)], then="drop"), fake.Script([fake.PING, line(9)]))
        fake.answers(SEARCH, searching(fake, list(range(1, 9))))
        found, _, _ = await collect(open_source(section_at(fake), tools), 9)
        assert sorted(numbers_of(found)) == list(range(1, 10))

    run(test)


def test_what_is_recorded_reads_the_same_again(run: Any) -> None:
    async def test(fake: Any, tools: Tools) -> None:
        kept: list[tuple[int, bytes]] = []
        recording = replace(tools, record=lambda name, at, raw: kept.append((at, raw)))
        fake.streams(STREAM, fake.Script([line(1), b"what?\r\n", line(2)], then="drop"), fake.Script([fake.PING, line(9)]))
        fake.answers(SEARCH, searching(fake, list(range(1, 9)), size=3))
        source = open_source(section_at(fake), recording)
        found, _, _ = await collect(source, 9)
        again = {}
        for at, raw in kept:
            with contextlib.suppress(DataError):
                again.update({envelope.id: envelope for envelope in reversed(source.read(raw, at))} | again)
        assert {envelope.id: envelope for envelope in found} == again

    run(test)


def test_what_is_left_of_a_budget_is_used_for_a_gap(run: Any, virtual_time: Any) -> None:
    async def test(fake: Any, tools: Tools) -> None:
        fake.streams(STREAM, fake.Script([line(1)], then="drop"), fake.Script([fake.PING]))
        fake.answers(SEARCH, searching(fake, list(range(1, 9))))
        before = virtual_time.clock.now()
        found, _, _ = await collect(open_source(section_at(fake, daily_units=20), tools), 8)
        assert sorted(numbers_of(found)) == list(range(1, 9))
        assert fake.requests(SEARCH)[0].query["max_results"] == "19"
        assert virtual_time.clock.now() < before + 3600 * SECOND

    run(test)


def test_a_gap_too_large_is_read_from_its_newest_end_and_reported(run: Any) -> None:
    async def test(fake: Any, tools: Tools) -> None:
        told: list[str] = []
        fake.streams(STREAM, fake.Script([line(1)], then="drop"), fake.Script([fake.PING]))
        fake.answers(SEARCH, searching(fake, list(range(1, 101))))
        loud = replace(tools, alert=lambda subject, text: told.append(text))
        found, _, _ = await collect(open_source(section_at(fake, backfill_most=30), loud), 31)
        assert sorted(numbers_of(found)) == [1, *range(71, 101)]
        assert len(told) == 1
        assert "lost" in told[0]

    run(test)


def test_closing_ends_the_iteration_at_once(run: Any) -> None:
    async def test(fake: Any, tools: Tools) -> None:
        fake.streams(STREAM, fake.Script([line(1)]))
        source = open_source(section_at(fake), tools)
        async with asyncio.timeout(5):
            async for _ in source.arrivals(""):
                await source.close()
        assert source.health.state == "closed"

    run(test)


def test_what_is_missing_is_named() -> None:
    state: Any = None
    with pytest.raises(ConfigError, match="X_BEARER_TOKEN"):
        open_source(XSection(), Tools(state=state, environment={}))
    with pytest.raises(ConfigError, match="nothing of X"):
        open_source(XSection(rules=()), Tools(state=state, environment={"X_BEARER_TOKEN": "t"}))
