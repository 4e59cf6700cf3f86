"""Coinbase: the Advanced Trade socket of today, the Exchange (once Pro) socket, and REST.

The Exchange's book has no numbers: it is whole after its snapshot for as long as the connection lasts. Advanced Trade numbers the messages
of a connection, whatever their channel: one that is missing may have been about any book. Both name the maker's side of a trade.

Source: Coinbase's documentation of the Advanced Trade WebSocket and of the Exchange WebSocket feed and REST API.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from cryptoalpha.core.errors import DataError
from cryptoalpha.core.streamed import Book, Trade
from cryptoalpha.core.time import MINUTE, SECOND
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
    iso_time,
    told_bar,
    told_trade,
)

_ADVANCED_CANDLE = 5 * MINUTE


class _Outer(msgspec.Struct):
    type: str = ""
    channel: str = ""
    events: msgspec.Raw = msgspec.Raw(b"")
    sequence_num: Sequence | None = None
    message: str = ""
    reason: str = ""


class _Match(msgspec.Struct):
    product_id: Name
    trade_id: Sequence
    side: Literal["buy", "sell"]
    size: Amount
    price: Price
    time: str


class _Ticker(msgspec.Struct):
    product_id: Name
    best_bid: Amount
    best_ask: Amount
    time: str = ""
    sequence: Sequence = 0
    best_bid_size: Amount = 0.0
    best_ask_size: Amount = 0.0


class _Snapshot(msgspec.Struct):
    product_id: Name
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]


class _Update(msgspec.Struct):
    product_id: Name
    changes: list[tuple[Literal["buy", "sell"], Price, Amount]]
    time: str


class _AdvancedTrade(msgspec.Struct):
    trade_id: Sequence
    product_id: Name
    price: Price
    size: Amount
    side: Literal["BUY", "SELL"]
    time: str


class _AdvancedTrades(msgspec.Struct):
    trades: list[_AdvancedTrade]


class _AdvancedLevel(msgspec.Struct):
    side: Literal["bid", "offer"]
    event_time: str
    price_level: Price
    new_quantity: Amount


class _AdvancedBook(msgspec.Struct):
    type: Literal["snapshot", "update"]
    product_id: Name
    updates: list[_AdvancedLevel]


class _AdvancedQuote(msgspec.Struct):
    product_id: Name
    best_bid: Amount
    best_bid_quantity: Amount
    best_ask: Amount
    best_ask_quantity: Amount


class _AdvancedQuotes(msgspec.Struct):
    tickers: list[_AdvancedQuote]


class _AdvancedCandle(msgspec.Struct):
    start: Sequence
    high: Price
    low: Price
    open: Price
    close: Price
    volume: Amount
    product_id: Name


class _AdvancedCandles(msgspec.Struct):
    candles: list[_AdvancedCandle]


class _RestTrade(msgspec.Struct):
    trade_id: Sequence
    side: Literal["buy", "sell"]
    size: Amount
    price: Price
    time: str


_OUTER, _MATCH, _TICKER, _SNAPSHOT, _UPDATE = decoder(_Outer), decoder(_Match), decoder(_Ticker), decoder(_Snapshot), decoder(_Update)
_TRADES: msgspec.json.Decoder[list[_AdvancedTrades]] = msgspec.json.Decoder(list[_AdvancedTrades], strict=False)
_BOOKS: msgspec.json.Decoder[list[_AdvancedBook]] = msgspec.json.Decoder(list[_AdvancedBook], strict=False)
_QUOTES: msgspec.json.Decoder[list[_AdvancedQuotes]] = msgspec.json.Decoder(list[_AdvancedQuotes], strict=False)
_CANDLES: msgspec.json.Decoder[list[_AdvancedCandles]] = msgspec.json.Decoder(list[_AdvancedCandles], strict=False)
_REST_TRADES: msgspec.json.Decoder[list[_RestTrade]] = msgspec.json.Decoder(list[_RestTrade], strict=False)
_OTHER = {"market_trades": "trades", "l2_data": "book", "ticker": "ticker", "ticker_batch": "ticker", "candles": "candles"}


class Coinbase:
    """Reads Coinbase's spot market."""

    venue = "coinbase"

    def parse(self, raw: bytes, received_at: int, subject: str = "") -> Reading:
        """A message of either socket."""
        outer = decoded(_OUTER, raw, "message of coinbase")
        if outer.channel:
            return self._advanced(outer, received_at)
        if outer.type in ("match", "last_match"):
            return self._match(raw, received_at)
        if outer.type == "l2update":
            return self._update(raw, received_at)
        if outer.type == "ticker":
            return self._ticker(raw, received_at)
        if outer.type == "snapshot":
            row = decoded(_SNAPSHOT, raw, "book of coinbase")
            return Reading("snapshot", changes=(Change(names.dashed(row.product_id), True, row.bids, row.asks, received_at),))
        if outer.type in ("subscriptions", "heartbeat", "error", "status"):
            kind = {"subscriptions": "acknowledged", "error": "refused"}.get(outer.type, outer.type)
            return Reading(kind, text=" ".join((outer.message, outer.reason)).strip())
        if outer.type:
            return Reading(f"unused:{outer.type[:40]}")
        raise DataError(f"message of coinbase is of no known kind: {raw[:60].decode(errors='replace')!r}")

    def answer(self, kind: str, raw: bytes, received_at: int, subject: str) -> Reading:
        """An answer over REST."""
        return self.trades(raw, received_at, subject) if kind == "trades" else self.parse(raw, received_at, subject)

    def trades(self, raw: bytes, received_at: int, subject: str) -> Reading:
        """An answer of the Exchange's `trades`, newest first there. Its side is the maker's, as in the matches of that socket."""
        rows = decoded(_REST_TRADES, raw, f"trades of coinbase {subject}")
        instrument, published, told = names.dashed(subject), 0, []
        for row in reversed(rows):
            published = iso_time(row.time, "trade of coinbase")
            told.append(self._told(instrument, row.trade_id, row.side == "sell", row.price, row.size, published, received_at))
        return Reading("trade", tuple(told), published=published)

    def _match(self, raw: bytes, received_at: int) -> Reading:
        row = decoded(_MATCH, raw, "trade of coinbase")
        published = iso_time(row.time, "trade of coinbase")
        instrument = names.dashed(row.product_id)
        # the side is the maker's: who sold to whoever came is hit by a buyer
        told = self._told(instrument, row.trade_id, row.side == "sell", row.price, row.size, published, received_at)
        return Reading("trade", (told,), published=published)

    def _told(
        self, instrument: str, number: int, taker_buys: bool, price: float, amount: float, published: int, received_at: int
    ) -> tuple[str, Trade]:
        return told_trade(self.venue, instrument, str(number), "buy" if taker_buys else "sell", price, amount, published, received_at)

    def _quote(self, product: str, bid: Level, ask: Level, published: int, received_at: int, number: int) -> tuple[str, Book]:
        instrument, moment = names.dashed(product), min(published, received_at) if published else received_at
        book = Book(
            happened_at=moment,
            known_at=received_at,
            instrument=instrument,
            venue=self.venue,
            bids=(bid,) if bid[0] and bid[1] else (),
            asks=(ask,) if ask[0] and ask[1] else (),
            sequence=number or -1,
        )
        return f"quote:{instrument}:{number or moment}", book

    def _ticker(self, raw: bytes, received_at: int) -> Reading:
        row = decoded(_TICKER, raw, "quote of coinbase")
        published = iso_time(row.time, "quote of coinbase") if row.time else 0
        if not (row.best_bid_size and row.best_ask_size):  # the feed of 2021 named prices without amounts: no quote to act on
            return Reading("unused:ticker", published=published)
        bid, ask = (row.best_bid, row.best_bid_size), (row.best_ask, row.best_ask_size)
        return Reading("quote", (self._quote(row.product_id, bid, ask, published, received_at, row.sequence),), published=published)

    def _update(self, raw: bytes, received_at: int) -> Reading:
        row = decoded(_UPDATE, raw, "book of coinbase")
        published = iso_time(row.time, "book of coinbase")
        bids, asks = (tuple((price, amount) for side, price, amount in row.changes if side == wanted) for wanted in ("buy", "sell"))
        change = Change(names.dashed(row.product_id), False, bids, asks, min(published, received_at))
        return Reading("book", changes=(change,), published=published)

    def _advanced(self, outer: _Outer, received_at: int) -> Reading:
        number = -1 if outer.sequence_num is None else outer.sequence_num
        if outer.channel in ("heartbeats", "subscriptions", "status"):
            kind = {"heartbeats": "heartbeat", "subscriptions": "acknowledged"}.get(outer.channel, outer.channel)
            return Reading(kind, number=number)
        family = _OTHER.get(outer.channel)
        if family is None:
            return Reading(f"unused:{outer.channel[:40]}", number=number)
        if family == "trades":
            return self._advanced_trades(outer.events, received_at, number)
        if family == "book":
            return self._advanced_books(outer.events, received_at, number)
        if family == "ticker":
            events = decoded(_QUOTES, outer.events, "quote of coinbase")
            quotes = tuple(
                self._quote(q.product_id, (q.best_bid, q.best_bid_quantity), (q.best_ask, q.best_ask_quantity), 0, received_at, 0)
                for event in events
                for q in event.tickers
            )
            return Reading("quote", quotes, number=number)
        return self._advanced_candles(outer.events, received_at, number)

    def _advanced_trades(self, raw: msgspec.Raw, received_at: int, number: int) -> Reading:
        told, published = [], 0
        for event in decoded(_TRADES, raw, "trades of coinbase"):
            for row in sorted(event.trades, key=lambda row: row.trade_id):
                published = iso_time(row.time, "trade of coinbase")
                instrument = names.dashed(row.product_id)
                told.append(self._told(instrument, row.trade_id, row.side == "SELL", row.price, row.size, published, received_at))
        return Reading("trade", tuple(told), published=published, number=number)

    def _advanced_books(self, raw: msgspec.Raw, received_at: int, number: int) -> Reading:
        changes, published = [], 0
        for event in decoded(_BOOKS, raw, "book of coinbase"):
            for row in event.updates:
                published = max(published, iso_time(row.event_time, "book of coinbase"))
            bids, asks = (
                tuple((row.price_level, row.new_quantity) for row in event.updates if row.side == side) for side in ("bid", "offer")
            )
            moment = min(published, received_at) if published else received_at
            changes.append(Change(names.dashed(event.product_id), event.type == "snapshot", bids, asks, moment))
        return Reading("book", changes=tuple(changes), published=published, number=number)

    def _advanced_candles(self, raw: msgspec.Raw, received_at: int, number: int) -> Reading:
        told = []
        for event in decoded(_CANDLES, raw, "candles of coinbase"):
            for row in event.candles:
                if row.start > received_at // SECOND - _ADVANCED_CANDLE // SECOND:  # not closed: they never say so themselves
                    continue
                instrument, opened = names.dashed(row.product_id), row.start * SECOND
                bar = told_bar(instrument, _ADVANCED_CANDLE, opened, (row.open, row.high, row.low, row.close, row.volume), received_at)
                told.append((f"bar:{instrument}:5m:{opened}", bar))
        return Reading("bar" if told else "forming", tuple(told), number=number)
