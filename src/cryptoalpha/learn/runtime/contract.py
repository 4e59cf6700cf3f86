"""What an executor promises, wherever its actors live.

An actor is a state that is built once where it lives (an agent with its windows, a model, a replica) and is called by name. Promises:

- One call at a time per actor, in the order in which they were asked; different actors work side by side.
- An actor that dies is built anew and its call made again: at least once. A call with a `call_id` that the living actor has answered before
  gets that answer and is not done again, so repeats are harmless while the actor lives. Across a death the state is what `build` makes:
  whoever must not act twice keeps the ids of what was handled beside the effect, outside the actor (`data.bus` has such an inbox).
- An error of the task is raised here with its own type; it does not count as a death and nothing is repeated.
- `build` and `task` are functions of importable modules (or a `functools.partial` of one); items and answers can be pickled. A task may
  be a coroutine function; it has ended before the next call begins.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Protocol, Self, TypeVar, overload

I = TypeVar("I")  # noqa: E741 - an item
R = TypeVar("R")


@dataclass(frozen=True)
class Resources:
    """What is set aside for one actor on a cluster; threads and processes of this machine share what there is."""

    cpus: float
    gpus: float = 0.0


@dataclass(frozen=True)
class ActorHealth:
    """How one actor is doing."""

    name: str
    state: Literal["ready", "busy", "dead"]
    """`dead` will be built anew at its next call."""
    restarts: int
    """Times it was built anew."""
    calls: int
    """Calls answered."""
    repeated: int
    """Of these, answered from memory."""
    waiting: int
    """Calls that were asked and not answered yet."""
    seconds: float
    """What the last answered call took, the way there and back included."""
    process: int
    """The kernel's number of its process, on the machine it lives on."""
    machine: str
    memory_mib: float
    """Resident memory of that process; a thread's is that of the whole run."""


class Executor(Protocol):
    """Keeps actors. An asynchronous context manager; leaving it stops all of them."""

    async def spawn(self, name: str, build: Callable[[], Any], *, resources: Resources | None = None) -> None:
        """Start an actor whose state is `build()`; returns when it is built.

        Raises:
            ConfigError: if the name is taken or `build` cannot be sent.
            WorkerDiedError: if it cannot be started.
            The error of `build` itself.
        """
        ...

    @overload
    async def call(self, name: str, task: Callable[[Any, I], Coroutine[Any, Any, R]], item: I, *, call_id: str = "") -> R: ...

    @overload
    async def call(self, name: str, task: Callable[[Any, I], R], item: I, *, call_id: str = "") -> R: ...

    async def call(self, name: str, task: Callable[[Any, I], Any], item: I, *, call_id: str = "") -> Any:
        """`task(state, item)` where that actor lives.

        Raises:
            ConfigError: if there is no such actor, or task or item cannot be sent.
            WorkerDiedError: if the actor died over it more often than the settings allow. The actor is built anew for the next call.
            The task's own error.
        """
        ...

    async def stop(self, name: str) -> None:
        """End an actor, after the calls that were asked before. One that is not there is fine."""
        ...

    async def health(self) -> Sequence[ActorHealth]:
        """All actors, in the order of their names. Those that are idle are asked; nobody waits long for an answer."""
        ...

    async def close(self) -> None:
        """End all actors, and what they lived in if it was started here."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...
