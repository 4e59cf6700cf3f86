"""The executor: names, order, restarts and repeats, for actors that sit anywhere.

A `Seat` is where one actor lives and knows only how to be asked, filled again and emptied; all that `contract.Executor` promises beyond
that is here, once, so a thread, a process and a Ray actor cannot differ in it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from cryptoalpha.core.backoff import Backoff
from cryptoalpha.core.errors import ConfigError, WorkerDiedError
from cryptoalpha.core.seeds import stream
from cryptoalpha.learn.config import RuntimeConfig
from cryptoalpha.learn.runtime.contract import ActorHealth, Resources
from cryptoalpha.learn.runtime.host import Host, Reply, hosting
from cryptoalpha.learn.travel import opened, pickled

I = TypeVar("I")  # noqa: E741 - an item

LONGEST_RESTART = 100.0
"""The longest wait before a restart, in first waits."""

LOOK_SECONDS = 1.0
"""How long an idle actor may take to say how it is before it is reported as it was."""


class Seat(Protocol):
    """Where one actor lives. Used by one task at a time, but for `kill`."""

    async def fill(self) -> None:
        """Build the actor, after whatever was left of the one before has ended.

        Raises:
            WorkerDiedError: if it died while it started.
            ConfigError: if there is no room for it.
            The error of what builds it.
        """
        ...

    async def ask(self, request: bytes) -> Reply:
        """Let it answer a pickled `host.Request`.

        Raises:
            WorkerDiedError: if it died, or was dead already.
        """
        ...

    async def look(self) -> Reply:
        """How it is; raises like `ask`."""
        ...

    def kill(self) -> bool:
        """End it at once, whatever it does; False where that cannot be done."""
        ...

    async def empty(self) -> None:
        """End it."""
        ...


@dataclass
class _Actor:
    seat: Seat
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held over a call and its repeats: first asked, first answered."""
    last: Reply | None = None
    is_dead: bool = False
    restarts: int = 0
    calls: int = 0
    repeated: int = 0
    waiting: int = 0
    seconds: float = 0.0


