"""The venue's clock against ours, and against one that is never set: what may be said of times although people and machines set clocks.

Our wall clock is what is written down and compared with the plans of the engine. It may be set back, alone or with the venue's, and
between two processes too. How late it is, and until when a request may still arrive, is therefore judged by the monotonic clock wherever
one process lasts, and by what was written down where it did not.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from cryptoalpha.core.clock import Clock
from cryptoalpha.core.time import SECOND
from cryptoalpha.execution.live.working import Working
from cryptoalpha.execution.venue import Venue
from cryptoalpha.store.order_ledger import OrderLedger

OFFSET = "clock_offset"
"""Cursor: the venue's clock less ours as last measured, ns."""
_STEADY = SECOND // 10
"""Changes of that offset below this are not worth writing down, ns."""


class Clocks:
    """See the module header.

    Args:
        wall: our clock for what is written down.
    """

    def __init__(self, ledger: OrderLedger, wall: Clock) -> None:
        self._ledger, self._wall = ledger, wall
        self.offset = int(ledger.cursor(OFFSET) or 0)
        """The venue's clock less ours as last measured, ns; at first as an earlier process measured it."""
        self.base = self.offset + wall.now() - time.monotonic_ns()
        """The venue's clock less the one that is never set, ns: whoever sets ours moves nothing here."""

    async def measure(self, venue: Venue) -> None:
        """How far the venue's clock is from ours.

        Raises:
            UnclearError: if the venue does not say.
        """
        self.offset = await venue.clock_offset()
        self.base = self.offset + self._wall.now() - time.monotonic_ns()
        if abs(self.offset - int(self._ledger.cursor(OFFSET) or 0)) > _STEADY:
            self._ledger.write(at=self._wall.now(), cursors={OFFSET: str(self.offset)})

    def ahead(self) -> int:
        """How far the venue's clock is ahead of ours now, ns; 0 where it is behind."""
        return max(0, self.base + time.monotonic_ns() - self._wall.now())

    def date_back(self, orders: Iterable[Working]) -> None:
        """Whose stamp orders of an earlier process carry: that of the venue's clock as that process knew it. A request left after it was
        written down: if the clocks show less than that by now, both were set back."""
        for working in orders:
            working.sent_by = max(self.base, working.noted_at + self.offset - working.evidence.sent_at)

    def moved_since(self, working: Working) -> int:
        """By how much the venue's clock was moved since an order was stamped with it, ns; negative where it was set back."""
        return self.base - working.sent_by
