"""Train the cross-asset forecaster: walk-forward folds side by side, judged beside their baselines, kept with where they come from.

    trained = train_forecaster(plan, dataset, Period(), home / "models" / "forecaster")

Arrays and labels are computed once; each fold fits its scalers on its own training rows, begins its straight line at the fold's ridge,
trains, evolves the expected move towards net Sharpe after costs, calibrates its confidence, and answers its test bars, which no part of it
has seen. The folder is written whole at the end or not at all (`workshop`).
"""

from __future__ import annotations

import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cryptoalpha import __version__
from cryptoalpha.core.errors import DataMissingError
from cryptoalpha.core.time import DAYS_PER_YEAR, iso
from cryptoalpha.execution.config import CostConfig
from cryptoalpha.learn.config import LearnConfig
from cryptoalpha.lifecycle.config import TrainConfig
from cryptoalpha.lifecycle.recipes.baselines import NAMES
from cryptoalpha.lifecycle.recipes.folds import Fold, plan_folds
from cryptoalpha.lifecycle.recipes.forecaster_fold import MODEL, Material, read_result, train_fold
from cryptoalpha.lifecycle.recipes.forecaster_sentiment import UNAVAILABLE, Labelled, teach_sentiment
from cryptoalpha.lifecycle.recipes.judging import HorizonJudgement, judge
from cryptoalpha.lifecycle.recipes.page import page
from cryptoalpha.lifecycle.recipes.position_rule import daily, net_returns
from cryptoalpha.lifecycle.recipes.predictions import Predictions, joined
from cryptoalpha.lifecycle.recipes.trained import Trained, as_json
from cryptoalpha.lifecycle.recipes.verdict import verdict
from cryptoalpha.lifecycle.recipes.workshop import Tell, Workshop, side_by_side
from cryptoalpha.monitoring.bootstrap import Interval, sharpe_interval
from cryptoalpha.nets.config import NetsConfig
from cryptoalpha.nets.presets import forecaster_sizes
from cryptoalpha.signals.config import SignalsConfig
from cryptoalpha.signals.forecast.arrays import forecast_arrays
from cryptoalpha.signals.forecast.labels import correlation_horizon, forecast_labels
from cryptoalpha.signals.forecast.model import KIND, ForecastDesign, finish
from cryptoalpha.signals.frame import Frame
from cryptoalpha.signals.price_features import WARMUP_BARS
from cryptoalpha.signals.text import open_encoder
from cryptoalpha.signals.text.encoder import EncoderId
from cryptoalpha.store.model_folder import FoldFile
from cryptoalpha.store.panel import Panel, build_panel
from cryptoalpha.store.tables import Dataset
from cryptoalpha.store.whole_file import write_whole


@dataclass(frozen=True)
class Plan:
    """The settings of a training."""

    nets: NetsConfig
    signals: SignalsConfig
    learn: LearnConfig
    train: TrainConfig
    costs: CostConfig
    seed: int = 0


@dataclass(frozen=True)
class Period:
    """Which bars are used, and which of them are judged (UTC ns); None = as the data allow."""

    since: int | None = None
    until: int | None = None
    test_since: int | None = None
    test_until: int | None = None
    folds: int | None = 4
    """Folds at most, the newest."""


