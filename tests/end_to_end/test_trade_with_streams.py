"""Paper trading beside live streams: what they bring is traded on, stored first, and a restart decides as the session before it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from cryptoalpha.app.settings import Settings
from cryptoalpha.app.sources import open_venue
from cryptoalpha.app.streams.taking import Heard
from cryptoalpha.app.trade import TradeReport, paper
from cryptoalpha.core.time import HOUR
from cryptoalpha.core.values import Signal
from cryptoalpha.data.live import LiveBatch
from cryptoalpha.data.simulated import simulate
from cryptoalpha.signals.agents.replay import messages_of
from cryptoalpha.store.history import History
from cryptoalpha.store.home import Home
from cryptoalpha.store.journal_reader import JournalReader
from cryptoalpha.store.tables import BarTable, Dataset

BATCHES = 30
SETTINGS = Settings.model_validate(
    {
        "engine": {"auto_trading": True},
        "data": {"simulated": {"assets": 2, "bars": 1200, "posts_per_day": 24.0}},
        "signals": {"sources": ["news_tone", "funding"], "keep_features": False},
        "fusion": {"method": "equal"},
        "agent": {"dead_band": 0.0, "long_only": False},
        "risk": {"allow_short": True, "no_trade_band": 0.0},
    }
)


@pytest.fixture(scope="module")
def market() -> Dataset:
    return simulate(SETTINGS.data.simulated, 3).dataset


class Heardings:
    """The market's own texts and readings as streams bring them; what was taken and not stored is brought again."""

    def __init__(self, market: Dataset, since: int) -> None:
        self._market, self._since = market, since
        self._until = self._taken = since

    def at(self, moment: int) -> None:
        self._until = moment

    def take(self) -> Sequence[Heard]:
        self._taken = self._until
        messages = messages_of(self._market, after=self._since, until=self._until)
        return [Heard(envelope.value()) for envelope in messages if envelope.topic != "market"]  # type: ignore[arg-type]

    def stored(self) -> None:
        self._since = self._taken

    def priced(self, closes: Mapping[str, float]) -> None:
        assert all(close > 0.0 for close in closes.values())


class Venue:
    """A store filled up to a moment, and what comes after it."""

    def __init__(self, root: Path, market: Dataset, *, late: int = 0) -> None:
        self.home, self._market, self._late = Home(root), market, late
        self.cut = int(next(iter(market.bars.values())).open_time[-BATCHES])
        known = market.known_until(self.cut)
        with History(self.home) as history:
            for bars in known.bars.values():
                history.write_bars("simulated", bars, origin="test")
            for posts in known.posts.values():
                history.write_posts(posts, origin="test")
            for readings in known.readings.values():
                history.write_readings(readings, origin="test")
            history.write_rules(market.rules.values())
        self.streams = Heardings(market, self.cut)

    def batches(self, after: int, count: int) -> Iterator[LiveBatch]:
        for opened in range(after + HOUR, min(after + (count + 1) * HOUR, self.cut + BATCHES * HOUR), HOUR):
            rows: dict[str, BarTable] = {}
            for name, table in self._market.bars.items():
                rows[name] = table.take(np.flatnonzero(table.open_time == opened))
            self.streams.at(opened + HOUR - self._late)
            yield LiveBatch(opened, opened + HOUR, rows, ())

    def session(self, count: int, *, streams: bool = True) -> TradeReport:
        dataset = open_venue(self.home.root, venue="simulated", interval="1h", instruments=None, now=self.cut)
        newest = int(next(iter(dataset.bars.values())).open_time[-1])
        self.journal.parent.mkdir(parents=True, exist_ok=True)
        with History(self.home) as history:
            return paper(
                SETTINGS, history, dataset, self.batches(newest, count), self.journal, run="paper", venue="simulated",
                stop=threading.Event(), say=lambda text: None, streams=self.streams if streams else None,
            )  # type: ignore[arg-type]  # fmt: skip

    @property
    def journal(self) -> Path:
        return self.home.root / "runs" / "paper" / "journal.sqlite"


def signals(venue: Venue) -> list[Signal]:
    with JournalReader(venue.journal) as journal:
        return [value for _, _, values in journal.rows() for value in values if isinstance(value, Signal)]


@pytest.mark.parametrize("late", [0, 40 * 60 * 1_000_000_000])
def test_two_sessions_that_listen_leave_the_journal_of_one(tmp_path: Path, market: Dataset, late: int):
    """Texts of the last forty minutes reach the book a bar late; they count from then on, before a restart and after it."""
    whole = Venue(tmp_path / "whole", market, late=late)
    report = whole.session(BATCHES)
    assert report.steps == BATCHES
    broken = Venue(tmp_path / "broken", market, late=late)
    broken.session(11)
    again = broken.session(BATCHES)
    assert (again.recovered, again.steps) == (11, BATCHES)
    assert again.digest == report.digest
    assert len({signal.reference for signal in signals(whole) if signal.source == "news_tone"}) > 10


def test_what_is_heard_is_traded_on_as_a_history_that_holds_it(tmp_path: Path, market: Dataset):
    """The same signals as over the whole data set; without listening the day's texts run out."""
    listening, deaf = Venue(tmp_path / "listening", market), Venue(tmp_path / "deaf", market)
    listening.session(BATCHES)
    deaf.session(BATCHES, streams=False)
    from cryptoalpha.signals.book import SignalBook

    tape = SignalBook(SETTINGS.signals).prepare(market, since=listening.cut, until=listening.cut + BATCHES * HOUR)
    expected = [signal for t in range(len(tape)) for signal in tape.signals_at(t)]
    heard = signals(listening)
    assert [(one.known_at, one.source, one.instrument, one.value, one.confidence) for one in heard] == [
        (one.known_at, one.source, one.instrument, one.value, one.confidence) for one in expected
    ]
    assert [one.value for one in signals(deaf)] != [one.value for one in heard]
