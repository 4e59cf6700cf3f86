"""The fear & greed index: one number a day."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cryptoalpha.core.time import DAY, SECOND, day_of
from cryptoalpha.data.metrics import MARKET
from cryptoalpha.data.sources.chain_config import FearGreedSection
from cryptoalpha.data.sources.fear_greed import open_source

FIRST = 1_700_000_000 * SECOND // DAY * DAY - 20 * DAY


class FearGreed:
    name, faults, keyed, extra = "fear_greed", frozenset({"429", "500", "cut"}), False, ""
    repeats = False  # an answer is a table by day: what stands in it twice is one row
    disorder = garbage = True
    skew = False  # a day's value waits for its own time of publication: our clock cannot be behind it

    def open(self, fake: Any, tools: Any) -> Any:
        return open_source(FearGreedSection(base_url=fake.url, days_back=30), tools)

    def serve(self, fake: Any, numbers: Sequence[int], *, first: str = "", garbage: bool = False) -> None:
        days: list[Any] = [{"value": str(number), "timestamp": str((FIRST + number * DAY) // SECOND)} for number in numbers]
        whole = fake.Reply({"data": [*days[:2], *([{"value": "much"}] if garbage else []), *days[2:]]})
        wrong = {
            "": [],
            "429": [fake.Reply(status=429, headers={"Retry-After": "7"})],
            "500": [fake.Reply(status=500)],
            "cut": [fake.Reply(whole.body, cut=40)],
        }
        fake.answers("/fng/", *wrong[first], whole)

    def ids(self, numbers: Sequence[int]) -> set[str]:
        return {f"fear_greed/{MARKET}/fear_greed/{day_of(FIRST + number * DAY)}/0" for number in numbers}


CASES = [FearGreed()]
