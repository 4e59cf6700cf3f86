"""Going on after a failure: one `Line` per connect loop says when to try again, and keeps the source's health in step.

Waits grow, are spread by chance and never shorter than what was asked for (`core.backoff`). They start small again only when no failure
has come for a while: a publisher that accepts every connection and drops it at once would be asked once a second for ever.

A publisher that refuses the key ends the line with a `ConfigError`: asking again with a wrong key gets addresses banned. Where the key has
worked before, some refusals in a row are waited out first, because publishers in trouble answer 401 too, and tokens are renewed meanwhile.

`lasting` is the loop itself, `check_answer` what a status of HTTP means for it. Sources: RFC 9110 §10.2.3 (Retry-After), §15 (statuses).
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from email.utils import parsedate_to_datetime
from typing import Final, TypeVar

from cryptoalpha.core.backoff import Backoff
from cryptoalpha.core.clock import Clock, SystemClock
from cryptoalpha.core.errors import ConfigError, CryptoAlphaError, VenueError
from cryptoalpha.core.seeds import stream
from cryptoalpha.core.time import SECOND, from_datetime
from cryptoalpha.data.sources.contract import Health
from cryptoalpha.data.sources.words import in_words

T = TypeVar("T")
Wait = Callable[[float], Awaitable[None]]
"""Lets so many seconds pass; `asyncio.sleep`, or virtual in tests."""

_REFUSALS: Final = 3
_STEADY: Final = 20 * SECOND
"""Without a failure for so long, the next one is the first."""
_LONGEST_ASKED: Final = 6 * 3600.0
"""A Retry-After beyond this is a publisher's mistake: nothing is learned by sleeping longer."""
_EPOCH_FROM: Final = 1e9
"""Numbers beyond this in a reset header are moments, smaller ones are waits."""


