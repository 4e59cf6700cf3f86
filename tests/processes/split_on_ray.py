"""A traffic split on a real Ray Serve: run by `tests/chaos/test_ray_serve.py` in a network of its own. Prints one JSON object."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.learn.config import RuntimeConfig
from cryptoalpha.learn.runtime.ray_cluster import join_cluster
from cryptoalpha.lifecycle.rollout.ray_serve import RayServeSplit
from cryptoalpha.lifecycle.rollout.router import assigned
from cryptoalpha.lifecycle.rollout.split import CANARY, STABLE, SplitConflictError

REQUESTS = 400


class Model:
    """Says which version it is; `bad` fails at every request whose number ends in 3."""

    def __init__(self, version: str) -> None:
        self.version = version

    def __call__(self, request: int) -> str:
        if self.version == "bad" and request % 10 == 3:
            raise ValueError("it ends in 3")
        return f"{self.version}:{request}"


def load(version: str) -> Callable[[Any], Any]:
    return Model(version)


async def ask(split: RayServeSplit, count: int = REQUESTS) -> list[tuple[str, str, str]]:
    gate = asyncio.Semaphore(16)

    async def one(number: int) -> tuple[str, str, str]:
        async with gate:
            return await split.answer(f"key {number}", number)

    return await asyncio.gather(*(one(number) for number in range(count)))


async def settled(split: RayServeSplit, since: int, arm: str, requests: int) -> Any:
    """The counts, once the replicas have told them."""
    end = time.monotonic() + 10.0
    while True:
        found = await split.counts(since)
        if found[arm].requests >= requests or time.monotonic() > end:
            return found
        await asyncio.sleep(0.1)


async def main() -> dict[str, Any]:
    found: dict[str, Any] = {"shares": {}}
    split = RayServeSplit(load, stable="old", routers=2, least=1, most=2, cpus=0.05)
    begun = time.monotonic()
    await split.start()
    found["start, s"] = round(time.monotonic() - begun, 1)
    now = await split.ensure("old", "bad")
    for weight in (0.05, 0.10, 0.25, 0.50, 1.0):
        now = await split.write({STABLE: 1.0 - weight, CANARY: weight}, expected_version=now.version)
        answers = await ask(split)
        meant = sum(assigned("cryptoalpha", f"key {number}", weight) == CANARY for number in range(REQUESTS))
        counts = await settled(split, now.since, CANARY, meant)
        found["shares"][str(weight)] = {
            "lost": sum(text.partition(":")[2] != str(number) for number, (text, _, _) in enumerate(answers)),
            "meant": meant,
            "canary asked": counts[CANARY].requests, "stable asked": counts[STABLE].requests,
            "canary failed": counts[CANARY].failures, "rescued": counts[CANARY].fallbacks,
            "due": sum(assigned("cryptoalpha", f"key {n}", weight) == CANARY and n % 10 == 3 for n in range(REQUESTS)),
            "canary answered": sum(arm == CANARY for _, _, arm in answers),
        }  # fmt: skip
    try:
        await split.write({STABLE: 1.0}, expected_version="another")
    except SplitConflictError:
        found["conflict"] = True
    now = await split.write({STABLE: 1.0}, expected_version=now.version, shadow=True)
    shadowed = await ask(split, 100)
    pairs = (await settled(split, now.since, CANARY, 100))[CANARY].pairs
    found["shadow"] = [sum(arm == STABLE for _, _, arm in shadowed), pairs.both_fine, pairs.canary_failed]
    await split.finish(STABLE)
    found["after"] = sorted({version for _, version, _ in await ask(split, 50)})
    now = await split.read()
    found["finished"] = [now.stable, now.canary]
    now = await split.ensure("old", "new")
    await split.finish(CANARY)
    found["promoted"] = sorted({version for _, version, _ in await ask(split, 50)})
    try:
        await split.ensure("new", "new")
    except ConfigError:
        found["own canary"] = True
    await split.close()
    return found


if __name__ == "__main__":
    leave = join_cluster(RuntimeConfig(backend="ray", cpus=2, object_store_mib=120))
    try:
        result = asyncio.run(main())
    finally:
        import ray.serve

        ray.serve.shutdown()
        leave()
    print(json.dumps(result))
