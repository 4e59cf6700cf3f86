"""Exchanges: a message is a trade; what the socket leaves out is asked for over REST, as each venue lets one ask."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from cryptoalpha.core.time import SECOND
from cryptoalpha.data.sources.exchange import open_source
from cryptoalpha.data.sources.exchange_config import ExchangeSection

T = 1_699_999_960
FIRST = 700


class Exchange:
    """One venue."""

    keyed, extra = False, ""
    repeats = disorder = garbage = True
    skew = True

    venue = instrument = socket = rest = ""
    family = "trade"
    counted = True

    @property
    def name(self) -> str:
        return self.venue

    @property
    def faults(self) -> frozenset[str]:
        return frozenset({"429", "500", "cut", "drop"}) if self.counted else frozenset({"drop"})

    def open(self, fake: Any, tools: Any) -> Any:
        section = ExchangeSection(venues=(self.venue,), streams=("trades",), instruments=(self.instrument,), endpoint=fake.url)
        return open_source(section, tools)[0]

    def serve(self, fake: Any, numbers: Sequence[int], *, first: str = "", garbage: bool = False) -> None:
        numbers = list(numbers)
        in_order = numbers == sorted(set(numbers))
        sent = numbers[:2] + numbers[-1:] if in_order and self.counted else numbers  # the rest is asked for
        bad = ['{"what": 1}'] if garbage else []
        whole = fake.Script([*map(self.message, sent[:2]), *bad, *map(self.message, sent[2:])])
        cut = fake.Script([self.message(n) for n in sent[:2]], then="drop")
        fake.talks(self.socket, *([cut] if first == "drop" else []), whole)
        there = sorted(set(numbers))

        def right(asked: Any) -> Any:
            return fake.Reply(self.answer(asked.query, there))

        wrong = {
            "429": [fake.Reply(status=429, headers={"Retry-After": "7"})],
            "500": [fake.Reply(status=500)],
            "cut": [lambda asked: fake.Reply(self.answer(asked.query, there), cut=20)],
        }
        fake.answers(self.rest, *wrong.get(first, []), right)

    def ids(self, numbers: Sequence[int]) -> set[str]:
        return {f"{self.venue}/{self.family}:{self.instrument}:{FIRST + number}" for number in numbers}

    def message(self, number: int) -> Any:
        raise AssertionError

    def answer(self, query: Any, there: Sequence[int]) -> Any:
        raise AssertionError


class Binance(Exchange):
    venue, instrument, family = "binance", "BTC/USDT", "agg"
    socket, rest = "/stream.binance.com/stream", "/api.binance.com/api/v3/aggTrades"

    def row(self, number: int) -> dict[str, Any]:
        return {"a": FIRST + number, "p": "100.5", "q": "1", "f": 1, "l": 1, "T": (T + number) * 1000, "m": True, "M": True}

    def message(self, number: int) -> Any:
        return {"stream": "btcusdt@aggTrade", "data": {"e": "aggTrade", "E": (T + number) * 1000, "s": "BTCUSDT", **self.row(number)}}

    def answer(self, query: Any, there: Sequence[int]) -> Any:
        return [self.row(n) for n in there if FIRST + n >= int(query["fromId"])][: min(int(query["limit"]), 3)]


class Okx(Exchange):
    venue, instrument = "okx", "BTC/USDT"
    socket, rest = "/ws.okx.com/ws/v5/business", "/www.okx.com/api/v5/market/history-trades"

    def row(self, number: int) -> dict[str, Any]:
        return {"instId": "BTC-USDT", "tradeId": str(FIRST + number), "px": "1", "sz": "2", "side": "buy", "ts": str((T + number) * 1000)}

    def message(self, number: int) -> Any:
        return {"arg": {"channel": "trades-all", "instId": "BTC-USDT"}, "data": [self.row(number)]}

    def answer(self, query: Any, there: Sequence[int]) -> Any:
        rows = [self.row(n) for n in reversed(there) if FIRST + n < int(query["after"])]
        return {"code": "0", "msg": "", "data": rows[:3]}


class Kraken(Exchange):
    venue, instrument = "kraken", "BTC/USD"
    socket, rest = "/ws.kraken.com/v2", "/api.kraken.com/0/public/Trades"

    def message(self, number: int) -> Any:
        when = datetime.fromtimestamp(T + number, UTC).strftime("%Y-%m-%dT%H:%M:%S.250000Z")
        row = {"symbol": "BTC/USD", "side": "buy", "price": 100.5, "qty": 1.5, "trade_id": FIRST + number, "timestamp": when}
        return {"channel": "trade", "type": "update", "data": [row]}

    def answer(self, query: Any, there: Sequence[int]) -> Any:
        rows = [
            ["100.5", "1.5", T + n + 0.25, "b", "l", "", FIRST + n] for n in there if (T + n) * SECOND + SECOND // 4 >= int(query["since"])
        ]
        return {"error": [], "result": {"XXBTZUSD": rows[:4], "last": "0"}}


class Coinbase(Exchange):
    venue, instrument = "coinbase", "BTC/USD"
    socket, rest = "/advanced-trade-ws.coinbase.com", "/api.exchange.coinbase.com/products/BTC-USD/trades"

    def row(self, number: int) -> dict[str, Any]:
        when = datetime.fromtimestamp(T + number, UTC).strftime("%Y-%m-%dT%H:%M:%S.250000Z")
        return {"trade_id": FIRST + number, "price": "100.5", "size": "1", "time": when}

    def message(self, number: int) -> Any:
        trade = {**self.row(number), "product_id": "BTC-USD", "side": "SELL"}
        return {"channel": "market_trades", "sequence_num": number, "events": [{"type": "update", "trades": [trade]}]}

    def answer(self, query: Any, there: Sequence[int]) -> Any:
        return [{**self.row(n), "side": "sell"} for n in reversed(there) if FIRST + n < int(query["after"])][:3]


class Bitstamp(Exchange):
    venue, instrument = "bitstamp", "BTC/USD"
    socket, rest = "/ws.bitstamp.net", "/www.bitstamp.net/api/v2/transactions/btcusd/"
    counted = False  # its numbers run over all pairs

    def message(self, number: int) -> Any:
        row = {"id": FIRST + number, "price": 100.5, "amount": 1.0, "type": 0, "microtimestamp": str((T + number) * 1_000_000)}
        return {"event": "trade", "channel": "live_trades_btcusd", "data": row}

    def answer(self, query: Any, there: Sequence[int]) -> Any:
        return [{"tid": FIRST + n, "date": str(T + n), "price": "100.5", "amount": "1", "type": "0"} for n in reversed(there)]


CASES = [Binance(), Okx(), Kraken(), Coinbase(), Bitstamp()]
