"""Kraken's futures: trades, book, ticker (best quote and funding) of its public socket.

Source: Kraken's documentation of its futures WebSocket feeds.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from cryptoalpha.core.errors import DataError
from cryptoalpha.core.streamed import Book, Liquidation, Streamed
from cryptoalpha.core.time import MILLISECOND
from cryptoalpha.core.values import ChainReading
from cryptoalpha.data.sources.venues import names
from cryptoalpha.data.sources.venues.reading import (
    Amount,
    Change,
    Milliseconds,
    Name,
    Price,
    Rate,
    Reading,
    Sequence,
    decoded,
    decoder,
    told_trade,
)


class _Outer(msgspec.Struct):
    feed: str = ""
    event: str = ""
    message: str = ""


class _Trade(msgspec.Struct):
    product_id: Name
    uid: Name
    side: Literal["buy", "sell"]
    time: Milliseconds
    qty: Amount
    price: Price
    type: str = "fill"


class _Trades(msgspec.Struct):
    trades: list[_Trade]


class _Level(msgspec.Struct):
    price: Price
    qty: Amount


class _Snapshot(msgspec.Struct):
    product_id: Name
    timestamp: Milliseconds
    seq: Sequence
    bids: list[_Level]
    asks: list[_Level]


class _Delta(msgspec.Struct):
    product_id: Name
    side: Literal["buy", "sell"]
    seq: Sequence
    price: Price
    qty: Amount
    timestamp: Milliseconds


class _Ticker(msgspec.Struct):
    product_id: Name
    time: Milliseconds
    bid: Amount
    ask: Amount
    bid_size: Amount
    ask_size: Amount
    relative_funding_rate: Rate | None = None
    next_funding_rate_time: Milliseconds | None = None


_OUTER, _TRADE, _TRADES, _SNAPSHOT = decoder(_Outer), decoder(_Trade), decoder(_Trades), decoder(_Snapshot)
_DELTA, _TICKER = decoder(_Delta), decoder(_Ticker)


class KrakenFutures:
    """Reads Kraken's futures market."""

    venue = "krakenfutures"

    def answer(self, kind: str, raw: bytes, received_at: int, subject: str) -> Reading:
        """An answer over REST; this market is read from its socket alone."""
        return self.parse(raw, received_at, subject)

    def parse(self, raw: bytes, received_at: int, subject: str = "") -> Reading:
        """A message of the public socket."""
        outer = decoded(_OUTER, raw, "message of krakenfutures")
        if outer.event:
            kinds = {"subscribed": "acknowledged", "unsubscribed": "acknowledged", "info": "status", "alert": "refused", "error": "refused"}
            return Reading(kinds.get(outer.event, f"unused:{outer.event[:40]}"), text=outer.message)
        if outer.feed == "heartbeat":
            return Reading("heartbeat")
        if outer.feed == "trade":
            return _trades([decoded(_TRADE, raw, "trade of krakenfutures")], received_at)
        if outer.feed == "trade_snapshot":
            return _trades(decoded(_TRADES, raw, "trades of krakenfutures").trades[::-1], received_at)  # they come newest first
        if outer.feed in ("book", "book_snapshot"):
            return _book(raw, outer.feed == "book_snapshot", received_at)
        if outer.feed == "ticker":
            return _ticker(raw, received_at)
        if outer.feed:
            return Reading(f"unused:{outer.feed[:40]}")
        raise DataError(f"message of krakenfutures is of no known kind: {raw[:60].decode(errors='replace')!r}")


def _trades(rows: list[_Trade], received_at: int) -> Reading:
    told: list[tuple[str, Streamed]] = []
    for row in rows:
        instrument = names.kraken_future(row.product_id)
        published = row.time * MILLISECOND
        told.append(told_trade("krakenfutures", instrument, row.uid, row.side, row.price, row.qty, published, received_at))
        if row.type == "liquidation":
            closed = Liquidation(
                happened_at=min(published, received_at),
                known_at=received_at,
                instrument=instrument,
                venue="krakenfutures",
                side=row.side,
                price=row.price,
                amount=row.qty,
            )
            told.append((f"liquidation:{instrument}:{row.uid}", closed))
    return Reading("trade", tuple(told), published=max((row.time for row in rows), default=0) * MILLISECOND)


def _book(raw: bytes, whole: bool, received_at: int) -> Reading:
    if whole:
        row = decoded(_SNAPSHOT, raw, "book of krakenfutures")
        bids, asks = (tuple((level.price, level.qty) for level in side) for side in (row.bids, row.asks))
        product, number, published = row.product_id, row.seq, row.timestamp * MILLISECOND
    else:
        delta = decoded(_DELTA, raw, "book of krakenfutures")
        level = ((delta.price, delta.qty),)
        bids, asks = (level, ()) if delta.side == "buy" else ((), level)
        product, number, published = delta.product_id, delta.seq, delta.timestamp * MILLISECOND
    change = Change(names.kraken_future(product), whole, bids, asks, min(published, received_at), number, number)
    return Reading("book", changes=(change,), published=published)


def _ticker(raw: bytes, received_at: int) -> Reading:
    row = decoded(_TICKER, raw, "ticker of krakenfutures")
    instrument, published = names.kraken_future(row.product_id), row.time * MILLISECOND
    moment = min(published, received_at)
    book = Book(
        happened_at=moment,
        known_at=received_at,
        instrument=instrument,
        venue="krakenfutures",
        bids=((row.bid, row.bid_size),) if row.bid and row.bid_size else (),
        asks=((row.ask, row.ask_size),) if row.ask and row.ask_size else (),
    )
    told: list[tuple[str, Streamed]] = [(f"quote:{instrument}:{row.time}", book)]
    if row.relative_funding_rate is not None and row.next_funding_rate_time is not None:
        asset, _, _ = names.split(instrument)
        rate = ChainReading(
            happened_at=moment,
            known_at=received_at,
            asset=asset,
            metric="funding_rate_expected",
            value=row.relative_funding_rate,
            source="krakenfutures",
        )
        told.append((f"funding:{instrument}:{row.next_funding_rate_time}:{row.time}", rate))
    return Reading("quote", tuple(told), published=published)