def train_forecaster(
    plan: Plan,
    dataset: Dataset,
    period: Period,
    out: Path,
    *,
    instruments: Sequence[str] | None = None,
    labelled: Path | None = None,
    fresh: bool = False,
    tell: Tell | None = None,
) -> Trained:
    """Train, judge, and leave the model at `out`.

    Args:
        labelled: a folder of labelled texts, or one file, that teach the sentiment head; without it sentiment is unavailable.
        fresh: begin anew, and replace a model that lies at `out`; without it an interrupted training is gone on with.
        tell: told where training stands.

    Raises:
        DataMissingError: if the history is too short, or there are no labelled texts where `labelled` says.
        DataError: if nothing there was labelled by people.
        ConfigError: if `out` holds something else, another model, or another training that was interrupted.
        ModelError: if a loss is not finite.
        KeyboardInterrupt: after Ctrl-C; what was reached is kept.
    """
    shop = Workshop(out)
    old = shop.finished(KIND, fresh=fresh)
    panel, folds = panel_and_folds(plan, dataset, period, instruments)
    texts = None if labelled is None else Labelled.read(labelled)
    encoder = open_encoder(plan.signals.text)
    design = ForecastDesign(
        sizes=forecaster_sizes(plan.nets), heads=plan.nets.heads, config=plan.signals.forecast, news=plan.signals.news,
        interval=panel.interval, encoder=EncoderId.of(encoder), sentiment=texts is not None,
    )  # fmt: skip
    frame = Frame(panel, dataset, first=int(folds[0].train[0]))
    arrays = forecast_arrays(frame, plan.signals.forecast, encoder, news=plan.signals.news)
    labels = forecast_labels(panel, frame.sigma, plan.signals.forecast)
    identity = _identity(plan, design, panel, arrays.fingerprint(), dataset, folds, texts)
    if (done := shop.begin(old, identity, fresh=fresh)) is not None:
        return Trained(out, done, already=True)
    cost = plan.costs.taker_fee + plan.costs.half_spread
    fit = plan.learn.fit.model_copy(
        update={"learning_rate": plan.train.learning_rate, "batch": plan.train.batch, "epochs": plan.train.epochs}
    )
    head, sentiment = None, dict(UNAVAILABLE)
    if texts is not None:
        head, sentiment = teach_sentiment(texts, design, encoder, test_since=folds[0].test_since, seed=plan.seed, tell=tell)
    material = Material(arrays, labels, steps_ahead(panel), design, plan.train, fit, plan.learn.evolution, cost, plan.seed, out, head)
    with shop.watched([fold.number for fold in folds], tell):
        side_by_side(partial(_given, material), train_fold, folds, processes=plan.train.processes)
    lineage = {"identity": identity, "sentiment": sentiment, **_judged(material, folds, shop)}
    _write(shop, design, folds, lineage)
    return Trained(out, as_json(lineage))


def _given(material: Material) -> Material:
    """What a worker holds: that which it was sent."""
    return material


def panel_and_folds(plan: Plan, dataset: Dataset, period: Period, instruments: Sequence[str] | None) -> tuple[Panel, tuple[Fold, ...]]:
    """The panel from the first bar that is looked at on, and the folds by its rows."""
    since, until = period.since or 0, period.until or np.iinfo(np.int64).max
    whole = build_panel(dataset, since=0, until=int(until), instruments=instruments)
    ends = _label_ends(whole, plan.signals)
    begin = int(np.searchsorted(whole.open_time, since))
    if begin >= len(whole):
        raise DataMissingError(f"{dataset.origin} has no bars from {iso(since)} on", hint="choose an earlier --since")
    bounds = {"test_since": period.test_since, "test_until": period.test_until, "most": period.folds}
    folds = plan_folds(whole.known_at[begin:], ends[begin:], plan.train, **bounds)
    config = plan.signals.forecast
    warm_up = max(WARMUP_BARS, 2 * max(config.correlation_bars)) + config.context_bars + config.block_bars
    cut = max(0, begin + int(folds[0].train[0]) - warm_up)
    panel = whole.rows(cut, len(whole))
    return panel, plan_folds_at(folds, begin - cut)


def plan_folds_at(folds: tuple[Fold, ...], shift: int) -> tuple[Fold, ...]:
    """The same folds over a panel whose rows are counted from elsewhere."""
    return tuple(
        replace(fold, train=fold.train + shift, accept=fold.accept + shift, validation=fold.validation + shift, test=fold.test + shift)
        for fold in folds
    )


def _label_ends(panel: Panel, signals: SignalsConfig) -> np.ndarray[Any, np.dtype[np.int64]]:
    """When the last label of each row is settled; a label that never is ends with the last moment there is."""
    longest = max(signals.forecast.horizon_bars[-1], correlation_horizon(signals.forecast, panel.interval))
    ends = np.full(len(panel), np.iinfo(np.int64).max, np.int64)
    ends[: max(0, len(panel) - 1 - longest)] = panel.known_at[1 + longest :]
    return ends


