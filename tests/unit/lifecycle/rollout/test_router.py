"""The in-process router: who answers, that nobody goes without an answer, and what is counted."""

from __future__ import annotations

import asyncio
import math

import pytest

from cryptoalpha.core.errors import ConfigError, ModelError, VenueError
from cryptoalpha.lifecycle.rollout.router import Router, assigned, share_of
from cryptoalpha.lifecycle.rollout.split import CANARY, STABLE, Pairs, SplitConflictError


class Watch:
    """A clock and a stopwatch that stand still until moved."""

    def __init__(self) -> None:
        self.ns = 1_000

    def now(self) -> int:
        return self.ns

    def seconds(self) -> float:
        return self.ns / 1e9


def fault(answer: float) -> str | None:
    return "nan" if math.isnan(answer) else None if 0.0 <= answer <= 1.0 else "out_of_range"


def a_router(watch: Watch, **given) -> Router[float]:
    return Router(stable="old", salt="s", now=watch.now, check=fault, stopwatch=watch.seconds, **given)


async def rolled(router: Router[float], share: float, *, shadow: bool = False) -> None:
    split = await router.ensure("old", "new")
    await router.write({STABLE: 1.0 - share, CANARY: share}, expected_version=split.version, shadow=shadow)


def test_keys_are_spread_evenly_and_a_higher_weight_only_adds_keys():
    keys = [f"request-{number}" for number in range(20_000)]
    before: set[str] = set()
    for share in (0.05, 0.10, 0.25, 0.50, 1.0):
        on_canary = {key for key in keys if assigned("salt", key, share) == CANARY}
        assert before <= on_canary
        assert abs(len(on_canary) - share * len(keys)) <= 4.5 * math.sqrt(share * (1 - share) * len(keys))
        before = on_canary
    assert before == set(keys)


def test_salt_and_key_are_not_confused_and_another_salt_picks_others():
    assert share_of("a", "bc") != share_of("ab", "c")
    first = {number for number in range(4000) if assigned("a", str(number), 0.1) == CANARY}
    second = {number for number in range(4000) if assigned("b", str(number), 0.1) == CANARY}
    assert abs(len(first & second) - 40) <= 4.5 * math.sqrt(40)  # independent: 0.1 · 0.1 · 4000


async def asked(router: Router[float], answers: dict[str, float | Exception], key: str = "k"):
    async def call(version: str) -> float:
        given = answers[version]
        if isinstance(given, Exception):
            raise given
        return given

    return await router.answer(key, call)


def test_what_the_canary_fails_at_is_answered_by_stable_and_counted_by_cause():
    async def story() -> None:
        router = a_router(Watch())
        await rolled(router, 1.0)
        for bad in (math.nan, 1.5, ValueError("broken"), TimeoutError()):
            routed = await asked(router, {"old": 0.5, "new": bad})
            assert (routed.answer, routed.version, routed.arm, routed.fell_back) == (0.5, "old", STABLE, True)
        routed = await asked(router, {"old": 0.5, "new": 0.7})
        assert (routed.answer, routed.version, routed.fell_back) == (0.7, "new", False)
        counts = await router.counts(router.split.since)
        assert counts[CANARY].failures == {"nan": 1, "out_of_range": 1, "error": 1, "timeout": 1}
        assert (counts[CANARY].requests, counts[CANARY].fallbacks, counts[CANARY].fallback_failures) == (5, 4, 0)
        assert counts[STABLE].requests == 0  # its rescues are no sample of its requests

    asyncio.run(story())


def test_what_both_fail_at_is_the_callers_to_see():
    async def story() -> None:
        router = a_router(Watch())
        await rolled(router, 1.0)
        with pytest.raises(VenueError, match="away"):
            await asked(router, {"old": VenueError("away"), "new": math.nan})
        with pytest.raises(ModelError, match=r"old gave an unusable answer \(nan\)"):
            await asked(router, {"old": math.nan, "new": math.nan})
        assert (await router.counts(0))[CANARY].fallback_failures == 2

    asyncio.run(story())


