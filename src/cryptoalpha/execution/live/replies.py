"""What a venue's replies mean, after a look at whether they can be believed. Pure functions of ccxt's unified structures.

ccxt turns nonsense into structures quietly (measured with 4.5.90: HTTP 200 with HTML, `{}`, `null` or cut JSON to `create_order` returns an
order whose id and status are None; `{}` to a list of orders is an empty list). So nothing is taken on trust: a report has the venue's id, a
state we know, a positive quantity and a stamp, or it is `UnreadableReplyError`; an empty list counts only where the venue sent a list; an
account without any asset is no account.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, cast

from cryptoalpha.core.errors import VenueError
from cryptoalpha.core.time import MILLISECOND
from cryptoalpha.core.values import InstrumentRules, Side
from cryptoalpha.execution.venue import Balance, FundingRecord, OrderReport, Position, Trade, VenueState

_EARLIEST = 1_000_000_000_000
"""Milliseconds of September 2001: a stamp before it is a stamp in seconds, or none."""
_LATEST = 10_000_000_000_000
_STATES: dict[str, VenueState] = {
    "open": "open",
    "canceling": "open",
    "closed": "filled",
    "canceled": "canceled",
    "expired": "expired",
    "rejected": "rejected",
}
"""ccxt's word for a state → ours. `open` with something filled is `partial`."""

Naming = Callable[[str], str]
"""From ccxt's symbol to our name of the instrument."""


class UnreadableReplyError(VenueError):
    """A reply that is not what it should be. What it was about is as unknown as before."""


def order_report(raw: Any, name: Naming) -> OrderReport:
    """An order as the venue describes it.

    Raises:
        UnreadableReplyError: if an id, the state, a side, a quantity or the stamp is missing or impossible.
    """
    raw = _mapping(raw, "an order")
    info = _info(raw)
    status = raw.get("status")
    if not isinstance(status, str) or status not in _STATES:
        raise UnreadableReplyError(f"an order in the unknown state {str(status)[:40]!r}")
    quantity, filled = _decimal(raw.get("amount"), "an order's quantity"), _decimal(raw.get("filled"), "an order's filled quantity")
    if not quantity > 0 or filled < 0:
        raise UnreadableReplyError(f"an order of {quantity} with {filled} filled")
    _confirm(info, quantity, filled)
    state = _STATES[status]
    if state == "open" and filled > 0:
        state = "partial"
    elif state == "filled" and filled < quantity:
        state = "expired"  # ccxt says "closed" of both: all done, and done with a rest
    # A reply to a cancel names the order under its original id; the plain one is of the cancel itself.
    client_id = info.get("origClientOrderId") or raw.get("clientOrderId") or ""
    average = _optional(raw.get("average"))
    return OrderReport(
        instrument=name(_text(raw.get("symbol"), "an order's symbol")),
        client_id=str(client_id),
        venue_id=_text(raw.get("id"), "an order's id"),
        state=state,
        side=_side(raw.get("side")),
        quantity=quantity,
        filled=filled,
        average_price=average if filled > 0 else None,
        limit_price=_optional(raw.get("price")) if raw.get("type") == "limit" else None,
        reduce_only=bool(raw.get("reduceOnly")),
        at=_stamp(*(raw.get(key) for key in ("lastUpdateTimestamp", "lastTradeTimestamp", "timestamp"))),
    )


