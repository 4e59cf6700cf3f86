"""Waits before a question is asked again: growing, capped, spread by chance, and never shorter than what the other side asked for.

The chance is a seeded stream, so a run that is repeated waits the same. Full jitter would allow waits near zero; half of each wait is
fixed, so that a venue in trouble is left alone, and half is spread, so that many clients do not return together.

Source: the "equal jitter" of M. Brooker, "Exponential Backoff and Jitter" (AWS Architecture Blog, 2015).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptoalpha.core.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

_LARGEST_EXPONENT = 60


class Backoff:
    """Waits for one question.

    Args:
        first_seconds: the first wait, before it is spread; doubles with each failure.
        limit_seconds: the longest wait of its own making. A wait that was asked for may be longer.
        random: where the spread comes from; `core.seeds.stream`.

    Raises:
        ConfigError: if `first_seconds` is not positive or above the limit.
    """

    def __init__(self, first_seconds: float, limit_seconds: float, *, random: np.random.Generator) -> None:
        if not 0.0 < first_seconds <= limit_seconds < float("inf"):
            raise ConfigError(f"a first wait of {first_seconds} s with a limit of {limit_seconds} s", hint="0 < first ≤ limit")
        self._first, self._limit, self._random = first_seconds, limit_seconds, random
        self._failures = 0

    @property
    def failures(self) -> int:
        """How often `wait` was asked since the last success."""
        return self._failures

    def wait(self, asked_seconds: float = 0.0) -> float:
        """Seconds to wait after one more failure.

        Args:
            asked_seconds: what the other side asked for (Retry-After); the wait is never shorter, and spread beyond it.
        """
        full = min(self._limit, self._first * 2.0 ** min(self._failures, _LARGEST_EXPONENT))
        self._failures += 1
        own = full * (0.5 + 0.5 * float(self._random.random()))
        return own if asked_seconds <= own else asked_seconds + own - full / 2

    def reset(self) -> None:
        """It worked: the next failure waits shortly again."""
        self._failures = 0
