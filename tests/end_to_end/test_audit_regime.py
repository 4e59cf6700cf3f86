"""The audit finds nothing in an honest regime filter, and finds each way in which one can look ahead."""

from __future__ import annotations

import numpy as np
import pytest

from cryptoalpha.app.audit import audit, default_path
from cryptoalpha.app.period import Period
from cryptoalpha.app.settings import Settings
from cryptoalpha.core.time import HOUR
from cryptoalpha.data.config import SimulatedConfig
from cryptoalpha.data.simulated import simulate
from cryptoalpha.decisions.config import FusionConfig
from cryptoalpha.signals.config import RegimeConfig, SignalsConfig
from cryptoalpha.signals.frame import Frame
from cryptoalpha.signals.regime import filter as regime_filter
from cryptoalpha.signals.regime import memory as regime_memory
from cryptoalpha.signals.regime.hmm import smooth
from cryptoalpha.store.panel import build_panel

BARS, WINDOW = 2_260, 96
CONFIG = RegimeConfig(block_bars=16, warm_up_bars=48)


@pytest.fixture(scope="module")
def market():
    return simulate(SimulatedConfig(assets=3, bars=BARS, posts_per_day=1.0), seed=4).dataset


@pytest.fixture(scope="module")
def settings(market, random_regime, tmp_path_factory) -> Settings:
    """Folds take over before the window and in the middle of it."""
    frame = Frame(build_panel(market, since=0, until=2**62), market)
    folder = random_regime(tmp_path_factory.mktemp("model") / "m", frame, CONFIG, (BARS - WINDOW - 30, BARS - WINDOW // 2 + 1))
    regime = CONFIG.model_copy(update={"model": str(folder)})
    return Settings(
        signals=SignalsConfig(sources=("momentum_short",), regime=regime, keep_features=False), fusion=FusionConfig(method="equal")
    )


def found(market, settings, cuts: int = 3) -> set[str]:
    end = max(int(table.known_at[-1]) for table in market.bars.values())
    report = audit(market, default_path(settings, Period(end - WINDOW * HOUR, end)), cuts=cuts, seed=1)
    assert report.compared["regime"] > 0
    assert report.compared["weights"] > 0
    return {leak.what for leak in report.leaks}


def test_an_honest_filter_is_clean_and_its_fold_change_is_cut_at(market, settings):
    assert found(market, settings) == set()


def test_a_smoother_in_its_place_is_found(market, settings, monkeypatch):
    """What hmmlearn's `predict_proba` does: the belief at t from all bars of the block."""

    def peeking(log_density, start, transition):
        gamma = smooth(log_density, np.array([0, len(log_density)], np.int64), start, transition)[0]
        return gamma, np.full(gamma.shape, 0.9)

    monkeypatch.setattr(regime_filter, "forward", peeking)
    leaks = found(market, settings, cuts=2)
    assert {"regime/belief", "regime/age", "regime/change"} <= leaks
    assert any(leak.startswith("journal/MarketState") for leak in leaks)
    assert not any("momentum" in leak for leak in leaks)


def test_features_of_the_next_bar_are_found(market, settings, monkeypatch):
    honest = regime_memory.newest_features

    def peeking(frame):
        features = honest(frame)
        return np.concatenate((features[1:], features[-1:]))

    monkeypatch.setattr(regime_memory, "newest_features", peeking)
    assert "regime/belief" in found(market, settings, cuts=2)
