"""Many backtests of one forecaster's recipe instead of one: combinatorial purged cross-validation, trained for real.

The history is cut into N blocks; for every choice of k of them the recipe is trained anew on the rest, purged of every label that touches
a test block and, for an embargo, of what follows one, and says what it expects in the blocks it did not see. The answers are joined to
paths that pass every bar once; the position rule turns each path into daily returns after costs. C(6, 2) = 15 trainings give 5 paths.

What is judged is the recipe (sizes, settings, data), not the weights: a path whose models learned from later bars is no backtest of a
trader, but luck in one stretch cannot carry all paths.

Departures from `train_forecaster`: validation is the newest share of each split's training bars, and nothing is evolved, for evolution
needs stretches without holes. Every split is kept as it is done, so a killed judgement goes on where it was.

Source: López de Prado (2018), chapter 12 (`learn.splits.combinatorial`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.time import DAY
from cryptoalpha.learn.config import EvolutionConfig, FitConfig
from cryptoalpha.learn.splits.combinatorial import CombinatorialSplit, along_path, backtest_paths, combinatorial_purged_cv
from cryptoalpha.learn.splits.labels import Indices
from cryptoalpha.lifecycle.config import TrainConfig
from cryptoalpha.lifecycle.gates.evidence import Floats, PathReturns, Times
from cryptoalpha.lifecycle.recipes.folds import Fold
from cryptoalpha.lifecycle.recipes.forecaster_fold import Material, read_result, train_fold
from cryptoalpha.lifecycle.recipes.position_rule import daily, net_returns
from cryptoalpha.lifecycle.recipes.workshop import Tell, Workshop, side_by_side
from cryptoalpha.signals.config import NewsConfig, TextConfig
from cryptoalpha.signals.forecast.arrays import forecast_arrays
from cryptoalpha.signals.forecast.labels import forecast_labels
from cryptoalpha.signals.forecast.model import ForecastDesign
from cryptoalpha.signals.frame import Frame
from cryptoalpha.signals.price_features import WARMUP_BARS
from cryptoalpha.signals.text import open_encoder
from cryptoalpha.store.panel import build_panel
from cryptoalpha.store.tables import Dataset

NOTHING = np.empty(0, np.int64)


@dataclass(frozen=True)
class ForecasterRecipe:
    """How a forecaster was made; what its lineage says."""

    design: ForecastDesign
    train: TrainConfig
    fit: FitConfig
    evolution: EvolutionConfig
    cost: float
    """Fraction of what is traded: fee and half spread."""
    seed: int
    news: NewsConfig
    text: TextConfig
    instruments: tuple[str, ...]


@dataclass(frozen=True)
class Blocks:
    """N blocks, of which k are tested at a time."""

    count: int
    tested: int


def forecaster_paths(
    recipe: ForecasterRecipe, dataset: Dataset, since: int, until: int, blocks: Blocks, out: Path, *, tell: Tell | None = None
) -> PathReturns:
    """Train every split on the bars that open in [`since`, `until`) and follow every path.

    Args:
        out: where splits are kept until all are done; the folder `out.partial` is removed at the end.

    Raises:
        ConfigError: if there are too few bars for so many blocks, or another judgement was interrupted at `out`.
        ModelError: if a loss is not finite.
    """
    material, rows, splits = prepared(recipe, dataset, since, until, blocks, out)
    folds = [fold_of(split, number, rows, material) for number, split in enumerate(splits)]
    shop = Workshop(out)
    identity = {
        "data": material.arrays.fingerprint(), "design": recipe.design.described(), "train": recipe.train.model_dump(exclude={"processes"}),
        "fit": recipe.fit.model_dump(), "cost": recipe.cost, "seed": recipe.seed, "blocks": [blocks.count, blocks.tested],
        "tests": [[int(fold.test[0]), int(fold.test[-1]), len(fold.train)] for fold in folds],
    }  # fmt: skip
    shop.open(identity, fresh=False)
    shop.draft.mkdir(parents=True, exist_ok=True)
    with shop.watched([fold.number for fold in folds], tell):
        side_by_side(partial(_given, material), train_fold, folds, processes=recipe.train.processes)
    said = [_expected(shop, fold) for fold in folds]
    stretch = material.stretch(rows)
    series = [
        daily(net_returns(along_path(path, splits, said), stretch), stretch.known_at)
        for path in backtest_paths(blocks.count, blocks.tested)
    ]
    shop.discard()
    return PathReturns(np.stack(series), len(folds))


def prepared(
    recipe: ForecasterRecipe, dataset: Dataset, since: int, until: int, blocks: Blocks, out: Path
) -> tuple[Material, Indices, list[CombinatorialSplit]]:
    """What all splits are made of, the rows of the panel that their positions count, and the splits."""
    config = recipe.design.config
    warm_up = max(WARMUP_BARS, 2 * max(config.correlation_bars)) + config.context_bars + config.block_bars
    panel = build_panel(dataset, since=since - warm_up * recipe.design.interval, until=until, instruments=recipe.instruments)
    first = max(int(np.searchsorted(panel.open_time, since)), 1)
    frame = Frame(panel, dataset, first=first)
    arrays = forecast_arrays(frame, config, open_encoder(recipe.text), news=recipe.news)
    labels = forecast_labels(panel, frame.sigma, config)
    ends: Times = labels.all_known_at
    rows = np.arange(max(first, arrays.begin), len(panel))
    rows = rows[ends[rows] <= int(panel.known_at[-1])]  # a label that is never settled teaches nothing and judges nothing
    if len(rows) < 2 * blocks.count:
        raise ConfigError(
            f"{len(rows)} labelled bars are too few for {blocks.count} blocks",
            hint="bring more history, or set lifecycle.gates.path_blocks lower",
        )
    embargo = round(recipe.train.embargo_days * DAY)
    found = combinatorial_purged_cv(panel.known_at[rows], ends[rows], blocks=blocks.count, tested=blocks.tested, embargo_ns=embargo)
    train = recipe.train.model_copy(update={"evolve_generations": 0})
    step = np.full(panel.open.shape, np.nan)
    step[:-2] = panel.open[2:] / panel.open[1:-1] - 1.0
    material = Material(arrays, labels, step, recipe.design, train, recipe.fit, recipe.evolution, recipe.cost, recipe.seed, out)
    return material, rows, list(found)


def fold_of(split: CombinatorialSplit, number: int, rows: Indices, material: Material) -> Fold:
    """The split as a fold: the newest share of its training rows stops the training; the older ones, purged of those, teach.

    Raises:
        ConfigError: if nothing is left to learn from.
    """
    begin = material.arrays.begin
    known, ends = material.arrays.known_at, material.labels.all_known_at
    train, test = rows[split.train], rows[split.test]
    count = max(1, round(material.train.validation_share * len(train)))
    validation = train[-count:]
    embargo = round(material.train.embargo_days * DAY)
    since = int(known[validation[0] - begin])
    teaching = train[:-count]
    teaching = teaching[ends[teaching] < since - embargo]
    if not len(teaching):
        raise ConfigError(f"split {number} has nothing left to learn from", hint="bring more history, or use fewer blocks")
    # The recipe takes labels known an embargo before the next stretch begins: here everything that validates was settled by then.
    over = int(ends[validation].max()) + embargo + 1
    moments = {"train_since": int(known[teaching[0] - begin]), "accept_since": since, "validation_since": since}
    return Fold(
        number, **moments, test_since=over, test_until=over + 1, train=teaching, accept=NOTHING, validation=validation, test=test
    )  # fmt: skip


def _expected(shop: Workshop, fold: Fold) -> Floats:
    """Move expected by the fold's model over the longest horizon, `[test rows, N]`."""
    said, _ = read_result(shop, fold)
    location: Any = said[0].location
    return np.asarray(location[:, :, -1], np.float64)


def _given(material: Material) -> Material:
    return material
