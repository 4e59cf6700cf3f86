"""Evolution by workers of a Ray cluster that others have started, one per machine, and an actor there.

python join_ray.py ADDRESS        prints one JSON object
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import runtime_actors as actors
import runtime_learners as learners
import torch

from cryptoalpha.learn.config import RuntimeConfig
from cryptoalpha.learn.evolution import evolve
from cryptoalpha.learn.runtime import open_executor, open_workers


def evolved(workers: Any = None) -> str:
    here = learners.replica()
    evolve(here.strategy, here.fitness, generations=3, workers=workers)
    return here.strategy.fingerprint()


async def called(config: RuntimeConfig) -> list[int]:
    async with open_executor(config) as executor:
        await executor.spawn("a", actors.tally)
        return [await executor.call("a", actors.add, 3, call_id="x") for _ in range(2)]


if __name__ == "__main__":
    torch.set_num_threads(1)
    # nine tenths of a CPU each, of which every machine of the test has one: two workers live on two machines
    config = RuntimeConfig(backend="ray", address=sys.argv[1], cpus_per_actor=0.9)
    found: dict[str, Any] = {"called": asyncio.run(called(config))}
    with open_workers(config, 2, learners.replica) as workers:
        found["equal"] = evolved(workers) == evolved()
        found["machines"] = len(set(workers.each(actors.node, None)))
    sys.stdout.write(json.dumps(found) + "\n")
