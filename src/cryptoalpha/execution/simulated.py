"""A broker that fills orders from bars: the whole venue of a backtest, and of paper trading.

What it promises:
* A market order known at time t fills at the open of the first bar that opens at or after t (`next_open`); nothing fills in the bar it was
  decided on. `signal_close` breaks this on purpose, for oracle A only: it fills at the close the order was decided on.
* One order takes at most `max_participation` of its bar's volume. That volume is known only when the bar has closed; it limits what could
  have been filled and never enters a decision. The rest waits for the next bar, at that bar's price, until a newer order replaces it.
* A bar that is missing is waited for; a market order, or one that is not to wait, is given up when more than `stale_after_intervals` late
  (`Refusal.rule == "stale_order"`).
* Exposure grows only while equity covers it, at the prices of the fill: what cash does not cover is given up (`"insufficient_cash"`).
  Sells of a bar come before buys, so that their proceeds count.
* An entry that would fill beyond its `worst_price` is given up (`"price_collar"`): the market is no longer the one it was decided on.
* A limit order waits until it is traded through (`fill_model`). A post-only one that would trade at the first open it meets is refused
  (`"rejected"`); later the market comes to it, at its limit and the maker's fee.
* What is not to wait (`time_in_force` `ioc`) trades at the first open it meets, by its limit as by a worst price, and gives up the rest
  (`"expired"`); `fok` trades there whole or not at all.
* Funding settled at a bar's open is owed on what was held before it.

No randomness, no clock, no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

import msgspec

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.time import HOUR, iso
from cryptoalpha.core.values import Fill, FundingPayment, InstrumentRules, Order, Refusal
from cryptoalpha.execution.broker import REJECTED, BarStep, Outcome
from cryptoalpha.execution.config import ExecutionConfig
from cryptoalpha.execution.fill_model import FillModel, Quote
from cryptoalpha.execution.money import ZERO, exact, settle, whole_lots
from cryptoalpha.execution.portfolio import Portfolio


class _Working:
    """An order that is not finished: how much is left, and since when it could have been filled."""

    __slots__ = ("due", "event", "fills", "order", "remaining")

    def __init__(self, order: Order, event: int) -> None:
        self.order = order
        self.event = event
        self.remaining = order.quantity
        self.due = order.known_at
        self.fills = 0


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
        self._rules = dict(rules)
        self._working: dict[str, _Working] = {}
        self._instruments: tuple[str, ...] = ()
        self._place: dict[str, int] = {}
        self._before: BarStep | None = None
        self._closes: Sequence[float] = ()
        self._model = FillModel(config, rules, tuple(rules), HOUR)  # the first bar says the true order and interval
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
        self._model.learn(step)
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
            self._model = FillModel(self._config, self._rules, step.instruments, step.interval)
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
            if (order.type == "market" or order.time_in_force != "gtc") and late > self._config.stale_after_intervals * step.interval:
                self._give_up(working, step, "stale_order", f"no bar since {iso(working.due)} to fill it in", outcomes)
                continue
            if late < 0 or not step.present[i]:
                continue
            if order.time_in_force != "gtc":
                self._fill_at_once(working, step, i, outcomes)
                continue
            quote = self._model.quote(order, step, self._before, i)
            if quote is not None:
                if order.post_only and quote.takes:
                    if working.due == order.known_at:
                        self._give_up(working, step, REJECTED, f"post-only, and it would trade at the open of {step.open[i]}", outcomes)
                        continue
                    quote = Quote(float(order.limit_price or 0), takes=False)  # it rested: the market came to it
                self._fill(working, quote, step, i, outcomes)
            working.due = step.open_time + step.interval

    def _fill_at_once(self, working: _Working, step: BarStep, i: int, outcomes: list[Outcome]) -> None:
        """An order that does not wait: what the open gives, and the end of it."""
        order = working.order
        if order.limit_price is not None:  # reached at the open or not at all
            bounds = [bound for bound in (order.limit_price, order.worst_price) if bound is not None]
            worst = min(bounds) if order.side == "buy" else max(bounds)
            working.order = msgspec.structs.replace(order, type="market", limit_price=None, worst_price=worst)
        quote = self._model.quote(working.order, step, self._before, i)
        if quote is not None and (order.time_in_force == "ioc" or self._trades_whole(working, quote, step, i)):
            self._fill(working, quote, step, i, outcomes)
        if self._working.get(order.instrument) is working:
            self._give_up(working, step, "expired", "it was not to wait", outcomes)

    def _trades_whole(self, working: _Working, quote: Quote, step: BarStep, i: int) -> bool:
        """Whether what is held, volume and cash allow all of an order."""
        order, rules, quantity, volume = working.order, self._rules[working.order.instrument], working.remaining, step.volume[i]
        if order.reduce_only:
            held = self.account.position(order.instrument)
            if abs(held) < quantity or (held > 0) != (order.side == "sell"):
                return False
        share = self._config.costs.max_participation
        if share is not None and volume > 0.0 and whole_lots(exact(share * volume), rules.lot) < quantity:
            return False
        price, rate = self._model.price(order, quote, quantity, volume, i), self._model.fee_rate(quote)
        return self.account.covered(order.instrument, order.side, quantity, price, rate, self._known(step.open)) >= quantity

    def _fill(self, working: _Working, quote: Quote, step: BarStep, i: int, outcomes: list[Outcome]) -> None:
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
        if self._config.costs.max_participation is not None and volume > 0.0:
            quantity = min(quantity, whole_lots(exact(self._config.costs.max_participation * volume), rules.lot))
            if quantity == 0:
                return
        price = self._model.price(order, quote, quantity, volume, i)
        if order.worst_price is not None and (price > order.worst_price if order.side == "buy" else price < order.worst_price):
            self._give_up(working, step, "price_collar", f"it would fill at {price}, beyond {order.worst_price}", outcomes)
            return
        fee_rate = self._model.fee_rate(quote)
        covered = self.account.covered(order.instrument, order.side, quantity, price, fee_rate, self._known(step.open))
        if covered < quantity:
            part = whole_lots(covered, rules.lot)
            if part > 0:
                price = self._model.price(order, quote, part, volume, i)
                self._book(working, quote, part, price, step, outcomes)
            self._give_up(working, step, "insufficient_cash", f"cash covers {part} of {quantity} at {price}", outcomes)
            return
        self._book(working, quote, quantity, price, step, outcomes)
        if working.remaining == 0 or (order.reduce_only and self.account.position(order.instrument) == 0):
            del self._working[order.instrument]

    def _book(self, working: _Working, quote: Quote, quantity: Decimal, price: Decimal, step: BarStep, outcomes: list[Outcome]) -> None:
        """Turn a quantity and a price into a fill, and enter it into the venue's own books."""
        order = working.order
        spread, impact = self._model.split(quote, quantity, price)
        fill = Fill(
            happened_at=self._model.happened_at(order, step),
            known_at=step.at,
            trade_id=f"{order.client_id}-{working.fills}",
            client_id=order.client_id,
            instrument=order.instrument,
            side=order.side,
            quantity=quantity,
            price=price,
            fee=settle(quantity * price * self._model.fee_rate(quote)),
            fee_asset=self._config.quote,
            spread_cost=spread,
            impact_cost=impact,
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
