"""A fake exchange in a thread, and real ccxt.pro clients that talk to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from cryptoalpha.core.values import InstrumentRules
from cryptoalpha.execution.config import ExecutionConfig
from cryptoalpha.execution.fake_exchange.market import Book
from cryptoalpha.execution.fake_exchange.process import FakeExchange
from cryptoalpha.store.tables import BarTable, Dataset

HOUR = 3_600_000_000_000
BARS = 400


def _bars(name: str, first: float, seed: int) -> BarTable:
    draw = np.random.default_rng(seed)
    close = np.round(first * np.exp(np.cumsum(draw.normal(0, 0.005, BARS))), 2)
    opened = np.r_[first, close[:-1]]
    return BarTable(
        instrument=name, interval=HOUR, open_time=1_700_000_000_000_000_000 // HOUR * HOUR + HOUR * np.arange(BARS), open=opened,
        high=np.round(np.maximum(opened, close) * 1.001, 2), low=np.round(np.minimum(opened, close) * 0.999, 2), close=close,
        volume=np.full(BARS, 1000.0),
    )  # fmt: skip


def _rules(name: str, *, perpetual: bool) -> InstrumentRules:
    base, quote = name.split("/")
    return InstrumentRules(
        happened_at=0, known_at=0, instrument=name, venue="binance", base=base, quote=quote, lot=Decimal("0.00001"), tick=Decimal("0.01"),
        min_notional=Decimal(5), perpetual=perpetual,
    )  # fmt: skip


def _book(*, perpetual: bool) -> Book:
    prices = {"BTC/USDT": 30_000.0, "ETH/USDT": 2_000.0} | ({} if perpetual else {"BNB/USDT": 300.0})
    bars = {name: _bars(name, price, seed) for seed, (name, price) in enumerate(prices.items())}
    return Book.of(Dataset("test", bars, rules={name: _rules(name, perpetual=perpetual) for name in prices}))


@pytest.fixture(scope="module")
def spot_exchange() -> Iterator[FakeExchange]:
    with FakeExchange(_book(perpetual=False), ExecutionConfig(), start=300) as fake:
        yield fake


@pytest.fixture(scope="module")
def futures_exchange() -> Iterator[FakeExchange]:
    with FakeExchange(_book(perpetual=True), ExecutionConfig(), start=300) as fake:
        yield fake


@pytest.fixture
def spot(spot_exchange: FakeExchange) -> Iterator[FakeExchange]:
    """The spot exchange, without faults before and after."""
    spot_exchange.faults(clear=True)
    yield spot_exchange
    spot_exchange.faults(clear=True)


@pytest.fixture
def futures(futures_exchange: FakeExchange) -> Iterator[FakeExchange]:
    """The futures exchange, without faults before and after."""
    futures_exchange.faults(clear=True)
    yield futures_exchange
    futures_exchange.faults(clear=True)


@pytest.fixture(scope="session")
def private_client() -> Callable[..., Any]:
    """Make an unmodified ccxt.pro client with only its addresses rewritten; `await client.close()` it."""
    import ccxt.pro

    def rewritten(urls: Any, base: str) -> Any:
        if isinstance(urls, dict):
            return {name: rewritten(value, base) for name, value in urls.items()}
        return urls.replace("https://", base + "/").replace("wss://", base.replace("http", "ws") + "/")

    def make(fake: FakeExchange, *, futures: bool = False, timeout_ms: int = 400) -> Any:
        kind = ccxt.pro.binanceusdm if futures else ccxt.pro.binance
        options = {"fetchCurrencies": False, "fetchMargins": False, "fetchMarkets": {"types": ["linear" if futures else "spot"]}}
        client = kind({"apiKey": "key", "secret": "secret", "enableRateLimit": False, "timeout": timeout_ms, "options": options})
        client.urls["api"] = rewritten(client.urls["api"], fake.url)
        client.timeout_on_exit = 0  # it would wait 0.25 s for the sake of TLS
        return client

    return make


@pytest.fixture(scope="session")
def fake_book() -> Callable[..., Book]:
    """Make the book of the exchanges above: `fake_book(perpetual=False)`."""
    return _book


@pytest.fixture(scope="session")
def plain_client() -> Callable[..., Any]:
    """Make an unmodified, blocking ccxt client with only its addresses rewritten."""
    import ccxt

    def make(fake: FakeExchange, *, futures: bool = False, key: str = "key", secret: str = "secret") -> Any:
        kind = ccxt.binanceusdm if futures else ccxt.binance
        options = {"fetchCurrencies": False, "fetchMargins": False, "fetchMarkets": {"types": ["linear" if futures else "spot"]}}
        client = kind({"apiKey": key, "secret": secret, "enableRateLimit": False, "timeout": 2000, "options": options})
        client.urls["api"] = {name: address.replace("https://", fake.url + "/") for name, address in client.urls["api"].items()}
        return client

    return make
