"""What Binance refuses at the door: bad filters, used ids, orders that would take, sizes nobody can pay for.

Codes and messages are Binance's. A spot sell must be covered by what is held; a buy that rests by free cash, which it locks. A buy that
takes waits for the next open, so it is refused only where it costs more than what is free and what waiting sells bring, with some room:
the next open may be lower. A futures order is covered by equity at the gross of the book: no leverage.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from cryptoalpha.core.values import Side
from cryptoalpha.execution.fake_exchange.accounts import Account
from cryptoalpha.execution.fake_exchange.market import Listing, Market
from cryptoalpha.execution.money import ZERO, exact, settle

SLACK = Decimal("1.05")
"""A purchase that waits for the next open may cost this much of what there is at the last price."""


class RefusedError(Exception):
    """What Binance answers instead of doing it."""

    def __init__(self, code: int, message: str, *, status: int = 400) -> None:
        super().__init__(message)
        self.code, self.message, self.status = code, message, status


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """An order as a customer sends it."""

    listing: Listing
    side: Side
    type: str
    quantity: Decimal
    price: Decimal | None = None
    time_in_force: str = "GTC"
    client_id: str = ""
    reduce_only: bool = False
    post_only: bool = False
    foreign: bool = False

    @property
    def takes(self) -> bool:
        """Whether it never rests."""
        return self.type == "MARKET" or self.time_in_force in ("IOC", "FOK")


def check(account: Account, wish: Wish, client_id: str, market: Market) -> None:
    """Let the order through or say why not.

    Raises:
        RefusedError: with Binance's code.
    """
    listing, last = wish.listing, market.last_price(wish.listing)
    if not account.settings.may_trade:
        raise RefusedError(-2015, "Invalid API-key, IP, or permissions for action.", status=401)
    _check_filters(wish, last)
    known = account.find(listing, order_id=None, client_id=client_id)
    if known is not None and known.is_open:
        raise _either(listing, (-2010, "Duplicate order sent."), (-4116, "ClientOrderId is duplicated."))
    if wish.post_only and wish.price is not None and (float(wish.price) >= last if wish.side == "buy" else float(wish.price) <= last):
        raise _either(
            listing,
            (-2010, "Order would immediately match and take."),
            (-5022, "Due to the order could not be executed as maker, the Post Only order will be rejected."),
        )
    if listing.perpetual:
        _check_margin(account, wish, market)
    else:
        _check_balance(account, wish, market)


def _either(listing: Listing, spot: tuple[int, str], futures: tuple[int, str]) -> RefusedError:
    """The refusal of the market in question."""
    return RefusedError(*(futures if listing.perpetual else spot))


def _check_filters(wish: Wish, last: float) -> None:
    """PRICE_FILTER, LOT_SIZE and NOTIONAL."""
    listing = wish.listing
    if not wish.quantity > 0:
        raise _either(listing, (-1013, "Invalid quantity."), (-4003, "Quantity less than or equal to zero."))
    if wish.quantity % listing.lot:
        precision = "Precision is over the maximum defined for this asset."
        raise _either(listing, (-1013, "Filter failure: LOT_SIZE"), (-1111, precision))
    if wish.price is not None:
        if not wish.price > 0:
            raise _either(listing, (-1013, "Invalid price."), (-4001, "Price less than 0."))
        if wish.price % listing.tick:
            raise _either(listing, (-1013, "Filter failure: PRICE_FILTER"), (-4014, "Price not increased by tick size."))
    if last != last:
        raise _either(listing, (-1013, "Market is closed."), (-4141, "Symbol is closed."))
    if wish.quantity * (wish.price if wish.price is not None else exact(last)) < listing.min_notional and not wish.reduce_only:
        smallest = f"Order's notional must be no smaller than {listing.min_notional} (unless you choose reduce only)."
        raise _either(listing, (-1013, "Filter failure: NOTIONAL"), (-4164, smallest))


def _check_margin(account: Account, wish: Wish, market: Market) -> None:
    """Futures: a reduction must reduce, an entry must be covered by equity."""
    listing = wish.listing
    held = account.position(listing)
    closes = held != 0 and (held < 0) == (wish.side == "buy")
    if wish.reduce_only:
        if not closes:
            raise RefusedError(-2022, "ReduceOnly Order is rejected.")
        return
    opening = wish.quantity - abs(held) if closes else wish.quantity
    if opening * exact(market.last_price(listing)) > SLACK * equity(account, market):
        raise RefusedError(-2019, "Margin is insufficient.")


def _check_balance(account: Account, wish: Wish, market: Market) -> None:
    """Spot: sells by what is held, purchases by cash."""
    listing = wish.listing
    poor = RefusedError(-2010, "Account has insufficient balance for requested action.")
    if wish.side == "sell":
        mine = account.open_orders(perpetual=False, symbol=listing.symbol)
        waiting = sum((order.remaining - order.reserved for order in mine if order.side == "sell"), ZERO)
        if wish.quantity > account.free(listing.base) - waiting:
            raise poor
    elif wish.takes:
        sells = [order for order in account.open_orders(perpetual=False) if order.side == "sell"]
        brought = sum((order.remaining * exact(market.last_price(order.listing)) for order in sells), ZERO)
        if wish.quantity * exact(market.last_price(listing)) > SLACK * (account.free(listing.quote) + brought):
            raise poor
    elif wish.price is not None and settle(wish.quantity * wish.price) > account.free(listing.quote):
        raise poor


def equity(account: Account, market: Market) -> Decimal:
    """What a futures account is worth at the last prices."""
    return account.wallet + sum((unrealized(account, symbol, market) for symbol in account.holdings), ZERO)


def unrealized(account: Account, symbol: str, market: Market) -> Decimal:
    """What a position would bring over its cost at the last price."""
    held, listing = account.holdings[symbol], market.listing(symbol, perpetual=True)
    if listing is None or not held.quantity:
        return ZERO
    return held.quantity * exact(market.last_price(listing)) - held.cost
