"""What streams bring besides bars, posts and readings: trades, books, liquidations, transfers.

Frozen msgspec structs like all values that travel (`core.values`), encoded as arrays in field order. They are observations: a source
stamps them, an agent reads them, nobody journals them. `happened_at` is the publisher's clock, `known_at` ours when the message had come;
where the publisher's clock runs ahead of ours the two are set equal, and the skew is measured, not believed.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from cryptoalpha.core.values import Bar, ChainReading, Post, Side, Signal, Value

Price = Annotated[float, msgspec.Meta(gt=0.0)]
Amount = Annotated[float, msgspec.Meta(ge=0.0)]


class Trade(Value, frozen=True, kw_only=True):
    """One trade of a venue; `side` is the taker's."""

    instrument: str
    venue: str
    trade_id: str
    side: Side
    price: Price
    amount: Amount
    """Base units."""


class Book(Value, frozen=True, kw_only=True):
    """The best levels of an order book, best first, as (price, amount). One level is a quote."""

    instrument: str
    venue: str
    bids: tuple[tuple[Price, Amount], ...]
    asks: tuple[tuple[Price, Amount], ...]
    sequence: int = -1
    """The venue's own number of this state; −1 where it gives none."""


class Liquidation(Value, frozen=True, kw_only=True):
    """A position closed by the venue; `side` is that of the order that closed it."""

    instrument: str
    venue: str
    side: Side
    price: Price
    amount: Amount


class Transfer(Value, frozen=True, kw_only=True):
    """Coins moved on a chain."""

    asset: str
    transaction: str
    amount: Amount
    """Units of the asset."""
    usd: float
    """Worth when it was seen; NaN where no price was known."""
    sender: str = ""
    receiver: str = ""
    """Label of a known address (an exchange), else the address; empty where there are many."""
    confirmations: int = 0


Streamed = Bar | Post | ChainReading | Trade | Book | Liquidation | Transfer | Signal
"""Everything a bus can carry."""
