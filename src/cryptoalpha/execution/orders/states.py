"""The states of an order and which may follow which, as data.

    intent     durable, not proven sent; found after a restart it is unknown
    unknown    nobody knows its fate: no entries, exits sized so that no outcome can flip the position
    open       acknowledged, nothing traded; partial: something traded
    canceling  a cancel is on its way; trades are still accepted
    filled, canceled, expired, rejected, absent: final. A trade that comes after is booked all the same, and flagged

Only definite answers end an order; absence ends it by proof alone (`orders.absence`).

Departures from the table in the design: an order may be canceled or expired by the first answer (an immediate-or-cancel order that finds
nothing), the fate of a canceling order may become unknown (the venue does not know it any more), and a venue may reject what it had
accepted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

State = Literal["intent", "unknown", "open", "partial", "canceling", "filled", "canceled", "expired", "rejected", "absent"]

FINAL: Final[frozenset[State]] = frozenset({"filled", "canceled", "expired", "rejected", "absent"})
AT_VENUE: Final[frozenset[State]] = frozenset({"open", "partial", "canceling"})
"""States in which the venue has said that it has the order, and not that it has ended. Of the rest, `intent` and `unknown` may live too."""
UNTRADED: Final[frozenset[State]] = frozenset({"rejected", "absent"})
"""Final states in which nothing can have been traded: a trade after all means that what we believe of the venue is wrong."""

TRANSITIONS: Final[Mapping[State, frozenset[State]]] = {
    "intent": frozenset({"unknown", "open", "partial", "filled", "canceled", "expired", "rejected"}),
    "unknown": frozenset({"open", "partial", "canceling", "filled", "canceled", "expired", "rejected", "absent"}),
    "open": frozenset({"unknown", "partial", "canceling", "filled", "canceled", "expired", "rejected"}),
    "partial": frozenset({"unknown", "canceling", "filled", "canceled", "expired", "rejected"}),
    "canceling": frozenset({"unknown", "open", "partial", "filled", "canceled", "expired", "rejected"}),
    "filled": frozenset(),
    "canceled": frozenset(),
    "expired": frozenset(),
    "rejected": frozenset(),
    "absent": frozenset(),
}


def may_follow(state: State, following: State) -> bool:
    """Whether an order may go from one state to the other; staying is always allowed."""
    return state == following or following in TRANSITIONS[state]
