"""Regimes of a frame: the same row whatever is prepared, by the right fold, and what the tape makes of it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from cryptoalpha.core.errors import ConfigError, ModelError
from cryptoalpha.core.time import DAY, HOUR
from cryptoalpha.core.values import REGIMES
from cryptoalpha.data.config import SimulatedConfig
from cryptoalpha.data.simulated import simulate
from cryptoalpha.signals.book import SignalBook
from cryptoalpha.signals.config import RegimeConfig, SignalsConfig
from cryptoalpha.signals.features import markdown_table
from cryptoalpha.signals.frame import Frame
from cryptoalpha.signals.regime import memory as regime_memory
from cryptoalpha.signals.regime.features import (
    REGIME_FEATURES,
    TREND,
    TREND_FEATURES,
    VOLATILITY,
    VOLATILITY_FEATURES,
    features_reach,
    regime_features,
    usual_volatility,
)
from cryptoalpha.signals.regime.memory import FeatureMemory
from cryptoalpha.signals.regime.model import RegimeModel, open_regime
from cryptoalpha.signals.regime.source import RegimeSource
from cryptoalpha.store.panel import build_panel
from cryptoalpha.store.tables import Dataset

BARS = 2_400
TAKEN_OVER = (2_250, 2_333)
CONFIG = RegimeConfig(block_bars=16, warm_up_bars=48)


@pytest.fixture(scope="module")
def market() -> Dataset:
    return simulate(SimulatedConfig(assets=3, bars=BARS, posts_per_day=1.0), seed=9).dataset


@pytest.fixture(scope="module")
def frame(market) -> Frame:
    return Frame(build_panel(market, since=0, until=2**62), market)


@pytest.fixture(scope="module")
def config(frame, random_regime, tmp_path_factory) -> RegimeConfig:
    folder = random_regime(tmp_path_factory.mktemp("regime") / "m", frame, CONFIG, TAKEN_OVER)
    return CONFIG.model_copy(update={"model": str(folder)})


@pytest.fixture(scope="module")
def book(config) -> SignalBook:
    return SignalBook(SignalsConfig(sources=("momentum_short",), keep_features=False, regime=config))


@pytest.fixture(scope="module")
def tape(market, book):
    opens = next(iter(market.bars.values())).open_time
    return book.prepare(market, since=int(opens[2_200]), until=2**62)


def test_beliefs_begin_with_the_first_fold_and_are_chances(tape, frame):
    found = tape.regime
    first = int(np.flatnonzero(found.fold >= 0)[0])
    assert tape.panel.known_at[first] == frame.panel.known_at[TAKEN_OVER[0]]
    assert np.isnan(found.belief[:first]).all()
    assert (found.fold[-1], found.fold[first]) == (1, 0)
    assert_allclose(found.belief[first:].sum(axis=2), 1.0, rtol=1e-12)
    assert ((found.change[first:] > 0.0) & (found.change[first:] < 1.0)).all()
    assert (found.age[first:] > 0.0).all()
    assert found.belief[first:].max() > 0.6  # something is said


def test_states_carry_the_belief_and_those_before_the_first_fold_none(tape):
    (early, *_), (late, *_) = tape.states_at(0), tape.states_at(len(tape) - 1)
    assert (early.regime, early.regime_age, early.regime_change) == ((), None, None)
    assert late.regime == tuple(tape.regime.belief[-1, 0].tolist())
    assert len(late.regime) == len(REGIMES)
    assert (late.regime_age, late.regime_change) == (tape.regime.age[-1, 0], tape.regime.change[-1, 0])


def test_a_bar_prepared_alone_equals_the_batch(market, book, tape):
    for t in (60, 127, 133, 150, len(tape) - 1):
        since = int(tape.panel.open_time[t])
        alone = book.prepare(market, since=since, until=since + HOUR)
        for name, values in alone.regime.as_arrays().items():
            assert values.tobytes() == tape.regime.as_arrays()[name][t : t + 1].tobytes(), (name, t)
        assert alone.states_at(0) == tape.states_at(t)


def test_a_bar_is_the_same_without_what_comes_after(market, book, tape):
    for t in (90, 135):
        until = int(tape.panel.open_time[t]) + HOUR
        cut = replace(market, bars={name: table.take(table.open_time < until) for name, table in market.bars.items()})
        short = book.prepare(cut, since=int(tape.panel.open_time[0]), until=2**62)
        assert len(short) == t + 1
        for name, values in short.regime.as_arrays().items():
            assert values.tobytes() == tape.regime.as_arrays()[name][: t + 1].tobytes(), name


def test_a_row_is_bayes_rule_from_the_begin_of_its_warm_up(config, frame):
    """The second way: one bar's belief, age and change in plain Python."""
    features = regime_features(frame)
    found = RegimeSource(config).compute(frame.beginning(2_245))
    folder, design = open_regime(config)
    for row, number in ((2_262, 0), (2_332, 0), (2_333, 1), (2_399, 1)):
        model = RegimeModel.load(folder, number, design)
        bar = int(frame.panel.open_time[row]) // HOUR
        begin = row - bar % 16 - 48
        for a in (0, 2):
            window = np.clip((features[begin : row + 1, a] - model.scaler.centre) / model.scaler.scale, -5.0, 5.0)
            beliefs, ages = [], np.zeros((3, 2))
            chains = [(model.trend, window[:, TREND]), (model.volatility, window[:, VOLATILITY])]
            beliefs = [chain.stationary() for chain, _ in chains]
            stays = np.outer(np.diag(model.trend.transition), np.diag(model.volatility.transition))
            ages = stays / (1.0 - stays)
            for t in range(len(window)):
                shares = []
                for c, (chain, rows) in enumerate(chains):
                    predicted = beliefs[c] @ chain.transition
                    shares.append(beliefs[c] * np.diag(chain.transition) / predicted)
                    quadratic = [
                        (rows[t] - m) @ np.linalg.inv(s) @ (rows[t] - m) for m, s in zip(chain.mean, chain.covariance, strict=True)
                    ]
                    raw = predicted * np.exp(-0.5 * chain.temper * np.array(quadratic))  # one covariance: its determinant cancels
                    beliefs[c] = raw / raw.sum()
                ages = np.outer(*shares) * (ages + 1.0)
            belief = np.outer(*beliefs)
            assert_allclose(found.belief[row, a], belief.ravel(), rtol=1e-8)
            assert found.age[row, a] == pytest.approx((belief * ages).sum(), rel=1e-8)
            assert found.change[row, a] == pytest.approx(1.0 - (belief * stays).sum(), rel=1e-8)


