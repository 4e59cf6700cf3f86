"""X, Reddit and news under random breaks, repeats, disorder and crashes: every post that was written is passed on, under one id.

The publisher is a small model of each: it knows what was written when, sends what is live, and answers questions about the past. The reader
is killed after any arrival and goes on from any position it could have kept, the newest or the one before.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from contextlib import aclosing
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalpha.core.time import SECOND
from cryptoalpha.data.sources import reddit, x
from cryptoalpha.data.sources.opening import Tools
from cryptoalpha.data.sources.text_config import RedditSection, XSection
from cryptoalpha.store.state.sqlite_state import SqliteState

if not os.environ.get("TESTS_SKIP_NOTHING"):
    pytest.importorskip("httpx", reason="the extra `streams` is not installed")
    pytest.importorskip("asyncpraw", reason="the extra `streams` is not installed")

_PLACE = Path(__file__).resolve().parent.parent / "unit" / "data" / "sources" / "conftest.py"
_SPEC = spec_from_file_location("chaos_publisher", _PLACE)
assert _SPEC is not None
assert _SPEC.loader is not None
_MODULE = module_from_spec(_SPEC)
sys.modules["chaos_publisher"] = _MODULE
_SPEC.loader.exec_module(_MODULE)
Publisher, VirtualTime = _MODULE.Publisher, _MODULE.VirtualTime

START = 1_700_000_000
STEP_SECONDS = 20
REAL_SECONDS = 20.0


class World:
    """What was written so far, and what goes wrong."""

    def __init__(self, seed: int, total: int) -> None:
        self.chance, self.total, self.written = random.Random(seed), total, 0

    def write(self, most: int) -> range:
        """Some more posts."""
        before = self.written
        self.written = min(self.total, before + self.chance.randint(0, most))
        return range(before, self.written)

    def fault(self, fake: Any) -> Any:
        """A refusal that passes, or None."""
        return self.chance.choice(
            [None, None, fake.Reply(status=500), fake.Reply(status=429, headers={"Retry-After": "5"}), fake.Reply(b"{", cut=1)]
        )


async def read_with_crashes(open_source: Any, world: World, wanted: set[str], seen: dict[str, Any]) -> None:
    """Read until all is there; die now and then, and go on from a position that was or could have been kept."""
    positions = [""]
    while not wanted <= seen.keys():
        life = world.chance.randint(1, 6)
        source = open_source()
        async with aclosing(source.arrivals(positions[-1])) as arrivals:
            async for come in arrivals:
                for envelope in come.envelopes:
                    seen.setdefault(envelope.id, envelope)
                positions.append(come.position)
                life -= 1
                if wanted <= seen.keys() or (life <= 0 and len(seen) > 1):
                    break
        await source.close()
        if world.chance.random() < 0.3 and len(positions) > 2:
            positions.pop()


# ── X ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def x_name(number: int) -> str:
    return str((START * 1000 + number * STEP_SECONDS * 1000 - 1_288_834_974_657) << 22)


def x_post(number: int) -> dict[str, Any]:
    return {"id": x_name(number), "text": f"bitcoin {number}"}


class XWorld(World):
    """A stream that breaks, and a search that knows all."""

    def stream(self, fake: Any) -> Any:
        def connect(asked: Any) -> Any:
            if self.written and (fault := self.fault(fake)) is not None:
                return fault
            if self.written:
                self.write(4)  # while nobody listened; what was written before we first did is none of ours
            live = list(self.write(6)) or [self.written - 1] * (self.written > 0)
            live += [number for number in live if self.chance.random() < 0.2]
            if self.chance.random() < 0.3:
                self.chance.shuffle(live)
            lines = [json.dumps({"data": x_post(number), "matching_rules": [{"id": "1"}]}).encode() + b"\r\n" for number in live]
            if self.chance.random() < 0.3:
                lines[-1:] = [line[: self.chance.randint(1, 30)] for line in lines[-1:]]
            return fake.Script([fake.PING, *lines], then=self.chance.choice(["end", "drop"]))

        return connect

    def search(self, fake: Any) -> Any:
        def answer(asked: Any) -> Any:
            if (fault := self.fault(fake)) is not None:
                return fault
            found = [number for number in range(self.written - 1, -1, -1) if int(x_name(number)) > int(asked.query["since_id"])]
            start = int(asked.query.get("next_token", 0))
            more = {"next_token": str(start + 4)} if start + 4 < len(found) else {}
            return fake.Reply({"data": [x_post(number) for number in found[start : start + 4]], "meta": more})

        return answer


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_no_post_of_x_is_lost_or_renamed(seed: int) -> None:
    world, seen, total = XWorld(seed, 30), {}, 30
    wanted = {f"x/{x_name(number)}:0" for number in range(total)}

    async def play() -> None:
        time = VirtualTime((START - 1) * SECOND)
        async with Publisher() as fake, SqliteState(None, clock=time.clock) as state:
            fake.answers("/2/tweets/search/stream/rules", fake.Reply({"data": [{"id": "1", "value": "bitcoin"}], "meta": {}}))
            fake.streams("/2/tweets/search/stream", world.stream(fake))
            fake.answers("/2/tweets/search/recent", world.search(fake))
            tools = Tools(state, clock=time.clock, wait=time.wait, environment={"X_BEARER_TOKEN": "t"})
            section = XSection(base_url=fake.url, rules=("bitcoin",), daily_units=None, daily_money=None, burst=1000, overlap_seconds=120.0)
            async with asyncio.timeout(REAL_SECONDS):
                await read_with_crashes(lambda: x.open_source(section, tools), world, wanted, seen)

    asyncio.run(play())
    assert set(seen) == wanted


# ── Reddit ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def reddit_name(number: int) -> str:
    return f"t3_{number + 1000}"


class RedditWorld(World):
    """A listing that grows, and loses deleted posts."""

    def __init__(self, seed: int, total: int) -> None:
        super().__init__(seed, total)
        self.deleted: set[int] = set()

    def listing(self, fake: Any, seen: dict[str, Any]) -> Any:
        def answer(asked: Any) -> Any:
            if self.written and (fault := self.fault(fake)) is not None:
                return fault
            self.write(5)
            known = [number for number in range(self.written) if f"reddit/{reddit_name(number)}:0" in seen]
            self.deleted |= {number for number in known if self.chance.random() < 0.1}
            there = [n for n in range(self.written - 1, -1, -1) if n not in self.deleted]
            after = asked.query.get("after")
            start = next((i for i, n in enumerate(there) if after is None or n + 1000 < int(after[3:])), len(there))
            part = there[start : start + 6]
            more = reddit_name(part[-1]) if start + 6 < len(there) else None
            posts = [{"kind": "t3", "data": {"name": reddit_name(n), "title": f"bitcoin {n}", "created_utc": START + n}} for n in part]
            return fake.Reply({"kind": "Listing", "data": {"children": posts, "after": more}})

        return answer


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_no_post_of_reddit_is_lost_or_renamed(seed: int) -> None:
    seen: dict[str, Any] = {}
    world = RedditWorld(seed, 30)
    wanted = {f"reddit/{reddit_name(number)}:0" for number in range(30)}

    async def play() -> None:
        time = VirtualTime(START * SECOND)
        async with Publisher() as fake, SqliteState(None, clock=time.clock) as state:
            fake.answers("/api/v1/access_token", fake.Reply({"access_token": "t", "expires_in": 360_000, "scope": "*"}))
            fake.answers("/r/Bitcoin/new", world.listing(fake, seen))
            keys = {"REDDIT_CLIENT_ID": "i", "REDDIT_CLIENT_SECRET": "s"}
            tools = Tools(state, clock=time.clock, wait=time.wait, environment=keys)
            section = RedditSection(oauth_url=fake.url, reddit_url=fake.url, subreddits=("Bitcoin",), comments=False, burst=1000)
            async with asyncio.timeout(REAL_SECONDS):
                await read_with_crashes(lambda: reddit.open_source(section, tools), world, wanted, seen)

    asyncio.run(play())
    assert set(seen) == wanted
