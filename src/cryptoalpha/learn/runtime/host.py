"""What runs where an actor lives, the same in a thread, a process and on Ray: the state, and the newest answers by the id of their call.

A task may be a coroutine function: it runs to its end, on an event loop of the host's own, before the next call begins. Only answers are
remembered, not errors: who repeats a call that failed wants another try.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import pickle
import socket
import uuid
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cryptoalpha.learn.travel import Answer

REMEMBERED_MIB = 64
"""Answers of more than this together are forgotten, oldest first, whatever their number."""

Request = tuple[str, Callable[[Any, Any], Any], Any]
"""(id of the call or "", task, item)."""


@dataclass(frozen=True)
class Reply:
    """An answer and who gave it."""

    payload: bytes
    """For `travel.opened`; empty after a mere look."""
    repeated: bool
    life: str
    """A new one each time the actor is built."""
    process: int
    machine: str
    memory_mib: float
    """NaN but after a look."""


class Host:
    """One actor's state where it lives.

    Args:
        build: makes the state; called at once.
        remembered: how many answers to keep.

    Raises:
        What `build` raises.
    """

    def __init__(self, build: Callable[[], Any], remembered: int) -> None:
        self._state = build()
        self._remembered = remembered
        self._answers: OrderedDict[str, bytes] = OrderedDict()
        self._bytes = 0
        self._runner: asyncio.Runner | None = None
        self._life = uuid.uuid4().hex

    def look(self) -> Reply:
        """Who is here; does nothing."""
        return self._reply(b"", repeated=False, memory_mib=resident_mib())

    def ask(self, request: bytes) -> Reply:
        """Answer a pickled `Request`; an error of the task is an answer too."""
        with Answer() as answer:
            call_id, task, item = pickle.loads(request)
            known = self._answers.get(call_id)
            if known is not None:
                return self._reply(known, repeated=True)
            value = task(self._state, item)
            answer.give(self._awaited(value) if inspect.iscoroutine(value) else value)
            if call_id:
                self._remember(call_id, answer.payload)
        return self._reply(answer.payload, repeated=False)

    def close(self) -> None:
        """Close the event loop, where the host's end does not end the process."""
        if self._runner is not None:
            self._runner.close()
            self._runner = None

    def _awaited(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        if self._runner is None:
            self._runner = asyncio.Runner()  # kept: what the state has bound to a loop stays on it
        return self._runner.run(coroutine)

    def _remember(self, call_id: str, payload: bytes) -> None:
        self._answers[call_id] = payload
        self._bytes += len(payload)
        while len(self._answers) > self._remembered or (self._bytes > REMEMBERED_MIB * 2**20 and len(self._answers) > 1):
            _, forgotten = self._answers.popitem(last=False)
            self._bytes -= len(forgotten)

    def _reply(self, payload: bytes, *, repeated: bool, memory_mib: float = float("nan")) -> Reply:
        return Reply(payload, repeated, self._life, os.getpid(), socket.gethostname(), memory_mib)


def hosting(build: Callable[[], Any], remembered: int) -> Callable[[], Host]:
    """What starts a host somewhere else; can be pickled if `build` can."""
    return partial(Host, build, remembered)


def look(host: Host, _: None) -> Reply:
    """`Host.look` as a task."""
    return host.look()


def ask(host: Host, request: bytes) -> Reply:
    """`Host.ask` as a task."""
    return host.ask(request)


def resident_mib() -> float:
    """Resident memory of this process; NaN where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return float("nan")
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
