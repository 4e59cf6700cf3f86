"""An order on its way: what the venue's thread knows of it until it has ended. The ledger holds the truth; this lies beside it."""

from __future__ import annotations

from decimal import Decimal

from cryptoalpha.core.values import Order
from cryptoalpha.execution.money import ZERO
from cryptoalpha.execution.orders.absence import Evidence
from cryptoalpha.execution.orders.tracker import Tracked
from cryptoalpha.execution.venue import Rejected


class Working:
    """One order.

    `under_way`: it is being carried to the venue, nobody else need ask for it. `must_end`: somebody wants it cancelled. `refusal`: what the
    venue said against it in a way that only counts once it also knows no such order. `sent_by`: the venue's clock less the one that
    is never set (`time.monotonic_ns`), ns, as it was known when it was sent. `noted_at`: when an earlier process last wrote of it, by our
    clock then; 0 where none did.
    """

    __slots__ = ("evidence", "is_alerted", "must_end", "noted_at", "refusal", "sent_by", "tracked", "under_way")

    def __init__(self, tracked: Tracked, evidence: Evidence) -> None:
        self.tracked = tracked
        self.evidence = evidence
        self.refusal: Rejected | None = None
        self.sent_by = self.noted_at = 0
        self.must_end = False
        self.under_way = False
        self.is_alerted = False

    @property
    def order(self) -> Order:
        return self.tracked.order

    @property
    def rest(self) -> Decimal:
        """What could still be filled, signed as it would move the position."""
        left = self.tracked.open_quantity
        return left if self.order.side == "buy" else -left

    @property
    def is_unsettled(self) -> bool:
        """Whether somebody must go on asking: its fate is unknown, its last trades are missing, or it must be cancelled and is not."""
        tracked = self.tracked
        if tracked.ended or self.under_way:
            return False
        return tracked.state in ("unknown", "canceling") or tracked.ending is not None or tracked.missing > ZERO or self.must_end
