"""The fear & greed index of alternative.me: once a day, under the name and with the times that history gives it.

Source: "Crypto Fear & Greed Index", API of alternative.me, who asks to be named wherever the index is shown.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from cryptoalpha.core.errors import DataError
from cryptoalpha.core.time import DAY, HOUR, SECOND
from cryptoalpha.core.values import ChainReading
from cryptoalpha.data.coinmetrics import daily_reading
from cryptoalpha.data.metrics import MARKET
from cryptoalpha.data.sources.chain_asking import Asking, decoded
from cryptoalpha.data.sources.chain_config import FearGreedSection
from cryptoalpha.data.sources.chain_daily import TOPIC, daily, readings_of
from cryptoalpha.data.sources.contract import Arrival, Health
from cryptoalpha.data.sources.opening import Tools
from cryptoalpha.data.tabular import RawTable
from cryptoalpha.store.tables import ReadingTable

NAME: Final = "fear_greed"
METRIC: Final = "fear_greed"
PUBLISHER: Final = "alternative.me"
"""`ChainReading.source`, as in history."""
_LATEST_SECOND: Final = 2**33


class _Index(msgspec.Struct):
    data: list[msgspec.Raw]


class _Day(msgspec.Struct):
    value: str | int
    timestamp: str | int


_INDEX = msgspec.json.Decoder(_Index)
_DAY = msgspec.json.Decoder(_Day)


def open_source(section: FearGreedSection, tools: Tools) -> FearGreedSource:
    """The index as configured; no key is needed."""
    return FearGreedSource(section, tools)


def parse_index(raw: bytes, received_at: int = 0) -> tuple[dict[int, float], list[tuple[str, bytes]]]:
    """Values by day (UTC ns), and what cannot be read."""
    days: dict[int, float] = {}
    faults: list[tuple[str, bytes]] = []
    for item in decoded(raw, _INDEX, "fear & greed index").data:
        one = bytes(item)
        try:
            day = decoded(one, _DAY, "day of the fear & greed index")
            value, second = _whole(day.value, 100), _whole(day.timestamp, _LATEST_SECOND)
        except DataError as error:
            faults.append((str(error), one))
            continue
        days[second * SECOND // DAY * DAY] = float(value)
    return days, faults


def table_of(days: dict[int, float], *, lag: int) -> ReadingTable:
    """As history has it. `lag`: ns after the start of a day at which its value counts as published."""
    stamp = np.array(sorted(days), np.int64)
    value = np.array([days[day] for day in sorted(days)], np.float64)
    return daily_reading(MARKET, METRIC, PUBLISHER, RawTable(Path(NAME), "", stamp, {METRIC: value}, {}), value, delay=lag)


class FearGreedSource:
    """A `Source` of one `ChainReading` a day, on topic `readings`."""

    topics = (TOPIC,)

    def __init__(self, section: FearGreedSection, tools: Tools, *, asking: Asking | None = None) -> None:
        self.name = NAME
        self._section, self._tools = section, tools
        self._asking = asking or Asking(NAME, PUBLISHER, section.base_url, section, tools, Health())
        self.health = self._asking.health

    def arrivals(self, position: str) -> AsyncIterator[Arrival]:
        """See `Source.arrivals`."""
        section = self._section
        return daily(self._asking, position, self.fetch, poll_minutes=section.poll_minutes, days_kept=section.days_back + 2)

    async def close(self) -> None:
        """See `Source.close`."""
        await self._asking.close()

    async def fetch(self) -> tuple[list[ChainReading], list[tuple[str, bytes]]]:
        """Ask once: readings, and (reason, bytes) of what cannot be read."""
        question = {"limit": str(self._section.days_back), "format": "json"}
        days, faults = await self._asking.get("/fng/", parse_index, params=question)
        table = table_of(days, lag=int(self._section.lag_hours * HOUR))
        return readings_of([table], received_at=self._asking.heard_at), faults


def _whole(value: str | int, most: int) -> int:
    text = str(value)
    if not (text.isascii() and text.isdigit() and len(text) <= 12 and int(text) <= most):
        raise DataError(f"{text[:40]!r} is no number from 0 to {most}")
    return int(text)
