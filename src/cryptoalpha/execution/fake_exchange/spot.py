"""The spot routes: `/api/v3` and the part of `/sapi/v1` that a client with a key asks for."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.time import parse_interval
from cryptoalpha.execution.fake_exchange import shapes
from cryptoalpha.execution.fake_exchange.accounts import Account, VenueOrder
from cryptoalpha.execution.fake_exchange.market import Listing
from cryptoalpha.execution.fake_exchange.matching import RefusedError, Wish
from cryptoalpha.execution.money import exact

if TYPE_CHECKING:
    from cryptoalpha.execution.fake_exchange.server import Call, Route, Server

DEPTH_LEVELS = 20


def routes(server: Server) -> dict[tuple[str, str], Route]:
    """Every spot route."""
    from cryptoalpha.execution.fake_exchange.server import Route

    desk = SpotDesk(server)
    return {
        ("GET", "/api/v3/ping"): Route(lambda call: {}),
        ("GET", "/api/v3/time"): Route(lambda call: {"serverTime": server.clock_ms()}),
        ("GET", "/api/v3/exchangeInfo"): Route(desk.exchange_info, weight=20),
        ("GET", "/api/v3/klines"): Route(desk.klines, weight=2),
        ("GET", "/api/v3/uiKlines"): Route(desk.klines, weight=2),
        ("POST", "/api/v3/order"): Route(desk.new_order, "signed"),
        ("POST", "/api/v3/order/test"): Route(lambda call: {}, "signed"),
        ("GET", "/api/v3/order"): Route(desk.order, "signed", 4),
        ("DELETE", "/api/v3/order"): Route(desk.cancel, "signed"),
        ("GET", "/api/v3/openOrders"): Route(desk.open_orders, "signed", 6),
        ("DELETE", "/api/v3/openOrders"): Route(desk.cancel_all, "signed"),
        ("GET", "/api/v3/allOrders"): Route(desk.all_orders, "signed", 20),
        ("GET", "/api/v3/myTrades"): Route(desk.my_trades, "signed", 20),
        ("GET", "/api/v3/account"): Route(desk.account, "signed", 20),
        ("GET", "/sapi/v1/account/apiRestrictions"): Route(desk.rights, "signed"),
    }


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
        from cryptoalpha.execution.fake_exchange.server import whole

        listing = self.listing(call)
        try:
            interval = parse_interval(needed(call, "interval"))
        except ConfigError:
            interval = 0
        if interval != self.market.panel.interval:
            raise RefusedError(-1120, "Invalid interval.")
        limit = min(whole(call, "limit") or 500, 1500 if self.perpetual else 1000)
        rows = self.market.bars(listing, since_ms=whole(call, "startTime"), until_ms=whole(call, "endTime"), limit=limit)
        return [shapes.candle(self.market, listing, int(row)) for row in rows]

    def found(self, call: Call, code: int, message: str) -> VenueOrder:
        """The order a request names by id or client id."""
        from cryptoalpha.execution.fake_exchange.server import whole

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


class SpotDesk(Desk):
    """The spot market's routes."""

    def __init__(self, server: Server) -> None:
        super().__init__(server, perpetual=False)

    def exchange_info(self, call: Call) -> shapes.Json:
        return {
            "timezone": "UTC",
            "serverTime": self.server.clock_ms(),
            "rateLimits": [{"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 6000}],
            "exchangeFilters": [],
            "symbols": [shapes.spot_symbol(listing) for listing in self.listings()],
        }

    def new_order(self, call: Call) -> shapes.Json:
        order = self.exchange.place(customer(call), read_wish(call, self.listing(call)))
        return shapes.spot_order(order, fills=True)

    def order(self, call: Call) -> shapes.Json:
        return shapes.spot_order(self.found(call, -2013, "Order does not exist."))

    def cancel(self, call: Call) -> shapes.Json:
        order = self.found(call, -2011, "Unknown order sent.")
        self.exchange.cancel(order)
        return self._canceled(order, call.params.get("newClientOrderId", ""))

    def cancel_all(self, call: Call) -> list[shapes.Json]:
        self.listing(call)
        orders = self.chosen(call)
        if not orders:
            raise RefusedError(-2011, "Unknown order sent.")
        for order in orders:
            self.exchange.cancel(order)
        return [self._canceled(order, "") for order in orders]

    def _canceled(self, order: VenueOrder, cancel_id: str) -> shapes.Json:
        shown = shapes.spot_order(order)
        del shown["time"], shown["updateTime"], shown["isWorking"]
        cancel_id = cancel_id or f"cancel_{order.order_id}"
        return shown | {"origClientOrderId": order.client_id, "clientOrderId": cancel_id, "transactTime": order.updated_ms}

    def open_orders(self, call: Call) -> list[shapes.Json]:
        return [shapes.spot_order(order) for order in self.chosen(call)]

    def all_orders(self, call: Call) -> list[shapes.Json]:
        return [shapes.spot_order(order) for order in all_orders(self, call)]

    def my_trades(self, call: Call) -> list[shapes.Json]:
        return [shapes.spot_trade(trade) for trade in own_trades(self, call)]

    def account(self, call: Call) -> shapes.Json:
        costs = self.exchange.config.costs
        maker, taker = exact(costs.maker_fee), exact(costs.taker_fee)
        return shapes.spot_account(customer(call), maker=maker, taker=taker, at_ms=self.market.now_ms)

    def rights(self, call: Call) -> shapes.Json:
        settings = customer(call).settings
        return {
            "ipRestrict": False,
            "createTime": 1_600_000_000_000,
            "enableReading": True,
            "enableWithdrawals": settings.may_withdraw,
            "enableInternalTransfer": False,
            "enableMargin": False,
            "enableFutures": settings.may_trade,
            "permitsUniversalTransfer": False,
            "enableVanillaOptions": False,
            "enableFixApiTrade": False,
            "enableFixReadOnly": False,
            "enableSpotAndMarginTrading": settings.may_trade,
            "enablePortfolioMarginTrading": False,
        }


def all_orders(desk: Desk, call: Call) -> list[VenueOrder]:
    """Orders of a symbol, from an id or a time on."""
    from cryptoalpha.execution.fake_exchange.server import whole

    listing, first = desk.listing(call), whole(call, "orderId")
    since, until, limit = whole(call, "startTime"), whole(call, "endTime"), min(whole(call, "limit") or 500, 1000)
    mine = [order for order in customer(call).orders.values() if order.listing is listing]
    if first is not None:
        return [order for order in mine if order.order_id >= first][:limit]
    mine = [o for o in mine if (since is None or o.created_ms >= since) and (until is None or o.created_ms <= until)]
    return mine[:limit] if since is not None else mine[-limit:]


def own_trades(desk: Desk, call: Call) -> list[Any]:
    """Trades of a symbol: of one order, from an id on, from a time on, else the last ones; at most `limit`, oldest first."""
    from cryptoalpha.execution.fake_exchange.server import whole

    listing, first = desk.listing(call), whole(call, "fromId")
    since, until, limit = whole(call, "startTime"), whole(call, "endTime"), min(whole(call, "limit") or 500, 1000)
    order_id = whole(call, "orderId")
    mine = customer(call).trades.get((desk.perpetual, listing.symbol), [])
    if order_id is not None:
        mine = [trade for trade in mine if trade.order.order_id == order_id]
    if first is not None:
        return [trade for trade in mine if trade.trade_id >= first][:limit]
    if since is None and until is None:
        return mine[-limit:]
    mine = [t for t in mine if (since is None or t.at_ms >= since) and (until is None or t.at_ms <= until)]
    return mine[:limit] if since is not None else mine[-limit:]
