"""The fake exchange's own books: what each account owns, owes, has ordered and has traded.

They are kept apart from `execution.portfolio` on purpose: what our books are compared with must not be our books.

A spot account is balances by asset; every change is a trade, a fee or a transfer. A futures account is a wallet in the quote currency and
signed positions at average cost: `wallet − Σ cost` moves by exactly `−side · quantity · price − fee + funding` at every event, so nothing
is lost to rounding the average.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal

from cryptoalpha.core.values import Order, Side
from cryptoalpha.execution.fake_exchange.market import Listing
from cryptoalpha.execution.money import ZERO, settle

Status = Literal["NEW", "PARTIALLY_FILLED", "FILLED", "CANCELED", "EXPIRED"]
FeeMode = Literal["quote", "base", "third"]
"""What fees are charged in: the quote currency; what was bought (quote where sold); another asset, while the account has some."""


@dataclass(slots=True)
class VenueTrade:
    """One execution. Ids count up per symbol."""

    trade_id: int
    order: VenueOrder
    quantity: Decimal
    price: Decimal
    fee: Decimal
    fee_asset: str
    is_maker: bool
    at_ms: int
    realized: Decimal = ZERO
    """Futures: profit that the trade made final."""

    @property
    def quote_quantity(self) -> Decimal:
        return self.quantity * self.price


@dataclass(slots=True)
class VenueOrder:
    """One order as the exchange sees it."""

    order_id: int
    client_id: str
    account: Account
    listing: Listing
    side: Side
    type: str
    """As it was sent: `LIMIT`, `MARKET`, `LIMIT_MAKER`."""
    time_in_force: str
    quantity: Decimal
    price: Decimal | None
    reduce_only: bool
    post_only: bool
    created_ms: int
    updated_ms: int
    terms: Order
    """What the fill model prices."""
    due: int
    """Earliest open of a bar it may trade in, UTC ns."""
    status: Status = "NEW"
    filled: Decimal = ZERO
    quote_filled: Decimal = ZERO
    reserved: Decimal = ZERO
    """What is locked for it: base units of a spot sale, quote units of a resting spot purchase."""
    trades: list[VenueTrade] = field(default_factory=list)
    foreign: bool = False
    """Whether another hand placed it."""

    @property
    def remaining(self) -> Decimal:
        return self.quantity - self.filled

    @property
    def is_open(self) -> bool:
        return self.status in ("NEW", "PARTIALLY_FILLED")


@dataclass(slots=True)
class Holding:
    """A futures position at average cost."""

    quantity: Decimal = ZERO
    cost: Decimal = ZERO
    """Σ of what is held, at what it was bought for; negative for a short."""

    @property
    def entry_price(self) -> Decimal:
        return self.cost / self.quantity if self.quantity else ZERO


@dataclass(slots=True)
class Income:
    """One line of a futures account's history."""

    income_id: int
    kind: str
    symbol: str
    amount: Decimal
    asset: str
    at_ms: int


@dataclass(slots=True)
class AccountSettings:
    """How one account is treated."""

    key: str = "key"
    secret: str = "secret"
    balances: Mapping[str, Decimal] = field(default_factory=lambda: {"USDT": Decimal(100_000)})
    """What the spot account starts with."""
    wallet: Decimal = Decimal(100_000)
    """What the futures account starts with."""
    may_trade: bool = True
    may_withdraw: bool = False
    fees: FeeMode = "quote"
    fee_asset: str = "BNB"
    """Asset of the fee mode `third`."""


