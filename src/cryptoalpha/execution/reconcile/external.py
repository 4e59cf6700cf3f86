"""What others do on the account: which part of it is the book's, which is theirs.

An account may hold more than the run does: what was there before it began, and what people trade and transfer beside it. That is the
*foreign* holding. The run's own part is the *book*. A foreign trade uses up the foreign holding first; only what it takes beyond that eats
the book, and then the book gets what was paid for it. So the two always add up to what the venue holds, and nobody's trade ever becomes
a trade of the strategy.

Pure functions of `Decimal`s; what goes in comes out to the last digit.
"""

from __future__ import annotations

from decimal import Decimal

import msgspec

from cryptoalpha.execution.money import ZERO, settle


def split_external(book: Decimal, foreign: Decimal, change: Decimal) -> tuple[Decimal, Decimal]:
    """How a change that is not the run's own divides between book and foreign holding. All three are signed quantities of one asset.

    What the change undoes is taken from the foreign holding of the opposite sign first, then from the book's; the rest, and whatever
    undoes nothing, is foreign.

    Returns:
        The book's part and the foreign part; they add up to `change`.
    """
    rest = change - undone(foreign, change)
    taken = undone(book, rest)
    return taken, change - taken


def undone(holding: Decimal, change: Decimal) -> Decimal:
    """The part of `change` that undoes `holding`: its sign is the change's, its size at most the holding's."""
    if holding == 0 or change == 0 or (holding > 0) == (change > 0):
        return ZERO
    return change if abs(change) <= abs(holding) else -holding


class Legs(msgspec.Struct, frozen=True):
    """A change of base units and of quote units."""

    quantity: Decimal = ZERO
    cash: Decimal = ZERO


def split_trade(book: Legs, foreign: Legs, change: Legs) -> tuple[Legs, Legs]:
    """How a foreign trade at a spot venue divides: by the asset that it gives away. The other side follows in proportion.

    Args:
        book: what the run holds of base and quote.
        foreign: what is held beside it.
        change: of the account, fees included.

    Returns:
        The book's part and the foreign part; both sides add up to `change` exactly.
    """
    if change.quantity < 0:
        taken, _ = split_external(book.quantity, foreign.quantity, change.quantity)
        mine = Legs(taken, _share(change.cash, taken, change.quantity))
    elif change.cash < 0:
        taken, _ = split_external(book.cash, foreign.cash, change.cash)
        mine = Legs(_share(change.quantity, taken, change.cash), taken)
    else:
        mine = Legs()
    return mine, Legs(change.quantity - mine.quantity, change.cash - mine.cash)


def _share(amount: Decimal, part: Decimal, whole: Decimal) -> Decimal:
    """`amount · part / whole`, rounded to what is booked; all of it where the part is the whole."""
    if part == 0:
        return ZERO
    return amount if part == whole else settle(amount * part / whole)
