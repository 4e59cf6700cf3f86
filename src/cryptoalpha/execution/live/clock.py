"""The venue's clock, as far as it can be known from here. Signatures are stamped with it.

A venue refuses a request whose stamp lies outside its receive window, so what counts is its clock, not ours. The offset is measured
(Cristian's algorithm: half the round trip is the error bound) and carried forward on the machine's monotonic clock: a wall clock that is
set back an hour, or jumps by an hour, moves no stamp.

Source: Cristian (1989), "Probabilistic clock synchronization".
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from cryptoalpha.core.time import MILLISECOND


@dataclass(frozen=True)
class Reading:
    """One look at the venue's clock. Times in ns; `sent` and `received` by the monotonic clock."""

    venue: int
    sent: int
    received: int

    @property
    def round_trip(self) -> int:
        return self.received - self.sent

    @property
    def base(self) -> int:
        """Venue time less monotonic time, taking the reply to be half a round trip old."""
        return self.venue - (self.sent + self.received) // 2


class VenueClock:
    """The venue's time; until a reading was taken, this machine's.

    Args:
        wall: this machine's wall clock, UTC ns.
        monotonic: a clock that is never set, ns.
    """

    def __init__(self, *, wall: Callable[[], int] = time.time_ns, monotonic: Callable[[], int] = time.monotonic_ns) -> None:
        self._wall, self.monotonic = wall, monotonic
        self._base: int | None = None
        self._set_at = 0

    def set(self, reading: Reading) -> int:
        """Believe a reading; returns the offset from then on."""
        self._base, self._set_at = reading.base, reading.received
        return self.offset()

    def now(self) -> int:
        """UTC ns at the venue."""
        return self._wall() if self._base is None else self._base + self.monotonic()

    def age(self) -> int:
        """ns since the last reading; 0 before the first."""
        return 0 if self._base is None else self.monotonic() - self._set_at

    def milliseconds(self) -> int:
        """What ccxt stamps requests with."""
        return self.now() // MILLISECOND

    def offset(self) -> int:
        """The venue's clock less this machine's wall clock now, ns; 0 before the first reading."""
        return self.now() - self._wall()
