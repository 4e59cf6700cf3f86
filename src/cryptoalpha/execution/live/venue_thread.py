"""The thread in which the venue is spoken to: one asyncio loop, one courier, nothing shared but calls.

Everything about orders at the venue happens here, so it needs no locks. The engine's thread hands over calls and, where it needs an
answer, waits for it with a time limit. Whatever ends the thread is raised in the engine's thread at its next call: a run never goes on
with nobody looking after its orders.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import traceback
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import TimeoutError as NotYetError
from typing import Any, Protocol, TypeVar

from cryptoalpha.core.errors import CryptoAlphaError, VenueError

T = TypeVar("T")
_SLICE_SECONDS = 0.05
_LOGGER = logging.getLogger(__name__)


class Inhabitant(Protocol):
    """What lives in the thread. It is made there, because its database connection belongs to the thread."""

    async def start(self) -> None: ...

    async def failure(self) -> None:
        """Waits until something inside has failed, and raises that."""
        ...

    async def close(self) -> None: ...


def tell_left_over(loop: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
    """What a loop does with an error that nobody waits for. Futures of ccxt are dropped: in an outage its streams leave some behind whose
    error was raised elsewhere too. Of all others the kind and the place are told, never their words: they may hold a signed address."""
    error, message = context.get("exception"), str(context.get("message", "an error that nobody waits for"))
    is_left = message.startswith("Future exception was never retrieved")
    if is_left and isinstance(error, BaseException) and any(kind.__module__.partition(".")[0] == "ccxt" for kind in type(error).__mro__):
        return
    told = "" if error is None else f": {type(error).__name__}"
    frames = traceback.extract_tb(error.__traceback__) if error is not None else []
    place = f" in {frames[-1].name}, line {frames[-1].lineno}" if frames else ""
    _LOGGER.error("%s%s%s", message, told, place)


class VenueThread:
    """See the module header.

    Args:
        make: makes the inhabitant; called in the thread, inside its loop.
    """

    def __init__(self, make: Callable[[], Inhabitant]) -> None:
        self._make = make
        self._thread = threading.Thread(target=self._run, name="venue", daemon=True)
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._error: BaseException | None = None

    def start(self, timeout_seconds: float) -> None:
        """Start it and wait until the inhabitant has started.

        Raises:
            CryptoAlphaError: what the inhabitant's start raised.
            VenueError: if it took longer.
        """
        self._thread.start()
        if not self._ready.wait(timeout_seconds):
            self.close(timeout_seconds=1.0)
            raise VenueError(f"the venue did not answer within {timeout_seconds:g} s", hint="check the network, then start again")
        self.demand_alive()

    def post(self, action: Callable[[], None]) -> None:
        """Have something done in the thread, in the order of these calls, without waiting for it. It must not wait either."""
        loop = self.demand_alive()
        try:
            loop.call_soon_threadsafe(action)
        except RuntimeError:  # its loop closed meanwhile
            self._thread.join()
            self.demand_alive()

    def call(self, work: Callable[[], Awaitable[T]], timeout_seconds: float) -> T:
        """Do something in the thread and wait for it.

        Raises:
            VenueError: if the thread has ended, ends meanwhile, or does not answer in time.
        """
        loop = self.demand_alive()

        async def awaited() -> T:
            return await work()

        future = asyncio.run_coroutine_threadsafe(awaited(), loop)
        waited = 0.0
        while True:
            try:
                return future.result(_SLICE_SECONDS)
            except NotYetError:
                if future.done():
                    raise
            self.demand_alive()
            waited += _SLICE_SECONDS
            if waited >= timeout_seconds:
                future.cancel()
                raise VenueError(
                    f"the venue thread did not answer within {timeout_seconds:g} s",
                    hint="start the run again; its orders are asked for then",
                )

    def close(self, timeout_seconds: float = 10.0) -> bool:
        """Close the inhabitant and end the thread, in at most so long; whether it has ended. Called again, it does nothing.

        In an outage it may still wait for answers then. Nothing is lost by leaving it: it ends with the process, and what it did
        not hear is asked for at the next start.
        """
        loop, stop = self._loop, self._stop
        if self._thread.is_alive() and loop is not None and stop is not None:
            with contextlib.suppress(RuntimeError):  # its loop closed meanwhile
                loop.call_soon_threadsafe(stop.set)
        if self._thread.ident is not None:
            self._thread.join(timeout_seconds)
        if self._thread.is_alive():
            _LOGGER.warning("the venue did not answer within %g s of the end; what is open is asked for at the next start", timeout_seconds)
        return not self._thread.is_alive()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive() and self._error is None

    def demand_alive(self) -> asyncio.AbstractEventLoop:
        """The thread's loop, while it runs.

        Raises:
            CryptoAlphaError: what ended it; `VenueError` where that was none of ours, or where it was never started.
        """
        if self._error is not None:
            if isinstance(self._error, CryptoAlphaError):
                raise self._error
            raise VenueError(
                f"the venue thread ended with {type(self._error).__name__}: {self._error}",
                hint="start the run again: its orders are asked for by their ids; report this error",
            ) from self._error
        if self._loop is None or not self._thread.is_alive():
            raise VenueError("the venue thread is not running", hint="start the broker before its first step")
        return self._loop

    def _run(self) -> None:
        try:
            asyncio.run(self._live())
        finally:
            self._ready.set()

    async def _live(self) -> None:
        """Whatever ends the inhabitant becomes `_error`, before it is closed: from then on nobody may hand over anything."""
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(tell_left_over)
        self._stop = asyncio.Event()
        made = asyncio.create_task(self._made())
        await asyncio.wait({made})
        self._error = made.exception()
        if self._error is None:
            inhabitant = made.result()
            life = asyncio.create_task(self._inhabit(inhabitant, self._stop))
            await asyncio.wait({life})
            self._error = life.exception()
            end = asyncio.create_task(inhabitant.close())
            await asyncio.wait({end})
            self._error = self._error or end.exception()

    async def _made(self) -> Inhabitant:
        return self._make()

    async def _inhabit(self, inhabitant: Inhabitant, stop: asyncio.Event) -> None:
        """Start it, then wait until it fails or is told to stop."""
        stopped = asyncio.create_task(stop.wait())
        failed: asyncio.Task[None] | None = None
        starting = asyncio.create_task(inhabitant.start())
        try:
            await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                return
            starting.result()
            self._ready.set()
            failed = asyncio.create_task(inhabitant.failure())
            await asyncio.wait({failed, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if failed.done():
                failed.result()
        finally:
            unfinished = [task for task in (stopped, starting, failed) if task is not None and not task.done()]
            for task in unfinished:
                task.cancel()
            if unfinished:
                await asyncio.wait(unfinished)
