"""Binance, spot and USD-M perpetuals: combined streams, single streams, and the REST answers that fill their gaps.

Trades come one by one (`trade`) or joined where one order took several at a price (`aggTrade`). Live we take the joined ones: anybody may
ask for them from any id on, so what an interruption lost can be had again under the same ids; their ids count up by one, so a loss shows.

Source: Binance's documentation of its WebSocket streams and market data endpoints, spot and USDⓈ-M futures.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

from cryptoalpha.core.errors import DataError
from cryptoalpha.core.streamed import Book, Liquidation, Trade
from cryptoalpha.core.time import MILLISECOND
from cryptoalpha.core.values import ChainReading
from cryptoalpha.data.sources.venues import names
from cryptoalpha.data.sources.venues.reading import (
    Amount,
    Change,
    Level,
    Milliseconds,
    Name,
    Price,
    Rate,
    Reading,
    Sequence,
    decoded,
    decoder,
    digest,
    interval_length,
    told_bar,
    told_settlement,
    told_trade,
)


class _Outer(msgspec.Struct):
    """Whatever comes: a combined stream's wrapper, a single stream's event, an answer to a request, a snapshot."""

    stream: str = ""
    data: msgspec.Raw = msgspec.Raw(b"")
    event: str = msgspec.field(default="", name="e")
    u: msgspec.Raw = msgspec.Raw(b"")
    b: msgspec.Raw = msgspec.Raw(b"")
    snapshot: Sequence | None = msgspec.field(default=None, name="lastUpdateId")
    asked: msgspec.Raw = msgspec.field(default=msgspec.Raw(b""), name="id")
    account: msgspec.Raw = msgspec.field(default=msgspec.Raw(b""), name="event")
    error: msgspec.Raw = msgspec.Raw(b"")
    code: int | None = None
    msg: str = ""


class _Trade(msgspec.Struct):
    s: Name
    t: Sequence
    p: Price
    q: Amount
    T: Milliseconds
    m: bool


class _JoinedTrade(msgspec.Struct):
    s: Name
    a: Sequence
    p: Price
    q: Amount
    T: Milliseconds
    m: bool


class _Quote(msgspec.Struct):
    s: Name
    u: Sequence
    b: Amount
    B: Amount
    a: Amount
    A: Amount
    T: Milliseconds = 0


class _Depth(msgspec.Struct):
    s: Name
    E: Milliseconds
    U: Sequence
    u: Sequence
    b: tuple[Level, ...]
    a: tuple[Level, ...]
    pu: Sequence | None = None
    T: Milliseconds = 0


class _Snapshot(msgspec.Struct):
    lastUpdateId: Sequence  # noqa: N815 (the venue's name)
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]
    T: Milliseconds = 0


class _Candle(msgspec.Struct):
    t: Milliseconds
    s: Name
    i: Name
    o: Price
    h: Price
    l: Price  # noqa: E741 (the venue's name)
    c: Price
    v: Amount
    x: bool


class _Kline(msgspec.Struct):
    E: Milliseconds
    k: _Candle


class _Mark(msgspec.Struct):
    E: Milliseconds
    s: Name
    p: Price
    r: Rate | Literal[""] = ""
    T: Milliseconds = 0


class _ForcedOrder(msgspec.Struct):
    s: Name
    S: str
    T: Milliseconds
    ap: Price
    z: Amount


class _Forced(msgspec.Struct):
    E: Milliseconds
    o: _ForcedOrder


class _JoinedRow(msgspec.Struct):
    a: Sequence
    p: Price
    q: Amount
    T: Milliseconds
    m: bool


class _TradeRow(msgspec.Struct):
    id: Sequence
    price: Price
    qty: Amount
    time: Milliseconds
    isBuyerMaker: bool  # noqa: N815 (the venue's name)


class _SettledRow(msgspec.Struct):
    symbol: Name
    fundingTime: Milliseconds  # noqa: N815 (the venue's name)
    fundingRate: Rate  # noqa: N815 (the venue's name)


_SETTLED_ROWS: msgspec.json.Decoder[list[_SettledRow]] = msgspec.json.Decoder(list[_SettledRow], strict=False)
_OUTER, _TRADE, _JOINED, _QUOTE, _DEPTH = decoder(_Outer), decoder(_Trade), decoder(_JoinedTrade), decoder(_Quote), decoder(_Depth)
_SNAPSHOT, _KLINE, _MARK, _FORCED = decoder(_Snapshot), decoder(_Kline), decoder(_Mark), decoder(_Forced)
_JOINED_ROWS: msgspec.json.Decoder[list[_JoinedRow]] = msgspec.json.Decoder(list[_JoinedRow], strict=False)
_TRADE_ROWS: msgspec.json.Decoder[list[_TradeRow]] = msgspec.json.Decoder(list[_TradeRow], strict=False)
_KLINE_ROWS: msgspec.json.Decoder[list[tuple[msgspec.Raw, ...]]] = msgspec.json.Decoder(list[tuple[msgspec.Raw, ...]])
_ROW = msgspec.json.Decoder(tuple[Milliseconds, Price, Price, Price, Price, Amount], strict=False)
_STREAMS = {
    "trade": "trade",
    "aggTrade": "aggTrade",
    "bookTicker": "bookTicker",
    "depth": "depthUpdate",
    "kline": "kline",
    "markPrice": "markPriceUpdate",
    "forceOrder": "forceOrder",
}


class Binance:
    """Reads one of Binance's two markets.

    Args:
        venue: ccxt's id, `binance` or `binanceusdm`; the second has perpetuals.
    """

    def __init__(self, venue: str) -> None:
        self.venue = venue
        self._name: Callable[[str], str] = names.perpetual if venue == "binanceusdm" else names.spot
        self._read: dict[str, Callable[[bytes | msgspec.Raw, int], Reading]] = {
            "trade": self._trade,
            "aggTrade": self._joined,
            "bookTicker": self._quote,
            "depthUpdate": self._depth,
            "kline": self._kline,
            "markPriceUpdate": self._mark,
            "forceOrder": self._forced,
        }

    def parse(self, raw: bytes, received_at: int, subject: str = "") -> Reading:
        """A message of a stream, an answer to a subscription, or a book snapshot (which does not name its symbol: `subject` does)."""
        outer = decoded(_OUTER, raw, f"message of {self.venue}")
        if outer.stream:
            channel = outer.stream.partition("@")[2] or outer.stream.lstrip("!")
            stem = channel.partition("@")[0].partition("_")[0]
            if stem.startswith("depth"):
                stem = "depth"
            event, inner = _STREAMS.get(stem, ""), outer.data
            if not event:
                return Reading(f"unused:{channel[:40]}")
            if not inner:
                raise DataError(f"message of {self.venue} for stream {outer.stream[:40]!r} holds no data")
            return self._read[event](inner, received_at)
        if outer.snapshot is not None:
            return self._snapshot(raw, received_at, subject)
        if outer.event:
            read = self._read.get(outer.event)
            return read(raw, received_at) if read else Reading(f"unused:{outer.event[:40]}")
        if outer.u and outer.b:  # the spot market's best quote does not say what it is
            return self._quote(raw, received_at)
        if outer.error or outer.code is not None:
            return Reading("refused", text=outer.msg or bytes(outer.error).decode(errors="replace")[:200])
        if outer.asked:
            return Reading("acknowledged")
        if outer.account:
            return Reading("unused:account")
        raise DataError(f"message of {self.venue} is of no known kind: {raw[:60].decode(errors='replace')!r}")

    def answer(self, kind: str, raw: bytes, received_at: int, subject: str) -> Reading:
        """An answer over REST."""
        if kind == "trades":
            return self.joined_trades(raw, received_at, subject)
        if kind == "settled":
            return self.settled(raw, received_at, subject)
        if kind.startswith("bars."):
            return self.candles(raw, received_at, subject, kind.removeprefix("bars."))
        return self.parse(raw, received_at, subject)

    def settled(self, raw: bytes, received_at: int, subject: str) -> Reading:
        """An answer of `fundingRate`: what was settled, oldest first."""
        rows = decoded(_SETTLED_ROWS, raw, f"funding of {self.venue} {subject}")
        told = [
            told_settlement(self.venue, names.perpetual(r.symbol), r.fundingRate, r.fundingTime * MILLISECOND, received_at) for r in rows
        ]
        return Reading("funding", tuple(told))

    def joined_trades(self, raw: bytes, received_at: int, subject: str) -> Reading:
        """An answer of `aggTrades`."""
        rows = decoded(_JOINED_ROWS, raw, f"trades of {self.venue} {subject}")
        instrument = self._name(subject)
        told = tuple(self._told(instrument, "agg", row.a, row.p, row.q, row.T, row.m, received_at) for row in rows)
        return Reading("trade", told, published=rows[-1].T * MILLISECOND if rows else 0)

    def single_trades(self, raw: bytes, received_at: int, subject: str) -> Reading:
        """An answer of `trades` or `historicalTrades`."""
        rows = decoded(_TRADE_ROWS, raw, f"trades of {self.venue} {subject}")
        instrument = self._name(subject)
        told = tuple(self._told(instrument, "trade", r.id, r.price, r.qty, r.time, r.isBuyerMaker, received_at) for r in rows)
        return Reading("trade", told, published=rows[-1].time * MILLISECOND if rows else 0)

    def candles(self, raw: bytes, received_at: int, subject: str, interval: str) -> Reading:
        """An answer of `klines`, which is only asked for candles that have closed."""
        what = f"candles of {self.venue} {subject}"
        instrument, length = self._name(subject), interval_length(interval, f"candles of {self.venue}")
        told = []
        for row in decoded(_KLINE_ROWS, raw, what):
            moment, opened, high, low, close, volume = decoded(_ROW, b"[" + b",".join(map(bytes, row[:6])) + b"]", what)
            bar = told_bar(instrument, length, moment * MILLISECOND, (opened, high, low, close, volume), received_at)
            told.append((f"bar:{instrument}:{interval}:{bar.happened_at}", bar))
        return Reading("bar", tuple(told))

    def _told(
        self, instrument: str, family: str, number: int, price: float, amount: float, moment: int, maker_buys: bool, received_at: int
    ) -> tuple[str, Trade]:
        side: Literal["buy", "sell"] = "sell" if maker_buys else "buy"
        return told_trade(self.venue, instrument, str(number), side, price, amount, moment * MILLISECOND, received_at, family)

    def _trade(self, raw: bytes | msgspec.Raw, received_at: int) -> Reading:
        row = decoded(_TRADE, raw, f"trade of {self.venue}")
        told = self._told(self._name(row.s), "trade", row.t, row.p, row.q, row.T, row.m, received_at)
        return Reading("trade", (told,), published=row.T * MILLISECOND)

    def _joined(self, raw: bytes | msgspec.Raw, received_at: int) -> Reading:
        row = decoded(_JOINED, raw, f"trade of {self.venue}")
        told = self._told(self._name(row.s), "agg", row.a, row.p, row.q, row.T, row.m, received_at)
        return Reading("trade", (told,), published=row.T * MILLISECOND)

    def _quote(self, raw: bytes | msgspec.Raw, received_at: int) -> Reading:
        row = decoded(_QUOTE, raw, f"quote of {self.venue}")
        instrument, published = self._name(row.s), row.T * MILLISECOND
        book = Book(
            happened_at=min(published, received_at) if published else received_at,
            known_at=received_at,
            instrument=instrument,
            venue=self.venue,
            bids=((row.b, row.B),) if row.b and row.B else (),
            asks=((row.a, row.A),) if row.a and row.A else (),
            sequence=row.u,
        )
        return Reading("quote", ((f"quote:{instrument}:{row.u}", book),), published=published)

    def _depth(self, raw: bytes | msgspec.Raw, received_at: int) -> Reading:
        row = decoded(_DEPTH, raw, f"book of {self.venue}")
        if row.u < row.U:
            raise DataError(f"book of {self.venue} {row.s}: changes {row.U} to {row.u} run backwards")
        published = (row.T or row.E) * MILLISECOND
        change = Change(
            instrument=self._name(row.s),
            whole=False,
            bids=row.b,
            asks=row.a,
            happened_at=min(published, received_at),
            first=row.U,
            last=row.u,
            before=-1 if row.pu is None else row.pu,
        )
        return Reading("book", changes=(change,), published=published)

    def _snapshot(self, raw: bytes, received_at: int, subject: str) -> Reading:
        row = decoded(_SNAPSHOT, raw, f"book snapshot of {self.venue}")
        if not subject:
            raise DataError(f"book snapshot of {self.venue} without the symbol it was asked for")
        moment = min(row.T * MILLISECOND, received_at) if row.T else received_at
        change = Change(self._name(subject), True, row.bids, row.asks, moment, row.lastUpdateId, row.lastUpdateId)
        return Reading("snapshot", changes=(change,), published=row.T * MILLISECOND)

    def _kline(self, raw: bytes | msgspec.Raw, received_at: int) -> Reading:
        row = decoded(_KLINE, raw, f"candle of {self.venue}")
        candle, published = row.k, row.E * MILLISECOND
        if not candle.x:
            return Reading("forming", published=published)
        if candle.i.endswith("M"):  # months are of no one length
            return Reading("unused:kline_1M", published=published)
        instrument, length = self._name(candle.s), interval_length(candle.i, f"candle of {self.venue}")
        prices = (candle.o, candle.h, candle.l, candle.c, candle.v)
        bar = told_bar(instrument, length, candle.t * MILLISECOND, prices, received_at)
        return Reading("bar", ((f"bar:{instrument}:{candle.i}:{bar.happened_at}", bar),), published=published)

    def _mark(self, raw: bytes | msgspec.Raw, received_at: int) -> Reading:
        row = decoded(_MARK, raw, f"mark price of {self.venue}")
        if isinstance(row.r, str):  # a dated future settles no funding
            return Reading("unused:markPriceUpdate", published=row.E * MILLISECOND)
        base, quote = names.glued(row.s.partition("_")[0])
        published = row.E * MILLISECOND
        told = ChainReading(
            happened_at=min(published, received_at),
            known_at=received_at,
            asset=base,
            metric="funding_rate_expected",
            value=row.r,
            source=self.venue,
        )
        return Reading("funding", ((f"funding:{base}/{quote}:{row.T}:{row.E}", told),), published=published)

    def _forced(self, raw: bytes | msgspec.Raw, received_at: int) -> Reading:
        row = decoded(_FORCED, raw, f"liquidation of {self.venue}").o
        if row.S not in ("BUY", "SELL"):
            raise DataError(f"liquidation of {self.venue} {row.s}: side {row.S[:40]!r} is neither BUY nor SELL")
        instrument, published = self._name(row.s), row.T * MILLISECOND
        told = Liquidation(
            happened_at=min(published, received_at),
            known_at=received_at,
            instrument=instrument,
            venue=self.venue,
            side="buy" if row.S == "BUY" else "sell",
            price=row.ap,
            amount=row.z,
        )
        native = digest(instrument, row.T, row.S, row.ap, row.z)
        return Reading("liquidation", ((f"liquidation:{instrument}:{row.T}:{native}", told),), published=published)
