"""Actors on this machine: in a thread each, or in a process each.

A thread costs nothing and shares the run's fate: native code that crashes ends both. A process is one of `learn.workers`, spawned and on
one thread of computation; it ends with the run.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TypeVar

from cryptoalpha.core.errors import WorkerDiedError
from cryptoalpha.learn.runtime.contract import Resources
from cryptoalpha.learn.runtime.host import Host, Reply, ask, look
from cryptoalpha.learn.workers import LocalProcesses

R = TypeVar("R")


class ThreadSeat:
    """A thread of this process. Its actor dies only when a task ends its thread (`sys.exit`)."""

    def __init__(self, name: str, start: Callable[[], Host], resources: Resources) -> None:
        self._name, self._start = name, start
        self._thread: ThreadPoolExecutor | None = None
        self._host: Host | None = None

    async def fill(self) -> None:
        await self.empty()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"actor {self._name}")
        self._host = await self._run(self._start)

    async def ask(self, request: bytes) -> Reply:
        return await self._run(partial(self._living().ask, request))

    async def look(self) -> Reply:
        return await self._run(self._living().look)

    def kill(self) -> bool:
        return False

    async def empty(self) -> None:
        """A task that is still at work is left to end by itself."""
        thread, host, self._thread, self._host = self._thread, self._host, None, None
        if thread is not None:
            if host is not None:
                thread.submit(host.close)
            thread.shutdown(wait=False)

    def _living(self) -> Host:
        if self._host is None:
            raise WorkerDiedError(f"actor {self._name!r} is not there")
        return self._host

    async def _run(self, what: Callable[[], R]) -> R:
        assert self._thread is not None
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, _without_exit, what)
        except _Left as error:
            host, self._host = self._host, None
            if host is not None:
                self._thread.submit(host.close)
            raise WorkerDiedError(f"the thread of actor {self._name!r} ended with code {error.args[0]}") from None


class _Left(Exception):  # noqa: N818 - it never leaves this module
    """A task has called `sys.exit`; in a future, SystemExit itself would end the event loop."""


def _without_exit(what: Callable[[], R]) -> R:
    try:
        return what()
    except SystemExit as error:
        raise _Left(error.code) from None


class ProcessSeat:
    """A process of this machine."""

    def __init__(self, name: str, start: Callable[[], Host], resources: Resources) -> None:
        self._name, self._start = name, start
        # One thread alone talks to the process: whoever was cancelled while it answers leaves the pipe in order.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"speaks to actor {name}")
        self._process: LocalProcesses[Host] | None = None

    async def fill(self) -> None:
        await self._run(self._replace)

    async def ask(self, request: bytes) -> Reply:
        return await self._run(partial(self._tell, ask, request))

    async def look(self) -> Reply:
        return await self._run(partial(self._tell, look, None))

    def kill(self) -> bool:
        process = self._process
        if process is not None:
            for number in process.pids:
                if number is not None:
                    with suppress(ProcessLookupError, ValueError):
                        os.kill(number, signal.SIGKILL)
        return True

    async def empty(self) -> None:
        await self._run(self._end)
        self._thread.shutdown()

    def _replace(self) -> None:
        self._end()
        self._process = LocalProcesses(1, self._start)

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.close()

    def _tell(self, task: Callable[[Host, R], Reply], item: R) -> Reply:
        if self._process is None or not self._process.pids:
            raise WorkerDiedError(f"the process of actor {self._name!r} is not there")
        try:
            (reply,) = self._process.map(task, [item])
        except WorkerDiedError:
            self._end()
            raise
        return reply

    async def _run(self, what: Callable[[], R]) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._thread, what)
