"""Kraken's spot market: the socket of today (v2, objects), the one before (v1, arrays, as in older recordings), and REST.

Both sockets carry a checksum of the ten best levels of each side, made of the digits as Kraken writes them: levels keep their text. Trades
of v1 have no number; theirs is made of what they are.

Source: Kraken's documentation of its WebSocket v1 and v2 and of its REST market data.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal

import msgspec

from cryptoalpha.core.errors import DataError
from cryptoalpha.core.streamed import Book
from cryptoalpha.core.time import MINUTE
from cryptoalpha.data.sources.venues import names
from cryptoalpha.data.sources.venues.reading import (
    Amount,
    Change,
    Level,
    Name,
    Price,
    Reading,
    Sequence,
    decoded,
    decoder,
    digest,
    iso_time,
    seconds,
    told_bar,
    told_trade,
)

Texts = tuple[tuple[str, str], ...]


class _Outer(msgspec.Struct):
    channel: str = ""
    type: str = ""
    data: msgspec.Raw = msgspec.Raw(b"")
    method: str = ""
    success: bool | None = None
    error: msgspec.Raw = msgspec.Raw(b"")
    event: str = ""
    status: str = ""
    message: str = msgspec.field(default="", name="errorMessage")


class _Trade(msgspec.Struct):
    symbol: Name
    side: Literal["buy", "sell"]
    price: Price
    qty: Amount
    trade_id: Sequence
    timestamp: str


class _Quote(msgspec.Struct):
    symbol: Name
    bid: Amount
    bid_qty: Amount
    ask: Amount
    ask_qty: Amount
    timestamp: str = ""


class _Digits(msgspec.Struct):
    price: Decimal
    qty: Decimal


class _Book(msgspec.Struct):
    symbol: Name
    checksum: Sequence
    bids: list[_Digits] = []
    asks: list[_Digits] = []
    timestamp: str = ""


class _Candle(msgspec.Struct):
    symbol: Name
    open: Price
    high: Price
    low: Price
    close: Price
    volume: Amount
    interval_begin: str
    interval: Annotated[int, msgspec.Meta(gt=0, le=43_200)]


_OUTER = decoder(_Outer)
_TRADES: msgspec.json.Decoder[list[_Trade]] = msgspec.json.Decoder(list[_Trade], strict=False)
_QUOTES: msgspec.json.Decoder[list[_Quote]] = msgspec.json.Decoder(list[_Quote], strict=False)
_BOOKS: msgspec.json.Decoder[list[_Book]] = msgspec.json.Decoder(list[_Book])
_CANDLES: msgspec.json.Decoder[list[_Candle]] = msgspec.json.Decoder(list[_Candle], strict=False)
_ARRAY: msgspec.json.Decoder[tuple[msgspec.Raw, ...]] = msgspec.json.Decoder(tuple[msgspec.Raw, ...])
_TEXT = msgspec.json.Decoder(str)
_LEVELS_V1: msgspec.json.Decoder[dict[str, list[tuple[str, ...]] | str]] = msgspec.json.Decoder(dict[str, list[tuple[str, ...]] | str])
_TRADES_V1: msgspec.json.Decoder[list[tuple[str, str, str, str, str, str]]] = msgspec.json.Decoder(
    list[tuple[str, str, str, str, str, str]]
)
_TICKER_V1: msgspec.json.Decoder[dict[str, msgspec.Raw]] = msgspec.json.Decoder(dict[str, msgspec.Raw])
_BEST_V1: msgspec.json.Decoder[tuple[Price, msgspec.Raw, Amount]] = msgspec.json.Decoder(tuple[Price, msgspec.Raw, Amount], strict=False)
_LEVEL: msgspec.json.Decoder[Level] = msgspec.json.Decoder(Level, strict=False)
_LEVELS: msgspec.json.Decoder[tuple[Level, ...]] = msgspec.json.Decoder(tuple[Level, ...], strict=False)

_DEPTHS = ("10", "25", "100", "500", "1000")


class _Answer(msgspec.Struct):
    error: list[str]
    result: dict[str, msgspec.Raw] = {}


_ANSWER = decoder(_Answer)
_REST_TRADES: msgspec.json.Decoder[list[tuple[Price, Amount, msgspec.Raw, str, str, str, Sequence]]] = msgspec.json.Decoder(
    list[tuple[Price, Amount, msgspec.Raw, str, str, str, Sequence]], strict=False
)


class Kraken:
    """Reads Kraken's spot market.

    Args:
        depth: levels of each side that were subscribed, which v2 does not repeat.
    """

    venue = "kraken"

    def __init__(self, *, depth: int = 100) -> None:
        self._depth = depth

    def parse(self, raw: bytes, received_at: int, subject: str = "") -> Reading:
        """A message of either socket."""
        if raw.lstrip()[:1] == b"[":
            return self._older(raw, received_at)
        outer = decoded(_OUTER, raw, "message of kraken")
        if outer.channel:
            return self._channel(outer, received_at)
        if outer.method:
            kind = "heartbeat" if outer.method == "pong" else "refused" if outer.success is False else "acknowledged"
            return Reading(kind, text=bytes(outer.error).decode(errors="replace")[:200])
        if outer.event == "subscriptionStatus":
            refused = outer.status == "error"
            return Reading("refused" if refused else "acknowledged", text=outer.message)
        if outer.event in ("heartbeat", "pong"):
            return Reading("heartbeat")
        if outer.event == "systemStatus":
            return Reading("status", text=outer.status)
        raise DataError(f"message of kraken is of no known kind: {raw[:60].decode(errors='replace')!r}")

    def answer(self, kind: str, raw: bytes, received_at: int, subject: str) -> Reading:
        """An answer over REST."""
        return self.trades(raw, received_at, subject) if kind == "trades" else self.parse(raw, received_at, subject)

    def trades(self, raw: bytes, received_at: int, subject: str) -> Reading:
        """An answer of `Trades`, which asks by time and names its pair itself; `subject` is the pair as v2 writes it."""
        what = f"trades of kraken {subject}"
        answer = decoded(_ANSWER, raw, what)
        if answer.error:
            return Reading("refused", text="; ".join(answer.error)[:200])
        rows = [decoded(_REST_TRADES, rows, what) for pair, rows in answer.result.items() if pair != "last"]
        if len(rows) != 1:
            raise DataError(f"{what}: {len(rows)} pairs answered, expected one")
        instrument, told, moments, published = names.slashed(subject), [], [], 0
        for price, amount, moment, side, _, _, number in rows[0]:
            published = seconds(bytes(moment).decode(errors="replace").strip('"'), what)
            told.append(told_trade("kraken", instrument, str(number), _side(side, what), price, amount, published, received_at))
            moments.append(published)
        return Reading("trade", tuple(told), published=published, moments=tuple(moments))

    def _channel(self, outer: _Outer, received_at: int) -> Reading:
        if outer.channel == "heartbeat":
            return Reading("heartbeat")
        if outer.channel == "status":
            return Reading("status")
        read = {"trade": self._trades, "ticker": self._quotes, "book": self._books, "ohlc": self._candles}.get(outer.channel)
        if read is None:
            return Reading(f"unused:{outer.channel[:40]}")
        return read(outer.data, outer.type == "snapshot", received_at)

    def _trades(self, raw: msgspec.Raw, whole: bool, received_at: int) -> Reading:
        told, moments, published = [], [], 0
        for row in decoded(_TRADES, raw, "trades of kraken"):
            published = iso_time(row.timestamp, "trade of kraken")
            instrument = names.slashed(row.symbol)
            told.append(told_trade("kraken", instrument, str(row.trade_id), row.side, row.price, row.qty, published, received_at))
            moments.append(published)
        return Reading("trade", tuple(told), published=published, moments=tuple(moments))

    def _quotes(self, raw: msgspec.Raw, whole: bool, received_at: int) -> Reading:
        told, published = [], 0
        for row in decoded(_QUOTES, raw, "quote of kraken"):
            published = iso_time(row.timestamp, "quote of kraken") if row.timestamp else 0
            bid, ask = (row.bid, row.bid_qty), (row.ask, row.ask_qty)
            told.append(_quote(names.slashed(row.symbol), bid, ask, published, received_at))
        return Reading("quote", tuple(told), published=published)

    def _books(self, raw: msgspec.Raw, whole: bool, received_at: int) -> Reading:
        changes, published = [], 0
        for row in decoded(_BOOKS, raw, "book of kraken"):
            published = iso_time(row.timestamp, "book of kraken") if row.timestamp else 0
            texts = (_texts(row.bids), _texts(row.asks))
            moment = min(published, received_at) if published else received_at
            changes.append(_change(names.slashed(row.symbol), whole, texts, moment, row.checksum, self._depth))
        return Reading("book", changes=tuple(changes), published=published)

    def _candles(self, raw: msgspec.Raw, whole: bool, received_at: int) -> Reading:
        told = []
        for row in decoded(_CANDLES, raw, "candle of kraken"):
            opened, length = iso_time(row.interval_begin, "candle of kraken"), row.interval * MINUTE
            prices = (row.open, row.high, row.low, row.close, row.volume)
            instrument = names.slashed(row.symbol)
            told.append((f"bar:{instrument}:{row.interval}m:{opened}", told_bar(instrument, length, opened, prices, received_at)))
        return Reading("forming", forming=tuple(told))

    def _older(self, raw: bytes, received_at: int) -> Reading:
        """v1: `[channel, content (once or twice), channel's name, pair]`."""
        what = "message of kraken (v1)"
        rows = decoded(_ARRAY, raw, what)
        if not 4 <= len(rows) <= 5:
            raise DataError(f"{what} has {len(rows)} parts, expected 4 or 5")
        channel, instrument = decoded(_TEXT, rows[-2], what), names.slashed(decoded(_TEXT, rows[-1], what))
        if channel == "trade":
            return self._older_trades(rows[1:-2], instrument, received_at)
        if channel == "ticker":
            return self._older_ticker(rows[1], instrument, received_at)
        family, _, depth = channel.partition("-")
        if family == "book" and depth in _DEPTHS:
            return self._older_book(rows[1:-2], instrument, int(depth), received_at)
        return Reading(f"unused:{channel[:40]}")

    def _older_trades(self, rows: tuple[msgspec.Raw, ...], instrument: str, received_at: int) -> Reading:
        what, told, published = f"trades of kraken {instrument} (v1)", [], 0
        for row in rows:
            for price, amount, moment, side, kind, _ in decoded(_TRADES_V1, row, what):
                published = seconds(moment, what)
                cost, count = _number(price, amount, what)
                native = digest(instrument, price, amount, moment, side, kind)
                told.append(told_trade("kraken", instrument, f"{moment}-{native}", _side(side, what), cost, count, published, received_at))
        return Reading("trade", tuple(told), published=published)

    def _older_ticker(self, raw: msgspec.Raw, instrument: str, received_at: int) -> Reading:
        what = f"quote of kraken {instrument} (v1)"
        row = decoded(_TICKER_V1, raw, what)
        if "a" not in row or "b" not in row:
            raise DataError(f"{what} lacks a side")
        ask, _, ask_amount = decoded(_BEST_V1, row["a"], what)
        bid, _, bid_amount = decoded(_BEST_V1, row["b"], what)
        return Reading("quote", (_quote(instrument, (bid, bid_amount), (ask, ask_amount), 0, received_at),))

    def _older_book(self, rows: tuple[msgspec.Raw, ...], instrument: str, depth: int, received_at: int) -> Reading:
        what = f"book of kraken {instrument} (v1)"
        sides: dict[str, list[tuple[str, str]]] = {"a": [], "b": []}
        checksum, published, whole = -1, 0, False
        for row in rows:
            for name, found in decoded(_LEVELS_V1, row, what).items():
                if name == "c" and isinstance(found, str) and found.isascii() and found.isdecimal() and len(found) <= 10:
                    checksum = int(found)
                elif name in ("a", "b", "as", "bs") and not isinstance(found, str):
                    whole = whole or len(name) == 2
                    for level in found:
                        if len(level) not in (3, 4):  # a fourth says that the level came back when a better one went
                            raise DataError(f"{what} has a level of {len(level)} parts, expected 3 or 4")
                        published = max(published, seconds(level[2], what))
                        sides[name[0]].append((level[0], level[1]))
                else:
                    raise DataError(f"{what} has part {name[:40]!r} that it should not have")
        moment = min(published, received_at) if published else received_at
        change = _change(instrument, whole, (tuple(sides["b"]), tuple(sides["a"])), moment, checksum, depth)
        return Reading("book", changes=(change,), published=0 if whole else published)


def _texts(levels: list[_Digits]) -> Texts:
    if any(not number.is_finite() or abs(number.adjusted()) > 20 for level in levels for number in (level.price, level.qty)):
        raise DataError("book of kraken has a level beyond twenty digits")
    return tuple((format(level.price, "f"), format(level.qty, "f")) for level in levels)


def _change(instrument: str, whole: bool, texts: tuple[Texts, Texts], moment: int, checksum: int, depth: int) -> Change:
    what = f"book of kraken {instrument}"
    bids, asks = (decoded(_LEVELS, msgspec.json.encode(side), what) for side in texts)
    return Change(instrument, whole, bids, asks, moment, checksum=checksum, depth=depth, texts=texts)


def _number(price: str, amount: str, what: str) -> Level:
    return decoded(_LEVEL, msgspec.json.encode((price, amount)), what)


def _side(letter: str, what: str) -> Literal["buy", "sell"]:
    if letter not in ("b", "s"):
        raise DataError(f"{what}: side {letter[:40]!r} is neither b nor s")
    return "buy" if letter == "b" else "sell"


def _quote(instrument: str, bid: Level, ask: Level, published: int, received_at: int) -> tuple[str, Book]:
    moment = min(published, received_at) if published else received_at
    book = Book(
        happened_at=moment,
        known_at=received_at,
        instrument=instrument,
        venue="kraken",
        bids=(bid,) if bid[0] and bid[1] else (),
        asks=(ask,) if ask[0] and ask[1] else (),
    )
    return f"quote:{instrument}:{moment}:{digest(bid, ask)}", book
