"""Coin Metrics: a message is a metric of a day."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cryptoalpha.core.time import DAY, SECOND, day_of
from cryptoalpha.data.sources.chain_config import CoinMetricsSection
from cryptoalpha.data.sources.coinmetrics_live import open_source

FIRST = 1_700_000_000 * SECOND // DAY * DAY - 20 * DAY


class CoinMetrics:
    name, faults, keyed, extra = "coinmetrics", frozenset({"429", "500", "cut"}), False, ""
    repeats = False  # an answer is a table by day: what stands in it twice is one row
    disorder = garbage = True
    skew = False  # a day's row waits for its own time of publication: our clock cannot be behind it

    def open(self, fake: Any, tools: Any) -> Any:
        section = CoinMetricsSection(enabled=True, base_url=f"{fake.url}/v4", days_back=30, requests_per_minute=6000.0)
        return open_source(section, tools)

    def serve(self, fake: Any, numbers: Sequence[int], *, first: str = "", garbage: bool = False) -> None:
        rows = [self.row(number) for number in numbers]
        rows[2:2] = [{"asset": "btc", "time": "some day", "AdrActCnt": "1"}] if garbage else []
        whole = fake.Reply({"data": rows})
        wrong = {
            "": [],
            "429": [fake.Reply(status=429, headers={"Retry-After": "7"})],
            "500": [fake.Reply(status=500)],
            "cut": [fake.Reply(whole.body, cut=40)],
        }
        known = {"data": [{"asset": "btc", "metrics": [{"metric": "AdrActCnt", "frequencies": [{"frequency": "1d"}]}]}]}
        fake.answers("/v4/catalog-v2/asset-metrics", fake.Reply(known))
        fake.answers("/v4/timeseries/asset-metrics", *wrong[first], whole)

    def ids(self, numbers: Sequence[int]) -> set[str]:
        return {f"coinmetrics/BTC/active_addresses/{day_of(FIRST + number * DAY)}/0" for number in numbers}

    def row(self, number: int) -> dict[str, str]:
        return {"asset": "btc", "time": f"{day_of(FIRST + number * DAY)}T00:00:00.000000000Z", "AdrActCnt": str(900_000 + number)}


CASES = [CoinMetrics()]
