"""What the market streams say of a market that is known by its bars: candles, tickers, trades and an order book around the last price.

A bar carries no trades and no book. Four trades per closed bar walk open → low → high → close (falling bars: high first) and share its
volume exactly; the book is made of `LEVELS` levels either side of the close. Both are there so that clients have something true to parse,
not to be traded on: orders are matched against bars (`matching`), never against this book. A recorded feed replaces both (`recordings`).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptoalpha.execution.fake_exchange.events import BarUpdate

Payload = dict[str, object]
LEVELS: Final = 20
KEPT_TRADES: Final = 1000
DAY_MS: Final = 86_400_000
UNITS_MS: Final[Mapping[str, int]] = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": DAY_MS, "w": 7 * DAY_MS}


def interval_ms(text: str) -> int | None:
    """Length of `1m`, `4h`, `1d`; None for what has no fixed length here (`1M`)."""
    unit = UNITS_MS.get(text[-1:])
    return int(text[:-1]) * unit if unit is not None and text[:-1].isdigit() else None


def _number(value: float) -> str:
    return f"{value:.8f}"


@dataclass(slots=True)
class DepthBook:
    """Price levels with the number of the last change, as snapshots and differences of Binance carry it."""

    futures: bool
    last_id: int = 0
    bids: dict[str, str] = field(default_factory=dict)
    asks: dict[str, str] = field(default_factory=dict)

    def apply(self, bids: Sequence[Sequence[str]], asks: Sequence[Sequence[str]], last_id: int) -> None:
        """Take in differences: quantity 0 removes the level."""
        for side, changes in ((self.bids, bids), (self.asks, asks)):
            for price, quantity, *_ in changes:
                if float(quantity) == 0.0:
                    side.pop(price, None)
                else:
                    side[price] = quantity
        self.last_id = last_id

    def replace(self, bids: Sequence[Sequence[str]], asks: Sequence[Sequence[str]], last_id: int) -> None:
        """Begin anew from a snapshot."""
        self.bids, self.asks = {}, {}
        self.apply(bids, asks, last_id)

    def snapshot(self, limit: int, at_ms: int) -> Payload:
        """The answer to `GET depth`: best price first."""
        found: Payload = {"lastUpdateId": self.last_id}
        if self.futures:
            found |= {"E": at_ms, "T": at_ms}
        found["bids"] = [[price, self.bids[price]] for price in sorted(self.bids, key=float, reverse=True)[:limit]]
        found["asks"] = [[price, self.asks[price]] for price in sorted(self.asks, key=float)[:limit]]
        return found


class Tape:
    """One instrument of one market: takes bars, gives messages by stream name (without the symbol)."""

    def __init__(self, symbol: str, *, futures: bool) -> None:
        self.symbol, self.futures = symbol, futures
        self.is_recorded = False
        """Whether a recording brings trades, tickers and the book: bars then give candles only."""
        self.book = DepthBook(futures)
        self.trades: deque[Payload] = deque(maxlen=KEPT_TRADES)
        """As `GET trades` answers them, oldest first."""
        self._day: deque[BarUpdate] = deque()
        self._candles: dict[str, BarUpdate] = {}
        """The latest candle of each length asked for."""
        self._lengths: set[str] = set()
        self._trade_id = 0

    def watch(self, interval: str) -> None:
        """Somebody wants candles of this length too; longer than the bars, they are made of them."""
        if interval_ms(interval) is not None:
            self._lengths.add(interval)

    def take(self, bar: BarUpdate) -> Iterator[tuple[str, Payload]]:
        """The messages that this bar gives rise to."""
        at = bar.at_ms or bar.close_ms + 1
        if bar.is_closed:
            self._day.append(bar)
            while self._day[0].open_ms <= bar.open_ms - DAY_MS:
                self._day.popleft()
        if bar.is_closed and not self.is_recorded:
            for trade in self._trades_of(bar):
                yield "trade", self._trade_event("trade", "t", trade, at)
                yield "aggTrade", self._trade_event("aggTrade", "a", trade, at) | {"f": trade["id"], "l": trade["id"]}
            yield "depth", self._depth(bar, at)
        for interval in sorted({bar.interval, *self._lengths}):
            candle = self._grown(bar, interval)
            if candle is not None:
                yield f"kline_{interval}", self._kline(candle, at)
        yield from self.standing(at)

    def standing(self, at: int) -> Iterator[tuple[str, Payload]]:
        """What can be said at any time: tickers, the best prices, the mark price. Nothing before the first bar."""
        if not self._day or self.is_recorded:
            return
        ticker = self.ticker(at)
        yield "ticker", ticker
        yield "miniTicker", {"e": "24hrMiniTicker"} | {name: ticker[name] for name in ("E", "s", "c", "o", "h", "l", "v", "q")}
        best: Payload = {"u": self.book.last_id, "s": self.symbol, "b": ticker["b"], "B": ticker["B"], "a": ticker["a"], "A": ticker["A"]}
        yield "bookTicker", ({"e": "bookTicker", "E": at, "T": at} if self.futures else {}) | best
        if self.futures:
            last = ticker["c"]
            eight_hours = 8 * UNITS_MS["h"]
            yield "markPrice", {"e": "markPriceUpdate", "E": at, "s": self.symbol, "p": last, "i": last, "P": last, "r": "0.00010000",
                                "T": at - at % eight_hours + eight_hours}  # fmt: skip

    def candle(self, interval: str, at: int) -> Payload | None:
        """The latest candle of this length as a message, None before the first."""
        latest = self._candles.get(interval)
        return None if latest is None else self._kline(latest, at)

    def ticker(self, at: int) -> Payload:
        """The rolling day, as the stream words it."""
        first, last = self._day[0], self._day[-1]
        volume = sum(bar.volume for bar in self._day)
        turnover = sum(bar.volume * bar.close for bar in self._day)
        bid, ask = max(self.book.bids, key=float), min(self.book.asks, key=float)
        change = last.close - first.open
        return {
            "e": "24hrTicker", "E": at, "s": self.symbol, "p": _number(change), "P": f"{100.0 * change / first.open:.3f}",
            "w": _number(turnover / volume if volume else last.close), "x": _number(first.open), "c": _number(last.close),
            "Q": self.trades[-1]["qty"] if self.trades else "0", "b": bid, "B": self.book.bids[bid], "a": ask, "A": self.book.asks[ask],
            "o": _number(first.open), "h": _number(max(bar.high for bar in self._day)), "l": _number(min(bar.low for bar in self._day)),
            "v": _number(volume), "q": _number(turnover), "O": first.open_ms, "C": last.close_ms, "F": 0, "L": self._trade_id,
            "n": self._trade_id,
        }  # fmt: skip

    def _trades_of(self, bar: BarUpdate) -> list[Payload]:
        if bar.volume <= 0.0:
            return []
        turns = (bar.low, bar.high) if bar.close >= bar.open else (bar.high, bar.low)
        share = round(bar.volume / 4, 8)
        made: list[Payload] = []
        for place, price in enumerate((bar.open, *turns, bar.close)):
            self._trade_id += 1
            quantity = share if place < 3 else bar.volume - 3 * share
            stamp = bar.open_ms + (bar.close_ms - bar.open_ms) * place // 3
            made.append({
                "id": self._trade_id, "price": _number(price), "qty": _number(quantity), "quoteQty": _number(price * quantity),
                "time": stamp, "isBuyerMaker": place in (1, 3) if bar.close >= bar.open else place in (0, 2), "isBestMatch": True,
            })  # fmt: skip
        self.trades.extend(made)
        return made

    def _trade_event(self, event: str, id_field: str, trade: Payload, at: int) -> Payload:
        made = {"e": event, "E": at, "s": self.symbol, id_field: trade["id"], "p": trade["price"], "q": trade["qty"], "T": trade["time"],
                "m": trade["isBuyerMaker"]}  # fmt: skip
        return made | ({"X": "MARKET"} if self.futures else {"M": True})

    def _depth(self, bar: BarUpdate, at: int) -> Payload:
        """Move the book to the new close; the differences as a message."""
        step = 10.0 ** (math.floor(math.log10(bar.close)) - 4)
        size = max(bar.volume / 1000.0, 1e-3)
        changes: dict[str, list[list[str]]] = {}
        for name, held, sign in (("b", self.book.bids, -1), ("a", self.book.asks, 1)):
            wanted = {_number(bar.close + sign * step * k): _number(size * k) for k in range(1, LEVELS + 1)}
            gone = [[price, "0.00000000"] for price in held if price not in wanted]
            changes[name] = gone + [[price, quantity] for price, quantity in wanted.items()]
        before = self.book.last_id
        last = before + len(changes["b"]) + len(changes["a"])
        self.book.apply(changes["b"], changes["a"], last)
        made: Payload = {"e": "depthUpdate", "E": at, "s": self.symbol, "U": before + 1, "u": last, "b": changes["b"], "a": changes["a"]}
        return made | ({"T": at, "pu": before} if self.futures else {})

    def _grown(self, bar: BarUpdate, interval: str) -> BarUpdate | None:
        """The candle of this length that the bar belongs to, with the bar in it; None where bars do not fit into candles of this length."""
        if interval == bar.interval:
            self._candles[interval] = bar
            return bar
        length, own = interval_ms(interval), bar.close_ms + 1 - bar.open_ms
        if length is None or length % own:
            return None
        opens = bar.open_ms - bar.open_ms % length
        grown = self._candles.get(interval)
        if grown is None or grown.open_ms != opens:
            high, low, first, volume = bar.high, bar.low, bar.open, bar.volume
        else:
            high, low, first, volume = max(grown.high, bar.high), min(grown.low, bar.low), grown.open, grown.volume + bar.volume
        ends = bar.is_closed and bar.close_ms == opens + length - 1
        candle = BarUpdate(
            symbol=bar.symbol, futures=bar.futures, interval=interval, open_ms=opens, close_ms=opens + length - 1, open=first, high=high,
            low=low, close=bar.close, volume=volume, is_closed=ends,
        )  # fmt: skip
        if bar.is_closed:
            self._candles[interval] = candle
        return candle

    def _kline(self, bar: BarUpdate, at: int) -> Payload:
        candle: Payload = {
            "t": bar.open_ms, "T": bar.close_ms, "s": self.symbol, "i": bar.interval, "f": max(0, self._trade_id - 3), "L": self._trade_id,
            "o": _number(bar.open), "c": _number(bar.close), "h": _number(bar.high), "l": _number(bar.low), "v": _number(bar.volume),
            "n": 4, "x": bar.is_closed, "q": _number(bar.volume * bar.close), "V": _number(bar.volume / 2),
            "Q": _number(bar.volume * bar.close / 2), "B": "0",
        }  # fmt: skip
        return {"e": "kline", "E": at, "s": self.symbol, "k": candle}
