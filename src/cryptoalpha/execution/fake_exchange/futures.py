"""The USD-M futures routes: `/fapi/v1` to `/fapi/v3`. One-way positions, cross margin, leverage 1."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import numpy as np

from cryptoalpha.core.time import MILLISECOND
from cryptoalpha.execution.fake_exchange import futures_shapes as shapes
from cryptoalpha.execution.fake_exchange.accounts import VenueOrder
from cryptoalpha.execution.fake_exchange.desk import Desk, all_orders, customer, needed, own_trades, read_wish, whole
from cryptoalpha.execution.fake_exchange.intake import RefusedError
from cryptoalpha.execution.fake_exchange.market import Listing
from cryptoalpha.execution.money import exact

if TYPE_CHECKING:
    from cryptoalpha.execution.fake_exchange.server import Call, Route, Server

FUNDING_HOURS = 8


def routes(server: Server) -> dict[tuple[str, str], Route]:
    """Every futures route."""
    from cryptoalpha.execution.fake_exchange.server import Route

    desk = FuturesDesk(server)
    return {
        ("GET", "/fapi/v1/ping"): Route(lambda call: {}),
        ("GET", "/fapi/v1/time"): Route(lambda call: {"serverTime": server.now_ms()}),
        ("GET", "/fapi/v1/exchangeInfo"): Route(desk.exchange_info),
        ("GET", "/fapi/v1/klines"): Route(desk.klines, weight=5),
        ("GET", "/fapi/v1/ticker/price"): Route(lambda call: desk.tickers(call, desk.price)),
        ("GET", "/fapi/v2/ticker/price"): Route(lambda call: desk.tickers(call, desk.price)),
        ("GET", "/fapi/v1/ticker/bookTicker"): Route(lambda call: desk.tickers(call, desk.book_ticker), weight=2),
        ("GET", "/fapi/v1/ticker/24hr"): Route(lambda call: desk.tickers(call, desk.day)),
        ("GET", "/fapi/v1/aggTrades"): Route(desk.prints, weight=20),
        ("GET", "/fapi/v1/premiumIndex"): Route(lambda call: desk.tickers(call, desk.premium)),
        ("GET", "/fapi/v1/fundingRate"): Route(desk.funding_rates),
        ("GET", "/fapi/v1/fundingInfo"): Route(lambda call: []),
        ("POST", "/fapi/v1/order"): Route(desk.new_order, "signed"),
        ("GET", "/fapi/v1/order"): Route(desk.order, "signed"),
        ("DELETE", "/fapi/v1/order"): Route(desk.cancel, "signed"),
        ("GET", "/fapi/v1/openOrder"): Route(desk.open_order, "signed"),
        ("GET", "/fapi/v1/openOrders"): Route(desk.open_orders, "signed"),
        ("DELETE", "/fapi/v1/allOpenOrders"): Route(desk.cancel_all, "signed"),
        ("GET", "/fapi/v1/allOrders"): Route(desk.all_orders, "signed", 5),
        ("GET", "/fapi/v1/userTrades"): Route(desk.user_trades, "signed", 5),
        ("GET", "/fapi/v1/income"): Route(desk.income, "signed", 30),
        **{("GET", f"/fapi/v{n}/account"): Route(desk.account, "signed", 5) for n in (1, 2, 3)},
        **{("GET", f"/fapi/v{n}/balance"): Route(desk.balance, "signed", 5) for n in (2, 3)},
        **{("GET", f"/fapi/v{n}/positionRisk"): Route(desk.position_risk, "signed", 5) for n in (2, 3)},
        ("GET", "/fapi/v1/leverageBracket"): Route(desk.brackets, "signed"),
        ("POST", "/fapi/v1/leverage"): Route(desk.set_leverage, "signed"),
        ("POST", "/fapi/v1/marginType"): Route(lambda call: {"code": 200, "msg": "success"}, "signed"),
        ("GET", "/fapi/v1/positionSide/dual"): Route(lambda call: {"dualSidePosition": False}, "signed", 30),
        ("POST", "/fapi/v1/positionSide/dual"): Route(desk.set_side, "signed"),
        ("GET", "/fapi/v1/multiAssetsMargin"): Route(lambda call: {"multiAssetsMargin": False}, "signed", 30),
        ("GET", "/fapi/v1/accountConfig"): Route(desk.configuration, "signed", 5),
        ("GET", "/fapi/v1/symbolConfig"): Route(desk.leverages, "signed", 5),
        ("GET", "/fapi/v1/commissionRate"): Route(desk.commission, "signed", 20),
    }


class FuturesDesk(Desk):
    """The futures market's routes."""

    def __init__(self, server: Server) -> None:
        super().__init__(server, perpetual=True)

    def exchange_info(self, call: Call) -> shapes.Json:
        return {
            "timezone": "UTC",
            "serverTime": self.server.now_ms(),
            "futuresType": "U_MARGINED",
            "rateLimits": [{"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 2400}],
            "exchangeFilters": [],
            "assets": [{"asset": self.exchange.config.quote, "marginAvailable": True, "autoAssetExchange": "0"}],
            "symbols": [shapes.contract(listing) for listing in self.listings()],
        }

    # ── orders ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def new_order(self, call: Call) -> shapes.Json:
        if call.params.get("positionSide", "BOTH") != "BOTH":
            raise RefusedError(-4061, "Order's position side does not match user's setting.")
        return shapes.order(self.exchange.place(customer(call), read_wish(call, self.listing(call))))

    def order(self, call: Call) -> shapes.Json:
        return shapes.order(self.found(call, -2013, "Order does not exist."))

    def open_order(self, call: Call) -> shapes.Json:
        order = self.found(call, -2013, "Order does not exist.")
        if not order.is_open:
            raise RefusedError(-2013, "Order does not exist.")
        return shapes.order(order)

    def cancel(self, call: Call) -> shapes.Json:
        order: VenueOrder = self.found(call, -2011, "Unknown order sent.")
        self.exchange.cancel(order)
        return shapes.order(order)

    def cancel_all(self, call: Call) -> shapes.Json:
        self.listing(call)
        for order in self.chosen(call):
            self.exchange.cancel(order)
        return {"code": 200, "msg": "The operation of cancel all open order is done."}

    def open_orders(self, call: Call) -> list[shapes.Json]:
        return [shapes.order(order) for order in self.chosen(call)]

    def all_orders(self, call: Call) -> list[shapes.Json]:
        return [shapes.order(order) for order in all_orders(self, call)]

    def user_trades(self, call: Call) -> list[shapes.Json]:
        return [shapes.trade(trade) for trade in own_trades(self, call)]

    # ── account ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def account(self, call: Call) -> shapes.Json:
        return shapes.account(customer(call), self.market, with_flat=not call.path.startswith("/fapi/v3"))

    def balance(self, call: Call) -> list[shapes.Json]:
        return [shapes.wallet(customer(call), self.market)]

    def position_risk(self, call: Call) -> list[shapes.Json]:
        account = customer(call)
        symbol = self.listing(call).symbol if call.params.get("symbol") else None
        wanted = [listing for listing in self.listings() if symbol in (None, listing.symbol)]
        if call.path.startswith("/fapi/v3"):
            wanted = [listing for listing in wanted if account.position(listing)]
        return [shapes.position(account, listing, self.market) for listing in wanted]

    def income(self, call: Call) -> list[shapes.Json]:
        since, until, limit = whole(call, "startTime"), whole(call, "endTime"), min(whole(call, "limit") or 100, 1000)
        kind, symbol, page = call.params.get("incomeType"), call.params.get("symbol"), whole(call, "page") or 1
        lines = [
            line
            for line in customer(call).income
            if (not kind or line.kind == kind)
            and (not symbol or line.symbol == symbol)
            and (since is None or line.at_ms >= since)
            and (until is None or line.at_ms <= until)
        ]
        return [shapes.income(line) for line in lines[(page - 1) * limit : page * limit]]

    def brackets(self, call: Call) -> list[shapes.Json]:
        return [shapes.bracket(listing) for listing in self.listings()]

    def set_leverage(self, call: Call) -> shapes.Json:
        leverage = whole(call, "leverage")
        if leverage is None or not 1 <= leverage <= 125:
            raise RefusedError(-4028, f"Leverage {leverage} is not valid")
        return {"leverage": leverage, "maxNotionalValue": "1000000000", "symbol": self.listing(call).symbol}

    def configuration(self, call: Call) -> shapes.Json:
        settings = customer(call).settings
        rights = {"canTrade": settings.may_trade, "canDeposit": True, "canWithdraw": settings.may_withdraw}
        return {"feeTier": 0, **rights, "dualSidePosition": False, "multiAssetsMargin": False, "updateTime": self.market.now_ms}

    def leverages(self, call: Call) -> list[shapes.Json]:
        listed = [self.listing(call)] if call.params.get("symbol") else self.listings()
        same = {"marginType": "CROSSED", "isAutoAddMargin": False, "leverage": 1, "maxNotionalValue": "1000000000"}
        return [{"symbol": listing.symbol, **same} for listing in listed]

    def set_side(self, call: Call) -> shapes.Json:
        if needed(call, "dualSidePosition").lower() == "false":
            raise RefusedError(-4059, "No need to change position side.")
        raise RefusedError(-4068, "Position side cannot be changed if there exists position.")

    def commission(self, call: Call) -> shapes.Json:
        costs = self.exchange.config.costs
        maker, taker = shapes.plain(exact(costs.maker_fee)), shapes.plain(exact(costs.taker_fee))
        return {"symbol": self.listing(call).symbol, "makerCommissionRate": maker, "takerCommissionRate": taker}

    # ── funding ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _settled(self, listing: Listing) -> list[tuple[int, float, float]]:
        """Time (ms), rate and mark of every settlement up to now, oldest first."""
        book, panel, i, known = self.market.book, self.market.panel, listing.place, self.market.row + 1
        opened = panel.open_time[:known] // MILLISECOND
        found: list[tuple[int, float, float]] = []
        for rates, marks, offset in (
            (book.funding_at_open, panel.open, 0),
            (book.funding_inside, panel.close, panel.interval // MILLISECOND),
        ):
            rows = np.flatnonzero(~np.isnan(rates[:known, i]))
            found += [(int(opened[row]) + offset, float(rates[row, i]), float(marks[row, i])) for row in rows]
        return sorted(found)

    def premium(self, listing: Listing) -> shapes.Json:
        """`premiumIndex`: the mark is the last price."""
        settled = self._settled(listing)
        last = shapes.price_text(self.market.last_price(listing))
        step_ms = FUNDING_HOURS * 3_600_000
        return {
            "symbol": listing.symbol,
            "markPrice": last,
            "indexPrice": last,
            "estimatedSettlePrice": last,
            "lastFundingRate": shapes.plain(Decimal(repr(settled[-1][1]))) if settled else "0.00000000",
            "interestRate": "0.00010000",
            "nextFundingTime": (self.market.now_ms // step_ms + 1) * step_ms,
            "time": self.market.now_ms,
        }

    def funding_rates(self, call: Call) -> list[shapes.Json]:
        listing, limit = self.listing(call), min(whole(call, "limit") or 100, 1000)
        since, until = whole(call, "startTime"), whole(call, "endTime")
        lines = [s for s in self._settled(listing) if (since is None or s[0] >= since) and (until is None or s[0] <= until)]
        return [
            {
                "symbol": listing.symbol,
                "fundingTime": at_ms,
                "fundingRate": shapes.plain(Decimal(repr(rate))),
                "markPrice": shapes.price_text(mark) if mark == mark else "",
            }
            for at_ms, rate, mark in (lines[:limit] if since is not None else lines[-limit:])
        ]
