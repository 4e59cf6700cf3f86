"""The kill switch: one latch that stops all entries until a person arms it again.

    armed ── trip ──▶ tripping ── settle ──▶ tripped ── resume ──▶ armed

`tripping` lasts until no entry is left to be filled and, where `flatten` was asked for, nothing is held; only then may a person resume.
While it stands nothing is entered, pending entries are cancelled, exits and reductions pass. A second trip only adds evidence, and may
add `flatten`, which is never taken back. It never arms itself.

Pure: no clock, no I/O, so the same calls give the same events, byte for byte. What makes it last is in `store.controls`.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

from cryptoalpha.core.errors import RiskHaltError
from cryptoalpha.core.time import iso
from cryptoalpha.core.values import RiskEvent

NAME = "kill_switch"
"""The rule that refusals, orders and events carry."""

KillState = Literal["armed", "tripping", "tripped"]


class KillSwitch:
    """See the module header. Every change returns the event to be journaled, None where nothing changed."""

    def __init__(self) -> None:
        self.state: KillState = "armed"
        self.flatten = False
        """Whether everything is to be closed, not only entries refused."""
        self.tripped_at: int | None = None
        """When it was tripped first since it was last armed, UTC ns; None while armed."""
        self.resumed_at: int | None = None
        """When a person armed it last, UTC ns; None if nobody ever did."""
        self._evidence: dict[tuple[str, str], int] = {}

    @property
    def stands(self) -> bool:
        """Whether entries are forbidden."""
        return self.state != "armed"

    @property
    def evidence(self) -> tuple[tuple[int, str, str], ...]:
        """Time, author and reason of every different trip since it was last armed, the first one first."""
        return tuple((at, by, reason) for (by, reason), at in self._evidence.items())

    @property
    def message(self) -> str:
        """Why nothing may be entered; empty while armed."""
        if self.tripped_at is None:
            return ""
        (by, reason), *others = self._evidence
        also = f" (and {len(others)} more)" if others else ""
        return f"killed since {iso(self.tripped_at)} by {by}: {reason}{also}; entries wait until a person resumes"

    def trip(self, at: int, *, by: str, reason: str, flatten: bool = False) -> RiskEvent | None:
        """Forbid entries from now on; with `flatten` everything is to be closed as well.

        Returns:
            The change to `tripping`; None where the switch stood already and `flatten` adds nothing to what was asked before.
        """
        self._evidence.setdefault((by, reason), at)
        if self.stands and (self.flatten or not flatten):
            return None
        if self.tripped_at is None:
            self.tripped_at = at
        self.state = "tripping"
        self.flatten = flatten
        what = (
            "entries are blocked, pending ones cancelled, everything is closed"
            if flatten
            else "entries are blocked, pending ones cancelled"
        )
        return self._event(at, f"by {by}: {reason}; {what}")

    def settle(self, at: int, *, pending: bool, flat: bool, left: str = "") -> RiskEvent | None:
        """Take note of how far it has come.

        Args:
            pending: whether an order that could enlarge a position is still to be filled.
            flat: whether nothing is held that could be sold; it matters only where everything is to be closed.
            left: what is held and cannot be sold, in words.
        """
        if self.state != "tripping" or pending or (self.flatten and not flat):
            return None
        self.state = "tripped"
        held = ", what is held may only be reduced"
        if flat:
            held = f"; left behind, for it cannot be sold: {left}" if left else " and nothing is held"
        return self._event(at, f"no entry is pending{held}")

    def resume(self, at: int, *, by: str, reason: str) -> RiskEvent:
        """Arm it again: a person's decision, never automatic.

        Raises:
            RiskHaltError: while it is `tripping`, because cancels are not confirmed yet, and where nothing was tripped.
        """
        if self.state != "tripped":
            why = "pending entries or positions are not confirmed to be gone" if self.state == "tripping" else "it is armed"
            raise RiskHaltError(f"the kill switch cannot be resumed: {why}", hint="`cryptoalpha status` shows where it stands")
        self.state = "armed"
        self.flatten = False
        self.tripped_at = None
        self.resumed_at = at
        self._evidence.clear()
        return self._event(at, f"by {by}: {reason}; entries are allowed again")

    def _event(self, at: int, message: str) -> RiskEvent:
        return RiskEvent(happened_at=at, known_at=at, rule=NAME, state=self.state, message=message)


def may_enter(pending: Decimal, held: Decimal) -> bool:
    """Whether what is left of an order, signed (buys positive), could enlarge a position or turn it round; if not, it is a way out."""
    return pending * held >= 0 or abs(pending) > abs(held)
