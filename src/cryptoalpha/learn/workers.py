"""Doing the same task on many items: in this process, or in worker processes of this machine.

One protocol, `Workers`: `map` gives results in the order of the items, so who computed what can never be seen in a result. A worker keeps a
state that is built once, where it lives (a model, a dataset); what travels afterwards is only the task's name, one item and one result.

Promises:
- 1 = k: `map` returns the same list for one worker or many, if the task depends only on its item and on a state that all workers share.
- An error of the task is raised here with its own type and the worker's traceback. Of several, it is the error of the first item that
  failed, which is the one that a single worker would have raised.
- A worker that dies (killed, out of memory, a crash in native code) ends the call with `WorkerDiedError` naming the item. Nothing hangs;
  `outlive` goes on with new workers where that is allowed.
- Leaving the `with` block stops every process, also after Ctrl-C; if this process is killed itself, its workers end with it.

Each worker process is spawned, not forked (torch and its threads do not survive a fork), and computes on one thread. Values travel as plain
pickles between processes that trust each other: copied, never shared, so that no worker can change what another one sees.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import TracebackType
from typing import Any, Generic, NoReturn, Protocol, Self, TypeVar

from cryptoalpha.core.errors import ConfigError, WorkerDiedError
from cryptoalpha.learn.travel import Answer, opened, pickled, short

S = TypeVar("S")
S_co = TypeVar("S_co", covariant=True)
I = TypeVar("I")  # noqa: E741 - an item
R = TypeVar("R")

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
"""What a worker finds in its environment, before it imports anything."""

PATIENCE_SECONDS = 5.0
"""How long a worker that was told to stop may take before it is killed."""

SECONDS_BETWEEN_LOOKS = 0.5
"""How often to ask whether a worker that says nothing is still alive; one whose pipe closes is noticed at once."""


class Workers(Protocol[S_co]):
    """Those who do a task on items, each with a state of its own that was built where it lives."""

    @property
    def count(self) -> int:
        """How many work at the same time."""
        ...

    def map(self, task: Callable[[S_co, I], R], items: Sequence[I]) -> list[R]:
        """`task(state, item)` for each item; results in the order of the items. Any worker may get any item.

        Raises:
            WorkerDiedError: if a worker ended without an answer.
            ConfigError: if the task or an item cannot be sent to another process, or the workers have stopped.
            The task's own error, the first in the order of the items.
        """
        ...

    def each(self, task: Callable[[S_co, I], R], item: I) -> list[R]:
        """`task(state, item)` once in every worker, to change the state they share; one result per worker. Raises like `map`."""
        ...

    def revive(self) -> bool:
        """After a `WorkerDiedError`: put new workers in the place of all, each with a state as at the start. False where that may not be
        done, or not again."""
        ...


def outlive(workers: Workers[S], ask: Callable[[], R], *, prepare: Callable[[], object]) -> R:
    """`ask()`, which uses the workers; where they die and can be replaced, `prepare()` gives the new ones their state and `ask()` is called
    again. So nothing that `ask` does may count twice.

    Raises:
        WorkerDiedError: once the workers are not replaced any more.
        What `ask` and `prepare` raise.
    """
    have_died = False
    while True:
        try:
            if have_died:
                prepare()
            return ask()
        except WorkerDiedError:
            if not workers.revive():
                raise
            have_died = True


class InProcess(Generic[S]):
    """The same protocol without any process: one worker, this one. `start` builds its state at once."""

    def __init__(self, start: Callable[[], S]) -> None:
        self._state = start()

    @property
    def count(self) -> int:
        return 1

    def map(self, task: Callable[[S, I], R], items: Sequence[I]) -> list[R]:
        return [task(self._state, item) for item in items]

    def each(self, task: Callable[[S, I], R], item: I) -> list[R]:
        return [task(self._state, item)]

    def revive(self) -> bool:
        """There is nobody who could have died."""
        return False

    def close(self) -> None:
        """Nothing to stop."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class LocalProcesses(Generic[S]):
    """Worker processes on this machine, alive from construction to `close` (or the end of the `with` block).

    Args:
        count: processes, ≥ 1; more than cores brings nothing.
        start: builds a worker's state, once in each process; a function of an importable module, or a `functools.partial` of one.
        restarts: how often `revive` replaces processes that died.

    Raises:
        ConfigError: if `count` is not positive or `start` cannot be sent to another process.
        WorkerDiedError: if a worker ended while it started.
        The error of `start` itself, with the worker's traceback.
    """

    def __init__(self, count: int, start: Callable[[], S], *, restarts: int = 0) -> None:
        if count < 1:
            raise ConfigError(f"{count} worker processes were asked for; at least 1 is needed")
        self._start, self._count, self._restarts = pickled(start, "what starts a worker"), count, restarts
        self._processes: list[SpawnProcess] = []
        self._pipes: list[Connection] = []
        self._fill()

    @property
    def count(self) -> int:
        return len(self._processes)

    @property
    def pids(self) -> list[int | None]:
        """The kernel's number of each process."""
        return [process.pid for process in self._processes]

    def map(self, task: Callable[[S, I], R], items: Sequence[I]) -> list[R]:
        self._check_open()
        pickled(task, "the task")  # a lambda is refused before any item has been worked on
        queue: deque[tuple[int, object]] = deque((place, (task, item)) for place, item in enumerate(items))
        return self._exchange([queue] * self.count, "working on")

    def each(self, task: Callable[[S, I], R], item: I) -> list[R]:
        self._check_open()
        pickled((task, item), "the task or its item")
        return self._exchange([deque([(number, (task, item))]) for number in range(self.count)], "working on")

    def revive(self) -> bool:
        if self._restarts == 0:
            return False
        self._restarts -= 1
        self._stop(patience=0.0)
        self._fill()
        return True

    def close(self) -> None:
        """Stop every process, for good; those that do not end by themselves within seconds are killed."""
        self._restarts = 0
        self._stop(patience=PATIENCE_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop(patience=PATIENCE_SECONDS if error is None else 0.0)

    def _fill(self) -> None:
        try:
            for number in range(self._count):
                self._spawn(number, self._start)
            self._exchange([deque([(number, b"")]) for number in range(self._count)], "while it started")
        except BaseException:
            self._stop(patience=0.0)
            raise

    def _spawn(self, number: int, start: bytes) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        try:
            process = context.Process(target=_work, args=(theirs, start), name=f"worker {number}", daemon=True)
            with _environment(ONE_THREAD):
                process.start()
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()  # the worker holds the only other end: when it dies, ours reads the end of the stream
        self._processes.append(process)
        self._pipes.append(ours)

    def _exchange(self, queues: list[deque[tuple[int, object]]], doing: str) -> list[Any]:
        """Hand out what is queued, one message per worker at a time, until all answers are in. Anything unforeseen stops all workers."""
        results: dict[int, Any] = {}
        failures: dict[int, BaseException] = {}
        busy: dict[int, tuple[int, object]] = {}
        try:
            for worker in range(len(self._pipes)):
                self._hand_out(worker, queues[worker], busy, failures, doing)
            while busy:
                for worker in self._ready(busy):
                    place, fine, value = self._receive(worker, busy, doing)
                    (results if fine else failures)[place] = value
                    self._hand_out(worker, queues[worker], busy, failures, doing)
        except BaseException:
            self._stop(patience=0.0)
            raise
        if failures:
            raise failures[min(failures)]
        return [results[place] for place in sorted(results)]

    def _ready(self, busy: Iterable[int]) -> list[int]:
        """The busy workers that have answered or ended; waits for one.

        A process may end with its pipe, and its sentinel too, still held by a child that it forked: only asking the kernel now and then
        finds that out.
        """
        pipes = {self._pipes[worker]: worker for worker in busy}
        while True:
            if answered := wait(list(pipes), SECONDS_BETWEEN_LOOKS):
                return sorted(pipes[pipe] for pipe in answered)  # type: ignore[index]
            if ended := sorted(worker for worker in busy if not self._processes[worker].is_alive()):
                return ended

    def _hand_out(
        self,
        worker: int,
        queue: deque[tuple[int, object]],
        busy: dict[int, tuple[int, object]],
        failures: dict[int, BaseException],
        doing: str,
    ) -> None:
        # Items leave in order, so all before the first failure are out already; those after it are not worth starting.
        if not queue or failures:
            return
        place, message = queue.popleft()
        try:
            payload = message if isinstance(message, bytes) else pickled(message, f"item {place}")
        except ConfigError as error:
            failures[place] = error
            return
        busy[worker] = (place, message)
        if payload:
            try:
                self._pipes[worker].send_bytes(payload)
            except OSError:
                self._report_death(worker, busy, doing)

    def _receive(self, worker: int, busy: dict[int, tuple[int, object]], doing: str) -> tuple[int, bool, Any]:
        try:
            if not self._pipes[worker].poll() and not self._processes[worker].is_alive():
                self._report_death(worker, busy, doing)
            answer = self._pipes[worker].recv_bytes()
        except (EOFError, OSError):
            self._report_death(worker, busy, doing)
        fine, value = opened(answer)
        place, _ = busy.pop(worker)
        return place, fine, value

    def _report_death(self, worker: int, busy: dict[int, tuple[int, object]], doing: str) -> NoReturn:
        place, message = busy[worker]
        process = self._processes[worker]
        if process.is_alive():
            process.join(PATIENCE_SECONDS)
        code = process.exitcode
        how = "lost its connection" if code is None else f"was ended by {_signal(-code)}" if code < 0 else f"ended with code {code}"
        what = f"{doing} item {place}, {short(message[1])}" if isinstance(message, tuple) else doing
        raise WorkerDiedError(
            f"worker {worker} (process {process.pid}) {how} {what}; the other workers were stopped too",
            hint="SIGKILL is often the kernel short of memory: use fewer workers" if code == -signal.SIGKILL else "",
        ) from None

    def _check_open(self) -> None:
        if not self._processes:
            raise ConfigError("the workers have stopped and take no more tasks", hint="make new ones")

    def _stop(self, patience: float) -> None:
        for pipe in self._pipes:
            pipe.close()  # a worker that waits for a message reads the end of the stream and ends
        deadline = time.monotonic() + patience
        for process in self._processes:
            process.join(max(deadline - time.monotonic(), 0.0))
            process.terminate()
        for process in self._processes:
            process.join(PATIENCE_SECONDS)
            process.kill()
            process.join()
            process.close()
        self._pipes, self._processes = [], []


def _work(pipe: Connection, start: bytes) -> None:
    """The life of a worker: build the state, answer messages until the stream ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal; who stops a worker is its parent
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    try:
        with Answer() as answer:
            state = pickle.loads(start)()
            if "torch" in sys.modules:
                sys.modules["torch"].set_num_threads(1)
            answer.give(None)
        pipe.send_bytes(answer.payload)
        while True:
            message = pipe.recv_bytes()
            with Answer() as answer:
                task, item = pickle.loads(message)
                answer.give(task(state, item))
            pipe.send_bytes(answer.payload)
    except (EOFError, OSError):
        return  # the parent has gone, or wants no more


def _end_with_the_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


_STARTING = threading.Lock()


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """`values` in the environment of processes started inside; this process's own variables come back afterwards."""
    with _STARTING:
        before = {name: os.environ.get(name) for name in values}
        os.environ.update(values)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
