"""The executor in threads and in processes: order, repeats by id, deaths, errors with their type. `test_on_ray` asks Ray the same."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from cryptoalpha.core.errors import ConfigError, ModelError, WorkerDiedError
from cryptoalpha.learn.config import RuntimeConfig
from cryptoalpha.learn.runtime import Executor, open_executor

PLACES = {"threads": RuntimeConfig(restart_seconds=0.01), "processes": RuntimeConfig(processes=True, restart_seconds=0.01)}


@pytest.fixture(params=list(PLACES))
def place(request) -> RuntimeConfig:
    return PLACES[request.param]


def running(config: RuntimeConfig, talk):
    """What `talk(executor)` returns."""

    async def run():
        async with open_executor(config) as executor:
            return await talk(executor)

    return asyncio.run(run())


def test_an_actor_keeps_its_state_and_answers_in_the_order_of_the_calls(actors, place):
    async def talk(executor: Executor):
        await executor.spawn("a", functools.partial(actors.tally, 10))
        await executor.spawn("b", actors.tally)
        sums = await asyncio.gather(*(executor.call("a", actors.add, amount) for amount in (1, 2, 3, 4)))
        slow = asyncio.create_task(executor.call("b", actors.slow, (0.2, "first")))
        await asyncio.sleep(0.02)
        quick = asyncio.create_task(executor.call("b", actors.slow, (0.0, "second")))
        assert await executor.call("a", actors.same_thread, None)  # SQLite and others insist on it
        return sums, await slow, await quick, await executor.call("b", actors.seen, None)

    assert running(place, talk) == ([11, 13, 16, 20], "first", "second", ["first", "second"])


def test_different_actors_work_side_by_side(actors, place):
    async def talk(executor: Executor):
        for name in "abc":
            await executor.spawn(name, actors.tally)
        began = time.monotonic()
        await asyncio.gather(*(executor.call(name, actors.slow, (0.4, name)) for name in "abc"))
        return time.monotonic() - began

    assert running(place, talk) < 1.0  # 1.2 s one after the other


def test_a_call_that_is_repeated_by_its_id_is_answered_and_not_done_again(actors, place):
    async def talk(executor: Executor):
        await executor.spawn("a", actors.tally)
        sums = [await executor.call("a", actors.add, 5, call_id=number) for number in ("x", "y", "x", "y", "")]
        sums.append(await executor.call("a", actors.add, 5))  # without an id every call counts
        (health,) = await executor.health()
        return sums, health.calls, health.repeated

    assert running(place, talk) == ([5, 10, 5, 10, 15, 20], 6, 2)


def test_a_task_may_be_a_coroutine_and_has_ended_before_the_next_begins(actors, place):
    async def talk(executor: Executor):
        await executor.spawn("a", actors.tally)
        sums = await asyncio.gather(*(executor.call("a", actors.later, amount) for amount in (1, 2, 3)))
        return sums, await executor.call("a", actors.seen, None)

    assert running(place, talk) == ([1, 3, 6], [1, 2, 3])


def test_only_the_newest_answers_are_remembered(actors):
    async def talk(executor: Executor):
        await executor.spawn("a", actors.tally)
        return [await executor.call("a", actors.add, 1, call_id=number) for number in "abcbad"]

    assert running(RuntimeConfig(remembered_calls=2), talk) == [1, 2, 3, 2, 4, 5]  # "a" had been forgotten after "c"


def test_an_error_keeps_its_type_is_no_death_and_is_not_remembered(actors, place):
    async def talk(executor: Executor):
        await executor.spawn("a", actors.tally)
        for _ in range(2):
            with pytest.raises(ModelError, match="7 is bad") as raised:
                await executor.call("a", actors.bad, 7, call_id="x")
            assert raised.value.hint == "take another"
            assert "in a worker process" in str(raised.value.__cause__)
        (health,) = await executor.health()
        assert (health.restarts, health.state) == (0, "ready")
        return await executor.call("a", actors.add, 0)

    assert running(place, talk) == 2


def test_a_failed_start_raises_its_own_error_and_frees_the_name(actors, place):
    async def talk(executor: Executor):
        with pytest.raises(FileNotFoundError, match="the model is not there"):
            await executor.spawn("a", actors.bad_start)
        await executor.spawn("a", actors.tally)
        with pytest.raises(ConfigError, match="there is an actor 'a' already"):
            await executor.spawn("a", actors.tally)
        return [health.name for health in await executor.health()]

    assert running(place, talk) == ["a"]


def test_what_cannot_be_sent_is_refused_everywhere_so_that_nothing_works_in_a_thread_only(actors, place):
    async def talk(executor: Executor):
        with pytest.raises(ConfigError, match="what builds actor 'a' cannot be sent"):
            await executor.spawn("a", lambda: 0)
        await executor.spawn("a", actors.tally)
        with pytest.raises(ConfigError, match="what actor 'a' was asked cannot be sent"):
            await executor.call("a", lambda state, item: item, 1)
        with pytest.raises(ConfigError, match=r"there is no actor 'b'") as raised:
            await executor.call("b", actors.add, 1)
        assert raised.value.hint == "known: a"
        await executor.stop("a")
        await executor.stop("a")
        with pytest.raises(ConfigError, match="no actor 'a'"):
            await executor.call("a", actors.add, 1)

    running(place, talk)


def test_an_actor_that_is_killed_is_built_anew_and_the_call_made_again(actors, tmp_path):
    async def talk(executor: Executor):
        await executor.spawn("a", functools.partial(actors.tally, 100))
        assert await executor.call("a", actors.add, 1, call_id="one") == 101
        first = await executor.call("a", actors.pid, None)
        assert await executor.call("a", actors.die_once, (str(tmp_path / "died"), 5)) == 105  # what `build` makes, and the call
        assert await executor.call("a", actors.add, 1, call_id="one") == 106  # memory died with it: at least once
        (health,) = await executor.health()
        assert (health.restarts, health.state) == (1, "ready")
        assert health.process != first
        os.kill(health.process, signal.SIGKILL)  # while nobody asks it anything
        await asyncio.sleep(0.2)
        (health,) = await executor.health()
        assert health.state == "dead"
        return await executor.call("a", actors.add, 1)

    assert running(PLACES["processes"], talk) == 101


def test_a_thread_that_is_ended_by_its_task_is_a_death_too(actors, tmp_path, place):
    async def talk(executor: Executor):
        await executor.spawn("a", actors.tally)
        assert await executor.call("a", actors.leave_once, (str(tmp_path / "left"), 5)) == 5
        with pytest.raises(WorkerDiedError, match=r"actor 'a' died 4 times over one call.*code 9"):
            await executor.call("a", actors.leave, 9)
        (health,) = await executor.health()
        assert health.state == "dead"
        return await executor.call("a", actors.add, 1), (await executor.health())[0].restarts

    assert running(place, talk) == (1, 5)


def test_an_actor_that_cannot_be_built_again_says_why(actors, tmp_path):
    async def talk(executor: Executor):
        await executor.spawn("a", functools.partial(actors.bad_after, str(tmp_path / "gone")))
        (tmp_path / "gone").touch()
        with pytest.raises(FileNotFoundError, match="the model has gone"):
            await executor.call("a", actors.die, None)
        (tmp_path / "gone").unlink()
        return await executor.call("a", actors.add, 3)

    assert running(PLACES["processes"], talk) == 3


def test_an_actor_that_does_not_answer_is_killed_and_in_a_thread_only_its_call_fails(actors):
    async def talk(executor: Executor):
        await executor.spawn("a", actors.tally)
        with pytest.raises(WorkerDiedError, match=r"did not answer within 0\.5 s"):
            await executor.call("a", actors.slow, (1.5, "late"))
        return await executor.call("a", actors.seen, None) if not in_threads else "failed"

    in_threads = False
    quick = {"call_seconds": 0.5, "restarts": 0}
    assert running(RuntimeConfig(processes=True, **quick), talk) == []
    in_threads = True
    assert running(RuntimeConfig(**quick), talk) == "failed"


def test_a_cancelled_call_leaves_the_actor_in_order(actors, place):
    async def talk(executor: Executor):
        await executor.spawn("a", actors.tally)
        slow = asyncio.create_task(executor.call("a", actors.slow, (0.3, "first"), call_id="x"))
        await asyncio.sleep(0.05)
        slow.cancel()
        with pytest.raises(asyncio.CancelledError):
            await slow
        again = await executor.call("a", actors.slow, (0.0, "first"), call_id="x")  # it had been done all the same
        return again, await executor.call("a", actors.seen, None)

    assert running(place, talk) == ("first", ["first"])


def test_leaving_ends_every_process_and_a_call_under_way(actors):
    before = set(threading.enumerate())  # a thread cannot be killed: one of another test may still be ending

    async def talk():
        executor = open_executor(PLACES["processes"])
        async with executor:
            await executor.spawn("a", actors.tally)
            process = await executor.call("a", actors.pid, None)
            under_way = asyncio.create_task(executor.call("a", actors.slow, (60.0, "never")))
            waiting = asyncio.create_task(executor.call("a", actors.add, 1))
            await asyncio.sleep(0.1)
            assert [(health.state, health.waiting) for health in await executor.health()] == [("busy", 2)]
        ended = await asyncio.gather(under_way, waiting, return_exceptions=True)
        with pytest.raises(ConfigError, match="closed"):
            await executor.spawn("b", actors.tally)
        return process, [type(error) for error in ended]

    process, ended = asyncio.run(talk())
    assert ended == [WorkerDiedError, ConfigError]
    assert not Path(f"/proc/{process}").exists()
    assert not [thread for thread in threading.enumerate() if thread not in before and "actor" in thread.name]