def trade(raw: Any, name: Naming, *, client_id: str = "", at: int | None = None) -> Trade:
    """One execution. `at` stands in where the reply carries no stamp of its own, as the executions in the answer to an order do.

    Raises:
        UnreadableReplyError: if an id, a side, a price, a quantity, the fee or the stamp is missing or impossible.
    """
    raw = _mapping(raw, "a trade")
    quantity, price = _decimal(raw.get("amount"), "a trade's quantity"), _decimal(raw.get("price"), "a trade's price")
    if not (quantity > 0 and price > 0):
        raise UnreadableReplyError(f"a trade of {quantity} at {price}")
    fee = raw.get("fee")
    fee = fee if isinstance(fee, Mapping) else {}
    if not isinstance(_info(raw).get("isBuyer", True), bool):
        raise UnreadableReplyError("a trade whose side cannot be read")  # ccxt takes it for a sale
    stamp = at if raw.get("timestamp") is None and at is not None else _stamp(raw.get("timestamp"))
    return Trade(
        instrument=name(_text(raw.get("symbol"), "a trade's symbol")),
        trade_id=_text(raw.get("id"), "a trade's id"),
        venue_id=_text(raw.get("order"), "a trade's order"),
        client_id=client_id or str(raw.get("clientOrderId") or ""),
        side=_side(raw.get("side")),
        quantity=quantity,
        price=price,
        fee=_decimal(fee.get("cost"), "a trade's fee"),
        fee_asset=_text(fee.get("currency"), "a trade's fee asset"),
        is_maker=raw.get("takerOrMaker") == "maker",
        at=stamp,
    )


def answer_trades(raw: Any, report: OrderReport, name: Naming) -> tuple[Trade, ...]:
    """The executions that came with the answer to an order; none where they do not add up to what it says was filled.

    Those left out are asked for by the list of trades, so that nothing is lost by doubt.
    """
    rows = raw.get("trades") if isinstance(raw, Mapping) else None
    if not isinstance(rows, list) or not rows:
        return ()
    try:
        # The venue names neither order nor side again in the answer's own executions.
        whole = [{**row, "order": report.venue_id, "side": row.get("side") or report.side} for row in rows]
        found = tuple(trade(row, name, client_id=report.client_id, at=report.at) for row in whole)
    except (UnreadableReplyError, TypeError, AttributeError):
        return ()
    matches = sum(one.quantity for one in found) == report.filled and len({one.trade_id for one in found}) == len(found)
    return found if matches and all(one.side == report.side and one.instrument == report.instrument for one in found) else ()


def balances(raw: Any) -> dict[str, Balance]:
    """The account's assets.

    At a venue that states a wallet balance (perpetuals) `total` is just that, money that is settled: unrealised profit is left out.

    Raises:
        UnreadableReplyError: if there is no asset at all, or an amount is missing.
    """
    raw = _mapping(raw, "a balance")
    wallet = _wallet(raw.get("info"))
    if wallet:
        return wallet
    total = raw.get("total")
    if not isinstance(total, Mapping) or not total:
        raise UnreadableReplyError("an account without any asset")
    found = {}
    for asset in total:
        entry = _mapping(raw.get(asset), f"the balance of {asset}")
        free, used = _decimal(entry.get("free"), f"free {asset}"), _decimal(entry.get("used"), f"used {asset}")
        found[str(asset)] = Balance(asset=str(asset), free=free, used=used)
    return found


def _wallet(info: Any) -> dict[str, Balance]:
    rows = info.get("assets") if isinstance(info, Mapping) else None
    found = {}
    for row in rows if isinstance(rows, list) else ():
        if isinstance(row, Mapping) and "walletBalance" in row:
            asset = _text(row.get("asset"), "an asset's name")
            total, used = _decimal(row["walletBalance"], f"wallet of {asset}"), _decimal(row.get("initialMargin", 0), f"margin of {asset}")
            found[asset] = Balance(asset=asset, free=total - used, used=used)
    return found


