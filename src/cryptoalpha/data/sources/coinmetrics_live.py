"""Daily on-chain metrics from the community API of Coin Metrics, in the very words and by the very formulas of history.

What comes is put into the columns of a file and read by `data.coinmetrics`, so that a live reading and the same day's reading of history
agree in asset, metric, value and time. Days come in pages; the publisher allows ten requests in six seconds. The data is licensed CC BY-NC
4.0: the source is off by default, and whoever turns it on answers for the use.

Source: Coin Metrics, "API v4", `timeseries/asset-metrics` and `catalog-v2/asset-metrics`.
"""

from __future__ import annotations

import math
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.core.time import DAY, HOUR, day_of, parse_time
from cryptoalpha.core.values import ChainReading
from cryptoalpha.data import coinmetrics
from cryptoalpha.data.sources.chain_asking import Asking, decoded
from cryptoalpha.data.sources.chain_config import CoinMetricsSection
from cryptoalpha.data.sources.chain_daily import TOPIC, daily, readings_of
from cryptoalpha.data.sources.contract import Arrival, Health
from cryptoalpha.data.sources.opening import Tools
from cryptoalpha.data.tabular import RawTable
from cryptoalpha.store.tables import ReadingTable

NAME: Final = "coinmetrics"
_MOST_PAGES: Final = 100
_LATEST: Final = 2**62
"""UTC ns; in the year 2116."""
_NUMBER: Final = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?")
Row = Mapping[str, str | float]
Fault = tuple[str, bytes]


class _Page(msgspec.Struct):
    data: list[msgspec.Raw]
    next_page_token: str | None = None


class _Entry(msgspec.Struct):
    asset: str
    metrics: list[msgspec.Raw] = []


class _Frequency(msgspec.Struct):
    frequency: str


class _Metric(msgspec.Struct):
    metric: str
    frequencies: list[_Frequency] | None = None


class _Catalogue(msgspec.Struct):
    data: list[_Entry]


_PAGE = msgspec.json.Decoder(_Page)
_ROW = msgspec.json.Decoder(dict[str, str | float | int | None])
_CATALOGUE = msgspec.json.Decoder(_Catalogue)
_METRIC = msgspec.json.Decoder(_Metric)


def open_source(section: CoinMetricsSection, tools: Tools) -> CoinMetricsSource:
    """The assets traded, and the dollar stablecoins."""
    assets = tuple(dict.fromkeys(instrument.partition("/")[0] for instrument in tools.instruments))
    if not assets:
        raise ConfigError("no instrument is traded, so there is no asset to ask for", hint="name instruments")
    return CoinMetricsSource(section, tools, assets)


def parse_page(raw: bytes, received_at: int = 0) -> tuple[dict[str, list[dict[str, float]]], list[Fault], str]:
    """Rows by asset (capitals), what cannot be read, and the token of the next page (empty: the last).

    A row holds `coinmetrics.STAMP` (UTC ns of the day, exact as a float) and the metrics that have a value.
    """
    page = decoded(raw, _PAGE, "page of metrics")
    rows: dict[str, list[dict[str, float]]] = {}
    faults: list[Fault] = []
    for item in page.data:
        one = bytes(item)
        try:
            asset, row = _row(one)
        except DataError as error:
            faults.append((str(error), one))
            continue
        rows.setdefault(asset, []).append(row)
    return rows, faults, page.next_page_token or ""


def parse_catalogue(raw: bytes, received_at: int = 0) -> dict[str, tuple[str, ...]]:
    """Daily metrics there are, by asset (capitals)."""
    found: dict[str, tuple[str, ...]] = {}
    for entry in decoded(raw, _CATALOGUE, "catalogue of metrics").data:
        known = [decoded(bytes(item), _METRIC, "metric of a catalogue") for item in entry.metrics]
        daily_ones = (one.metric for one in known if one.frequencies is None or any(each.frequency == "1d" for each in one.frequencies))
        found[entry.asset.upper()] = tuple(daily_ones)
    return found


def tables_of(rows: Mapping[str, Sequence[Mapping[str, float]]], assets: Sequence[str], *, lag: int) -> list[ReadingTable]:
    """Readings of the assets and of the stablecoins, by the formulas of history. `lag`: ns after a day's end."""
    raw = {asset: _columns(asset, found) for asset, found in rows.items() if found}
    tables: list[ReadingTable] = []
    for asset in assets:
        if asset in raw and raw[asset].numbers:
            tables += coinmetrics.read_chain(asset, [raw[asset]], lag=lag).values()
    coins = [raw[coin] for coin in coinmetrics.STABLECOINS if coin in raw]
    if len(coins) == len(coinmetrics.STABLECOINS):
        begin = max(int(coin.stamp[0]) for coin in coins)  # a coin's days before its first are none, not zero, where days are few
        tables += coinmetrics.read_stablecoins([_since(coin, begin) for coin in coins], lag=lag).values()
    return tables


