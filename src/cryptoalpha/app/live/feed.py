"""A feed of live bars in a thread of its own, and a watch that says which instruments have fallen silent.

Nothing that a venue's public side does, hanging included, may keep the engine from obeying a kill: the engine's thread looks into a queue
and is back within a fraction of a second.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from cryptoalpha.core.errors import CryptoAlphaError, VenueError
from cryptoalpha.core.time import SECOND, iso_second
from cryptoalpha.data.candles import Wait
from cryptoalpha.data.live import LiveBatch

JOIN_SECONDS = 2.0
"""How long an ending session waits for the thread. A request under way may take longer: the thread is a daemon and owns nothing."""


class FeedEndedError(Exception):
    """Raised inside the feed's thread by its own wait, when nobody takes bars any more."""


class Feed:
    """Batches of a feed, made in another thread; a context manager that ends it.

    Args:
        make: makes the feed, given the wait it must use. Called in the other thread.
    """

    def __init__(self, make: Callable[[Wait], Iterable[LiveBatch]]) -> None:
        self._make = make
        self._queue: queue.SimpleQueue[LiveBatch] = queue.SimpleQueue()
        self._ended = threading.Event()
        self._end = End()
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join(JOIN_SECONDS)

    def next(self, seconds: float) -> LiveBatch | None:
        """The next batch; None where none comes within that time, or ever.

        Raises:
            CryptoAlphaError: what ended the feed.
        """
        try:
            return self._queue.get(timeout=0.0 if self._end.is_reached else seconds)
        except queue.Empty:
            pass
        error = self._end.error
        if error is None or isinstance(error, FeedEndedError):
            return None
        if isinstance(error, CryptoAlphaError):
            raise error
        raise VenueError(
            f"the feed of live bars ended with {type(error).__name__}: {error}", hint="start the run again; its orders are asked for by id"
        ) from error

    @property
    def is_over(self) -> bool:
        """Whether no batch will come any more."""
        return self._end.is_reached and self._queue.empty()

    def _run(self) -> None:
        with self._end:
            for batch in self._make(self._wait):
                self._queue.put(batch)
                if self._ended.is_set():
                    return

    def _wait(self, seconds: float) -> None:
        if self._ended.wait(seconds):
            raise FeedEndedError


class End:
    """Keeps whatever ends a thread for the engine's, where it is raised; a context manager around what the thread does."""

    def __init__(self) -> None:
        self.is_reached = False
        self.error: BaseException | None = None

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        self.error = error
        self.is_reached = True
        return True


@dataclass(frozen=True)
class Silence:
    """An instrument fell silent, or is heard of again."""

    instrument: str
    is_silent: bool
    since: int
    """When its last bar was known, UTC ns."""

    @property
    def text(self) -> str:
        if self.is_silent:
            return f"no bar of {self.instrument} since {iso_second(self.since)}: it takes no entries, what waits is taken back; exits go on"
        return f"{self.instrument} is heard of again"


class SilenceWatch:
    """Which instruments have brought no bar for too long, by the clock on the wall.

    Args:
        heard: when the last bar of each instrument was known, UTC ns; what lies before the start counts from the start.
        interval: bar length, ns.
        allowed: bar lengths that may be missing in a row.
        slack_seconds: by how much a bar may come late and not be missed.
        now: the start, UTC ns.
    """

    def __init__(self, heard: Mapping[str, int], interval: int, allowed: float, *, slack_seconds: float, now: int) -> None:
        self._heard = {name: max(at, now) for name, at in heard.items()}
        self._allowed = int(allowed * interval + slack_seconds * SECOND)
        self.silent: set[str] = set()

    def hear(self, batch: LiveBatch, now: int) -> list[Silence]:
        """A batch came. Bars of the past, while a feed catches up, are heard of now: it speaks."""
        changes = []
        for name in batch.bars:
            self._heard[name] = now
            if name in self.silent:
                self.silent.discard(name)
                changes.append(Silence(name, is_silent=False, since=now))
        return changes

    def look(self, now: int) -> list[Silence]:
        """Time has passed; who fell silent by now."""
        changes = []
        for name, at in self._heard.items():
            if now - at > self._allowed and name not in self.silent:
                self.silent.add(name)
                changes.append(Silence(name, is_silent=True, since=at))
        return changes
