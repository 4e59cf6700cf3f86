"""Training end to end on a small made-up market: the same bits after an interruption, in one process or two; a leak gives itself away."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cryptoalpha.core.errors import ConfigError, DataMissingError
from cryptoalpha.data.config import SimulatedConfig
from cryptoalpha.data.simulated import simulate
from cryptoalpha.execution.config import CostConfig
from cryptoalpha.learn.config import EvolutionConfig, LearnConfig
from cryptoalpha.lifecycle.config import TrainConfig
from cryptoalpha.lifecycle.recipes import forecaster
from cryptoalpha.lifecycle.recipes.evolving import cached
from cryptoalpha.lifecycle.recipes.fold_progress import converged
from cryptoalpha.lifecycle.recipes.forecaster import Period, Plan, train_forecaster
from cryptoalpha.lifecycle.recipes.forecaster_fold import said
from cryptoalpha.lifecycle.recipes.forecaster_sentiment import Labelled, teach_sentiment
from cryptoalpha.lifecycle.recipes.trained import Trained
from cryptoalpha.lifecycle.recipes.workshop import Workshop
from cryptoalpha.nets.config import EvoformerConfig, NetsConfig
from cryptoalpha.signals.config import ForecastConfig, SignalsConfig
from cryptoalpha.signals.forecast.blocks import Blocks
from cryptoalpha.signals.forecast.model import KIND, ForecastModel, open_forecaster
from cryptoalpha.signals.forecast.source import ForecastSource
from cryptoalpha.signals.frame import Frame
from cryptoalpha.store.model_folder import ModelFolder
from cryptoalpha.store.tables import Dataset

torch.set_num_threads(1)

TINY = EvoformerConfig(
    sequence_width=8, pair_width=4, head_width=4, heads=2, pair_heads=1, pair_head_width=4, outer_width=2, blocks=1
)  # fmt: skip
TRAIN = TrainConfig(
    test_days=6, train_days=24, epochs=2, batch=8, checks_per_epoch=2, evolve_generations=3, learning_rate=2e-3, processes=1
)
PLAN = Plan(
    NetsConfig(preset="custom", evoformer=TINY),
    SignalsConfig(forecast=ForecastConfig(horizon_bars=(1, 6))),
    LearnConfig(evolution=EvolutionConfig(population=8)),
    TRAIN,
    CostConfig(),
    seed=3,
)


@pytest.fixture(scope="module")
def market() -> Dataset:
    return simulate(SimulatedConfig(assets=5, bars=24 * 60), 1).dataset


@pytest.fixture(scope="module")
def trained(market, tmp_path_factory) -> Path:
    """A model of two folds, trained in one process without an interruption."""
    out = tmp_path_factory.mktemp("models") / "forecaster"
    found = train_forecaster(PLAN, market, Period(folds=2), out)
    assert not found.already
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
    assert lineage["identity"]["seed"] == 3
    assert [one["fold"]["number"] for one in lineage["training"]] == [0, 1]
    assert lineage["windows"] == sum(one["windows"] for one in lineage["training"]) > 0
    assert [each["horizon_bars"] for each in lineage["horizons"]] == [1, 6]
    assert {"forecaster", "zero", "ewma", "ridge"} <= set(lineage["horizons"][-1]["scores"])
    assert lineage["verdict"]["words"].startswith("forecaster, 6 bars ahead: rank IC")
    assert (trained / "report.html").read_text().count("<svg") == 2
    assert "http" not in (trained / "report.html").read_text()


def test_nothing_of_what_judges_a_fold_is_in_it(trained, market, tmp_path):
    """Weights, scalers, temperatures: with other prices from its first test bar on, to the last bit the same. Not so the next fold."""
    moment = ModelFolder.open(trained, KIND).folds[0].usable_from
    train_forecaster(PLAN, otherwise_after(market, moment), Period(folds=2), tmp_path / "otherwise")
    folders = [ModelFolder.open(folder, KIND) for folder in (trained, tmp_path / "otherwise")]
    told, again = (folder.lineage["training"][0] for folder in folders)
    assert told["validations"] == again["validations"]
    assert told["best_step"] == again["best_step"]
    kept = [[folder.read(number) for number in (0, 1)] for folder in folders]
    for name, array in kept[0][0].arrays.items():
        np.testing.assert_array_equal(array, kept[1][0].arrays[name], err_msg=name)
    assert kept[0][0].state["strength"] == kept[1][0].state["strength"]
    assert any((array != kept[1][1].arrays[name]).any() for name, array in kept[0][1].arrays.items())


def test_the_source_answers_the_test_bars_as_they_were_judged(trained, market, tmp_path):
    """What the table judges is what a backtest will hear, to the last bit."""
    config = PLAN.signals.forecast.model_copy(update={"model": str(trained)})
    folder, design = open_forecaster(config, PLAN.signals.news)
    panel, folds = forecaster.panel_and_folds(PLAN, market, Period(folds=2), None)
    frame = Frame(panel, market, first=int(folds[0].test[0]))
    opinions = ForecastSource(config).compute(frame)
    arrays = forecaster.forecast_arrays(frame, config, forecaster.open_encoder(PLAN.signals.text), news=PLAN.signals.news)
    for fold in folds:
        model = ForecastModel.load(folder, fold.number, design)
        judged = said(model.net, Blocks(arrays, config), fold.test, model.scaler, arrays.present)
        found = opinions.impact[fold.test]
        answered = np.isfinite(found)
        assert answered.mean() > 0.9
        np.testing.assert_array_equal(found[answered], judged.location[:, :, -1][answered])
    assert folder.numbers_at(np.array([folds[0].usable_from - 1, folds[1].usable_from])).tolist() == [-1, 1]


def opinions_over_the_test(folder: Path, market: Dataset) -> tuple[Frame, np.ndarray]:
    """The frame of the test bars and the trace of sentiment over it."""
    panel, folds = forecaster.panel_and_folds(PLAN, market, Period(folds=2), None)
    frame = Frame(panel, market, first=int(folds[0].test[0]))
    config = PLAN.signals.forecast.model_copy(update={"model": str(folder)})
    return frame, ForecastSource(config).compute(frame).traces["forecast/sentiment"]


def test_without_labelled_texts_sentiment_is_unavailable(trained, market):
    lineage = ModelFolder.open(trained, KIND).lineage
    assert lineage["sentiment"] == {"available": False, "why": "unavailable: no labelled texts were given (--labelled)"}
    assert Trained(trained, lineage).training_lines()[-1] == "sentiment head unavailable: no labelled texts were given (--labelled)"
    assert np.isnan(opinions_over_the_test(trained, market)[1]).all()


def test_labelled_texts_teach_the_sentiment_head_of_every_fold_and_nothing_else(trained, market, tmp_path):
    """Sets of two and three classes teach the five; every other number of the model is what it is without them, to the last bit."""
    labelled, out = tmp_path / "labelled", tmp_path / "forecaster"
    labelled.mkdir()
    kinds = {"two": {"bullish": "surges", "bearish": "plunges"}, "three": {"positive": "soars", "neutral": "waits", "negative": "crashes"}}
    for name, verbs in kinds.items():
        rows = [f"{label},asset {i:b} {verb},2020-03-{1 + i % 28:02d}" for label, verb in verbs.items() for i in range(60)]
        dated = name == "two"
        lines = ["label,text,date" if dated else "label,text", *(row if dated else row.rpartition(",")[0] for row in rows)]
        (labelled / f"{name}.csv").write_text("\n".join(lines), encoding="utf-8")
    train_forecaster(PLAN, market, Period(folds=2), out, labelled=labelled)
    folder = ModelFolder.open(out, KIND)
    said = folder.lineage["sentiment"]
    assert said["available"]
    assert {name: one["texts"] for name, one in said["sets"].items()} == {"two": 120, "three": 180}
    assert [one["newest"] for one in said["sets"].values()] == [None, "2020-03-28T00:00:00Z"]  # three, two
    assert (said["after_test_since"], said["without_dates"]) == ([], ["three"])
    assert min(said["validation_macro_f1"]["mean"], said["test_macro_f1"]["mean"]) > 0.9
    assert set(folder.lineage["identity"]["labelled"]["files"]) == {"two.csv", "three.csv"}
    plain = ModelFolder.open(trained, KIND)
    config = PLAN.signals.forecast.model_copy(update={"model": str(out)})
    design, encoder = open_forecaster(config, PLAN.signals.news)[1], forecaster.open_encoder(PLAN.signals.text)
    head, _ = teach_sentiment(Labelled.read(labelled), design, encoder, test_since=0, seed=PLAN.seed)
    taught = {f"net/sentiment.{name}": values for name, values in head.items()}
    assert all(values.any() for values in taught.values())
    for number in (0, 1):
        mine, other = folder.read(number).arrays, plain.read(number).arrays
        assert mine.keys() == other.keys()
        for name in mine:
            assert mine[name].tobytes() == taught.get(name, other[name]).tobytes(), name
        assert not other["net/sentiment.out.weight"].any()
    net = ForecastModel.load(folder, 0, design).net
    vectors = torch.from_numpy(encoder.encode(["gold surges", "gold crashes"]))
    good, bad = net.read_sentiment(vectors).softmax(dim=-1).tolist()
    assert sum(good[3:]) - sum(good[:2]) > 0.2
    assert sum(bad[3:]) - sum(bad[:2]) < -0.2
    frame, trace = opinions_over_the_test(out, market)
    assert np.isfinite(trace[frame.first :]).mean() > 0.9
    with pytest.raises(ConfigError, match="a model of another training"):
        train_forecaster(PLAN, market, Period(folds=2), out)


def test_evolution_looks_at_the_expected_move_that_the_network_says(trained, market):
    config = PLAN.signals.forecast.model_copy(update={"model": str(trained)})
    folder, design = open_forecaster(config, PLAN.signals.news)
    model = ForecastModel.load(folder, 0, design)
    torch.nn.init.normal_(model.net.peers.weigh.weight)  # five steps of training leave it near zero, where nobody would miss it
    panel, folds = forecaster.panel_and_folds(PLAN, market, Period(folds=1), None)
    frame = Frame(panel, market)
    arrays = forecaster.forecast_arrays(frame, config, forecaster.open_encoder(PLAN.signals.text), news=PLAN.signals.news)
    blocks, rows = Blocks(arrays, config), folds[0].accept
    judged = said(model.net, blocks, rows, model.scaler, arrays.present)
    looked_at = cached(model.net, blocks, rows, model.scaler).expected(model.net)
    assert judged.location is not None
    np.testing.assert_allclose(looked_at, judged.location[:, :, -1], atol=1e-5)


@pytest.mark.parametrize("where", [3, pytest.param(900, marks=pytest.mark.slow)])
def test_an_interrupted_training_goes_on_to_the_same_bits(trained, market, tmp_path, monkeypatch, where):
    out, tell, sent = tmp_path / "forecaster", Workshop.tell, []

    def interrupt(self, number, done, what):
        tell(self, number, done, what)
        if number == 1 and done >= where and not sent:
            sent.append(done)
            if where > 800:
                raise KeyboardInterrupt  # between two parts of the recipe
            os.kill(os.getpid(), signal.SIGINT)  # in a step: it is ended, and kept

    monkeypatch.setattr(Workshop, "tell", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train_forecaster(PLAN, market, Period(folds=2), out)
    assert sent
    assert not out.exists()
    assert (out.with_name("forecaster.partial") / "result_00.safetensors").exists()
    with pytest.raises(ConfigError, match="interrupted training that differs in seed"):
        train_forecaster(replace(PLAN, seed=4), market, Period(folds=2), out)
    train_forecaster(PLAN, market, Period(folds=2), out)
    assert contents(out) == contents(trained)


@pytest.mark.slow
def test_two_processes_train_the_same_bits_as_one(trained, market, tmp_path):
    out, told = tmp_path / "forecaster", []
    plan = replace(PLAN, train=TRAIN.model_copy(update={"processes": 2}))
    train_forecaster(plan, market, Period(folds=2), out, tell=lambda done, of, what: told.append((done, of)))
    assert contents(out) == contents(trained)
    assert told
    assert all(0 <= done <= of == 2000 for done, of in told)


def test_what_lies_there_already_is_kept(trained, market, tmp_path):
    before = contents(trained)
    assert train_forecaster(PLAN, market, Period(folds=2), trained).already
    with pytest.raises(ConfigError, match="a model of another training"):
        train_forecaster(replace(PLAN, seed=8), market, Period(folds=2), trained)
    assert contents(trained) == before
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_bytes(b"")
    with pytest.raises(ConfigError, match="exists and is no forecaster"):
        train_forecaster(PLAN, market, Period(folds=2), tmp_path / "photos", fresh=True)
    assert (tmp_path / "photos" / "cat.png").exists()


def test_a_kill_between_the_two_renames_loses_neither_folder(trained, tmp_path):
    shop = Workshop(tmp_path / "model")
    shutil.copytree(trained, tmp_path / "model.previous")
    assert shop.finished(KIND) is not None  # the old one is back in its place
    assert shop.out.exists()
    assert not (tmp_path / "model.previous").exists()


def test_too_little_history_is_refused_before_anything_is_made(market, tmp_path):
    plan = replace(PLAN, train=TRAIN.model_copy(update={"train_days": 300}))
    with pytest.raises(DataMissingError, match=r"holds 60 days .* needs 306"):
        train_forecaster(plan, market, Period(), tmp_path / "forecaster")
    assert list(tmp_path.iterdir()) == []


def test_a_future_return_among_the_features_gives_itself_away(market, tmp_path, monkeypatch):
    """The labels' own move, put in as a feature: the training works as ever, and the verdict says to audit first."""
    real = forecaster.forecast_arrays

    def leaking(frame, config, encoder, **more):
        arrays = real(frame, config, encoder, **more)
        labels = forecaster.forecast_labels(frame.panel, frame.sigma, config)
        price = arrays.price.copy()
        price[:, :, 0] = labels.move[arrays.begin :, :, -1]
        return replace(arrays, price=price)

    monkeypatch.setattr(forecaster, "forecast_arrays", leaking)
    found = train_forecaster(PLAN, market, Period(folds=1), tmp_path / "leak")
    advice = found.lineage["verdict"]["audit_first"]
    assert "of ups and downs right 6 bars ahead (ridge)" in advice
    assert "cryptoalpha audit" in advice


def test_converged_means_two_looks_without_a_fall_of_a_thousandth():
    assert converged(np.array([2.0, 1.0, 0.9995, 0.9991]))
    assert not converged(np.array([2.0, 1.0, 0.9995, 0.998]))
    assert not converged(np.array([2.0, 1.0, 1.5]))
    assert not converged(np.array([2.0, 1.0]))
    assert converged(np.array([-1.0, -1.0005, -1.0004]))
