"""Bybit, spot and linear perpetuals: the public v5 socket and the REST answers beside it.

The book comes whole at first and whenever Bybit starts it anew; changes count up by one. A perpetual's ticker says only what changed since
the last one, so a message without a funding rate is none to read.

Source: Bybit's documentation of its v5 public WebSocket and market endpoints.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from cryptoalpha.core.errors import DataError
from cryptoalpha.core.streamed import Liquidation, Trade
from cryptoalpha.core.time import MILLISECOND, MINUTE, interval_name
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

_INTERVALS = {"D": 1440, "W": 10080}


class _Outer(msgspec.Struct):
    topic: str = ""
    type: str = ""
    ts: Milliseconds = 0
    data: msgspec.Raw = msgspec.Raw(b"")
    op: str = ""
    success: bool | None = None
    ret_msg: str = ""
    code: int | None = msgspec.field(default=None, name="retCode")
    words: str = msgspec.field(default="", name="retMsg")


class _Trade(msgspec.Struct):
    T: Milliseconds
    s: Name
    S: Literal["Buy", "Sell"]
    v: Amount
    p: Price
    i: Name


class _Book(msgspec.Struct):
    s: Name
    b: tuple[Level, ...]
    a: tuple[Level, ...]
    u: Sequence


class _Candle(msgspec.Struct):
    start: Milliseconds
    interval: str
    open: Price
    high: Price
    low: Price
    close: Price
    volume: Amount
    confirm: bool


class _Ticker(msgspec.Struct):
    symbol: Name
    rate: Rate | Literal[""] = msgspec.field(default="", name="fundingRate")
    settles: Milliseconds | Literal[""] = msgspec.field(default="", name="nextFundingTime")


class _Liquidated(msgspec.Struct):
    T: Milliseconds
    s: Name
    S: Literal["Buy", "Sell"]
    v: Amount
    p: Price


class _RestTrade(msgspec.Struct):
    id: Name = msgspec.field(name="execId")
    symbol: Name = msgspec.field()
    price: Price = msgspec.field()
    size: Amount = msgspec.field()
    side: Literal["Buy", "Sell"] = msgspec.field()
    time: Milliseconds = msgspec.field()


class _RestTrades(msgspec.Struct):
    rows: list[_RestTrade] = msgspec.field(name="list")


class _SettledRow(msgspec.Struct):
    symbol: Name
    rate: Rate = msgspec.field(name="fundingRate")
    moment: Milliseconds = msgspec.field(name="fundingRateTimestamp")


class _SettledRows(msgspec.Struct):
    rows: list[_SettledRow] = msgspec.field(name="list")


class _CandleRows(msgspec.Struct):
    rows: list[tuple[Milliseconds, Price, Price, Price, Price, Amount, msgspec.Raw]] = msgspec.field(name="list")


class _Answer(msgspec.Struct):
    code: int = msgspec.field(name="retCode")
    words: str = msgspec.field(name="retMsg")
    result: msgspec.Raw = msgspec.Raw(b"")


_OUTER, _BOOK, _TICKER, _ANSWER, _REST = decoder(_Outer), decoder(_Book), decoder(_Ticker), decoder(_Answer), decoder(_RestTrades)
_SETTLED, _CANDLE_ROWS = decoder(_SettledRows), decoder(_CandleRows)
_TRADES: msgspec.json.Decoder[list[_Trade]] = msgspec.json.Decoder(list[_Trade], strict=False)
_CANDLES: msgspec.json.Decoder[list[_Candle]] = msgspec.json.Decoder(list[_Candle], strict=False)
_LIQUIDATED: msgspec.json.Decoder[list[_Liquidated]] = msgspec.json.Decoder(list[_Liquidated], strict=False)


class Bybit:
    """Reads one of Bybit's two markets.

    Args:
        perpetuals: the linear market; the spot one otherwise. Messages do not say which they are of.
    """

    def __init__(self, *, perpetuals: bool = False) -> None:
        self.venue = "bybitlinear" if perpetuals else "bybit"
        self._name = names.perpetual if perpetuals else names.spot

    def parse(self, raw: bytes, received_at: int, subject: str = "") -> Reading:
        """A message of the public socket."""
        outer = decoded(_OUTER, raw, "message of bybit")
        if outer.topic:
            return self._topic(outer, received_at)
        if outer.op in ("ping", "pong") or outer.ret_msg == "pong":
            return Reading("heartbeat")
        if outer.op:
            refused = outer.success is False or bool(outer.code)
            return Reading("refused" if refused else "acknowledged", text=outer.ret_msg or outer.words)
        raise DataError(f"message of bybit is of no known kind: {raw[:60].decode(errors='replace')!r}")

    def answer(self, kind: str, raw: bytes, received_at: int, subject: str) -> Reading:
        """An answer over REST."""
        if kind == "trades":
            return self.trades(raw, received_at, subject)
        if kind == "settled":
            return self.settled(raw, received_at, subject)
        if kind.startswith("bars."):
            return self.candles(raw, received_at, subject, kind.removeprefix("bars."))
        return self.parse(raw, received_at, subject)

    def candles(self, raw: bytes, received_at: int, subject: str, interval: str) -> Reading:
        """An answer of `kline`, newest first there, which is only asked for candles that have closed."""
        what = f"candles of bybit {subject}"
        answer = decoded(_ANSWER, raw, what)
        if answer.code:
            return Reading("refused", text=f"{answer.code} {answer.words}"[:200])
        instrument, length, told = self._name(subject), interval_length(interval, what), []
        for opened, first, high, low, last, volume, _ in reversed(decoded(_CANDLE_ROWS, answer.result, what).rows):
            moment = opened * MILLISECOND
            bar = told_bar(instrument, length, moment, (first, high, low, last, volume), received_at)
            told.append((f"bar:{instrument}:{interval}:{moment}", bar))
        return Reading("bar", tuple(told))

    def settled(self, raw: bytes, received_at: int, subject: str) -> Reading:
        """An answer of `funding/history`, newest first there."""
        answer = decoded(_ANSWER, raw, f"funding of bybit {subject}")
        if answer.code:
            return Reading("refused", text=f"{answer.code} {answer.words}"[:200])
        rows = decoded(_SETTLED, answer.result, f"funding of bybit {subject}").rows
        return Reading(
            "funding",
            tuple(told_settlement(self.venue, self._name(r.symbol), r.rate, r.moment * MILLISECOND, received_at) for r in reversed(rows)),
        )

    def trades(self, raw: bytes, received_at: int, subject: str) -> Reading:
        """An answer of `recent-trade`, newest first there."""
        answer = decoded(_ANSWER, raw, f"trades of bybit {subject}")
        if answer.code:
            return Reading("refused", text=f"{answer.code} {answer.words}"[:200])
        rows = decoded(_REST, answer.result, f"trades of bybit {subject}").rows
        told = tuple(self._told(r.id, r.symbol, r.side, r.price, r.size, r.time, received_at) for r in reversed(rows))
        return Reading("trade", told, published=rows[0].time * MILLISECOND if rows else 0)

    def _topic(self, outer: _Outer, received_at: int) -> Reading:
        family, _, subject = outer.topic.partition(".")
        published, symbol = outer.ts * MILLISECOND, subject.rpartition(".")[2]
        if family in ("publicTrade", "trade"):
            rows = decoded(_TRADES, outer.data, "trades of bybit")
            told = tuple(self._told(r.i, r.s, r.S, r.p, r.v, r.T, received_at) for r in rows)
            return Reading("trade", told, published=max((row.T for row in rows), default=0) * MILLISECOND)
        if family == "orderbook":
            if outer.type not in ("snapshot", "delta"):
                raise DataError(f"book of bybit is neither snapshot nor delta but {outer.type[:40]!r}")
            book = decoded(_BOOK, outer.data, "book of bybit")
            moment = min(published, received_at) if published else received_at
            change = Change(self._name(book.s), outer.type == "snapshot" or book.u == 1, book.b, book.a, moment, book.u, book.u)
            return Reading("book", changes=(change,), published=published)
        if family == "kline":
            return self._candles(outer.data, symbol, published, received_at)
        if family == "tickers":
            return self._ticker(outer.data, published, received_at)
        if family == "allLiquidation":
            return self._liquidations(outer.data, received_at)
        return Reading(f"unused:{family[:40]}", published=published)

    def _told(self, number: str, symbol: str, side: str, price: float, amount: float, moment: int, received_at: int) -> tuple[str, Trade]:
        taker: Literal["buy", "sell"] = "buy" if side == "Buy" else "sell"
        return told_trade(self.venue, self._name(symbol), number, taker, price, amount, moment * MILLISECOND, received_at)

    def _candles(self, raw: msgspec.Raw, symbol: str, published: int, received_at: int) -> Reading:
        told = []
        for row in decoded(_CANDLES, raw, "candle of bybit"):
            if not row.confirm:
                continue
            minutes = _INTERVALS.get(row.interval) or (int(row.interval) if row.interval in ("1", "3", "5", "15", "30") else 0)
            minutes = minutes or (int(row.interval) if row.interval in ("60", "120", "240", "360", "720") else 0)
            if not minutes:  # months are of no one length
                return Reading(f"unused:kline.{row.interval[:20]}", published=published)
            instrument, length, opened = self._name(symbol), minutes * MINUTE, row.start * MILLISECOND
            bar = told_bar(instrument, length, opened, (row.open, row.high, row.low, row.close, row.volume), received_at)
            told.append((f"bar:{instrument}:{interval_name(length)}:{opened}", bar))
        return Reading("bar" if told else "forming", tuple(told), published=published)

    def _ticker(self, raw: msgspec.Raw, published: int, received_at: int) -> Reading:
        row = decoded(_TICKER, raw, "ticker of bybit")
        if isinstance(row.rate, str) or isinstance(row.settles, str) or not row.settles:
            return Reading("unused:tickers", published=published)
        instrument = self._name(row.symbol)
        told = ChainReading(
            happened_at=min(published, received_at) if published else received_at,
            known_at=received_at,
            asset=names.split(instrument)[0],
            metric="funding_rate_expected",
            value=row.rate,
            source=self.venue,
        )
        return Reading("funding", ((f"funding:{instrument}:{row.settles}:{published}", told),), published=published)

    def _liquidations(self, raw: msgspec.Raw, received_at: int) -> Reading:
        told, newest = [], 0
        for row in decoded(_LIQUIDATED, raw, "liquidation of bybit"):
            instrument, newest = self._name(row.s), max(newest, row.T)
            closed = Liquidation(
                happened_at=min(row.T * MILLISECOND, received_at),
                known_at=received_at,
                instrument=instrument,
                venue=self.venue,
                side="sell" if row.S == "Buy" else "buy",  # they name the position that was closed: a long one is sold
                price=row.p,
                amount=row.v,
            )
            told.append((f"liquidation:{instrument}:{row.T}:{digest(row.S, row.p, row.v)}", closed))
        return Reading("liquidation", tuple(told), published=newest * MILLISECOND)
