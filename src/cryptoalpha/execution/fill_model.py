"""At what price an order trades in a bar, before and after costs.

A market order trades at the bar's open. A limit order trades only when the bar goes through it (buy: low < limit; a touch does not fill),
at the better of limit and open. What takes liquidity pays half the spread and the impact; a limit order that rested pays neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_HALF_EVEN, Decimal
from typing import NamedTuple

from cryptoalpha.core.values import InstrumentRules, Order
from cryptoalpha.execution.broker import BarStep
from cryptoalpha.execution.config import ExecutionConfig
from cryptoalpha.execution.costs import Liquidity, decay_per_bar
from cryptoalpha.execution.money import ZERO, exact, settle

PRICE_STEPS_PER_TICK = 1000
"""A fill is an average over price levels, so its price need not be a multiple of the tick."""


class Quote(NamedTuple):
    """What a fill starts from: the price before costs, and whether the order takes liquidity."""

    price: float
    takes: bool


class FillModel:
    """Prices, costs and fees of the simulated venue. Learns volatility and volume from bars that have closed.

    Args:
        config: costs and fill rule.
        rules: tick of each instrument.
        instruments: order of the entries of a `BarStep`.
        interval: bar length, ns.
    """

    def __init__(self, config: ExecutionConfig, rules: Mapping[str, InstrumentRules], instruments: tuple[str, ...], interval: int) -> None:
        self._costs = config.costs
        self._at_signal_close = config.fill == "signal_close"
        self._taker_fee = exact(self._costs.taker_fee)
        self._maker_fee = exact(self._costs.maker_fee)
        self._half_spread = exact(self._costs.half_spread)
        self._price_step = [rules[name].tick / PRICE_STEPS_PER_TICK for name in instruments]
        self._liquidity: Liquidity | None = None
        if self._costs.impact > 0.0:
            self._liquidity = Liquidity(len(instruments), decay_per_bar(config.liquidity_half_life_days, interval), interval)

    def learn(self, step: BarStep) -> None:
        """Take in a bar after everything in it has been filled."""
        if self._liquidity is not None:
            self._liquidity.update(step.close, step.volume)

    def quote(self, order: Order, step: BarStep, before: BarStep | None, i: int) -> Quote | None:
        """The price before costs at which the order can trade in this bar, None where it cannot. `before` is the bar before."""
        opening = step.open[i]
        if order.limit_price is None:
            if self._at_signal_close and before is not None and before.present[i]:
                return Quote(before.close[i], takes=True)
            return Quote(opening, takes=True)
        limit = float(order.limit_price)
        if order.side == "buy":
            marketable, traded_through = opening <= limit, step.low[i] < limit
        else:
            marketable, traded_through = opening >= limit, step.high[i] > limit
        if not traded_through:
            return None
        return Quote(opening if marketable else limit, takes=marketable)

    def happened_at(self, order: Order, step: BarStep) -> int:
        """When the trade took place: at the open, or, against all honesty, at the close the order was decided on."""
        return order.known_at if self._at_signal_close and order.type == "market" else step.open_time

    def price(self, order: Order, quote: Quote, quantity: Decimal, volume: float, i: int) -> Decimal:
        """Average price of the fill: the quote moved against the order by spread and impact, never beyond a limit."""
        if not quote.takes:
            return exact(quote.price)
        move = self._costs.half_spread
        if self._liquidity is not None:
            impact = self._liquidity.impact(i, self._costs.impact, float(quantity)) if volume > 0.0 else None
            move += self._costs.unknown_volume_slippage if impact is None else impact
        if move == 0.0:
            return exact(quote.price)
        raw = quote.price * (1.0 + move) if order.side == "buy" else quote.price * (1.0 - move)
        price = exact(raw).quantize(self._price_step[i], ROUND_HALF_EVEN)
        if order.limit_price is not None:
            price = min(price, order.limit_price) if order.side == "buy" else max(price, order.limit_price)
        return price

    def fee_rate(self, quote: Quote) -> Decimal:
        """Fee as a fraction of notional."""
        return self._taker_fee if quote.takes else self._maker_fee

    def split(self, quote: Quote, quantity: Decimal, price: Decimal) -> tuple[Decimal, Decimal]:
        """Where the difference to the quote went: spread and impact, in quote currency. They add up to it exactly."""
        if not quote.takes:
            return ZERO, ZERO
        reference = exact(quote.price)
        moved = quantity * abs(price - reference)
        spread = min(moved, settle(quantity * reference * self._half_spread))
        return spread, moved - spread
