"""The audit finds nothing in an honest forecaster, and finds each way in which one can look ahead."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cryptoalpha.app.audit import audit, default_path
from cryptoalpha.app.period import Period
from cryptoalpha.app.settings import Settings
from cryptoalpha.core.time import HOUR
from cryptoalpha.data.config import SimulatedConfig
from cryptoalpha.data.simulated import simulate
from cryptoalpha.decisions.config import FusionConfig
from cryptoalpha.signals.config import ForecastConfig, SignalsConfig
from cryptoalpha.signals.forecast import source as forecast_source
from cryptoalpha.signals.forecast.arrays import ForecastArrays
from cryptoalpha.signals.forecast.blocks import Blocks
from cryptoalpha.signals.frame import Frame
from cryptoalpha.store.panel import build_panel

BARS, WINDOW = 2_260, 96
CONFIG = ForecastConfig(context_bars=8, block_bars=12, correlation_bars=(24, 48), horizon_bars=(1, 24))


@pytest.fixture(scope="module")
def market():
    return simulate(SimulatedConfig(assets=3, bars=BARS, posts_per_day=12.0), seed=4).dataset


@pytest.fixture(scope="module")
def settings(market, random_forecaster, tmp_path_factory) -> Settings:
    """Folds take over before the window and in the middle of it."""
    frame = Frame(build_panel(market, since=0, until=2**62), market)
    folder = random_forecaster(tmp_path_factory.mktemp("model") / "m", frame, CONFIG, (BARS - WINDOW - 30, BARS - WINDOW // 2 + 1))
    config = CONFIG.model_copy(update={"model": str(folder)})
    signals = SignalsConfig(sources=("forecast", "momentum_short"), forecast=config, keep_features=False)
    return Settings(signals=signals, fusion=FusionConfig(method="equal"))


def found(market, settings, cuts: int = 3) -> set[str]:
    end = max(int(table.known_at[-1]) for table in market.bars.values())
    report = audit(market, default_path(settings, Period(end - WINDOW * HOUR, end)), cuts=cuts, seed=1)
    assert report.compared["forecast"] > 0
    assert report.compared["weights"] > 0
    return {leak.what for leak in report.leaks}


def test_an_honest_forecaster_is_clean_and_its_fold_change_is_cut_at(market, settings):
    assert found(market, settings) == set()


def test_features_of_the_next_bar_are_found(market, settings, monkeypatch):
    honest = forecast_source.forecast_arrays

    def peeking(*args, **named) -> ForecastArrays:
        arrays = honest(*args, **named)
        return replace(arrays, price=np.concatenate((arrays.price[1:], arrays.price[-1:])))

    monkeypatch.setattr(forecast_source, "forecast_arrays", peeking)
    leaks = found(market, settings, cuts=2)
    assert {"signal/forecast/value", "signal/forecast/quantiles", "forecast/direction", "journal/Signal forecast"} <= leaks
    assert not any("momentum" in leak for leak in leaks)


def test_texts_of_the_next_hour_are_found(market, settings, monkeypatch):
    honest = forecast_source.forecast_arrays

    def peeking(*args, **named) -> ForecastArrays:
        arrays = honest(*args, **named)
        return replace(arrays, text=replace(arrays.text, at=arrays.text.at + HOUR))

    monkeypatch.setattr(forecast_source, "forecast_arrays", peeking)
    assert "forecast/sentiment" in found(market, settings, cuts=2)


def test_blocks_that_begin_where_the_data_end_are_found(market, settings, monkeypatch):
    """Right-aligned on the newest bar: nothing looks ahead, but a bar is computed otherwise when more is known, and so tells of it."""
    honest = Blocks.rows_of

    def right_aligned(self, blocks):
        rows = honest(self, blocks)
        last = len(self.arrays) + self.arrays.begin - 1
        return np.where(rows[:, -1:] < 0, last - np.arange(rows.shape[1])[::-1], rows)

    monkeypatch.setattr(Blocks, "rows_of", right_aligned)
    assert "forecast/direction" in found(market, settings, cuts=2)
