"""A synthetic fill and the trades that turn up after it: booked once, to the last digit.

The venue said that an order was executed further than its trades show, and went on saying so. Its position is real, so it is booked as one
synthetic fill at the price the venue's average implies, with an estimated fee (`compare`). Should the trades turn up after all, they are
not booked again: what the fill already covers becomes an `Adjustment` of cash by the difference in price and fee, and only what goes beyond
it is a trade.
"""

from __future__ import annotations

from decimal import Decimal

import msgspec

from cryptoalpha.core.values import Adjustment, InstrumentRules
from cryptoalpha.execution.money import ZERO, settle
from cryptoalpha.execution.reconcile.fees import fee_value
from cryptoalpha.execution.reconcile.values import Owed
from cryptoalpha.execution.venue import Trade


def owed_key(client_id: str) -> str:
    """Cursor of the ledger under which an `Owed` is kept, as JSON."""
    return f"synthetic:{client_id}"


def redeem(
    trade: Trade, owed: Owed, rules: InstrumentRules, *, known_at: int, price: Decimal | None = None
) -> tuple[Trade | None, Adjustment | None, Owed]:
    """Set a trade that turned up against what a synthetic fill has booked.

    Args:
        trade: of the order the fill was made for.
        price: of the fee's asset, where `fees.priced_by` names an instrument.

    Returns:
        What is left to book as a trade (None: nothing), the correction of what the fill covers (None: there is none), and what is owed
        after it. The same trade again gives nothing and changes nothing.
    """
    if trade.trade_id in owed.trades or trade.trade_id == owed.trade_id:
        return None, None, owed
    covered = min(trade.quantity, owed.quantity)
    if covered == 0:
        return trade, None, owed
    whole = covered == trade.quantity
    fee = trade.fee if whole else settle(trade.fee * covered / trade.quantity)
    estimate = owed.fee if covered == owed.quantity else settle(owed.fee * covered / owed.quantity)
    signed = covered if trade.side == "buy" else -covered
    paid = fee_value(msgspec.structs.replace(trade, fee=fee), rules, price)
    in_base = fee != 0 and trade.fee_asset == rules.base
    cash = signed * (owed.price - trade.price) + estimate - (ZERO if in_base else fee if paid is None else paid)
    change = Adjustment(
        happened_at=trade.at,
        known_at=max(trade.at, known_at),
        instrument=trade.instrument,
        quantity=-fee if in_base else ZERO,
        cash=cash,
        price=trade.price,
        source=f"trade {trade.instrument} {trade.trade_id}",
        message=f"trade {trade.trade_id} turned up: {covered} of it was booked at {owed.price}, it was done at {trade.price}",
    )
    left = msgspec.structs.replace(
        owed, quantity=owed.quantity - covered, fee=owed.fee - estimate, trades=(*owed.trades, trade.trade_id) if whole else owed.trades
    )
    rest = None if whole else msgspec.structs.replace(trade, quantity=trade.quantity - covered, fee=trade.fee - fee)
    return rest, change, left
