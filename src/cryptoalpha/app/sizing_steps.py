"""How risk came from the size that was wanted to the order that was sent, step by step, told from the journal alone.

Requested size → each cap that allowed less → each multiplier → the size allowed → units → rounded to the lot. The steps are those the
gate journaled (`Sizing`); units are worked out from the cash, the positions and the prices of the same row, as the gate did.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from cryptoalpha.core.time import iso
from cryptoalpha.core.values import (
    MarketState,
    Order,
    PortfolioState,
    Refusal,
    RiskEvent,
    Sizing,
    Travelling,
    event_id,
    split_event_id,
)
from cryptoalpha.risk import ladder
from cryptoalpha.risk.caps import CAPS
from cryptoalpha.store.journal_reader import JournalReader

MULTIPLIERS = frozenset({ladder.NAME, "regime"})
"""Cuts that scale what the caps left."""

CAP_NAMES = frozenset(name for name, _ in CAPS)
"""Cuts that stand by themselves: the smallest decides. What is neither is a block: it lets nothing be added to what is held."""


@dataclass(frozen=True)
class SizingStep:
    """One step on the way. Sizes are fractions of equity without a sign; `factor` is what a multiplier left of the size before it."""

    kind: Literal["cap", "block", "multiplier"]
    limit: str
    size: float
    factor: float | None
    decided: bool


@dataclass(frozen=True)
class Units:
    """The allowed size in base units, before and after rounding to the lot."""

    price: float
    equity: float
    wanted: float
    """Position that the allowed size stands for."""
    after: Decimal
    """Position after the order, if it fills whole."""


def sizing_steps(sizing: Sizing) -> tuple[SizingStep, ...]:
    """Caps and blocks in the order the gate walks them, then multipliers, which apply to the smallest cap."""
    steps: list[SizingStep] = []
    left = abs(sizing.requested)
    for limit, size in sizing.cuts:
        decided = limit == sizing.binding
        if limit in MULTIPLIERS:
            steps.append(SizingStep("multiplier", limit, size, size / left if left > 0.0 else None, decided))
            left = size
        elif limit in CAP_NAMES:
            steps.append(SizingStep("cap", limit, size, None, decided))
            left = min(left, size)
        else:
            steps.append(SizingStep("block", limit, size, None, decided))
    return tuple(steps)


def sizing_of(row: Sequence[Travelling], decision: int) -> tuple[int, Sizing] | None:
    """Place and value of the sizing of a decision among the values of its row; None in journals that hold none."""
    for place, value in enumerate(row):
        if isinstance(value, Sizing) and value.decision == decision:
            return place, value
    return None


def sizing_lines(sizing: Sizing) -> list[str]:
    """The steps in words."""
    held = f"{sizing.held:+.2%}" if sizing.held == sizing.held else "what nobody knew a price of"
    lines = [f"requested {sizing.requested:+.2%} of equity, held {held}"]
    for step in sizing_steps(sizing):
        mark = "  ← decided" if step.decided else ""
        if step.kind == "cap":
            lines.append(f"{step.limit} allows {step.size:.2%}{mark}")
        elif step.kind == "block":
            lines.append(f"{step.limit} lets nothing be added to {step.size:.2%}{mark}")
        else:
            share = f" ({step.factor:.0%})" if step.factor is not None else ""
            lines.append(f"× {step.limit}{share} leaves {step.size:.2%}{mark}")
    if not sizing.cuts:
        lines.append("no limit allows less")
    lines.append(f"allowed {sizing.allowed:+.2%}")
    return lines


def units_of(journal: JournalReader, row: int, values: Sequence[Travelling], sizing: Sizing, order: Order) -> Units | None:
    """What the allowed size is in base units, and what the order makes of it; None where the row does not say the price."""
    prices = {value.instrument: value.price for value in values if isinstance(value, MarketState)}
    price = prices.get(sizing.instrument, 0.0)
    book = _book_before(journal, row, values)
    if book is None or not price > 0.0 or any(name not in prices for name, _ in book.positions):
        return None
    equity = float(book.cash) + sum(float(quantity) * prices[name] for name, quantity in book.positions)
    held = dict(book.positions).get(sizing.instrument, Decimal(0))
    after = held + (order.quantity if order.side == "buy" else -order.quantity)
    return Units(price, equity, sizing.allowed * equity / price, after)


def units_line(units: Units, order: Order) -> str:
    """Rounding in words."""
    held = f", which leaves {units.after}" if units.after != order.quantity else ""
    return f"= {units.wanted:+.8g} at {units.price:g} of {units.equity:,.2f}; rounded to the lot: {order.side} {order.quantity}{held}"


def _book_before(journal: JournalReader, row: int, values: Sequence[Travelling]) -> PortfolioState | None:
    """Cash and positions at that row: the newest the journal holds, for it notes them whenever they change, and daily."""
    for value in values:
        if isinstance(value, PortfolioState):
            return value
    for earlier in range(row - 1, 0, -1):
        for value in journal.read(earlier)[1]:
            if isinstance(value, PortfolioState):
                return value
    return None


def events_behind(journal: JournalReader, event: int, limits: Sequence[str], instrument: str) -> list[tuple[int, RiskEvent]]:
    """The newest change of each of these limits, the whole book's or this instrument's, at or before the row of `event`: why a ladder, a
    breaker or the kill switch stood when it cut. Oldest first."""
    last, _ = split_event_id(event)
    missing, found = set(limits), list[tuple[int, RiskEvent]]()
    for row in range(last, 0, -1) if missing else ():
        values = journal.read(row)[1]
        for place in range(len(values) - 1, -1, -1):
            value = values[place]
            if isinstance(value, RiskEvent) and value.rule in missing and value.instrument in ("", instrument):
                missing.discard(value.rule)
                found.append((event_id(row, place), value))
        if not missing:
            break
    return found[::-1]


def event_words(event: RiskEvent) -> str:
    """A change of state in words."""
    where = f" for {event.instrument}" if event.instrument else ""
    return f"{event.rule}{where}: {event.state} since {iso(event.happened_at)}; {event.message}"


def refusal_words(refusal: Refusal) -> str:
    """A refusal in words."""
    return f"refused by {refusal.rule}: {refusal.message}"
