"""Value at risk 99 % of Bitcoin and Ether in 2022, the year of Terra and FTX: how often each method was exceeded, and which pass Kupiec.

Daily closes at 00:00 UTC from hourly bars since August 2017, forecasts by `walk_forecasts` with 500 days; GARCH fits the last 1,000 days
every 20. One to seven exceedances in 365 days pass at 5 %.
"""

from __future__ import annotations

import duckdb
import numpy as np
import pytest

from cryptoalpha.core.time import DAY, HOUR, parse_time
from cryptoalpha.risk.config import TailConfig
from cryptoalpha.risk.market_memory import MarketMemory
from cryptoalpha.risk.tail.estimate import METHODS
from cryptoalpha.risk.tail.walk import PORTABLE, walk_forecasts
from cryptoalpha.risk.tail.watch import TailWatch

COINS = ("BTCUSDT", "ETHUSDT")
FIRST, AFTER = (parse_time(date) // DAY for date in ("2022-01-01", "2023-01-01"))

EXCEEDED = {  # of 365
    "BTCUSDT": {"historical": 5, "normal": 8, "cornish_fisher": 4, "ewma": 10, "filtered": 6, "garch": 7, "garch_t": 6},
    "ETHUSDT": {"historical": 6, "normal": 6, "cornish_fisher": 3, "ewma": 10, "filtered": 6, "garch": 7, "garch_t": 6},
}
PASS = {
    "BTCUSDT": {"historical", "cornish_fisher", "filtered", "garch", "garch_t"},
    "ETHUSDT": {"historical", "normal", "cornish_fisher", "filtered", "garch", "garch_t"},
}


@pytest.fixture(scope="module")
def hours(market_data):
    """Known-at times (UTC ns) and closes by coin."""
    found = {}
    for coin in COINS:
        path = market_data / "price_1h" / f"{coin}.parquet"
        rows = duckdb.execute("select epoch_ns(ts) as t, close from read_parquet(?) where ts < '2023-01-01' order by ts", [str(path)])
        columns = rows.fetchnumpy()
        found[coin] = np.asarray(columns["t"], np.int64) + HOUR, np.asarray(columns["close"])
    return found


def days_of(known, close):
    """Number of the day (since 1970) that each return belongs to, and the returns."""
    days = np.arange(known[0] // DAY + 1, known[-1] // DAY + 1)
    at_midnight = close[np.searchsorted(known, days * DAY, side="right") - 1]
    return days[1:] - 1, at_midnight[1:] / at_midnight[:-1] - 1.0


@pytest.mark.parametrize("coin", COINS)
def test_at_least_two_methods_pass_kupiec(hours, coin):
    try:
        import scipy  # noqa: F401
    except ImportError:
        methods = PORTABLE
    else:
        methods = METHODS
    days, returns = days_of(*hours[coin])
    begin, end = np.searchsorted(days, [FIRST, AFTER])
    assert end - begin == 365
    walked = {method: found.between(begin, end) for method, found in walk_forecasts(returns[:end], methods=methods).items()}
    for method, found in walked.items():
        print(f"{coin} {method}: {found.exceedances} of {len(found.losses)}, Kupiec p {found.kupiec().p_value:.4f}")
    assert {method: found.exceedances for method, found in walked.items()} == {m: EXCEEDED[coin][m] for m in methods}
    assert {method for method, found in walked.items() if found.kupiec().accepts()} == PASS[coin] & set(methods)
    assert len(PASS[coin] & set(PORTABLE)) >= 2


def test_the_watch_beside_the_gate_counts_the_same(hours):
    times = np.union1d(hours["BTCUSDT"][0], hours["ETHUSDT"][0])
    closes = np.full((len(times), 2), np.nan)
    for column, coin in enumerate(COINS):
        known, close = hours[coin]
        closes[np.searchsorted(times, known), column] = close
    memory = MarketMemory(TailConfig())
    watch = TailWatch(memory)
    for at, row in zip(times.tolist(), closes.tolist(), strict=True):
        memory.observe(at, HOUR, COINS, row, (1.0, 1.0))
        watch.look()
    for coin, verdicts in watch.verdicts().items():
        for verdict in verdicts:
            assert verdict.observations == 365
            assert verdict.hits == EXCEEDED[coin][verdict.method]
            assert verdict.kupiec.accepts() == (verdict.method in PASS[coin])