class LaterError(VenueError):
    """The publisher says: not now."""

    def __init__(self, message: str, *, wait_seconds: float = 0.0, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.wait_seconds = wait_seconds


class RefusedError(ConfigError):
    """The publisher refuses the key or the question; asking the same again cannot help."""


class Line:
    """The failures of one connection, or of one question that is asked again and again.

    Args:
        name: of the source, for the jitter's own random stream.
        health: kept in step.
        first_seconds, limit_seconds: waits, see `Backoff`.
        clock: how long it has worked.
        wait: lets time pass.
        refusals: how many refusals in a row are waited out once the key has worked.
    """

    def __init__(
        self,
        name: str,
        health: Health,
        *,
        first_seconds: float = 1.0,
        limit_seconds: float = 60.0,
        clock: Clock | None = None,
        wait: Wait = asyncio.sleep,
        seed: int = 0,
        refusals: int = _REFUSALS,
    ) -> None:
        self._name, self._health, self._wait = name, health, wait
        self._backoff = Backoff(first_seconds, max(first_seconds, limit_seconds), random=stream(seed, "source", name))
        self._clock: Clock = clock if clock is not None else SystemClock()
        self._failed_last = self._clock.now()
        self._refusals, self._refused, self._has_worked, self._worked_since = refusals, 0, False, False
        self.end = asyncio.Event()

    @property
    def closed(self) -> bool:
        return self.end.is_set()

    @property
    def failures(self) -> int:
        """So far, since it last worked for a while."""
        return self._backoff.failures

    def worked(self) -> None:
        """Something came: the connection stands."""
        self._refused, self._has_worked, self._worked_since = 0, True, True
        if not self.closed:
            self._health.state, self._health.reason = "connected", ""

    async def failed(self, error: BaseException | str, asked_seconds: float = 0.0) -> None:
        """Note a failure and wait until it is time to try again, or the line is closed.

        Raises:
            ConfigError: the one it was given, if waiting cannot help.
        """
        if isinstance(error, ConfigError):
            self._refused += 1
            if not (isinstance(error, RefusedError) and self._has_worked and self._refused <= self._refusals):
                self._health.state, self._health.reason = "closed", str(error)
                raise error
        if self._worked_since and self._clock.now() - self._failed_last >= _STEADY:
            self._backoff.reset()
        asked = max(asked_seconds, error.wait_seconds if isinstance(error, LaterError) else 0.0)
        seconds = self._backoff.wait(min(asked, _LONGEST_ASKED))
        self._health.reconnects += 1
        await self.pause(seconds, _words(error))
        self._failed_last, self._worked_since = self._clock.now(), False

    async def pause(self, seconds: float, reason: str) -> None:
        """Wait for another reason than a failure, at most until the line is closed."""
        if self.closed:
            return
        self._health.state, self._health.reason = "waiting", reason
        await until_either(self._wait(seconds), self.end)

    def close(self) -> None:
        """No more attempts; a wait under way ends."""
        self.end.set()
        self._health.state, self._health.reason = "closed", ""


async def lasting(
    connect: Callable[[], AsyncIterator[T]], line: Line, *, catches: tuple[type[Exception], ...] = ()
) -> AsyncGenerator[T, None]:
    """Everything that `connect()` brings, connecting anew whenever it ends or fails, until the line is closed.

    Args:
        connect: opens one connection and yields what comes over it.
        catches: the library's own errors that mean a broken connection; ours, the system's and timeouts are always understood.

    Raises:
        ConfigError: if it can never work.
    """
    known: tuple[type[Exception], ...] = (VenueError, RefusedError, OSError, TimeoutError, *catches)
    while not line.closed:
        try:
            connection = connect()
            async with _closing(connection):
                async for item in connection:
                    line.worked()
                    yield item
            reason: BaseException | str = "the connection ended"
        except known as error:
            reason = error
        if not line.closed:
            await line.failed(reason)


async def until_either(work: Awaitable[None], end: asyncio.Event) -> None:
    """Wait for `work`, but not longer than until `end`; what is unfinished then is cancelled."""
    working, ending = asyncio.ensure_future(work), asyncio.ensure_future(end.wait())
    try:
        await asyncio.wait({working, ending}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
    finally:
        for task in (working, ending):
            task.cancel()
        await asyncio.gather(working, ending, return_exceptions=True)


def check_answer(status: int, headers: Mapping[str, str], *, what: str, now: int) -> None:
    """Nothing where an answer of HTTP may be read (2xx, 304).

    Args:
        what: is asked for, for the message. No key may stand in it.
        now: UTC ns, for dates in Retry-After.

    Raises:
        RefusedError: the key or the address is wrong (400, 401, 403, 404, 410 and others of 4xx).
        LaterError: 429, 503 or 408, with the wait asked for.
        VenueError: the publisher failed (5xx and anything unknown).
    """
    if 200 <= status < 300 or status == 304:
        return
    if status in (401, 403):
        raise RefusedError(f"{what} refuses the key (HTTP {status})", hint="check the key, and what it is allowed to read")
    if status in (408, 425, 429, 503):
        raise LaterError(f"{what} asks to wait (HTTP {status})", wait_seconds=retry_after_seconds(headers, now))
    if 400 <= status < 500:
        raise RefusedError(f"{what} does not know the question (HTTP {status})", hint="check the address in the settings of this source")
    raise VenueError(f"{what} failed (HTTP {status})", hint="it is asked again; nothing is to be done")


def retry_after_seconds(headers: Mapping[str, str], now: int) -> float:
    """How long an answer asks to wait; 0 where it does not say or says nonsense.

    Read are Retry-After (seconds or a date), then the reset headers of X (`x-rate-limit-reset`, a moment) and Reddit
    (`x-ratelimit-reset`, seconds).
    """
    lower = {name.lower(): value for name, value in headers.items()}
    for name in ("retry-after", "x-rate-limit-reset", "x-ratelimit-reset"):
        text = lower.get(name, "").strip()
        if not text:
            continue
        with contextlib.suppress(ValueError):
            seconds = float(text)
            if not math.isfinite(seconds):
                continue
            return max(0.0, seconds - now / SECOND if seconds > _EPOCH_FROM else seconds)
        with contextlib.suppress(ValueError, TypeError, CryptoAlphaError):
            return max(0.0, (from_datetime(parsedate_to_datetime(text)) - now) / SECOND)
    return 0.0


def _words(error: BaseException | str) -> str:
    if isinstance(error, str | CryptoAlphaError):
        return str(error)
    return in_words(error)


@contextlib.asynccontextmanager
async def _closing(connection: AsyncIterator[T]) -> AsyncIterator[None]:
    """Close a generator at its end; a plain iterator has nothing to close."""
    if isinstance(connection, AsyncGenerator):
        async with aclosing(connection):
            yield
    else:
        yield
