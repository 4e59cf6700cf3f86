"""Takes orders, checks them as Binance does, and trades them against the next bar exactly as the simulated broker would.

An order that arrives after bar t is known waits and trades at the open of bar t+1: sells before buys, each side in the order of the
instruments, within the bar's participation, at the price of `execution.fill_model`, as far as cash covers it. What then remains:
of a MARKET order waits for the next bar; of an IOC order expires; a FOK order trades whole or expires; a limit order rests. An IOC order
whose price would lie beyond its limit expires untouched, and so does a post-only order that the first open would make a taker. A trade is
stamped with the open it was made at.

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
from cryptoalpha.core.time import MILLISECOND
from cryptoalpha.core.values import Order
from cryptoalpha.execution.broker import BarStep
from cryptoalpha.execution.config import ExecutionConfig
from cryptoalpha.execution.fake_exchange.accounts import Account, AccountSettings, VenueOrder, VenueTrade
from cryptoalpha.execution.fake_exchange.intake import RefusedError, Wish, check
from cryptoalpha.execution.fake_exchange.market import Market
from cryptoalpha.execution.fake_exchange.settlement import covered, fee_of
from cryptoalpha.execution.fill_model import FillModel, Quote
from cryptoalpha.execution.money import ZERO, exact, settle, whole_lots


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
        self._step: BarStep | None = None
        self._is_whole = True
        self._marks: list[float] = []
        for step in market.history:
            self._learn(step)
        self._working: dict[int, VenueOrder] = {}
        self._order_ids = 1000
        self._trade_ids: dict[tuple[bool, str], int] = {}

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
        check(account, wish, client_id, self.market)
        order, listing = _opened(self._order_ids, client_id, account, wish, self.market.now), wish.listing
        account.add(order)
        self._working[order.order_id] = order
        if not listing.perpetual and not wish.takes and wish.price is not None:
            account.reserve(order, wish.quantity if wish.side == "sell" else settle(wish.quantity * wish.price))
        self.emit(Event(kind="order", at_ms=order.created_ms, account=account, order=order, perpetual=listing.perpetual))
        return order

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
            if not self.open_bar():
                return done
            self.close_bar()
        return bars

    def open_bar(self, *, whole: bool = True) -> bool:
        """The next bar opens: funding settles and orders trade. False at the end of the bars.

        Args:
            whole: whether orders that rest are tried as well; else only those that take at the open, and the others at its close.
        """
        step = self.market.coming
        if step is None:
            return False
        if step.funding_at_open is not None:
            self._pay_funding(step.funding_at_open, self._known(step.open), step.open_time)
        self._step = step
        self._is_whole = whole
        if self._working:
            self._match(step, resting=None if whole else False)
        return True

    def close_bar(self) -> None:
        """The bar is known: funding inside it settles, and everybody learns from its close."""
        step = self._step
        assert step is not None
        self._step = None
        if not self._is_whole and self._working:
            self._match(step, resting=True)
        self.market.advance()
        if step.funding_inside is not None:
            self._pay_funding(step.funding_inside, self._known(step.close), min(step.at, step.open_time + step.interval))
        self._learn(step)
        if self.listeners:
            self.emit(Event(kind="bar", at_ms=self.market.now_ms, row=self.market.row))

    def _learn(self, step: BarStep) -> None:
        self._model.learn(step)
        self._marks = self._known(step.close)
        self._before = step

    def _known(self, prices: Iterable[float]) -> list[float]:
        """The prices, with the last known close where one is absent."""
        if not self._marks:
            return list(prices)
        return [price if price == price else mark for price, mark in zip(prices, self._marks, strict=True)]

    def _match(self, step: BarStep, *, resting: bool | None) -> None:
        """Try open orders against the bar: sells first, each side in the order of the instruments, then by age.

        Args:
            resting: only those that rest (True), only those that take (False), all (None).
        """
        marks = self._known(step.open)
        tried = [order for order in self._working.values() if resting is None or (order.terms.type == "limit") is resting]
        for order in sorted(tried, key=lambda o: (o.side == "buy", o.listing.place, o.order_id)):
            i = order.listing.place
            late = step.open_time - order.due
            if order.terms.type == "market" and late > self.config.stale_after_intervals * step.interval:
                self._end(order, "EXPIRED")
                continue
            if late < 0 or not step.present[i]:
                continue
            quote = self._model.quote(order.terms, step, self._before, i)
            if quote is not None and order.post_only and quote.takes:
                if order.due == order.terms.known_at:  # it has not rested yet
                    self._end(order, "EXPIRED")
                    continue
                quote = Quote(float(order.price or ZERO), takes=False)  # it rested: the market came to it
            if quote is not None:
                self._fill(order, quote, step, marks)
            order.due = step.open_time + step.interval
            if order.is_open and order.time_in_force in ("IOC", "FOK"):
                self._end(order, "EXPIRED")

    def _fill(self, order: VenueOrder, quote: Quote, step: BarStep, marks: list[float]) -> None:
        """Trade what volume and cash allow."""
        listing, account, at_ms = order.listing, order.account, step.open_time // MILLISECOND
        volume = step.volume[listing.place]
        if _reducible(order) == 0:
            self._end(order, "EXPIRED")
            return
        quantity = _tradable(order, volume, self.config.costs.max_participation)
        if quantity == 0:
            return
        if order.time_in_force == "FOK" and quantity < order.remaining:
            return
        price = self._model.price(order.terms, quote, quantity, volume, listing.place)
        collar = order.price if order.terms.limit_price is None else None
        if collar is not None and (price > collar if order.side == "buy" else price < collar):
            return
        rate = self._model.fee_rate(quote)
        payable = covered(order, quantity, price, rate, self.market, marks)
        if payable < quantity:
            part = whole_lots(payable, listing.lot)
            if part > 0 and order.time_in_force != "FOK":
                price = self._model.price(order.terms, quote, part, volume, listing.place)
                self._trade(order, part, price, rate, takes=quote.takes, at_ms=at_ms)
            if order.is_open:
                self._end(order, "EXPIRED")
            return
        self._trade(order, quantity, price, rate, takes=quote.takes, at_ms=at_ms)
        if order.is_open and order.reduce_only and account.position(listing) == 0:
            self._end(order, "EXPIRED")

    def fill_now(self, order: VenueOrder, quantity: Decimal | None = None) -> bool:
        """Trade at once at the last close, whatever cash says: for scripted accidents.

        Args:
            quantity: the rest by default; more than that is an over-fill. A finished order trades too (late), and stays finished.

        Returns:
            False where nothing is left to trade.
        """
        quantity = order.remaining if quantity is None else quantity
        if quantity <= 0:
            return False
        price = exact(self.market.last_price(order.listing))
        self._trade(order, quantity, price, exact(self.config.costs.taker_fee), takes=True, at_ms=self.market.now_ms)
        return True

    def _trade(self, order: VenueOrder, quantity: Decimal, price: Decimal, rate: Decimal, *, takes: bool, at_ms: int) -> None:
        """Book one execution and say so."""
        account, listing = order.account, order.listing
        key = (listing.perpetual, listing.symbol)
        self._trade_ids[key] = trade_id = self._trade_ids.get(key, 100) + 1
        fee, fee_asset = fee_of(order, quantity, price, rate, self.market)
        trade = VenueTrade(trade_id, order, quantity, price, fee, fee_asset, is_maker=not takes, at_ms=at_ms)
        if order.reserved:
            used = quantity if order.side == "sell" else settle(quantity * (order.price or ZERO))
            account.release(order, min(order.reserved, used))
        changes = account.book(trade)
        if listing.perpetual:
            if trade.realized:
                account.enter("REALIZED_PNL", listing.symbol, trade.realized, listing.quote, at_ms)
            account.enter("COMMISSION", listing.symbol, -fee, fee_asset, at_ms)
        if order.status == "FILLED" and self._working.pop(order.order_id, None) is not None:
            account.close(order, "FILLED", at_ms)
        self.emit(Event(kind="trade", at_ms=at_ms, account=account, order=order, trade=trade, perpetual=listing.perpetual))
        self.emit(Event(kind="balance", at_ms=at_ms, account=account, order=order, balances=changes, perpetual=listing.perpetual))

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
                    account.enter("FUNDING_FEE", listing.symbol, amount, listing.quote, at_ms)
                    self.emit(Event(kind="funding", at_ms=at_ms, account=account, balances={listing.quote: amount}, perpetual=True))

    def transfer(self, account: Account, asset: str, amount: Decimal, *, futures: bool = False) -> None:
        """Money comes in, or goes out where negative."""
        if futures:
            account.transfer_wallet(amount)
            account.enter("TRANSFER", "", amount, asset, self.market.now_ms)
        else:
            account.transfer(asset, amount)
        self.emit(Event(kind="balance", at_ms=self.market.now_ms, account=account, balances={asset: amount}, perpetual=futures))


def _opened(order_id: int, client_id: str, account: Account, wish: Wish, now: int) -> VenueOrder:
    """The order that a wish becomes. One that never rests is priced as a market order, with its limit as the worst price."""
    return VenueOrder(
        order_id=order_id,
        client_id=client_id,
        account=account,
        listing=wish.listing,
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
            instrument=wish.listing.name,
            side=wish.side,
            quantity=wish.quantity,
            type="market" if wish.takes else "limit",
            limit_price=None if wish.takes else wish.price,
        ),
        due=now,
        foreign=wish.foreign,
    )


def _reducible(order: VenueOrder) -> Decimal:
    """How much an order may trade by what is held: its rest, and for a reduction no more than the position it closes."""
    if not order.reduce_only:
        return order.remaining
    held = order.account.position(order.listing)
    return min(order.remaining, abs(held)) if (held > 0) == (order.side == "sell") else ZERO


def _tradable(order: VenueOrder, volume: float, share: float | None) -> Decimal:
    """The same, within the share of a bar's volume that one order may take."""
    quantity = _reducible(order)
    if share is not None and volume > 0.0:
        quantity = min(quantity, whole_lots(exact(share * volume), order.listing.lot))
    return quantity
