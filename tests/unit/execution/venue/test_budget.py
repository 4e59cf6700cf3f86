"""The request budget: never more than the limit in any minute, the reserve kept for a way out, Retry-After obeyed."""

from __future__ import annotations

import asyncio
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.execution.live.budget import WINDOW_SECONDS, Budget, BudgetSpentError


class Watch:
    """A clock that stands until it is moved; sleeping moves it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


REQUESTS = st.lists(
    st.tuples(st.floats(0, 30), st.floats(0.1, 40), st.booleans()),  # pause before it, weight, whether it is urgent
    min_size=1,
    max_size=60,
)


@settings(max_examples=50, deadline=None)
@given(requests=REQUESTS, reserved=st.sampled_from([0.0, 0.2, 0.5]))
def test_no_minute_ever_holds_more_than_the_limit_nor_ordinary_requests_more_than_their_part(requests, reserved):
    watch, limit = Watch(), 100.0
    budget = Budget(limit, reserved, monotonic=watch)
    sent: list[tuple[float, float, bool]] = []
    for pause, weight, urgent in requests:
        watch.now += pause
        if budget.take(weight, urgent=urgent) == 0.0:
            sent.append((watch.now, weight, urgent))
            window = [one for one in sent if watch.now - WINDOW_SECONDS < one[0] <= watch.now]  # by hand, from the whole list
            assert sum(one[1] for one in window) <= limit + 1e-6
            if not urgent:
                assert sum(one[1] for one in window) <= limit * (1 - reserved) + 1e-6


@settings(max_examples=50, deadline=None)
@given(requests=REQUESTS)
def test_the_wait_it_names_is_enough_and_not_a_moment_too_long(requests):
    watch = Watch()
    budget = Budget(60.0, 0.2, monotonic=watch)
    for pause, weight, urgent in requests:
        watch.now += pause
        wait = budget.take(weight, urgent=urgent)
        if wait > 0.01:
            watch.now += wait - 0.005
            assert budget.take(weight, urgent=urgent) > 0.0
            watch.now += 0.006
            assert budget.take(weight, urgent=urgent) == 0.0


def test_a_way_out_is_there_when_asking_has_used_up_its_part():
    watch = Watch()
    budget = Budget(100.0, 0.2, monotonic=watch)
    assert [budget.take(10.0) for _ in range(8)] == [0.0] * 8
    assert budget.take(1.0) == pytest.approx(60.0)  # eighty of a hundred is all that ordinary requests may use
    assert budget.left() == 0.0
    assert budget.left(urgent=True) == 20.0
    assert [budget.take(10.0, urgent=True) for _ in range(2)] == [0.0, 0.0]
    assert budget.take(1.0, urgent=True) > 0.0


def test_retry_after_closes_it_for_everybody():
    watch = Watch()
    budget = Budget(100.0, 0.2, monotonic=watch)
    budget.close_for(7.0)
    budget.close_for(3.0)  # a shorter one does not open it earlier
    assert budget.take(1.0, urgent=True) == 7.0
    assert budget.left(urgent=True) == 0.0
    watch.now += 7.0
    assert budget.take(1.0) == 0.0


def test_waiting_sleeps_until_there_is_room_and_refuses_at_once_what_would_come_too_late():
    watch = Watch()
    budget = Budget(10.0, 0.0, monotonic=watch)
    budget.wait(10.0, patience_seconds=1.0, sleep=watch.sleep)
    watch.now += 55.0
    budget.wait(4.0, patience_seconds=10.0, sleep=watch.sleep)
    assert watch.slept == [pytest.approx(5.0)]
    with pytest.raises(BudgetSpentError, match="not sent") as refused:
        budget.wait(10.0, patience_seconds=10.0, sleep=watch.sleep)
    assert refused.value.wait_seconds == pytest.approx(60.0)
    assert len(watch.slept) == 1  # it did not wait to say no


def test_a_request_heavier_than_the_whole_minute_takes_the_whole_minute():
    watch = Watch()
    budget = Budget(10.0, 0.0, monotonic=watch)
    assert budget.take(50.0) == 0.0
    assert budget.take(0.1) == pytest.approx(60.0)


def test_many_threads_and_loops_together_never_overspend():
    budget = Budget(500.0, 0.2)
    granted: list[int] = []

    def by_thread() -> None:
        granted.append(sum(budget.take(1.0) == 0.0 for _ in range(200)))

    def by_loop() -> None:
        async def ask() -> int:
            done = 0
            for _ in range(200):
                try:
                    await budget.acquire(1.0, patience_seconds=0.0)
                    done += 1
                except BudgetSpentError:
                    await asyncio.sleep(0)
            return done

        granted.append(asyncio.run(ask()))

    threads = [threading.Thread(target=work) for work in (by_thread, by_loop) * 3]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert sum(granted) == 400  # exactly the ordinary part of 500, however they raced


@pytest.mark.parametrize(("limit", "reserved"), [(0.0, 0.2), (10.0, 1.0), (10.0, -0.1)])
def test_a_budget_of_nothing_is_refused(limit, reserved):
    with pytest.raises(ConfigError):
        Budget(limit, reserved)
