"""What a live bar leaves out changes no bit of it: windows begun at the first asked row, frames cut to what a source looks back on, a ridge
fit that stands."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cryptoalpha.core.time import DAY, HOUR
from cryptoalpha.data.config import SimulatedConfig
from cryptoalpha.data.simulated import simulate
from cryptoalpha.signals import rolling
from cryptoalpha.signals.book import SignalBook
from cryptoalpha.signals.config import FeatureRidgeConfig, SignalsConfig
from cryptoalpha.signals.feature_ridge import FeatureRidge
from cryptoalpha.signals.frame import Frame
from cryptoalpha.signals.genome.before import percentile
from cryptoalpha.store.panel import build_panel
from cryptoalpha.store.tables import Dataset

BARS = 4_000
RIDGE = FeatureRidgeConfig(train_days=60.0, minimum_train_days=20.0, refit_days=10.0)


@pytest.fixture(scope="module")
def market() -> Dataset:
    return simulate(SimulatedConfig(assets=2, bars=BARS, start="2021-01-01"), seed=4).dataset


def series() -> np.ndarray:
    draw = np.random.default_rng(0)
    x = draw.normal(size=400)
    x[draw.random(400) < 0.05] = np.nan
    return x


@pytest.mark.parametrize("first", [0, 1, 37, 250, 399, 400])
def test_rows_before_the_first_are_left_out_and_the_others_keep_every_bit(first):
    x, y = series(), series()[::-1].copy()
    weights = rolling.half_life_weights(9.0)
    pairs = [
        (rolling.weighted_mean(x, weights, first), rolling.weighted_mean(x, weights)),
        *zip(rolling.mean_and_deviation(x, 30, first), rolling.mean_and_deviation(x, 30), strict=True),
        (rolling.slope_t(x, 30, first), rolling.slope_t(x, 30)),
        *zip(rolling.beta_and_correlation(y, x, 30, first), rolling.beta_and_correlation(y, x, 30), strict=True),
        (percentile(x, 50, 20, first), percentile(x, 50, 20)),
    ]
    for cut, whole in pairs:
        assert np.isfinite(whole[-100:]).any()
        assert np.isnan(cut[:first]).all()
        assert cut[first:].tobytes() == whole[first:].tobytes()


def test_features_of_the_newest_rows_are_those_of_the_whole_frame(market):
    frame = Frame(build_panel(market, since=0, until=2**62), market, first=BARS - 3)
    late, later = frame.price_from(BARS - 200), frame.price_from(BARS - 1)
    chain = frame.chain_from(BARS - 3)
    assert np.isfinite(late).mean() > 0.5
    assert late.shape[0] == 200
    assert late.tobytes() == frame.price[BARS - 200 :].tobytes()
    assert later.tobytes() == frame.price[BARS - 1 :].tobytes()
    assert chain.tobytes() == frame.chain[BARS - 3 :].tobytes()


def test_every_source_says_the_same_in_the_frame_cut_to_its_reach(market):
    book = SignalBook(SignalsConfig(ridge=RIDGE))
    frame = Frame(build_panel(market, since=0, until=2**62), market, first=BARS - 2)
    cut = 0
    for model in book._models:
        shorter = frame.cut(model.reach(HOUR))
        cut += shorter is not frame
        one, other = model.compute(frame), model.compute(shorter)
        for name in ("value", "confidence", "impact"):
            whole, part = getattr(one, name)[frame.first :], getattr(other, name)[shorter.first :]
            assert whole.tobytes() == part.tobytes(), (model.source, name)
    assert cut >= 3, "something was cut"


class Counted(FeatureRidge):
    """Counts its fits."""

    fits = 0

    def fit(self, *given):
        self.fits += 1
        return super().fit(*given)


def test_a_ridge_fit_stands_until_what_it_was_made_of_changes(market):
    """Live, bar after bar: one fit per refit moment; a price of its training days or a reading known then that changes asks for another."""
    model, config = Counted(RIDGE), SignalsConfig(sources=("features",), ridge=RIDGE)
    book, opens = SignalBook(config, [model]), market.bars["SIM1/USDT"].open_time
    row = next(t for t in range(3_000, BARS) if (opens[t] + HOUR) % (10 * DAY) == 0)

    def said(dataset: Dataset, t: int, by: SignalBook = book) -> bytes:
        at = int(opens[t])
        return by.prepare(dataset.known_until(at + HOUR), since=at, until=at + 1).arrays()["signal/features/value"].tobytes()

    for t in range(row + 1, row + 6):
        assert said(market, t) == said(market, t, SignalBook(config))
    assert model.fits == 1
    table = market.bars["SIM1/USDT"]
    close = np.array(table.close)
    close[row - 300] *= 1.001
    other = replace(market, bars={**market.bars, "SIM1/USDT": replace(table, close=close, high=np.maximum(table.high, close))})
    assert said(other, row + 6) == said(other, row + 6, SignalBook(config))
    assert model.fits == 2
    assert said(other, row + 6) != said(market, row + 6)
    key, reading = next(iter(market.readings.items()))
    changed = replace(market, readings={**market.readings, key: replace(reading, value=reading.value * 1.5)})
    fits = model.fits
    assert said(changed, row + 6) == said(changed, row + 6, SignalBook(config))
    assert model.fits == fits + 1
