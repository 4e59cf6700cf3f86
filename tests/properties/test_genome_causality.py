"""Tokens and time frames know nothing of what comes later, and forget all that lies beyond their reach; a rule that cheats is caught."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cryptoalpha.core.time import HOUR
from cryptoalpha.data.config import SimulatedConfig
from cryptoalpha.data.simulated import simulate
from cryptoalpha.signals.frame import Frame
from cryptoalpha.signals.genome import price_tokens
from cryptoalpha.signals.genome.frames import FrameTokens, frame_intervals, frame_tokens, frames_reach
from cryptoalpha.store.panel import build_panel
from cryptoalpha.store.tables import BarTable, Dataset

BARS, INTERVAL = 2_400, 8 * HOUR
FRAMES = ("8h", "1d")
REACH = frames_reach(frame_intervals(FRAMES, INTERVAL))
ALWAYS = 2**62
NO_WAIT = settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def market() -> Dataset:
    dataset = simulate(SimulatedConfig(assets=2, bars=BARS, interval="8h", start="2019-03-01", edge=0.05, horizon_bars=6), seed=9).dataset
    kept = {name: np.delete(np.arange(BARS), np.r_[700:704, 1_900:1_903]) for name in dataset.bars}
    return replace(dataset, bars={name: table.take(kept[name]) for name, table in dataset.bars.items()})


def frame_of(dataset: Dataset) -> Frame:
    return Frame(build_panel(dataset, since=-ALWAYS, until=ALWAYS), dataset)


@pytest.fixture(scope="module")
def whole(market: Dataset) -> FrameTokens:
    return frame_tokens(frame_of(market), FRAMES)


def assert_same(a: FrameTokens, of_a: slice, b: FrameTokens, of_b: slice) -> None:
    for part in ("tokens", "missing", "present"):
        assert np.array_equal(getattr(a, part)[of_a], getattr(b, part)[of_b]), part


def poisoned(dataset: Dataset, moment: int, price: float, text: str) -> Dataset:
    def spoil(table: BarTable) -> BarTable:
        late = table.known_at > moment
        return replace(table, **{name: np.where(late, price, getattr(table, name)) for name in ("open", "high", "low", "close", "volume")})

    return replace(
        dataset,
        bars={name: spoil(table) for name, table in dataset.bars.items()},
        readings={k: replace(t, value=np.where(t.known_at > moment, price, t.value)) for k, t in dataset.readings.items()},
        posts={k: replace(t, text=np.where(t.known_at > moment, text, t.text)) for k, t in dataset.posts.items()},
    )


def cut_at(market: Dataset, whole: FrameTokens, row: int) -> None:
    known = int(frame_of(market).panel.known_at[row])
    cut = frame_tokens(frame_of(market.known_until(known)), FRAMES)
    assert_same(cut, slice(None), whole, slice(0, len(cut.present)))


def test_the_market_has_every_token_in_its_base_bars(whole):
    seen = whole.tokens[:, :, 0].any(axis=(0, 1))
    assert seen.sum() >= 14


@NO_WAIT
@given(row=st.integers(1_200, BARS - 2))
def test_what_becomes_known_later_changes_no_token(market, whole, row):
    cut_at(market, whole, row)


@NO_WAIT
@given(row=st.integers(1_200, BARS - 2), price=st.sampled_from([np.nan, 1e6]))
def test_poisoning_the_future_changes_no_token(market, whole, row, price):
    known = int(frame_of(market).panel.known_at[row])
    spoilt = frame_tokens(frame_of(poisoned(market, known, price, "SIM1 SIM2 hacked, SEC sues, crash")), FRAMES)
    assert_same(spoilt, slice(0, row + 1), whole, slice(0, row + 1))


@NO_WAIT
@given(row=st.integers(REACH + 1, BARS - 1), extra=st.integers(0, 3))
def test_nothing_beyond_its_reach_changes_a_token(market, whole, row, extra):
    frame = frame_of(market)
    begin = max(0, row - REACH - extra)
    window = frame_tokens(Frame(frame.panel.rows(begin, row + 1), market), FRAMES)
    assert_same(window, slice(-1, None), whole, slice(row, row + 1))


@NO_WAIT
@given(begin=st.integers(0, BARS - 1))
def test_rows_that_are_not_asked_for_change_nothing(market, whole, begin):
    late = frame_tokens(frame_of(market), FRAMES, begin=begin)
    assert_same(late, slice(begin, None), whole, slice(begin, None))
    assert not late.present[:begin].any()


def test_poisoning_the_past_within_reach_is_noticed(market, whole):
    """The comparison itself can fail: with the past changed the tokens differ."""
    spoilt = frame_tokens(frame_of(poisoned(market, int(frame_of(market).panel.known_at[1_500]), 1e6, "")), FRAMES)
    assert not np.array_equal(spoilt.tokens[1_501:], whole.tokens[1_501:])


def test_a_score_of_the_whole_sample_is_caught(market, monkeypatch):
    def whole_sample(here, x, window, least, first=0):
        centre = np.nanmedian(x)
        return (here - centre) / (1.4826 * np.nanmedian(np.abs(x - centre)))

    monkeypatch.setattr(price_tokens, "robust_z", whole_sample)
    cheat = frame_tokens(frame_of(market), FRAMES)
    with pytest.raises(AssertionError, match="tokens"):
        cut_at(market, cheat, 1_300)


def test_a_price_of_the_next_bar_is_caught(market, whole, monkeypatch):
    honest = price_tokens.highest
    monkeypatch.setattr(price_tokens, "highest", lambda x, window, first=0: np.append(honest(x, window, first)[2:], [np.nan, np.nan]))
    cheat = frame_tokens(frame_of(market), FRAMES)
    with pytest.raises(AssertionError, match="missing"):
        cut_at(market, cheat, first_lie(cheat, whole))


def first_lie(cheat: FrameTokens, whole: FrameTokens) -> int:
    """The first row from 1,300 on at which the cheat says something else than the honest rule."""
    differing = (cheat.tokens != whole.tokens).any(axis=(1, 2, 3))
    return int(np.flatnonzero(differing[1_300:])[0]) + 1_300
