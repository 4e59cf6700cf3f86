"""A small Binance-shaped exchange on loopback, and real ccxt clients that talk to it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from cryptoalpha.core.time import HOUR, MILLISECOND, parse_time


def candle(symbol: str, open_ms: int, step_ms: int) -> list[Any]:
    """A candle that follows from its symbol and time alone: prices within 2 % of 100, ten coins traded, six bought by takers."""
    k = (open_ms // step_ms * 7 + len(symbol)) % 11
    price = 100.0 + 0.1 * k
    return [open_ms, f"{price}", f"{price + 1}", f"{price - 1}", f"{price + 0.5}", "10", open_ms + step_ms - 1, "1000", 5, "6", "600", "0"]


class LoopbackVenue:
    """Serves exchangeInfo, klines and fundingRate. `faults` are (status, body, headers) given instead of the next candles, in order.

    `now` decides which candle is still forming; it is served like the others, as real venues do. `listed` is when trading began.
    """

    def __init__(self) -> None:
        self.now = parse_time("2022-03-15T10:20:00")
        self.listed = parse_time("2021-01-01")
        self.symbols = ["BTCUSDT", "ETHUSDT"]
        self.faults: list[tuple[int, bytes, dict[str, str]]] = []
        self.fail_after: int | None = None
        self.hold_back: dict[str, int] = {}
        self.requests: list[dict[str, str]] = []
        venue = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                query = {key: values[0] for key, values in parse_qs(parts.query).items()}
                status, body, headers = venue.answer(parts.path, query)
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, path: str, query: dict[str, str]) -> tuple[int, bytes, dict[str, str]]:
        if path.endswith("exchangeInfo"):
            return 200, json.dumps({"symbols": [self.market(symbol, "fapi" in path) for symbol in self.symbols]}).encode(), {}
        self.requests.append(query)
        if self.fail_after is not None and len(self.requests) > self.fail_after:
            return 503, b"<html>maintenance</html>", {}
        if self.faults:
            return self.faults.pop(0)
        if path.endswith("klines"):
            return 200, json.dumps(self.candles(query)).encode(), {}
        if path.endswith("fundingRate"):
            return 200, json.dumps(self.rates(query)).encode(), {}
        return 404, b"{}", {}

    def candles(self, query: dict[str, str]) -> list[list[Any]]:
        step = HOUR // MILLISECOND
        start = max(int(query["startTime"]), self.listed // MILLISECOND)
        first = -(-start // step) * step
        last = min((self.now - self.hold_back.get(query["symbol"], 0)) // MILLISECOND, first + int(query["limit"]) * step - 1)
        return [candle(query["symbol"], moment, step) for moment in range(first, last + 1, step)]

    def rates(self, query: dict[str, str]) -> list[dict[str, Any]]:
        step = 8 * HOUR // MILLISECOND
        first = -(-(int(query["startTime"]) - 7) // step) * step  # stamped seven milliseconds after the settlement
        stamps = list(range(first, self.now // MILLISECOND + 1, step))[: int(query["limit"])]
        return [
            {"symbol": query["symbol"], "fundingTime": stamp + 7, "fundingRate": f"{stamp // step % 5 / 1e4}", "markPrice": "1"}
            for stamp in stamps
        ]

    @staticmethod
    def market(symbol: str, perpetual: bool) -> dict[str, Any]:
        base, quote = symbol[:-4], symbol[-4:]
        contract = {"pair": symbol, "contractType": "PERPETUAL", "marginAsset": quote} if perpetual else {}
        return {
            **contract,
            "symbol": symbol,
            "status": "TRADING",
            "baseAsset": base,
            "quoteAsset": quote,
            "baseAssetPrecision": 8,
            "quotePrecision": 8,
            "quoteAssetPrecision": 8,
            "pricePrecision": 2,
            "quantityPrecision": 5,
            "orderTypes": ["LIMIT", "MARKET"],
            "isSpotTradingAllowed": True,
            "permissions": ["SPOT"],
            "permissionSets": [["SPOT"]],
            "filters": [
                {"filterType": "PRICE_FILTER", "minPrice": "0.01", "maxPrice": "1000000", "tickSize": "0.01"},
                {"filterType": "LOT_SIZE", "minQty": "0.00001", "maxQty": "9000", "stepSize": "0.00001"},
                {"filterType": "NOTIONAL", "minNotional": "5"},
            ],
        }


@pytest.fixture
def open_venue() -> Iterator[Callable[[], LoopbackVenue]]:
    """Opens loopback exchanges and closes them at the end."""
    opened: list[LoopbackVenue] = []

    def new() -> LoopbackVenue:
        opened.append(LoopbackVenue())
        return opened[-1]

    yield new
    for venue in opened:
        venue.close()


@pytest.fixture
def venue(open_venue: Callable[[], LoopbackVenue]) -> LoopbackVenue:
    """One loopback exchange; its clock stands at 2022-03-15 10:20."""
    return open_venue()


@pytest.fixture
def ccxt_at() -> Callable[[dict[str, str]], Callable[[str, dict[str, Any]], Any]]:
    """A factory for `Venues` whose real ccxt clients talk to the URL given for their id, and to nothing else."""

    def factory_for(urls: dict[str, str]) -> Callable[[str, dict[str, Any]], Any]:
        import ccxt

        def factory(name: str, settings: dict[str, Any]) -> Any:
            client = getattr(ccxt, name)({**settings, "enableRateLimit": False, "timeout": 1500})
            client.urls["api"] = {key: f"{urls[name]}/{key}" for key in client.urls["api"]}
            return client

        return factory

    return factory_for
