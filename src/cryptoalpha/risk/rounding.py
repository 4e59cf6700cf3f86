"""Quantities and names of orders: rounded down to what the venue accepts, named so that the same decision never makes two orders."""

from __future__ import annotations

from decimal import ROUND_DOWN, Decimal
from hashlib import blake2b

ONE = Decimal(1)


def round_to_lot(quantity: Decimal, lot: Decimal) -> Decimal:
    """The nearest multiple of `lot` towards zero; never larger in size than `quantity`, same sign."""
    return (quantity / lot).quantize(ONE, ROUND_DOWN) * lot


def client_order_id(account: str, instrument: str, agent: str, known_at: int, attempt: int) -> str:
    """`ca` and 30 hex digits: the same decision always makes the same id, so replaying it cannot send it twice.

    32 characters of [0-9a-f] after the prefix's letters fit every venue's limit known to us.
    """
    name = f"{account}\x1f{instrument}\x1f{agent}\x1f{known_at}\x1f{attempt}"
    return "ca" + blake2b(name.encode(), digest_size=15).hexdigest()