class CoinMetricsSource:
    """A `Source` of daily `ChainReading`s, on topic `readings`."""

    topics = (TOPIC,)

    def __init__(self, section: CoinMetricsSection, tools: Tools, assets: Sequence[str], *, asking: Asking | None = None) -> None:
        self.name = NAME
        self._section, self._tools, self._assets = section, tools, tuple(assets)
        self._asking = asking or Asking(NAME, "Coin Metrics", section.base_url, section, tools, Health())
        self.health = self._asking.health
        self._metrics: dict[str, tuple[str, ...]] = {}

    def arrivals(self, position: str) -> AsyncIterator[Arrival]:
        """See `Source.arrivals`."""
        # Two days more than are asked for: an early one may still wait for its time.
        days_kept = self._section.days_back + 2
        return daily(self._asking, position, self.fetch, poll_minutes=self._section.poll_minutes, days_kept=days_kept)

    async def close(self) -> None:
        """See `Source.close`."""
        await self._asking.close()

    async def fetch(self) -> tuple[list[ChainReading], list[Fault]]:
        """Ask once: readings, and (reason, bytes) of what cannot be read."""
        if not self._metrics:
            self._metrics = await self._catalogue()
        since = day_of(self._tools.clock.now() - self._section.days_back * DAY)
        rows: dict[str, list[dict[str, float]]] = {}
        faults: list[Fault] = []
        for metrics in dict.fromkeys(self._metrics.values()):  # assets with the same metrics are asked for together
            assets = [asset for asset, known in self._metrics.items() if known == metrics]
            question = {
                "assets": ",".join(asset.lower() for asset in assets),
                "metrics": ",".join(metrics),
                "frequency": "1d",
                "start_time": since,
                "paging_from": "start",
                "page_size": str(self._section.page_rows),
            }
            for asset, found in (await self._pages(question, faults)).items():
                rows.setdefault(asset, []).extend(found)
        tables = tables_of(rows, self._assets, lag=int(self._section.lag_hours * HOUR))
        return readings_of(tables, received_at=self._asking.heard_at), faults

    async def _catalogue(self) -> dict[str, tuple[str, ...]]:
        """Of the assets wanted, the metrics wanted that there are: one that an asset lacks would spoil the whole question."""
        wanted = tuple(dict.fromkeys((*self._assets, *coinmetrics.STABLECOINS)))
        question = {"assets": ",".join(asset.lower() for asset in wanted), "page_size": "1000"}
        found = await self._asking.get("/catalog-v2/asset-metrics", parse_catalogue, params=question)
        useful = {asset: tuple(name for name in coinmetrics.COLUMNS if name in found.get(asset, ())) for asset in wanted}
        return {asset: metrics for asset, metrics in useful.items() if metrics}

    async def _pages(self, question: Mapping[str, str], faults: list[Fault]) -> dict[str, list[dict[str, float]]]:
        """All pages of one question.

        Raises:
            DataError: if they do not end.
        """
        rows: dict[str, list[dict[str, float]]] = {}
        token = ""
        for _ in range(_MOST_PAGES):
            asked = {**question, "next_page_token": token} if token else question
            found, unread, following = await self._asking.get("/timeseries/asset-metrics", parse_page, params=asked)
            faults += unread
            for asset, more in found.items():
                rows.setdefault(asset, []).extend(more)
            if not following or following == token:
                return rows
            token = following
        raise DataError(f"more than {_MOST_PAGES} pages", hint="raise data.streams.sources.coinmetrics.page_rows")


def _row(raw: bytes) -> tuple[str, dict[str, float]]:
    fields = decoded(raw, _ROW, "row of metrics")
    asset, stamp = fields.pop("asset", None), fields.pop(coinmetrics.STAMP, None)
    if not (isinstance(asset, str) and 0 < len(asset) <= 40 and isinstance(stamp, str)):
        raise DataError("a row of metrics without asset or time")
    row = {coinmetrics.STAMP: float(_day(stamp))}
    for name, value in fields.items():
        if name in coinmetrics.COLUMNS and value is not None:
            row[name] = _number(name, value)
    return asset.upper(), row


def _day(stamp: str) -> int:
    """Start of the day of a stamp, whose fraction of a second has nine digits."""
    try:
        moment = parse_time(re.sub(r"\.\d+", "", stamp))
    except (ConfigError, OverflowError) as error:
        raise DataError(f"{stamp[:40]!r} is no time: {error}") from None
    if not 0 <= moment < _LATEST:
        raise DataError(f"{stamp[:40]!r} is no time of a chain")
    return moment // DAY * DAY


def _number(name: str, value: str | float) -> float:
    if isinstance(value, str) and _NUMBER.fullmatch(value) is None:
        raise DataError(f"{name} is {value[:40]!r}, no number")
    number = float(value)
    if not math.isfinite(number):
        raise DataError(f"{name} is {value!r}, no number")
    return number


def _columns(asset: str, rows: Sequence[Mapping[str, float]]) -> RawTable:
    """Rows as columns, by day; of a day told twice, the last."""
    by_day = {int(row[coinmetrics.STAMP]): row for row in rows}
    days = sorted(by_day)
    names = [name for name in coinmetrics.COLUMNS if any(name in row for row in rows)]
    numbers = {name: np.array([by_day[day].get(name, math.nan) for day in days], np.float64) for name in names}
    return RawTable(Path(f"{NAME}/{asset.lower()}"), "", np.array(days, np.int64), numbers, {})


def _since(raw: RawTable, begin: int) -> RawTable:
    keep = raw.stamp >= begin
    return RawTable(raw.path, raw.partition, raw.stamp[keep], {name: column[keep] for name, column in raw.numbers.items()}, raw.texts)
