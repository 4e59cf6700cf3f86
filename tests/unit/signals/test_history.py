"""What is kept from one live bar to the next changes no bit of it, and is forgotten as soon as the past is another."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cryptoalpha.core.time import DAY, HOUR
from cryptoalpha.data.config import SimulatedConfig
from cryptoalpha.data.simulated import simulate
from cryptoalpha.signals import feature_ridge
from cryptoalpha.signals.book import SignalBook
from cryptoalpha.signals.config import FeatureRidgeConfig, SignalsConfig
from cryptoalpha.signals.feature_ridge import FeatureRidge
from cryptoalpha.signals.frame import Frame
from cryptoalpha.signals.genome import token_memory
from cryptoalpha.signals.genome.frames import frame_tokens, frames_reach
from cryptoalpha.signals.genome.token_memory import TokenMemory
from cryptoalpha.signals.history import History
from cryptoalpha.store.panel import build_panel
from cryptoalpha.store.tables import Dataset

BARS = 14_600
FRAMES = ("1h", "4h", "1d")
REACH = frames_reach((HOUR, 4 * HOUR, DAY)) + 32
ABSENT = (*range(14_330, 14_337), 14_400, 14_360, 14_450)


@pytest.fixture(scope="module")
def market() -> Dataset:
    dataset = simulate(SimulatedConfig(assets=2, bars=BARS, posts_per_day=12.0, start="2021-01-01"), seed=9).dataset
    name = "SIM2/USDT"
    kept = np.array([row for row in range(BARS) if row not in ABSENT])
    return replace(dataset, bars={**dataset.bars, name: dataset.bars[name].take(kept)})


def frame_at(dataset: Dataset, row: int, history: History | None = None) -> Frame:
    """The frame of a live bar: nothing known later is in it."""
    opens = dataset.bars["SIM1/USDT"].open_time
    known = dataset.known_until(int(opens[row]) + HOUR)
    panel = build_panel(known, since=int(opens[row - REACH]), until=2**62)
    return Frame(panel, known, first=REACH, history=None if history is None else history.mark(panel, known))


def corrected(dataset: Dataset, row: int) -> Dataset:
    table = dataset.bars["SIM1/USDT"]
    close = np.array(table.close)
    close[row] *= 1.02
    table = replace(table, close=close, high=np.maximum(table.high, close))
    return replace(dataset, bars={**dataset.bars, "SIM1/USDT": table})


def reread(dataset: Dataset) -> Dataset:
    """Chain readings of a hundred days ago turn out ten times as large."""
    changed = {}
    for key, table in dataset.readings.items():
        old = table.known_at < int(dataset.bars["SIM1/USDT"].open_time[14_380]) - 3 * DAY
        changed[key] = replace(table, value=np.where(old, table.value, 10.0 * table.value))
    return replace(dataset, readings=changed)


def rewritten(dataset: Dataset) -> Dataset:
    (source, table), *_ = dataset.posts.items()
    text = np.array(table.text)
    text[table.known_at > int(dataset.bars["SIM1/USDT"].open_time[14_360])] = "SIM1 hacked, SEC sues, crash"
    return replace(dataset, posts={**dataset.posts, source: replace(table, text=text)})


def same(one: object, other: object) -> bool:
    return all(getattr(one, name).tobytes() == getattr(other, name).tobytes() for name in ("tokens", "missing", "present"))


def test_tokens_kept_are_the_tokens_computed_anew(market, monkeypatch):
    """Bar after bar over days, outages in it; then the past changes in four ways, one of which no frame had seen yet."""
    told, asked = token_memory.asset_tokens, []

    def counted(evidence, asset, bars, opens, interval, first=0):
        asked.append(len(opens) - first)
        return told(evidence, asset, bars, opens, interval, first=first)

    history, memory = History(), TokenMemory()
    stretch = [(market, range(14_326, 14_380)), (corrected(market, 14_370), range(14_380, 14_382))]
    stretch += [
        (reread(market), range(14_382, 14_384)),
        (rewritten(market), range(14_384, 14_386)),
        (market, [14_386, 14_390, 14_460, 14_459]),
    ]
    seen, computed = set(), []
    for dataset, rows in stretch:
        for row in rows:
            frame = frame_at(dataset, row, history)
            asked.clear()
            monkeypatch.setattr("cryptoalpha.signals.genome.token_memory.asset_tokens", counted)
            kept = frame_tokens(frame, FRAMES, begin=REACH - 32, memory=memory)
            monkeypatch.setattr("cryptoalpha.signals.genome.token_memory.asset_tokens", told)
            if row % 4 in (0, 3) or row >= 14_380:
                assert same(kept, frame_tokens(frame, FRAMES, begin=REACH - 32)), row
            computed.append(sum(asked) / 2)
            seen.add(frame.history)
    assert computed[1:54] == [1 + (row % 4 == 3) + (row % 24 == 23) for row in range(14_327, 14_380)], "one bar of each length that closed"
    assert len(seen) == 6, "one history per change, and another where a frame ends before the last one"
    assert min(computed[54], computed[56], computed[58]) > 40, "nothing is kept of another past"


def test_a_memory_that_forgot_to_look_would_be_found_out(market):
    """The mutation: one history, whatever the frames show."""
    memory, mark = TokenMemory(), object()
    before = frame_at(market, 14_390)
    frame_tokens(replace(before, history=mark), FRAMES, begin=REACH - 32, memory=memory)
    frame = replace(frame_at(corrected(market, 14_385), 14_391), history=mark)
    assert not same(frame_tokens(frame, FRAMES, begin=REACH - 32, memory=memory), frame_tokens(frame, FRAMES, begin=REACH - 32))


def test_a_history_goes_on_while_nothing_known_changes(market):
    history = History()

    def mark(dataset: Dataset, row: int) -> object:
        return frame_at(dataset, row, history).history

    first = mark(market, 14_300)
    assert mark(market, 14_301) is first
    later = {key: replace(table, value=np.array(table.value)) for key, table in market.readings.items()}
    assert mark(replace(market, readings=later), 14_305) is first, "equal tables, read again"
    assert mark(market, 14_305) is first
    assert mark(corrected(market, 14_500), 14_306) is first, "a bar nobody has seen yet"
    for other in (corrected(market, 14_300), reread(market), rewritten(market)):
        mark(market, 14_400)
        again = mark(market, 14_401)
        assert mark(other, 14_402) is not again
        assert mark(other, 14_403) is not again
    again = mark(market, 14_401)
    assert mark(corrected(market, 100), 14_402) is again, "a bar before the frame is in nobody's reach"
    without = replace(market, posts={})
    assert mark(without, 14_403) is not mark(market, 14_404)


def test_a_refit_takes_features_from_the_bars_before_it(market, monkeypatch):
    """The bar at which the ridge is fitted anew asks for its own features alone; the fit is that of a book that starts there."""
    config = FeatureRidgeConfig(train_days=60.0, minimum_train_days=20.0, refit_days=1.0)
    signals, rows, most = SignalsConfig(sources=("features",), ridge=config, keep_features=False), feature_ridge._features, []

    def counted(frame, first):
        most.append(len(frame.panel) - first)
        return rows(frame, first)

    monkeypatch.setattr(feature_ridge, "_features", counted)
    book, opens = SignalBook(signals, [FeatureRidge(config)]), market.bars["SIM1/USDT"].open_time
    weights, asked = set(), []
    for row in range(14_000, 14_052):
        at = int(opens[row])
        now = market.known_until(at + HOUR)
        most.clear()
        live = book.prepare(now, since=at, until=at + 1, instruments=sorted(market.bars)).arrays()
        asked.append(max(most))
        if row % 12 == 0 or (at + HOUR) % DAY == 0:
            alone = SignalBook(signals).prepare(now, since=at, until=at + 1, instruments=sorted(market.bars)).arrays()
            assert live.keys() == alone.keys()
            assert all(live[name].tobytes() == alone[name].tobytes() for name in live), row
        weights.add(live["weights/features"].tobytes())
    assert len(weights) >= 3, "it was fitted anew"
    assert asked[0] > 1_000
    assert max(asked[1:]) == 1, "the live rows themselves"
