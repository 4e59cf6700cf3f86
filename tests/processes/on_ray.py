"""Everything that is asked of Ray, in one process with one cluster: run by `tests/chaos/test_ray.py` in a network of its own.

    python on_ray.py FOLDER

Prints one JSON object: what was found, part by part. Ends with code 1 where a part raised.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import runtime_actors as actors
import runtime_agents as agents
import runtime_learners as learners
import torch

from cryptoalpha.core.clock import VirtualClock
from cryptoalpha.core.errors import ConfigError, ModelError, WorkerDiedError
from cryptoalpha.core.seeds import stream
from cryptoalpha.core.time import SECOND
from cryptoalpha.data.bus.config import BusConfig, WorkerConfig
from cryptoalpha.data.bus.inbox import Inbox
from cryptoalpha.data.bus.memory import MemoryBus
from cryptoalpha.data.bus.worker import Worker
from cryptoalpha.learn.config import RuntimeConfig
from cryptoalpha.learn.evolution import evolve
from cryptoalpha.learn.runtime import open_executor, open_workers
from cryptoalpha.learn.runtime.ray_cluster import join_cluster
from cryptoalpha.learn.self_play_together import SelfPlayTogether
from cryptoalpha.learn.workers import InProcess
from cryptoalpha.signals.agents.hosted import HostedAgent

ON_RAY = RuntimeConfig(backend="ray", cpus=2, restart_seconds=0.05, call_seconds=60.0)
TOPICS = ("texts", "market", "readings")


async def executor_keeps_its_promises(folder: Path) -> dict[str, Any]:
    """What `test_executor_local` asks of threads and processes."""
    found: dict[str, Any] = {}
    async with open_executor(ON_RAY) as executor:
        await executor.spawn("a", functools.partial(actors.tally, 10))
        found["order"] = await asyncio.gather(*(executor.call("a", actors.add, amount) for amount in (1, 2, 3, 4)))
        found["by id"] = [await executor.call("a", actors.add, 5, call_id=name) for name in ("x", "y", "x", "y", "")]
        found["coroutine"] = await asyncio.gather(*(executor.call("a", actors.later, amount) for amount in (1, 2, 3)))
        try:
            await executor.call("a", actors.bad, 7)
        except ModelError as error:
            found["error"] = [str(error), error.hint, "in a worker process" in str(error.__cause__)]
        try:
            await executor.spawn("b", actors.bad_start)
        except FileNotFoundError as error:
            found["start"] = str(error)
        try:
            await executor.call("a", lambda state, item: item, 1)
        except ConfigError as error:
            found["unsendable"] = str(error)
        first = await executor.call("a", actors.pid, None)
        found["killed at work"] = await executor.call("a", actors.die_once, (str(folder / "died"), 5))
        (health,) = await executor.health()
        found["another process"] = health.process != first
        os.kill(health.process, signal.SIGKILL)
        await asyncio.sleep(0.5)
        found["killed at rest"] = [(await executor.health())[0].state, await executor.call("a", actors.add, 1)]
        try:
            await executor.call("a", actors.leave, 9)
        except WorkerDiedError as error:
            found["poison"] = str(error)
        found["after poison"] = [await executor.call("a", actors.add, 1), (await executor.health())[0].restarts]
        slow = asyncio.create_task(executor.call("a", actors.slow, (60.0, "never")))
        await asyncio.sleep(0.2)
        found["busy"] = (await executor.health())[0].state
    (ended,) = await asyncio.gather(slow, return_exceptions=True)
    found["closed"] = type(ended).__name__
    return found


async def a_slow_actor_is_killed() -> dict[str, Any]:
    found = {}
    async with open_executor(ON_RAY.model_copy(update={"call_seconds": 3.0, "start_seconds": 15.0, "restarts": 0})) as executor:
        await executor.spawn("a", actors.tally)
        try:
            await executor.call("a", actors.slow, (60.0, "late"))
        except WorkerDiedError as error:
            found["slow"] = str(error)
        try:
            await executor.spawn("b", actors.tally, resources=actors.too_much())
        except ConfigError as error:
            found["no room"] = str(error)
        found["names"] = [health.name for health in await executor.health()]
    return found


def learning(folder: Path) -> dict[str, Any]:
    """Evolution, self-play and expert iteration: here, and by Ray workers of which one is killed in the middle."""
    found = {}
    here = learners.replica()
    evolve(here.strategy, here.fitness, generations=5)
    (folder / "die").touch()
    with open_workers(ON_RAY, 2, functools.partial(learners.replica, 3, str(folder / "die"))) as workers:
        there = learners.replica()
        evolve(there.strategy, there.fitness, generations=5, workers=workers)
    equal = all(bool((a.accepted == b.accepted).all()) for a, b in zip(here.strategy.tensors, there.strategy.tensors, strict=True))
    found["evolution"] = [here.strategy.fingerprint() == there.strategy.fingerprint(), equal, (folder / "die").exists()]

    def played(workers: Any) -> tuple[list[Any], bytes]:
        learner = learners.play_learner()
        many = SelfPlayTogether(learner, workers, [learners.player(seed).world.state() for seed in (3, 4, 5)])
        return [many.iterate() for _ in range(3)], learners.weights(learner.net)

    def planned(workers: Any) -> tuple[list[float], bytes]:
        learner = learners.plan_learner(5, workers)
        return [learner.iterate() for _ in range(3)], learners.weights(learner.net)

    (folder / "die").touch()
    with open_workers(ON_RAY, 2, functools.partial(learners.player, 3, str(folder / "die"))) as workers:
        found["self-play"] = [played(workers) == played(InProcess(learners.player)), (folder / "die").exists()]
    (folder / "die").touch()
    with open_workers(ON_RAY, 2, functools.partial(learners.planner, str(folder / "die"))) as workers:
        found["expert iteration"] = [planned(workers) == planned(None), (folder / "die").exists()]
    with open_workers(ON_RAY, 2, int) as workers:
        try:
            workers.map(actors.divided, [1, 2, 0, "text", 0])
        except ZeroDivisionError as error:
            found["first error"] = "in a worker process" in str(error.__cause__)
    return found


def expected(kind: str) -> set[str]:
    """Ids of what the agent of that kind says in this process."""

    async def told() -> set[str]:
        clock = VirtualClock(agents.since())
        agent, said = agents.agent(kind, clock), []
        for end, messages in agents.hours():
            clock.advance_to(end)
            said += await agent(messages)
            clock.advance_to(end + 5 * SECOND)
            said += await agent.due()
        return {one.id + one.payload.hex() for one in said}

    return asyncio.run(told())


async def four_agents(folder: Path) -> dict[str, Any]:
    """Four agents on one bus, each with an inbox; one dies at work and another at rest."""
    clock = VirtualClock(agents.since())
    config = WorkerConfig(batch=40, wait_seconds=0.05)
    said: dict[str, list[str]] = {kind: [] for kind in agents.SOURCES}
    async with MemoryBus(BusConfig(), folder / "bus.db") as bus, open_executor(ON_RAY) as executor:
        inboxes = {kind: Inbox(folder / f"{kind}.db", kind, config) for kind in agents.SOURCES}
        for inbox in inboxes.values():
            await inbox.__aenter__()
        hosted, workers = {}, {}
        for kind in agents.SOURCES:
            fatal = str(folder / f"die {kind}")
            hosted[kind] = HostedAgent(executor, kind, functools.partial(agents.mortal, kind, fatal), clock=clock)
            workers[kind] = Worker(bus, inboxes[kind], hosted[kind], topics=TOPICS, config=config, random=stream(0, kind))
        await asyncio.gather(*(agent.start() for agent in hosted.values()))
        running = [asyncio.create_task(worker.run()) for worker in workers.values()]
        published = 0
        for number, (end, messages) in enumerate(agents.hours()):
            clock.advance_to(end)
            if number == 3:
                (folder / "die texts").touch()  # while it handles the messages of this hour
            if number == 7:
                victim = next(health for health in await executor.health() if health.name == "all")
                os.kill(victim.process, signal.SIGKILL)
            await bus.publish(messages)
            published += len(messages)
            while any(worker.counts.handled < published for worker in workers.values()):
                assert not any(task.done() for task in running), [task for task in running if task.done()]
                await asyncio.sleep(0.01)
            clock.advance_to(end + 5 * SECOND)
            for kind, agent in hosted.items():
                outputs = await agent.due()
                said[kind] += [one.id + one.payload.hex() for one in outputs]
                await bus.publish(outputs)
        health = {one.name: one for one in await executor.health()}
        for worker in workers.values():
            worker.stop()
        await asyncio.gather(*running)
        for inbox in inboxes.values():
            await inbox.close()
    return {
        "published": published,
        "handled": {kind: worker.counts.handled for kind, worker in workers.items()},
        "twice": {kind: worker.counts.repeats for kind, worker in workers.items()},
        "dead letters": {kind: worker.counts.dead for kind, worker in workers.items()},
        "restarts": {kind: health[kind].restarts for kind in agents.SOURCES},
        "recalls": {kind: agent.recalls for kind, agent in hosted.items()},
        "signals": {kind: len(said[kind]) for kind in agents.SOURCES},
        "signals twice": {kind: len(said[kind]) - len(set(said[kind])) for kind in agents.SOURCES},
        "as expected": {kind: set(said[kind]) == expected_ids[kind] for kind in agents.SOURCES},
    }


async def cost() -> dict[str, Any]:
    """What Ray costs: seconds, calls, memory."""
    found: dict[str, Any] = {}
    async with open_executor(ON_RAY) as executor:
        began = time.monotonic()
        await executor.spawn("1", actors.tally)
        found["first actor, s"] = round(time.monotonic() - began, 2)
        began = time.monotonic()
        await asyncio.gather(*(executor.spawn(str(number), actors.tally) for number in range(2, 6)))
        found["four more, s"] = round(time.monotonic() - began, 2)
        taken = []
        for _ in range(500):
            began = time.monotonic()
            await executor.call("1", actors.add, 1)
            taken.append(1_000 * (time.monotonic() - began))
        taken.sort()
        found["call p50, ms"], found["call p99, ms"] = round(taken[250], 2), round(taken[495], 2)
        began = time.monotonic()
        await asyncio.gather(*(executor.call(str(1 + number % 5), actors.add, 1) for number in range(1_000)))
        found["calls/s, five actors"] = round(1_000 / (time.monotonic() - began))
        found["actor, MiB"] = round((await executor.health())[0].memory_mib)
        found["all, MiB (PSS)"] = round(memory_of_all())
    return found


STRANGER = """
import sys
from cryptoalpha.core.errors import CryptoAlphaError
from cryptoalpha.learn.config import RuntimeConfig
from cryptoalpha.learn.runtime.ray_cluster import join_cluster
try:
    join_cluster(RuntimeConfig(backend="ray", address=sys.argv[1]))()
    print("joined")
