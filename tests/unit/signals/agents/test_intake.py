"""Where texts wait, by hand: the order in which they leave, what is read when, what is remembered."""

from __future__ import annotations

import asyncio

from cryptoalpha.core.time import SECOND
from cryptoalpha.core.values import Post
from cryptoalpha.signals.agents.config import OFF, AgentsConfig, SieveConfig
from cryptoalpha.signals.agents.intake import Intake
from cryptoalpha.signals.agents.reading import ReadHere
from cryptoalpha.signals.agents.sieve import Sieve


def intake(reader=None, **changes):
    config = AgentsConfig(**{"reorder_seconds": 0.0, "sieve": SieveConfig(relevance_threshold=0.0, near_duplicate=1.0), **changes})
    return Intake(config, Sieve(config.sieve), reader or ReadHere(("BTC",)), ("BTC",))


def post(name, at, *, happened=None):
    moment = at * SECOND
    return Post(
        happened_at=moment if happened is None else happened * SECOND, known_at=moment, post_id=name, source="x", text=f"BTC {name}"
    )


def leaving(one, until):
    return [counted.post.post_id for counted in asyncio.run(one.ready(until * SECOND))]


def test_texts_known_together_leave_by_when_they_happened_and_then_by_name():
    one = intake()
    for given in (post("c", 9, happened=5), post("b", 9, happened=5), post("a", 9, happened=7), post("d", 9, happened=1)):
        one.put(given)
    assert leaving(one, 9) == ["d", "b", "c", "a"]


def test_a_text_that_is_due_is_read_though_the_one_before_it_in_its_batch_is_not():
    one = intake(batch=2)
    for given in (post("late", 100), post("due", 50), post("next", 101)):
        one.put(given)
    assert leaving(one, 60) == ["due"]
    assert leaving(one, 200) == ["late", "next"]


def test_of_too_many_ids_the_oldest_is_forgotten(monkeypatch):
    monkeypatch.setattr("cryptoalpha.signals.agents.intake.IDS", 2)
    one = intake()
    for name in ("a", "b", "c"):
        one.learn(name)
    assert [one.knows(name) for name in ("a", "b", "c")] == [False, True, True]


class Elsewhere(ReadHere):
    """Reads in its own time."""

    reads_elsewhere = True

    def __init__(self):
        super().__init__(("BTC",))
        self.calls = 0

    async def read(self, texts):
        self.calls += 1
        await asyncio.sleep(0.01)
        return await super().read(texts)


def test_nobody_waits_for_what_others_read_until_half_of_the_room_is_taken():
    async def run(count):
        one = intake(Elsewhere(), batch=1, most_waiting=10)
        for number in range(count):
            one.put(post(f"{number}", number))
        return len(await one.ready(100 * SECOND, wait=False))

    assert [asyncio.run(run(count)) for count in (5, 6)] == [0, 6]


def test_where_everything_counts_alike_nothing_is_read():
    async def run():
        one = intake(reader := Elsewhere(), batch=1, sieve=OFF)
        one.put(post("a", 1))
        left = len(await one.ready(100 * SECOND))
        await asyncio.sleep(0.0)  # whoever was asked to read begins
        return left, reader.calls

    assert asyncio.run(run()) == (1, 0)
