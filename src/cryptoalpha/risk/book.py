"""What the caps look at: what stands already, and what every decision would add on top, as fractions of equity.

What stands counts in full until it *is* gone: a reduction frees no room before it has filled, and of a flip both sides count. So whatever
part of the orders fills, in whatever order, no limit is exceeded that was not exceeded before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

import msgspec
import numpy as np

from cryptoalpha.core.values import Decision
from cryptoalpha.risk.market_memory import Floats, MarketMemory

BLIND_VOLATILITY = 1.0
"""Annual volatility that a position counts with whose own is unknown: about twice Bitcoin's. What is not known never flatters."""

BLIND_LOSS = 0.12
"""What such a position loses in every scenario: the expected shortfall at 97.5 % of one day at that volatility, normal law."""


class Stake(msgspec.Struct, gc=False):
    """What stands in one instrument: the larger of what is held and what will be once pending orders fill, each side by itself (≥ 0).

    `volatility` is annual, NaN where unknown. `name` is empty for positions without a price, which share what equity leaves unexplained.
    """

    name: str
    long: float
    short: float
    volatility: float
    held: float = 0.0
    """What is held now, signed."""

    @property
    def size(self) -> float:
        """The larger side."""
        return self.long if self.long > self.short else self.short

    @property
    def known_volatility(self) -> float:
        """Its volatility, always finite."""
        return self.volatility if 0.0 <= self.volatility < math.inf else BLIND_VOLATILITY


def stake(name: str, held: float, heading: float, volatility: float) -> Stake:
    """From the signed weight held and the one held after pending orders."""
    return Stake(name, max(0.0, held, heading), max(0.0, -held, -heading), volatility, held)


class Proposal(msgspec.Struct, gc=False):
    """One decision that could be sized. Weights are signed fractions of equity.

    `wanted` is what the agent asked for, `held` what the book holds at `price`, `position` the same in base units and `pending` what an
    earlier order has still to fill. `volatility` is annual. `is_reducing`: it only makes the position smaller, and such a change is never
    refused. `standing` is what stands on the wanted side already (≥ 0), `growth` what it would add there (≥ 0). `exposure` is the share
    that the regime leaves; `block` the rule that forbids entries, with `reason`.
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
    standing: float = 0.0
    growth: float = 0.0
    exposure: float = 1.0
    block: str = ""
    reason: str = ""

    @property
    def kept(self) -> float:
        """What is held on the wanted side (≥ 0): the size left where nothing may be entered."""
        return abs(self.held) if self.held * self.wanted > 0.0 else 0.0


def only_reduces(wanted: float, held: float) -> bool:
    """Whether going from `held` to `wanted` makes the position smaller, or leaves it, without changing its sign."""
    return 0.0 <= wanted <= held or held <= wanted <= 0.0


@dataclass(slots=True)
class Book:
    """All proposals of one review, and all that stands, decided on now or not."""

    equity: float
    proposals: list[Proposal]
    stakes: list[Stake]
    memory: MarketMemory
    universe: tuple[str, ...] = ()
    """Instruments that scenarios are asked for, always the same ones: the memory prepares them once a day."""
    states: dict[str, float] | None = None
    """Annual volatility that the market states expect, by instrument; None takes that of stakes and proposals."""
    drawn: tuple[dict[str, int], Floats] | None = None

    def scenarios(self) -> tuple[dict[str, int], Floats]:
        """Column by instrument, and next-day returns `[S, A]`; a column is NaN where nobody knows its volatility. Drawn once a review."""
        if self.drawn is None:
            names = self.universe or tuple(dict.fromkeys([s.name for s in self.stakes] + [p.decision.instrument for p in self.proposals]))
            expected = self.states
            if expected is None:
                expected = {s.name: s.volatility for s in self.stakes} | {p.decision.instrument: p.volatility for p in self.proposals}
            finite = {name: volatility for name, volatility in expected.items() if 0.0 <= volatility < math.inf}
            self.drawn = {name: i for i, name in enumerate(names)}, self.memory.scenarios(names, finite)
        return self.drawn

    def losses(self, sized: Sequence[tuple[str, float, float]]) -> Floats:
        """Loss in every scenario `[S]` of positions given as (instrument, long, short), where no gain pays for another's loss."""
        place, returns = self.scenarios()
        total = np.zeros(len(returns))
        for name, long, short in sized:
            column = place.get(name)
            moves = None if column is None else returns[:, column]
            if moves is None or not math.isfinite(moves[0]):
                total += max(long, short) * BLIND_LOSS
            else:
                if long > 0.0:
                    total += long * np.maximum(-moves, 0.0)
                if short > 0.0:
                    total += short * np.maximum(moves, 0.0)
        return total
