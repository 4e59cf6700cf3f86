"""The spot routes: `/api/v3` and the part of `/sapi/v1` that a client with a key asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptoalpha.execution.fake_exchange import shapes
from cryptoalpha.execution.fake_exchange.accounts import VenueOrder
from cryptoalpha.execution.fake_exchange.desk import Desk, all_orders, customer, own_trades, read_wish
from cryptoalpha.execution.fake_exchange.intake import RefusedError
from cryptoalpha.execution.money import exact

if TYPE_CHECKING:
    from cryptoalpha.execution.fake_exchange.server import Call, Route, Server


def routes(server: Server) -> dict[tuple[str, str], Route]:
    """Every spot route."""
    from cryptoalpha.execution.fake_exchange.server import Route

    desk = SpotDesk(server)
    return {
        ("GET", "/api/v3/ping"): Route(lambda call: {}),
        ("GET", "/api/v3/time"): Route(lambda call: {"serverTime": server.now_ms()}),
        ("GET", "/api/v3/exchangeInfo"): Route(desk.exchange_info, weight=20),
        ("GET", "/api/v3/klines"): Route(desk.klines, weight=2),
        ("GET", "/api/v3/uiKlines"): Route(desk.klines, weight=2),
        ("GET", "/api/v3/ticker/price"): Route(lambda call: desk.tickers(call, desk.price), weight=2),
        ("GET", "/api/v3/ticker/bookTicker"): Route(lambda call: desk.tickers(call, desk.book_ticker), weight=2),
        ("GET", "/api/v3/ticker/24hr"): Route(lambda call: desk.tickers(call, desk.day), weight=2),
        ("GET", "/api/v3/aggTrades"): Route(desk.prints, weight=4),
        ("GET", "/api/v3/avgPrice"): Route(desk.average, weight=2),
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


class SpotDesk(Desk):
    """The spot market's routes."""

    def __init__(self, server: Server) -> None:
        super().__init__(server, perpetual=False)

    def exchange_info(self, call: Call) -> shapes.Json:
        return {
            "timezone": "UTC",
            "serverTime": self.server.now_ms(),
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
