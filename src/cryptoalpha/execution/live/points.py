"""The numbered points of an order's path. The chaos suite kills the process at each of them; nothing else looks at them."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum


class Point(IntEnum):
    """Where the order path can be cut. The first two lie in the engine thread, the others in the venue's."""

    BEFORE_INTENT = 1
    """Decided; the row that holds the order is not written."""
    AFTER_INTENT = 2
    """The row is on the disk; nothing was handed over."""
    BEFORE_SEND = 3
    AFTER_REPLY = 4
    """The venue has answered; nothing of it is on the disk. (Sent but not answered: the exchange holds its reply back.)"""
    AFTER_OUTCOME = 5
    """The answer is on the disk; the engine has not been told."""
    FILL_RECEIVED = 6
    """A trade came in; it is not on the disk."""
    FILL_BOOKED = 7
    """The trade is on the disk; the engine has not been told."""
    BEFORE_CANCEL = 8
    AFTER_CANCEL = 9
    """The venue has answered the cancel; nothing of it is on the disk."""
    IN_QUERY = 10
    """An order of unknown fate was asked for; the answer is not on the disk."""
    IN_RECONCILE = 11
    """The venue's books were read; no correction is on the disk."""
    AFTER_RECONCILE = 12
    TOLD = 13
    """The engine took what happened; its row is not written."""


Reached = Callable[[Point], None]


def nobody(point: Point) -> None:
    """What runs outside the chaos suite: nothing."""
