"""Takes orders, checks them as Binance does, and trades them against the next bar exactly as the simulated broker would.

An order that arrives after bar t is known waits and trades at the open of bar t+1: sells before buys, each side in the order of the
instruments, within the bar's participation, at the price of `execution.fill_model`, as far as cash covers it. What then remains:
of a MARKET order waits for the next bar; of an IOC order expires; a FOK order trades whole or expires; a limit order rests. An IOC order
whose price would lie beyond its limit expires untouched. A trade is stamped with the open it was made at.

Departures from Binance, because bars are all there is: orders that take liquidity wait for the next open as `NEW` instead of trading at
once, and what they may cost is not locked meanwhile (sells of the same bar may pay for buys). A futures order is covered by equity at the
gross of the book; there is no leverage and no liquidation.

Nothing here knows HTTP. Everything runs in one thread; whoever wants to know what happens appends to `listeners`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.values import Order, Side
from cryptoalpha.execution.broker import BarStep
from cryptoalpha.execution.config import ExecutionConfig
from cryptoalpha.execution.fake_exchange.accounts import Account, AccountSettings, Income, VenueOrder, VenueTrade
from cryptoalpha.execution.fake_exchange.market import MILLISECOND, Listing, Market
from cryptoalpha.execution.fill_model import FillModel, Quote
from cryptoalpha.execution.money import CENT, ZERO, exact, settle, whole_lots

SLACK = Decimal("1.05")
"""A buy is refused at once where it would cost this much more than what is free and what waiting sells bring: the next open may be lower.
"""


class RefusedError(Exception):
    """What Binance answers instead of doing it."""

    def __init__(self, code: int, message: str, *, status: int = 400) -> None:
        super().__init__(message)
        self.code, self.message, self.status = code, message, status


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something happened. `order` and `trade` are the live objects: read them at once."""

    kind: Literal["order", "trade", "balance", "funding", "bar"]
    at_ms: int
    account: Account | None = None
    order: VenueOrder | None = None
    trade: VenueTrade | None = None
    balances: dict[str, Decimal] = field(default_factory=dict)
    """By how much they moved; futures: the wallet."""
    perpetual: bool = False
    row: int = -1


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


