"""Bitstamp's spot market: trades and changes of the book, and whole books over REST.

A change says what now rests at a price and when, to the microsecond, but not what came before it: it is later than a whole book, or it is
already in there. A message that is lost can therefore not be told from silence; whole books asked for now and then mend what that spoils.

Source: Bitstamp's documentation of its WebSocket v2 and HTTP API.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from cryptoalpha.core.errors import DataError
from cryptoalpha.core.streamed import Trade
from cryptoalpha.data.sources.venues import names
from cryptoalpha.data.sources.venues.reading import (
    Amount,
    Change,
    Level,
    Microseconds,
    Price,
    Reading,
    Sequence,
    decoded,
    decoder,
    told_trade,
)


class _Outer(msgspec.Struct):
    event: str = ""
    channel: str = ""
    data: msgspec.Raw = msgspec.Raw(b"")
    microtimestamp: Microseconds | None = None


class _Trade(msgspec.Struct):
    id: Sequence
    price: Price
    amount: Amount
    type: Literal[0, 1]
    microtimestamp: Microseconds


class _Book(msgspec.Struct):
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]
    microtimestamp: Microseconds


class _RestTrade(msgspec.Struct):
    tid: Sequence
    date: Sequence
    price: Price
    amount: Amount
    type: Literal[0, 1, "0", "1"]


_OUTER, _TRADE, _BOOK = decoder(_Outer), msgspec.json.Decoder(_Trade, strict=False), decoder(_Book)
_TRADES: msgspec.json.Decoder[list[_RestTrade]] = msgspec.json.Decoder(list[_RestTrade], strict=False)
_ACKNOWLEDGED = ("bts:subscription_succeeded", "bts:unsubscription_succeeded")


class Bitstamp:
    """Reads Bitstamp's spot market."""

    venue = "bitstamp"

    def parse(self, raw: bytes, received_at: int, subject: str = "") -> Reading:
        """A message of the socket, or an answer of `order_book` (which does not name its pair: `subject` does)."""
        outer = decoded(_OUTER, raw, "message of bitstamp")
        if outer.event in _ACKNOWLEDGED:
            return Reading("acknowledged", text=outer.channel)
        if outer.event == "bts:heartbeat":
            return Reading("heartbeat")
        if outer.event == "bts:request_reconnect":
            return Reading("reconnect")
        if outer.event == "bts:error":
            return Reading("refused", text=bytes(outer.data).decode(errors="replace")[:200])
        family, _, pair = outer.channel.rpartition("_")
        if outer.event == "trade" and family == "live_trades":
            return self._trade(outer.data, pair, received_at)
        if outer.event == "data" and family in ("diff_order_book", "order_book"):
            return self._book(outer.data, pair, family == "order_book", received_at)
        if not outer.event and outer.microtimestamp is not None:
            if not subject:
                raise DataError("book of bitstamp without the pair it was asked for")
            return self._book(raw, subject, True, received_at)
        if outer.event:
            return Reading(f"unused:{(family or outer.event)[:40]}")
        raise DataError(f"message of bitstamp is of no known kind: {raw[:60].decode(errors='replace')!r}")

    def answer(self, kind: str, raw: bytes, received_at: int, subject: str) -> Reading:
        """An answer over REST."""
        return self.trades(raw, received_at, subject) if kind == "trades" else self.parse(raw, received_at, subject)

    def trades(self, raw: bytes, received_at: int, subject: str) -> Reading:
        """An answer of `transactions`, newest first there, its times cut to the second."""
        rows = decoded(_TRADES, raw, f"trades of bitstamp {subject}")
        instrument, published, told = names.spot(subject, names.DOLLARS), 0, []
        for row in reversed(rows):
            published = min(row.date, 9_000_000_000) * 1_000_000_000
            told.append(self._told(instrument, row.tid, int(row.type), row.price, row.amount, published, received_at))
        return Reading("trade", tuple(told), published=published)

    def _told(
        self, instrument: str, number: int, kind: int, price: float, amount: float, published: int, received_at: int
    ) -> tuple[str, Trade]:
        return told_trade(self.venue, instrument, str(number), "sell" if kind else "buy", price, amount, published, received_at)

    def _trade(self, raw: msgspec.Raw, pair: str, received_at: int) -> Reading:
        row, instrument = decoded(_TRADE, raw, f"trade of bitstamp {pair[:40]}"), names.spot(pair, names.DOLLARS)
        published = row.microtimestamp * 1000
        return Reading(
            "trade", (self._told(instrument, row.id, row.type, row.price, row.amount, published, received_at),), published=published
        )

    def _book(self, raw: bytes | msgspec.Raw, pair: str, whole: bool, received_at: int) -> Reading:
        row = decoded(_BOOK, raw, f"book of bitstamp {pair[:40]}")
        published = row.microtimestamp * 1000
        moment, number = min(published, received_at), row.microtimestamp
        change = Change(names.spot(pair, names.DOLLARS), whole, row.bids, row.asks, moment, number, number)
        return Reading("snapshot" if whole else "book", changes=(change,), published=published)
