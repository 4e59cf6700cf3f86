"""Fees in whatever asset the venue took them, and what they were worth.

In the quote currency a fee is money as it is. In the asset traded it makes the position smaller. In a third asset (`BNB`) it is paid from
what the account holds beside the book, and the book's cash gives back what it was worth at the trade, in quote currency: as if the book
had bought the asset at that price. So cash, position and foreign holding add up to the venue's balances to the last digit.
"""

from __future__ import annotations

from decimal import Decimal

from cryptoalpha.core.errors import DataError
from cryptoalpha.core.values import Fill, InstrumentRules, Order
from cryptoalpha.execution.money import settle
from cryptoalpha.execution.venue import Trade


def priced_by(trade: Trade, rules: InstrumentRules) -> str | None:
    """The instrument whose price tells what the fee was worth (`BNB/USDT`); None where the trade itself tells."""
    if trade.fee == 0 or trade.fee_asset in (rules.quote, rules.base):
        return None
    return f"{trade.fee_asset}/{rules.quote}"


def fee_value(trade: Trade, rules: InstrumentRules, price: Decimal | None = None) -> Decimal | None:
    """What the fee was worth in quote currency; None where it was paid in it.

    Args:
        price: of the fee's asset, where `priced_by` names an instrument.

    Raises:
        DataError: if that price is missing.
    """
    if trade.fee_asset == rules.quote or trade.fee == 0:
        return None
    if trade.fee_asset == rules.base:
        return settle(trade.fee * trade.price)
    if price is None or not price > 0:
        raise DataError(f"trade {trade.trade_id} of {trade.instrument}: a fee in {trade.fee_asset}, and its price is {price}")
    return settle(trade.fee * price)


def as_fill(trade: Trade, order: Order, event: int, rules: InstrumentRules, *, known_at: int, price: Decimal | None = None) -> Fill:
    """A trade of one of our orders, as the engine is told of it.

    Args:
        event: event id of the order.
        known_at: when we learned of it, UTC ns; a venue whose clock is ahead does not make it known before it happened.
        price: as in `fee_value`.
    """
    return Fill(
        happened_at=trade.at,
        known_at=max(trade.at, known_at),
        trade_id=trade.trade_id,
        client_id=order.client_id,
        instrument=trade.instrument,
        side=trade.side,
        quantity=trade.quantity,
        price=trade.price,
        fee=trade.fee,
        fee_asset=trade.fee_asset if trade.fee != 0 else rules.quote,
        order=event,
        fee_value=fee_value(trade, rules, price),
    )