def test_in_shadow_stable_answers_at_once_and_the_pair_is_counted():
    async def story() -> None:
        watch = Watch()
        router = a_router(watch, differ=lambda one, other: abs(one - other) > 0.2)
        await rolled(router, 0.0, shadow=True)
        for old, new in ((0.5, 0.6), (0.5, 0.9), (0.5, math.nan), (math.nan, 0.5), (math.nan, math.nan)):
            if math.isnan(old):
                with pytest.raises(ModelError):
                    await asked(router, {"old": old, "new": new})
            else:
                assert (await asked(router, {"old": old, "new": new})).version == "old"
        await router.drain()
        counts = await router.counts(router.split.since)
        assert counts[CANARY].pairs == Pairs(both_fine=2, canary_failed=1, stable_failed=1, both_failed=1, disagreed=1)
        assert (counts[CANARY].requests, counts[STABLE].requests) == (5, 5)
        assert (counts[CANARY].failures, counts[STABLE].failures) == ({"nan": 2}, {"nan": 2})

    asyncio.run(story())


def test_a_canary_that_hangs_in_shadow_delays_nobody_and_counts_as_timeout():
    async def story() -> None:
        router = Router(stable="old", salt="s", now=Watch().now, timeout_seconds=0.05, shadow_limit=1)
        await rolled(router, 0.0, shadow=True)
        never = asyncio.Event()

        async def call(version: str) -> float:
            if version == "new":
                await never.wait()
            return 0.5

        async with asyncio.timeout(0.04):  # less than the canary's time
            first, second = await router.answer("a", call), await router.answer("b", call)
        assert (first.answer, second.answer) == (0.5, 0.5)
        await router.drain()
        counts = await router.counts(router.split.since)
        assert (counts[CANARY].failures, counts[CANARY].dropped, counts[CANARY].requests) == ({"timeout": 1}, 1, 1)
        assert counts[STABLE].requests == 2

    asyncio.run(story())


def test_lateness_is_counted_singly_and_in_pairs():
    async def story() -> None:
        watch = Watch()
        router = a_router(watch)  # late beyond 0.1 s, slower beyond 3 times and 25 ms
        await rolled(router, 0.5)
        epoch = router._tally.epoch
        for stable, canary in ((0.01, 0.2), (0.2, 0.01), (0.2, 0.2), (0.02, 0.05), (0.01, 0.03), (0.001, 0.02)):
            epoch.record_pair(None, None, stable, canary)
        pairs = (await router.counts(router.split.since))[CANARY].pairs
        assert (pairs.canary_late, pairs.stable_late) == (1, 1)
        assert (pairs.canary_slower, pairs.stable_slower) == (1, 1)  # 0.03 is not above 3 · 0.01; 0.02 is below 25 ms

    asyncio.run(story())


def test_only_the_canary_has_less_time_and_stable_all_that_it_takes_alone_in_shadow_and_as_rescue():
    async def story() -> None:
        router = Router(stable="old", salt="s", now=Watch().now, timeout_seconds=30.0, canary_seconds=0.02)
        hang = asyncio.Event()

        async def call(version: str) -> float:
            await (hang.wait() if version == "new" else asyncio.sleep(0.06))  # stable takes three times what the canary may
            return 0.5

        assert (await router.answer("k", call)).arm == STABLE
        await rolled(router, 0.0, shadow=True)
        assert (await router.answer("k", call)).arm == STABLE
        await router.drain()
        assert (await router.counts(0))[CANARY].pairs.canary_failed == 1
        await rolled(router, 1.0)
        routed = await router.answer("k", call)
        assert (routed.version, routed.fell_back, routed.cause) == ("old", True, "timeout")
        counts = await router.counts(0)
        assert (counts[STABLE].failures, counts[CANARY].failures, counts[CANARY].fallback_failures) == ({}, {"timeout": 2}, 0)

    asyncio.run(story())


def test_where_both_hang_until_the_caller_gives_up_it_counts_against_both():
    async def story() -> None:
        router = Router(stable="old", salt="s", now=Watch().now, timeout_seconds=30.0, canary_seconds=0.02, late_seconds=0.01)

        async def call(version: str) -> float:
            await asyncio.Event().wait()
            return 0.5

        async def asked_once() -> None:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.08):
                    await router.answer("k", call)
            await router.drain()

        await rolled(router, 0.0, shadow=True)
        await asked_once()
        counts = await router.counts(0)
        assert (counts[CANARY].pairs, counts[STABLE].failures) == (Pairs(both_failed=1), {"timeout": 1})
        await rolled(router, 1.0)
        await asked_once()
        canary = (await router.counts(router.split.since))[CANARY]
        assert (canary.failures, canary.fallbacks, canary.fallback_failures) == ({"timeout": 1}, 1, 1)

    asyncio.run(story())


