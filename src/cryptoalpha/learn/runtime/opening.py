"""From settings to executors and workers: the one place that reads `backend`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeVar

from cryptoalpha.learn.config import RuntimeConfig
from cryptoalpha.learn.runtime.contract import Executor
from cryptoalpha.learn.runtime.local import ProcessSeat, ThreadSeat
from cryptoalpha.learn.runtime.seated import SeatedExecutor
from cryptoalpha.learn.workers import InProcess, LocalProcesses, Workers

S = TypeVar("S")


def open_executor(config: RuntimeConfig) -> Executor:
    """An executor as the settings say; use it in `async with`.

    Raises:
        ConfigError: if Ray is wanted and not installed, or its settings are wrong.
        VenueError: if the Ray cluster cannot be reached.
    """
    if config.backend == "local":
        return SeatedExecutor(config, ProcessSeat if config.processes else ThreadSeat)
    from cryptoalpha.learn.runtime.ray_seats import open_ray_executor

    return open_ray_executor(config)


def open_workers(config: RuntimeConfig, count: int, start: Callable[[], S]) -> AbstractContextManager[Workers[S]]:
    """Workers for `evolve`, self-play and expert iteration, as the settings say: this process for a count of 1, else so many processes of
    this machine, or actors of a Ray cluster. Results do not depend on which.

    Raises:
        ConfigError | VenueError: like `open_executor`; also for a count below 1.
        The error of `start`.
    """
    if config.backend == "ray":
        from cryptoalpha.learn.runtime.ray_workers import RayWorkers

        return RayWorkers(config, count, start)
    return InProcess(start) if count == 1 else LocalProcesses(count, start, restarts=config.restarts)