class Exchange:
    """The market, its customers, and what waits between them.

    Args:
        market: bars and clock.
        config: what trades cost, and how much of a bar may be taken.
        accounts: the customers, by key.

    Raises:
        ConfigError: if two accounts have one key.
    """

    def __init__(self, market: Market, config: ExecutionConfig, accounts: Iterable[AccountSettings] = ()) -> None:
        self.market, self.config = market, config
        self.listeners: list[Callable[[Event], None]] = []
        self.accounts: dict[str, Account] = {}
        for settings in accounts:
            self.open_account(settings)
        self._model = FillModel(config, market.rules, market.panel.instruments, market.panel.interval)
        self._before: BarStep | None = None
        self._marks: list[float] = []
        for step in market.history:
            self._learn(step)
        self._working: dict[int, VenueOrder] = {}
        self._order_ids = 1000
        self._trade_ids: dict[str, int] = {}
        self._income_ids = 0

    def open_account(self, settings: AccountSettings) -> Account:
        """Take a new customer."""
        if settings.key in self.accounts:
            raise ConfigError(f"there is an account with the key {settings.key!r} already", hint="give every account a key of its own")
        account = self.accounts[settings.key] = Account(settings, quote=self.config.quote)
        return account

    def emit(self, event: Event) -> None:
        """Tell everybody who listens."""
        for listener in self.listeners:
            listener(event)

    # ── orders ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def place(self, account: Account, wish: Wish) -> VenueOrder:
        """Take an order, or say why not.

        Raises:
            RefusedError: with Binance's code.
        """
        self._order_ids += 1
        client_id = wish.client_id or f"web_{self._order_ids}"
        self._check(account, wish, client_id)
        now, listing = self.market.now, wish.listing
        takes = wish.type == "MARKET" or wish.time_in_force in ("IOC", "FOK")
        order = VenueOrder(
            order_id=self._order_ids,
            client_id=client_id,
            account=account,
            listing=listing,
            side=wish.side,
            type=wish.type,
            time_in_force=wish.time_in_force,
            quantity=wish.quantity,
            price=wish.price,
            reduce_only=wish.reduce_only,
            post_only=wish.post_only,
            created_ms=now // MILLISECOND,
            updated_ms=now // MILLISECOND,
            terms=Order(
                happened_at=now,
                known_at=now,
                client_id=client_id,
                instrument=listing.name,
                side=wish.side,
                quantity=wish.quantity,
                type="market" if takes else "limit",
                limit_price=None if takes else wish.price,
            ),
            due=now,
            foreign=wish.foreign,
        )
        account.add(order)
        self._working[order.order_id] = order
        if not listing.perpetual and not takes and wish.price is not None:
            account.reserve(order, wish.quantity if wish.side == "sell" else settle(wish.quantity * wish.price))
        self.emit(Event(kind="order", at_ms=order.created_ms, account=account, order=order, perpetual=listing.perpetual))
        return order

    def _check(self, account: Account, wish: Wish, client_id: str) -> None:
        listing = wish.listing
        if not account.settings.may_trade:
            raise RefusedError(-2015, "Invalid API-key, IP, or permissions for action.", status=401)
        _check_filters(wish, self.market.last_price(listing))
        known = account.find(listing, order_id=None, client_id=client_id)
        if known is not None and known.is_open:
            raise RefusedError(-4116, "ClientOrderId is duplicated.") if listing.perpetual else RefusedError(-2010, "Duplicate order sent.")
        if wish.post_only and self._would_take(wish):
            if listing.perpetual:
                raise RefusedError(-5022, "Due to the order could not be executed as maker, the Post Only order will be rejected.")
            raise RefusedError(-2010, "Order would immediately match and take.")
        self._check_cover(account, wish)

    def _would_take(self, wish: Wish) -> bool:
        last = self.market.last_price(wish.listing)
        return wish.price is not None and (float(wish.price) >= last if wish.side == "buy" else float(wish.price) <= last)

    def _check_cover(self, account: Account, wish: Wish) -> None:
        """Refuse at once what can never be paid for."""
        listing, last = wish.listing, exact(self.market.last_price(wish.listing))
        if listing.perpetual:
            held = account.position(listing)
            closes = held != 0 and (held < 0) == (wish.side == "buy")
            if wish.reduce_only and not closes:
                raise RefusedError(-2022, "ReduceOnly Order is rejected.")
            if not closes and (wish.quantity - abs(held if closes else ZERO)) * last > SLACK * self._equity(account):
                raise RefusedError(-2019, "Margin is insufficient.")
            return
        if wish.side == "sell":
            waiting = sum((o.remaining - o.reserved for o in self._waiting(account, listing) if o.side == "sell"), ZERO)
            if wish.quantity > account.free(listing.base) - waiting:
                raise RefusedError(-2010, "Account has insufficient balance for requested action.")
        elif wish.type == "MARKET" or wish.time_in_force in ("IOC", "FOK"):
            free = account.free(listing.quote) + self._sells_bring(account)
            if wish.quantity * last > SLACK * free:
                raise RefusedError(-2010, "Account has insufficient balance for requested action.")
        elif wish.price is not None and settle(wish.quantity * wish.price) > account.free(listing.quote):
            raise RefusedError(-2010, "Account has insufficient balance for requested action.")

    def _waiting(self, account: Account, listing: Listing) -> list[VenueOrder]:
        return account.open_orders(perpetual=listing.perpetual, symbol=listing.symbol)

    def _sells_bring(self, account: Account) -> Decimal:
        """What the spot sells that wait would bring at the last price."""
        sells = [order for order in account.open_orders(perpetual=False) if order.side == "sell"]
        return sum((order.remaining * exact(self.market.last_price(order.listing)) for order in sells), ZERO)

    def _equity(self, account: Account) -> Decimal:
        equity = account.wallet
        for symbol, held in account.holdings.items():
            listing = self.market.listing(symbol, perpetual=True)
            if held.quantity and listing is not None:
                equity += held.quantity * exact(self.market.last_price(listing)) - held.cost
        return equity

    def cancel(self, order: VenueOrder) -> None:
        """End an open order.

        Raises:
            RefusedError: if it is not open.
        """
        if not order.is_open:
            raise RefusedError(-2011, "Unknown order sent.")
        self._end(order, "CANCELED")

    def _end(self, order: VenueOrder, status: Literal["CANCELED", "EXPIRED"]) -> None:
        del self._working[order.order_id]
        order.account.close(order, status, self.market.now_ms)
        self.emit(
            Event(kind="order", at_ms=order.updated_ms, account=order.account, order=order, perpetual=order.listing.perpetual),
        )

    # ── bars ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def advance(self, bars: int = 1) -> int:
        """Let time pass; how many bars there were."""
        for done in range(bars):
            step = self.market.advance()
            if step is None:
                return done
            if step.funding_at_open is not None:
                self._pay_funding(step.funding_at_open, self._known(step.open), step.open_time)
            if self._working:
                self._match(step)
            if step.funding_inside is not None:
                self._pay_funding(step.funding_inside, self._known(step.close), min(step.at, step.open_time + step.interval))
            self._learn(step)
            if self.listeners:
                self.emit(Event(kind="bar", at_ms=self.market.now_ms, row=self.market.row))
        return bars

    def _learn(self, step: BarStep) -> None:
        self._model.learn(step)
        self._marks = self._known(step.close)
        self._before = step

    def _known(self, prices: Iterable[float]) -> list[float]:
        """The prices, with the last known close where one is absent."""
        if not self._marks:
            return list(prices)
        return [price if price == price else mark for price, mark in zip(prices, self._marks, strict=True)]

    def _match(self, step: BarStep) -> None:
        """Try every open order against the bar: sells first, each side in the order of the instruments, then by age."""
        marks = self._known(step.open)
        for order in sorted(self._working.values(), key=lambda o: (o.side == "buy", o.listing.place, o.order_id)):
            i = order.listing.place
            late = step.open_time - order.due
            if order.type == "MARKET" and late > self.config.stale_after_intervals * step.interval:
                self._end(order, "EXPIRED")
                continue
            if late < 0 or not step.present[i]:
                continue
            quote = self._model.quote(order.terms, step, self._before, i)
            if quote is not None:
                self._fill(order, quote, step, marks)
            order.due = step.open_time + step.interval
            if order.is_open and order.time_in_force in ("IOC", "FOK"):
                self._end(order, "EXPIRED")

    def _fill(self, order: VenueOrder, quote: Quote, step: BarStep, marks: list[float]) -> None:
        """Trade what volume and cash allow."""
        listing, account = order.listing, order.account
        if order.post_only and order.price is not None:  # it rested: the market came to it
            quote = Quote(float(order.price), takes=False)
        quantity = order.remaining
        if order.reduce_only:
            held = account.position(listing)
            quantity = min(quantity, abs(held)) if (held > 0) == (order.side == "sell") else ZERO
            if quantity == 0:
                self._end(order, "EXPIRED")
                return
        volume, share = step.volume[listing.place], self.config.costs.max_participation
        if share is not None and volume > 0.0:
            quantity = min(quantity, whole_lots(exact(share * volume), listing.lot))
            if quantity == 0:
                return
        if order.time_in_force == "FOK" and quantity < order.remaining:
            return
        price = self._model.price(order.terms, quote, quantity, volume, listing.place)
        if order.terms.limit_price is None and order.price is not None:
            if price > order.price if order.side == "buy" else price < order.price:
                return
        rate = self._model.fee_rate(quote)
        covered = self._covered(order, quantity, price, rate, marks)
        if covered < quantity:
            part = whole_lots(covered, listing.lot)
            if part > 0 and order.time_in_force != "FOK":
                self._trade(order, quote, part, self._model.price(order.terms, quote, part, volume, listing.place), step)
            if order.is_open:
                self._end(order, "EXPIRED")
            return
        self._trade(order, quote, quantity, price, step)
        if order.is_open and order.reduce_only and account.position(listing) == 0:
            self._end(order, "EXPIRED")

    def _covered(self, order: VenueOrder, quantity: Decimal, price: Decimal, rate: Decimal, marks: list[float]) -> Decimal:
        """How much of a trade the account can pay for, fee included (see `Portfolio.covered`, which this must agree with)."""
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
        free = account.wallet
        for symbol, holding in account.holdings.items():
            free -= holding.cost
            other = self.market.listing(symbol, perpetual=True)
            if holding.quantity < 0 and other is not None:
                free += 2 * holding.quantity * exact(marks[other.place])
        if closing:  # what it sets free
            free += closing * (2 * exact(marks[listing.place]) - unit) if is_buy else closing * price * (1 - rate)
        budget = free - 2 * CENT
        return quantity if opening * unit <= budget else closing + max(ZERO, budget / unit)

    def _trade(self, order: VenueOrder, quote: Quote, quantity: Decimal, price: Decimal, step: BarStep) -> None:
        """Book one execution and say so."""
        account, listing = order.account, order.listing
        key = ("f" if listing.perpetual else "s") + listing.symbol
        self._trade_ids[key] = trade_id = self._trade_ids.get(key, 100) + 1
        fee, fee_asset = self._fee(order, quantity, price, self._model.fee_rate(quote))
        trade = VenueTrade(trade_id, order, quantity, price, fee, fee_asset, is_maker=not quote.takes, at_ms=step.open_time // MILLISECOND)
        if order.reserved:
            if order.side == "sell":
                account.release(order, min(order.reserved, quantity))
            else:
                account.release(order, min(order.reserved, settle(quantity * (order.price or ZERO))))
        changes = account.book(trade)
        if listing.perpetual:
            if trade.realized:
                self._enter(account, "REALIZED_PNL", listing.symbol, trade.realized, listing.quote, trade.at_ms)
            self._enter(account, "COMMISSION", listing.symbol, -fee, fee_asset, trade.at_ms)
        if order.status == "FILLED":
            del self._working[order.order_id]
            account.close(order, "FILLED", trade.at_ms)
        self.emit(Event(kind="trade", at_ms=trade.at_ms, account=account, order=order, trade=trade, perpetual=listing.perpetual))
        self.emit(Event(kind="balance", at_ms=trade.at_ms, account=account, order=order, balances=changes, perpetual=listing.perpetual))

    def _fee(self, order: VenueOrder, quantity: Decimal, price: Decimal, rate: Decimal) -> tuple[Decimal, str]:
        """What a trade costs, and in which asset."""
        account, listing = order.account, order.listing
        mode = account.settings.fees
        if mode != "quote" and not listing.perpetual:
            other = self.market.asset_price(account.settings.fee_asset, listing.quote)
            if mode == "third" and other == other:
                fee = settle(quantity * price * rate / exact(other))
                if fee <= account.free(account.settings.fee_asset):
                    return fee, account.settings.fee_asset
            if order.side == "buy":
                return settle(quantity * rate), listing.base
        return settle(quantity * price * rate), listing.quote

    def _pay_funding(self, rates: Iterable[float], marks: list[float], when: int) -> None:
        """`amount = −position · mark · rate`, to everybody who holds a perpetual."""
        if not self.config.funding:
            return
        for place, rate in enumerate(rates):
            listing = self.market.listings[place]
            if rate != rate or not listing.perpetual:
                continue
            for account in self.accounts.values():
                held = account.position(listing)
                if held:
                    amount = settle(-held * exact(marks[place]) * exact(rate))
                    account.wallet += amount
                    at_ms = when // MILLISECOND
                    self._enter(account, "FUNDING_FEE", listing.symbol, amount, listing.quote, at_ms)
                    self.emit(Event(kind="funding", at_ms=at_ms, account=account, balances={listing.quote: amount}, perpetual=True))

    def _enter(self, account: Account, kind: str, symbol: str, amount: Decimal, asset: str, at_ms: int) -> None:
        self._income_ids += 1
        account.income.append(Income(9000 + self._income_ids, kind, symbol, amount, asset, at_ms))

    def transfer(self, account: Account, asset: str, amount: Decimal, *, futures: bool = False) -> None:
        """Money comes in, or goes out where negative."""
        if futures:
            account.transfer_wallet(amount)
            self._enter(account, "TRANSFER", "", amount, asset, self.market.now_ms)
        else:
            account.transfer(asset, amount)
        self.emit(Event(kind="balance", at_ms=self.market.now_ms, account=account, balances={asset: amount}, perpetual=futures))


def _check_filters(wish: Wish, last: float) -> None:
    """PRICE_FILTER, LOT_SIZE and NOTIONAL."""
    listing = wish.listing
    if not wish.quantity > 0:
        raise (
            RefusedError(-1013, "Invalid quantity.")
            if not listing.perpetual
            else RefusedError(-4003, "Quantity less than or equal to zero.")
        )
    if wish.quantity % listing.lot:
        raise (
            RefusedError(-1111, "Precision is over the maximum defined for this asset.")
            if listing.perpetual
            else RefusedError(-1013, "Filter failure: LOT_SIZE")
        )
    if wish.price is not None:
        if not wish.price > 0:
            raise RefusedError(-1013, "Invalid price.")
        if wish.price % listing.tick:
            raise (
                RefusedError(-4014, "Price not increased by tick size.")
                if listing.perpetual
                else RefusedError(-1013, "Filter failure: PRICE_FILTER")
            )
    if last != last:
        raise RefusedError(-1013, "Market is closed.")
    if wish.quantity * (wish.price if wish.price is not None else exact(last)) < listing.min_notional and not wish.reduce_only:
        if listing.perpetual:
            raise RefusedError(-4164, f"Order's notional must be no smaller than {listing.min_notional} (unless you choose reduce only).")
        raise RefusedError(-1013, "Filter failure: NOTIONAL")
