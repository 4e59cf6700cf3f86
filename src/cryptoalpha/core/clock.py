"""What time is it? The only question that separates a backtest from live trading.

`VirtualClock` is moved by the engine and never runs backwards; `SystemClock` reads the machine.
"""

from __future__ import annotations

import time
from typing import Protocol

from cryptoalpha.core.errors import LookAheadError
from cryptoalpha.core.time import iso


class Clock(Protocol):
    """Anything that can say what time it is, in UTC nanoseconds."""

    def now(self) -> int: ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> int:
        return time.time_ns()


class VirtualClock:
    """A clock that stands still until it is moved, and only moves forward."""

    def __init__(self, start: int = 0) -> None:
        self._now = start

    def now(self) -> int:
        return self._now

    def advance_to(self, moment: int) -> None:
        """Move to `moment`.

        Raises:
            LookAheadError: if that lies in the past; a replay that runs backwards would show the future.
        """
        if moment < self._now:
            raise LookAheadError(f"the clock reads {iso(self._now)} and was asked to go back to {iso(moment)}")
        self._now = moment
