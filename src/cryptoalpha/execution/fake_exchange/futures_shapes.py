"""How Binance writes USD-M futures: contracts, orders, trades, wallets, positions as JSON-ready values."""

from __future__ import annotations

from decimal import Decimal

from cryptoalpha.execution.fake_exchange.accounts import Account, Income, VenueOrder, VenueTrade
from cryptoalpha.execution.fake_exchange.intake import equity, unrealized
from cryptoalpha.execution.fake_exchange.market import Listing, Market
from cryptoalpha.execution.fake_exchange.shapes import Json, plain, price_text
from cryptoalpha.execution.money import ZERO, exact, settle

__all__ = ["Json", "account", "bracket", "contract", "income", "order", "plain", "position", "price_text", "trade", "wallet"]

NEVER_MS = 4133404800000
"""Delivery date of what is never delivered."""


def contract(listing: Listing) -> Json:
    """One entry of `GET /fapi/v1/exchangeInfo`."""
    lots = {"minQty": plain(listing.lot), "maxQty": "1000000", "stepSize": plain(listing.lot)}
    return {
        "symbol": listing.symbol,
        "pair": listing.symbol,
        "contractType": "PERPETUAL",
        "deliveryDate": NEVER_MS,
        "onboardDate": 1569398400000,
        "status": "TRADING",
        "maintMarginPercent": "2.5000",
        "requiredMarginPercent": "5.0000",
        "baseAsset": listing.base,
        "quoteAsset": listing.quote,
        "marginAsset": listing.quote,
        "pricePrecision": _digits(listing.tick),
        "quantityPrecision": _digits(listing.lot),
        "baseAssetPrecision": 8,
        "quotePrecision": 8,
        "underlyingType": "COIN",
        "underlyingSubType": [],
        "triggerProtect": "0.0500",
        "liquidationFee": "0.012500",
        "marketTakeBound": "0.05",
        "filters": [
            {"filterType": "PRICE_FILTER", "minPrice": plain(listing.tick), "maxPrice": "10000000", "tickSize": plain(listing.tick)},
            {"filterType": "LOT_SIZE", **lots},
            {"filterType": "MARKET_LOT_SIZE", **lots},
            {"filterType": "MAX_NUM_ORDERS", "limit": 200},
            {"filterType": "MIN_NOTIONAL", "notional": plain(listing.min_notional)},
        ],
        "orderTypes": ["LIMIT", "MARKET"],
        "timeInForce": ["GTC", "IOC", "FOK", "GTX"],
    }


def _digits(step: Decimal) -> int:
    """Digits after the point of a step."""
    exponent = step.normalize().as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0


def order(shown: VenueOrder) -> Json:
    """An order."""
    average = settle(shown.quote_filled / shown.filled) if shown.filled else ZERO
    return {
        "orderId": shown.order_id,
        "symbol": shown.listing.symbol,
        "status": shown.status,
        "clientOrderId": shown.client_id,
        "price": plain(shown.price or ZERO),
        "avgPrice": plain(average),
        "origQty": plain(shown.quantity),
        "executedQty": plain(shown.filled),
        "cumQty": plain(shown.filled),
        "cumQuote": plain(shown.quote_filled),
        "timeInForce": shown.time_in_force,
        "type": shown.type,
        "origType": shown.type,
        "reduceOnly": shown.reduce_only,
        "closePosition": False,
        "side": shown.side.upper(),
        "positionSide": "BOTH",
        "stopPrice": "0",
        "workingType": "CONTRACT_PRICE",
        "priceProtect": False,
        "priceMatch": "NONE",
        "selfTradePreventionMode": "NONE",
        "goodTillDate": 0,
        "time": shown.created_ms,
        "updateTime": shown.updated_ms,
    }


def trade(shown: VenueTrade) -> Json:
    """An execution of one's own."""
    parent = shown.order
    return {
        "symbol": parent.listing.symbol,
        "id": shown.trade_id,
        "orderId": parent.order_id,
        "side": parent.side.upper(),
        "positionSide": "BOTH",
        "buyer": parent.side == "buy",
        "maker": shown.is_maker,
        "price": plain(shown.price),
        "qty": plain(shown.quantity),
        "quoteQty": plain(shown.quote_quantity),
        "realizedPnl": plain(shown.realized),
        "commission": plain(shown.fee),
        "commissionAsset": shown.fee_asset,
        "marginAsset": parent.listing.quote,
        "time": shown.at_ms,
    }


def income(line: Income) -> Json:
    """One line of the account's history."""
    return {
        "symbol": line.symbol,
        "incomeType": line.kind,
        "income": plain(line.amount),
        "asset": line.asset,
        "info": line.kind,
        "time": line.at_ms,
        "tranId": line.income_id,
        "tradeId": "",
    }


