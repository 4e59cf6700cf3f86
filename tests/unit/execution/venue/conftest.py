"""A small market on a fake exchange, and real ccxt.pro clients that trade there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from cryptoalpha.app.venues import Keys, account_venue
from cryptoalpha.core.time import HOUR, MINUTE, parse_time
from cryptoalpha.core.values import InstrumentRules, Order
from cryptoalpha.data.config import ExchangeConfig
from cryptoalpha.execution.config import CostConfig, ExecutionConfig, LiveConfig
from cryptoalpha.execution.fake_exchange.accounts import AccountSettings
from cryptoalpha.execution.fake_exchange.market import Book
from cryptoalpha.execution.fake_exchange.process import FakeExchange
from cryptoalpha.execution.live.ccxt_venue import CcxtVenue
from cryptoalpha.store.tables import BarTable, Dataset, ReadingTable

START = parse_time("2024-03-01")
BARS = 40


def book(instruments: tuple[str, ...], interval: int = MINUTE) -> Book:
    """Bars: opens 100, 101, … with a range of one either way, so that every price is known by its row."""
    times = START + interval * np.arange(BARS, dtype=np.int64)
    price = 100.0 + np.arange(BARS)
    bars = {name: BarTable(name, interval, times, price, price + 1, price - 1, price + 0.5, np.full(BARS, 1e6)) for name in instruments}
    rules = {
        name: InstrumentRules(
            happened_at=0,
            known_at=0,
            instrument=name,
            venue="fake",
            base=name.partition("/")[0],
            quote="USDT",
            lot=Decimal("0.001"),
            tick=Decimal("0.01"),
            min_notional=Decimal(5),
            perpetual=":" in name,
        )
        for name in instruments
    }
    settled = times[5::5]
    rates = ReadingTable("BTC", "funding_rate", "test", settled, settled, np.full(len(settled), 1e-4))
    return Book.of(Dataset(origin="test", bars=bars, rules=rules, readings={("BTC", "funding_rate"): rates}, simulated=True))


@pytest.fixture
def exchange() -> Iterator[FakeExchange]:
    """Spot: one account with 100,000 USDT and some BNB; the first bar is known."""
    costs = ExecutionConfig(costs=CostConfig(half_spread=0.0, impact=0.0))
    account = AccountSettings(balances={"USDT": Decimal(100_000), "BNB": Decimal(10)})
    with FakeExchange(book(("BTC/USDT", "ETH/USDT", "BNB/USDT")), costs, accounts=[account]) as fake:
        yield fake


@pytest.fixture
def futures() -> Iterator[FakeExchange]:
    """Perpetuals: one account with a wallet of 100,000 USDT."""
    costs = ExecutionConfig(costs=CostConfig(half_spread=0.0, impact=0.0))
    with FakeExchange(book(("BTC/USDT:USDT",)), costs) as fake:
        yield fake


@pytest.fixture
def slow_exchange() -> Iterator[FakeExchange]:
    """Spot and perpetual over ten days: bars of six hours."""
    costs = ExecutionConfig(costs=CostConfig(half_spread=0.0, impact=0.0))
    with FakeExchange(book(("BTC/USDT", "BTC/USDT:USDT"), 6 * HOUR), costs) as fake:
        yield fake


@pytest.fixture
def on_venue() -> Callable[..., Any]:
    """Run a coroutine function with an opened venue at a fake exchange, and close it afterwards."""

    def run(
        fake: FakeExchange, use: Callable[[CcxtVenue], Awaitable[Any]], *, key: str = "key", opened: bool = True, **changes: Any
    ) -> Any:
        settings = {"timeout_seconds": 2.0, "requests_per_minute": 1e6, "retry_seconds": 0.01, "retry_limit_seconds": 0.1, **changes}
        live = LiveConfig(**{"venue": "binance", **settings})

        async def session() -> Any:
            venue = account_venue(ExchangeConfig(endpoint=fake.url), live, Keys(key, "secret"))
            try:
                if opened:
                    await venue.open()
                return await use(venue)
            finally:
                await venue.close()

        return asyncio.run(session())

    return run


@pytest.fixture
def order() -> Callable[..., Order]:
    """An order with an id of its own."""
    count = iter(range(1, 1000))

    def make(side: str = "buy", quantity: str = "1", instrument: str = "BTC/USDT", **changes: Any) -> Order:
        made = {"client_id": f"ca{next(count):030x}", "happened_at": START, "known_at": START, **changes}
        return Order(instrument=instrument, side=side, quantity=Decimal(quantity), **made)  # type: ignore[arg-type]

    return make
