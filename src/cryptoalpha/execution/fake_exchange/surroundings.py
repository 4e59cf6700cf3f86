"""What a client asks before it trades, where nobody has told it not to: coins, fees, status, margin pairs, other kinds of futures.

Enough that a ccxt client with no options but its addresses loads its markets with a key set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptoalpha.execution.fake_exchange.desk import Desk, customer
from cryptoalpha.execution.fake_exchange.shapes import Json, plain
from cryptoalpha.execution.money import ZERO, exact

if TYPE_CHECKING:
    from cryptoalpha.execution.fake_exchange.server import Call, Route, Server


def routes(server: Server) -> dict[tuple[str, str], Route]:
    """Every such route."""
    from cryptoalpha.execution.fake_exchange.server import Route

    desk = Surroundings(server, perpetual=False)
    return {
        ("GET", "/sapi/v1/system/status"): Route(lambda call: {"status": 0, "msg": "normal"}),
        ("GET", "/sapi/v1/capital/config/getall"): Route(desk.coins, "signed", 10),
        ("GET", "/sapi/v1/asset/tradeFee"): Route(desk.fees, "signed"),
        ("GET", "/api/v3/account/commission"): Route(desk.commission, "signed", 20),
        ("GET", "/sapi/v1/margin/allPairs"): Route(lambda call: [], "key"),
        ("GET", "/sapi/v1/margin/isolated/allPairs"): Route(lambda call: [], "signed", 10),
        ("GET", "/dapi/v1/exchangeInfo"): Route(lambda call: {"serverTime": server.now_ms(), "symbols": []}),
        ("GET", "/eapi/v1/exchangeInfo"): Route(lambda call: {"serverTime": server.now_ms(), "optionSymbols": []}),
    }


class Surroundings(Desk):
    """Answers made of what is listed and what the account owns."""

    def coins(self, call: Call) -> list[Json]:
        account = customer(call)
        known = dict.fromkeys([asset for listing in self.market.listings for asset in (listing.base, listing.quote)] + list(account.totals))
        return [
            {
                "coin": asset,
                "name": asset,
                "free": plain(account.free(asset)),
                "locked": plain(account.locked.get(asset, ZERO)),
                "depositAllEnable": True,
                "withdrawAllEnable": account.settings.may_withdraw,
                "isLegalMoney": False,
                "trading": True,
                "networkList": [],
            }
            for asset in known
        ]

    def _rates(self) -> tuple[str, str]:
        """Fees of a maker and of a taker."""
        costs = self.exchange.config.costs
        return plain(exact(costs.maker_fee)), plain(exact(costs.taker_fee))

    def fees(self, call: Call) -> list[Json]:
        maker, taker = self._rates()
        listed = [self.listing(call)] if call.params.get("symbol") else self.listings()
        return [{"symbol": listing.symbol, "makerCommission": maker, "takerCommission": taker} for listing in listed]

    def commission(self, call: Call) -> Json:
        maker, taker = self._rates()
        rates = {"maker": maker, "taker": taker, "buyer": "0.00000000", "seller": "0.00000000"}
        none = dict.fromkeys(rates, "0.00000000")
        return {"symbol": self.listing(call).symbol, "standardCommission": rates, "taxCommission": none}
