"""How an order of ours is put to a venue, and why it would be refused there. Pure; nothing is rounded that was not rounded before.

An entry with a worst price goes out as a limit order at that price that may not rest: whatever the book does while it is on its way, it
pays no more. A reduction is a market order: a way out has no worst price. Perpetuals are told that it only reduces; spot has no such word,
and there the account's own coins are the limit.
"""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any

from cryptoalpha.core.values import InstrumentRules, Order
from cryptoalpha.execution.venue import Rejected


def objection(order: Order, rules: InstrumentRules) -> Rejected | None:
    """Why the venue would refuse the order, as far as that can be said before it is sent; such an order is not sent."""
    price = order.limit_price if order.type == "limit" else order.worst_price
    if order.quantity % rules.lot != 0:
        return Rejected(code="local:lot", message=f"{order.quantity} is no multiple of the lot {rules.lot}")
    if order.limit_price is not None and order.limit_price % rules.tick != 0:
        return Rejected(code="local:tick", message=f"{order.limit_price} is no multiple of the tick {rules.tick}")
    if price is not None and not order.reduce_only and order.quantity * price < rules.min_notional:
        return Rejected(code="local:notional", message=f"{order.quantity} at {price} is less than {rules.min_notional} {rules.quote}")
    return None


def request(order: Order, rules: InstrumentRules) -> tuple[str, str | None, dict[str, Any]]:
    """ccxt's order type, price and parameters."""
    params: dict[str, Any] = {"clientOrderId": order.client_id}
    if order.reduce_only and rules.perpetual:
        params["reduceOnly"] = True
    if order.type == "limit":
        if order.post_only:
            params["postOnly"] = True
        else:
            params["timeInForce"] = order.time_in_force.upper()
        return "limit", plain(order.limit_price), params
    if order.worst_price is not None and not order.reduce_only:
        params["timeInForce"] = "IOC"
        return "limit", plain(on_tick(order.worst_price, rules.tick, is_buy=order.side == "buy")), params
    return "market", None, params


def on_tick(worst: Decimal, tick: Decimal, *, is_buy: bool) -> Decimal:
    """A worst price on the venue's grid, never beyond what it allows."""
    return (worst / tick).to_integral_value(ROUND_FLOOR if is_buy else ROUND_CEILING) * tick


def plain(number: Decimal | None) -> str | None:
    """A number without an exponent, as venues read it."""
    return None if number is None else format(number, "f")
