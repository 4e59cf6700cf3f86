"""What reconciliation reads, and what it concludes."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Literal

import msgspec

from cryptoalpha.core.values import Adjustment, Fill, FundingPayment
from cryptoalpha.execution.venue import Balance, FundingRecord, Inquiry, OrderReport, Position, Trade

OUR_PREFIX = "ca"
"""How the client ids of this program begin."""

Invariant = Literal["I1", "I2", "I3", "I4", "I5", "I6"]


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The venue's books as they were read in one look. Each part is true of its own moment only."""

    at: int
    """Our clock after reading, UTC ns."""
    trades: tuple[Trade, ...] = ()
    """Trades of other hands that were not seen before, oldest first. Ours are booked by whoever looks after our orders."""
    open_orders: tuple[OrderReport, ...] = ()
    """All of the account's, of the book's instruments."""
    answers: Mapping[str, Inquiry] = {}
    """What the venue said of each of our unfinished orders, by client id."""
    balances: Mapping[str, Balance] = {}
    positions: Mapping[str, Position] = {}
    """Perpetuals only."""
    funding: tuple[FundingRecord, ...] = ()
    """Settlements not seen before, oldest first."""
    prices: Mapping[str, Decimal] = {}
    """Last price of each of the book's instruments."""


class OrderState(msgspec.Struct, frozen=True, kw_only=True):
    """What the ledger knows of one unfinished order."""

    client_id: str
    instrument: str
    state: str
    event: int
    quantity: Decimal
    booked: Decimal
    """Quantity of its fills, synthetic ones included."""
    value: Decimal
    """Σ quantity · price of them."""


class ForeignChange(msgspec.Struct, frozen=True, kw_only=True):
    """What others did, as the ledger keeps it: the body of a `ForeignItem`."""

    kind: Literal["trade", "transfer", "funding", "order"]
    instrument: str = ""
    changes: Mapping[str, Decimal] = {}
    """Of the foreign holding, by asset; by instrument where it is a perpetual position."""
    at: int = 0
    """When it happened, UTC ns; 0 where nobody knows."""
    message: str = ""


class Owed(msgspec.Struct, frozen=True, kw_only=True):
    """A synthetic fill whose trades the venue has not shown yet: the cursor `synthetic:CLIENT_ID` in the ledger."""

    trade_id: str
    """Of the synthetic fill; nothing is owed until that is booked."""
    quantity: Decimal
    """Not shown yet."""
    price: Decimal
    fee: Decimal
    """Quote units, of that quantity; an estimate."""
    trades: tuple[str, ...] = ()
    """Trades that turned up since and were covered by it."""


class Break(msgspec.Struct, frozen=True, kw_only=True):
    """A broken invariant. `stands` once it has been seen in two looks that lie far enough apart: what a venue shows lags."""

    invariant: Invariant
    subject: str
    """Asset, instrument or client id."""
    amount: Decimal = Decimal(0)
    """By how much; the venue's number less ours."""
    message: str
    is_dust: bool = False
    """Below the smallest step: settled like any other difference, but no reason to stop or to tell."""
    stands: bool = False


class Corrections(msgspec.Struct, frozen=True, kw_only=True):
    """What a comparison found should be written. Empty where everything is as it should be."""

    synthetic: tuple[Trade, ...] = ()
    """Trades that the venue must have made and does not show."""
    owed: Mapping[str, Owed] = {}
    """By client id, of those."""
    outcomes: tuple[Adjustment | tuple[str, FundingPayment], ...] = ()
    """In the order in which the engine must book them; funding with the name of its cause."""
    foreign: Mapping[str, ForeignChange] = {}
    """By id."""
    lost: Mapping[str, Decimal] = {}
    """By asset or perpetual instrument: what the book has lost to differences that nothing explains; given back first if it turns up."""
    compared: int = 0
    """How many differences were ever settled: part of their ids."""
    alerts: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        return not (self.synthetic or self.outcomes or self.foreign)


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """What a look at the venue's books came to. Everything in it is on the disk already."""

    at: int
    answers: Mapping[str, Inquiry]
    outcomes: tuple[Fill | FundingPayment | Adjustment, ...]
    """New in the engine's inbox."""
    breaks: tuple[Break, ...]
    stop_entries: bool
    """Whether one of them stands."""
    foreign_orders: tuple[OrderReport, ...]
    """Shown, never touched."""
    alerts: tuple[str, ...]
    """What a person should be told, each once."""