def steps_ahead(panel: Panel) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Simple return from the open after each row to the next one, `[T, N]`."""
    step = np.full(panel.open.shape, np.nan)
    step[:-2] = panel.open[2:] / panel.open[1:-1] - 1.0
    return step


def _identity(
    plan: Plan,
    design: ForecastDesign,
    panel: Panel,
    arrays: str,
    dataset: Dataset,
    folds: Sequence[Fold],
    texts: Labelled | None,
) -> dict[str, Any]:
    """What makes a training this one: everything that its result depends on."""
    found = {
        "version": __version__,
        "seed": plan.seed,
        "data": {"origin": dataset.origin, "fingerprint": dataset.fingerprint, "simulated": dataset.simulated, "arrays": arrays},
        "instruments": list(panel.instruments),
        "design": design.described(),
        "folds": [fold.as_dict() for fold in folds],
        "train": plan.train.model_dump(exclude={"processes"}),
        "fit": plan.learn.fit.model_dump(),
        "evolution": plan.learn.evolution.model_dump(),
        "costs": {"taker_fee": plan.costs.taker_fee, "half_spread": plan.costs.half_spread},
        **({} if texts is None else {"labelled": texts.identity()}),
    }
    return dict(as_json(found))


def _judged(material: Material, folds: Sequence[Fold], shop: Workshop) -> dict[str, Any]:
    """Everything that was found out."""
    import torch

    said, states = zip(*(read_result(shop, fold) for fold in folds), strict=True)
    names = [each.name for each in said[0]]
    models = [joined([found[place] for found in said], name) for place, name in enumerate(names)]
    outcomes = material.outcomes().rows(np.concatenate([fold.test for fold in folds]))
    horizons = judge(models[0], models[1:], outcomes, levels=material.design.heads.quantiles, seed=material.seed)
    sharpe = {each.name: _net_sharpe(material, folds, each) for each in models if each.location is not None}
    found = verdict(horizons, name=MODEL, net_sharpe=sharpe[MODEL].estimate)
    by_fold = [_of_fold(material, fold, list(one), state) for fold, one, state in zip(folds, said, states, strict=True)]
    return {
        "versions": {"cryptoalpha": __version__, "torch": torch.__version__, "numpy": np.__version__, "python": platform.python_version()},
        "model": MODEL,
        "horizons": [_horizon(each) for each in horizons],
        "net_sharpe": {name: _interval(each) for name, each in sharpe.items()},
        "not_installed": [name for name in NAMES if name not in names],
        "verdict": {"promoted": found.promoted, "reasons": list(found.reasons), "words": found.words, "audit_first": found.audit_first},
        "training": by_fold,
        "windows": sum(int(state["windows"]) for state in states),
        "bars_per_window": material.blocks.rows_per_block,
        "converged": all(bool(state["converged"]) for state in states),
    }


def _net_sharpe(material: Material, folds: Sequence[Fold], model: Predictions) -> Interval:
    """Sharpe ratio of the position rule over all test days, the book closed between folds."""
    assert model.location is not None
    parts, start = [], 0
    for fold in folds:
        stretch = material.stretch(fold.test)
        expected = model.location[start : start + len(fold.test), :, -1]
        parts.append(daily(net_returns(expected, stretch), stretch.known_at))
        start += len(fold.test)
    return sharpe_interval(np.concatenate(parts), periods_per_year=float(DAYS_PER_YEAR), seed=material.seed)


def _of_fold(material: Material, fold: Fold, said: list[Predictions], state: Mapping[str, Any]) -> dict[str, Any]:
    outcomes = material.outcomes().rows(fold.test)
    last = judge(said[0], [], outcomes, levels=(), seed=material.seed, resamples=200)[-1].scores[said[0].name]
    return {**state, "rank_ic": _interval(last["rank_ic"]), "accuracy": _interval(last["accuracy"])}


def _horizon(judged: HorizonJudgement) -> dict[str, Any]:
    def told(found: Mapping[str, Mapping[str, Interval]]) -> dict[str, Any]:
        return {name: {measure: _interval(value) for measure, value in measures.items()} for name, measures in found.items()}

    return {
        "horizon_bars": judged.horizon_bars,
        "moments": judged.moments,
        "pairs": judged.pairs,
        "mean_block": judged.mean_block,
        "base_rate": judged.base_rate,
        "scores": told(judged.scores),
        "differences": told(judged.differences),
        "tests": [vars(test) for test in judged.tests],
        "quantile_hits": {str(level): share for level, share in judged.quantile_hits.items()},
    }


def _interval(found: Interval) -> list[float]:
    """Estimate, low, high."""
    return [found.estimate, found.low, found.high]


def _write(shop: Workshop, design: ForecastDesign, folds: Sequence[Fold], lineage: Mapping[str, Any]) -> None:
    files = [FoldFile(**read_result(shop, fold)[1]["file"]) for fold in folds]
    kept = {file.file for file in files}
    for left in shop.draft.iterdir():
        if left.name not in kept:
            left.unlink() if left.is_file() else shutil.rmtree(left)
    clean = as_json(lineage)
    write_whole(shop.draft / "report.html", page(Trained(shop.out, clean)))
    finish(shop.draft, design, files, clean)
    shop.publish()