def test_a_coin_without_history_has_no_belief(market, config):
    """Its features need ten weeks; until then the chain would only repeat what it settles in."""
    name = sorted(market.bars)[0]
    late = replace(market, bars={**market.bars, name: market.bars[name].take(np.arange(BARS) >= BARS - 300)})
    found = RegimeSource(config).compute(Frame(build_panel(late, since=0, until=2**62), late, first=2_300))
    assert np.isnan(found.belief[2_300:, 0]).all()
    assert np.isfinite(found.belief[2_300:, 1:]).all()


def test_an_outage_spreads_the_belief_and_an_absent_bar_has_none(market, config):
    name = sorted(market.bars)[0]
    rows = np.arange(BARS)
    holed = replace(market, bars={**market.bars, name: market.bars[name].take((rows < 2_340) | (rows >= 2_350))})
    found = RegimeSource(config).compute(Frame(build_panel(holed, since=0, until=2**62), holed, first=2_330))
    assert np.isnan(found.belief[2_340:2_350, 0]).all()
    assert np.isfinite(found.belief[2_350:, 0]).all()


def test_bars_of_another_length_or_another_grid_are_refused(config, make_frame, market):
    daily = make_frame({"A/USDT": np.full(50, 100.0)}, interval=DAY)
    with pytest.raises(ModelError, match="1h, these have 1d"):
        RegimeSource(config).compute(daily)
    with pytest.raises(ModelError, match="block_bars"):
        RegimeSource(config.model_copy(update={"block_bars": 32}))
    with pytest.raises(ConfigError, match="names no regime model"):
        open_regime(RegimeConfig())
    plain = SignalBook(SignalsConfig(sources=("momentum_short",), keep_features=False))
    opens = next(iter(market.bars.values())).open_time
    assert plain.prepare(market, since=int(opens[-3]), until=2**62).regime is None


