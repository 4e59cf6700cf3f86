"""What a trade costs, and how much of it an account can pay for.

Both agree to the last digit with the simulated broker's books (`Portfolio.covered`), written a second time for balances and wallets.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from cryptoalpha.execution.fake_exchange.accounts import VenueOrder
from cryptoalpha.execution.fake_exchange.market import Market
from cryptoalpha.execution.money import CENT, ZERO, exact, settle


def covered(order: VenueOrder, quantity: Decimal, price: Decimal, rate: Decimal, market: Market, marks: Sequence[float]) -> Decimal:
    """How much of a trade the account can pay for, fee included.

    Args:
        rate: fee as a fraction of notional.
        marks: a price of every listing at the moment of the trade.
    """
    account, listing = order.account, order.listing
    unit = price * (1 + rate)
    if not listing.perpetual:
        if order.side == "sell":
            return min(quantity, account.free(listing.base) + order.reserved)
        if account.settings.fees != "quote":
            unit = price
        budget = account.free(listing.quote) + order.reserved - 2 * CENT  # fees are rounded: leave room for it
        return quantity if quantity * unit <= budget else max(ZERO, budget / unit)
    held = account.position(listing)
    is_buy = order.side == "buy"
    closing = min(quantity, abs(held)) if held != 0 and (held < 0) == is_buy else ZERO
    opening = quantity - closing
    if opening == 0:
        return quantity
    free = account.wallet  # becomes equity less the gross of the book
    for symbol, holding in account.holdings.items():
        free -= holding.cost
        other = market.listing(symbol, perpetual=True)
        if holding.quantity < 0 and other is not None:
            free += 2 * holding.quantity * exact(marks[other.place])
    if closing:  # what it sets free
        free += closing * (2 * exact(marks[listing.place]) - unit) if is_buy else closing * price * (1 - rate)
    budget = free - 2 * CENT
    return quantity if opening * unit <= budget else closing + max(ZERO, budget / unit)


def fee_of(order: VenueOrder, quantity: Decimal, price: Decimal, rate: Decimal, market: Market) -> tuple[Decimal, str]:
    """What a trade costs, and in which asset: futures always in their quote currency."""
    account, listing = order.account, order.listing
    mode = account.settings.fees
    if mode != "quote" and not listing.perpetual:
        other = market.asset_price(account.settings.fee_asset, listing.quote)
        if mode == "third" and other == other:
            fee = settle(quantity * price * rate / exact(other))
            if fee <= account.free(account.settings.fee_asset):
                return fee, account.settings.fee_asset
        if order.side == "buy":
            return settle(quantity * rate), listing.base
    return settle(quantity * price * rate), listing.quote
