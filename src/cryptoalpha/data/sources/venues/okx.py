"""OKX, spot and linear perpetuals: the public v5 sockets and the REST answers beside them.

Perpetuals are traded in contracts; amounts are multiplied by a contract's size, which OKX states once per instrument. A book says which
change came before it, so a loss shows.

Source: OKX's documentation of its v5 public WebSocket channels and market data endpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec

from cryptoalpha.core.errors import DataError
from cryptoalpha.core.streamed import Book, Liquidation, Streamed
from cryptoalpha.core.time import MILLISECOND, interval_name
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
    decoded,
    decoder,
    digest,
    interval_length,
    told_bar,
    told_settlement,
    told_trade,
)

Number = Annotated[int, msgspec.Meta(ge=-1, le=2**63 - 1)]


class _Argument(msgspec.Struct, frozen=True):
    channel: str = ""
    instrument: str = msgspec.field(default="", name="instId")


class _Outer(msgspec.Struct):
    event: str = ""
    arg: _Argument = _Argument()
    action: str = ""
    data: msgspec.Raw = msgspec.Raw(b"")
    msg: str = ""
    code: str = ""


class _Trade(msgspec.Struct):
    instrument: Name = msgspec.field(name="instId")
    number: Name = msgspec.field(name="tradeId")
    price: Price = msgspec.field(name="px")
    amount: Amount = msgspec.field(name="sz")
    side: Literal["buy", "sell"] = msgspec.field()
    ts: Milliseconds = msgspec.field()


class _Book(msgspec.Struct):
    asks: list[tuple[Price, Amount, msgspec.Raw, msgspec.Raw]]
    bids: list[tuple[Price, Amount, msgspec.Raw, msgspec.Raw]]
    ts: Milliseconds
    following: Number = msgspec.field(default=-1, name="seqId")
    before: Number = msgspec.field(default=-1, name="prevSeqId")


class _Funding(msgspec.Struct):
    instrument: Name = msgspec.field(name="instId")
    rate: Rate = msgspec.field(name="fundingRate")
    settles: Milliseconds = msgspec.field(name="fundingTime")
    ts: Milliseconds = 0


class _Closed(msgspec.Struct):
    side: Literal["buy", "sell"]
    price: Price = msgspec.field(name="bkPx")
    amount: Amount = msgspec.field(name="sz")
    ts: Milliseconds = msgspec.field()


class _Liquidated(msgspec.Struct):
    instrument: Name = msgspec.field(name="instId")
    details: list[_Closed]


class _Contract(msgspec.Struct):
    instrument: Name = msgspec.field(name="instId")
    value: Price = msgspec.field(name="ctVal")
    multiplier: Price = msgspec.field(name="ctMult")


class _Answer(msgspec.Struct):
    code: str | int = ""
    msg: str = ""
    data: msgspec.Raw = msgspec.Raw(b"[]")


_OUTER, _ANSWER = decoder(_Outer), decoder(_Answer)
_TRADES: msgspec.json.Decoder[list[_Trade]] = msgspec.json.Decoder(list[_Trade], strict=False)
_BOOKS: msgspec.json.Decoder[list[_Book]] = msgspec.json.Decoder(list[_Book], strict=False)
_FUNDING: msgspec.json.Decoder[list[_Funding]] = msgspec.json.Decoder(list[_Funding], strict=False)
_LIQUIDATED: msgspec.json.Decoder[list[_Liquidated]] = msgspec.json.Decoder(list[_Liquidated], strict=False)
_CONTRACTS: msgspec.json.Decoder[list[_Contract]] = msgspec.json.Decoder(list[_Contract], strict=False)
_CANDLES: msgspec.json.Decoder[list[tuple[msgspec.Raw, ...]]] = msgspec.json.Decoder(list[tuple[msgspec.Raw, ...]])
_ROW = msgspec.json.Decoder(tuple[Milliseconds, Price, Price, Price, Price, Amount, Amount], strict=False)


class Okx:
    """Reads OKX.

    Args:
        contracts: base units of one contract by OKX's name of a perpetual (`BTC-USDT-SWAP`); 1 where not listed.
    """

    venue = "okx"

    def __init__(self, contracts: Mapping[str, float] | None = None) -> None:
        self._contracts = dict(contracts or {})

    def parse(self, raw: bytes, received_at: int, subject: str = "") -> Reading:
        """A message of a public socket."""
        if raw == b"pong":
            return Reading("heartbeat")
        outer = decoded(_OUTER, raw, "message of okx")
        if outer.event:
            refused = outer.event == "error"
            status = outer.event in ("notice", "channel-conn-count", "channel-conn-count-error")
            return Reading("refused" if refused else "status" if status else "acknowledged", text=outer.msg)
        channel = outer.arg.channel
        if not channel or not outer.data:
            raise DataError(f"message of okx is of no known kind: {raw[:60].decode(errors='replace')!r}")
        if channel in ("trades", "trades-all"):
            return self._trades(outer.data, received_at)
        if channel in ("books", "books5", "bbo-tbt", "books-l2-tbt", "books50-l2-tbt"):
            return self._books(outer, received_at)
        if channel.startswith("candle"):
            interval = channel.removeprefix("candle").removesuffix("utc")
            return self._candles(outer.data, outer.arg.instrument, interval, received_at)
        if channel == "funding-rate":
            return self._funding(outer.data, received_at)
        if channel == "liquidation-orders":
            return self._liquidations(outer.data, received_at)
        return Reading(f"unused:{channel[:40]}")

    def answer(self, kind: str, raw: bytes, received_at: int, subject: str) -> Reading:
        """An answer over REST."""
        if kind == "trades":
            return self.trades(raw, received_at, subject)
        if kind == "settled":
            return self.settled(raw, received_at, subject)
        if kind.startswith("bars."):
            answer = decoded(_ANSWER, raw, f"candles of okx {subject}")
            if str(answer.code) != "0":
                return Reading("refused", text=f"{answer.code} {answer.msg}"[:200])
            return self._candles(answer.data, subject, kind.removeprefix("bars."), received_at, backwards=True)
        if kind == "contracts":
            return self.contracts(raw)
        return self.parse(raw, received_at, subject)

    def settled(self, raw: bytes, received_at: int, subject: str) -> Reading:
        """An answer of `funding-rate-history`, newest first there."""
        answer = decoded(_ANSWER, raw, f"funding of okx {subject}")
        if str(answer.code) != "0":
            return Reading("refused", text=f"{answer.code} {answer.msg}"[:200])
        rows = decoded(_FUNDING, answer.data, f"funding of okx {subject}")
        told = [told_settlement("okx", _instrument(r.instrument), r.rate, r.settles * MILLISECOND, received_at) for r in reversed(rows)]
        return Reading("funding", tuple(told))

    def contracts(self, raw: bytes) -> Reading:
        """An answer of `instruments`: from now on amounts of the perpetuals in it are in base units."""
        answer = decoded(_ANSWER, raw, "contracts of okx")
        for row in decoded(_CONTRACTS, answer.data, "contracts of okx"):
            self._contracts[row.instrument] = row.value * row.multiplier
        return Reading("contracts")

    def trades(self, raw: bytes, received_at: int, subject: str) -> Reading:
        """An answer of `trades` or `history-trades`, newest first there."""
        answer = decoded(_ANSWER, raw, f"trades of okx {subject}")
        if str(answer.code) != "0":
            return Reading("refused", text=f"{answer.code} {answer.msg}"[:200])
        return self._trades(answer.data, received_at, backwards=True)

    def _size(self, native: str) -> float:
        return self._contracts.get(native, 1.0)

    def _trades(self, raw: msgspec.Raw, received_at: int, *, backwards: bool = False) -> Reading:
        rows, told = decoded(_TRADES, raw, "trades of okx"), []
        for row in reversed(rows) if backwards else rows:
            instrument, amount = _instrument(row.instrument), row.amount * self._size(row.instrument)
            told.append(told_trade(self.venue, instrument, row.number, row.side, row.price, amount, row.ts * MILLISECOND, received_at))
        return Reading("trade", tuple(told), published=max((row.ts for row in rows), default=0) * MILLISECOND)

    def _books(self, outer: _Outer, received_at: int) -> Reading:
        native, channel = outer.arg.instrument, outer.arg.channel
        instrument, size, published = _instrument(native), self._size(native), 0
        changes, told = [], []
        for row in decoded(_BOOKS, outer.data, "book of okx"):
            published = row.ts * MILLISECOND
            bids, asks = (tuple((price, amount * size) for price, amount, _, _ in side) for side in (row.bids, row.asks))
            moment = min(published, received_at)
            if channel in ("bbo-tbt", "books5"):  # whole each time, and short: a quote
                book = _quote(instrument, bids, asks, moment, received_at, row.following)
                told.append((f"quote:{instrument}:{row.following if row.following >= 0 else row.ts}", book))
            else:
                changes.append(Change(instrument, outer.action == "snapshot", bids, asks, moment, row.following, row.following, row.before))
        return Reading("quote" if told else "book", tuple(told), tuple(changes), published=published)

    def _candles(self, raw: msgspec.Raw, native: str, interval: str, received_at: int, *, backwards: bool = False) -> Reading:
        what = "candle of okx"
        if interval.endswith("M"):  # months are of no one length
            return Reading(f"unused:candle{interval[:20]}")
        length, instrument, told = interval_length(interval.lower(), what), _instrument(native), []
        rows = decoded(_CANDLES, raw, what)
        for row in reversed(rows) if backwards else rows:
            if len(row) != 9:
                raise DataError(f"{what} has {len(row)} columns, expected 9")
            opened, first, high, low, last, volume, base = decoded(_ROW, b"[" + b",".join(map(bytes, row[:7])) + b"]", what)
            if bytes(row[8]) != b'"1"':
                continue
            amount = base if native.endswith("-SWAP") else volume  # a perpetual's first volume counts contracts
            moment = opened * MILLISECOND
            bar = told_bar(instrument, length, moment, (first, high, low, last, amount), received_at)
            told.append((f"bar:{instrument}:{interval_name(length)}:{moment}", bar))
        return Reading("bar" if told else "forming", tuple(told))

    def _funding(self, raw: msgspec.Raw, received_at: int) -> Reading:
        told: list[tuple[str, Streamed]] = []
        published = 0
        for row in decoded(_FUNDING, raw, "funding of okx"):
            instrument, published = _instrument(row.instrument), row.ts * MILLISECOND
            reading = ChainReading(
                happened_at=min(published, received_at) if published else received_at,
                known_at=received_at,
                asset=names.split(instrument)[0],
                metric="funding_rate_expected",
                value=row.rate,
                source=self.venue,
            )
            told.append((f"funding:{instrument}:{row.settles}:{row.ts}", reading))
        return Reading("funding", tuple(told), published=published)

    def _liquidations(self, raw: msgspec.Raw, received_at: int) -> Reading:
        told: list[tuple[str, Streamed]] = []
        newest = 0
        for row in decoded(_LIQUIDATED, raw, "liquidation of okx"):
            instrument = _instrument(row.instrument)
            for closed in row.details:
                newest = max(newest, closed.ts)
                value = Liquidation(
                    happened_at=min(closed.ts * MILLISECOND, received_at),
                    known_at=received_at,
                    instrument=instrument,
                    venue=self.venue,
                    side=closed.side,
                    price=closed.price,
                    amount=closed.amount * self._size(row.instrument),
                )
                told.append((f"liquidation:{instrument}:{closed.ts}:{digest(closed.side, closed.price, closed.amount)}", value))
        return Reading("liquidation", tuple(told), published=newest * MILLISECOND)


def _instrument(native: str) -> str:
    """`BTC-USDT` → `BTC/USDT`, `BTC-USDT-SWAP` → `BTC/USDT:USDT`; coin-margined ones settle in the coin.

    Raises:
        DataError: if it is none of these.
    """
    parts = native.split("-")
    if not 2 <= len(parts) <= 3 or not all(parts) or "/" in native:
        raise DataError(f"okx names instrument {native[:40]!r}, expected BTC-USDT or BTC-USDT-SWAP")
    base, quote = parts[:2]
    if len(parts) == 2:
        return f"{base}/{quote}"
    settle = base if quote == "USD" else quote
    return f"{base}/{quote}:{settle}" if parts[2] == "SWAP" else f"{base}/{quote}:{settle}-{parts[2]}"


def _quote(instrument: str, bids: tuple[Level, ...], asks: tuple[Level, ...], moment: int, received_at: int, number: int) -> Book:
    return Book(
        happened_at=moment,
        known_at=received_at,
        instrument=instrument,
        venue="okx",
        bids=tuple(level for level in bids if level[1]),
        asks=tuple(level for level in asks if level[1]),
        sequence=number,
    )
