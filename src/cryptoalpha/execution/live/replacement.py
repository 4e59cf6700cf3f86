"""Whether an order still makes sense when its turn comes, and how much of it. Pure functions.

Between the engine's decision and the wire the world may have moved: an older order traded while it was being cancelled, or nobody knows
what became of it. An entry is then given up, for it was decided on another position; the next bar decides anew. A reduction is cut so that
no outcome can flip the position: a way out is kept open as far as it is safe.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import msgspec

from cryptoalpha.core.values import Order
from cryptoalpha.execution.live.working import Working
from cryptoalpha.execution.money import ZERO, whole_lots

Why = tuple[str, str]
"""Rule of the refusal, and what happened."""
STALE: Why = ("stale_order", "it was decided too long ago to be sent")
CANCELLED: Why = ("cancelled", "it was cancelled before its turn")


def why_not(order: Order, others: Sequence[Working], *, position: Decimal, told: Decimal, halted: str) -> Why | None:
    """Why an entry may not be sent; None where it may, and for every reduction.

    Args:
        others: orders of the instrument that have not ended although they were cancelled.
        position: by everything booked.
        told: by what the engine knew when it decided.
        halted: why no entries are sent at all; empty where they are.
    """
    if order.reduce_only:
        return None
    if halted:
        return "halted", halted
    if others:
        names = ", ".join(f"{one.order.client_id} ({one.tracked.state})" for one in others)
        return "unknown_order", f"nobody knows yet what became of {names}"
    if position != told:
        return "raced", f"it was decided on a position of {told}, and {position} is held by now"
    return None


def called_back(working: Working, *, is_late: bool, halted: str) -> Why | None:
    """Why an order that is about to leave need not leave any more; None where it should. A halt stops entries only."""
    if working.must_end:
        return CANCELLED
    if is_late:
        return STALE
    return ("halted", halted) if halted and not working.order.reduce_only else None


def resized(order: Order, others: Sequence[Working], position: Decimal, lot: Decimal) -> Decimal:
    """How much of it to send: an entry as it is, a reduction as far as it is safe."""
    if not order.reduce_only:
        return order.quantity
    return min(order.quantity, safe_exit(position, order.side == "buy", [one.rest for one in others], lot))


def as_sent(order: Order, quantity: Decimal) -> Order:
    """What the venue is given."""
    return order if quantity == order.quantity else msgspec.structs.replace(order, quantity=quantity)


def safe_exit(position: Decimal, is_buy: bool, rests: Sequence[Decimal], lot: Decimal) -> Decimal:
    """The most that a reduction may trade so that the position flips under no outcome of the other orders.

    Args:
        position: what is held, signed.
        is_buy: side of the reduction.
        rests: what other orders may still fill, signed. Those that trade the other way may fill nothing: they do not help.

    Example: 5 held, another sell of 2 of unknown fate: at most 3 may be sold.
    """
    sign = 1 if is_buy else -1
    closable = -position * sign
    taken = sum((rest * sign for rest in rests if rest * sign > 0), ZERO)
    return max(ZERO, whole_lots(closable - taken, lot))