def test_kept_features_are_those_computed_anew_and_a_corrected_bar_is_noticed(monkeypatch):
    """Four-hour bars, so that everything a feature sees fits into a small market; live, frames begin one bar later each time."""
    coarse = simulate(SimulatedConfig(assets=2, bars=1_640, interval="4h", posts_per_day=0.1), seed=3).dataset
    panel = build_panel(coarse, since=0, until=2**62)
    reach = features_reach(panel.interval)
    asked, computed, memory = 60, [], FeatureMemory()
    honest = regime_memory.newest_features

    def counted(frame: Frame):
        computed.append(len(frame.panel) - frame.first)
        return honest(frame)

    monkeypatch.setattr(regime_memory, "newest_features", counted)

    def answer(panel, last: int, begin: int):
        rows = panel.rows(last - reach - asked, last)
        found = memory.features(Frame(rows, coarse), begin)
        expected = honest(Frame(rows, coarse).beginning(begin))
        assert found.tobytes() == expected.tobytes()
        assert np.isfinite(found[-1]).all()

    answer(panel, 1_600, reach)
    answer(panel, 1_601, reach)
    answer(panel, 1_601, reach + 7)
    answer(panel, 1_604, reach + 4)
    assert computed == [60, 1, 3]
    answer(panel, 1_590, reach)  # an earlier frame: anew
    for row in (1_500, 200 + 1_592 - reach - asked):  # within the filter's rows, and far back where only the longest average sees it
        close = panel.close.copy()
        close[row, 1] *= 0.999
        high, low = np.maximum(panel.high, close), np.minimum(panel.low, close)
        answer(replace(panel, close=close, high=high, low=low), 1_592, reach)
    assert computed == [60, 1, 3, 60, 60, 60]
    answer(panel, 1_592, reach)
    answer(panel, 1_594, reach - 1)  # frames that do not hold all they see are not mixed
    assert computed[-1] == 61


# ── features ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_there_are_ten_and_ten_and_the_table_names_them():
    from cryptoalpha.signals.regime import features

    assert (len(TREND_FEATURES), len(VOLATILITY_FEATURES)) == (10, 10)
    assert len({spec.name for spec in REGIME_FEATURES}) == 20
    for spec in (TREND_FEATURES[0], TREND_FEATURES[7], VOLATILITY_FEATURES[0], VOLATILITY_FEATURES[9]):
        assert spec.name in (features.__doc__ or "")


def test_features_of_a_steady_rise_and_a_storm_have_the_signs_they_are_named_by(make_frame):
    random = np.random.default_rng(5)
    days = 110
    noise = 0.004 * random.standard_normal(24 * days)
    rise, fall, storm = noise + 0.0015, noise - 0.0015, noise.copy()
    rise[: 24 * 90], fall[: 24 * 90] = noise[: 24 * 90], noise[: 24 * 90]
    storm[24 * 107 :] *= 4.0
    frame = make_frame({name: 100.0 * np.exp(np.cumsum(r)) for name, r in (("A", rise), ("B", fall), ("C", storm), ("D", noise))})
    last = regime_features(frame)[-1]
    assert (last[0, TREND] > last[3, TREND]).all()
    assert (last[1, TREND] < last[3, TREND]).all()
    assert (last[2, VOLATILITY] > last[3, VOLATILITY]).all()


def test_what_is_usual_is_the_mean_of_the_days_that_are_over(make_frame):
    random = np.random.default_rng(6)
    steps = 0.01 * random.standard_normal(24 * 90)
    frame = make_frame({"A": 100.0 * np.exp(np.cumsum(steps))})
    usual = usual_volatility(frame, frame.slow_unit_return[0])
    unit = frame.slow_unit_return[0]
    for row in (24 * 85 + 22, 24 * 85 + 23, 24 * 86):
        over = (row + 1) // 24  # days that are over once row is known
        squares = [np.nanmean(unit[24 * d : 24 * d + 24] ** 2) for d in range(over)]
        weights = [0.5 ** ((over - 1 - d) / 30.0) for d in range(over)]
        assert usual[row] == pytest.approx(math.sqrt(np.average(squares, weights=weights)), rel=1e-9)


def test_features_depend_on_no_more_than_their_reach(market, frame):
    """Cut off the front: a row with its reach before it is the same, bit for bit. On four-hour bars the reach fits into a small market."""
    coarse = simulate(SimulatedConfig(assets=2, bars=1_700, interval="4h", posts_per_day=0.1), seed=3).dataset
    panel = build_panel(coarse, since=0, until=2**62)
    reach = features_reach(panel.interval)
    row = 1_650
    whole = regime_features(Frame(panel, coarse))
    cut = regime_features(Frame(panel.rows(row - reach, len(panel)), coarse, first=reach))
    assert cut[reach:].tobytes() == whole[row:].tobytes()
    assert np.isfinite(whole[row:]).all()
    late = regime_features(frame.beginning(2_300))
    assert late[2_300:].tobytes() == regime_features(frame)[2_300:].tobytes()
    assert np.isnan(late[:2_300]).all()


def test_the_page_shows_the_features_as_they_are():
    assert markdown_table(REGIME_FEATURES) in (Path(__file__).resolve().parents[3] / "docs" / "regimes.md").read_text(encoding="utf-8")
