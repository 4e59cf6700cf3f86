"""A session that is stopped and started again weighs texts as if it had not been: floods do not count anew."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection
from pathlib import Path

import msgspec
import pytest

from cryptoalpha.app.streams.heard_before import AREA, Kept, kept_progress
from cryptoalpha.app.streams.hearing import Hearing
from cryptoalpha.core.clock import VirtualClock
from cryptoalpha.core.time import DAY, SECOND
from cryptoalpha.core.values import ChainReading, Post
from cryptoalpha.data.bus.config import BusConfig
from cryptoalpha.data.bus.contract import Place, Progress
from cryptoalpha.data.bus.envelope import Envelope, sealed
from cryptoalpha.data.bus.memory import MemoryBus
from cryptoalpha.signals.agents.config import AgentsConfig, SieveConfig
from cryptoalpha.store.state.sqlite_state import SqliteState

TOPICS = ("texts", "readings")
START = 20_000 * DAY
SIEVE = SieveConfig(posts_per_author=4)
SAYS = (
    "Bitcoin surges past $60,000 as ETF inflows reach a record",
    "Bitcoin exchange hacked, customers lose coins worth 40 million",
    "Bitcoin miners sell their reserves after the halving of rewards",
    "RT Bitcoin surges past $61,000 as ETF inflows reach a record",
    "Bitcoin falls below its average of two hundred days",
    "A country buys bitcoin for its treasury, says its president",
    "Bitcoin fees rise as everybody wants to be in the next block",
    "Regulator delays its word on the bitcoin fund once more",
)


def texts(step: int) -> list[Envelope]:
    """Six texts of three authors, at two sources: everybody says everything, again and again."""
    found = []
    for k in range(6):
        number = 6 * step + k
        at = START + (10 * step + k) * SECOND
        post = Post(
            happened_at=at, known_at=at, post_id=f"{number}", source="ab"[k % 2], text=SAYS[(step + k * k) % len(SAYS)],
            author=f"author {number * number % 3}", reach=300.0,
        )  # fmt: skip
        found.append(sealed(post, topic="texts", key=post.source, source=post.source, native_id=post.post_id))
    return found


def same_again(step: int) -> list[Envelope]:
    """One text, every ten seconds."""
    at = START + 10 * step * SECOND
    post = Post(happened_at=at, known_at=at, post_id=f"{step}", source="a", text=SAYS[0])
    return [sealed(post, topic="texts", key="a", source="a", native_id=post.post_id)]


async def heard(
    folder: Path,
    *,
    stops: Collection[int],
    stores: bool = True,
    steps: int = 8,
    sieve: SieveConfig = SIEVE,
    made: Callable[[int], list[Envelope]] = texts,
) -> dict[str, float]:
    """What came to the book and with which weight; the session is killed after some steps, and begun again."""
    found: dict[str, float] = {}
    clock, end, step = VirtualClock(START), asyncio.Event(), 0
    config = AgentsConfig(sieve=sieve, reorder_seconds=2.0)
    while step < steps:
        async with SqliteState(folder / "state.sqlite") as state, MemoryBus(BusConfig(), folder / "bus.sqlite") as bus:
            consumer = Kept(await bus.subscribe("book", TOPICS), state, "book")
            hearing = Hearing(config, ("BTC",), clock, lambda subject, text: None)
            await hearing.remember(bus, state, "book")
            while step < steps:
                await bus.publish(made(step))
                clock.advance_to(START + (10 * step + 6) * SECOND)  # the newest text still waits for earlier ones
                await hearing.look(bus, consumer, end)
                if step == steps - 1:
                    clock.advance_to(clock.now() + DAY)
                    await hearing.look(bus, consumer, end)
                for one in hearing.take():
                    assert isinstance(one.value, Post)
                    assert found.setdefault(one.value.post_id, one.weight) == one.weight
                if stores:
                    hearing.stored()
                step += 1
                if step in stops:
                    break
            await consumer.close()
    return found


@pytest.mark.parametrize("stops", [{1}, {4}, {7}, set(range(1, 8))], ids=str)
def test_a_session_that_is_killed_anywhere_weighs_every_text_as_if_it_had_not_been(tmp_path: Path, stops: set[int]):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    expected = asyncio.run(heard(tmp_path / "a", stops=()))
    assert asyncio.run(heard(tmp_path / "b", stops=stops)) == expected
    assert 6 <= len(expected) <= 8  # of 48 texts, seven that say something new
    assert len(set(expected.values())) > 1


def test_what_was_never_stored_is_judged_once_and_not_remembered_before_it_comes_again(tmp_path: Path):
    (tmp_path / "a").mkdir()
    expected = asyncio.run(heard(tmp_path / "a", stops=()))
    assert asyncio.run(heard(tmp_path, stops={3, 5}, stores=False)) == expected


def test_a_sieve_forgets_what_it_would_have_forgotten(tmp_path: Path):
    """Texts older than repeats are looked for hide nothing."""
    brief = SieveConfig(posts_per_author=1, repeat_days=5 * SECOND / DAY, author_hours=5 * SECOND / (DAY / 24))
    (tmp_path / "a").mkdir()
    expected = asyncio.run(heard(tmp_path / "a", stops=(), sieve=brief))
    assert asyncio.run(heard(tmp_path, stops={2, 4, 6}, sieve=brief)) == expected
    assert len(expected) > 8


@pytest.mark.parametrize("stop", range(1, 9))
def test_a_text_that_comes_again_and_again_counts_when_it_would_have(tmp_path: Path, stop: int):
    """Which ones count hangs on the first of all, however long ago that was: every third, where repeats are looked for during 25 s."""
    brief = SieveConfig(repeat_days=25 * SECOND / DAY, author_hours=1 * SECOND / (DAY / 24))
    assert set(asyncio.run(heard(tmp_path, stops={stop}, steps=9, sieve=brief, made=same_again))) == {"0", "3", "6"}


def test_how_far_a_group_has_come_is_kept_place_by_place_and_damage_counts_as_nothing(tmp_path: Path):
    async def run() -> None:
        async with SqliteState(tmp_path / "state.sqlite") as state, MemoryBus(BusConfig(), tmp_path / "bus.sqlite") as bus:
            assert await kept_progress(state, "book") == {}
            one, other = Progress(3, 2, "id", 7), Progress(9)
            for session, place, progress in ((1, Place("texts", 0), one), (2, Place("readings", 1), other)):
                consumer = Kept(await bus.subscribe(f"book{session}", TOPICS), state, "book")
                await consumer.commit({place: progress})
                await consumer.close()
            assert await kept_progress(state, "book") == {Place("texts", 0): one, Place("readings", 1): other}
            assert await kept_progress(state, "another") == {}
            await state.put({f"{AREA}/book": b"?"})
            assert await kept_progress(state, "book") == {}

    asyncio.run(run())


def a_text(**changes: str) -> Post:
    return msgspec.structs.replace(Post(happened_at=START, known_at=START, post_id="1", source="s", text="Bitcoin rises"), **changes)


def a_reading(**changes: float | str) -> ChainReading:
    reading = ChainReading(happened_at=START, known_at=START, asset="BTC", metric="fees", value=1.0, source="s")
    return msgspec.structs.replace(reading, **changes)


@pytest.mark.parametrize(
    "value",
    [
        a_reading(value=math.nan),
        a_reading(value=math.inf),
        a_reading(metric="../fees"),
        a_reading(asset=""),
        a_reading(source="s" * 81),
        a_text(source="a source"),
        a_text(post_id=""),
    ],
    ids=str,
)
def test_what_the_store_could_not_keep_is_a_dead_letter(tmp_path: Path, value: Post | ChainReading):
    """Taken into a session it would end it, and again after each restart."""

    async def run() -> tuple[int, int, int]:
        async with MemoryBus(BusConfig(), tmp_path / "bus.sqlite") as bus:
            consumer = await bus.subscribe("book", TOPICS)
            clock = VirtualClock(START)
            hearing = Hearing(AgentsConfig(), ("BTC",), clock, lambda subject, text: None)
            topic = "texts" if isinstance(value, Post) else "readings"
            await bus.publish([sealed(value, topic=topic, key="BTC", source="s", native_id="1")])
            await hearing.look(bus, consumer, asyncio.Event())
            clock.advance_to(START + DAY)
            await hearing.look(bus, consumer, asyncio.Event())
            async with await bus.subscribe("test", [f"{topic}.dead"]) as letters:
                return len(hearing.take()), hearing.counts["unreadable"], len(await letters.take(10, wait_seconds=0.5))

    assert asyncio.run(run()) == (0, 1, 1)