def bracket(listing: Listing) -> Json:
    """One bracket for any size."""
    one = {
        "bracket": 1,
        "initialLeverage": 1,
        "notionalCap": 1_000_000_000,
        "notionalFloor": 0,
        "maintMarginRatio": 0.004,
        "cum": 0.0,
    }
    return {"symbol": listing.symbol, "notionalCoef": 1.0, "brackets": [one]}


def position(holder: Account, listing: Listing, market: Market) -> Json:
    """One line of `positionRisk`, and of the positions of `account`."""
    held = holder.holdings.get(listing.symbol)
    quantity = held.quantity if held is not None else ZERO
    entry = plain(settle(held.entry_price)) if held is not None else "0.0"
    last = market.last_price(listing)
    notional = settle(quantity * exact(last)) if last == last else ZERO
    profit = settle(unrealized(holder, listing.symbol, market)) if held is not None else ZERO
    return {
        "symbol": listing.symbol,
        "positionSide": "BOTH",
        "positionAmt": plain(quantity),
        "entryPrice": entry,
        "breakEvenPrice": entry,
        "markPrice": price_text(last) if last == last else "0.0",
        "unRealizedProfit": plain(profit),
        "unrealizedProfit": plain(profit),
        "liquidationPrice": "0",
        "isolatedMargin": "0",
        "isolatedWallet": "0",
        "isolated": False,
        "marginType": "cross",
        "isAutoAddMargin": "false",
        "leverage": "1",
        "maxNotionalValue": "1000000000",
        "notional": plain(notional),
        "marginAsset": listing.quote,
        "initialMargin": plain(abs(notional)),
        "positionInitialMargin": plain(abs(notional)),
        "openOrderInitialMargin": "0",
        "maintMargin": plain(settle(abs(notional) * Decimal("0.004"))),
        "adl": 1,
        "bidNotional": "0",
        "askNotional": "0",
        "updateTime": market.now_ms,
    }


def _margins(holder: Account, market: Market) -> tuple[Decimal, Decimal, Decimal]:
    """Unrealised profit, initial margin and what is free: equity less the gross of the book."""
    worth = settle(equity(holder, market))
    gross = ZERO
    for symbol, held in holder.holdings.items():
        listing = market.listing(symbol, perpetual=True)
        if held.quantity and listing is not None:
            gross += abs(held.quantity) * exact(market.last_price(listing))
    gross = settle(gross)
    return worth - settle(holder.wallet), gross, max(ZERO, worth - gross)


def wallet(holder: Account, market: Market) -> Json:
    """One line of `balance`."""
    profit, _, free = _margins(holder, market)
    return {
        "accountAlias": "fake",
        "asset": holder.quote,
        "balance": plain(holder.wallet),
        "crossWalletBalance": plain(holder.wallet),
        "crossUnPnl": plain(profit),
        "availableBalance": plain(free),
        "maxWithdrawAmount": plain(free),
        "marginAvailable": True,
        "updateTime": market.now_ms,
    }


def account(holder: Account, market: Market, *, with_flat: bool) -> Json:
    """`account`; versions before the third list what is flat as well."""
    profit, gross, free = _margins(holder, market)
    maintenance = plain(settle(gross * Decimal("0.004")))
    listed = [listing for listing in market.listings if listing.perpetual and (with_flat or holder.position(listing))]
    asset = {
        "asset": holder.quote,
        "walletBalance": plain(holder.wallet),
        "unrealizedProfit": plain(profit),
        "marginBalance": plain(holder.wallet + profit),
        "maintMargin": maintenance,
        "initialMargin": plain(gross),
        "positionInitialMargin": plain(gross),
        "openOrderInitialMargin": "0",
        "crossWalletBalance": plain(holder.wallet),
        "crossUnPnl": plain(profit),
        "availableBalance": plain(free),
        "maxWithdrawAmount": plain(free),
        "marginAvailable": True,
        "updateTime": market.now_ms,
    }
    return {
        "feeTier": 0,
        "canTrade": holder.settings.may_trade,
        "canDeposit": True,
        "canWithdraw": holder.settings.may_withdraw,
        "multiAssetsMargin": False,
        "updateTime": market.now_ms,
        "totalInitialMargin": plain(gross),
        "totalMaintMargin": maintenance,
        "totalWalletBalance": plain(holder.wallet),
        "totalUnrealizedProfit": plain(profit),
        "totalMarginBalance": plain(holder.wallet + profit),
        "totalPositionInitialMargin": plain(gross),
        "totalOpenOrderInitialMargin": "0",
        "totalCrossWalletBalance": plain(holder.wallet),
        "totalCrossUnPnl": plain(profit),
        "availableBalance": plain(free),
        "maxWithdrawAmount": plain(free),
        "assets": [asset],
        "positions": [position(holder, listing, market) for listing in listed],
    }
