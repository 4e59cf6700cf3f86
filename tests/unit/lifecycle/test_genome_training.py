"""Training of the genome end to end on a small made-up market: whole folders, the same bits after an interruption, judged as it answers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.data.config import SimulatedConfig
from cryptoalpha.data.simulated import simulate
from cryptoalpha.execution.config import CostConfig
from cryptoalpha.learn.config import LearnConfig
from cryptoalpha.lifecycle.config import TrainConfig
from cryptoalpha.lifecycle.recipes import genome, genome_fold
from cryptoalpha.lifecycle.recipes.forecaster import Period, Plan
from cryptoalpha.lifecycle.recipes.genome import train_genome
from cryptoalpha.lifecycle.recipes.genome_answers import answers, happened
from cryptoalpha.lifecycle.recipes.genome_usual import usual_of
from cryptoalpha.lifecycle.recipes.workshop import Workshop
from cryptoalpha.nets.config import GenomeConfig, NetsConfig
from cryptoalpha.nets.genome.losses import LossWeights
from cryptoalpha.signals.config import GenomeSignalConfig, SignalsConfig
from cryptoalpha.signals.frame import Frame
from cryptoalpha.signals.genome.arrays import genome_arrays
from cryptoalpha.signals.genome.model import KIND, GenomeModel, open_genome
from cryptoalpha.signals.genome.source import GenomeSource
from cryptoalpha.signals.genome.targets import outcomes
from cryptoalpha.signals.genome.windows import Windows
from cryptoalpha.store.model_folder import ModelFolder
from cryptoalpha.store.panel import build_panel
from cryptoalpha.store.tables import Dataset

torch.set_num_threads(1)

TINY = GenomeConfig(
    window_bars=16, width=8, heads=2, layers=1, pair_width=4, pair_heads=1, pair_head_width=4, outer_width=2, distance_bins=8
)
PLAN = Plan(
    NetsConfig(preset="custom", genome=TINY),
    SignalsConfig(genome=GenomeSignalConfig(frames=("1h", "4h"), horizon_bars=6)),
    LearnConfig(),
    TrainConfig(test_days=5, train_days=20, epochs=1, batch=8, checks_per_epoch=2, learning_rate=2e-3, processes=1),
    CostConfig(),
    seed=3,
)
TWO = Period(folds=2)


@pytest.fixture(scope="module")
def market() -> Dataset:
    return simulate(SimulatedConfig(assets=2, bars=24 * 50), 1).dataset


@pytest.fixture(scope="module")
def trained(market, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("models") / "genome"
    assert not train_genome(PLAN, market, TWO, out).already
    return out


def otherwise_after(market: Dataset, moment: int) -> Dataset:
    """The same history up to a moment, and wild prices from then on."""
    bars = {}
    for name, table in market.bars.items():
        wild = np.where(table.known_at > moment, 1.0 + 0.5 * np.sin(np.arange(len(table.open_time))), 1.0)
        bars[name] = replace(table, **{column: getattr(table, column) * wild for column in ("open", "high", "low", "close")})
    return replace(market, bars=bars, fingerprint="otherwise")


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def test_the_folder_is_whole_and_says_where_it_comes_from(trained, market):
    assert sorted(contents(trained)) == ["fold_00.safetensors", "fold_01.safetensors", "model.json", "report.html"]
    assert not Workshop(trained).place.exists()
    content = json.loads((trained / "model.json").read_text())
    lineage = content["lineage"]
    assert content["kind"] == KIND
    assert lineage["identity"]["data"]["fingerprint"] == market.fingerprint
    assert lineage["windows"] == sum(one["windows"] for one in lineage["training"]) > 0
    assert set(lineage["judgement"]["scores"]["token_log_loss"]) == {"genome", "usual", "last bar"}
    assert len(lineage["judgement"]["gates"]) == 4
    assert lineage["verdict"]["words"].startswith("genome: ")
    assert (trained / "report.html").read_text().count("<svg") == 2


def test_what_is_there_is_not_trained_again_and_another_training_is_refused(trained, market):
    before = contents(trained)
    found = train_genome(PLAN, market, TWO, trained)
    assert found.already
    assert contents(trained) == before
    assert [title for title, _, _ in found.tables()][1] == "share of excursions within each level"
    assert found.training_lines()[-1].startswith(("converged", "not converged", "validation loss was flat"))
    with pytest.raises(ConfigError, match="another training"):
        train_genome(Plan(PLAN.nets, PLAN.signals, PLAN.learn, PLAN.train, PLAN.costs, seed=4), market, TWO, trained)


def test_an_interrupted_training_goes_on_to_the_same_bits(trained, market, tmp_path, monkeypatch):
    out, tell = tmp_path / "genome", Workshop.tell

    def interrupt(self, number, done, what):
        tell(self, number, done, what)
        if number == 1 and done >= 800:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Workshop, "tell", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train_genome(PLAN, market, TWO, out)
    assert not out.exists()
    assert Workshop(out).place.exists()
    train_genome(PLAN, market, TWO, out)
    assert contents(out) == contents(trained)


def test_nothing_of_what_judges_a_fold_is_in_it(trained, market, tmp_path):
    """Weights, scalers, temperatures: with other prices from its first test bar on, to the last bit the same. Not so the next fold."""
    moment = ModelFolder.open(trained, KIND).folds[0].usable_from
    train_genome(PLAN, otherwise_after(market, moment), Period(folds=2), tmp_path / "otherwise")
    folders = [ModelFolder.open(folder, KIND) for folder in (trained, tmp_path / "otherwise")]
    told, again = (folder.lineage["training"][0] for folder in folders)
    assert told["validations"] == again["validations"]
    assert told["best_step"] == again["best_step"]
    kept = [[folder.read(number) for number in (0, 1)] for folder in folders]
    for name, array in kept[0][0].arrays.items():
        np.testing.assert_array_equal(array, kept[1][0].arrays[name], err_msg=name)
    assert kept[0][0].state["temperature"] == kept[1][0].state["temperature"]
    assert any((array != kept[1][1].arrays[name]).any() for name, array in kept[0][1].arrays.items())


def test_the_source_answers_the_test_bars_as_they_were_judged(trained, market):
    """What the table judges is what a backtest will hear, to the last bit."""
    config = PLAN.signals.genome.model_copy(update={"model": str(trained)})
    folder, design = open_genome(config)
    panel, folds, _ = genome._folds(PLAN, market, TWO, None)
    frame = Frame(panel, market, first=int(folds[0].test[0]))
    traces = GenomeSource(config).compute(frame).traces
    windows = Windows(genome_arrays(frame, config.frames), design.grid)
    for fold in folds:
        model = GenomeModel.load(folder, fold.number, design)
        judged = answers(model.net, windows, fold.test, temperature=model.temperature)
        found = traces["genome/trend"][fold.test]
        answered = np.isfinite(found).all(-1)
        assert answered.mean() > 0.9
        np.testing.assert_array_equal(found[answered], judged.trend.astype(np.float32).astype(np.float64)[answered])
        np.testing.assert_allclose(traces["genome/hold"][fold.test][answered], judged.hold[answered], rtol=1e-6)
        hidden = np.isfinite(judged.tokens[:, :, 0, 0])
        assert 0.05 < hidden.mean() < 0.2  # one in four bars of every second window
        assert not (hidden[1:] & hidden[:-1]).any()  # the bar before a hidden one was seen
    assert folder.numbers_at(np.array(folds[0].usable_from - 1)) == -1


def test_rare_tokens_teach_more_than_they_choose(market, tmp_path, monkeypatch):
    """Gradients weigh tokens .5; the looks at validation, which have none, .1."""
    real, told = genome_fold.genome_loss, set()

    def listening(*given, weights, **more):
        told.add((torch.is_grad_enabled(), weights))
        return real(*given, weights=weights, **more)

    monkeypatch.setattr(genome_fold, "genome_loss", listening)
    train_genome(PLAN, market, Period(folds=1), tmp_path / "genome")
    assert told == {(True, LossWeights()), (False, LossWeights(tokens=0.1))}


def test_climatology_is_how_often_the_levels_held_on_the_validation_bars(trained, market):
    """Not on the bars that taught: there the levels fit. Recomputed bar by bar from the kept model."""
    folder, design = open_genome(PLAN.signals.genome.model_copy(update={"model": str(trained)}))
    panel, folds, _ = genome._folds(PLAN, market, TWO, None)
    arrays = genome_arrays(Frame(panel, market), design.config.frames)
    ahead = outcomes(arrays, design.config.horizon_bars)
    for fold in folds:
        net = GenomeModel.load(folder, fold.number, design).net

        def held(rows, net=net):
            said = answers(net, Windows(arrays, design.grid), rows)
            closes = [np.repeat(reach[rows][..., None], 5, -1) for reach in (ahead.close_below, ahead.close_above)]
            reach, levels = np.concatenate(closes, -1), np.concatenate((said.supports, said.resistances), -1)
            return np.where(np.isfinite(reach + levels), reach <= levels, np.nan).reshape(-1, 10)

        judged = folder.lineage["by_fold"][fold.number]["scores"]["hold_brier"]["usual"]["estimate"]
        happened_so, brier = held(fold.test), {}
        for name, rows in (("validation", fold.validation), ("train", fold.train)):
            brier[name] = np.nanmean((np.nanmean(held(rows), axis=0) - happened_so) ** 2)
        assert judged == pytest.approx(brier["validation"], rel=1e-9)
        assert judged != pytest.approx(brier["train"], rel=1e-4)


def test_what_is_usual_is_counted_on_the_rows_asked_for_only(market):
    panel = build_panel(market, since=0, until=2**62)
    arrays = genome_arrays(Frame(panel, market), ("1h",))
    ahead = outcomes(arrays, 6)
    rows = np.arange(700, 1000)
    usual = usual_of(arrays, ahead, rows, supports=5, resistances=3)
    below = ahead.below[rows][np.isfinite(ahead.below[rows])]
    assert [(below <= level).mean() for level in usual.below] == pytest.approx([0.1, 0.3, 0.5, 0.7, 0.9], abs=0.01)
    assert usual.above[1] == pytest.approx(np.median(ahead.above[rows]))
    assert usual.hold[4] == pytest.approx((ahead.close_below[rows] <= usual.below[4]).mean())
    assert usual.trend == pytest.approx([(ahead.trend[rows] == k).mean() for k in range(3)], abs=0.01)
    on = [arrays.sets.tokens[row, a, 0, 0] for row in rows for a in range(2) if arrays.sets.tokens[row - 1, a, 0, 0]]
    assert usual.after_on[0, 0] == pytest.approx(np.mean(on), abs=0.01)
    assert usual.tokens[0, 0] == pytest.approx(arrays.sets.tokens[rows, :, 0, 0].mean(), abs=0.01)
    later = happened(arrays, ahead, rows)
    assert later.told.shape == (300, 2, 1, 16)
    changed = arrays.close.copy()
    changed[1000:] = 1.0  # what is known later only must not matter: rows end 6 bars before
    early = np.arange(700, 994)
    again = outcomes(type(arrays)(**{**vars(arrays), "close": changed, "log_close": np.log(changed)}), 6)
    for one, two in zip(usual_of(arrays, ahead, early, supports=5, resistances=3).as_arrays().values(), usual_of(
        arrays, again, early, supports=5, resistances=3).as_arrays().values(), strict=True):  # fmt: skip
        np.testing.assert_array_equal(one, two)
