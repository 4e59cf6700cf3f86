"""Daily on-chain rows in Coin Metrics' column names, translated into the vocabulary of `data.metrics`.

Row D covers day D and is known at D + 1 d plus a publication lag. Derived columns of whoever collected a file are not read: they are
recomputed here from what they were made of. Values of one day depend on that day's row alone.

Source: Coin Metrics, "Network Data" (community) dictionary of metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from cryptoalpha.core.errors import DataError
from cryptoalpha.core.time import DAY
from cryptoalpha.data.metrics import MARKET
from cryptoalpha.data.tabular import RawTable
from cryptoalpha.store.tables import Floats, ReadingTable

SOURCE = "coinmetrics"
STAMP = "time"
STABLECOINS = ("USDT", "USDC")
"""Coins whose supply adds up to `stablecoin_supply_usd`, one coin counted as one dollar."""

Columns = Mapping[str, Floats]
Formula = Callable[[Columns], Floats]

_FORMULAS: tuple[tuple[str, tuple[str, ...], Formula], ...] = (
    # metric, the columns it is made of, how; the first whose columns a file has counts
    ("active_addresses", ("AdrActCnt",), lambda c: c["AdrActCnt"]),
    ("transactions", ("TxCnt",), lambda c: c["TxCnt"]),
    ("transfer_value_usd", ("TxTfrValAdjUSD",), lambda c: c["TxTfrValAdjUSD"]),
    ("transfer_value_usd", ("TxTfrValUSD",), lambda c: c["TxTfrValUSD"]),
    ("mean_transfer_usd", ("TxTfrValMeanUSD",), lambda c: c["TxTfrValMeanUSD"]),
    ("mean_transfer_usd", ("TxTfrValUSD", "TxTfrCnt"), lambda c: _ratio(c["TxTfrValUSD"], c["TxTfrCnt"])),
    ("fees_usd", ("FeeTotUSD",), lambda c: c["FeeTotUSD"]),
    ("fees_usd", ("FeeTotNtv", "PriceUSD"), lambda c: c["FeeTotNtv"] * c["PriceUSD"]),
    ("exchange_inflow_usd", ("FlowInExUSD",), lambda c: c["FlowInExUSD"]),
    ("exchange_outflow_usd", ("FlowOutExUSD",), lambda c: c["FlowOutExUSD"]),
    ("exchange_reserve", ("SplyExNtv",), lambda c: c["SplyExNtv"]),
    ("supply", ("SplyCur",), lambda c: c["SplyCur"]),
    ("market_cap_usd", ("CapMrktCurUSD",), lambda c: c["CapMrktCurUSD"]),
    ("realised_cap_usd", ("CapRealUSD",), lambda c: c["CapRealUSD"]),
    ("realised_cap_usd", ("CapMrktCurUSD", "CapMVRVCur"), lambda c: _ratio(c["CapMrktCurUSD"], c["CapMVRVCur"])),
    ("mvrv", ("CapMVRVCur",), lambda c: c["CapMVRVCur"]),
    ("mvrv", ("CapMrktCurUSD", "CapRealUSD"), lambda c: _ratio(c["CapMrktCurUSD"], c["CapRealUSD"])),
    ("nvt", ("CapMrktCurUSD", "TxTfrValAdjUSD"), lambda c: _ratio(c["CapMrktCurUSD"], c["TxTfrValAdjUSD"])),
    ("nvt", ("CapMrktCurUSD", "TxTfrValUSD"), lambda c: _ratio(c["CapMrktCurUSD"], c["TxTfrValUSD"])),
    ("hash_rate", ("HashRate",), lambda c: c["HashRate"]),
)

COLUMNS: tuple[str, ...] = tuple(sorted({name for _, needs, _ in _FORMULAS for name in needs}))
"""Every column that is read; all others are left alone."""


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Quotient; NaN where the denominator is zero or unknown."""
    safe = np.where(denominator > 0, denominator, np.nan)
    return np.asarray(numerator / safe, np.float64)


def read_chain(asset: str, files: Sequence[RawTable], *, lag: int) -> dict[tuple[str, str], ReadingTable]:
    """The readings of one asset. Where several files give a metric, the first in `files` counts, whole.

    Raises:
        DataError: if a file has none of the columns this reader knows.
    """
    found: dict[tuple[str, str], ReadingTable] = {}
    for raw in files:
        if not raw.numbers:
            raise DataError(
                f"{raw.path}: none of its columns is a known on-chain metric", hint=f"expected {STAMP} and some of: {', '.join(COLUMNS)}"
            )
        for metric, needs, formula in _FORMULAS:
            if (asset, metric) not in found and all(name in raw.numbers for name in needs):
                found[asset, metric] = daily_reading(asset, metric, SOURCE, raw, formula(raw.numbers), delay=DAY + lag)
    return found


def read_stablecoins(files: Sequence[RawTable], *, lag: int) -> dict[tuple[str, str], ReadingTable]:
    """Supply of dollar stablecoins, summed over coins day by day; ends when the first coin's rows end, so a lost file is no crash.

    A coin counts from its first row on. Rows are named after the first file, the longest-lived coin.
    """
    if not files or any("SplyCur" not in raw.numbers for raw in files):
        return {}
    first = max(files, key=len)
    total = np.array(first.numbers["SplyCur"])
    day = first.stamp // DAY
    for raw in files:
        if raw is first:
            continue
        place = np.searchsorted(raw.stamp, first.stamp, side="right") - 1
        same_day = raw.stamp[np.maximum(place, 0)] // DAY == day
        joined = np.where((place >= 0) & same_day, raw.numbers["SplyCur"][np.maximum(place, 0)], np.nan)
        total += np.where(first.stamp < raw.stamp[0], 0.0, joined)
    metric = "stablecoin_supply_usd"
    return {(MARKET, metric): daily_reading(MARKET, metric, SOURCE, first, total, delay=DAY + lag)}


def daily_reading(asset: str, metric: str, source: str, raw: RawTable, value: Floats, *, delay: int) -> ReadingTable:
    """A table of one value per day, known `delay` ns after the day's start; rows without a finite value are left out."""
    day = raw.stamp // DAY * DAY
    rows: npt.NDArray[np.int64] = np.flatnonzero(np.isfinite(value))
    rows = rows[np.argsort(day[rows], kind="stable")]
    return ReadingTable(
        asset=asset,
        metric=metric,
        source=source,
        happened_at=day[rows],
        known_at=day[rows] + delay,
        value=value[rows],
        partition=np.full(len(rows), raw.partition, "U16"),
        row=rows,
    )
