"""Real history as it lies (skipped where there is none): counts and values its description states, and how fast it loads."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from cryptoalpha.core.time import DAY, HOUR, parse_time
from cryptoalpha.data.config import FilesConfig
from cryptoalpha.data.files import load_directory
from cryptoalpha.data.metrics import METRICS
from cryptoalpha.store.bar_gate import BarGate
from cryptoalpha.store.tables import Dataset


@pytest.fixture(scope="module")
def history(market_data: Path) -> Dataset:
    return load_directory(market_data, gate=BarGate())


def test_all_bars_funding_and_chain_rows_arrive(history: Dataset) -> None:
    counts = {name: len(table) for name, table in history.bars.items()}
    assert counts == {
        "ADA/USDT": 49948,
        "BTC/USDT": 55740,
        "DOGE/USDT": 39328,
        "ETH/USDT": 55740,
        "LINK/USDT": 43394,
        "LTC/USDT": 52915,
        "SOL/USDT": 29686,
        "XRP/USDT": 49536,
    }
    funding = {asset: len(table) for (asset, metric), table in history.readings.items() if metric == "funding_rate"}
    assert funding == {"BTC": 4721, "ETH": 4487, "XRP": 4367, "LTC": 4358, "ADA": 4327}
    assert len(history.readings["*", "fear_greed"]) == 2157
    assert len(history.readings["BTC", "mvrv"]) == 3287
    assert {metric for _, metric in history.readings} <= set(METRICS)


def test_the_check_values_of_bitcoin_are_there(history: Dataset) -> None:
    btc = history.bars["BTC/USDT"]
    in_day = btc.open_time // DAY * DAY == parse_time("2021-11-10")
    assert btc.high[in_day].max() == 69_000.0
    year = (btc.open_time >= parse_time("2022-01-01")) & (btc.open_time < parse_time("2023-01-01"))
    assert btc.low[year].min() == 15_476.0


def test_texts_are_counted_once(history: Dataset) -> None:
    news = history.posts["news"]
    inside = (news.happened_at >= parse_time("2021-11-05")) & (news.happened_at < parse_time("2023-12-15"))
    assert 14_000 < inside.sum() <= 14_268  # distinct texts of the window, less those known before it
    assert news.known_at.min() > news.happened_at.min()
    assert bool(np.all(news.known_at >= news.happened_at + HOUR))


def test_one_market_at_a_time(market_data: Path) -> None:
    perp = load_directory(market_data, gate=BarGate(), config=FilesConfig(market="perp"))
    assert {name: len(table) for name, table in perp.bars.items()} == {"BTC/USDT": 37807, "ETH/USDT": 35897}
    assert all(rules.perpetual for rules in perp.rules.values())
    other = load_directory(market_data, gate=BarGate(), interval="5m")
    assert sorted(other.bars) == ["ADA/BTC", "ETH/BTC", "LTC/BTC"]


def test_everything_loads_in_seconds(market_data: Path) -> None:
    begin = time.process_time()
    load_directory(market_data, gate=BarGate())
    assert time.process_time() - begin < 6.0  # CPU seconds; about 1 on one core
