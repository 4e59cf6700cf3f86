"""Pace and bill: a bucket against a slow reckoning, budgets that hold over a day, a restart and two processes."""

from __future__ import annotations

import asyncio
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalpha.core.clock import VirtualClock
from cryptoalpha.core.errors import ConfigError, StoreError, VenueError
from cryptoalpha.core.time import DAY, HOUR, SECOND, parse_time
from cryptoalpha.data.sources.contract import Health
from cryptoalpha.data.sources.limits import Bucket, Budget, Limiter
from cryptoalpha.data.sources.reconnect import Line
from cryptoalpha.store.state.sqlite_state import SqliteState

START = parse_time("2026-03-01T21:00")


@settings(max_examples=40)
@given(
    steps=st.lists(st.tuples(st.integers(0, 40), st.integers(1, 3)), max_size=40),
    per_minute=st.integers(1, 120),
    burst=st.integers(3, 6),
)
def test_a_bucket_lets_through_what_an_exact_reckoning_does(steps, per_minute, burst):
    """The slow way: tokens as exact fractions of a second's worth."""
    clock = VirtualClock(START)
    bucket, tokens = Bucket(per_minute, burst, clock=clock), Fraction(burst)
    for seconds, requests in steps:
        clock.advance_to(clock.now() + seconds * SECOND)
        tokens = min(Fraction(burst), tokens + Fraction(per_minute * seconds, 60))
        wait = bucket.take(requests)
        if tokens >= requests:
            assert wait == 0.0
            tokens -= requests
        else:
            assert wait == pytest.approx(float((requests - tokens) * 60 / per_minute), abs=1e-6)


@settings(max_examples=40)
@given(per_minute=st.floats(0.5, 600), burst=st.integers(1, 10), count=st.integers(1, 60))
def test_no_window_holds_more_than_burst_and_rate_allow(per_minute, burst, count):
    clock, sent = VirtualClock(START), []
    bucket = Bucket(per_minute, burst, clock=clock)
    for _ in range(count):
        while (seconds := bucket.take()) > 0.0:
            clock.advance_to(clock.now() + max(1, round(seconds * SECOND)))
        sent.append(clock.now())
    for first in range(count):
        for last in range(first, count):
            allowed = burst + (sent[last] - sent[first]) / SECOND * per_minute / 60
            assert last - first + 1 <= allowed + 1e-6


def test_a_clock_that_is_set_back_gives_nothing_and_one_set_forward_a_bucket():
    class SetClock:
        moment = START

        def now(self):
            return self.moment

    clock = SetClock()
    bucket = Bucket(60.0, 2.0, clock=clock)
    assert [bucket.take() for _ in range(3)][:2] == [0.0, 0.0]
    clock.moment -= HOUR
    assert bucket.take() == pytest.approx(1.0)
    clock.moment += DAY
    assert [bucket.take() == 0.0 for _ in range(3)] == [True, True, False]


def test_a_bucket_that_is_held_sends_nothing_until_then():
    clock = VirtualClock(START)
    bucket = Bucket(60.0, 5.0, clock=clock)
    bucket.hold(30.0)
    bucket.hold(10.0)  # the longer one stands
    assert bucket.take() == 30.0
    clock.advance_to(START + 30 * SECOND)
    assert bucket.take() == 0.0


@pytest.mark.parametrize(("per_minute", "burst"), [(0.0, 1.0), (-1.0, 1.0), (60.0, 0.5), (float("inf"), 1.0), (float("nan"), 1.0)])
def test_a_bucket_without_sense_is_refused(per_minute, burst):
    with pytest.raises(ConfigError):
        Bucket(per_minute, burst, clock=VirtualClock(START))


class Stage:
    """A limiter on a state that outlives it."""

    def __init__(self, virtual_time, path, **budget) -> None:
        self.time, self.path, self.budget = virtual_time, path, Budget(**budget)
        self.told: list[tuple[str, str]] = []
        self.health = Health(state="connected")

    def limiter(self, state, **others) -> Limiter:
        bucket = Bucket(6_000.0, 100.0, clock=self.time.clock)
        alert = lambda subject, text: self.told.append((subject, text))  # noqa: E731
        return Limiter("x", bucket, self.budget, state, self.health, clock=self.time.clock, wait=self.time.wait, alert=alert, **others)


@pytest.fixture
def late_evening(virtual_time):
    """21:00 UTC: three hours until the next day."""
    return type(virtual_time)(START)


def test_at_the_whole_of_a_budget_it_pauses_until_the_next_day_and_says_so_once(late_evening, tmp_path):
    stage = Stage(late_evening, tmp_path / "s", units=10.0, unit_price=0.005)

    async def run():
        async with SqliteState(stage.path, clock=late_evening.clock) as state:
            limiter = stage.limiter(state)
            for _ in range(9):
                await limiter.ask(units=1.0)
                await limiter.spend(1.0)
            assert (limiter.exhausted, limiter.units_left()) == ("", pytest.approx(1.0))
            await limiter.spend(1.0)
            assert "10 of 10 units" in limiter.exhausted
            states = []
            wait = late_evening.wait

            async def watched(seconds):
                states.append((stage.health.state, stage.health.reason))
                await wait(seconds)

            limiter._wait = watched
            await limiter.ask(units=1.0)
            return states, limiter.exhausted

    states, after = asyncio.run(run())
    assert late_evening.clock.now() == parse_time("2026-03-02")
    assert {state for state, _ in states} == {"paused"}
    assert "goes on at 2026-03-02T00:00:00Z" in states[0][1]
    assert after == ""
    assert stage.health.state == "connected"
    assert stage.health.spent == {"units": 0.0, "money": 0.0}
    assert [text for _, text in stage.told if "80%" in text and "has spent" in text]
    assert len([text for _, text in stage.told if "budget is spent" in text]) == 1