class SeatedExecutor:
    """Satisfies `contract.Executor`.

    Args:
        seat: makes an empty seat for a name, what starts its host, and its resources.
        finish: called once everything has been emptied.
        sleep: waits so many seconds.
    """

    def __init__(
        self,
        config: RuntimeConfig,
        seat: Callable[[str, Callable[[], Host], Resources], Seat],
        *,
        finish: Callable[[], None] = lambda: None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._config, self._seat, self._finish, self._sleep = config, seat, finish, sleep
        self._actors: dict[str, _Actor] = {}
        self._starting: set[str] = set()
        self._is_closed = False

    async def spawn(self, name: str, build: Callable[[], Any], *, resources: Resources | None = None) -> None:
        """See `contract.Executor.spawn`."""
        if self._is_closed:
            raise ConfigError(f"actor {name!r} cannot start: the executor is closed")
        if name in self._actors or name in self._starting:
            raise ConfigError(f"there is an actor {name!r} already", hint="stop it first, or choose another name")
        start = hosting(build, self._config.remembered_calls)
        pickled(start, f"what builds actor {name!r}")
        wanted = resources or Resources(self._config.cpus_per_actor, self._config.gpus_per_actor)
        seat = self._seat(name, start, wanted)
        self._starting.add(name)
        try:
            await seat.fill()
            actor = _Actor(seat)
            actor.last = await seat.look()
        except BaseException:
            await seat.empty()
            raise
        finally:
            self._starting.discard(name)
        self._actors[name] = actor

    async def call(self, name: str, task: Callable[[Any, I], Any], item: I, *, call_id: str = "") -> Any:
        """See `contract.Executor.call`."""
        actor = self._find(name)
        request = pickled((call_id, task, item), f"what actor {name!r} was asked")
        async with self._turn(actor):
            if self._actors.get(name) is not actor:
                raise ConfigError(f"actor {name!r} was stopped before it could answer")
            began = time.monotonic()
            reply = await self._answered(name, actor, request)
            actor.seconds = time.monotonic() - began
            actor.calls += 1
            actor.repeated += reply.repeated
        fine, value = opened(reply.payload)
        if not fine:
            raise value
        return value

    async def stop(self, name: str) -> None:
        """See `contract.Executor.stop`."""
        actor = self._actors.get(name)
        if actor is None:
            return
        async with actor.turn:
            if self._actors.get(name) is actor:
                del self._actors[name]
                await actor.seat.empty()

    async def health(self) -> list[ActorHealth]:
        """See `contract.Executor.health`."""
        names = sorted(self._actors)
        return list(await asyncio.gather(*(self._look(name, self._actors[name]) for name in names)))

    async def close(self) -> None:
        """End all actors at once; calls under way end with an error."""
        if self._is_closed:
            return
        self._is_closed = True
        actors, self._actors = self._actors, {}
        try:
            for actor in actors.values():
                if actor.turn.locked():
                    actor.seat.kill()
            await asyncio.gather(*(actor.seat.empty() for actor in actors.values()))
        finally:
            self._finish()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    def _find(self, name: str) -> _Actor:
        actor = self._actors.get(name)
        if actor is None:
            raise ConfigError(f"there is no actor {name!r}", hint=f"known: {', '.join(sorted(self._actors)) or 'none'}")
        return actor

    @asynccontextmanager
    async def _turn(self, actor: _Actor) -> AsyncIterator[None]:
        actor.waiting += 1
        try:
            async with actor.turn:
                yield
        finally:
            actor.waiting -= 1

    async def _answered(self, name: str, actor: _Actor, request: bytes) -> Reply:
        """Ask, and build anew and ask again while the actor dies over it."""
        waits = Backoff(
            self._config.restart_seconds, LONGEST_RESTART * self._config.restart_seconds, random=stream(0, "runtime", name, actor.restarts)
        )
        while True:
            try:
                if actor.is_dead:
                    await actor.seat.fill()
                    actor.is_dead = False
                    actor.restarts += 1
                reply = await asyncio.wait_for(actor.seat.ask(request), self._config.call_seconds)
                actor.last = reply
                return reply
            except TimeoutError:
                error = self._too_slow(name, actor.seat.kill())
            except WorkerDiedError as died:
                error = died
            actor.is_dead = True
            if self._is_closed or waits.failures >= self._config.restarts:
                raise WorkerDiedError(
                    f"actor {name!r} died {waits.failures + 1} times over one call; the last time: {error}",
                    hint=error.hint or "look at what it was asked; raise learn.runtime.restarts where machines come and go",
                ) from error
            await self._sleep(waits.wait())

    def _too_slow(self, name: str, killed: bool) -> WorkerDiedError:
        """Why an actor that did not answer in time counts as dead. One that cannot be killed does not: its call has failed, that is all."""
        what, raised = f"actor {name!r} did not answer within {self._config.call_seconds:g} s", "raise learn.runtime.call_seconds"
        if killed:
            return WorkerDiedError(what, hint=raised)
        raise WorkerDiedError(f"{what}, and its thread cannot be killed", hint=f"{raised}, or set learn.runtime.processes")

    async def _look(self, name: str, actor: _Actor) -> ActorHealth:
        if not actor.turn.locked() and not actor.is_dead:
            async with actor.turn:
                try:
                    actor.last = await asyncio.wait_for(actor.seat.look(), LOOK_SECONDS)
                except WorkerDiedError:
                    actor.is_dead = True
                except TimeoutError:
                    pass
        last = actor.last
        assert last is not None
        return ActorHealth(
            name=name,
            state="dead" if actor.is_dead else "busy" if actor.turn.locked() else "ready",
            restarts=actor.restarts,
            calls=actor.calls,
            repeated=actor.repeated,
            waiting=actor.waiting,
            seconds=actor.seconds,
            process=last.process,
            machine=last.machine,
            memory_mib=last.memory_mib,
        )