def position(raw: Any, name: Naming) -> Position:
    """One position, signed, in base units.

    Raises:
        UnreadableReplyError: if the symbol, the size, the side or the entry price is missing.
    """
    raw = _mapping(raw, "a position")
    contracts, size = _decimal(raw.get("contracts"), "a position's size"), _decimal(raw.get("contractSize") or 1, "a contract's size")
    side = raw.get("side")
    if contracts != 0 and side not in ("long", "short"):
        raise UnreadableReplyError(f"a position that is neither long nor short but {str(side)[:20]!r}")
    quantity = abs(contracts) * size * (-1 if side == "short" else 1)
    if "positionSide" in _info(raw) and _decimal(_info(raw).get("positionAmt"), "a position's size") != quantity:
        raise UnreadableReplyError("a position whose side cannot be read")  # ccxt takes the side from its value
    return Position(
        instrument=name(_text(raw.get("symbol"), "a position's symbol")),
        quantity=quantity,
        entry_price=_decimal(raw.get("entryPrice") or 0, "a position's entry price"),
    )


def refuse_lost_positions(found: Iterable[Position], body: Any) -> None:
    """ccxt leaves out a position of Binance's without an entry price: count those that the venue sent.

    Raises:
        UnreadableReplyError: if one is missing.
    """
    sent = [row for row in body if isinstance(row, Mapping) and "positionSide" in row] if isinstance(body, list) else []
    there = sum(_decimal(row.get("positionAmt"), "a position's size") != 0 for row in sent)
    if sent and there != sum(one.quantity != 0 for one in found):
        raise UnreadableReplyError(f"{there} positions of which some cannot be read")


def funding(raw: Any, name: Naming) -> FundingRecord:
    """One settlement of funding.

    Raises:
        UnreadableReplyError: if the symbol, the id, the amount, the asset or the stamp is missing.
    """
    raw = _mapping(raw, "a funding payment")
    return FundingRecord(
        instrument=name(_text(raw.get("symbol"), "a funding payment's symbol")),
        record_id=_text(raw.get("id"), "a funding payment's id"),
        amount=_decimal(raw.get("amount"), "a funding payment's amount"),
        asset=_text(raw.get("code"), "a funding payment's asset"),
        at=_stamp(raw.get("timestamp")),
    )


def market_rules(venue: str, instrument: str, market: Any) -> InstrumentRules:
    """Lot, tick and smallest order of a market.

    Raises:
        UnreadableReplyError: if the venue states no lot or no tick: what it takes is then unknown, and guessing sends orders it refuses.
    """
    market = _mapping(market, f"the market {instrument}")
    precision, limits = market.get("precision") or {}, market.get("limits") or {}
    least = (limits.get("cost") or {}).get("min")
    lot, tick = _decimal(precision.get("amount"), f"the lot of {instrument}"), _decimal(precision.get("price"), f"the tick of {instrument}")
    if not (lot > 0 and tick > 0):
        raise UnreadableReplyError(f"{instrument} with a lot of {lot} and a tick of {tick}")
    base, _, quote = instrument.partition("/")
    return InstrumentRules(
        happened_at=0,
        known_at=0,
        instrument=instrument,
        venue=venue,
        base=base,
        quote=quote.partition(":")[0],
        lot=lot,
        tick=tick,
        min_notional=_decimal(least or 0, f"the smallest order of {instrument}"),
        perpetual=bool(market.get("swap")),
    )


def rows(listed: Any, body: Any, what: str, *, is_whole: bool = True) -> list[Any]:
    """The rows of a list reply: an empty one counts only where the venue itself sent a list.

    Args:
        listed: what ccxt made of it.
        body: the reply's JSON as it came.
        is_whole: whether every row that was sent must be there: ccxt leaves out those without a stamp.

    Raises:
        UnreadableReplyError: if it is no list, lacks rows, or is empty without the venue having said so.
    """
    if not isinstance(listed, list):
        raise UnreadableReplyError(f"{what}: not a list but {type(listed).__name__}")
    if not listed and not _holds_list(body):
        raise UnreadableReplyError(f"{what}: nothing, where a list was to come")
    if is_whole and isinstance(body, list) and len(listed) < len(body):
        raise UnreadableReplyError(f"{what}: {len(body)} rows of which {len(listed)} can be read")
    return listed


