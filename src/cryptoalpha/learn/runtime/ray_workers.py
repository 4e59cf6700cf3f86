"""The workers of `learn.workers` on a Ray cluster: the same lists, the same errors, on many machines.

One item at a time per worker, handed out in order, so results depend on nothing but the items. What travels is what travels between local
processes, through the same `learn.travel`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from cryptoalpha.core.errors import ConfigError, WorkerDiedError
from cryptoalpha.learn.config import RuntimeConfig
from cryptoalpha.learn.runtime.host import hosting
from cryptoalpha.learn.runtime.ray_cluster import deaths, join_cluster, load_ray
from cryptoalpha.learn.runtime.ray_seats import RayHost, first_words
from cryptoalpha.learn.travel import opened, pickled, short

S = TypeVar("S")
I = TypeVar("I")  # noqa: E741 - an item
R = TypeVar("R")

Queue = deque[tuple[int, tuple[Callable[..., Any], Any]]]
"""Items by place: (place, (task, item))."""


class RayWorkers(Generic[S]):
    """Satisfies `learn.workers.Workers`; alive from construction to `close` (or the end of the `with` block).

    Args:
        count: actors, ≥ 1.
        start: builds a worker's state, once in each.

    Raises:
        ConfigError: if `count` is not positive, `start` cannot be sent, Ray is not installed or has no room.
        VenueError: if the cluster cannot be reached.
        WorkerDiedError: if a worker ended while it started.
        The error of `start` itself.
    """

    def __init__(self, config: RuntimeConfig, count: int, start: Callable[[], S]) -> None:
        if count < 1:
            raise ConfigError(f"{count} workers were asked for; at least 1 is needed")
        self._config, self._count, self._left = config, count, config.restarts
        self._is_closed = False
        self._start = pickled(hosting(start, 1), "what starts a worker")
        self._leave = join_cluster(config)
        self._ray = load_ray()
        self._actors: list[Any] = []
        try:
            self._fill()
        except BaseException:
            self.close()
            raise

    @property
    def count(self) -> int:
        return len(self._actors)

    def map(self, task: Callable[[S, I], R], items: Sequence[I]) -> list[R]:
        """See `Workers.map`."""
        self._check_open()
        pickled(task, "the task")
        queue: Queue = deque((place, (task, item)) for place, item in enumerate(items))
        return self._exchange([queue] * self.count)

    def each(self, task: Callable[[S, I], R], item: I) -> list[R]:
        """See `Workers.each`."""
        self._check_open()
        pickled((task, item), "the task or its item")
        return self._exchange([deque([(number, (task, item))]) for number in range(self.count)])

    def close(self) -> None:
        """End every worker, and the Ray that was started for them."""
        if not self._is_closed:
            self._is_closed = True
            self._kill()
            self._leave()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def revive(self) -> bool:
        """See `Workers.revive`; as often as `learn.runtime.restarts` says."""
        if self._is_closed or self._left == 0:
            return False
        self._left -= 1
        self._kill()
        self._fill()
        return True

    def _fill(self) -> None:
        options = {"num_cpus": self._config.cpus_per_actor, "num_gpus": self._config.gpus_per_actor}
        kind = self._ray.remote(RayHost).options(max_restarts=0, max_task_retries=0, **options)
        self._actors = [kind.remote() for _ in range(self._count)]
        beginning = [actor.begin.remote(self._start) for actor in self._actors]
        ready, missing = self._ray.wait(beginning, num_returns=self._count, timeout=self._config.start_seconds)
        if missing:
            self._kill()
            raise ConfigError(
                f"Ray has placed and built {len(ready)} of {self._count} workers within {self._config.start_seconds:g} s; "
                f"each needs {options}, free are {self._ray.available_resources()}",
                hint="lower learn.runtime.cpus_per_actor or gpus_per_actor, ask for fewer workers, or add machines",
            )
        for number, reference in enumerate(beginning):
            fine, value = opened(self._get(reference, number, "while it started"))
            if not fine:
                raise value

    def _exchange(self, queues: list[Queue]) -> list[Any]:
        """Hand out what is queued, one item per worker at a time, until all answers are in. Anything unforeseen stops all workers."""
        results: dict[int, Any] = {}
        failures: dict[int, BaseException] = {}
        busy: dict[Any, tuple[int, int, object]] = {}
        try:
            for worker in range(self.count):
                self._hand_out(worker, queues[worker], busy, failures)
            while busy:
                answered, _ = self._ray.wait(list(busy), num_returns=1)
                for reference in answered:
                    worker, place, message = busy.pop(reference)
                    reply = self._get(reference, worker, f"working on item {place}, {short(message)}")
                    fine, value = opened(reply.payload)
                    (results if fine else failures)[place] = value
                    self._hand_out(worker, queues[worker], busy, failures)
        except BaseException:
            self._kill()
            raise
        if failures:
            raise failures[min(failures)]
        return [results[place] for place in sorted(results)]

    def _hand_out(
        self,
        worker: int,
        queue: Queue,
        busy: dict[Any, tuple[int, int, object]],
        failures: dict[int, BaseException],
    ) -> None:
        # Items leave in order, so all before the first failure are out already; those after it are not worth starting.
        if not queue or failures:
            return
        place, (task, item) = queue.popleft()
        try:
            request = pickled(("", task, item), f"item {place}")
        except ConfigError as error:
            failures[place] = error
            return
        busy[self._actors[worker].ask.remote(request)] = (worker, place, item)

    def _get(self, reference: Any, worker: int, doing: str) -> Any:
        try:
            return self._ray.get(reference)
        except deaths(self._ray) as error:
            raise WorkerDiedError(f"Ray worker {worker} died {doing}: {first_words(error)}; the other workers were stopped too") from error

    def _check_open(self) -> None:
        if not self._actors:
            raise ConfigError("the workers have stopped and take no more tasks", hint="make new ones")

    def _kill(self) -> None:
        for actor in self._actors:
            self._ray.kill(actor)
        self._actors = []
