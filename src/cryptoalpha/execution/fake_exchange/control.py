"""What a test, or another hand, may do to a fake exchange while it runs: let time pass, look behind the counter, trade, pay in."""

from __future__ import annotations

import os
from decimal import Decimal
from typing import Any

from cryptoalpha.core.errors import VenueError
from cryptoalpha.execution.fake_exchange import shapes
from cryptoalpha.execution.fake_exchange.accounts import Account, AccountSettings
from cryptoalpha.execution.fake_exchange.intake import Wish
from cryptoalpha.execution.fake_exchange.server import Server


class Controls:
    """The answers to `/control/NAME`. Adds itself to the server.

    Args:
        server: what is controlled.
    """

    def __init__(self, server: Server) -> None:
        self.server, self.exchange = server, server.exchange
        for name in ("advance", "state", "order", "cancel", "transfer", "account", "skew", "weight_limit", "restart"):
            server.control[name] = getattr(self, name)

    def _account(self, body: dict[str, Any]) -> Account:
        key = body.get("key") or next(iter(self.exchange.accounts))
        if key not in self.exchange.accounts:
            raise VenueError(f"no account has the key {key!r}", hint=f"have: {', '.join(self.exchange.accounts)}")
        return self.exchange.accounts[key]

    def advance(self, body: dict[str, Any]) -> dict[str, Any]:
        """Let `bars` bars pass."""
        if self.server.is_timed:
            raise VenueError("the wall clock moves this market", hint="start it without `timed` to move it by hand")
        done = self.exchange.advance(int(body.get("bars", 1)))
        market = self.exchange.market
        return {"bars": done, "row": market.row, "left": market.left, "now_ms": market.now_ms}

    def state(self, body: dict[str, Any]) -> dict[str, Any]:
        """Everything there is to know; `brief` leaves out orders, trades and income."""
        market = self.exchange.market
        return {
            "pid": os.getpid(),
            "row": market.row,
            "left": market.left,
            "now_ms": market.now_ms,
            "clock_ms": self.server.now_ms(),
            "requests": dict(self.server.requests),
            "private_requests": self.server.private_requests,
            "accounts": {key: _shown(account, brief=bool(body.get("brief"))) for key, account in self.exchange.accounts.items()},
        }

    def order(self, body: dict[str, Any]) -> dict[str, Any]:
        """Another hand places an order on an account."""
        listing = self.exchange.market.named(body["instrument"])
        price = body.get("price")
        wish = Wish(
            listing=listing,
            side=body["side"],
            type="MARKET" if price is None else "LIMIT",
            quantity=Decimal(body["quantity"]),
            price=None if price is None else Decimal(price),
            time_in_force=body.get("time_in_force", "GTC"),
            client_id=body.get("client_id", ""),
            reduce_only=bool(body.get("reduce_only", False)),
            foreign=True,
        )
        return _order(self.exchange.place(self._account(body), wish))

    def cancel(self, body: dict[str, Any]) -> dict[str, Any]:
        """Another hand cancels an order by its venue id."""
        order = self._account(body).orders[int(body["order_id"])]
        self.exchange.cancel(order)
        return _order(order)

    def transfer(self, body: dict[str, Any]) -> dict[str, Any]:
        """Money comes in, or goes out where negative."""
        account = self._account(body)
        self.exchange.transfer(account, body["asset"], Decimal(body["amount"]), futures=bool(body.get("futures", False)))
        return _shown(account)

    def account(self, body: dict[str, Any]) -> dict[str, Any]:
        """Open an account, or change the rights and fees of one that is there."""
        key = body.get("key") or next(iter(self.exchange.accounts))
        account = self.exchange.accounts.get(key)
        if account is None:
            balances = {asset: Decimal(held) for asset, held in body.get("balances", {}).items()}
            settings = AccountSettings(key=key, secret=body.get("secret", "secret"), balances=balances)
            settings.wallet = Decimal(body.get("wallet", "0"))
            account = self.exchange.open_account(settings)
        for name in ("may_trade", "may_withdraw", "fees", "fee_asset", "secret"):
            if name in body:
                setattr(account.settings, name, body[name])
        return _shown(account)

    def skew(self, body: dict[str, Any]) -> dict[str, Any]:
        """Put the server's clock `ms` ahead of the wall clock."""
        self.server.skew_ms = int(body["ms"])
        return {"skew_ms": self.server.skew_ms}

    async def restart(self, body: dict[str, Any]) -> dict[str, Any]:
        """Close the public port for `down_seconds`, and open it again."""
        await self.server.restart(float(body.get("down_seconds", 0.0)))
        return {"url": self.server.url}

    def weight_limit(self, body: dict[str, Any]) -> dict[str, Any]:
        """Allow so much weight a minute; none for any."""
        self.server.weight_limit = body["limit"]
        return {"limit": self.server.weight_limit}


def _order(order: Any) -> dict[str, Any]:
    return {
        "order_id": order.order_id,
        "client_id": order.client_id,
        "instrument": order.listing.name,
        "side": order.side,
        "type": order.type,
        "status": order.status,
        "quantity": shapes.plain(order.quantity),
        "filled": shapes.plain(order.filled),
        "price": None if order.price is None else shapes.plain(order.price),
        "foreign": order.foreign,
        "created_ms": order.created_ms,
    }


def _shown(account: Account, *, brief: bool = False) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "balances": {asset: shapes.plain(total) for asset, total in account.totals.items()},
        "locked": {asset: shapes.plain(total) for asset, total in account.locked.items() if total},
        "deposits": {asset: shapes.plain(total) for asset, total in account.deposits.items()},
        "wallet": shapes.plain(account.wallet),
        "wallet_deposits": shapes.plain(account.wallet_deposits),
        "positions": {symbol: shapes.plain(held.quantity) for symbol, held in account.holdings.items() if held.quantity},
    }
    if brief:
        return shown
    trades = sorted((t for kept in account.trades.values() for t in kept), key=lambda t: (t.at_ms, t.order.order_id, t.trade_id))
    return shown | {
        "orders": [_order(order) for order in account.orders.values()],
        "trades": [
            {
                "trade_id": t.trade_id,
                "order_id": t.order.order_id,
                "client_id": t.order.client_id,
                "instrument": t.order.listing.name,
                "side": t.order.side,
                "quantity": shapes.plain(t.quantity),
                "price": shapes.plain(t.price),
                "fee": shapes.plain(t.fee),
                "fee_asset": t.fee_asset,
                "is_maker": t.is_maker,
                "at_ms": t.at_ms,
                "foreign": t.order.foreign,
            }
            for t in trades
        ],
        "income": [
            {"id": line.income_id, "kind": line.kind, "symbol": line.symbol, "amount": shapes.plain(line.amount), "at_ms": line.at_ms}
            for line in account.income
        ],
    }
