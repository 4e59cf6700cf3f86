"""What the account should hold: the run's book and, beside it, what belongs to others.

Rebuilt at every start from the ledger alone: the opening holdings, everything the engine was or will be told, and what others did. Each of
those is a sum that was fixed when it was written, so the order in which things became known does not matter. The engine's own `Portfolio`
says the same, only later: it learns of a trade with its next bar.

    spot       balance of quote = cash + foreign;  balance of base = position + foreign;  any other asset is foreign
    perpetual  position = book's + foreign;  wallet − Σ position · entry price = cash + foreign

The last line holds whatever the venue's averaging: realised profit moves between its two terms and cancels.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Self

import msgspec

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.time import iso
from cryptoalpha.core.values import Adjustment, Fill, FundingPayment, InstrumentRules, Travelling
from cryptoalpha.execution.money import ZERO
from cryptoalpha.execution.reconcile.values import ForeignChange
from cryptoalpha.execution.venue import Balance, Position


class Opening(msgspec.Struct, frozen=True, kw_only=True):
    """What the account held when the run began: the cursor `opening` of the ledger, written once."""

    at: int
    cash: Decimal
    """What the run got of it."""
    assets: Mapping[str, Decimal]
    """Total of each asset."""
    positions: Mapping[str, tuple[Decimal, Decimal]] = {}
    """Perpetuals: quantity and entry price."""


Step = tuple[int, str, Decimal, Decimal]
"""When a position changed, by which trade, by how much, at what price."""


def opening_of(
    at: int, cash: Decimal, quote: str, balances: Mapping[str, Balance], positions: Mapping[str, Position] | None = None
) -> Opening:
    """The opening holdings of a run that begins now with `cash`.

    Raises:
        ConfigError: if less than that is free.
    """
    free = balances[quote].free if quote in balances else ZERO
    if free < cash:
        raise ConfigError(
            f"the run is to begin with {cash} {quote}, but {free} are free in the account at {iso(at)}",
            hint=f"set execution.initial_cash to at most {free}, or deposit {quote}; the rest of the account is never traded",
        )
    return Opening(
        at=at,
        cash=cash,
        assets={name: balance.total for name, balance in sorted(balances.items()) if balance.total != 0},
        positions={name: (held.quantity, held.entry_price) for name, held in sorted((positions or {}).items()) if held.quantity != 0},
    )


class AccountBook:
    """What the account should hold, as of everything written in the ledger.

    Args:
        rules: of the book's instruments.
        quote: currency of cash.
        opening: the holdings at the run's begin.
        is_futures: whether positions are perpetual contracts of one margin account.
    """

    def __init__(self, rules: Mapping[str, InstrumentRules], quote: str, opening: Opening, *, is_futures: bool) -> None:
        self.rules, self.quote, self.opening, self.is_futures = dict(rules), quote, opening, is_futures
        self.cash = opening.cash
        self.held: dict[str, Decimal] = dict.fromkeys(rules, ZERO)
        self.foreign: dict[str, Decimal] = dict(opening.assets)
        """By asset; by instrument where it is a perpetual position."""
        self.foreign[quote] = self.foreign.get(quote, ZERO) - opening.cash
        self.mixed: set[str] = set(opening.positions)
        """Perpetuals in whose present position others had a part: the venue's average of it is not that of our trades."""
        for name, (quantity, entry) in opening.positions.items():
            self.foreign[name] = quantity
            self.foreign[quote] -= quantity * entry
        self.trades = 0
        """Trades booked, ours and others': what rounding at the venue can add up to."""
        self.twice: list[tuple[str, str]] = []
        """Trades that were told more than once: always empty (I4)."""
        self.noted: set[str] = set()
        """Ids of what others did, as far as it is in here."""
        self._ids: set[tuple[str, str]] = set()
        self._rounds: dict[str, tuple[Step, ...]] = {}  # perpetuals: what built the present position, as it became known
        self._moves: dict[str, list[tuple[int, Decimal, Decimal]]] = {}  # of perpetuals: when, by how much our position, and others'

    def copy(self) -> Self:
        """The same book, to try corrections on."""
        twin = object.__new__(type(self))
        twin.__dict__ |= self.__dict__
        twin.held, twin.foreign, twin.twice, twin._ids = dict(self.held), dict(self.foreign), list(self.twice), set(self._ids)
        twin._rounds, twin.noted, twin.mixed = dict(self._rounds), set(self.noted), set(self.mixed)
        twin._moves = {name: list(moves) for name, moves in self._moves.items()}
        return twin

    def position(self, instrument: str) -> Decimal:
        """Base units that the run holds."""
        return self.held.get(instrument, ZERO)

    def held_before(self, instrument: str, at: int) -> tuple[Decimal, Decimal]:
        """The run's position of a perpetual just before a moment, UTC ns, and others': by everything that is known now."""
        held, others = self.held[instrument], self.foreign.get(instrument, ZERO)
        for when, ours, theirs in self._moves.get(instrument, ()):
            if when >= at:
                held, others = held - ours, others - theirs
        return held, others

    def base(self, instrument: str) -> str:
        """Where what others hold of an instrument is kept: under its asset, or under its own name where it is a perpetual."""
        return instrument if self.is_futures else self.rules[instrument].base

    def expected(self, asset: str) -> Decimal:
        """What the venue should show of an asset, or as the position of a perpetual. Of a margin account's quote: its wallet less
        Σ position · entry price."""
        total = self.foreign.get(asset, ZERO)
        if asset == self.quote:
            total += self.cash
        for name in self.rules:
            if self.base(name) == asset:
                total += self.held[name]
        return total

    def apply(self, value: Travelling) -> None:
        """Follow what the engine is told; anything but fills, funding and adjustments changes nothing."""
        if isinstance(value, Fill):
            self._fill(value)
        elif isinstance(value, FundingPayment):
            self.cash += value.amount
        elif isinstance(value, Adjustment):
            self._move(value.instrument, value.quantity, value.price, value.happened_at, value.source)
            self.cash += value.cash

    def note(self, name: str, change: ForeignChange) -> None:
        """Follow what others did; what is noted already changes nothing."""
        if name in self.noted:
            return
        self.noted.add(name)
        self.mixed |= change.changes.keys() & self.rules.keys()
        for name, amount in change.changes.items():
            self.foreign[name] = self.foreign.get(name, ZERO) + amount
            if self.is_futures and name in self.rules:
                self._moves.setdefault(name, []).append((change.at, ZERO, amount))
        self.trades += change.kind == "trade"

    def entry_price(self, instrument: str) -> Decimal | None:
        """Average price of a perpetual position, its trades in the order in which they happened; None where it is flat."""
        quantity, price = ZERO, ZERO
        for _, _, signed, at in sorted(self._rounds.get(instrument, ())):
            after = quantity + signed
            if after != 0 and (quantity == 0 or (quantity > 0) == (signed > 0)):
                price = (quantity * price + signed * at) / after
            elif after != 0 and (after > 0) != (quantity > 0):
                price = at  # through zero: what is left was opened by this trade
            quantity = after
        return price if quantity != 0 else None

    def _move(self, instrument: str, signed: Decimal, price: Decimal, at: int, cause: str) -> None:
        self.held[instrument] += signed
        if self.is_futures and signed != 0:
            self._moves.setdefault(instrument, []).append((at, signed, ZERO))
            steps = (*self._rounds.get(instrument, ()), (at, cause, signed, price))
            self._rounds[instrument] = steps if self.held[instrument] != 0 else ()
            if self.held[instrument] == self.foreign.get(instrument, ZERO) == 0:
                self.mixed.discard(instrument)

    def _fill(self, fill: Fill) -> None:
        if (fill.instrument, fill.trade_id) in self._ids:
            self.twice.append((fill.instrument, fill.trade_id))
        self._ids.add((fill.instrument, fill.trade_id))
        self.trades += 1
        signed = fill.quantity if fill.side == "buy" else -fill.quantity
        self._move(fill.instrument, signed, fill.price, fill.happened_at, fill.trade_id)
        self.cash -= signed * fill.price
        if fill.fee_value is None:
            self.cash -= fill.fee
        elif fill.fee_asset == self.rules[fill.instrument].base:
            self.held[fill.instrument] -= fill.fee
        else:  # paid by what lies beside the book, which the book's cash pays back
            self.cash -= fill.fee_value
            self.foreign[self.quote] += fill.fee_value
            self.foreign[fill.fee_asset] = self.foreign.get(fill.fee_asset, ZERO) - fill.fee
