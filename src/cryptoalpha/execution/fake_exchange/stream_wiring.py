"""Joins faults and streams to an exchange and its server: one call, `attach`, and the exchange can fail and tell.

The exchange's events become messages here. Bars are turned into market messages only while somebody listens, or once somebody asks for
the order book: a session that only trades pays nothing for them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any, Final

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.time import MILLISECOND, interval_name
from cryptoalpha.execution.fake_exchange.accounts import VenueOrder
from cryptoalpha.execution.fake_exchange.desk import whole
from cryptoalpha.execution.fake_exchange.events import AccountUpdate, BarUpdate, OrderUpdate
from cryptoalpha.execution.fake_exchange.faults import Faults
from cryptoalpha.execution.fake_exchange.intake import RefusedError
from cryptoalpha.execution.fake_exchange.matching import Event
from cryptoalpha.execution.fake_exchange.server import Call, Route, Server
from cryptoalpha.execution.fake_exchange.streams import StreamHub
from cryptoalpha.execution.fake_exchange.streams_market import DAY_MS
from cryptoalpha.execution.money import ZERO

LEAST_PAST: Final = 2
MOST_PAST: Final = 1500
"""How many bars before now a newcomer's ticker looks back on, at least and at most; else one day."""
ENDLESS: Final = Decimal("Infinity")
ROOM: Final = Decimal("0.99")
"""Share of the cash that an accident may spend: fees must be paid too."""