def test_a_caller_who_gives_up_on_a_slow_canary_leaves_a_timeout_behind():
    async def story() -> None:
        watch = Watch()
        router = a_router(watch)
        await rolled(router, 1.0)

        async def slow(version: str) -> float:
            watch.ns += 200_000_000
            await asyncio.sleep(3600)
            return 0.5

        waiting = asyncio.create_task(router.answer("k", slow))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert (await router.counts(0))[CANARY].failures == {"timeout": 1}

    asyncio.run(story())


def test_a_request_is_charged_to_the_split_it_was_assigned_under():
    async def story() -> None:
        router = a_router(Watch())
        await rolled(router, 1.0)
        held = asyncio.Event()

        async def call(version: str) -> float:
            await held.wait()
            return 0.5

        waiting = asyncio.create_task(router.answer("k", call))
        await asyncio.sleep(0)
        old = router.split
        new = await router.write({STABLE: 0.5, CANARY: 0.5}, expected_version=old.version)
        held.set()
        await waiting
        assert (await router.counts(new.since))[CANARY].requests == 0
        assert (await router.counts(old.since))[CANARY].requests == 1
        assert new.since > old.since  # although the clock stood still

    asyncio.run(story())


def test_compare_and_set_and_weights_that_cannot_be():
    async def story() -> None:
        router = a_router(Watch())
        split = await router.ensure("old", "new")
        assert await router.ensure("old", "new") == split  # once more changes nothing
        await router.write({STABLE: 0.9, CANARY: 0.1}, expected_version=split.version)
        with pytest.raises(SplitConflictError):
            await router.write({STABLE: 0.0, CANARY: 1.0}, expected_version=split.version)
        assert router.split.canary_share == 0.1
        for weights, shadow in (({STABLE: 0.0, CANARY: 0.0}, False), ({STABLE: 0.5, CANARY: 0.5}, True), ({"other": 1.0}, False)):
            with pytest.raises(ConfigError):
                await router.write(weights, expected_version=router.split.version, shadow=shadow)
        with pytest.raises(ConfigError):
            await router.ensure("old", "old")

    asyncio.run(story())


def test_finish_makes_the_winner_stable_and_lets_the_other_go():
    async def story() -> None:
        gone: list[str] = []

        async def release(version: str) -> None:
            gone.append(version)

        for winner, stays, goes in ((CANARY, "new", "old"), (STABLE, "old", "new")):
            router = a_router(Watch(), release=release)
            await rolled(router, 0.5)
            await router.finish(winner)
            await router.finish(winner)
            assert (router.split.stable, router.split.canary, router.split.canary_share) == (stays, "", 0.0)
            assert gone.pop() == goes
            assert gone == []

    asyncio.run(story())


def test_failures_of_one_key_within_the_time_count_once():
    async def story() -> None:
        watch = Watch()
        router = a_router(watch, once_per_seconds=60.0)
        await rolled(router, 1.0)
        for seconds in (0, 10, 59, 61, 100):
            watch.ns = 1_000 + seconds * 1_000_000_000
            await asked(router, {"old": 0.5, "new": math.nan}, key="the same")
        await asked(router, {"old": 0.5, "new": math.nan}, key="another")
        assert (await router.counts(0))[CANARY].failures == {"nan": 3}  # at 0 and at 61, and the other key's

    asyncio.run(story())


def test_what_is_nobodys_failure_is_not_counted():
    async def story() -> None:
        router = a_router(Watch(), uncounted=(BlockingIOError,))
        await rolled(router, 1.0)
        with pytest.raises(BlockingIOError):
            await asked(router, {"old": 0.5, "new": BlockingIOError("the queue is full")})
        assert (await router.counts(0))[CANARY].requests == 0

    asyncio.run(story())
