"""How Binance writes what the fake exchange knows: orders, trades, candles, balances as JSON-ready values.

Money is text with its digits as they are, times are milliseconds.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from cryptoalpha.execution.fake_exchange.accounts import Account, VenueOrder, VenueTrade
from cryptoalpha.execution.fake_exchange.market import Listing
from cryptoalpha.execution.money import ZERO

Json = dict[str, Any]
NOBODY = "0.00000000"


def plain(amount: Decimal) -> str:
    """A decimal without an exponent."""
    return format(amount, "f")


def price_text(value: float) -> str:
    """A price from the bars, as it was stored."""
    text = repr(value)
    if "e" not in text:  # nearly always, and several times as fast
        return text
    return plain(Decimal(repr(value)))


def spot_order(order: VenueOrder, *, fills: bool = False) -> Json:
    """An order at the spot market; `fills` as in the reply FULL to a new one."""
    shown: Json = {
        "symbol": order.listing.symbol,
        "orderId": order.order_id,
        "orderListId": -1,
        "clientOrderId": order.client_id,
        "price": plain(order.price or ZERO),
        "origQty": plain(order.quantity),
        "executedQty": plain(order.filled),
        "origQuoteOrderQty": NOBODY,
        "cummulativeQuoteQty": plain(order.quote_filled),
        "status": order.status,
        "timeInForce": order.time_in_force,
        "type": order.type,
        "side": order.side.upper(),
        "workingTime": order.created_ms,
        "selfTradePreventionMode": "NONE",
    }
    if fills:
        shown["transactTime"] = order.created_ms
        shown["fills"] = [
            {
                "price": plain(t.price),
                "qty": plain(t.quantity),
                "commission": plain(t.fee),
                "commissionAsset": t.fee_asset,
                "tradeId": t.trade_id,
            }
            for t in order.trades
        ]
    else:
        shown |= {
            "stopPrice": NOBODY,
            "icebergQty": NOBODY,
            "time": order.created_ms,
            "updateTime": order.updated_ms,
            "isWorking": True,
        }
    return shown


def spot_trade(trade: VenueTrade) -> Json:
    """An execution of one's own at the spot market."""
    order = trade.order
    return {
        "symbol": order.listing.symbol,
        "id": trade.trade_id,
        "orderId": order.order_id,
        "orderListId": -1,
        "price": plain(trade.price),
        "qty": plain(trade.quantity),
        "quoteQty": plain(trade.quote_quantity),
        "commission": plain(trade.fee),
        "commissionAsset": trade.fee_asset,
        "time": trade.at_ms,
        "isBuyer": order.side == "buy",
        "isMaker": trade.is_maker,
        "isBestMatch": True,
    }


def spot_balances(account: Account) -> list[Json]:
    """Every asset the account has, or ever had."""
    return [
        {"asset": asset, "free": plain(account.free(asset)), "locked": plain(account.locked.get(asset, ZERO))} for asset in account.totals
    ]


def spot_account(account: Account, *, maker: Decimal, taker: Decimal, at_ms: int) -> Json:
    """`GET /api/v3/account`."""
    rate = {"maker": plain(maker), "taker": plain(taker), "buyer": NOBODY, "seller": NOBODY}
    return {
        "makerCommission": int(maker * 10_000),
        "takerCommission": int(taker * 10_000),
        "buyerCommission": 0,
        "sellerCommission": 0,
        "commissionRates": rate,
        "canTrade": account.settings.may_trade,
        "canWithdraw": account.settings.may_withdraw,
        "canDeposit": True,
        "brokered": False,
        "requireSelfTradePrevention": False,
        "preventSor": False,
        "updateTime": at_ms,
        "accountType": "SPOT",
        "balances": spot_balances(account),
        "permissions": ["SPOT"],
        "uid": 1,
    }


def spot_symbol(listing: Listing) -> Json:
    """One entry of `GET /api/v3/exchangeInfo`."""
    return {
        "symbol": listing.symbol,
        "status": "TRADING",
        "baseAsset": listing.base,
        "baseAssetPrecision": 8,
        "quoteAsset": listing.quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "baseCommissionPrecision": 8,
        "quoteCommissionPrecision": 8,
        "orderTypes": ["LIMIT", "LIMIT_MAKER", "MARKET"],
        "icebergAllowed": False,
        "ocoAllowed": False,
        "otoAllowed": False,
        "quoteOrderQtyMarketAllowed": False,
        "allowTrailingStop": False,
        "cancelReplaceAllowed": False,
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": False,
        "filters": [
            {"filterType": "PRICE_FILTER", "minPrice": plain(listing.tick), "maxPrice": "10000000.00", "tickSize": plain(listing.tick)},
            {"filterType": "LOT_SIZE", "minQty": plain(listing.lot), "maxQty": "90000000.00000000", "stepSize": plain(listing.lot)},
            {
                "filterType": "NOTIONAL",
                "minNotional": plain(listing.min_notional),
                "applyMinToMarket": True,
                "maxNotional": "90000000.00000000",
                "applyMaxToMarket": False,
                "avgPriceMins": 5,
            },
        ],
        "permissions": [],
        "permissionSets": [["SPOT"]],
        "defaultSelfTradePreventionMode": "NONE",
        "allowedSelfTradePreventionModes": ["NONE"],
    }
