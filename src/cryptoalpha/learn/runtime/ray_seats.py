"""Actors on a Ray cluster: one Ray actor each, with its share of CPUs and GPUs, placed by Ray on any machine that has room.

Ray's own restarts and repeats are off: `seated` does both, the same way for threads and processes, so an actor whose machine is lost is
built anew wherever there is room. About a millisecond per call: for work of ten milliseconds and more, not for planners inside a loop.
"""

from __future__ import annotations

import asyncio
import pickle
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from cryptoalpha.core.errors import ConfigError, WorkerDiedError
from cryptoalpha.learn.config import RuntimeConfig
from cryptoalpha.learn.runtime.contract import Resources
from cryptoalpha.learn.runtime.host import Host, Reply
from cryptoalpha.learn.runtime.ray_cluster import deaths, join_cluster, load_ray
from cryptoalpha.learn.runtime.seated import SeatedExecutor
from cryptoalpha.learn.travel import Answer, opened, pickled


def open_ray_executor(config: RuntimeConfig) -> SeatedExecutor:
    """See `opening.open_executor`."""
    leave = join_cluster(config)
    ray = load_ray()

    def seat(name: str, start: Callable[[], Host], resources: Resources) -> RaySeat:
        return RaySeat(ray, name, start, resources, config.start_seconds)

    return SeatedExecutor(config, seat, finish=leave)


class RayHost:
    """The Ray actor: a host, built by `begin` so that an error of what builds it is an answer and keeps its type."""

    def __init__(self) -> None:
        self._host: Host | None = None

    def begin(self, start: bytes) -> bytes:
        with Answer() as answer:
            self._host = pickle.loads(start)()
            if "torch" in sys.modules:
                sys.modules["torch"].set_num_threads(1)
            answer.give(None)
        return answer.payload

    def look(self) -> Reply:
        assert self._host is not None
        return self._host.look()

    def ask(self, request: bytes) -> Reply:
        assert self._host is not None
        return self._host.ask(request)


class RaySeat:
    """A Ray actor.

    Args:
        patience_seconds: how long Ray may take to find room for it and to build it.
    """

    def __init__(self, ray: Any, name: str, start: Callable[[], Host], resources: Resources, patience_seconds: float) -> None:
        self._ray, self._name, self._resources, self._patience = ray, name, resources, patience_seconds
        self._start = pickled(start, f"what builds actor {name!r}")
        self._actor: Any = None

    async def fill(self) -> None:
        await self.empty()
        options = {"num_cpus": self._resources.cpus, "num_gpus": self._resources.gpus, "max_restarts": 0, "max_task_retries": 0}
        self._actor = self._ray.remote(RayHost).options(**options).remote()
        try:
            answer = await asyncio.wait_for(self._done(self._actor.begin.remote(self._start)), self._patience)
        except TimeoutError:
            await self.empty()
            raise ConfigError(
                f"Ray has not placed and built actor {self._name!r} within {self._patience:g} s; it needs {self._resources}, "
                f"free are {self._ray.available_resources()}",
                hint="lower learn.runtime.cpus_per_actor or gpus_per_actor, add machines, or raise learn.runtime.start_seconds",
            ) from None
        fine, value = opened(answer)
        if not fine:
            await self.empty()
            raise value

    async def ask(self, request: bytes) -> Reply:
        reply: Reply = await self._done(self._living().ask.remote(request))
        return reply

    async def look(self) -> Reply:
        reply: Reply = await self._done(self._living().look.remote())
        return reply

    def kill(self) -> bool:
        if self._actor is not None:
            self._ray.kill(self._actor)
        return True

    async def empty(self) -> None:
        self.kill()
        self._actor = None

    def _living(self) -> Any:
        if self._actor is None:
            raise WorkerDiedError(f"the Ray actor {self._name!r} is not there")
        return self._actor

    async def _done(self, reference: Awaitable[Any]) -> Any:
        try:
            return await reference
        except deaths(self._ray) as error:
            raise WorkerDiedError(
                f"the Ray actor {self._name!r} died: {first_words(error)}", hint="SIGKILL is often the kernel short of memory"
            ) from error


def first_words(error: BaseException) -> str:
    """What Ray says of a death, without the advice that follows."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = next((line for line in lines if line.startswith("The actor is dead because")), lines[0] if lines else "")
    return told.partition(" Some common causes")[0]