def test_a_restart_goes_on_from_what_was_spent(late_evening, tmp_path):
    stage = Stage(late_evening, tmp_path / "s", units=10.0)

    async def run():
        async with SqliteState(stage.path, clock=late_evening.clock) as state:
            await stage.limiter(state).spend(10.0)
        stage.told.clear()
        async with SqliteState(stage.path, clock=late_evening.clock) as state:
            fresh = stage.limiter(state)
            await fresh.ask(units=1.0)  # waits for the next day

    asyncio.run(run())
    assert late_evening.clock.now() == parse_time("2026-03-02")
    assert len(stage.told) == 1


def test_money_is_a_budget_of_its_own(late_evening, tmp_path):
    """2,000 posts at $0.005 are the whole of $10, in binary fractions too."""
    stage = Stage(late_evening, tmp_path / "s", money=10.0, unit_price=0.005)

    async def run():
        async with SqliteState(stage.path, clock=late_evening.clock) as state:
            limiter = stage.limiter(state)
            for count in range(2_000):
                assert not limiter.exhausted, count
                await limiter.spend(1.0)
            assert limiter.exhausted
            return await limiter.look()

    spent = asyncio.run(run())
    assert spent == {"units": 2_000.0, "money": pytest.approx(10.0)}


def test_what_an_answer_may_bring_must_fit_before_it_is_asked_for(late_evening, tmp_path):
    stage = Stage(late_evening, tmp_path / "s", units=150.0)

    async def run():
        async with SqliteState(stage.path, clock=late_evening.clock) as state:
            limiter = stage.limiter(state)
            await limiter.ask(units=100.0)
            await limiter.spend(100.0)
            before = late_evening.clock.now()
            await limiter.ask(units=50.0)  # fits exactly
            assert late_evening.clock.now() == before
            await limiter.ask(units=51.0)
            assert late_evening.clock.now() == parse_time("2026-03-02")
            with pytest.raises(ConfigError, match="a day's budget is 150"):
                await limiter.ask(units=151.0)

    asyncio.run(run())


def test_two_processes_share_one_budget(late_evening, tmp_path):
    stage = Stage(late_evening, tmp_path / "s", units=10.0)

    async def run():
        async with SqliteState(stage.path, clock=late_evening.clock) as one, SqliteState(stage.path, clock=late_evening.clock) as two:
            first, second = stage.limiter(one), stage.limiter(two)
            await first.spend(6.0)
            await second.spend(4.0)
            assert second.exhausted
            assert not first.exhausted  # it has not looked yet
            await first.ask(units=1.0)

    asyncio.run(run())
    assert late_evening.clock.now() == parse_time("2026-03-02")


def test_midnight_within_a_run_begins_a_new_bill(late_evening, tmp_path):
    stage = Stage(late_evening, tmp_path / "s", units=10.0)

    async def run():
        async with SqliteState(stage.path, clock=late_evening.clock) as state:
            limiter = stage.limiter(state)
            await limiter.spend(8.0)
            late_evening.clock.advance_to(START + 4 * HOUR)
            await limiter.spend(3.0)
            return limiter.exhausted, await state.names("spend")

    exhausted, names = asyncio.run(run())
    assert exhausted == ""
    assert names == ["spend/x/2026-03-01/units", "spend/x/2026-03-02/units"]


def test_without_a_budget_it_counts_and_never_pauses(late_evening, tmp_path):
    stage = Stage(late_evening, tmp_path / "s")

    async def run():
        async with SqliteState(stage.path, clock=late_evening.clock) as state:
            limiter = stage.limiter(state)
            await limiter.ask(units=1e9)
            await limiter.spend(1e9)
            return limiter.exhausted, limiter.units_left()

    assert asyncio.run(run()) == ("", float("inf"))
    assert stage.health.spent["units"] == 1e9
    assert stage.told == []


def test_closing_the_source_ends_a_pause(virtual_time, tmp_path):
    async def run():
        async with SqliteState(None) as state:
            health = Health()
            line = Line("x", health)
            bucket = Bucket(60.0, 1.0, clock=virtual_time.clock)
            limiter = Limiter("x", bucket, Budget(units=1.0), state, health, clock=virtual_time.clock, end=line.end)  # waits in real time
            await limiter.spend(1.0)
            asking = asyncio.create_task(limiter.ask())
            while health.state != "paused":
                await asyncio.sleep(0.001)
            line.close()
            with pytest.raises(VenueError, match="closed"):
                await asyncio.wait_for(asking, 1.0)

    asyncio.run(run())


def test_where_the_bill_cannot_be_read_nothing_is_asked(late_evening, tmp_path):
    stage = Stage(late_evening, tmp_path / "s", units=10.0)

    async def run():
        async with SqliteState(stage.path, clock=late_evening.clock) as state:
            limiter = stage.limiter(state)
        with pytest.raises(StoreError):
            await limiter.ask()

    asyncio.run(run())
