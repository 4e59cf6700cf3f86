"""Things that run beside each other in the venue's thread. None of them fails in silence: the first that does is raised where somebody
waits for it (`failure`), and ends the thread."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

Work = Coroutine[Any, Any, None]
_PATIENCE_SECONDS = 0.5
"""After which an errand that was cancelled and goes on is cancelled again: libraries swallow a cancel now and then."""


class Errands:
    """See the module header. Belongs to the loop it is made in."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._handed: set[asyncio.Task[None]] = set()
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def spawn(self, work: Work) -> asyncio.Task[None]:
        """Run it beside everything else."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._note_end)
        return task

    def hand(self, work: Work) -> None:
        """Run what the engine handed over: `idle` waits for it."""
        self._handed.add(self.spawn(work))

    async def idle(self, seconds: float) -> bool:
        """Wait, for at most so long, until all that was handed over is done; whether it is. Raises what has failed."""
        if self._handed:
            await asyncio.wait(set(self._handed), timeout=seconds)
        self.demand_well()
        return not self._handed

    def demand_well(self) -> None:
        """Raises what has failed, if anything has."""
        if self._failed.done():
            self._failed.result()

    async def failure(self) -> None:
        """Waits until one of them has failed, and raises that."""
        await self._failed

    async def finish(self, seconds: float) -> None:
        """Give what was handed over so long to come to its end, then end everything."""
        if self._handed:
            await asyncio.wait(set(self._handed), timeout=seconds)
        await self.close()

    async def close(self) -> None:
        """Cancel whatever still runs, again and again, and wait for its end."""
        while tasks := [task for task in self._tasks if not task.done()]:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=_PATIENCE_SECONDS)
        if not self._failed.done():
            self._failed.cancel()

    def __len__(self) -> int:
        return len(self._tasks)

    def _note_end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._handed.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not self._failed.done():
            self._failed.set_exception(error)
