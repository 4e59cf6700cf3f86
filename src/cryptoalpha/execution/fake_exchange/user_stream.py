"""How Binance words what happens to an account: spot (`executionReport`, `outboundAccountPosition`) and USD-M futures
(`ORDER_TRADE_UPDATE`, `ACCOUNT_UPDATE`); and who may listen (signed subscription, listen key).

Source: Binance's public descriptions of the user data streams, and what ccxt.pro 4.5 reads of them. Fields that neither it nor we read
are sent where Binance always sends them, and left away where Binance does.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from decimal import Decimal
from typing import Final

from cryptoalpha.execution.fake_exchange.events import AccountUpdate, Event, OrderUpdate

Payload = dict[str, object]
LISTEN_KEY_MS: Final = 60 * 60 * 1000
"""A listen key that is not kept alive dies after an hour."""


def subject(event: Event) -> str:
    """How a fault script names this message: `account TRADE`, `account BALANCE`."""
    return f"account {event.execution}" if isinstance(event, OrderUpdate) else "account BALANCE"


def payload(event: Event, *, futures: bool, sent_ms: int) -> Payload:
    """The message, as the stream of this market words it."""
    if isinstance(event, AccountUpdate):
        return _account(event, sent_ms) if futures else _balances(event, sent_ms)
    return _futures_order(event, sent_ms) if futures else _spot_order(event, sent_ms)


def _text(value: Decimal) -> str:
    return f"{value:f}"


def _spot_order(event: OrderUpdate, sent_ms: int) -> Payload:
    has_trade = event.execution == "TRADE"
    return {
        "e": "executionReport", "E": sent_ms, "s": event.symbol, "c": event.client_id, "S": event.side, "o": event.type,
        "f": event.time_in_force, "q": _text(event.quantity), "p": _text(event.price), "P": "0.00000000", "F": "0.00000000", "g": -1,
        "C": event.original_client_id, "x": event.execution, "X": event.status, "r": "NONE", "i": event.order_id,
        "l": _text(event.last_quantity), "z": _text(event.filled), "L": _text(event.last_price), "n": _text(event.fee),
        "N": event.fee_asset or None, "T": event.at_ms, "t": event.trade_id if has_trade else -1, "v": event.order_id, "I": event.order_id,
        "w": event.status in ("NEW", "PARTIALLY_FILLED"), "m": event.is_maker, "M": has_trade, "O": event.created_ms,
        "Z": _text(event.quote_filled), "Y": _text(event.last_quantity * event.last_price), "Q": "0.00000000", "W": event.created_ms,
        "V": "EXPIRE_MAKER",
    }  # fmt: skip


def _futures_order(event: OrderUpdate, sent_ms: int) -> Payload:
    average = event.quote_filled / event.filled if event.filled else Decimal(0)
    order: Payload = {
        "s": event.symbol, "c": event.client_id, "S": event.side, "o": event.type, "f": event.time_in_force, "q": _text(event.quantity),
        "p": _text(event.price), "ap": _text(average), "sp": "0", "x": event.execution, "X": event.status, "i": event.order_id,
        "l": _text(event.last_quantity), "z": _text(event.filled), "L": _text(event.last_price), "T": event.at_ms,
        "t": max(0, event.trade_id), "b": "0", "a": "0", "m": event.is_maker, "R": event.reduce_only, "wt": "CONTRACT_PRICE",
        "ot": event.type, "ps": "BOTH", "cp": False, "rp": _text(event.realized), "pP": False, "si": 0, "ss": 0, "V": "EXPIRE_MAKER",
        "pm": "NONE", "gtd": 0,
    }  # fmt: skip
    if event.execution == "TRADE":
        order |= {"N": event.fee_asset, "n": _text(event.fee)}
    return {"e": "ORDER_TRADE_UPDATE", "E": sent_ms, "T": event.at_ms, "o": order}


def _balances(event: AccountUpdate, sent_ms: int) -> Payload:
    held = [{"a": asset, "f": _text(free), "l": _text(locked)} for asset, free, locked in event.balances]
    return {"e": "outboundAccountPosition", "E": sent_ms, "u": event.at_ms, "B": held}


def _account(event: AccountUpdate, sent_ms: int) -> Payload:
    wallets = [{"a": asset, "wb": _text(free + locked), "cw": _text(free + locked), "bc": "0"} for asset, free, locked in event.balances]
    fixed = {"cr": "0", "up": "0", "mt": "cross", "iw": "0", "ps": "BOTH"}
    positions = [
        {"s": symbol, "pa": _text(quantity), "ep": _text(entry), "bep": _text(entry)} | fixed for symbol, quantity, entry in event.positions
    ]
    return {"e": "ACCOUNT_UPDATE", "E": sent_ms, "T": event.at_ms, "a": {"m": event.reason, "B": wallets, "P": positions}}


def wrong_signature(params: Mapping[str, object], secret: str | None, now_ms: int) -> tuple[int, str] | None:
    """Why a signed request of the WebSocket API is refused (code, message), None where it stands.

    Signed is the HMAC-SHA256 of all other parameters, sorted by name and joined as `name=value` with `&`.
    """
    if secret is None:
        return -2015, "Invalid API-key, IP, or permissions for action."
    signed = "&".join(f"{name}={value}" for name, value in sorted(params.items()) if name != "signature")
    expected = hmac.new(secret.encode(), signed.encode(), hashlib.sha256).hexdigest()
    if not hmac.compare_digest(expected, str(params.get("signature", ""))):
        return -1022, "Signature for this request is not valid."
    stamp, window = params.get("timestamp"), params.get("recvWindow", 5000)
    if not isinstance(stamp, int) or not isinstance(window, int):
        return -1102, "Mandatory parameter 'timestamp' was not sent, was empty/null, or malformed."
    if stamp > now_ms + 1000 or stamp < now_ms - window:
        return -1021, "Timestamp for this request is outside of the recvWindow."
    return None


class ListenKeys:
    """Keys that open an account's stream of one market to whoever holds them. One per account and market; asking again extends it."""

    def __init__(self) -> None:
        self._keys: dict[tuple[str, bool], tuple[str, int]] = {}
        self._made = 0

    def extend(self, account: str, *, futures: bool, now_ms: int) -> str:
        """The account's key, made where it has none or its last one has died."""
        key, ends = self._keys.get((account, futures), ("", 0))
        if ends <= now_ms:
            self._made += 1
            key = hashlib.blake2b(f"{account}/{futures}/{self._made}".encode(), digest_size=32).hexdigest()
        self._keys[account, futures] = key, now_ms + LISTEN_KEY_MS
        return key

    def drop(self, account: str, *, futures: bool) -> None:
        self._keys.pop((account, futures), None)

    def opens(self, key: str, now_ms: int) -> tuple[str, bool] | None:
        """Whose stream it opens, and whether that of the futures; None for a key that never was or is dead."""
        for owner, (known, ends) in self._keys.items():
            if hmac.compare_digest(known, key) and ends > now_ms:
                return owner
        return None
