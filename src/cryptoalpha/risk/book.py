"""What the caps look at: every wanted position beside what is held, as fractions of equity."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

import msgspec

from cryptoalpha.core.values import Decision


class Proposal(msgspec.Struct, gc=False):
    """One decision that could be sized. Weights are signed fractions of equity.

    `wanted` is what the agent asked for, `held` what the book holds at `price`, `position` the same in base units and `pending` what an
    earlier order has still to fill. `volatility` is annual. `is_reducing`: it only makes the position smaller, and such a change is never
    refused.
    """

    decision: Decision
    event: int
    wanted: float
    held: float
    price: float
    volatility: float
    position: Decimal
    pending: Decimal
    is_reducing: bool


def only_reduces(wanted: float, held: float) -> bool:
    """Whether going from `held` to `wanted` makes the position smaller, or leaves it, without changing its sign."""
    return 0.0 <= wanted <= held or held <= wanted <= 0.0


@dataclass(slots=True)
class Book:
    """All proposals of one review. `held_elsewhere` are the weights of positions nobody decided on now."""

    equity: float
    proposals: list[Proposal]
    held_elsewhere: list[tuple[float, float]]
    """(weight, annual volatility; NaN where unknown)."""
