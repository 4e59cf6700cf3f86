"""The guide to execution keeps its word: the configuration it hands to a newcomer makes orders within minutes of simulated history."""

from __future__ import annotations

import dataclasses
import re
import threading
from pathlib import Path

from cryptoalpha.app.period import Period
from cryptoalpha.app.settings import read_file_alone
from cryptoalpha.app.trade import replay
from cryptoalpha.core.time import MINUTE
from cryptoalpha.data.simulated import simulate
from cryptoalpha.store.tables import Dataset

GUIDE = Path(__file__).parents[3] / "docs" / "execution.md"
KNOWN, WATCHED = 19_710, 60
"""Hourly bars the fake exchange knows at its start (three quarters), and minutes somebody may sit and watch."""


def a_bar_a_minute(market: Dataset) -> tuple[Dataset, int]:
    """What the exchange shows with `--as 1m`, and when its last known bar closed."""
    bars = {}
    for key in sorted(market.bars)[:2]:
        table = market.bars[key]
        first = int(table.open_time[0])
        stamps = first + (table.open_time - first) // 60
        bars[key] = dataclasses.replace(table, interval=MINUTE, open_time=stamps, known_at=stamps + MINUTE)
    stamps = next(iter(bars.values())).open_time
    rules = {key: market.rules[key] for key in bars}
    return dataclasses.replace(market, bars=bars, readings={}, rules=rules), int(stamps[KNOWN])


def test_the_guide_s_own_configuration_trades_while_somebody_watches(tmp_path):
    found = re.search(r"```yaml\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    (tmp_path / "live.yaml").write_text(found[1], encoding="utf-8")
    settings = read_file_alone(tmp_path / "live.yaml")
    market, now = a_bar_a_minute(simulate(settings.data.simulated, settings.engine.seed).dataset)
    said: list[str] = []
    report = replay(
        settings, market, Period(now, now + WATCHED * MINUTE), tmp_path / "journal.sqlite", run="paper", speed=0.0,
        stop=threading.Event(), say=said.append,
    )  # fmt: skip
    assert report.as_dict()["steps"] == WATCHED, report.as_dict()
    assert sum(" buy " in line for line in said) >= 3, said