class Account:
    """One customer.

    Args:
        settings: its key, rights, fees and what it starts with.
        quote: currency that futures are settled in.
    """

    def __init__(self, settings: AccountSettings, *, quote: str = "USDT") -> None:
        self.settings, self.quote = settings, quote
        self.totals: dict[str, Decimal] = {asset: Decimal(amount) for asset, amount in settings.balances.items()}
        self.locked: dict[str, Decimal] = {}
        self.deposits: dict[str, Decimal] = dict(self.totals)
        """What came in less what went out, by asset; spot."""
        self.wallet = Decimal(settings.wallet)
        self.wallet_deposits = self.wallet
        self.holdings: dict[str, Holding] = {}
        self.income: list[Income] = []
        self.orders: dict[int, VenueOrder] = {}
        self.trades: dict[tuple[bool, str], list[VenueTrade]] = {}
        """By (perpetual, symbol), oldest first."""
        self._live: dict[tuple[bool, str], dict[int, VenueOrder]] = {}
        self._by_client_id: dict[tuple[bool, str, str], VenueOrder] = {}

    @property
    def key(self) -> str:
        return self.settings.key

    # ── orders ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def add(self, order: VenueOrder) -> None:
        """Take an order into the books; its client id now names this one."""
        listing = order.listing
        self.orders[order.order_id] = order
        self._by_client_id[listing.perpetual, listing.symbol, order.client_id] = order
        self._live.setdefault((listing.perpetual, listing.symbol), {})[order.order_id] = order

    def close(self, order: VenueOrder, status: Status, at_ms: int) -> None:
        """End an order and give back what was locked for it."""
        order.status, order.updated_ms = status, at_ms
        self.release(order, order.reserved)
        listing = order.listing
        del self._live[listing.perpetual, listing.symbol][order.order_id]

    def open_orders(self, *, perpetual: bool, symbol: str | None = None) -> list[VenueOrder]:
        """Orders that are not finished, oldest first."""
        if symbol is not None:
            return list(self._live.get((perpetual, symbol), {}).values())
        found = [order for key, orders in self._live.items() if key[0] is perpetual for order in orders.values()]
        return sorted(found, key=lambda order: order.order_id)

    def find(self, listing: Listing, *, order_id: int | None, client_id: str | None) -> VenueOrder | None:
        """The order with this id, else the newest one with this client id."""
        if order_id is not None:
            order = self.orders.get(order_id)
            return order if order is not None and order.listing is listing else None
        return self._by_client_id.get((listing.perpetual, listing.symbol, client_id or ""))

    # ── spot ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def free(self, asset: str) -> Decimal:
        """Spot: what is not locked by orders."""
        return self.totals.get(asset, ZERO) - self.locked.get(asset, ZERO)

    def reserve(self, order: VenueOrder, amount: Decimal) -> None:
        """Lock an amount for a spot order."""
        asset = order.listing.base if order.side == "sell" else order.listing.quote
        order.reserved += amount
        self.locked[asset] = self.locked.get(asset, ZERO) + amount

    def release(self, order: VenueOrder, amount: Decimal) -> None:
        """Unlock part of what was locked for a spot order."""
        if amount:
            asset = order.listing.base if order.side == "sell" else order.listing.quote
            order.reserved -= amount
            self.locked[asset] -= amount

    def transfer(self, asset: str, amount: Decimal) -> None:
        """Spot: a deposit, or a withdrawal where negative."""
        self.totals[asset] = self.totals.get(asset, ZERO) + amount
        self.deposits[asset] = self.deposits.get(asset, ZERO) + amount

    def transfer_wallet(self, amount: Decimal) -> None:
        """Futures: the same."""
        self.wallet += amount
        self.wallet_deposits += amount

    def enter(self, kind: str, symbol: str, amount: Decimal, asset: str, at_ms: int) -> None:
        """Futures: one line of the history of the wallet."""
        self.income.append(Income(9001 + len(self.income), kind, symbol, amount, asset, at_ms))

    # ── trades ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def book(self, trade: VenueTrade) -> dict[str, Decimal]:
        """Enter a trade; what each spot balance moved by, or for futures the wallet."""
        order, listing = trade.order, trade.order.listing
        order.trades.append(trade)
        order.filled += trade.quantity
        order.quote_filled += trade.quote_quantity
        order.updated_ms = trade.at_ms
        if order.is_open:
            order.status = "FILLED" if order.filled >= order.quantity else "PARTIALLY_FILLED"
        self.trades.setdefault((listing.perpetual, listing.symbol), []).append(trade)
        signed = trade.quantity if order.side == "buy" else -trade.quantity
        if listing.perpetual:
            before = self.wallet
            trade.realized = self._move(listing.symbol, signed, trade.price)
            self.wallet += trade.realized - trade.fee
            return {listing.quote: self.wallet - before}
        changes = {listing.base: signed, listing.quote: -signed * trade.price}
        changes[trade.fee_asset] = changes.get(trade.fee_asset, ZERO) - trade.fee
        for asset, change in changes.items():
            self.totals[asset] = self.totals.get(asset, ZERO) + change
        return changes

    def _move(self, symbol: str, signed: Decimal, price: Decimal) -> Decimal:
        """Change a position; the profit that this made final. `wallet − Σ cost` falls by exactly `signed · price`."""
        held = self.holdings.setdefault(symbol, Holding())
        realized = ZERO
        closing = ZERO
        if held.quantity and (held.quantity > 0) != (signed > 0):
            closing = min(abs(signed), abs(held.quantity)) * (1 if signed > 0 else -1)
            whole = closing == -held.quantity
            released = held.cost if whole else settle(held.cost * -closing / held.quantity)
            realized = -closing * price - released
            held.quantity += closing
            held.cost -= released
        opening = signed - closing
        held.quantity += opening
        held.cost += opening * price
        return realized

    def position(self, listing: Listing) -> Decimal:
        """Base units held; spot: the balance."""
        if listing.perpetual:
            held = self.holdings.get(listing.symbol)
            return held.quantity if held is not None else ZERO
        return self.totals.get(listing.base, ZERO)