def moment(raw: Any) -> int:
    """A server time in ns.

    Raises:
        UnreadableReplyError: if it is no time in milliseconds.
    """
    return _stamp(raw)


def price(raw: Any, what: str) -> Decimal:
    """A positive price.

    Raises:
        UnreadableReplyError: if it is missing or not positive.
    """
    found = _decimal(raw, what)
    if not found > 0:
        raise UnreadableReplyError(f"{what}: {found}")
    return found


def distinct(found: Iterable[Trade]) -> list[Trade]:
    """Trades in order of time and id, each id once.

    Raises:
        UnreadableReplyError: if one id comes with two contents.
    """
    seen: dict[tuple[str, str], Trade] = {}
    for one in found:
        if seen.setdefault((one.instrument, one.trade_id), one) != one:
            raise UnreadableReplyError(f"two trades of {one.instrument} under the id {one.trade_id}")
    return sorted(seen.values(), key=lambda one: (one.at, id_order(one.trade_id)))


def id_order(trade_id: str) -> tuple[int, str]:
    """Ids that are numbers sort as numbers."""
    return (int(trade_id), "") if trade_id.isdecimal() else (0, trade_id)


def _info(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """The venue's own words of it."""
    info = raw.get("info")
    return info if isinstance(info, Mapping) else {}


def _confirm(info: Mapping[str, Any], quantity: Decimal, filled: Decimal) -> None:
    """Binance: both quantities must stand in the reply itself, for ccxt takes a missing one for zero, or for the other."""
    for whole, done in (("origQty", "executedQty"), ("q", "z")):
        if {whole, done} & info.keys() and (whole != "q" or {"X", "x"} <= info.keys()):
            said = _decimal(info.get(whole), "an order's quantity"), _decimal(info.get(done), "an order's filled quantity")
            if said != (quantity, filled):
                raise UnreadableReplyError(f"an order of {quantity} with {filled} filled that says {said[0]} and {said[1]}")


def _holds_list(body: Any) -> bool:
    if isinstance(body, list):
        return True
    if not isinstance(body, Mapping):
        return False
    inner = [*body.values(), *(deep for value in body.values() if isinstance(value, Mapping) for deep in value.values())]
    return any(isinstance(value, list) for value in inner)


def _mapping(raw: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(raw, Mapping):
        raise UnreadableReplyError(f"{what}: not an object but {type(raw).__name__}")
    return raw


def _text(raw: Any, what: str) -> str:
    if isinstance(raw, int) and not isinstance(raw, bool):
        return str(raw)
    if not isinstance(raw, str) or not raw:
        raise UnreadableReplyError(f"{what} is missing")
    return raw


def _decimal(raw: Any, what: str) -> Decimal:
    if raw is None or isinstance(raw, bool) or not isinstance(raw, str | int | float | Decimal):
        raise UnreadableReplyError(f"{what} is missing")
    try:
        found = Decimal(str(raw))
    except InvalidOperation:
        raise UnreadableReplyError(f"{what} is {str(raw)[:40]!r}, no number") from None
    if not found.is_finite():
        raise UnreadableReplyError(f"{what} is {found}")
    return found


def _optional(raw: Any) -> Decimal | None:
    found = None if raw is None else _decimal(raw, "a price")
    return found if found is not None and found > 0 else None


def _side(raw: Any) -> Side:
    if raw not in ("buy", "sell"):
        raise UnreadableReplyError(f"a side that is neither buy nor sell but {str(raw)[:20]!r}")
    return cast("Side", raw)


def _stamp(*candidates: Any) -> int:
    raw = next((one for one in candidates if one is not None), None)
    if isinstance(raw, str) and raw.isdecimal():
        raw = int(raw)
    if isinstance(raw, bool) or not isinstance(raw, int) or not _EARLIEST < raw < _LATEST:
        raise UnreadableReplyError(f"the stamp {str(raw)[:40]!r} is no time in milliseconds")
    return raw * MILLISECOND
