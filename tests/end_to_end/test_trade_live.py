"""Paper trading on bars as they come: stored before they are traded, found again after a restart, and the same orders as a backtest."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from cryptoalpha.app.live_monitor import LiveMonitor
from cryptoalpha.app.period import Period
from cryptoalpha.app.settings import Settings
from cryptoalpha.app.sources import open_store
from cryptoalpha.app.trade import SessionStoppedError, TradeReport, paper, replay
from cryptoalpha.core.time import DAY, HOUR
from cryptoalpha.core.values import Fill, ObservationRef, Order, Signal
from cryptoalpha.data.live import LiveBatch
from cryptoalpha.data.simulated import simulate
from cryptoalpha.store.history import History
from cryptoalpha.store.home import Home
from cryptoalpha.store.journal_reader import JournalReader
from cryptoalpha.store.tables import BarTable, Dataset

BATCHES = 60
SETTINGS = Settings.model_validate(
    {
        "engine": {"auto_trading": True},
        "data": {"simulated": {"assets": 2, "bars": 2400}},
        "signals": {"sources": ["trend", "momentum_short"], "keep_features": False},
        "fusion": {"method": "equal"},
        "agent": {"dead_band": 0.02, "long_only": False, "smoothing_half_life_bars": 2},
        "risk": {"allow_short": True, "no_trade_band": 0.002},
    }
)


@pytest.fixture(scope="module")
def market() -> Dataset:
    return simulate(SETTINGS.data.simulated, 3).dataset


class Venue:
    """A store filled up to a moment, and the bars that come after it."""

    def __init__(self, root: Path, market: Dataset) -> None:
        self.home, self._market = Home(root), market
        table = next(iter(market.bars.values()))
        self.cut = int(table.open_time[-BATCHES])
        with History(self.home) as history:
            for bars in market.bars.values():
                history.write_bars("simulated", bars.take(bars.open_time < self.cut), origin="test")
            history.write_rules(market.rules.values())

    def batches(self, after: int, count: int) -> Iterator[LiveBatch]:
        for opened in range(after + HOUR, min(after + (count + 1) * HOUR, self.cut + BATCHES * HOUR), HOUR):
            rows: dict[str, BarTable] = {}
            for name, table in self._market.bars.items():
                rows[name] = table.take(np.flatnonzero(table.open_time == opened))
            yield LiveBatch(opened, opened + HOUR, rows, ())

    def session(self, count: int, monitor: LiveMonitor | None = None) -> TradeReport:
        dataset = open_store(self.home.root, interval="1h", instruments=None)
        newest = int(next(iter(dataset.bars.values())).open_time[-1])
        journal = self.home.root / "runs" / "paper" / "journal.sqlite"
        journal.parent.mkdir(parents=True, exist_ok=True)
        with History(self.home) as history:
            return paper(
                SETTINGS, history, dataset, self.batches(newest, count), journal, run="paper", venue="simulated",
                stop=threading.Event(), say=lambda text: None, monitor=monitor,
            )  # fmt: skip


def test_live_bars_are_judged_by_the_clock_on_the_wall(tmp_path: Path, market: Dataset):
    """These bars are years old: a feed that delivers them delivers nothing that may be traded on."""
    said: list[str] = []
    with LiveMonitor(SETTINGS, said.append) as monitor:
        Venue(tmp_path / "home", market).session(3, monitor)
    assert sum("alert stale_data" in text for text in said) == len(market.bars)


def test_two_sessions_leave_the_journal_of_one(tmp_path: Path, market: Dataset):
    whole = Venue(tmp_path / "whole", market).session(BATCHES)
    assert whole.steps == BATCHES
    assert whole.fills > 0
    broken = Venue(tmp_path / "broken", market)
    first = broken.session(25)
    second = broken.session(BATCHES)
    assert (first.steps, second.recovered, second.steps) == (25, 25, BATCHES)
    assert second.digest == whole.digest
    assert second.portfolio == whole.portfolio
    assert second.earned == whole.earned
    earned = [one.realised_by_average - one.cost - one.fees + one.funding for one in second.earned.values()]
    assert second.portfolio is not None
    assert second.portfolio.cash == Decimal(repr(SETTINGS.execution.initial_cash)) + sum(earned), (
        "what was paid for what is held, and earned"
    )
    assert len(second.lines()) == 2 + len(second.earned) > 2


def test_one_bar_at_a_time_gives_the_orders_of_the_batch(tmp_path: Path, market: Dataset):
    """A backtest computes its signals for the whole period at once; live they are computed for the newest bar alone."""
    venue = Venue(tmp_path / "home", market)
    venue.session(BATCHES)
    begun = venue.cut  # the store holds bars only, so the replay gets no funding either
    replayed = replay(
        SETTINGS, replace(market, readings={}), Period(begun, begun + BATCHES * HOUR), tmp_path / "batch.sqlite", run="paper", speed=0.0,
        stop=threading.Event(), say=lambda text: None,
    )  # fmt: skip
    assert replayed.steps == BATCHES

    def acts(path: Path) -> list[object]:
        with JournalReader(path) as journal:
            return [value for _, _, values in journal.rows() for value in values if isinstance(value, Signal | Order | Fill)]

    one_by_one = acts(venue.home.root / "runs" / "paper" / "journal.sqlite")
    assert one_by_one == acts(tmp_path / "batch.sqlite")
    assert any(isinstance(value, Fill) for value in one_by_one)


def test_bars_are_cited_by_their_place_in_time_because_their_file_still_grows(tmp_path: Path, market: Dataset):
    venue = Venue(tmp_path / "home", market)
    venue.session(5)
    with JournalReader(venue.home.root / "runs" / "paper" / "journal.sqlite") as journal:
        at, values = journal.read(5)
    references = [value for value in values if isinstance(value, ObservationRef)]
    assert {one.partition for one in references} == {"live"}
    assert {one.row for one in references} == {at // HOUR - 1}


def test_nothing_fills_in_the_bar_it_was_decided_on(tmp_path: Path, market: Dataset):
    venue = Venue(tmp_path / "home", market)
    venue.session(BATCHES)
    with JournalReader(venue.home.root / "runs" / "paper" / "journal.sqlite") as journal:
        fills = [(at, value) for _, at, values in journal.rows() for value in values if isinstance(value, Fill)]
    assert fills
    assert all(fill.happened_at == at - HOUR and at - fill.happened_at < DAY for at, fill in fills)


def test_a_stop_while_the_feed_waits_ends_the_session_with_a_report(tmp_path: Path, market: Dataset):
    venue = Venue(tmp_path / "home", market)
    feed = venue.batches

    def interrupted(after: int, count: int) -> Iterator[LiveBatch]:
        yield from feed(after, 5)
        raise SessionStoppedError  # what the wait of `trade` raises when SIGTERM or Ctrl-C arrives

    venue.batches = interrupted  # type: ignore[method-assign]
    stopped = venue.session(BATCHES)
    assert (stopped.steps, stopped.is_complete) == (5, False)
    venue.batches = feed  # type: ignore[method-assign]
    assert venue.session(3).recovered == 5