except CryptoAlphaError as error:
    print(type(error).__name__)
"""


def the_token() -> dict[str, Any]:
    """Who may read the token, and what becomes of somebody who shows another one."""
    import ray

    path = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
    address = ray.get_runtime_context().gcs_address

    def joins(**changed: str) -> str:
        asked = [sys.executable, "-c", STRANGER, address]
        done = subprocess.run(asked, env={**os.environ, **changed}, capture_output=True, text=True, timeout=200, check=False)
        return done.stdout.strip() or done.stderr[-300:]

    return {"mode": oct(path.stat().st_mode & 0o777), "friend": joins(), "stranger": joins(RAY_AUTH_TOKEN="0" * 64)}


def memory_of_all() -> float:
    """Proportional memory of this process and all it started, MiB."""
    total, ours = 0.0, {os.getpid()}
    parents = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
    for _ in range(10):
        ours |= {process for process, parent in parents.items() if parent in ours}
    for process in ours:
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
    return total


if __name__ == "__main__":
    torch.set_num_threads(1)
    work = Path(sys.argv[1])
    os.environ["CRYPTOALPHA_TEST_LEARNER"] = str(os.getpid())
    expected_ids = {kind: expected(kind) for kind in agents.SOURCES}
    begun = time.monotonic()
    leave = join_cluster(ON_RAY)
    results: dict[str, Any] = {"start, s": round(time.monotonic() - begun, 2)}
    try:
        results["token"] = the_token()
        results["executor"] = asyncio.run(executor_keeps_its_promises(work))
        results["slow"] = asyncio.run(a_slow_actor_is_killed())
        results["agents"] = asyncio.run(four_agents(work))
        results["learning"] = learning(work)
        results["cost"] = asyncio.run(cost())
    finally:
        begun = time.monotonic()
        leave()
        results["stop, s"] = round(time.monotonic() - begun, 2)
        sys.stdout.write(json.dumps(results) + "\n")
