"""How much may be asked of a venue in a minute, and what of it is kept for a way out.

A sliding window: over any sixty seconds the weights of all requests stay within the limit, and those of ordinary requests within the part
that is not reserved. Cancels and reductions may use the whole, so a way out is never refused for having asked too much. A venue's
Retry-After closes the window for everybody: what is asked during a ban lengthens it.

One budget stands for one venue and one address, whoever asks: it may be used from several threads and event loops at once.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable

from cryptoalpha.core.errors import ConfigError, VenueError

WINDOW_SECONDS = 60.0
_LEAST_WAIT = 0.001
"""Seconds; a wait of nothing would turn into a busy loop by rounding."""


class BudgetSpentError(VenueError):
    """The request was not sent: the budget does not allow it in time. Nothing has happened at the venue."""

    def __init__(self, message: str, *, wait_seconds: float) -> None:
        super().__init__(message, hint="ask for less, or raise execution.live.requests_per_minute to what the venue allows")
        self.wait_seconds = wait_seconds


class Budget:
    """Weights spent over the last minute.

    Args:
        per_minute: weight the venue allows (> 0).
        reserved_share: part of it that only urgent requests may use (0 to below 1).
        monotonic: a clock in seconds that is never set back.
    """

    def __init__(self, per_minute: float, reserved_share: float, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        if not (per_minute > 0 and 0 <= reserved_share < 1):
            raise ConfigError(f"a budget of {per_minute} a minute with {reserved_share} reserved", hint="more than 0, and a share below 1")
        self._limit, self._ordinary = per_minute, per_minute * (1.0 - reserved_share)
        self._monotonic = monotonic
        self._spent: deque[tuple[float, float]] = deque()
        self._sum = 0.0
        self._closed_until = 0.0
        self._lock = threading.Lock()

    def take(self, weight: float, *, urgent: bool = False) -> float:
        """Spend `weight` now if that is allowed: 0.0; otherwise nothing is spent, and it is the seconds after which to try again."""
        with self._lock:
            now = self._monotonic()
            self._forget(now)
            if now < self._closed_until:
                return max(self._closed_until - now, _LEAST_WAIT)
            limit = self._limit if urgent else self._ordinary
            weight = min(weight, limit)  # heavier than the whole minute: it takes the whole minute
            if self._sum + weight <= limit * (1 + 1e-12):
                self._spent.append((now, weight))
                self._sum += weight
                return 0.0
            return max(self._until(self._sum + weight - limit, now), _LEAST_WAIT)

    async def acquire(self, weight: float, *, urgent: bool = False, patience_seconds: float) -> None:
        """Wait for `weight`, at most `patience_seconds` in all.

        Raises:
            BudgetSpentError: if it takes longer; at once where that is plain from the start.
        """
        deadline = self._monotonic() + patience_seconds
        while wait := self.take(weight, urgent=urgent):
            self._refuse(wait, deadline)
            await asyncio.sleep(wait)

    def wait(self, weight: float, *, urgent: bool = False, patience_seconds: float, sleep: Callable[[float], None] = time.sleep) -> None:
        """As `acquire`, for threads without an event loop."""
        deadline = self._monotonic() + patience_seconds
        while wait := self.take(weight, urgent=urgent):
            self._refuse(wait, deadline)
            sleep(wait)

    def close_for(self, seconds: float) -> None:
        """Nothing is asked for so long: the venue said so (Retry-After)."""
        with self._lock:
            self._closed_until = max(self._closed_until, self._monotonic() + seconds)

    def left(self, *, urgent: bool = False) -> float:
        """Weight that could be spent now."""
        with self._lock:
            now = self._monotonic()
            self._forget(now)
            return 0.0 if now < self._closed_until else max((self._limit if urgent else self._ordinary) - self._sum, 0.0)

    def _refuse(self, wait: float, deadline: float) -> None:
        if self._monotonic() + wait > deadline:
            raise BudgetSpentError(f"the venue's request budget is spent for another {wait:.1f} s: not sent", wait_seconds=wait)

    def _forget(self, now: float) -> None:
        while self._spent and self._spent[0][0] <= now - WINDOW_SECONDS:
            self._sum -= self._spent.popleft()[1]
        if not self._spent:
            self._sum = 0.0  # what rounding left

    def _until(self, excess: float, now: float) -> float:
        """Seconds until requests of `excess` weight have left the window."""
        freed = 0.0
        for at, weight in self._spent:
            freed += weight
            if freed >= excess - 1e-9:
                return at + WINDOW_SECONDS - now
        return WINDOW_SECONDS
