"""Combinatorial trainings of a forecaster: what teaches a split has seen nothing that judges it, and every path passes every bar once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.time import DAY
from cryptoalpha.data.config import SimulatedConfig
from cryptoalpha.data.simulated import simulate
from cryptoalpha.learn.config import EvolutionConfig, FitConfig
from cryptoalpha.learn.splits.combinatorial import backtest_paths
from cryptoalpha.lifecycle.config import TrainConfig
from cryptoalpha.lifecycle.gates.combinatorial import Blocks, ForecasterRecipe, fold_of, forecaster_paths, prepared
from cryptoalpha.nets.config import EvoformerConfig, HeadsConfig
from cryptoalpha.signals.config import ForecastConfig, NewsConfig, TextConfig
from cryptoalpha.signals.forecast.model import ForecastDesign
from cryptoalpha.signals.text import EncoderId, open_encoder
from cryptoalpha.store.tables import Dataset

torch.set_num_threads(1)

TINY = EvoformerConfig(
    sequence_width=8, pair_width=4, head_width=4, heads=2, pair_heads=1, pair_head_width=4, outer_width=2, blocks=1
)  # fmt: skip
FORECAST = ForecastConfig(horizon_bars=(1, 6))


@pytest.fixture(scope="module")
def market() -> Dataset:
    return simulate(SimulatedConfig(assets=2, bars=24 * 100), 1).dataset


@pytest.fixture(scope="module")
def recipe(market) -> ForecasterRecipe:
    interval = next(iter(market.bars.values())).interval
    encoder = EncoderId.of(open_encoder(TextConfig()))
    design = ForecastDesign(TINY, HeadsConfig(), FORECAST, NewsConfig(), interval, encoder, sentiment=False)
    train = TrainConfig(epochs=1, batch=8, checks_per_epoch=1, learning_rate=2e-3, processes=1, embargo_days=1.0, stride_bars=2)
    fit = FitConfig(learning_rate=2e-3, batch=8, epochs=1)
    return ForecasterRecipe(design, train, fit, EvolutionConfig(), 0.001, 3, NewsConfig(), TextConfig(), tuple(sorted(market.bars)))


def ends_of(market: Dataset) -> tuple[int, int]:
    table = next(iter(market.bars.values()))
    return int(table.open_time[0]) + 40 * DAY, int(table.open_time[-1]) + table.interval


@pytest.mark.parametrize(("count", "tested", "splits"), [(4, 2, 6), (5, 1, 5), (6, 2, 15)])
def test_no_label_that_teaches_or_stops_a_split_touches_a_bar_that_judges_it(market, recipe, tmp_path, count, tested, splits):
    """The slow way: every teaching label's interval against every judging one's, with the embargo after."""
    material, rows, found = prepared(recipe, market, *ends_of(market), Blocks(count, tested), tmp_path / "out")
    assert len(found) == splits
    known = np.concatenate((np.zeros(material.arrays.begin, np.int64), material.arrays.known_at))
    ends = material.labels.all_known_at
    for number, split in enumerate(found):
        fold = fold_of(split, number, rows, material)
        assert len(fold.test)
        for learned in (fold.train, fold.validation):
            assert len(learned)
            begins_after = known[learned][:, None] > ends[fold.test][None, :] + DAY
            ends_before = ends[learned][:, None] < known[fold.test][None, :]
            assert (begins_after | ends_before).all()
        assert ends[fold.train].max() < known[fold.validation].min() - DAY
        assert fold.test_since - DAY > ends[fold.validation].max()  # else the recipe would drop labels that stop the training


def test_paths_have_a_return_for_every_day_and_the_same_training_gives_the_same_paths(market, recipe, tmp_path):
    since, until = ends_of(market)
    found = forecaster_paths(recipe, market, since, until, Blocks(4, 2), tmp_path / "a")
    assert found.splits == 6
    assert found.returns.shape[0] == len(backtest_paths(4, 2)) == 3
    assert found.returns.shape[1] in (59, 60)  # sixty days, the last of whose labels are not all settled
    assert np.isfinite(found.returns).all()
    assert (found.returns.std(axis=1) > 0.0).all()
    assert len({row.tobytes() for row in found.returns}) == 3  # three histories of the same days, each by other models
    again = forecaster_paths(recipe, market, since, until, Blocks(4, 2), tmp_path / "b")
    assert np.array_equal(found.returns, again.returns)
    assert not list(tmp_path.iterdir())  # nothing is left lying


def test_a_judgement_that_was_stopped_goes_on_with_the_splits_it_has(market, recipe, tmp_path, monkeypatch):
    from cryptoalpha.lifecycle.gates import combinatorial

    whole = forecaster_paths(recipe, market, *ends_of(market), Blocks(4, 1), tmp_path / "whole")
    train, trained = combinatorial.train_fold, []

    def counted(material, fold):
        if len(trained) == 2 and not (Path(material.out).parent / "again").exists():
            raise KeyboardInterrupt
        before = (material.out.with_name(f"{material.out.name}.partial") / f"result_{fold.number:02d}.safetensors").exists()
        trained.append((fold.number, before))
        train(material, fold)

    monkeypatch.setattr(combinatorial, "train_fold", counted)
    with pytest.raises(KeyboardInterrupt):
        forecaster_paths(recipe, market, *ends_of(market), Blocks(4, 1), tmp_path / "stopped")
    (tmp_path / "again").touch()
    trained.clear()
    found = forecaster_paths(recipe, market, *ends_of(market), Blocks(4, 1), tmp_path / "stopped")
    assert trained == [(0, True), (1, True), (2, False), (3, False)]
    assert np.array_equal(found.returns, whole.returns)


def test_too_few_bars_are_refused(market, recipe, tmp_path):
    since, _ = ends_of(market)
    with pytest.raises(ConfigError, match="too few for 6 blocks"):
        forecaster_paths(recipe, market, since, since + 11 * recipe.design.interval, Blocks(6, 2), tmp_path / "out")