class Wiring:
    """What `attach` made.

    Args:
        server: a server with its exchange, not yet listening.
    """

    def __init__(self, server: Server) -> None:
        self.server, self.exchange = server, server.exchange
        self.faults = Faults(fill_now=self.fill_now, on_change=self._state_changed)
        self.hub = StreamHub(self.faults, server_ms=server.now_ms, secret_of=self._secret_of)
        self._told_row = -1
        """The last bar that the tapes have seen."""
        self._usual: dict[str, tuple[Any, str]] = {}
        """How each account pays its fees where no fault stands."""

    # ── REST that streams need ────────────────────────────────────────────────────────────────────────────────────────────────

    def routes(self) -> dict[tuple[str, str], Route]:
        """Order book and trades as the streams continue them, and the keys that open account streams."""
        found: dict[tuple[str, str], Route] = {}
        for prefix in ("/api/v3/", "/fapi/v1/"):
            found["GET", prefix + "depth"] = Route(self._depth, weight=5)
            found["GET", prefix + "trades"] = Route(self._trades, weight=5)
        for path in ("/api/v3/userDataStream", "/fapi/v1/listenKey"):
            found["POST", path] = Route(self._listen_key, "key")
            found["PUT", path] = Route(self._listen_key, "key")
            found["DELETE", path] = Route(self._drop_listen_key, "key")
        return found

    def _depth(self, call: Call) -> Any:
        self.catch_up()
        found = self.hub.depth(call.params.get("symbol", ""), call.path.startswith("/fapi"), whole(call, "limit") or 100)
        if found is None:
            raise RefusedError(-1121, "Invalid symbol.")
        return found

    def _trades(self, call: Call) -> Any:
        self.catch_up()
        return self.hub.recent_trades(call.params.get("symbol", ""), call.path.startswith("/fapi"), whole(call, "limit") or 500)

    def _listen_key(self, call: Call) -> Any:
        if call.account is None:
            raise RefusedError(-2015, "Invalid API-key, IP, or permissions for action.", status=401)
        return {"listenKey": self.hub.listen_key(call.account.key, futures=call.path.startswith("/fapi"))}

    def _drop_listen_key(self, call: Call) -> Any:
        if call.account is not None:
            self.hub.drop_listen_key(call.account.key, futures=call.path.startswith("/fapi"))
        return {}

    # ── control ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def control_faults(self, body: dict[str, Any]) -> Any:
        """`{"script": [...]}` and `{"seed": 7, "faults": 8, "reach": 12}` add, `{"clear": true}` takes all away first."""
        unknown = sorted(set(body) - {"script", "seed", "faults", "reach", "clear"})
        if unknown:
            raise ConfigError(f"faults know no {', '.join(unknown)}", hint="script, seed (with faults, reach), clear")
        if body.get("clear"):
            self.faults.clear()
        added: list[dict[str, object]] = []
        if "script" in body:
            added += self.faults.load(body["script"])
        if "seed" in body:
            added += self.faults.load_seed(int(body["seed"]), faults=int(body.get("faults", 8)), reach=int(body.get("reach", 12)))
        return {"added": added, "state": self.faults.state()}

    def control_release(self, body: dict[str, Any]) -> Any:
        """Let held answers go: `{"number": 1}` the oldest, without a number all."""
        number = body.get("number")
        return {"released": self.faults.release(None if number is None else int(number))}

    def control_disconnect(self, body: dict[str, Any]) -> Any:
        """Cut every stream at once."""
        listeners = self.hub.listeners
        self.hub.cut_all()
        return {"disconnected": listeners}

    def state(self) -> dict[str, Any]:
        """Faults and streams, for `/control/state`."""
        streams = {"listeners": self.hub.listeners, "subscriptions": self.hub.subscriptions, "sent": self.hub.sent}
        return {"faults": self.faults.state(), "streams": streams}

    # ── what faults do to the exchange ────────────────────────────────────────────────────────────────────────────────────────

    def fill_now(self, *, futures: bool, symbol: str, client_id: str, order_id: str, quantity: Decimal | None) -> bool:
        """Let an order trade for real, at once, at the last close; at most what the account can deliver (see `Exchange.fill_now`)."""
        listing = self.exchange.market.listing(symbol, perpetual=futures)
        if listing is None:
            return False
        for account in self.exchange.accounts.values():
            order = account.find(listing, order_id=int(order_id) if order_id.isdigit() else None, client_id=client_id)
            if order is not None:
                wanted = order.remaining if quantity is None else quantity
                return self.exchange.fill_now(order, min(wanted, self._deliverable(order)))
        return False

    def _deliverable(self, order: VenueOrder) -> Decimal:
        """How much of an order could trade now: accidents do not make debts."""
        account, listing = order.account, order.listing
        last = Decimal(repr(self.exchange.market.last_price(listing)))
        if listing.perpetual:
            return abs(account.position(listing)) if order.reduce_only else ENDLESS
        if order.side == "sell":
            return account.free(listing.base) + order.reserved
        return ROOM * (account.free(listing.quote) + order.reserved) / last // listing.lot * listing.lot

    def _state_changed(self) -> None:
        """The clock and the fees are as the faults say."""
        self.server.skew_ms = self.faults.skew_ms()
        asset = self.faults.fee_asset()
        for key, account in self.exchange.accounts.items():
            settings = account.settings
            usual = self._usual.setdefault(key, (settings.fees, settings.fee_asset))
            if asset is None:
                settings.fees, settings.fee_asset = usual
            else:
                settings.fees, settings.fee_asset = ("base" if asset == "base" else "third"), asset

    # ── what the exchange tells ───────────────────────────────────────────────────────────────────────────────────────────────

    def hear(self, event: Event) -> None:
        """Pass an event on to the streams."""
        if event.kind == "bar":
            if self.hub.listeners:
                self.catch_up()
            return
        account = event.account
        if account is None or not self.hub.hears(account.key, futures=event.perpetual):
            return
        if event.order is not None and event.kind in ("order", "trade"):
            self.hub.emit(account.key, _order_update(event, event.order), futures=event.perpetual)
        if event.kind in ("balance", "funding"):
            positions: tuple[tuple[str, Decimal, Decimal], ...] = ()
            if event.perpetual:
                balances: tuple[tuple[str, Decimal, Decimal], ...] = ((account.quote, account.wallet, ZERO),)
                if event.order is not None:
                    symbol = event.order.listing.symbol
                    held = account.holdings.get(symbol)
                    positions = ((symbol, held.quantity, held.entry_price),) if held is not None else ()
            else:
                balances = tuple((asset, account.free(asset), account.locked.get(asset, ZERO)) for asset in event.balances)
            reason = "FUNDING_FEE" if event.kind == "funding" else "ORDER" if event.order is not None else "DEPOSIT"
            update = AccountUpdate(at_ms=event.at_ms, balances=balances, positions=positions, reason=reason)
            self.hub.emit(account.key, update, futures=event.perpetual)

    def catch_up(self) -> None:
        """Tell the tapes of all bars since they last looked; only the newest is news to listeners, unless they saw the one before."""
        market = self.exchange.market
        panel = market.panel
        past = min(MOST_PAST, max(LEAST_PAST, DAY_MS * MILLISECOND // panel.interval))
        first = max(self._told_row + 1, market.row - past)
        was_listening = self._told_row >= 0
        self._told_row = market.row
        interval = interval_name(panel.interval)
        for row in range(first, market.row + 1):
            opened = int(panel.open_time[row]) // MILLISECOND
            for listing in market.listings:
                i = listing.place
                if not panel.present[row, i]:
                    continue
                bar = BarUpdate(
                    symbol=listing.symbol, futures=listing.perpetual, interval=interval, open_ms=opened,
                    close_ms=opened + panel.interval // MILLISECOND - 1, open=float(panel.open[row, i]), high=float(panel.high[row, i]),
                    low=float(panel.low[row, i]), close=float(panel.close[row, i]), volume=float(panel.volume[row, i]),
                )  # fmt: skip
                self.hub.publish(bar, quiet=not (was_listening and self.hub.listeners))

    def _secret_of(self, key: str) -> str | None:
        account = self.exchange.accounts.get(key)
        return None if account is None else account.settings.secret


def attach(server: Server) -> Wiring:
    """Give a server faults, WebSockets and what goes with them. Call it once, before it listens.

    Adds the controls `faults`, `release` and `disconnect`, and `faults` and `streams` to what `state` answers.
    """
    wiring = Wiring(server)
    server.faults = wiring.faults
    server.routes.update(wiring.routes())

    async def serve(request: Any, host: str, path: str) -> Any:
        wiring.catch_up()
        return await wiring.hub.serve(request, host, path)

    server.sockets = serve
    server.exchange.listeners.append(wiring.hear)
    server.control |= {"faults": wiring.control_faults, "release": wiring.control_release, "disconnect": wiring.control_disconnect}
    own_state: Callable[[dict[str, Any]], Any] = server.control["state"]
    server.control["state"] = lambda body: own_state(body) | wiring.state()
    return wiring


def _order_update(event: Event, order: VenueOrder) -> OrderUpdate:
    """The order as it stands, and the trade if that is what happened."""
    trade = event.trade
    known = OrderUpdate(
        symbol=order.listing.symbol, client_id=order.client_id, order_id=order.order_id, side=order.side.upper(), type=order.type,
        time_in_force=order.time_in_force, quantity=order.quantity, price=order.price or ZERO, filled=order.filled,
        quote_filled=order.quote_filled, execution=order.status if trade is None else "TRADE", status=order.status,
        created_ms=order.created_ms, at_ms=event.at_ms, reduce_only=order.reduce_only,
        original_client_id=order.client_id if order.status == "CANCELED" else "",
    )  # fmt: skip
    if trade is None:
        return known
    return replace(
        known, trade_id=trade.trade_id, last_quantity=trade.quantity, last_price=trade.price, fee=trade.fee, fee_asset=trade.fee_asset,
        is_maker=trade.is_maker, realized=trade.realized,
    )  # fmt: skip
