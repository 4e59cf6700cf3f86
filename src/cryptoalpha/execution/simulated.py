"""A broker that fills orders from bars: the whole venue of a backtest, and of paper trading.

What it promises:
* An order known at time t fills at the open of the first bar that opens at or after t (`next_open`); nothing fills in the bar it was
  decided on.
  `signal_close` breaks this on purpose, for oracle A only: it fills at the close the order was decided on.
* One order takes at most `max_participation` of its bar's volume. That volume is known only when the bar has closed; it limits what could
  have been filled and never enters a decision. The rest waits for the next bar, at that bar's price, until a newer order replaces it.
* A bar that is missing is waited for; a market order more than `stale_after_intervals` late is given up (`Refusal.rule == "stale_order"`).
* Exposure grows only while equity covers it, at the prices of the fill: what cash does not cover is given up (`"insufficient_cash"`).
  Sells of a bar come before buys, so that their proceeds count.
* A limit order fills only when traded through (buy: low < limit) at the better of limit and open; a touch does not fill.
* Funding settled at a bar's open is owed on what was held before it.

No randomness, no clock, no I/O. Prices are the average of a fill and finer than the tick by `PRICE_STEPS_PER_TICK`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import ROUND_HALF_EVEN, Decimal
from typing import NamedTuple

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.time import iso
from cryptoalpha.core.values import Fill, FundingPayment, InstrumentRules, Order, Refusal
from cryptoalpha.execution.broker import BarStep, Outcome
from cryptoalpha.execution.config import ExecutionConfig
from cryptoalpha.execution.costs import Liquidity, decay_per_bar
from cryptoalpha.execution.money import CENT, ZERO, exact, settle, whole_lots
from cryptoalpha.execution.portfolio import Portfolio

PRICE_STEPS_PER_TICK = 1000
"""A fill is an average over price levels, so its price need not be a multiple of the tick."""


class _Working:
    """An order that is not finished: how much is left, and since when it could have been filled."""

    __slots__ = ("due", "event", "fills", "order", "remaining")

    def __init__(self, order: Order, event: int) -> None:
        self.order = order
        self.event = event
        self.remaining = order.quantity
        self.due = order.known_at
        self.fills = 0


class _Quote(NamedTuple):
    """What a fill starts from: the price before costs, and whether the order takes liquidity."""

    price: float
    takes: bool


class SimulatedBroker:
    """See the module header.

    Args:
        config: costs, fill rule, starting cash.
        rules: lot, tick and kind of every instrument that may be traded.

    Raises:
        ConfigError: if an instrument is quoted in another currency than `config.quote`, or bars change their instruments midway.
    """

    def __init__(self, config: ExecutionConfig, rules: Mapping[str, InstrumentRules]) -> None:
        strangers = [f"{name} (in {rule.quote})" for name, rule in rules.items() if rule.quote != config.quote]
        if strangers:
            raise ConfigError(
                f"the book is counted in {config.quote}, but {', '.join(strangers)}",
                hint="set execution.quote, or choose instruments of one quote currency",
            )
        self._config = config
        self._costs = config.costs
        self._rules = dict(rules)
        self._working: dict[str, _Working] = {}
        self._instruments: tuple[str, ...] = ()
        self._place: dict[str, int] = {}
        self._liquidity: Liquidity | None = None
        self._before: BarStep | None = None
        self._closes: Sequence[float] = ()
        self._steps = {name: rule.tick / PRICE_STEPS_PER_TICK for name, rule in rules.items()}
        self._taker_fee = exact(self._costs.taker_fee)
        self._maker_fee = exact(self._costs.maker_fee)
        self._half_spread = exact(self._costs.half_spread)
        self.account = self._open_books(tuple(rules))
        """The venue's own books; the engine's portfolio is reconciled against it."""

    def submit(self, order: Order, event: int) -> None:
        """Take an order; what is left of an older one for the instrument is dropped.

        Raises:
            ConfigError: if the instrument has no rules.
        """
        if order.instrument not in self._rules:
            raise ConfigError(f"order {order.client_id}: no rules for {order.instrument}", hint="give its lot and tick in the data set")
        self._working.pop(order.instrument, None)
        self._working[order.instrument] = _Working(order, event)

    def cancel(self, instrument: str) -> None:
        """Drop what is left of the instrument's order, if there is one."""
        self._working.pop(instrument, None)

    def pending(self) -> dict[str, Decimal]:
        """Signed quantity still to be filled, by instrument."""
        if not self._working:
            return {}
        return {name: w.remaining if w.order.side == "buy" else -w.remaining for name, w in self._working.items()}

    def on_bar(self, step: BarStep) -> list[Outcome]:
        """Funding at the open, fills at the open, funding inside the bar; then learn from its close."""
        if step.instruments is not self._instruments:
            self._meet(step)
        outcomes: list[Outcome] = []
        if step.funding_at_open is not None and self.account.positions:
            self._pay_funding(step, step.funding_at_open, step.open, step.open_time, outcomes)
        if self._working:
            self._execute(step, outcomes)
        if step.funding_inside is not None and self.account.positions:
            self._pay_funding(step, step.funding_inside, step.close, min(step.at, step.open_time + step.interval), outcomes)
        if self._liquidity is not None:
            self._liquidity.update(step.close, step.volume)
        self._closes = step.close if all(step.present) else self._known(step.close)
        self._before = step
        return outcomes

    def _known(self, prices: Sequence[float]) -> list[float]:
        """The prices, with the last known close where one is absent."""
        return [price if price == price else close for price, close in zip(prices, self._closes, strict=True)]

    def _open_books(self, instruments: tuple[str, ...]) -> Portfolio:
        perpetual = [name for name in instruments if self._rules[name].perpetual]
        return Portfolio(self._config.initial_cash, instruments, perpetual)

    def _meet(self, step: BarStep) -> None:
        """First bar: learn the order of the instruments."""
        if self._instruments and step.instruments != self._instruments:
            raise ConfigError(f"bars of {step.instruments} after bars of {self._instruments}", hint="one broker serves one book")
        unknown = [name for name in step.instruments if name not in self._rules]
        if unknown:
            raise ConfigError(f"no rules for {', '.join(unknown)}", hint="give their lot and tick in the data set")
        if not self._instruments:
            self.account = self._open_books(step.instruments)
            self._place = {name: i for i, name in enumerate(step.instruments)}
            self._closes = step.open
            if self._costs.impact > 0.0:
                decay = decay_per_bar(self._config.liquidity_half_life_days, step.interval)
                self._liquidity = Liquidity(len(step.instruments), decay, step.interval)
        self._instruments = step.instruments

    def _pay_funding(self, step: BarStep, rates: Sequence[float], marks: Sequence[float], when: int, outcomes: list[Outcome]) -> None:
        """`amount = −position · mark · rate`: longs pay while the rate is positive. An absent bar settles at its last known mark."""
        if not self._config.funding:
            return
        marks = self._known(marks)
        for name, held in self.account.positions:
            i = self._place[name]
            if not self._rules[name].perpetual or rates[i] != rates[i]:
                continue
            mark = exact(marks[i])
            payment = FundingPayment(
                happened_at=when,
                known_at=step.at,
                instrument=name,
                position=held,
                rate=rates[i],
                amount=settle(-held * mark * exact(rates[i])),
            )
            self.account.apply_funding(payment)
            outcomes.append(payment)

    def _execute(self, step: BarStep, outcomes: list[Outcome]) -> None:
        """Try every open order against the bar: sells first, each side in the order of the instruments."""
        queue = sorted(self._working.values(), key=lambda w: (w.order.side == "buy", self._place[w.order.instrument]))
        for working in queue:
            order = working.order
            i = self._place[order.instrument]
            late = step.open_time - working.due
            if order.type == "market" and late > self._config.stale_after_intervals * step.interval:
                self._give_up(working, step, "stale_order", f"no bar since {iso(working.due)} to fill it in", outcomes)
                continue
            if late < 0 or not step.present[i]:
                continue
            quote = self._quote(order, step, i)
            if quote is not None:
                self._fill(working, quote, step, i, outcomes)
            working.due = step.open_time + step.interval

    def _quote(self, order: Order, step: BarStep, i: int) -> _Quote | None:
        """The price before costs at which the order can trade in this bar, None where it cannot."""
        opening = step.open[i]
        if order.limit_price is None:
            if self._config.fill == "signal_close" and self._before is not None and self._before.present[i]:
                return _Quote(self._before.close[i], takes=True)
            return _Quote(opening, takes=True)
        limit = float(order.limit_price)
        if order.side == "buy":
            marketable, traded_through = opening <= limit, step.low[i] < limit
        else:
            marketable, traded_through = opening >= limit, step.high[i] > limit
        if not traded_through:
            return None
        return _Quote(opening if marketable else limit, takes=marketable)

    def _fill(self, working: _Working, quote: _Quote, step: BarStep, i: int, outcomes: list[Outcome]) -> None:
        """Trade what volume and cash allow."""
        order, rules = working.order, self._rules[working.order.instrument]
        quantity = working.remaining
        if order.reduce_only:
            held = self.account.position(order.instrument)
            closable = abs(held) if (held > 0) == (order.side == "sell") else ZERO
            if closable == 0:
                self._give_up(working, step, "nothing_to_reduce", f"a reduce-only {order.side} with {held} held", outcomes)
                return
            quantity = min(quantity, closable)
        volume = step.volume[i]
        if self._costs.max_participation is not None and volume > 0.0:
            quantity = min(quantity, whole_lots(exact(self._costs.max_participation * volume), rules.lot))
            if quantity == 0:
                return
        price = self._price(order, quote, quantity, volume, i)
        affordable = self._affordable(order, quantity, price, quote, step)
        if affordable < quantity:
            if affordable > 0:
                price = self._price(order, quote, affordable, volume, i)
                self._book(working, quote, affordable, price, step, outcomes)
            self._give_up(working, step, "insufficient_cash", f"cash covers {affordable} of {quantity} at {price}", outcomes)
            return
        self._book(working, quote, quantity, price, step, outcomes)
        if working.remaining == 0 or (order.reduce_only and self.account.position(order.instrument) == 0):
            del self._working[order.instrument]

    def _price(self, order: Order, quote: _Quote, quantity: Decimal, volume: float, i: int) -> Decimal:
        """Average price of the fill: the reference moved against the order by spread and impact, never beyond a limit."""
        if not quote.takes:
            return exact(quote.price)
        costs = self._costs
        move = costs.half_spread
        if costs.impact > 0.0:
            impact = self._liquidity.impact(i, costs.impact, float(quantity)) if self._liquidity is not None and volume > 0.0 else None
            move += costs.unknown_volume_slippage if impact is None else impact
        if move == 0.0:
            return exact(quote.price)
        raw = quote.price * (1.0 + move) if order.side == "buy" else quote.price * (1.0 - move)
        price = exact(raw).quantize(self._steps[order.instrument], ROUND_HALF_EVEN)
        if order.limit_price is not None:
            price = min(price, order.limit_price) if order.side == "buy" else max(price, order.limit_price)
        return price

    def _affordable(self, order: Order, quantity: Decimal, price: Decimal, quote: _Quote, step: BarStep) -> Decimal:
        """How much of `quantity` equity covers. What closes a position is always covered."""
        held = self.account.position(order.instrument)
        is_buy = order.side == "buy"
        closing = min(quantity, abs(held)) if (held < 0) == is_buy and held != 0 else ZERO
        opening = quantity - closing
        if opening == 0:
            return quantity
        fee = self._fee_rate(quote)
        marks = self._known(step.open)
        free = self.account.free_cash(marks)
        if closing:
            mark = exact(marks[self._place[order.instrument]])
            free += closing * (2 * mark - price * (1 + fee)) if is_buy else closing * price * (1 - fee)
        unit, budget = price * (1 + fee), free - 2 * CENT
        if opening * unit <= budget:
            return quantity
        return closing + (whole_lots(budget / unit, self._rules[order.instrument].lot) if budget > 0 else ZERO)

    def _fee_rate(self, quote: _Quote) -> Decimal:
        return self._taker_fee if quote.takes else self._maker_fee

    def _book(self, working: _Working, quote: _Quote, quantity: Decimal, price: Decimal, step: BarStep, outcomes: list[Outcome]) -> None:
        """Turn a quantity and a price into a fill, and enter it into the venue's own books."""
        order = working.order
        reference = exact(quote.price)
        moved = quantity * abs(price - reference) if quote.takes else ZERO
        spread = min(moved, settle(quantity * reference * self._half_spread)) if moved else ZERO
        fill = Fill(
            happened_at=order.known_at if self._config.fill == "signal_close" and order.type == "market" else step.open_time,
            known_at=step.at,
            trade_id=f"{order.client_id}-{working.fills}",
            client_id=order.client_id,
            instrument=order.instrument,
            side=order.side,
            quantity=quantity,
            price=price,
            fee=settle(quantity * price * self._fee_rate(quote)),
            fee_asset=self._config.quote,
            spread_cost=spread,
            impact_cost=moved - spread,
            order=working.event,
        )
        working.fills += 1
        working.remaining -= quantity
        self.account.apply(fill)
        outcomes.append(fill)

    def _give_up(self, working: _Working, step: BarStep, rule: str, why: str, outcomes: list[Outcome]) -> None:
        """End an order with what is left of it, and say why."""
        order = working.order
        del self._working[order.instrument]
        outcomes.append(
            Refusal(
                happened_at=step.open_time,
                known_at=step.at,
                instrument=order.instrument,
                rule=rule,
                message=f"order {order.client_id}, {working.remaining} of {order.quantity} left: {why}",
                decision=order.decision,
            )
        )
