"""What the spot and the futures routes have in common: reading parameters, finding orders, candles and tickers.

Tickers are what the bars say: the last close, and half a spread around it for the best bid and ask.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

import numpy as np

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.time import DAY, MILLISECOND, parse_interval
from cryptoalpha.execution.fake_exchange import shapes
from cryptoalpha.execution.fake_exchange.accounts import Account, VenueOrder, VenueTrade
from cryptoalpha.execution.fake_exchange.candles import candles
from cryptoalpha.execution.fake_exchange.intake import RefusedError, Wish
from cryptoalpha.execution.fake_exchange.market import Listing
from cryptoalpha.execution.money import exact

if TYPE_CHECKING:
    from cryptoalpha.execution.fake_exchange.server import Call, Server


def customer(call: Call) -> Account:
    """Whose request it is; signed routes have one."""
    assert call.account is not None
    return call.account


def amount(call: Call, name: str) -> Decimal | None:
    """A decimal among the parameters; None where it is not there."""
    text = call.params.get(name)
    if not text:
        return None
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise RefusedError(-1100, f"Illegal characters found in parameter '{name}'.") from None
    if not value.is_finite():
        raise RefusedError(-1100, f"Illegal characters found in parameter '{name}'.")
    return value


def whole(call: Call, name: str) -> int | None:
    """A whole number among the parameters; None where it is not there."""
    text = call.params.get(name)
    if text is None or text == "":
        return None
    try:
        return int(text)
    except ValueError:
        raise RefusedError(-1100, f"Illegal characters found in parameter '{name}'.") from None


def needed(call: Call, name: str) -> str:
    """A parameter that must be there."""
    text = call.params.get(name)
    if not text:
        raise RefusedError(-1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed.")
    return text


def read_wish(call: Call, listing: Listing) -> Wish:
    """An order as it was sent, spot or futures."""
    kind, side = needed(call, "type"), needed(call, "side")
    if side not in ("BUY", "SELL"):
        raise RefusedError(-1117, "Invalid side.")
    quantity = amount(call, "quantity")
    if quantity is None:
        raise RefusedError(-1102, "Mandatory parameter 'quantity' was not sent, was empty/null, or malformed.")
    if kind not in ("LIMIT", "MARKET") and (kind != "LIMIT_MAKER" or listing.perpetual):
        raise RefusedError(-1116, "Invalid orderType.")
    price = amount(call, "price")
    force = call.params.get("timeInForce", "GTC")
    if kind == "MARKET":
        if price is not None:
            raise RefusedError(-1106, "Parameter 'price' sent when not required.")
    elif price is None:
        raise RefusedError(-1102, "Mandatory parameter 'price' was not sent, was empty/null, or malformed.")
    elif kind == "LIMIT":
        needed(call, "timeInForce")
    if force not in (("GTC", "IOC", "FOK", "GTX") if listing.perpetual else ("GTC", "IOC", "FOK")):
        raise RefusedError(-1115, "Invalid timeInForce.")
    return Wish(
        listing=listing,
        side="buy" if side == "BUY" else "sell",
        type=kind,
        quantity=quantity,
        price=price,
        time_in_force=force,
        client_id=call.params.get("newClientOrderId", ""),
        reduce_only=call.params.get("reduceOnly", "").lower() == "true",
        post_only=kind == "LIMIT_MAKER" or force == "GTX",
    )


class Desk:
    """What spot and futures routes have in common.

    Args:
        server: whose exchange and clock it serves.
        perpetual: which of the listings it trades.
    """

    def __init__(self, server: Server, *, perpetual: bool) -> None:
        self.server, self.exchange, self.market = server, server.exchange, server.exchange.market
        self.perpetual = perpetual

    def listing(self, call: Call) -> Listing:
        """The listing a request names."""
        listing = self.market.listing(needed(call, "symbol"), perpetual=self.perpetual)
        if listing is None:
            raise RefusedError(-1121, "Invalid symbol.")
        return listing

    def listings(self) -> list[Listing]:
        """All it trades."""
        return [listing for listing in self.market.listings if listing.perpetual is self.perpetual]

    def klines(self, call: Call) -> list[list[Any]]:
        """Candles that have closed, oldest first."""
        listing = self.listing(call)
        try:
            interval = parse_interval(needed(call, "interval"))
        except ConfigError:
            interval = 0
        if interval == 0 or interval % self.market.panel.interval:
            raise RefusedError(-1120, "Invalid interval.")
        limit = min(whole(call, "limit") or 500, 1500 if self.perpetual else 1000)
        since, until = whole(call, "startTime"), whole(call, "endTime")
        return candles(self.market, listing, interval, since_ms=since, until_ms=until, limit=limit)

    def found(self, call: Call, code: int, message: str) -> VenueOrder:
        """The order a request names by id or client id."""
        listing, order_id, client_id = self.listing(call), whole(call, "orderId"), call.params.get("origClientOrderId")
        if order_id is None and not client_id:
            raise RefusedError(-1102, "Param 'origClientOrderId' or 'orderId' must be sent, but both were empty/null!")
        order = customer(call).find(listing, order_id=order_id, client_id=client_id)
        if order is None:
            raise RefusedError(code, message)
        return order

    def chosen(self, call: Call) -> list[VenueOrder]:
        """Open orders of the symbol, or of all."""
        symbol = self.listing(call).symbol if call.params.get("symbol") else None
        return customer(call).open_orders(perpetual=self.perpetual, symbol=symbol)

    def best(self, listing: Listing) -> tuple[Decimal, Decimal]:
        """Best bid and ask."""
        last = exact(self.market.last_price(listing))
        half = last * exact(self.exchange.config.costs.half_spread)
        bid = ((last - half) / listing.tick).to_integral_value(ROUND_FLOOR) * listing.tick
        ask = ((last + half) / listing.tick).to_integral_value(ROUND_CEILING) * listing.tick
        return bid, max(ask, bid + listing.tick)

    def tickers(self, call: Call, shape: Callable[[Listing], shapes.Json]) -> shapes.Json | list[shapes.Json]:
        """One of the symbol that was named, or all of them."""
        if call.params.get("symbol"):
            return shape(self.listing(call))
        return [shape(listing) for listing in self.listings() if self.market.last_price(listing) == self.market.last_price(listing)]

    def price(self, listing: Listing) -> shapes.Json:
        """`ticker/price`."""
        shown = {"symbol": listing.symbol, "price": shapes.price_text(self.market.last_price(listing))}
        return shown | {"time": self.market.now_ms} if self.perpetual else shown

    def book_ticker(self, listing: Listing) -> shapes.Json:
        """`ticker/bookTicker`."""
        bid, ask = self.best(listing)
        return {
            "symbol": listing.symbol,
            "bidPrice": shapes.plain(bid),
            "bidQty": "10.00000000",
            "askPrice": shapes.plain(ask),
            "askQty": "10.00000000",
            "time": self.market.now_ms,
        }

    def day(self, listing: Listing) -> shapes.Json:
        """`ticker/24hr`: over the bars of the last day."""
        panel, i, row = self.market.panel, listing.place, self.market.row
        rows = np.arange(max(0, row + 1 - max(1, DAY // panel.interval)), row + 1)
        rows = rows[panel.present[rows, i]]
        if not len(rows):
            raise RefusedError(-1121, "Invalid symbol.")
        first, last = float(panel.open[rows[0], i]), self.market.last_price(listing)
        volume = float(panel.volume[rows, i].sum())
        turnover = float((panel.volume[rows, i] * panel.close[rows, i]).sum())
        bid, ask = self.best(listing)
        numbers = {
            "priceChange": last - first,
            "weightedAvgPrice": turnover / volume if volume > 0.0 else last,
            "prevClosePrice": first,
            "lastPrice": last,
            "openPrice": first,
            "highPrice": float(panel.high[rows, i].max()),
            "lowPrice": float(panel.low[rows, i].min()),
            "volume": volume,
            "quoteVolume": turnover,
        }
        return {
            "symbol": listing.symbol,
            **{name: shapes.price_text(round(value, 8)) for name, value in numbers.items()},
            "priceChangePercent": f"{100 * (last / first - 1):.3f}",
            "lastQty": "1.00000000",
            "bidPrice": shapes.plain(bid),
            "bidQty": "10.00000000",
            "askPrice": shapes.plain(ask),
            "askQty": "10.00000000",
            "openTime": int(panel.open_time[rows[0]]) // MILLISECOND,
            "closeTime": self.market.now_ms,
            "firstId": 1,
            "lastId": row + 1,
            "count": len(rows),
        }

    def prints(self, call: Call) -> list[shapes.Json]:
        """`aggTrades`: every bar as one trade of its whole volume at its close."""
        listing, panel, i = self.listing(call), self.market.panel, self.listing(call).place
        first, limit = whole(call, "fromId"), min(whole(call, "limit") or 500, 1000)
        since, until = whole(call, "startTime"), whole(call, "endTime")
        length = panel.interval // MILLISECOND
        if first is not None:
            since, until = int(panel.open_time[min(first, len(panel) - 1)]) // MILLISECOND, None
        elif since is not None:
            since -= length - 1  # a trade at the end of a bar that began before
        rows = self.market.bars(listing, since_ms=since, until_ms=None if until is None else until - length + 1, limit=limit)
        return [
            {
                "a": int(row),
                "p": shapes.price_text(float(panel.close[row, i])),
                "q": shapes.price_text(float(panel.volume[row, i])),
                "f": int(row),
                "l": int(row),
                "T": int(panel.open_time[row]) // MILLISECOND + length - 1,
                "m": bool(panel.close[row, i] < panel.open[row, i]),
                "M": True,
            }
            for row in rows
        ]

    def average(self, call: Call) -> shapes.Json:
        """`avgPrice`."""
        return {"mins": 5, "price": shapes.price_text(self.market.last_price(self.listing(call))), "closeTime": self.market.now_ms}


def all_orders(desk: Desk, call: Call) -> list[VenueOrder]:
    """Orders of a symbol, from an id or a time on."""
    listing, first = desk.listing(call), whole(call, "orderId")
    since, until, limit = whole(call, "startTime"), whole(call, "endTime"), min(whole(call, "limit") or 500, 1000)
    mine = [order for order in customer(call).orders.values() if order.listing is listing]
    if first is not None:
        return [order for order in mine if order.order_id >= first][:limit]
    mine = [o for o in mine if (since is None or o.created_ms >= since) and (until is None or o.created_ms <= until)]
    return mine[:limit] if since is not None else mine[-limit:]


def own_trades(desk: Desk, call: Call) -> list[VenueTrade]:
    """Trades of a symbol: of one order, from an id on, within a time, else the last ones; at most `limit`, oldest first.

    Binance looks over 24 hours on spot and 7 days on futures: of a start alone those after it, of an end alone those before it. Without
    either futures look over the last 7 days, spot over everything.
    """
    listing, first = desk.listing(call), whole(call, "fromId")
    since, until, limit = whole(call, "startTime"), whole(call, "endTime"), min(whole(call, "limit") or 500, 1000)
    order_id = whole(call, "orderId")
    mine = customer(call).trades.get((desk.perpetual, listing.symbol), [])
    if order_id is not None:
        mine = [trade for trade in mine if trade.order.order_id == order_id]
    if first is not None:
        if since is not None or until is not None:
            raise RefusedError(-1128, "Combination of optional parameters invalid.")
        at = bisect_left(mine, first, key=lambda trade: trade.trade_id)
        return mine[at : at + limit]
    if since is None and until is None and not desk.perpetual:
        return mine[-limit:]
    span, is_from_start = (7 if desk.perpetual else 1) * DAY // MILLISECOND, since is not None
    if since is not None and until is not None and until - since > span:
        wide = (-4165, "Invalid time interval.") if desk.perpetual else (-1127, "More than 24 hours between startTime and endTime.")
        raise RefusedError(*wide)
    if since is None:
        since = (desk.market.now_ms if until is None else until) - span
    until = since + span if until is None else until
    mine = [trade for trade in mine if since <= trade.at_ms <= until]
    return mine[:limit] if is_from_start else mine[-limit:]
