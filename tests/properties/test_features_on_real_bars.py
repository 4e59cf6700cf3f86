"""Features on real hourly bars, with their outages and their bad print. Skips without evaluation data."""

from __future__ import annotations

import time
from pathlib import Path

import duckdb
import numpy as np
import pytest

from cryptoalpha.core.time import HOUR, parse_time
from cryptoalpha.signals.price_features import PRICE_FEATURES, WARMUP_BARS, price_features
from cryptoalpha.store.panel import Panel, build_panel
from cryptoalpha.store.tables import BarTable, Dataset

NAMES = tuple(spec.name for spec in PRICE_FEATURES)


@pytest.fixture(scope="module")
def panel(market_data: Path) -> Panel:
    """Three assets over 2019 and 2020, as the venue printed them: the bar gate has not seen them."""
    bars = {}
    for asset in ("BTC", "ETH", "LINK"):
        source = str(market_data / "price_1h" / f"{asset}USDT.parquet")
        sql = "SELECT epoch_ns(ts) AS t, open, high, low, close, volume FROM read_parquet(?) WHERE year(ts) IN (2019, 2020) ORDER BY t"
        rows = duckdb.execute(sql, [source]).fetchnumpy()
        columns = [np.asarray(rows[name], np.float64) for name in ("open", "high", "low", "close", "volume")]
        bars[f"{asset}/USDT"] = BarTable(f"{asset}/USDT", HOUR, np.asarray(rows["t"], np.int64), *columns)
    return build_panel(Dataset("test", bars), since=0, until=2**62)


def test_a_low_of_almost_nothing_is_survived(panel: Panel) -> None:
    t, link = int((parse_time("2020-03-12T10:00") - panel.open_time[0]) // HOUR), panel.instruments.index("LINK/USDT")
    assert panel.low[t, link] == 1e-4
    values = dict(zip(NAMES, price_features(panel)[t, link], strict=True))
    assert np.isfinite([value for name, value in values.items() if name != "taker_imbalance_32"]).all()
    assert values["range_to_atr"] < 8.0
    assert values["lower_wick"] < 0.7
    assert np.exp(values["log_atr_14"]) < 0.1  # of the price


def test_real_features_are_causal_bounded_in_memory_and_finite(panel: Panel) -> None:
    whole = price_features(panel)
    assert not np.isinf(whole).any()
    assert np.isnan(whole[~panel.present]).all()
    live = np.isfinite(whole[3_000:])[panel.present[3_000:]].mean(axis=0)
    assert {name for name, share in zip(NAMES, live, strict=True) if share < 0.98} == {"taker_imbalance_32"}
    in_outage = int(np.flatnonzero(~panel.present.any(axis=1))[-1])
    for cut in (5_000, in_outage, in_outage + 1, 12_345):
        assert price_features(panel.rows(0, cut)).tobytes() == whole[:cut].tobytes()
    late = price_features(panel.rows(7_001, len(panel)))
    assert late[WARMUP_BARS:].tobytes() == whole[7_001 + WARMUP_BARS :].tobytes()


def test_fifty_thousand_bar_rows_take_a_second_or_so(panel: Panel) -> None:
    price_features(panel.rows(0, 50))  # compile, or read the compiled code
    start = time.perf_counter()
    price_features(panel)
    microseconds = 1e6 * (time.perf_counter() - start) / panel.present.size
    assert microseconds < 40.0, f"{microseconds:.1f} µs per asset and bar; about 4 on one core when this was written"
