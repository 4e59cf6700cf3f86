"""Training of regimes end to end on a market made to have them: found, named, judged on later bars, kept whole."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.seeds import stream
from cryptoalpha.core.time import DAY, HOUR
from cryptoalpha.execution.config import CostConfig
from cryptoalpha.learn.config import LearnConfig
from cryptoalpha.lifecycle.config import TrainConfig
from cryptoalpha.lifecycle.recipes import regime
from cryptoalpha.lifecycle.recipes.forecaster import Period, Plan
from cryptoalpha.lifecycle.recipes.regime import train_regime
from cryptoalpha.lifecycle.recipes.regime_judging import RegimeJudgement
from cryptoalpha.lifecycle.recipes.regime_tallies import outcomes_of
from cryptoalpha.lifecycle.recipes.regime_trained import RegimeTrained
from cryptoalpha.monitoring.bootstrap import Interval
from cryptoalpha.nets.config import NetsConfig
from cryptoalpha.signals.config import RegimeConfig, SignalsConfig
from cryptoalpha.signals.frame import Frame
from cryptoalpha.signals.regime import fitting
from cryptoalpha.signals.regime.model import KIND, open_regime
from cryptoalpha.signals.regime.source import RegimeSource
from cryptoalpha.store.model_folder import ModelFolder
from cryptoalpha.store.panel import build_panel
from cryptoalpha.store.tables import BarTable, Dataset

INTERVAL = 4 * HOUR
DAYS = 420
PLAN = Plan(
    NetsConfig(),
    SignalsConfig(regime=RegimeConfig(block_bars=32, warm_up_bars=128)),
    LearnConfig(),
    TrainConfig(test_days=60, train_days=240, expanding=True, processes=1),
    CostConfig(),
    seed=3,
)
TWO = Period(folds=2)


@pytest.fixture(scope="module", autouse=True)
def fewer_tempers():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting, "TEMPERS", (0.3, 0.03))
        yield


def drawn() -> tuple[Dataset, np.ndarray, np.ndarray]:
    """Two coins that drift up, down or not at all for four weeks, calm or stormy for five. Trend and volatility of every bar `[T]`."""
    random, bars = stream(4, "regimes"), DAYS * 6
    trend = np.repeat(np.tile([2, 0, 1, 0, 2, 1], 3), 28 * 6)[:bars]
    storm = np.repeat(np.tile([0, 1], 6), 35 * 6)[:bars]
    tables = {}
    for name in ("A/USDT", "B/USDT"):
        sigma = np.where(storm == 1, 0.02, 0.008)
        # a drift of a third of a bar's deviation is a move of three deviations over two weeks
        close = 100.0 * np.exp(np.cumsum(sigma * (random.standard_normal(bars) + 0.33 * (trend - 1))))
        opens = np.concatenate(([100.0], close[:-1]))
        tables[name] = BarTable(
            instrument=name, interval=INTERVAL, open_time=19_000 * DAY + INTERVAL * np.arange(bars),
            open=opens, high=np.maximum(opens, close) * (1 + sigma / 3), low=np.minimum(opens, close) * (1 - sigma / 3), close=close,
            volume=np.ones(bars),
        )  # fmt: skip
    return Dataset(origin="drawn", bars=tables), trend, storm


@pytest.fixture(scope="module")
def made():
    return drawn()


@pytest.fixture(scope="module")
def trained(made, tmp_path_factory) -> RegimeTrained:
    return train_regime(PLAN, made[0], TWO, tmp_path_factory.mktemp("models") / "regime")


def test_the_drawn_regimes_are_found_and_carry_their_names(made, trained):
    market, trend, storm = made
    config = PLAN.signals.regime.model_copy(update={"model": str(trained.path)})
    panel = build_panel(market, since=0, until=2**62)
    found = RegimeSource(config).compute(Frame(panel, market, first=1_800))
    cells = found.belief.reshape(len(panel), 2, 3, 2)
    judged = np.flatnonzero(found.fold >= 0)
    assert len(judged) > 600
    # within ten days of a change half of a feature's window still lies before it: nobody can know
    settled = judged[(trend[judged] == trend[judged - 60]) & (storm[judged] == storm[judged - 60])]
    said_trend = cells.sum(axis=3)[settled].mean(axis=1)
    said_storm = cells.sum(axis=2)[settled].mean(axis=1)[:, 1]
    assert (said_trend.argmax(axis=1) == trend[settled]).mean() > 0.6  # a third by chance
    assert said_storm[storm[settled] == 1].mean() - said_storm[storm[settled] == 0].mean() > 0.5
    assert said_trend[trend[settled] == 2, 2].mean() - said_trend[trend[settled] == 0, 2].mean() > 0.5


def test_states_are_named_alike_in_every_fold(trained):
    for fold in trained.lineage["training"]:
        for axis in ("trend", "volatility"):
            means = np.array(fold["axes"][axis]["mean"])[:, :5].mean(axis=1)
            assert (np.diff(means) > 0.3).all()


def test_the_folder_is_whole_and_the_judgement_speaks(trained):
    folder = ModelFolder.open(trained.path, KIND)
    assert len(folder.folds) == 2
    assert not trained.path.with_name("regime.partial").exists()
    judged = trained.lineage["judgement"]
    assert judged["bars"] > 1_000
    assert sum(judged["time"][name] for name in ("bear", "sideways", "bull")) == pytest.approx(1.0)
    assert judged["time"]["low_volatility"] + judged["time"]["high_volatility"] == pytest.approx(1.0)
    # states that persist foretell the next bar's features better than one distribution, by far more than chance
    gap = judged["differences"]["log density of the volatility features one bar ahead"]["one state"]
    assert gap["low"] > 0.0
    assert "regimes: shown at 95%" in trained.lineage["verdict"]["words"]
    assert (trained.path / "report.html").stat().st_size > 1_000
    assert len(trained.lines()) == 4
    assert {title.split(",")[0] for title, _, _ in trained.tables()} >= {"out of sample", "belief in each regime"}


def test_what_is_worse_is_called_worse_and_what_is_open_not_shown():
    def gap(estimate, low, high):
        return Interval(estimate, low, high, 0.95, 10.0, 100, 0.0)

    likely, brier = "log density", "Brier score"
    judged = RegimeJudgement(
        bars=100, mean_block=10.0, scores={}, better={likely: 1, brier: -1}, change=(), change_ratio=gap(1.0, 0.9, 1.1), time={},
        spell_bars=30.0, moves={},
        differences={
            likely: {"one state": gap(0.2, 0.1, 0.3), "no memory": gap(-0.2, -0.3, -0.1)},
            brier: {"share": gap(-0.01, -0.02, 0.01), "last day": gap(0.037, 0.018, 0.057)},
        },
    )  # fmt: skip
    said = judged.verdict()
    assert not said["promoted"]
    assert "shown at 95%: a higher log density than one state. Shown to be" in said["words"]
    assert "worse than no memory in log density (-0.200, -0.300 to -0.100)" in said["words"]
    assert "worse than last day in Brier score (+0.037, +0.018 to +0.057). Not shown: a lower Brier score than share. For" in said["words"]
    assert len(said["reasons"]) == 3
    assert [judged.loses(brier, rival) for rival in ("share", "last day")] == [False, True]


def test_the_same_training_is_not_done_twice_and_another_is_refused(made, trained):
    again = train_regime(PLAN, made[0], TWO, trained.path)
    assert again.already
    assert again.lineage == json.loads((trained.path / "model.json").read_text())["lineage"]
    other = replace(PLAN, signals=SignalsConfig(regime=RegimeConfig(block_bars=32, warm_up_bars=128, spell_days=9.0)))
    with pytest.raises(ConfigError, match="another training"):
        train_regime(other, made[0], TWO, trained.path)
    with pytest.raises(Exception, match="spell_days"):
        open_regime(other.signals.regime.model_copy(update={"model": str(trained.path)}))


def test_an_interrupted_training_goes_on_to_the_same_bits(made, trained, tmp_path: Path, monkeypatch):
    honest, seen = regime.fit_regime_fold, []

    def killed(material, fold):
        if fold.number == 1 and not seen:
            seen.append(fold)
            raise KeyboardInterrupt
        honest(material, fold)

    monkeypatch.setattr(regime, "fit_regime_fold", killed)
    out = tmp_path / "regime"
    with pytest.raises(KeyboardInterrupt):
        train_regime(PLAN, made[0], TWO, out)
    assert not out.exists()
    train_regime(PLAN, made[0], TWO, out)
    for name in ("fold_00.safetensors", "fold_01.safetensors"):
        assert (out / name).read_bytes() == (trained.path / name).read_bytes()


def test_nothing_after_its_test_begins_changes_a_fold(made, trained, tmp_path):
    """Bars of the last stretch are poisoned: the first fold's model is the same to the last bit."""
    market, *_ = made
    moment = ModelFolder.open(trained.path, KIND).folds[0].usable_from

    def spoil(table: BarTable) -> BarTable:
        late = table.known_at >= moment
        return replace(
            table, **{name: np.where(late, 3.0 * getattr(table, name), getattr(table, name)) for name in ("open", "high", "low", "close")}
        )

    poisoned = replace(market, bars={name: spoil(table) for name, table in market.bars.items()})
    other = train_regime(PLAN, poisoned, TWO, tmp_path / "regime")
    assert (other.path / "fold_00.safetensors").read_bytes() == (trained.path / "fold_00.safetensors").read_bytes()
    assert (other.path / "fold_01.safetensors").read_bytes() != (trained.path / "fold_01.safetensors").read_bytes()


def test_outcomes_by_hand():
    close = np.array([100.0, 110.0, 99.0, 99.0, 108.9])[:, None]
    usual = np.full((5, 1), 0.05)
    found = outcomes_of(close, usual, 2)
    up, down = np.log(1.1), np.log(0.9)
    assert found.stormy[0, 0] == pytest.approx(np.sqrt((up**2 + down**2) / 2) / 0.05)
    assert found.stormy_before[2, 0] == found.stormy[0, 0]
    assert found.move[2, 0] == pytest.approx(np.log(1.1) / (0.05 * np.sqrt(2)))
    assert np.isnan(found.move[3:]).all()
