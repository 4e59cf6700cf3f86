"""From floats to money: exact, fast, and always the same way.

`Decimal(repr(x))` is the shortest decimal that reads back as `x`, so a price printed by a venue with its tick comes through exactly.
"""

from __future__ import annotations

from decimal import ROUND_DOWN, ROUND_HALF_EVEN, Decimal

ZERO = Decimal(0)
CENT = Decimal("1e-8")
"""Money that is computed rather than exchanged (fees, funding) is kept to a hundred-millionth of the quote currency."""


def exact(value: float) -> Decimal:
    """The shortest decimal that reads back as `value`."""
    return Decimal(repr(value))


def settle(amount: Decimal) -> Decimal:
    """An amount of money rounded to what is booked."""
    return amount.quantize(CENT, ROUND_HALF_EVEN)


def whole_lots(quantity: Decimal, lot: Decimal) -> Decimal:
    """The largest multiple of `lot` that is not above `quantity` in size; sign kept."""
    return (quantity / lot).quantize(Decimal(1), ROUND_DOWN) * lot
